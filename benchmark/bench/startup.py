"""How long a new process waits for its first batch, with the kernels compiled already and without."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmark.bench import images, ours
from benchmark.bench.contender import Announce
from benchmark.bench.images import Work
from benchmark.bench.record import Goal, Missing, Outcome, measured
from benchmark.launch.machine import cores
from methods.views import RECIPES

ROOT = Path(__file__).resolve().parents[2]
WARM, COLD = "first batch of a second process", "first batch, kernels compiled in this process"
_WARM_GOAL, _COLD_GOAL = Goal(most=3.0), Goal(most=30.0)
_LONGEST = 600  # seconds


def run(data: str | None, cache: Path, repetitions: int, announce: Announce) -> tuple[Outcome, dict[str, str]]:
    """Each backend in fresh processes: one with an empty folder for numba's cache, then one that finds it filled; repeated."""
    dataset, words = images.small(data, cache, announce)
    view = RECIPES["simclr"][0]
    work = Work(dataset, (), (view, view), images.SMALL_SIDE, min(256, dataset.counts["train"]), cores())
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        file = Path(scratch) / "work.pickle"
        file.write_bytes(pickle.dumps(work))
        for backend in ours.BACKENDS:
            try:
                outcome.add(_one(file, backend, repetitions, Path(scratch), announce))
            except _Failed as failed:
                outcome.missing.append(Missing(WARM, ours.name(backend), str(failed)))
    return outcome, {"small": words}


class _Failed(Exception):
    pass


def _one(work: Path, backend: str, repetitions: int, scratch: Path, announce: Announce) -> Outcome:
    cold: dict[str, list[float]] = defaultdict(list)
    warm: dict[str, list[float]] = defaultdict(list)
    for number in range(repetitions):
        compiled = scratch / f"{backend}-{number}"
        for what, times in (("cold", cold), ("warm", warm)):
            announce(f"start of {ours.name(backend)}, {what}, {number + 1} of {repetitions}")
            for name, seconds in _process(work, backend, compiled).items():
                times[name].append(seconds)
    name, note = ours.name(backend), "from the call of open_loader; torch is imported, the files are in the page cache"
    outcome = Outcome([measured(WARM, name, "s", warm["opening"], _WARM_GOAL, note)])
    whole = "from the start of the process, {:.2f} s of it for importing torch"
    importing = sorted(warm["import"])[len(warm["import"]) // 2]
    outcome.results.append(measured(f"{WARM}, all of it", name, "s", warm["all"], detail=whole.format(importing)))
    outcome.results.append(measured(COLD, name, "s", cold["opening"], _COLD_GOAL, note))
    return outcome


def _process(work: Path, backend: str, compiled: Path) -> dict[str, float]:
    """Seconds of one process: to open and get a batch, to import torch, and in all."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(compiled)}
    begin = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.bench.first_batch", str(work), backend],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LONGEST,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _Failed(lines[-1] if lines else f"its process ended with exit code {done.returncode}")
    at = json.loads(done.stdout.splitlines()[-1])
    return {"opening": at["first"] - at["opening"], "import": at["imported"] - at["started"], "all": at["first"] - begin}
