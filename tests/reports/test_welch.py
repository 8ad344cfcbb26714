"""Differences, contrasts and p-values against scipy.stats and closed forms."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from reports.aggregate import estimate, t_quantile
from reports.claims import contrast, difference
from tests.reports.rows import p_of_four

DRAW = random.Random(7)
SAMPLES = [
    ([DRAW.gauss(10, 1) for _ in range(n)], [DRAW.gauss(10 + shift, spread) for _ in range(m)])
    for n, m, shift, spread in [(2, 2, 0, 1), (3, 3, 1, 1), (2, 5, 3, 4), (7, 3, -2, 0.2), (12, 9, 0.3, 1), (3, 4, 20, 0.1)]
]


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welchs_interval_and_p_are_scipys(a: list[float], b: list[float]) -> None:
    found, oracle = difference(estimate(a), estimate(b)), stats.ttest_ind(a, b, equal_var=False)
    assert found is not None
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.degrees == pytest.approx(oracle.df)
    assert found.p_unequal() == pytest.approx(oracle.pvalue)
    for edge in (-1.0, 0.0, 2.5):
        shifted = [value - edge for value in a]
        above = stats.ttest_ind(shifted, b, equal_var=False, alternative="greater").pvalue
        assert found.p_above(edge) == pytest.approx(min(1, 2 * above))
        assert found.p_below(edge) == pytest.approx(min(1, 2 * (1 - above)))


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_two_one_sided_tests_are_scipys(a: list[float], b: list[float]) -> None:
    found = difference(estimate(a), estimate(b))
    assert found is not None
    for center, margin in ((0.0, 1.0), (-1.0, 3.0), (2.0, 0.5)):
        over = stats.ttest_ind([v - center + margin for v in a], b, equal_var=False, alternative="greater").pvalue
        under = stats.ttest_ind([v - center - margin for v in a], b, equal_var=False, alternative="less").pvalue
        assert found.p_within(center, margin) == pytest.approx(min(1, 2 * max(over, under)))
        assert found.p_outside(center, margin) == pytest.approx(min(1, 2 * min(1 - over, 1 - under)))
        inside = found.low >= center - margin and found.high <= center + margin
        assert (found.p_within(center, margin) <= 0.05) == inside


def test_the_p_value_by_hand() -> None:
    # 12.3 - 10, each sd 1 of 3 seeds: error sqrt(1/3 + 1/3), 4 degrees of freedom
    found = difference(estimate([11.3, 12.3, 13.3]), estimate([9.0, 10.0, 11.0]))
    assert found is not None
    assert found.error == pytest.approx(math.sqrt(2 / 3)) and found.degrees == pytest.approx(4)
    assert found.p_unequal() == pytest.approx(p_of_four(2.3 / math.sqrt(2 / 3))) and found.p_unequal() < 0.05
    assert found.high - found.mean == pytest.approx(2.776445 * 0.816497, abs=1e-4)


def test_a_contrast_by_hand() -> None:
    # weights 1, -1, -1, 1 on four rows of sd 1, n 3: error sqrt(4/3); each share of the variance is 1/4, so that
    # degrees = 1 / (4 · (1/4)² / 2) = 8
    rows = [estimate([mean - 1, mean, mean + 1]) for mean in (10.0, 8.0, 5.0, 6.0)]
    found = contrast(list(zip((1.0, -1.0, -1.0, 1.0), rows, strict=True)))
    assert found is not None
    assert (found.mean, found.error, found.degrees) == (pytest.approx(3), pytest.approx(math.sqrt(4 / 3)), pytest.approx(8))
    assert found.high - 3 == pytest.approx(2.306004 * 1.154701, abs=1e-5)
    assert (found.spread, found.seeds) == (pytest.approx(2), 3)
    assert found.p_above() == pytest.approx(2 * stats.t.sf(3 / math.sqrt(4 / 3), 8))


def test_a_weight_counts_squared() -> None:
    # 2·a with sd 1, n 4: error 2/2 = 1, degrees 3; a second row without spread adds none
    found = contrast([(2.0, estimate([9.0, 10.0, 11.0, 10.0])), (1.0, estimate([5.0, 5.0]))])
    assert found is not None
    std = math.sqrt(2 / 3)
    assert (found.mean, found.error, found.degrees) == (pytest.approx(25), pytest.approx(std), pytest.approx(3))
    assert (found.spread, found.seeds) == (pytest.approx(2 * std), 2)


def test_seeds_that_agree_exactly_leave_no_doubt() -> None:
    same = difference(estimate([0.1, 0.1, 0.1]), estimate([0.1, 0.1]))
    assert same is not None and (same.mean, same.error) == (0.0, 0.0)  # although 0.1 + 0.1 + 0.1 is not 0.3
    assert same.p_unequal() == 1.0 and same.p_within(0.0, 1e-9) == 0.0 and same.p_outside(0.0, 1e-9) == 1.0
    apart = difference(estimate([2.0, 2.0]), estimate([1.0, 1.0]))
    assert apart is not None and (apart.low, apart.high) == (1.0, 1.0)
    assert (apart.p_above(), apart.p_below(), apart.p_outside(0.0, 0.5), apart.p_within(0.0, 1.0)) == (0.0, 1.0, 0.0, 0.0)


def test_huge_and_tiny_spreads_neither_overflow_nor_vanish() -> None:
    for scale in (1e-150, 1e150):
        found = difference(estimate([11.3 * scale, 12.3 * scale, 13.3 * scale]), estimate([9 * scale, 10 * scale, 11 * scale]))
        assert (
            found is not None and found.degrees == pytest.approx(4) and found.error == pytest.approx(scale * math.sqrt(2 / 3))
        )
        assert found.p_unequal() == pytest.approx(p_of_four(2.3 / math.sqrt(2 / 3)))


def test_one_seed_has_no_difference() -> None:
    assert difference(estimate([1.0]), estimate([1.0, 2.0])) is None
    assert contrast([(1.0, estimate([1.0, 2.0])), (1.0, estimate([1.0]))]) is None


def test_the_order_of_rows_and_seeds_does_not_matter() -> None:
    a, b, c = [1.0, 5.0, 2.5], [0.3, 0.1], [7.0, 7.5, 9.0, 8.0]
    found = contrast([(1.0, estimate(a)), (-2.0, estimate(b)), (0.5, estimate(c))])
    other = contrast([(0.5, estimate(c[::-1])), (1.0, estimate(a[::-1])), (-2.0, estimate(b[::-1]))])
    assert found is not None and other is not None
    assert found.mean == pytest.approx(other.mean)
    assert (found.low, found.high, found.degrees) == (
        pytest.approx(other.low),
        pytest.approx(other.high),
        pytest.approx(other.degrees),
    )


def test_a_higher_level_is_a_wider_interval() -> None:
    first, second = estimate([1.0, 2.0, 3.0]), estimate([4.0, 5.0, 6.0])
    narrow, wide = difference(first, second, 0.95), difference(first, second, 0.99)
    assert narrow is not None and wide is not None
    assert wide.high - wide.mean == pytest.approx(t_quantile(4, 0.99) * math.sqrt(2 / 3)) and wide.high > narrow.high
