"""The golden tree: a small project with two sweeps and three tables, records of every kind, and the files they must render to.

python -m tests.reports.toy      writes golden/expected anew; look at the difference before committing it
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.plan.sweep import DataIdentity, load_sweep
from reports import build, render_csv, render_json, render_latex, render_markdown
from reports.assemble import Report
from tests.reports.builder import numbers, write_run

GOLDEN = Path(__file__).parent / "golden"
CONTENT, OTHER_CONTENT = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
RENDERERS = {
    "md": render_markdown.render,
    "tex": render_latex.render,
    "csv": render_csv.render,
    "json": render_json.render,
}


def sources(store: Path) -> build.Sources:
    return build.Sources([store], GOLDEN, GOLDEN / "tables", GOLDEN / "reference")


def report(store: Path) -> Report:
    return build.load(sources(store))


def write(
    store: Path,
    sweep: str,
    row: str,
    seed: int,
    metrics: dict[str, dict[str, float]],
    content: str = CONTENT,
    version: int | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    **more: Any,
) -> str:
    """One record of a row of a golden sweep at the paper's profile; `version` of its method if not today's."""
    images = {"cifar10": DataIdentity("cifar10", content)}
    planned = load_sweep(GOLDEN / "sweeps" / f"{sweep}.yaml").expand("cifar10", images, [seed])
    (cell,) = next(each for each in planned if each.name == row).cells
    settings = cell.config | ({} if version is None else {"version": version})
    protocols = tuple(change(protocol) for protocol in cell.protocols)
    return write_run(store, settings, metrics, protocols=protocols, note="raw pixels", **more)


def _older(protocol: dict[str, Any]) -> dict[str, Any]:
    """The linear probe as it was once: its numbers are not those of today's."""
    return protocol | ({"version": 0} if protocol["name"] == "linear" else {})


def write_store(store: Path) -> None:
    """Every kind of row; a second data set, an older version of a method and an older protocol beside it."""

    def heads(row: str, seed: int, linear: float, std: float, **more: Any) -> None:
        write(store, "heads", row, seed, numbers(linear, max(0.0, linear - 1.5), std), departures=("no color jitter_",), **more)

    for seed in range(3):
        heads("same", seed, 57.5 + 0.2 * seed, 0.84 + 0.02 * seed)
        heads("other", seed, 40.0 + 0.1 * seed, 0.8)
        heads("near", seed, 48.0 + 1.5 * seed, 0.7)
        heads("zero", seed, 0.0, 0.01 * seed)
        heads("Random init", seed, 9.0 + 0.1 * seed, 0.6)
        write(store, "heads", "lost", seed, {}, status="diverged")
    heads("single", 0, 48.3, 0.05)
    heads("same", 0, 12.0, 0.3, content=OTHER_CONTENT)
    heads("same", 3, 11.0, 0.3, version=0)
    write(store, "heads", "other", 3, numbers(99.0, 38.8, 0.8), change=_older)
    for seed in range(2):
        for row, value in (("short", 50.1), ("long", 59.9), ("large short", 40.0), ("large long", 45.0)):
            write(store, "lengths", row, seed, numbers(value + 0.1 * seed, value - 3.0, 0.8))


def rendered(store: Path) -> dict[str, str]:
    """The text of every file, by its name. (The pages: tests.reports.golden_site.)"""
    found = report(store)
    assert found.problems == ()
    return {f"{name}.{ending}": render(shown) for name, shown in found.by_id.items() for ending, render in RENDERERS.items()}


def main() -> None:
    """Write what is expected, and nothing that is not."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder))
        texts = rendered(Path(folder))
    for path in (GOLDEN / "expected").iterdir():
        path.unlink()
    for name, text in texts.items():
        (GOLDEN / "expected" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
