"""The arithmetic of the record: ratios, goals, growth."""

import pytest

from benchmark.bench.memory import growth, slope
from benchmark.bench.record import Goal, Missing, Outcome, assemble, compared, measured


def test_a_ratio_is_ours_over_the_peers_and_decides_its_goal():
    line = compared("b", "ours", "images/s", [90.0, 100.0, 120.0], "theirs", [5.0, 4.0, 1.0], Goal(ratio=25), "way")
    assert (line.median, line.low, line.high, line.ratio) == (100, 90, 120, 25)
    assert (line.goal, line.met, line.peer, line.detail) == ("at least 25x", True, "theirs", "way")
    assert compared("b", "ours", "images/s", [99.0], "theirs", [4.0], Goal(ratio=25)).met is False
    assert compared("b", "ours", "images/s", [99.0], "theirs", [4.0]).met is None


def test_a_goal_without_a_peer_bounds_the_median():
    line = measured("b", "ours", "s", [2.0, 9.0, 3.0], Goal(most=3))
    assert (line.median, line.ratio, line.goal, line.met) == (3, None, "at most 3 s", True)
    assert measured("b", "ours", "s", [3.1], Goal(most=3)).met is False
    assert measured("b", "ours", "s", [3.1]).goal is None


def test_growth_compares_the_last_epochs_with_the_first_after_the_warm_up():
    flat = growth("ours", [10, 50, *[100, 102, 98] * 6], 70)
    assert (flat.ratio, flat.median, flat.met, flat.peer) == (1, 100, True, "itself after the warm-up")
    assert "each: 10, 50, 100" in flat.detail and flat.detail.endswith("70")
    leak = growth("ours", [100.0 + i for i in range(20)])
    assert leak.met is False and leak.ratio == pytest.approx(103 / 118) and "+1.00 MiB an epoch" in leak.detail
    assert slope([5.0, 5.0, 5.0]) == 0


def test_the_record_says_what_it_was_measured_with():
    outcome = Outcome([measured("b", "ours", "s", [1.0])], [Missing("b", "theirs", "absent")])
    record = assemble(outcome, {"small": "a few"}, {"quick": True})
    assert record["quick"] and record["machine"]["cores"] >= 1 and record["images"] == {"small": "a few"}
    assert {"torch", "torchvision", "numba"} <= set(record["versions"])
    assert record["results"][0] == {
        "bench": "b", "subject": "ours", "unit": "s", "median": 1.0, "low": 1.0, "high": 1.0,
        "peer": None, "ratio": None, "goal": None, "met": None, "detail": "",
    }  # fmt: skip
    assert record["missing"] == [{"bench": "b", "subject": "theirs", "why": "absent"}]
