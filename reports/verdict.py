"""What our runs say about one published number: pure functions, in words.

The test is one of equivalence, not of difference: a number is *reproduced* when the whole interval of our mean lies
within the paper's number +- margin, and *differs* when all of it lies outside. Anything else is *undecided*, with the
number of further seeds that would probably settle it. One seed has no interval and so never reproduces anything.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from reports.aggregate import LEVEL, Measured, t_quantile
from reports.metrics import Metric
from reports.reference import MEANING, Reference

Kind = Literal["reproduced", "differs", "undecided", "not comparable", "not run"]
POWER = 0.8
MOST_SEEDS = 200  # beyond this the honest advice is that seeds will not settle it


@dataclass(frozen=True)
class Verdict:
    """kind is one of five words; sentence explains it; more_seeds says how many further seeds an undecided row needs
    (None when no affordable number would do or none is missing)."""

    kind: Kind
    sentence: str
    more_seeds: int | None = None


def seeds_needed(std: float, distance: float, have: int, level: float = LEVEL) -> int | None:
    """Further seeds after which an interval of this level will, with probability `POWER`, stay on one side of an edge this
    far away.

    The usual two-term formula, (t + z) std / sqrt(n) <= distance, with Student's t for the n in question and the
    present mean and standard deviation taken as the true ones. None when even `MOST_SEEDS` do not suffice.
    """
    z = NormalDist().inv_cdf(POWER)

    def enough(n: int) -> bool:
        return (t_quantile(n - 1, level) + z) * std / math.sqrt(n) <= distance

    fewest = max(have + 1, 2)
    if fewest > MOST_SEEDS or not enough(MOST_SEEDS):
        return None
    return bisect_left(range(fewest, MOST_SEEDS), True, key=enough) + fewest - have  # once enough, more are enough too


def advice(more: int | None, of: str = "") -> str:
    """The end of a sentence about something undecided; `of` says what the seeds are of."""
    if more is None:
        return f"more than {MOST_SEEDS} seeds would be needed: it lies on the edge"
    return f"about {more} more {'seed' if more == 1 else 'seeds'}{of} would probably decide it"


def compare(
    measured: Measured, reference: Reference | None, margin: float, metric: Metric, not_comparable: str = ""
) -> Verdict:
    """The verdict on one row. `not_comparable`: why it cannot be held against the paper's number ('' if it can)."""
    if measured.estimate is None and not measured.diverged:
        return Verdict("not run", measured.missing)
    reason = _incomparable(measured, reference, not_comparable)
    if reason or reference is None or reference.value is None:
        return Verdict("not comparable", reason + _diverged_note(measured))
    paper = reference.value
    target = f"{reference.printed} ± {margin:g}"
    total = measured.n + measured.diverged
    if measured.estimate is None:
        return Verdict("differs", f"all {total} seeds diverged; the paper prints {reference.printed}" if total > 1 else
                       f"the one seed diverged; the paper prints {reference.printed}")  # fmt: skip
    if measured.diverged:
        return Verdict(
            "undecided",
            f"{measured.diverged} of {total} seeds diverged: the mean is over the survivors only, so it proves nothing",
        )
    mean, low, high = measured.estimate.mean, measured.estimate.low, measured.estimate.high
    if low is None or high is None or measured.estimate.std is None:
        where = "inside" if abs(mean - paper) <= margin else "outside"
        return Verdict("undecided", f"one seed has no interval; its value lies {where} {target}; at least 1 more seed", 1)
    bootstrap = "bootstrap " if measured.estimate.kind == "bootstrap" else ""
    bounds = f"[{metric.shown(low)}, {metric.shown(high)}]"
    interval = f"{100 * measured.estimate.level:g}% {bootstrap}interval {bounds}"
    if low >= paper - margin and high <= paper + margin:
        return Verdict("reproduced", f"the whole {interval} lies within {target}")
    if high < paper - margin or low > paper + margin:
        side = "below" if high < paper - margin else "above"
        return Verdict("differs", f"the whole {interval} lies {side} {target}")
    more = seeds_needed(measured.estimate.std, abs(margin - abs(mean - paper)), measured.n)
    return Verdict("undecided", f"the {interval} reaches across an edge of {target}; {advice(more)}", more)


def _incomparable(measured: Measured, reference: Reference | None, not_comparable: str) -> str:
    if measured.stale:
        return f"only runs {measured.stale} exist"
    if reference is None:
        return "the paper has no such row"
    if reference.value is None:
        return f"the paper's number is not established ({reference.status})"
    if not reference.gates:
        return f"the paper's number is not checked ({reference.status}: {MEANING[reference.status]})"
    return not_comparable


def _diverged_note(measured: Measured) -> str:
    if not measured.diverged:
        return ""
    return f"; {measured.diverged} of {measured.n + measured.diverged} seeds diverged"
