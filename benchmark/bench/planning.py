"""What planning costs: 2,000 cells at once, new ones and finished ones, and a cell of every shipped sweep.

Each measurement is a process of its own, from its first line that is not an import: reading YAML, resolving every row, reading
the store, deciding, pricing and printing the table, as `python -m benchmark.run SWEEP --plan` does.

    python -m benchmark.bench.planning WORDS...      the words of benchmark.run; prints seconds and cells as JSON
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Missing, Outcome, measured

ROOT = Path(__file__).resolve().parents[2]
BENCH, OURS = "planning", "Retable"
_SECOND, _EACH = Goal(most=1.0), Goal(most=50.0)
_LONGEST = 300  # seconds
_SEEDS = 5


@dataclass(frozen=True)
class Effort:
    """cells of the large sweep; processes for each measurement."""

    cells: int = 2_000
    repetitions: int = 5


QUICK = Effort(cells=100, repetitions=2)


def run(effort: Effort, announce: Announce) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        sweep, store = folder / "large.yaml", folder / "store"
        sweep.write_text(_text(effort.cells))
        announce(f"a store of {effort.cells:,} finished cells")
        finished(sweep, store)
        smoke = ["--profile", "smoke", "--plan", "--store"]
        for name, words, each in (
            (f"{effort.cells:,} cells, an empty store", [str(sweep), *smoke, str(folder / "none")], False),
            (f"{effort.cells:,} cells, all of them finished", [str(sweep), *smoke, str(store)], False),
            ("a cell, of every shipped sweep at once", ["--all", *smoke, str(folder / "none")], True),
        ):
            announce(f"planning {name}")
            try:
                _add(outcome, name, words, effort.repetitions, each)
            except _Failed as failed:
                outcome.missing.append(Missing(f"{BENCH}: {name}", OURS, str(failed)))
    return outcome


class _Failed(Exception):
    pass


def _add(outcome: Outcome, name: str, words: list[str], repetitions: int, each: bool) -> None:
    """each: the time of a cell in milliseconds and not that of all of them."""
    found = [_process(words) for _ in range(repetitions)]
    detail = f"{found[0]['cells']:,} cells; YAML, expansion, store, prices and the table's text"
    unit, goal, factor = ("ms", _EACH, 1000.0 / found[0]["cells"]) if each else ("s", _SECOND, 1.0)
    values = [factor * one["seconds"] for one in found]
    outcome.results.append(measured(f"{BENCH}: {name}", OURS, unit, values, goal, detail))


def _process(words: list[str]) -> dict[str, Any]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.bench.planning", *words],
        cwd=ROOT, env=plain, capture_output=True, text=True, timeout=_LONGEST,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _Failed(lines[-1] if lines else f"its process ended with exit code {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _text(cells: int) -> str:
    """A sweep of this many cells, as one writes a large one: a grid of two factors, five seeds a row."""
    wide = max(1, cells // _SEEDS // 20)
    rates = ", ".join(f"{0.01 * (number + 1):.2f}" for number in range(wide))
    targets = ", ".join(f"{0.9 + 0.004 * number:.3f}" for number in range(20))
    return f"""
question: How long does planning take?
base: {{method: byol, epochs: 4}}
grid: {{optimizer.learning_rate: [{rates}], target_ema: [{targets}]}}
seeds: {list(range(_SEEDS))}
profiles: {{smoke: {{set: {{data: {{name: shapes, train_images: 280, test_images: 100}}}}}}}}
"""


def finished(sweep: Path, store: Path) -> None:
    """A store in which every cell of the sweep has a record as large as a published one, with its evaluations."""
    from benchmark.plan.sweep import load_sweep

    example = next((ROOT / "reports" / "records" / "cells").glob("byol-*"))
    record = json.loads((example / "record.json").read_text())
    evaluations = [json.loads(path.read_text()) for path in (example / "evaluations").glob("*.json")]
    owner = {"token": 1, "host": "example", "pid": 1, "heartbeat": 0.0, "progress": {}, "released": "done", "note": ""}
    for cell in (cell for row in load_sweep(sweep).expand("smoke") for cell in row.cells):
        folder = store / "cells" / cell.id
        (folder / "evaluations").mkdir(parents=True)
        made: dict[str, Any] = {"record.json": record | {"id": cell.id, "config": cell.config}, "owner.json": owner}
        for number, evaluation in enumerate(cell.evaluations):
            like = evaluations[number % len(evaluations)]
            named = {"id": evaluation.id, "stage": evaluation.protocol["name"], "protocol": evaluation.protocol}
            made[f"evaluations/{evaluation.id}.json"] = like | named
        for name, value in made.items():
            (folder / name).write_text(json.dumps(value, indent=1))
        (folder / "checkpoint.pt").touch()


def _alone(words: list[str]) -> None:
    from benchmark.run import main

    printed = io.StringIO()
    begin = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        code = main(words)
    seconds = time.perf_counter() - begin
    if code:
        sys.exit(code)
    line = next(line for line in printed.getvalue().splitlines() if " cells have work left" in line)
    print(json.dumps({"seconds": seconds, "cells": int(line.split()[2])}))


if __name__ == "__main__":
    _alone(sys.argv[1:])
