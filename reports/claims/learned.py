"""Whether a row is better than the untrained network, without which its accuracy says nothing about what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.aggregate import LEVEL
from reports.claims.judged import ClaimVerdict, Outcome, Part, Side, better_sign, decide
from reports.claims.welch import difference
from reports.metrics import Metric


@dataclass(frozen=True)
class Learned:
    """Why it is not known that a row has learned ('' when it has, or need not), and the test of it where there was one."""

    words: str = ""
    part: Part | None = None
    waits_for_baseline: bool = False


def learned(side: Side, baseline: Side | None, metric: Metric, level: float = LEVEL) -> Learned:
    """Whether the row's whole interval is on the better side of the untrained network's. Without such a row: it need not."""
    if baseline is None:
        return Learned()
    if baseline.measured.estimate is None or baseline.measured.stale:
        return Learned(f"{baseline.name} has not been measured")
    found = difference(side.estimate, baseline.measured.estimate, level)
    if found is None:
        return Learned(f"{baseline.name} has one seed only", waits_for_baseline=True)
    p = found.p_above() if better_sign(metric) > 0 else found.p_below()
    part = Part.of(found, p, found.mean, untrained=True)
    if p <= 1 - level:
        return Learned(part=part)
    return Learned(f"{side.name} is not {_better(metric)} {baseline.name}", part)


def best(sides: Sequence[Side], metric: Metric) -> Side:
    """The row with the best mean."""
    sign = better_sign(metric)
    return max(sides, key=lambda side: sign * side.estimate.mean)


def decide_if_learned(
    outcome: Outcome,
    sentence: str,
    parts: Sequence[Part],
    side: Side,
    baseline: Side | None,
    metric: Metric,
    level: float = LEVEL,
) -> ClaimVerdict:
    """The decision, provided that this row, the best one in it, has learned at all.

    This can only withhold a decision. A wrong one is not made more probable by picking the best row for it.
    """
    found = learned(side, baseline, metric, level)
    every = [*parts, *([found.part] if found.part else [])]
    if found.words:
        reason = f"{sentence}, but {found.words}, so accuracy cannot decide at this scale"
        p = max(part.p for part in every) if found.part else None
        return ClaimVerdict("undecided", reason, waits_for_baseline=found.waits_for_baseline, p=p)
    end = f", and {side.name} is {_better(metric)} {baseline.name}" if baseline else ""
    return decide(outcome, sentence + end, every)


def _better(metric: Metric) -> str:
    return "below" if metric.higher_is_better is False else "above"
