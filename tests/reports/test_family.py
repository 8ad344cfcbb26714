"""Many claims on one table: Holm's correction by hand and by simulation, and that intersection-union tests need none."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from reports import claims
from reports.claims import ClaimVerdict, Side, holm
from reports.verdict import seeds_needed
from tests.reports.rows import ACCURACY, UNTRAINED, p_of_four, row, side

ERROR = (2 / 3) ** 0.5


def decided(p: float | None, outcome: claims.Outcome = "supported") -> ClaimVerdict:
    return ClaimVerdict(outcome, f"p is {p}", p=p)


def outcomes(*verdicts: ClaimVerdict, level: float = 0.95) -> list[str]:
    return [verdict.outcome for verdict in holm(verdicts, level)]


def test_holms_steps_by_hand() -> None:
    # m = 4: .05/4 = .0125, .05/3 = .0167, .05/2 = .025, .05
    every = [decided(0.01), decided(0.016), decided(0.024), decided(0.049, "contradicted")]
    assert outcomes(*every) == ["supported", "supported", "supported", "contradicted"]
    # the second fails its step: it and all larger ones go, although .024 would pass its own
    assert outcomes(decided(0.01), decided(0.017), decided(0.024), decided(0.049)) == ["supported", *["undecided"] * 3]
    assert outcomes(decided(0.013), decided(0.013), decided(0.013), decided(0.013)) == ["undecided"] * 4
    # Bonferroni would ask .0125 of each: .016 and .024 above pass Holm's step only


def test_the_order_of_claims_does_not_matter() -> None:
    verdicts = [decided(0.01), decided(0.017, "contradicted"), decided(0.024), decided(None), decided(0.6, "undecided")]
    expected = dict(zip([verdict.p for verdict in verdicts], holm(verdicts), strict=True))
    for turned in permutations(verdicts):
        assert holm(turned) == [expected[verdict.p] for verdict in turned]


def test_what_was_not_tested_does_not_count() -> None:
    collapsed = decided(None)
    not_run = ClaimVerdict("not run", "a: no record")
    assert outcomes(collapsed, not_run, decided(0.04)) == ["supported", "not run", "supported"]
    open_ = ClaimVerdict("undecided", "includes 0", p=0.3)  # this one was
    assert outcomes(open_, decided(0.04)) == ["undecided", "undecided"]
    assert outcomes(open_, decided(0.02)) == ["undecided", "supported"]


def test_an_undecided_claim_never_makes_room_for_another() -> None:
    """Withheld for another reason than its p, it may have a small one; counted as passed, it would loosen the next step."""
    small = ClaimVerdict("undecided", "withheld", p=0.001)
    assert outcomes(small, decided(0.03)) == ["undecided", "undecided"]


def test_nothing_at_all_and_one_claim_alone() -> None:
    assert holm([]) == []
    assert outcomes(decided(0.05)) == ["supported"] and outcomes(decided(0.04), level=0.99) == ["undecided"]
    assert outcomes(decided(0.0), decided(0.0), decided(0.0)) == ["supported"] * 3


def test_correcting_twice_changes_nothing() -> None:
    verdicts = [decided(0.01), decided(0.02), decided(0.026), decided(0.04)]
    once = holm(verdicts)
    assert holm(once) == once


def order(name: str, apart: float) -> ClaimVerdict:
    """Two rows of three seeds each, sd 1, so that the error is √(2/3) with 4 degrees of freedom."""
    return claims.order(row(f"{name} up", 50 + apart), row(f"{name} down", 50), UNTRAINED, ACCURACY)


def test_a_withheld_order_says_why_and_how_many_seeds() -> None:
    # p of 2.5 is 0.0376: decided alone, not of two, where Holm asks for 0.025
    first, second = holm([order("a", 2.5), order("b", 1.0)])
    assert (first.outcome, first.p) == ("undecided", pytest.approx(p_of_four(2.5 / ERROR)))
    assert first.more_seeds == seeds_needed(2**0.5, 2.5, 3, 0.975)
    assert first.sentence == (
        "a up - a down = +2.5 [+0.2, +4.8], and a up is above untrained; by itself that would be supported, but with 2 claims "
        f"tested here Holm's correction asks for p ≤ 0.025 and p is 0.038; about {first.more_seeds} more seeds of each row "
        "would probably decide it"
    )
    assert second == order("b", 1.0)  # untouched
    assert holm([order("a", 2.5)]) == [order("a", 2.5)]


def test_what_waits_for_the_untrained_network_says_so() -> None:
    """The rows are 20 apart, but the untrained network is near: its comparison is what fails the stricter step."""
    near = claims.order(row("a", 70), row("b", 50), row("untrained", 67.5), ACCURACY)
    found, _ = holm([near, order("b", 1.0)])
    assert near.outcome == "supported"
    assert (found.outcome, found.more_seeds, found.waits_for_baseline) == ("undecided", None, True)
    assert found.sentence.endswith("more seeds of the untrained network would probably decide it")


def test_seeds_for_a_part_that_was_the_best_of_several() -> None:
    """The step back, p = 0.0192 by itself and twice that for two steps, must pass 0.025: 0.0125 by itself."""
    wrong = claims.ordering([row("a", 56), row("b", 50), row("c", 53.1)], UNTRAINED, ACCURACY)
    found, _ = holm([wrong, order("b", 1.0)])
    assert (wrong.outcome, found.outcome) == ("contradicted", "undecided")
    assert found.more_seeds == seeds_needed(2**0.5, 3.1, 3, 1 - 0.0125)


def test_a_verdict_says_the_same_with_and_without_its_parts() -> None:
    found = order("a", 5.0)
    assert found.parts and found == replace(found, parts=())


DRAWS = 2500


def _sides(sample: np.ndarray) -> list[Side]:
    return [side(f"row {place}", *values) for place, values in enumerate(sample.tolist())]


def _errors(sample: np.ndarray, null: int) -> tuple[int, int]:
    """How many families have a wrong decision among their first `null` orders, with Holm's correction and without."""
    with_holm = without = 0
    for draw in sample:
        rows = _sides(draw)
        alone = [claims.order(one, other, None, ACCURACY) for one, other in zip(rows[::2], rows[1::2], strict=True)]
        with_holm += any(verdict.decided for verdict in holm(alone)[:null])
        without += any(verdict.decided for verdict in alone[:null])
    return with_holm, without


def test_the_familywise_error_of_true_null_orders_is_below_five_percent() -> None:
    """Six orders of equal rows, three to five seeds, spreads that differ between tables."""
    random = np.random.Generator(np.random.PCG64(11))
    for seeds, spreads in ((3, np.ones(12)), (5, np.tile([1.0, 2.0], 6))):
        sample = 50 + random.standard_normal((DRAWS, 12, seeds)) * spreads[:, None]
        with_holm, without = _errors(sample, null=6)
        assert with_holm / DRAWS <= 0.05
        assert without / DRAWS > 0.12  # what the correction is there for


def test_the_familywise_error_holds_where_other_claims_are_true() -> None:
    """Holm is not Bonferroni: four real orders free their share for the two that are null, and no more."""
    random = np.random.Generator(np.random.PCG64(12))
    sample = 50 + random.standard_normal((DRAWS, 12, 4))
    sample[:, 4::2] += 40.0
    with_holm, without = _errors(sample, null=2)
    assert 0.02 < with_holm / DRAWS <= 0.05 < without / DRAWS


def test_no_shape_is_decided_by_chance() -> None:
    """Equal rows: whichever of its outcomes a kind decides is wrong, at most one time in twenty."""
    random = np.random.Generator(np.random.PCG64(13))
    wrong = dict.fromkeys(("ordering", "trend", "inverse_u", "interaction"), 0)
    for draw in 50 + random.standard_normal((DRAWS, 4, 4)):
        a, b, c, d = rows = _sides(draw)
        wrong["ordering"] += claims.ordering(rows, None, ACCURACY).decided
        wrong["trend"] += claims.trend(rows, "rises", None, ACCURACY).decided
        wrong["inverse_u"] += claims.inverse_u(rows, None, ACCURACY).decided
        wrong["interaction"] += claims.interaction((a, b), (c, d), None, ACCURACY).decided
    assert all(count / DRAWS <= 0.05 for count in wrong.values()), wrong
    assert wrong["trend"] / DRAWS > 0.02 and wrong["interaction"] / DRAWS > 0.02  # and they do use what they may


def test_an_equality_at_the_edge_of_its_margin_is_decided_wrongly_at_most_one_time_in_twenty() -> None:
    random = np.random.Generator(np.random.PCG64(14))
    supported = contradicted = 0
    for draw in 50 + 0.1 * random.standard_normal((DRAWS, 3, 4)) + np.array([0.0, 0.5, 1.0])[:, None]:
        found = claims.within(_sides(draw), 1.0, ACCURACY)
        supported += found.outcome == "supported"
        contradicted += found.outcome == "contradicted"
    assert 0 < supported / DRAWS <= 0.05 and 0 < contradicted / DRAWS <= 0.05
