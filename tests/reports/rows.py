"""Rows for claims, by their numbers alone."""

from __future__ import annotations

from typing import Any

from reports.aggregate import Measured, estimate
from reports.claims import Side
from reports.metrics import Metric

ACCURACY = Metric("linear", "top1", "linear", "%", 1, True)
HOURS = Metric("pretrain", "hours", "training time", "h", 1, False)
NEITHER = Metric("collapse", "effective_rank", "effective rank", "", 1, None)


def side(name: str, *values: float, **more: Any) -> Side:
    return Side(name, Measured(estimate(values) if values else None, missing="" if values else "no record", **more))


def row(name: str, mean: float, std: float = 1.0) -> Side:
    """Three seeds with exactly this mean and sample standard deviation: the variance of the mean is std²/3."""
    return side(name, mean - std, mean, mean + std)


UNTRAINED = row("untrained", 5.0, 0.1)


def p_of_four(t: float) -> float:
    """The two-sided p-value of Student's t with 4 degrees of freedom, from its closed form
    F(t) = 1/2 + 3/8 · t/√(1 + t²/4) · (1 - t²/(12 (1 + t²/4)))."""
    root = (1 + t * t / 4) ** 0.5
    return 1 - 2 * (3 / 8) * (abs(t) / root) * (1 - t * t / (12 * root * root))
