"""What the health telemetry costs: a training step whose log somebody reads beside one whose log nobody does.

The training loop watches 50 to 100 steps of a whole training, a 1,000th of a long one. The goal is set for the shortest
training that is more than a trial, 200 steps, of which it watches one in four: reckoned, turn by turn, from the two steps.
"""

from __future__ import annotations

import statistics

import torch

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Outcome, Result, measured
from benchmark.bench.steps import UNIT, Effort, told, turns_of, watched_step
from benchmark.launch.machine import cores
from benchmark.train.loop import LOG_POINTS

# A contrastive method with a queue, narrow; one with a predictor; one of wide outputs; one with prototypes and assignments.
METHODS = ("mocov2", "byol", "vicreg", "swav")
STEPS = 200
EVERY = STEPS // LOG_POINTS
UNWATCHED, WATCHED = "the same step, unwatched", "Retable, every step watched"
TRAINING = f"Retable, a training of {STEPS} steps"
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
        training = [(a + (EVERY - 1) * b) / EVERY for a, b in zip(watched, unwatched, strict=True)]
        bench = f"health telemetry of {name}"
        for subject, values, goal in ((TRAINING, training, Goal(ratio=round(1 / _MOST, 3))), (WATCHED, watched, None)):
            ratio = statistics.median(b / a for a, b in zip(values, unwatched, strict=True))
            spread = statistics.median(values), min(values), max(values)
            aim, met = (goal.text(UNIT), goal.met(spread[0], ratio)) if goal else (None, None)
            outcome.results.append(Result(bench, subject, UNIT, *spread, UNWATCHED, ratio, aim, met, detail))
            detail = ""
        outcome.results.append(measured(bench, UNWATCHED, UNIT, unwatched))
    return outcome
