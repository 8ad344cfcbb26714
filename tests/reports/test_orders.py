"""Orders, orderings and sizes against cases worked out by hand.

`row(name, m)` is m - 1, m, m + 1: sd 1, variance of the mean 1/3. Two such rows: error √(2/3) = 0.8165, 4 degrees of freedom,
t = 2.7764, half width 2.267. So means 2.3 apart are told apart at 95 %, and 2.2 are not.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from reports import claims
from reports.claims import Side
from reports.verdict import seeds_needed
from tests.reports.rows import ACCURACY, HOURS, NEITHER, UNTRAINED, p_of_four, row, side

ERROR = (2 / 3) ** 0.5


def p(apart: float) -> float:
    return p_of_four(apart / ERROR)


@pytest.mark.parametrize(
    ("apart", "outcome"), [(2.3, "supported"), (2.2, "undecided"), (-2.2, "undecided"), (-2.3, "contradicted")]
)
def test_an_order_at_the_edge_of_its_interval(apart: float, outcome: str) -> None:
    found = claims.order(row("a", 50 + apart), row("b", 50), UNTRAINED, ACCURACY)
    assert found.outcome == outcome
    assert found.p == pytest.approx(p(apart))


def test_less_is_better_of_time() -> None:
    fast, slow = row("fast", 10), row("slow", 13)
    found = claims.order(fast, slow, None, HOURS)
    assert (found.outcome, found.sentence) == ("supported", "fast - slow = -3.0 [-5.3, -0.7]")
    assert claims.order(slow, fast, None, HOURS).outcome == "contradicted"
    assert claims.order(slow, fast, None, NEITHER).outcome == "supported"  # the larger number is above
    untrained = row("untrained", 20)
    assert claims.order(fast, slow, untrained, HOURS).sentence.endswith("and fast is below untrained")
    assert claims.order(fast, slow, row("untrained", 5), HOURS).outcome == "undecided"


def test_the_p_of_an_order_is_the_larger_of_its_two_parts() -> None:
    near = row("untrained", 55 - 2.5)
    found = claims.order(row("a", 55), row("b", 50), near, ACCURACY)
    assert found.outcome == "supported" and found.p == pytest.approx(p(2.5)) and p(2.5) > p(5)
    withheld = claims.order(row("a", 55), row("b", 50), row("untrained", 55 - 2.2), ACCURACY)
    assert withheld.outcome == "undecided" and withheld.p == pytest.approx(p(2.2)) and withheld.more_seeds is None


def test_a_stricter_level_leaves_an_order_open_and_asks_for_more() -> None:
    usual, strict = (claims.order(row("a", 52.1), row("b", 50), None, ACCURACY, level) for level in (0.95, 0.99))
    assert usual.outcome == strict.outcome == "undecided"
    assert usual.more_seeds == seeds_needed(2**0.5, 2.1, 3) and strict.more_seeds == seeds_needed(2**0.5, 2.1, 3, 0.99)
    assert usual.more_seeds is not None and strict.more_seeds is not None and strict.more_seeds > usual.more_seeds
    assert claims.order(row("a", 52.3), row("b", 50), None, ACCURACY, 0.99).outcome == "undecided"


def test_an_order_waits_for_a_baseline_of_one_seed() -> None:
    found = claims.order(row("a", 55), row("b", 50), side("untrained", 5.0), ACCURACY)
    assert (found.outcome, found.waits_for_baseline, found.p) == ("undecided", True, None)
    assert "untrained has one seed only" in found.sentence


def test_an_ordering_needs_every_step() -> None:
    a, b, c = row("a", 56), row("b", 53), row("c", 50)
    found = claims.ordering([a, b, c], UNTRAINED, ACCURACY)
    assert found.outcome == "supported" and found.p == pytest.approx(p(3))  # both steps are 3
    assert found.sentence == "a - b = +3.0 [+0.7, +5.3]; b - c = +3.0 [+0.7, +5.3], and a is above untrained"
    near = claims.ordering([a, b, row("c", 50.8)], UNTRAINED, ACCURACY)
    assert near.outcome == "undecided" and near.p == pytest.approx(p(2.2))
    assert near.sentence.startswith("1 of 2 steps hold; b - c = +2.2 [-0.1, +4.5] includes 0; about ")
    assert near.more_seeds == seeds_needed(2**0.5, 2.2, 3)


def test_the_step_that_needs_most_seeds_counts() -> None:
    found = claims.ordering([row("a", 53), row("b", 51), row("c", 50)], UNTRAINED, ACCURACY)
    wide, narrow = seeds_needed(2**0.5, 2, 3), seeds_needed(2**0.5, 1, 3)
    assert wide is not None and found.more_seeds == narrow is not None and narrow > wide
    assert found.sentence.startswith("0 of 2 steps hold; b - c = +1.0")
    assert claims.ordering([row("a", 52), row("b", 50), row("c", 50)], UNTRAINED, ACCURACY).more_seeds is None


def test_an_ordering_is_contradicted_by_one_step_after_holms_correction() -> None:
    # against: 2.5 below 0 has p = 0.0376, which 2 steps make 0.075; 3.1 has p = 0.019, twice that is 0.038
    assert (round(p(2.5), 4), round(p(3.1), 4)) == (0.0376, 0.0192)
    a, b = row("a", 56), row("b", 50)
    wrong = claims.ordering([a, b, row("c", 53.1)], UNTRAINED, ACCURACY)
    assert wrong.outcome == "contradicted" and wrong.p == pytest.approx(2 * p(3.1))
    assert wrong.sentence.startswith("b - c = -3.1 [-5.4, -0.8], the wrong way (with Holm's correction for 2 steps)")
    open_ = claims.ordering([a, b, row("c", 52.5)], UNTRAINED, ACCURACY)
    assert open_.outcome == "undecided" and open_.p == pytest.approx(2 * p(2.5))
    assert "goes the wrong way, but p = 0.038 is above 0.025" in open_.sentence
    assert open_.more_seeds == seeds_needed(2**0.5, 2.5, 3, 0.975)


def test_an_ordering_of_two_is_an_order() -> None:
    for apart in (3.0, 1.0, -3.0):
        two = claims.ordering([row("a", 50 + apart), row("b", 50)], UNTRAINED, ACCURACY)
        one = claims.order(row("a", 50 + apart), row("b", 50), UNTRAINED, ACCURACY)
        assert (two.outcome, two.p, two.more_seeds) == (one.outcome, pytest.approx(one.p), one.more_seeds)


def test_the_best_of_an_ordering_must_have_learned() -> None:
    good = row("untrained", 60)
    assert claims.ordering([row("a", 56), row("b", 53), row("c", 50)], good, ACCURACY).outcome == "undecided"
    between = row("untrained", 53)  # a has learned, b and c have not: that c is above b says nothing
    found = claims.ordering([row("a", 60), row("b", 45), row("c", 49)], between, ACCURACY)
    assert found.outcome == "undecided" and "but c is not above untrained" in found.sentence


def test_an_ordering_of_time_is_from_the_least() -> None:
    rows = [row("a", 50), row("b", 53), row("c", 56)]
    assert claims.ordering(rows, None, HOURS).outcome == "supported"
    assert claims.ordering(rows, None, ACCURACY).outcome == "contradicted"


def test_a_gap_is_the_papers_or_not() -> None:
    # a - b = 4, half width 2.267
    a, b = row("a", 54), row("b", 50)
    inside = claims.gap(a, b, 4.0, 2.3, ACCURACY)
    assert inside.outcome == "supported" and inside.p == pytest.approx(p(2.3))  # both edges are 2.3 away
    assert claims.gap(a, b, 4.0, 2.2, ACCURACY).outcome == "undecided"
    off = claims.gap(a, b, 4.1, 2.3, ACCURACY)  # the lower edge is 1.8, 2.2 away
    assert off.outcome == "undecided" and off.p == pytest.approx(p(2.2))
    far = claims.gap(a, b, 0.0, 1.7, ACCURACY)  # 2.3 above the upper edge
    assert far.outcome == "contradicted" and far.p == pytest.approx(p(2.3))
    nearly = claims.gap(a, b, 0.0, 1.8, ACCURACY)  # 2.2 above it
    assert nearly.outcome == "undecided" and nearly.p == pytest.approx(p(2.2))
    assert claims.gap(a, b, 8.0, 1.7, ACCURACY).outcome == "contradicted"
    assert claims.gap(a, b, -4.0, 2.3, ACCURACY).outcome == "contradicted"  # the sign matters


def test_the_edge_of_a_gap_needs_more_seeds() -> None:
    found = claims.gap(row("a", 54), row("b", 50), 4.0, 2.0, ACCURACY)
    assert found.more_seeds == seeds_needed(2**0.5, 2.0, 3) and f"about {found.more_seeds} more" in found.sentence
    assert claims.gap(row("a", 54), row("b", 50), 2.0, 2.0, ACCURACY).more_seeds is None  # on the edge itself


def test_equality_needs_every_pair_within_the_margin() -> None:
    rows = [row("a", 50), row("b", 50.4), row("c", 50.2)]
    found = claims.within(rows, 2.7, ACCURACY)  # a - b = -0.4: the lower edge is 2.3 away
    assert found.outcome == "supported" and found.p == pytest.approx(p(2.3))
    assert found.sentence == "a - b = -0.4 [-2.7, +1.9] lies within 0 ± 2.7, and so does every other pair"
    near = claims.within(rows, 2.6, ACCURACY)
    assert near.outcome == "undecided" and near.p == pytest.approx(p(2.2))
    assert "a - b = -0.4 [-2.7, +1.9] reaches across an edge of 0 ± 2.6" in near.sentence
    assert near.more_seeds == seeds_needed(2**0.5, 2.2, 3)


def test_equality_is_contradicted_by_one_pair_after_holms_correction() -> None:
    # 3 pairs; outside the margin of 1 by 4: p = 0.00805, three times that 0.024. By 3: 0.0213, 0.064
    assert (round(3 * p(4), 3), round(3 * p(3), 3)) == (0.024, 0.064)
    far = claims.within([row("a", 50), row("b", 52.5), row("c", 55)], 1.0, ACCURACY)
    assert far.outcome == "contradicted" and far.p == pytest.approx(3 * p(4))
    assert far.sentence == "a - c = -5.0 [-7.3, -2.7] lies outside 0 ± 1 (with Holm's correction for 3 pairs)"
    near = claims.within([row("a", 50), row("b", 52), row("c", 54)], 1.0, ACCURACY)
    assert near.outcome == "undecided" and "but p = 0.021 is above 0.017" in near.sentence
    assert near.p == pytest.approx(3 * p(3))
    assert near.more_seeds == seeds_needed(2**0.5, 3.0, 3, 1 - 0.05 / 3)


def test_equality_is_a_matter_of_the_papers_scale_and_of_networks_that_learned() -> None:
    rows = [row("a", 50), row("b", 50)]
    scaled = claims.within(rows, 9.0, ACCURACY, "profile smoke is not the paper's protocol")
    assert (scaled.outcome, scaled.p) == ("undecided", None) and "profile smoke" in scaled.sentence
    assert claims.within(rows, 9.0, ACCURACY, baseline=UNTRAINED).outcome == "supported"
    assert claims.within(rows, 9.0, ACCURACY, baseline=row("untrained", 50)).outcome == "undecided"


def test_the_order_of_rows_and_seeds_does_not_matter_to_an_equality() -> None:
    rows = [side("a", 50, 51, 50.3), side("b", 50.4, 51), side("c", 49.9, 52, 51, 51.5), side("d", 51, 51.2, 51.1)]
    turned = [Side(one.name, side("x", *one.estimate.values[::-1]).measured) for one in rows]
    for margin in (0.01, 1.0, 3.0, 5.0, 30.0):
        seen = {
            (found.outcome, round(found.p or 0, 9), found.more_seeds)
            for several in (rows, turned)
            for order in permutations(several)
            for found in [claims.within(order, margin, ACCURACY)]
        }
        assert len(seen) == 1


def test_what_cannot_be_judged() -> None:
    one, none, gone = side("one", 50.0), side("none"), side("gone", 50.0, diverged=2)
    stale = side("old", 50.0, 51.0, stale="of byol version 1 (the code is at 2)")
    good = row("good", 50)
    for rows, outcome, words in [
        ([good, one], "undecided", "at least 2 seeds of each row"),
        ([good, none], "not run", "none: no record"),
        ([gone, none], "not run", "none: no record"),
        ([none, good, none], "not run", "none: no record (and 1 more row)"),
        ([good, gone], "undecided", "gone: 2 of 3 seeds diverged"),
        ([stale, good], "not run", "old: only runs of byol version 1 (the code is at 2) exist"),
    ]:
        for found in (claims.ordering(rows, None, ACCURACY), claims.within(rows, 1.0, ACCURACY)):
            assert (found.outcome, found.p) == (outcome, None) and found.sentence.endswith(words)
    assert claims.gap(good, one, 0.0, 1.0, ACCURACY).more_seeds == 1


def test_seeds_that_agree_exactly() -> None:
    a, b = side("a", 50.0, 50.0), side("b", 50.0, 50.0)
    assert claims.within([a, b], 0.1, ACCURACY).outcome == "supported"
    assert claims.order(a, b, None, ACCURACY).outcome == "undecided"
    assert claims.order(side("c", 50.1, 50.1), b, None, ACCURACY).p == 0.0
    zero = claims.gap(side("z", 0.0, 0.0), side("y", 0.0, 0.0, 0.0), 0.0, 0.5, ACCURACY)
    assert (zero.outcome, zero.sentence) == ("supported", "z - y = +0.0 [+0.0, +0.0] lies within the paper's +0.0 ± 0.5")
