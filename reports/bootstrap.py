"""The studentized bootstrap interval of a mean (Efron 1982, Hall 1988): for seeds that are many and not normally spread.

Each resample draws n values with replacement and yields t* = (its mean - mean) / its standard error; the quantiles of t*
take the place of Student's. Of the bootstrap's intervals it is the one that keeps its level with a dozen values: percentile
and BCa intervals of so few are too narrow, because a resample spreads less than the population. With fewer than
`FEWEST` values nothing is known of the tails and no bootstrap helps.

The draws are a fixed hash of their place (splitmix64, Steele et al. 2014), the same on every machine and at every call, and
the values are sorted first: the interval depends on the values alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FEWEST = 8
RESAMPLES = 9999  # so that 2.5 % of RESAMPLES + 1 is a whole number: the quantiles are draws, not between two


def bootstrap_interval(values: Sequence[float], level: float) -> tuple[float, float] | None:
    """(low, high) of the mean. None where the bootstrap is no guide: fewer than `FEWEST` values, or so many ties that a
    tail of the resamples has no spread at all."""
    n = len(values)
    if n < FEWEST:
        return None
    sample = np.sort(np.asarray(values, dtype=np.float64))
    if sample[0] == sample[-1]:
        return float(sample[0]), float(sample[0])
    scale = float(np.max(np.abs(sample)))  # squares of huge values would overflow
    sample = sample / scale
    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n)
    drawn = sample[draws(n)]
    means, errors = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / math.sqrt(n)
    flat = drawn.min(axis=1) == drawn.max(axis=1)
    studentized = np.where(flat, np.copysign(np.inf, means - mean), (means - mean) / np.where(flat, 1.0, errors))
    studentized.sort()
    rank = max(1, math.floor((RESAMPLES + 1) * (1 - level) / 2 + 1e-9))
    lower, upper = float(studentized[rank - 1]), float(studentized[-rank])
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return None
    return scale * (mean - upper * error), scale * (mean - lower * error)


@lru_cache(maxsize=8)
def draws(n: int) -> NDArray[np.int64]:
    """RESAMPLES lines of n indices below n."""
    fractions = hashes(RESAMPLES * n) >> np.uint64(32)  # of 2^32
    return (fractions * np.uint64(n) >> np.uint64(32)).astype(np.int64).reshape(RESAMPLES, n)


def hashes(count: int) -> NDArray[np.uint64]:
    """The first outputs of splitmix64 from the state 0."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as is meant
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
