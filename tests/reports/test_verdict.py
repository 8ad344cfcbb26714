"""Verdicts against cases worked out by hand."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest

from reports.aggregate import Measured, estimate, t_quantile
from reports.metrics import metric
from reports.reference import Reference
from reports.verdict import MOST_SEEDS, compare, seeds_needed

LINEAR = metric("linear.top1", "the test")


def reference(value: float | None = 57.7, status: str = "paper-text") -> Reference:
    printed = "" if value is None else f"{value:g}"
    return Reference(*["x"] * 12, printed, value, "%", status, "", "")  # type: ignore[arg-type]


def measured(*values: float, **more: Any) -> Measured:
    return Measured(estimate(values) if values else None, **more)


def test_reproduced_needs_the_whole_interval_inside_the_margin() -> None:
    # mean 57.7, sd 0.2, n 3: half width 4.303 * 0.2 / sqrt(3) = 0.497
    assert compare(measured(57.5, 57.7, 57.9), reference(), 0.5, LINEAR).kind == "reproduced"
    assert compare(measured(57.5, 57.7, 57.9), reference(), 0.49, LINEAR).kind == "undecided"


def test_differs_needs_the_whole_interval_outside_the_margin() -> None:
    below = compare(measured(54.8, 55.0, 55.2), reference(), 2.0, LINEAR)  # up to 55.497, edge 55.7
    assert (below.kind, below.sentence) == ("differs", "the whole 95% interval [54.5, 55.5] lies below 57.7 ± 2")
    assert compare(measured(60.2, 60.4, 60.6), reference(), 2.0, LINEAR).kind == "differs"  # above
    assert compare(measured(55.1, 55.3, 55.5), reference(), 2.0, LINEAR).kind == "undecided"  # up to 55.797


def test_a_significance_test_alone_would_be_wrong_both_ways() -> None:
    # sd 0.6 around 90.0 against 91.0: p = 0.10 calls it "fine"; sd 0.05 around 90.9 calls 0.1 points "different"
    assert compare(measured(89.4, 90.0, 90.6), reference(91.0), 0.5, LINEAR).kind == "undecided"
    assert compare(measured(90.85, 90.9, 90.95), reference(91.0), 0.5, LINEAR).kind == "reproduced"


def test_one_seed_never_reproduces() -> None:
    found = compare(measured(57.7), reference(), 2.0, LINEAR)
    assert (found.kind, found.more_seeds) == ("undecided", 1)
    assert found.sentence == "one seed has no interval; its value lies inside 57.7 ± 2; at least 1 more seed"


def test_seeds_that_agree_exactly_have_an_interval_of_no_width() -> None:
    assert compare(measured(0.0, 0.0), reference(0.0), 1.0, LINEAR).kind == "reproduced"


def test_the_number_of_seeds_satisfies_the_power_formula_and_one_fewer_does_not() -> None:
    z = NormalDist().inv_cdf(0.8)
    assert seeds_needed(0.5, 0.5, 3) == 7  # n = 10: (2.262 + 0.842) / sqrt(10) = 0.98; n = 9: 1.05
    assert (t_quantile(9) + z) * 0.5 / math.sqrt(10) <= 0.5 < (t_quantile(8) + z) * 0.5 / math.sqrt(9)
    assert seeds_needed(0.0, 0.5, 2) == 1
    assert seeds_needed(1.0, 0.0, 3) is None
    assert seeds_needed(1.0, 0.01, 3) is None and MOST_SEEDS == 200


def test_undecided_says_how_many_seeds() -> None:
    found = compare(measured(56.8, 57.3, 57.8), reference(57.3), 1.0, LINEAR)
    assert found.kind == "undecided"  # half width 1.242
    assert found.more_seeds == seeds_needed(0.5, 1.0, 3) == 2
    assert found.sentence.endswith("about 2 more seeds would probably decide it")
    edge = compare(measured(49.0, 50.0, 51.0), reference(51.0), 1.0, LINEAR)
    assert edge.more_seeds is None and "more than 200 seeds" in edge.sentence


def test_another_scale_is_not_comparable_whatever_the_number() -> None:
    found = compare(measured(57.6, 57.7, 57.8), reference(), 2.0, LINEAR, "profile smoke is not the paper's protocol")
    assert (found.kind, found.sentence) == ("not comparable", "profile smoke is not the paper's protocol")


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (None, "the paper has no such row"),
        (reference(None, "unverified"), "not established (unverified)"),
        (reference(50.0, "memory"), "not checked (memory"),
        (reference(50.0, "unverified"), "not checked (unverified"),
    ],
)
def test_what_nobody_has_seen_gates_nothing(known: Reference | None, words: str) -> None:
    found = compare(measured(49.9, 50.0, 50.1), known, 2.0, LINEAR)
    assert found.kind == "not comparable" and words in found.sentence


def test_secondary_sources_count() -> None:
    assert compare(measured(57.5, 57.7, 57.9), reference(57.7, "secondary"), 2.0, LINEAR).kind == "reproduced"


def test_not_run_gives_the_reason() -> None:
    found = compare(Measured(missing="no record"), reference(), 2.0, LINEAR)
    assert (found.kind, found.sentence) == ("not run", "no record")


def test_divergence_is_a_difference_when_total_and_no_evidence_when_partial() -> None:
    assert compare(measured(diverged=3), reference(), 2.0, LINEAR).kind == "differs"
    assert compare(measured(diverged=1), reference(), 2.0, LINEAR).sentence.startswith("the one seed diverged")
    partial = compare(measured(57.6, 57.8, diverged=1), reference(), 2.0, LINEAR)
    assert (partial.kind, partial.sentence[:20]) == ("undecided", "1 of 3 seeds diverge")
    scaled = compare(measured(diverged=2), reference(), 2.0, LINEAR, "another scale")
    assert (scaled.kind, scaled.sentence) == ("not comparable", "another scale; 2 of 2 seeds diverged")


def test_stale_runs_are_not_comparable() -> None:
    found = compare(measured(57.5, 57.7, stale="of byol version 1 (the code is at 2)"), reference(), 2.0, LINEAR)
    assert (found.kind, found.sentence) == ("not comparable", "only runs of byol version 1 (the code is at 2) exist")
