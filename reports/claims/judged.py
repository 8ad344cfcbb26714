"""What goes into a judgement and what comes out: rows with their numbers, parts of a decision, an outcome in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from reports.aggregate import LEVEL, Estimate, Measured
from reports.claims.welch import Difference
from reports.metrics import Metric
from reports.verdict import seeds_needed

Outcome = Literal["supported", "contradicted", "undecided", "not run"]
EACH = " of each row"


@dataclass(frozen=True)
class Part:
    """One of the things that must all hold for a decision; what more seeds would do for it.

    p: its two-sided p-value, multiplied by `ways` where it is the best of that many (Holm's first step, Bonferroni's).
    spread: the standard deviation that n seeds of each row bring down to spread/√n. distance: from the edge that must not
    be touched. untrained: it is the comparison with the untrained network.
    """

    p: float
    spread: float
    distance: float
    seeds: int
    ways: int = 1
    untrained: bool = False

    @classmethod
    def of(cls, found: Difference, p: float, distance: float, ways: int = 1, untrained: bool = False) -> Part:
        return cls(min(1.0, ways * p), found.spread, abs(distance), found.seeds, ways, untrained)

    def more_seeds(self, level: float) -> int | None:
        """Further seeds of each row with which the part would probably hold at this level."""
        return seeds_needed(self.spread, self.distance, self.seeds, 1 - (1 - level) / self.ways)


@dataclass(frozen=True)
class ClaimVerdict:
    """basis: what a collapse was decided on when not on the interval of the mean: 'one seed' or 'each seed' by itself.

    waits_for_baseline: open only because the untrained network has too few seeds.

    p: the two-sided p-value of the decision. Where several parts must all hold it is the largest of theirs (intersection-
    union test); where one of several possible parts is enough, the smallest times their number (Holm 1979). Of an
    undecided claim it is that of the nearest decision. None where nothing was tested: a collapse, which is decided by its
    edges, too few seeds, rows that have not run. parts: what the decision rests on, for `holm`.
    """

    outcome: Outcome
    sentence: str
    more_seeds: int | None = None
    basis: str = ""
    waits_for_baseline: bool = False
    p: float | None = None
    parts: tuple[Part, ...] = field(default=(), compare=False, repr=False)

    @property
    def decided(self) -> bool:
        return self.outcome in ("supported", "contradicted")


@dataclass(frozen=True)
class Side:
    """One row in a claim: its name in a sentence and its number."""

    name: str
    measured: Measured

    @property
    def estimate(self) -> Estimate:
        """The row's number, which `unable` has made sure exists."""
        assert self.measured.estimate is not None
        return self.measured.estimate


def unable(sides: Sequence[Side]) -> ClaimVerdict | None:
    """Why nothing can be said about these rows, or None when each has a number of at least one current seed, none diverged.

    What has not run is said first, since there is a command for it.
    """
    missing = [f"{side.name}: {side.measured.missing}" for side in sides if not side.measured.diverged and not side.measured.n]
    stale = [f"{side.name}: only runs {side.measured.stale} exist" for side in sides if side.measured.stale and side.measured.n]
    diverged = [
        f"{side.name}: {side.measured.diverged} of {side.measured.diverged + side.measured.n} seeds diverged"
        for side in sides
        if side.measured.diverged
    ]
    if not_run := [*missing, *stale]:
        return ClaimVerdict("not run", _first(not_run))
    return ClaimVerdict("undecided", _first(diverged)) if diverged else None


def _first(reasons: list[str]) -> str:
    """The first reason, and how many rows have another."""
    more = len(reasons) - 1
    return reasons[0] + (f" (and {more} more {'row' if more == 1 else 'rows'})" if more else "")


def one_seed(sides: Sequence[Side]) -> ClaimVerdict | None:
    """One seed of a row says nothing about any difference."""
    if all(side.measured.n > 1 for side in sides):
        return None
    return ClaimVerdict("undecided", "one seed has no interval; at least 2 seeds of each row", 1)


def decide(outcome: Outcome, sentence: str, parts: Sequence[Part]) -> ClaimVerdict:
    """A decision whose parts all hold."""
    return ClaimVerdict(outcome, sentence, p=max(part.p for part in parts), parts=tuple(parts))


def most(parts: Sequence[Part], level: float = LEVEL) -> int | None:
    """Further seeds with which all of the parts would probably hold; None when no affordable number would do."""
    needed = [part.more_seeds(level) for part in parts]
    return None if None in needed else max((more for more in needed if more is not None), default=None)


def better_sign(metric: Metric) -> float:
    """1 where a larger number is the better one or neither is, -1 where the smaller one is (time, memory)."""
    return -1.0 if metric.higher_is_better is False else 1.0


def signed(value: float, metric: Metric) -> str:
    """A difference at the metric's precision, always with its sign."""
    return f"{value:+.{metric.decimals}f}"


def bounds(found: Difference, metric: Metric) -> str:
    """`+10.0 [+9.8, +10.2]`."""
    return f"{signed(found.mean, metric)} [{signed(found.low, metric)}, {signed(found.high, metric)}]"


def shown(first: Side, second: Side, found: Difference, metric: Metric) -> str:
    """`first - second = +10.0 [+9.8, +10.2]`."""
    return f"{first.name} - {second.name} = {bounds(found, metric)}"
