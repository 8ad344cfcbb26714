"""What the health telemetry costs: a training step whose log somebody reads beside one whose log nobody does.

The training loop watches 50 to 100 steps of a whole training; here every step is, so what a long training pays is far less.
"""

from __future__ import annotations

import statistics

import torch

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Outcome, Result, measured
from benchmark.bench.steps import UNIT, Effort, told, turns_of, watched_step
from benchmark.launch.machine import cores

# A contrastive method with a queue, narrow; one with a predictor; one of wide outputs; one with prototypes and assignments.
METHODS = ("mocov2", "byol", "vicreg", "swav")
OURS, UNWATCHED = "Retable, every step watched", "the same step, unwatched"
_MOST = 1.02  # times the unwatched step


def run(effort: Effort, announce: Announce) -> Outcome:
    """Each method's two steps take turns within one process."""
    outcome = Outcome()
    torch.set_num_threads(cores())
    detail = told(effort)
    for name in METHODS:
        announce(f"health telemetry of {name}")
        times = turns_of({"watched": watched_step(name, effort, True), "unwatched": watched_step(name, effort, False)}, effort)
        watched, unwatched = times["watched"], times["unwatched"]
        ratio = statistics.median(b / a for a, b in zip(watched, unwatched, strict=True))
        goal, median = Goal(ratio=round(1 / _MOST, 3)), statistics.median(watched)
        bench, least = f"health telemetry of {name}", goal.text(UNIT)
        spread = median, min(watched), max(watched)
        met = goal.met(median, ratio)
        outcome.results.append(Result(bench, OURS, UNIT, *spread, UNWATCHED, ratio, least, met, detail))
        outcome.results.append(measured(bench, UNWATCHED, UNIT, unwatched))
        detail = ""
    return outcome
