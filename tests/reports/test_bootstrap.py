"""The studentized bootstrap: against its definition, at its edges, and how often its interval holds the true mean."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from reports.aggregate import estimate
from reports.bootstrap import FEWEST, RESAMPLES, bootstrap_interval, draws, hashes

VALUES = [57.1, 57.9, 58.0, 58.3, 58.4, 59.0, 59.9, 63.2]


def test_the_interval_is_its_definition() -> None:
    """t* of every resample in plain Python; its 250th smallest and largest of 9999 in the place of Student's quantiles."""
    values, n = sorted(VALUES), len(VALUES)
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(n)
    found = []
    for places in draws(n).tolist():
        drawn = [values[place] for place in places]
        spread = statistics.stdev(drawn) / math.sqrt(n)
        found.append((statistics.fmean(drawn) - mean) / spread if spread else math.copysign(math.inf, drawn[0] - mean))
    found.sort()
    assert len(found) == RESAMPLES == 9999
    interval = bootstrap_interval(VALUES, 0.95)
    assert interval == (pytest.approx(mean - found[-250] * error), pytest.approx(mean - found[249] * error))


def test_the_draws_are_even_fixed_and_within_range() -> None:
    found = draws(10)
    assert found.shape == (9999, 10) and found.min() == 0 and found.max() == 9
    counts = np.bincount(found.ravel())
    assert abs(counts / counts.sum() - 0.1).max() < 0.005
    assert found[0].tolist() == draws.__wrapped__(10)[0].tolist()
    assert found[0, 0] == (0xE220A8397B1DCDAF >> 32) * 10 >> 32 == 8


def test_the_hash_is_splitmix64() -> None:
    """Against its definition on Python's unbounded integers, and the first value that every implementation prints."""
    every, state = (1 << 64) - 1, 0
    for found in hashes(1000).tolist():
        state = state + 0x9E3779B97F4A7C15 & every
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & every
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & every
        assert found == mixed ^ mixed >> 31
    assert hashes(1)[0] == 0xE220A8397B1DCDAF


def test_the_order_of_seeds_and_the_global_generators_do_not_matter() -> None:
    first = bootstrap_interval(VALUES, 0.95)
    random.seed(1)
    np.random.seed(1)
    before = random.getstate()
    assert bootstrap_interval(VALUES[::-1], 0.95) == first
    assert random.getstate() == before


def test_it_follows_scale_and_shift() -> None:
    found = bootstrap_interval(VALUES, 0.95)
    assert found is not None
    moved = bootstrap_interval([-2 * value + 100 for value in VALUES], 0.95)
    assert moved == (pytest.approx(100 - 2 * found[1], abs=0.2), pytest.approx(100 - 2 * found[0], abs=0.2))  # other draws
    huge = bootstrap_interval([value * 1e200 for value in VALUES], 0.95)
    assert huge == (pytest.approx(found[0] * 1e200), pytest.approx(found[1] * 1e200))


def test_a_long_tail_makes_a_long_side() -> None:
    found = estimate(VALUES, kind="bootstrap")
    assert found.kind == "bootstrap" and found.low is not None and found.high is not None
    above, below = found.high - found.mean, found.mean - found.low
    assert above > 1.5 * below and found.half_width == above  # 63.2 is the only one far out
    turned = estimate([-value for value in VALUES], kind="bootstrap")
    assert turned.low is not None and turned.half_width == turned.mean - turned.low


def test_a_higher_level_is_wider() -> None:
    narrow, wide = bootstrap_interval(VALUES, 0.9), bootstrap_interval(VALUES, 0.99)
    assert narrow is not None and wide is not None and wide[0] < narrow[0] < narrow[1] < wide[1]


def test_fewer_than_eight_seeds_have_the_t_interval_and_say_so() -> None:
    assert FEWEST == 8
    for n in (2, 3, 7):
        found = estimate(VALUES[:n], kind="bootstrap")
        assert found == estimate(VALUES[:n]) and found.kind == "t"
    assert estimate([1.0], kind="bootstrap").low is None
    assert estimate(VALUES).kind == "t" != estimate(VALUES, kind="bootstrap").kind


def test_seeds_that_agree_and_ties() -> None:
    assert estimate([0.0] * 8, kind="bootstrap").low == estimate([0.0] * 8, kind="bootstrap").high == 0.0
    tied = estimate([50.0] * 7 + [51.0], kind="bootstrap")  # a third of the resamples has no spread: no bound on one side
    assert tied == estimate([50.0] * 7 + [51.0]) and tied.kind == "t"


def _holds(sample: np.ndarray, true: float, kind: str) -> float:
    found = [estimate(values, kind="bootstrap" if kind == "bootstrap" else "t") for values in sample.tolist()]
    return sum(one.low <= true <= one.high for one in found if one.low is not None and one.high is not None) / len(found)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    normal = generator.standard_normal((400, 10))
    assert 0.92 <= _holds(normal, 0.0, "bootstrap") <= 0.98
    skewed = generator.exponential(size=(400, 10))
    assert _holds(skewed, 1.0, "bootstrap") > _holds(skewed, 1.0, "t") + 0.01  # what it is for
    assert _holds(skewed, 1.0, "bootstrap") >= 0.92
