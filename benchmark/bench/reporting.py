"""What a report costs: on 10,000 records of the shipped sweeps, on 10,000 trainings with all theirs, on the committed ones.

Each measurement is the command itself, `python -m reports`, as a process of its own that writes the whole site. The first
report draws every figure; the next one only reads, joins and writes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Missing, Outcome, measured

ROOT = Path(__file__).resolve().parents[2]
BENCH, OURS = "report", "Retable"
_MANY, _COMMITTED = Goal(most=10.0), Goal(most=5.0)
_LONGEST = 600  # seconds
_SCALES = ("cifar10", "cpu", "imagenet100", "smoke", "imagenet")
_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Effort:
    """records of the first store; trainings of the second, of which each has several records; reports made of each."""

    records: int = 10_000
    trainings: int = 10_000
    repetitions: int = 3


QUICK = Effort(records=300, trainings=100, repetitions=1)


def run(effort: Effort, announce: Announce) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        announce(f"a store of {effort.records:,} records")
        cells = fill(folder / "records", records=effort.records)
        _measure(
            outcome, folder, folder / "records", f"{effort.records:,} records ({cells:,} trainings)", _MANY, effort, announce
        )
        announce(f"a store of {effort.trainings:,} trainings")
        fill(folder / "trainings", trainings=effort.trainings)
        _measure(outcome, folder, folder / "trainings", f"{effort.trainings:,} trainings", None, effort, announce)
        _measure(outcome, folder, None, "the committed records", _COMMITTED, effort, announce)
    return outcome


def _measure(
    outcome: Outcome, folder: Path, store: Path | None, name: str, goal: Goal | None, effort: Effort, announce: Announce
) -> None:
    first, again = [], []
    try:
        for number in range(effort.repetitions):
            announce(f"the report on {name}, {number + 1} of {effort.repetitions}")
            out = folder / f"{name.partition(' ')[0]}-{number}-{store is None}"
            first.append(_seconds(store, out))
            again.append(_seconds(store, out))
    except _Failed as failed:
        outcome.missing.append(Missing(f"{BENCH} on {name}", OURS, str(failed)))
        return
    detail = "the whole site from nothing, every figure drawn"
    outcome.results.append(measured(f"{BENCH} on {name}, the first", OURS, "s", first, goal, detail))
    detail = "made again over the first one: figures whose numbers did not change stay"
    outcome.results.append(measured(f"{BENCH} on {name}, again", OURS, "s", again, goal, detail))


class _Failed(Exception):
    pass


def _seconds(store: Path | None, out: Path) -> float:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")}
    words = ["--store", str(store), "--records", str(out / "none")] if store else ["--store", str(ROOT / "reports" / "records")]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "reports", "--out", str(out), *words],
        cwd=ROOT, env=plain, capture_output=True, text=True, timeout=_LONGEST,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _Failed(lines[-1] if lines else f"its process ended with exit code {done.returncode}")
    return time.perf_counter() - begin


def fill(store: Path, records: int | None = None, trainings: int | None = None) -> int:
    """Write so many records, or trainings with theirs, of every shipped sweep as if they had been run; returns the trainings.

    As large as published records, curves and all; the numbers are drawn, each row around a mean of its own.
    """
    example = next((ROOT / "reports" / "records" / "cells").glob("byol-*"))
    template = json.loads((example / "record.json").read_text())
    known = [json.loads(path.read_text()) for path in sorted((example / "evaluations").glob("*.json"))]
    count = written = 0
    for cell in _cells():
        if (records is not None and written >= records) or (trainings is not None and count >= trainings):
            break
        folder = store / "cells" / cell.id
        (folder / "evaluations").mkdir(parents=True)
        draw = random.Random(cell.id)
        centre = random.Random(str(cell.config["method"]) + str(cell.config.get("epochs"))).uniform(40, 90)
        record = template | {"id": cell.id, "config": cell.config, "data": {"name": cell.config["data"]["name"]}}
        (folder / "record.json").write_text(json.dumps(record, indent=1))
        for evaluation in cell.evaluations:
            named = {
                "id": evaluation.id,
                "stage": evaluation.protocol["name"],
                "protocol": evaluation.protocol,
                "cell": cell.id,
            }
            made = known[0] | named | {"metrics": _numbers(evaluation.protocol["name"], centre, draw)}
            (folder / "evaluations" / f"{evaluation.id}.json").write_text(json.dumps(made, indent=1))
        count, written = count + 1, written + 1 + len(cell.evaluations)
    return count


def _numbers(stage: str, centre: float, draw: random.Random) -> dict[str, float]:
    value = draw.gauss(centre, 0.4)
    if stage == "collapse":
        return {"std": draw.gauss(0.8, 0.02), "effective_rank": 40.0, "pair_cosine": 0.2}
    if stage.startswith("detection"):
        return {prefix + key: value for prefix in ("", "mask_", "voc07_") for key in ("AP", "AP50", "AP75")}
    return {"top1": value, "top5": min(100.0, value + 8)}


def _cells() -> Iterator[Any]:
    """Cells of every sweep, each once, seeds 0 to 2 at every scale and then further seeds."""
    from benchmark.plan.resolve import DataIdentity
    from benchmark.plan.sweep import load_sweep

    seen: set[str] = set()
    sweeps = [load_sweep(path) for path in sorted((ROOT / "sweeps").glob("*.yaml"))]
    content = {name: DataIdentity(name, "0123456789ab") for name in ("cifar10", "cifar100", "imagenet", "imagenet100", "stl10")}
    for first in range(0, 1000, len(_SEEDS)):
        for scale in _SCALES:
            for sweep in (sweep for sweep in sweeps if scale in sweep.profiles):
                for row in sweep.expand(scale, content, seeds=[first + seed for seed in _SEEDS]):
                    for cell in row.cells:
                        if cell.id not in seen:
                            seen.add(cell.id)
                            yield cell
