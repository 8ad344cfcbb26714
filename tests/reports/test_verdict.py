"""Verdicts against cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import permutations
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports.aggregate import Measured, estimate, t_quantile
from reports.metrics import metric
from reports.reference import Reference
from reports.verdict import MOST_SEEDS, compare, seeds_needed

LINEAR = metric("linear.top1", "the test")


def reference(value: float | None = 57.7, status: str = "paper-text") -> Reference:
    printed = "" if value is None else f"{value:g}"
    told: dict[str, Any] = dict.fromkeys((field.name for field in fields(Reference)), "x")
    return Reference(**told | {"printed": printed, "value": value, "status": status})


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
    assert seeds_needed(0.0, 0.5, 199) == 1 and seeds_needed(0.0, 0.5, 200) is None
    assert seeds_needed(0.0, 0.5, 0) == 2  # a single seed has no interval


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


def test_a_published_zero_and_negative_numbers() -> None:
    zero = compare(measured(0.1, -0.1, 0.0), reference(0.0), 0.5, LINEAR)  # half width 0.248
    assert (zero.kind, zero.sentence) == ("reproduced", "the whole 95% interval [-0.2, 0.2] lies within 0 ± 0.5")
    below = compare(measured(-57.5, -57.7, -57.9), reference(-57.7), 0.5, LINEAR)
    assert below.kind == "reproduced"
    assert compare(measured(-57.5, -57.7, -57.9), reference(57.7), 0.5, LINEAR).kind == "differs"


def test_two_seeds_reach_far() -> None:
    # 57.6 and 57.8: sd 0.1414, half width 12.706 * 0.1 = 1.2706
    found = estimate([57.6, 57.8])
    assert found.half_width == pytest.approx(1.27062, abs=1e-4)
    assert compare(Measured(found), reference(), 1.28, LINEAR).kind == "reproduced"
    assert compare(Measured(found), reference(), 1.26, LINEAR).kind == "undecided"


def test_huge_spreads_are_undecided_in_words() -> None:
    found = compare(measured(1e200, -1e200, 57.7), reference(), 0.5, LINEAR)
    assert (found.kind, found.more_seeds) == ("undecided", None)
    assert found.sentence.endswith("more than 200 seeds would be needed: it lies on the edge")


def test_the_order_of_seeds_does_not_matter() -> None:
    every = {compare(measured(*values), reference(), 1.0, LINEAR) for values in permutations((57.0, 57.4, 58.1, 57.2))}
    assert len(every) == 1


def test_the_interval_and_the_test_are_scipys() -> None:
    values = [56.9, 57.4, 57.1, 58.0, 57.7]
    found, oracle = estimate(values, 0.9), stats.ttest_1samp(values, 57.0).confidence_interval(0.9)
    assert (found.low, found.high, found.level) == (pytest.approx(oracle.low), pytest.approx(oracle.high), 0.9)
    # two one-sided tests at 2.5 % each are the whole 95 % interval inside the margin
    for margin in np.linspace(0.1, 2.0, 39):
        over = stats.ttest_1samp(values, 57.7 - margin, alternative="greater").pvalue
        under = stats.ttest_1samp(values, 57.7 + margin, alternative="less").pvalue
        reproduced = compare(measured(*values), reference(), float(margin), LINEAR).kind == "reproduced"
        assert reproduced == (max(over, under) <= 0.025)


def test_a_sentence_names_the_level_and_the_bootstrap() -> None:
    values = [57.5, 57.6, 57.6, 57.7, 57.7, 57.8, 57.9, 58.4]
    resampled = compare(Measured(estimate(values, kind="bootstrap")), reference(), 1.0, LINEAR)
    assert resampled.kind == "reproduced" and resampled.sentence.startswith("the whole 95% bootstrap interval [57.6, ")
    usual = compare(Measured(estimate(values, 0.975)), reference(), 1.0, LINEAR)
    assert usual.sentence.startswith("the whole 97.5% interval [")


def test_a_longer_interval_asks_for_more_seeds() -> None:
    usual, strict = seeds_needed(0.5, 0.5, 3), seeds_needed(0.5, 0.5, 3, 0.99)
    assert usual is not None and strict is not None and strict > usual
    n, z = 3 + strict, NormalDist().inv_cdf(0.8)
    assert (t_quantile(n - 1, 0.99) + z) * 0.5 / math.sqrt(n) <= 0.5 < (t_quantile(n - 2, 0.99) + z) * 0.5 / math.sqrt(n - 1)


def test_reproduced_at_the_margins_edge_is_wrong_at_most_one_time_in_twenty() -> None:
    """The true mean is the paper's number + margin: neither word is right there."""
    draws = 3000
    generator = np.random.Generator(np.random.PCG64(3))
    for seeds in (2, 3, 5):
        found = [
            compare(measured(*values), reference(57.7), 1.0, LINEAR).kind
            for values in (58.7 + 0.1 * generator.standard_normal((draws, seeds))).tolist()
        ]
        reproduced, differs = found.count("reproduced") / draws, found.count("differs") / draws
        assert 0.01 < reproduced <= 0.04 and 0.01 < differs <= 0.04 and reproduced + differs <= 0.06


def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    for seeds in (2, 3, 6):
        found = [estimate(values) for values in generator.standard_normal((20000, seeds)).tolist()]
        held = sum(one.low < 0 < one.high for one in found if one.low is not None and one.high is not None) / 20000
        assert held == pytest.approx(0.95, abs=0.006)


def test_the_seeds_asked_for_decide_four_times_in_five() -> None:
    """sd 1, the mean 2 inside the edge: the number of seeds asked for keeps its promise, three fewer do not."""
    generator = np.random.Generator(np.random.PCG64(6))
    n = 2 + (seeds_needed(1.0, 1.0, 2) or 0)

    def decided(seeds: int) -> float:
        sample = generator.standard_normal((3000, seeds)).tolist()
        return sum(one.high < 1.0 for one in map(estimate, sample) if one.high is not None) / 3000

    assert decided(n) >= 0.78 > decided(n - 3)
