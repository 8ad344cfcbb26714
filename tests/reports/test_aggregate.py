"""Means, intervals, and what must never share a number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.store.record import write_json
from reports.aggregate import estimate, measure, t_quantile
from reports.evidence import Data, Run, experiment_key, read_evidence
from reports.metrics import METRICS, Metric
from reports.planned import PlannedRow
from tests.reports.builder import LINEAR, PROTOCOLS, config, numbers, write_run

LINEAR_TOP1 = METRICS()["linear.top1"]
A, B = Data("cifar10", "aaaaaaaaaaaa"), Data("cifar10", "bbbbbbbbbbbb")


def planned(**more: Any) -> PlannedRow:
    one = config("byol", 0, **more)
    protocols = {str(protocol["name"]): protocol for protocol in PROTOCOLS}
    return PlannedRow("row", experiment_key(one), "byol", one["version"], one, protocols, (0, 1, 2), "command")


def test_t_quantiles_are_those_of_the_printed_tables() -> None:
    assert t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert t_quantile(2) == pytest.approx(4.30265, abs=1e-5)
    assert t_quantile(9) == pytest.approx(2.26216, abs=1e-5)


def test_the_interval_uses_the_sample_standard_deviation() -> None:
    found = estimate([57.5, 57.7, 57.9])
    assert found.mean == pytest.approx(57.7)
    assert found.std == pytest.approx(0.2)  # n - 1; with n it would be 0.163
    assert found.half_width == pytest.approx(4.30265 * 0.2 / 3**0.5, abs=1e-5)
    assert (found.low, found.high) == (pytest.approx(57.20317, abs=1e-4), pytest.approx(58.19683, abs=1e-4))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate([48.3])
    assert (found.n, found.mean, found.std, found.low, found.high, found.half_width) == (1, 48.3, None, None, None, None)


def test_seeds_that_agree_have_exactly_no_spread() -> None:
    """0.1 + 0.1 + 0.1 is not 0.3: a mean by division would leave a spread of 1e-17, and two such rows a difference."""
    for values in ([0.1] * 3, [0.7] * 6, [0.0, 0.0], [-1e-300] * 3):
        found = estimate(values)
        assert (found.mean, found.std, found.low, found.high) == (values[0], 0.0, values[0], values[0])


def test_no_spread_is_too_large_or_too_small_to_square() -> None:
    for scale in (1e200, 1e-200):
        found = estimate([-scale, 0.0, scale])
        assert found.std == pytest.approx(scale) and found.half_width == pytest.approx(4.30265 * scale / 3**0.5, rel=1e-5)


def test_seeds_of_one_row_are_joined_and_another_data_set_is_not(tmp_path: Path) -> None:
    for seed, value in enumerate((50.0, 51.0, 52.0)):
        write_run(tmp_path, config("byol", seed), numbers(value))
    write_run(tmp_path, config("byol", 0, content="bbbbbbbbbbbb"), numbers(10.0))
    runs = read_evidence([tmp_path]).runs[planned().key]
    assert len(runs) == 4
    assert measure(planned(), runs, LINEAR_TOP1, A).estimate == estimate([50.0, 51.0, 52.0])
    assert measure(planned(), runs, LINEAR_TOP1, B).estimate == estimate([10.0])


def test_an_older_method_version_is_left_out_and_named(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), numbers(50.0))
    write_run(tmp_path, config("byol", 1, version=0), numbers(90.0))
    found = measure(planned(), read_evidence([tmp_path]).runs[planned().key], LINEAR_TOP1, A)
    assert found.estimate == estimate([50.0]) and not found.stale
    assert found.left_out == ("1 run of byol version 0 (the code is at 1) left out",)


def test_where_only_older_runs_exist_the_number_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), numbers(50.0))
    newer = planned(version=2)
    found = measure(newer, read_evidence([tmp_path]).runs[newer.key], LINEAR_TOP1, A)
    assert found.estimate == estimate([50.0])
    assert found.stale == "of byol version 1 (the code is at 2)"


def test_another_protocol_never_shares_a_number(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), numbers(50.0))
    write_run(tmp_path, config("byol", 1), numbers(90.0), protocols=(LINEAR | {"version": 7, "l2": 0.5},))
    found = measure(planned(), read_evidence([tmp_path]).runs[planned().key], LINEAR_TOP1, A)
    assert found.estimate == estimate([50.0])
    assert found.left_out == ("1 run with another linear protocol (l2 = 0.5, version = 7) left out",)


def test_diverged_and_unevaluated_runs_are_counted_and_carry_no_number(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), numbers(50.0))
    write_run(tmp_path, config("byol", 1), {}, status="diverged")
    write_run(tmp_path, config("byol", 2), numbers(None, knn=40.0))
    runs = read_evidence([tmp_path]).runs[planned().key]
    found = measure(planned(), runs, LINEAR_TOP1, A)
    assert (found.estimate, found.diverged) == (estimate([50.0]), 1)
    assert found.left_out == ("1 run without a linear evaluation left out",)
    alone = measure(planned(), [run for run in runs if run.seed == 2], LINEAR_TOP1, A)
    assert (alone.estimate, alone.missing) == (None, "1 run trained, linear evaluation missing")


def test_a_null_in_a_record_is_no_number(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), {"linear": {"top1": float("nan")}})
    found = measure(planned(), read_evidence([tmp_path]).runs[planned().key], LINEAR_TOP1, A)
    assert found.estimate is None


DETECTION = {"name": "detection_voc07", "version": 1, "dataset": "voc07", "engine": "builtin", "iterations": 9000}
AP50 = Metric("detection_voc07", "AP50", "AP50", "%", 1, True)
SMALL = Metric("detection_voc07", "APs", "APs", "%", 1, True)


def detected(folder: Path, seed: int, value: float, content: str = "c" * 12, **settings: Any) -> None:
    protocol = DETECTION | {"content": content} | settings
    write_run(folder, config("byol", seed), {"detection_voc07": {"AP50": value}}, protocols=(protocol,))


def for_detection(folder: Path) -> tuple[PlannedRow, list[Run]]:
    row = replace(planned(), protocols={"detection_voc07": DETECTION})
    return row, read_evidence([folder]).runs[row.key]


def test_the_detection_engines_never_share_a_number(tmp_path: Path) -> None:
    detected(tmp_path, 0, 80.0)
    detected(tmp_path, 1, 90.0, engine="detectron2")
    row, runs = for_detection(tmp_path)
    found = measure(row, runs, AP50, A)
    assert found.estimate == estimate([80.0]) and not found.stale
    assert found.left_out == ("1 run of engine detectron2 left out",)
    other = replace(row, protocols={"detection_voc07": DETECTION | {"engine": "detectron2"}})
    assert measure(other, runs, AP50, A).estimate == estimate([90.0])


def test_the_other_engine_does_not_stand_in_either(tmp_path: Path) -> None:
    """One metric that only the other engine has would put both into one row of the table."""
    detected(tmp_path, 0, 80.0)
    protocol = DETECTION | {"content": "c" * 12, "engine": "detectron2"}
    write_run(tmp_path, config("byol", 1), {"detection_voc07": {"AP50": 90.0, "APs": 30.0}}, protocols=(protocol,))
    row, runs = for_detection(tmp_path)
    found = measure(row, runs, SMALL, A)
    assert (found.estimate, found.missing) == (None, "only measured with engine detectron2")


def test_detection_data_of_another_content_is_left_out(tmp_path: Path) -> None:
    for seed, value in enumerate((80.0, 81.0)):
        detected(tmp_path, seed, value)
    detected(tmp_path, 2, 10.0, content="d" * 12)
    row, runs = for_detection(tmp_path)
    found = measure(row, runs, AP50, A)
    assert found.estimate == estimate([80.0, 81.0]) and not found.stale
    assert found.left_out == ("1 run with another detection_voc07 protocol (content = dddddddddddd) left out",)


def test_an_evaluation_that_diverged_is_counted(tmp_path: Path) -> None:
    write_run(tmp_path, config("byol", 0), numbers(50.0))
    write_run(tmp_path, config("byol", 1), numbers(50.0))
    for path in tmp_path.glob("cells/*/evaluations/linear-*.json"):
        record = json.loads(path.read_text())
        if record["cell"] == read_evidence([tmp_path]).runs[planned().key][1].id:
            write_json(path, record | {"status": "diverged", "metrics": {}})
    found = measure(planned(), read_evidence([tmp_path]).runs[planned().key], LINEAR_TOP1, A)
    assert (found.estimate, found.diverged, found.left_out) == (estimate([50.0]), 1, ())
