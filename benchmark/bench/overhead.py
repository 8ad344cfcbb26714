"""What launching and recording cost: a sweep of tiny cells, its wall time beyond the seconds that the cells report themselves.

Ours is the whole command, `python -m benchmark.run` with the local launcher and one worker; the time until the first cell is
held (planning, starting the worker, importing torch) is told apart. The peer is submitit's local executor, which runs the very
same cells one after the other, a process for each, as its SLURM executor would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Missing, Outcome, Result, measured
from benchmark.launch.work import Site
from benchmark.store.record import read_json
from benchmark.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
BENCH, START = "launching and recording, a cell", "from the command to the first cell"
OURS, PEER = "Retable, --launcher local --jobs 1", "submitit, local executor"
_GOAL = Goal(most=2.0)
_LONGEST = 1200  # seconds
_SWEEP = """
question: What does it cost to launch and record a cell?
base:
  method: byol
  encoder: {{name: convnet, width: 0.25}}
  projector: {{hidden: 16, out: 8}}
  predictor: {{hidden: 16, out: 8}}
  data: {{name: shapes, train_images: 160, test_images: 80, image_size: 16}}
  optimizer: {{learning_rate: 0.05}}
  epochs: 5
  batch_size: 32
  queue: 64
rows:
  byol: {{}}
  contrastive: {{method: contrastive}}
seeds: [{seeds}]
evaluate: {{knn: {{k: 5}}, collapse: {{}}}}
profiles: {{smoke: {{}}}}
"""


@dataclass(frozen=True)
class Effort:
    """cells of a sweep, and how often it is run."""

    cells: int = 10
    repetitions: int = 3


QUICK = Effort(cells=2, repetitions=1)


def run(cache: Path, effort: Effort, announce: Announce) -> Outcome:
    outcome = Outcome()
    ours: list[float] = []
    starts: list[float] = []
    peers: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        sweep = folder / "sweep.yaml"
        sweep.write_text(_SWEEP.format(seeds=", ".join(str(seed) for seed in range(max(1, effort.cells // 2)))))
        announce("the sweep once, for converted images and compiled kernels")
        _local(sweep, folder / "first", cache)
        for number in range(effort.repetitions):
            announce(f"{OURS}, {number + 1} of {effort.repetitions}")
            store = folder / f"ours-{number}"
            begin = _local(sweep, store, cache)
            first, last, reported, count = _times(store)
            ours.append((last - first - reported) / count)
            starts.append(first - begin)
            announce(f"{PEER}, {number + 1} of {effort.repetitions}")
            try:
                peers.append(_submitit(store, folder / f"theirs-{number}", cache))
            except Exception as error:  # a peer that does not run costs its own line alone
                outcome.missing.append(Missing(BENCH, PEER, str(error).splitlines()[0] if str(error) else type(error).__name__))
    cells = f"{effort.cells} cells of a second; beyond the training and evaluation seconds in their records"
    outcome.results.append(measured(BENCH, OURS, "s", ours, _GOAL, cells))
    if peers:
        outcome.results[-1] = _beside(outcome.results[-1], peers)
        outcome.results.append(measured(BENCH, PEER, "s", peers, None, "the same cells, a process for each; " + cells))
    outcome.results.append(measured(START, OURS, "s", starts, None, "planning, the worker's start, importing torch"))
    return outcome


def _beside(result: Result, peers: list[float]) -> Result:
    """With the peer's median over ours: of seconds less is better."""
    median = sorted(peers)[len(peers) // 2]
    return replace(result, peer=PEER, ratio=median / max(result.median, 1e-9))


def _local(sweep: Path, store: Path, cache: Path) -> float:
    """Run the sweep as a user does; when the command was started, in seconds since the epoch."""
    command = [sys.executable, "-m", "benchmark.run", str(sweep), "--profile", "smoke", "--store", str(store), "--jobs", "1"]
    environment = {**os.environ, "RETABLE_CACHE": str(cache)}
    begin = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LONGEST)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
    return begin


def _times(store: Path) -> tuple[float, float, float, int]:
    """(when the first cell was held, when the last was given back, seconds that all report, cells)."""
    first, last, reported, count = float("inf"), 0.0, 0.0, 0
    for found in Store(store).cells():
        assert found.record is not None
        owner = read_json(found.folder / "owner.json")
        first, last, count = min(first, owner["started"]), max(last, owner["heartbeat"]), count + 1
        reported += found.record["timing"]["wall_seconds"]
        reported += sum(record["timing"]["wall_seconds"] for records in found.evaluations.values() for record in records)
    return first, last, reported, count


def one_cell(site: Site, cell_id: str) -> str:
    """What submitit's process does: one cell, in this process."""
    from benchmark.launch.worker import run_cell
    from benchmark.train.stop import StopRequest

    return run_cell(site, StopRequest(), cell_id, False, False, lambda stage, progress: None)[0]


def _submitit(planned: Path, store: Path, cache: Path) -> float:
    """The cells that another store was asked for, one after the other, by submitit: seconds of each beyond what it reports."""
    import submitit

    site = Site(str(store), str(cache), {}, "cpu", 1, 0, "auto")
    names = [found.id for found in Store(planned).cells()]
    for name in names:
        (store / "cells" / name).mkdir(parents=True)
        shutil.copy(planned / "cells" / name / "config.json", store / "cells" / name)
    executor = submitit.LocalExecutor(folder=store / "submitit")
    executor.update_parameters(timeout_min=20)
    begin = time.time()
    for name in names:
        status = executor.submit(one_cell, site, name).result()
        if status != "done":
            raise RuntimeError(f"{name} ended as {status}")
    wall = time.time() - begin
    _, _, reported, count = _times(store)
    return (wall - reported) / count
