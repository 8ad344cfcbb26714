"""The golden table: a sweep of ten toy rows at two profiles, its records on disk, and the files they must render to.

python -m tests.reports.toy      writes golden/expected anew; look at the difference before committing it
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from reports import render_csv, render_latex, render_markdown
from reports.assemble import Report, assemble
from reports.evidence import experiment_key, read_evidence
from reports.planned import Plan, PlannedRow, Profile
from reports.reference import read_references
from reports.spec import read_tables
from tests.reports.builder import PROTOCOLS, config, curves, numbers, write_run

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("same", "other", "near", "single", "zero", "lost", "absent", "random")
RENDERERS = {"md": render_markdown.render, "tex": render_latex.render, "csv": render_csv.render}


def settings(row: str, profile: str, seed: int, **more: Any) -> dict[str, Any]:
    method = "random" if row == "random" else "byol"
    epochs = 10 if profile == "imagenet" else 1
    return config(method, seed, **({"name": "toy", "epochs": epochs, "row": row, "encoder": {"name": "net"}} | more))


def plan() -> Plan:
    profiles = {}
    for profile in ("smoke", "imagenet"):
        base = f"python -m benchmark.run sweeps/toy.yaml --profile {profile}"
        rows = {}
        for name in NAMES:
            one = settings(name, profile, 0)
            rows[name] = PlannedRow(
                name=name,
                key=experiment_key(one),
                method=one["method"],
                version=1,
                config=one,
                protocols={str(protocol["name"]): protocol for protocol in PROTOCOLS},
                seeds=(0, 1, 2),
                command=f"{base} --only row={name}",
            )
        profiles[profile] = Profile(profile, f"the {profile} scale", rows, base)
    return Plan("Is this a toy?", NAMES, profiles)


def report(store: Path, profile: str | None = None) -> Report:
    specs = read_tables(GOLDEN / "tables", read_references(GOLDEN / "reference"))
    return assemble(specs, {"sweeps/toy.yaml": plan()}, read_evidence([store]), profile)


def write_store(store: Path) -> None:
    """Every kind of row at the paper's profile; a second data set, an older method version and an older protocol beside it."""

    def run(name: str, seed: int, linear: float, std: float, profile: str = "imagenet", **more: Any) -> None:
        made = settings(name, profile, seed, **more)
        write_run(store, made, numbers(linear, linear - 1.5, std), series=curves(4.0, 1.0, std, points=5), note="toy images")

    for seed in range(3):
        run("same", seed, 57.5 + 0.2 * seed, 0.84 + 0.02 * seed)
        run("other", seed, 40.0 + 0.1 * seed, 0.8)
        run("near", seed, 48.0 + 1.5 * seed, 0.7)
        run("zero", seed, 0.0, 0.01 * seed)
        run("random", seed, 49.0 + 0.1 * seed, 0.6)
        write_run(store, settings("lost", "imagenet", seed), {}, status="diverged")
    run("single", 0, 48.3, 0.05)
    run("same", 0, 12.0, 0.3, content="bbbbbbbbbbbb")
    run("same", 3, 11.0, 0.3, version=0)
    old = (PROTOCOLS[0], {"name": "linear", "version": 0}, PROTOCOLS[2])
    write_run(store, settings("other", "imagenet", 3), numbers(99.0, 38.5, 0.8), protocols=old)


def rendered(store: Path) -> dict[str, str]:
    """The text of every format, by its file ending."""
    tables = report(store).tables
    return {ending: render(tables) for ending, render in RENDERERS.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder))
        for ending, text in rendered(Path(folder)).items():
            (GOLDEN / "expected" / f"toy.{ending}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
