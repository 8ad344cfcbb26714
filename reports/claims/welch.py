"""Differences and contrasts of independent means whose spreads differ: Welch's interval and p-values.

Rows are taken as independent samples: equal seed numbers of two rows are not paired. The degrees of freedom are those of
Welch and Satterthwaite. All p-values are on the two-sided scale, so that one at or below 1 - level and an interval of that
level say the same: a one-sided probability is doubled, and at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr  # distribution of Student's t; scipy.stats would cost a second of import

from reports.aggregate import LEVEL, Estimate, t_quantile


@dataclass(frozen=True)
class Difference:
    """A weighted sum of independent means with its interval.

    error: its standard error; degrees: of freedom (infinite where all seeds agree exactly and there is no error). spread
    and seeds: the standard deviation that n seeds of each row bring down to spread/√n, and the smallest number there is.
    """

    mean: float
    low: float
    high: float
    error: float = 0.0
    degrees: float = math.inf
    spread: float = 0.0
    seeds: int = 2

    def p_above(self, edge: float = 0.0) -> float:
        """Of the statement that the true value is above the edge."""
        if self.error == 0:
            return 0.0 if self.mean > edge else 1.0
        return min(1.0, 2 * float(stdtr(self.degrees, (edge - self.mean) / self.error)))

    def p_below(self, edge: float = 0.0) -> float:
        """Of the statement that the true value is below the edge."""
        if self.error == 0:
            return 0.0 if self.mean < edge else 1.0
        return min(1.0, 2 * float(stdtr(self.degrees, (self.mean - edge) / self.error)))

    def p_unequal(self, edge: float = 0.0) -> float:
        """Of the statement that the true value is not the edge, whichever side it lies on: Welch's test."""
        return min(self.p_above(edge), self.p_below(edge))

    def p_within(self, center: float, margin: float) -> float:
        """Of the statement that the true value lies within center ± margin: two one-sided tests (TOST, Schuirmann 1987).
        Its edges belong to the inside where there is no error at all."""
        if self.error == 0:
            return 0.0 if center - margin <= self.mean <= center + margin else 1.0
        return max(self.p_above(center - margin), self.p_below(center + margin))

    def p_outside(self, center: float, margin: float) -> float:
        """Of the statement that the true value lies outside center ± margin, on one side or the other."""
        return min(self.p_below(center - margin), self.p_above(center + margin))


def contrast(terms: Sequence[tuple[float, Estimate]], level: float = LEVEL) -> Difference | None:
    """The sum of weight x mean over independent rows; None when one has a single seed and so no spread."""
    pieces, spreads = [], []
    for weight, row in terms:
        if row.std is None:
            return None
        spreads.append(abs(weight) * row.std)
        pieces.append(spreads[-1] / math.sqrt(row.n))
    mean = math.fsum(weight * row.mean for weight, row in terms)
    seeds = min(row.n for _, row in terms)
    error = math.hypot(*pieces)
    if error == 0:
        return Difference(mean, mean, mean, seeds=seeds)
    # (a + b)² / (a²/(n-1) + b²/(m-1)) for the squares a, b of the pieces, divided through so that no power overflows
    shares = ((piece / error) ** 4 / (row.n - 1) for piece, (_, row) in zip(pieces, terms, strict=True))
    degrees = 1 / math.fsum(shares)
    half = t_quantile(degrees, level) * error
    return Difference(mean, mean - half, mean + half, error, degrees, math.hypot(*spreads), seeds)


def difference(first: Estimate, second: Estimate, level: float = LEVEL) -> Difference | None:
    """first - second; None when either has a single seed and so no spread."""
    return contrast(((1.0, first), (-1.0, second)), level)
