"""Collapses, orders and gaps against cases worked out by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from reports import claims
from reports.aggregate import Measured, estimate, t_quantile
from reports.claims import ClaimVerdict, Side, Thresholds, difference
from reports.metrics import metric

LINEAR = metric("linear.top1", "the test")
EDGES = Thresholds()


def side(name: str, *values: float, **more: Any) -> Side:
    return Side(name, Measured(estimate(values) if values else None, missing="" if values else "no record", **more))


def collapse(expected: bool, *values: float, **more: Any) -> ClaimVerdict:
    return claims.collapse(side("row", *values, **more), expected, EDGES)


def test_the_statistic_is_bounded_by_the_mean_cosine_as_the_thresholds_assume() -> None:
    """c² = s (1 - mean cosine) with s <= 1, on random points that share a direction and vary in few channels."""
    draw = random.Random(0)
    for shift, varying in ((0.0, 16), (0.7, 16), (3.0, 16), (0.0, 2), (1.0, 4)):
        d, n = 16, 400
        points = []
        for _ in range(n):
            raw = [draw.gauss(0, 1) * (i < varying) + shift for i in range(d)]
            norm = math.sqrt(sum(value * value for value in raw))
            points.append([value / norm for value in raw])
        means = [sum(point[i] for point in points) / n for i in range(d)]
        spreads = [math.sqrt(sum((point[i] - means[i]) ** 2 for point in points) / n) for i in range(d)]
        c = sum(spreads) / d * math.sqrt(d)
        cosine = sum(mean * mean for mean in means)  # of all pairs, a point with itself included
        share = sum(spreads) ** 2 / (d * sum(spread**2 for spread in spreads))
        assert c**2 == pytest.approx(share * (1 - cosine)) and 0 < share <= 1


def test_collapse_on_several_seeds_needs_the_interval_on_one_side() -> None:
    assert collapse(True, 0.01, 0.02, 0.03).outcome == "supported"
    assert collapse(False, 0.84, 0.86, 0.88).outcome == "supported"
    assert collapse(True, 0.84, 0.86, 0.88).outcome == "contradicted"
    assert collapse(False, 0.01, 0.02, 0.03).outcome == "contradicted"
    found = collapse(False, 0.84, 0.86, 0.88)
    assert found.sentence == "row: std(z)·√d = 0.860 in [0.810, 0.910], above 0.5: not collapsed; 3 seeds"
    assert found.basis == ""


def test_collapse_may_be_decided_on_one_seed_and_says_so() -> None:
    found = collapse(True, 0.02)
    assert (found.outcome, found.basis) == ("supported", "one seed")
    assert found.sentence.endswith("decided on one seed, far from the other outcome")


def test_a_second_seed_that_agrees_does_not_undo_the_first() -> None:
    found = collapse(True, 0.02, 0.06)  # 0.04 with a half width of 0.254
    assert (found.outcome, found.basis) == ("supported", "each seed")
    assert "decided on each of 2 seeds alone" in found.sentence


def test_between_the_edges_nothing_is_decided() -> None:
    for values in ((0.3,), (0.29, 0.3, 0.31), (0.15,), (0.5,)):
        assert collapse(True, *values).outcome == collapse(False, *values).outcome == "undecided"
    across = collapse(True, 0.05, 0.10, 0.24)  # one seed above the edge, mean 0.13
    assert across.outcome == "undecided" and across.more_seeds is not None and "reaches across 0.15" in across.sentence


def test_edges_can_be_set_by_the_table() -> None:
    assert claims.collapse(side("row", 0.3), True, Thresholds(0.35, 0.6)).outcome == "supported"


def test_divergence_is_no_collapse() -> None:
    found = collapse(True, 0.02, diverged=1)
    assert (found.outcome, found.sentence) == ("undecided", "row: 1 of 2 seeds diverged")


def test_what_has_not_run_is_not_run() -> None:
    assert collapse(True).outcome == "not run"
    assert claims.order(side("a"), side("b", 1, 2), side("r", 1, 2), LINEAR).sentence == "a: no record"
    stale = side("a", 1.0, 2.0, stale="of byol version 1 (the code is at 2)")
    assert claims.order(stale, side("b", 1, 2), side("r", 1, 2), LINEAR).outcome == "not run"


def test_the_difference_is_welchs() -> None:
    found = difference(estimate([50.0, 52.0]), estimate([40.0, 40.0, 40.0]))
    assert found is not None  # only the first has a spread: sd sqrt(2), n 2, one degree of freedom
    assert found.mean == pytest.approx(11.0)
    assert found.high - found.mean == pytest.approx(t_quantile(1) * math.sqrt(2) / math.sqrt(2))
    assert difference(estimate([1.0]), estimate([1.0, 2.0])) is None


RANDOM = side("random", 30.0, 30.2, 30.1)


def test_an_order_needs_the_interval_above_zero_and_a_row_that_learned() -> None:
    better, worse = side("better", 50.0, 50.2, 50.1), side("worse", 40.0, 40.2, 40.1)
    found = claims.order(better, worse, RANDOM, LINEAR)
    assert found.outcome == "supported" and "better - worse = +10.0 [+9.8, +10.2]" in found.sentence
    assert claims.order(worse, better, RANDOM, LINEAR).outcome == "contradicted"


def test_an_order_of_rows_that_did_not_learn_says_nothing() -> None:
    good = side("random", 60.0, 60.2, 60.1)
    found = claims.order(side("better", 50.0, 50.2, 50.1), side("worse", 40.0, 40.2, 40.1), good, LINEAR)
    assert found.outcome == "undecided"
    assert found.sentence.endswith("but better is not above random, so accuracy cannot decide at this scale")
    no_baseline = claims.order(side("better", 50.0, 50.2), side("worse", 40.0, 40.2), side("random"), LINEAR)
    assert no_baseline.outcome == "undecided" and "random has not been measured" in no_baseline.sentence


def test_an_order_is_never_decided_on_one_seed_or_across_zero() -> None:
    one = claims.order(side("a", 50.0), side("b", 40.0), RANDOM, LINEAR)
    assert (one.outcome, one.more_seeds) == ("undecided", 1)
    near = claims.order(side("a", 50.0, 51.0, 52.0), side("b", 50.5, 49.5, 50.0), RANDOM, LINEAR)
    assert near.outcome == "undecided" and "includes 0" in near.sentence and near.more_seeds is not None


def test_a_gap_is_an_equivalence() -> None:
    first, second = side("a", 74.2, 74.3, 74.4), side("b", 73.8, 73.9, 74.0)  # 0.4, half width 2.776 * 0.0816 = 0.227
    assert claims.gap(first, second, 0.4, 0.5, LINEAR).outcome == "supported"
    assert claims.gap(first, second, 0.4, 0.2, LINEAR).outcome == "undecided"
    assert claims.gap(first, second, 3.0, 0.5, LINEAR).outcome == "contradicted"
    scaled = claims.gap(first, second, 0.4, 0.5, LINEAR, "profile smoke is not the paper's protocol")
    assert scaled.outcome == "undecided" and "only be tested at the paper's protocol" in scaled.sentence
