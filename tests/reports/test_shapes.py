"""Trends, inverse U's and interactions against cases worked out by hand.

`row(name, m)` is m - 1, m, m + 1: sd 1, variance of the mean 1/3. The slope over three of them is (last - first)/2 with the
error √(2/4 · 1/3) = 0.4082 and 4 degrees of freedom, half width 1.1335; a step has the error 0.8165 and the half width 2.267.
"""

from __future__ import annotations

import pytest
from scipy import stats

from benchmark.errors import InputError
from reports import claims
from reports.claims import ClaimVerdict, Side
from reports.verdict import seeds_needed
from tests.reports.rows import ACCURACY, HOURS, UNTRAINED, p_of_four, row, side

ERROR = (2 / 3) ** 0.5


def p(apart: float) -> float:
    """Of a step of this size, and of the slope over three rows when their ends are this far apart."""
    return p_of_four(apart / ERROR)


def rows(*means: float) -> list[Side]:
    return [row(name, mean) for name, mean in zip("abcdefgh", means, strict=False)]


def trend(*means: float, direction: claims.Direction = "rises") -> ClaimVerdict:
    return claims.trend(rows(*means), direction, UNTRAINED, ACCURACY)


def test_a_trend_at_the_edge_of_its_slope() -> None:
    found = trend(50, 51.1, 52.3)
    assert (found.outcome, found.p) == ("supported", pytest.approx(p(2.3)))
    # the slope is 1.15 ± 1.1335
    assert found.sentence == "from a to c it changes by +1.1 [+0.0, +2.3] a step, and c is above untrained"
    near = trend(50, 51.1, 52.2)
    assert (near.outcome, near.p) == ("undecided", pytest.approx(p(2.2)))
    # one seed of each row: the spread of the slope is √(1/4 + 1/4)
    assert near.more_seeds == seeds_needed(0.5**0.5, 1.1, 3)
    assert "which includes 0; about" in near.sentence


def test_a_trend_may_have_a_plateau_and_small_steps_back() -> None:
    assert trend(50, 54, 54.2, 54.1).outcome == "supported"
    assert trend(50, 50, 54).outcome == "supported"
    assert trend(50, 56, 54).outcome == "supported"  # back by 2, within its interval of 2.267
    assert trend(50, 50, 50).outcome == "undecided"


def test_falling_is_rising_turned_round() -> None:
    for means in ((50, 51.1, 52.3), (50, 51, 52), (56, 53, 50), (50, 60, 56.5)):
        rises = trend(*means)
        falls = claims.trend([row(one.name, 100 - one.estimate.mean) for one in rows(*means)], "falls", UNTRAINED, ACCURACY)
        assert (rises.outcome, rises.more_seeds) == (falls.outcome, falls.more_seeds)
        assert rises.p == pytest.approx(falls.p)
        back = claims.trend(rows(*means)[::-1], "falls", UNTRAINED, ACCURACY)
        assert (rises.outcome, pytest.approx(rises.p)) == (back.outcome, back.p)


def test_rising_is_the_number_itself_whatever_is_better() -> None:
    hours = claims.trend(rows(10, 13, 16), "rises", None, HOURS)
    assert (hours.outcome, hours.sentence) == ("supported", "from a to c it changes by +3.0 [+1.9, +4.1] a step")


def test_the_best_row_of_a_trend_of_time_is_the_least() -> None:
    found = claims.trend(rows(10, 13, 16), "rises", row("untrained", 13), HOURS)
    assert found.outcome == "supported" and found.sentence.endswith(", and a is below untrained")
    assert claims.trend(rows(10, 13, 16), "rises", row("untrained", 12), HOURS).outcome == "undecided"


def test_a_trend_the_wrong_way_is_contradicted_after_holms_correction() -> None:
    # three tests: the slope and two steps. Ends 3.6 apart: p = 0.0116, three times that 0.035; 3.1: 0.057
    assert (round(3 * p(3.6), 3), round(3 * p(3.1), 3)) == (0.035, 0.057)
    wrong = trend(53.6, 51.8, 50)
    assert (wrong.outcome, wrong.p) == ("contradicted", pytest.approx(3 * p(3.6)))
    assert "the wrong way (with Holm's correction for 3 tests), and a is above untrained" in wrong.sentence
    open_ = trend(53.1, 51.5, 50)
    assert (open_.outcome, open_.p) == ("undecided", pytest.approx(3 * p(3.1)))
    assert "the wrong way, but p = 0.019 is above 0.017, which Holm's correction for 3 tests asks for" in open_.sentence
    assert open_.more_seeds == seeds_needed(0.5**0.5, 1.55, 3, 1 - 0.05 / 3)


def test_a_step_back_beyond_doubt_contradicts_even_a_slope_as_claimed() -> None:
    # 60 -> 56 is a step back by 4: three times p(4) is 0.024; by 3 it is 0.064, a veto but no contradiction
    turned = trend(50, 60, 56)
    assert (turned.outcome, turned.p) == ("contradicted", pytest.approx(3 * p(4)))
    assert "but b - c = +4.0 [+1.7, +6.3] goes the wrong way (with Holm's correction for 3 tests)" in turned.sentence
    veto = trend(50, 60, 57)
    assert (veto.outcome, veto.p) == ("undecided", pytest.approx(3 * p(3)))
    assert veto.more_seeds == seeds_needed(2**0.5, 3, 3, 1 - 0.05 / 3)
    assert trend(50, 50.5, 60, 57.7).outcome == "undecided"  # back by 2.3
    assert trend(50, 50.5, 60, 57.8).outcome == "supported"  # back by 2.2


def test_the_slope_over_four_rows_by_hand() -> None:
    # weights -3, -1, 1, 3 over 10: slope (3·6 + 1·2)/10 = 2; variance (9 + 1 + 1 + 9)/100/3 = 1/15;
    # shares .45, .05, .05, .45 of it: degrees 2/(2·.2025 + 2·.0025) = 2/.41 = 4.878
    found = trend(50, 52, 54, 56)
    assert found.p == pytest.approx(2 * stats.t.sf(2 / (1 / 15) ** 0.5, 2 / 0.41))


def test_every_row_keeps_its_own_spread() -> None:
    # slope (c - a)/2; a is exact, so the error is sd(c)/√3/2 with 2 degrees of freedom
    several = [side("a", 50, 50, 50), row("b", 51, 30), row("c", 52, 1)]
    found = claims.trend(several, "rises", None, ACCURACY)
    assert found.p == pytest.approx(2 * stats.t.sf(1 / (0.5 / 3**0.5), 2))


def test_a_trend_needs_a_row_that_learned() -> None:
    level = row("untrained", 53)
    found = claims.trend(rows(50, 51.5, 53), "rises", level, ACCURACY)
    assert found.outcome == "undecided" and found.p == pytest.approx(1.0)
    assert found.sentence.endswith("but c is not above untrained, so accuracy cannot decide at this scale")
    assert claims.trend(rows(56, 53, 50), "falls", level, ACCURACY).outcome == "supported"  # the first one has
    step = claims.trend(rows(47, 46, 40, 70), "rises", row("untrained", 50), ACCURACY)
    assert step.outcome == "undecided" and "but b is not above untrained" in step.sentence  # 46 -> 40 is of no network


def test_two_rows_are_their_step() -> None:
    for apart in (3.0, 2.2, -2.5, -4.0):
        two, one = trend(50, 50 + apart), claims.order(row("b", 50 + apart), row("a", 50), UNTRAINED, ACCURACY)
        assert (two.outcome, two.p) == (one.outcome, pytest.approx(one.p))


def inverse_u(*means: float) -> ClaimVerdict:
    return claims.inverse_u(rows(*means), UNTRAINED, ACCURACY)


def test_an_inverse_u_is_an_inner_row_above_both_ends() -> None:
    found = inverse_u(50, 55, 52)  # one inner row: nothing to correct; its smaller lead is 3
    assert (found.outcome, found.p) == ("supported", pytest.approx(p(3)))
    assert found.sentence == "b - a = +5.0 [+2.7, +7.3]; b - c = +3.0 [+0.7, +5.3], and b is above untrained"
    near = inverse_u(50, 55, 52.8)
    assert (near.outcome, near.p) == ("undecided", pytest.approx(p(2.2)))
    assert near.sentence.startswith("the best row is inside, but not for sure: b - a = +5.0")
    assert near.more_seeds == seeds_needed(2**0.5, 2.2, 3)


def test_inner_rows_are_corrected_for_their_number() -> None:
    # three inner rows: 3 · p(4) = 0.024, 3 · p(3) = 0.064
    found = inverse_u(50, 52, 54, 52, 50)
    assert (found.outcome, found.p) == ("supported", pytest.approx(3 * p(4)))
    assert "(with Holm's correction for 3 inner rows)" in found.sentence
    near = inverse_u(50, 52, 53, 52, 50)
    assert (near.outcome, near.p) == ("undecided", pytest.approx(3 * p(3)))
    assert near.more_seeds == seeds_needed(2**0.5, 3, 3, 1 - 0.05 / 3)


def test_an_inverse_u_is_contradicted_by_an_end_above_all_inside() -> None:
    # two ends: 2 · p(3.1) = 0.038, 2 · p(2.9) = 0.048, 2 · p(2.8) = 0.053
    assert [round(2 * p(lead), 3) for lead in (3.1, 2.9, 2.8)] == [0.038, 0.048, 0.053]
    found = inverse_u(50, 51, 50, 54.1)
    assert (found.outcome, found.p) == ("contradicted", pytest.approx(2 * p(3.1)))
    assert found.sentence.startswith("d - b = +3.1 [+0.8, +5.4]; d - c = +4.1 [+1.8, +6.4] (with Holm's correction for 2 ends)")
    assert inverse_u(54.1, 51, 50, 30).outcome == "contradicted"
    assert inverse_u(50, 51, 50, 53.8).outcome == "undecided"
    assert inverse_u(54.1, 53, 50, 30).outcome == "undecided"  # above one inner row only
    assert "the best row is an end, but not for sure" in inverse_u(54.1, 53, 50, 30).sentence


def test_a_u_and_a_flat_line_are_no_inverse_u() -> None:
    assert inverse_u(55, 50, 55).outcome == "contradicted"
    assert inverse_u(50, 50, 50).outcome == "undecided"


def test_the_best_of_a_u_of_time_is_the_least() -> None:
    assert claims.inverse_u(rows(15, 10, 13), None, HOURS).outcome == "supported"
    assert claims.inverse_u(rows(10, 15, 13), None, HOURS).outcome == "contradicted"


def test_an_inverse_u_needs_an_inside_and_a_row_that_learned() -> None:
    with pytest.raises(InputError, match="needs at least 3 rows in the order of the factor, found 2"):
        inverse_u(50, 60)
    assert claims.inverse_u(rows(50, 55, 50), row("untrained", 54), ACCURACY).outcome == "undecided"
    assert claims.inverse_u(rows(56, 50, 30), row("untrained", 55), ACCURACY).outcome == "undecided"


def interaction(a1: float, a0: float, b1: float, b0: float, baseline: Side | None = UNTRAINED) -> ClaimVerdict:
    first, second = (row("a1", a1), row("a0", a0)), (row("b1", b1), row("b0", b0))
    return claims.interaction(first, second, baseline, ACCURACY)


def test_an_interaction_at_the_edge_of_its_interval() -> None:
    # error √(4/3) = 1.1547, degrees 8, t 2.306: half width 2.663
    found = interaction(60, 50, 57, 49.7)
    assert (found.outcome, found.p) == ("supported", pytest.approx(2 * stats.t.sf(2.7 / (4 / 3) ** 0.5, 8)))
    assert found.sentence == "(a1 - a0) - (b1 - b0) = +2.7 [+0.0, +5.4], and a1 is above untrained"
    assert interaction(57, 49.7, 60, 50).outcome == "contradicted"
    near = interaction(60, 50, 57, 49.6)
    assert (near.outcome, near.more_seeds) == ("undecided", seeds_needed(2, 2.6, 3))


def test_an_interaction_is_about_differences_not_levels() -> None:
    assert interaction(30, 20, 90, 85).outcome == "supported"  # 10 against 5
    assert interaction(20, 30, 85, 90).outcome == "contradicted"  # -10 against -5


def test_a_row_in_both_differences_enters_once() -> None:
    # (a - c) - (b - c) = a - b, whatever c is: 2.3 apart, 4 degrees of freedom
    a, b, c = row("a", 52.3), row("b", 50), row("c", 10, 9.0)
    found = claims.interaction((a, c), (b, c), UNTRAINED, ACCURACY)
    assert (found.outcome, found.p) == ("supported", pytest.approx(p(2.3)))
    # (a - c) - (c - b): c counts twice, 4/3 of a variance beside 1/3 and 1/3: error √2
    c = row("c", 50)
    twice = claims.interaction((a, c), (c, b), UNTRAINED, ACCURACY)
    degrees = 2**2 / ((4 / 3) ** 2 / 2 + 2 * (1 / 3) ** 2 / 2)
    assert twice.p == pytest.approx(2 * stats.t.sf(2.3 / 2**0.5, degrees))


def test_an_interaction_of_networks_that_did_not_learn_says_nothing() -> None:
    found = interaction(60, 50, 50, 50, row("untrained", 60))
    assert found.outcome == "undecided" and "a1 is not above untrained" in found.sentence
    assert interaction(50, 60, 50, 50, row("untrained", 55)).outcome == "contradicted"  # a0 has


def test_single_seeds_and_missing_rows_decide_no_shape() -> None:
    several = rows(50, 55, 50, 60)
    for other, outcome in (
        (side("x", 90.0), "undecided"),
        (side("x"), "not run"),
        (side("x", 90.0, 91.0, diverged=1), "undecided"),
    ):
        found = [
            claims.trend([*several, other], "rises", UNTRAINED, ACCURACY),
            claims.inverse_u([*several, other], UNTRAINED, ACCURACY),
            claims.interaction((several[0], several[1]), (several[2], other), UNTRAINED, ACCURACY),
        ]
        assert {(one.outcome, one.p) for one in found} == {(outcome, None)}
    lone = side("untrained", 5.0)
    for waiting in (
        claims.trend(rows(50, 55, 60), "rises", lone, ACCURACY),
        claims.inverse_u(rows(50, 55, 50), lone, ACCURACY),
        claims.interaction((several[1], several[0]), (several[0], several[1]), lone, ACCURACY),
    ):
        assert (waiting.outcome, waiting.waits_for_baseline) == ("undecided", True)


def test_the_order_of_seeds_does_not_matter() -> None:
    several = [side("a", 50, 51, 50.3), side("b", 52.4, 51), side("c", 52.9, 52, 53, 51.5), side("d", 51, 51.2, 51.1)]
    turned = [side(one.name, *one.estimate.values[::-1]) for one in several]
    for one, other in (
        (claims.trend(several, "rises", None, ACCURACY), claims.trend(turned, "rises", None, ACCURACY)),
        (claims.inverse_u(several, None, ACCURACY), claims.inverse_u(turned, None, ACCURACY)),
    ):
        assert (one.outcome, one.sentence, one.more_seeds) == (other.outcome, other.sentence, other.more_seeds)
        assert one.p == pytest.approx(other.p)
