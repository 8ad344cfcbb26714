"""The join: which tables are shown, what stands in a cell, what is compared, and what never shares a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.plan.resolve import DataIdentity
from benchmark.plan.sweep import load_sweep
from reports.assemble import Report
from reports.table import Entry, Table
from tests.reports.builder import KNN, LINEAR, numbers
from tests.reports.project import CONTENT, SWEEP, TABLE, Project, cell_of, write_registry


def at(report: Report, profile: str = "smoke", content: str = "") -> Table:
    return next(t for t in report.every if t.profile == profile and (not content or (t.data and t.data.content == content)))


def cell(table: Table, row: str, column: str = "acc.") -> Entry:
    found = table.entry(row, column)
    assert found is not None
    return found


def test_before_anything_has_run_the_papers_own_profile_is_shown_with_its_commands(tmp_path: Path) -> None:
    (table,) = Project(tmp_path, profile="cpu").report().tables
    assert (table.profile, table.has_runs, table.trained, table.data) == ("cpu", False, False, None)
    good = cell(table, "good")
    assert good.verdict is not None and (good.display, good.verdict.kind, good.seeds) == ("not run", "not run", "0/3")
    assert good.command == "python -m benchmark.run sweeps/toy.yaml --profile cpu --only row=good"
    assert table.command == "python -m benchmark.run sweeps/toy.yaml --profile cpu"
    (smoke,) = Project(tmp_path / "second", profile="cpu").report("smoke").tables
    assert smoke.profile == "smoke"


def test_a_profile_is_shown_when_more_than_the_bounds_were_trained(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("Random init", 0, numbers(20.0, 20.0, 0.6))
    assert [table.profile for table in project.report().tables] == ["cpu"]  # every table has an untrained network
    project.run("good", 0, numbers(60.0, 55.0, 0.8))
    (table,) = project.report().tables
    assert table.profile == "smoke" and table.trained
    assert cell(table, "Random init").display == "20.0"


def test_numbers_seeds_and_verdicts(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="smoke")
    for seed, value in enumerate((59.9, 60.1)):
        project.run("good", seed, numbers(value, 50.0, 0.8))
    project.run("bad", 0, numbers(0.0, 50.0, 0.0))
    table = at(project.report())
    good, bad = cell(table, "good"), cell(table, "bad")
    # two seeds: half width 12.706 * 0.1414 / sqrt(2) = 1.27, which reaches across 60 +- 1
    assert (good.display, good.seeds, good.complete) == ("60.0 ± 1.3", "2", True)
    assert good.verdict is not None and good.verdict.kind == "undecided" and good.outcome.startswith("undecided (+")
    assert (bad.display, bad.seeds, bad.outcome) == ("0.0", "1/2", "undecided (+1)")
    project.run("good", 2, numbers(60.0, 50.0, 0.8))
    good = cell(at(project.report()), "good")
    assert good.outcome == "reproduced" and good.again.endswith("--only row=good --mode force")
    assert len(good.runs) == 3


def test_another_scale_is_never_compared(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="cpu")
    for seed in range(2):
        project.run("good", seed, numbers(60.0 + seed / 100, 50.0, 0.8))
    table = at(project.report())
    assert table.scale == "profile smoke is not the paper's protocol (profile cpu)"
    verdict = cell(table, "good").verdict
    assert verdict is not None and verdict.kind == "not comparable"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"epochs": "200"}, "epochs is 1, in the paper 200"),
        ({"batch": "4096"}, "batch_size is 10, in the paper 4096"),
        ({"encoder": "ResNet-50"}, "encoder.name is resnet10, in the paper resnet50"),
        ({"dataset": "ImageNet-1k"}, "data.name is shapes, in the paper imagenet"),
    ],
)
def test_the_registry_guards_every_cell(tmp_path: Path, words: dict[str, str], reason: str) -> None:
    project = Project(tmp_path, profile="smoke")
    lines = [cell_of("toy", "good", "acc.", "60", **words), cell_of("toy", "bad", "acc.", "50")]
    write_registry(project.registry, [*lines, cell_of("toy", "absent", "acc.", "40")])
    for seed in range(3):
        project.run("good", seed, numbers(60.0 + seed / 100, 50.0, 0.8))
        project.run("bad", seed, numbers(50.0 + seed / 100, 50.0, 0.8))
    table = at(project.report())
    good, bad = cell(table, "good").verdict, cell(table, "bad").verdict
    assert good is not None and (good.kind, good.sentence) == ("not comparable", reason)
    assert bad is not None and bad.kind == "reproduced"


def test_a_stand_in_is_measured_and_not_compared(tmp_path: Path) -> None:
    table = TABLE.replace("{metric: linear.top1}", "{metric: linear_byol.top1}")
    project = Project(tmp_path, profile="smoke", table=table)
    for seed in range(3):
        project.run("good", seed, numbers(60.0 + seed / 100, 50.0, 0.8))
    found = cell(at(project.report()), "good")
    assert found.metric is not None and found.metric.id == "linear.top1" and found.verdict is not None
    assert (found.display, found.verdict.sentence) == ("60.0 ± 0.0", "measured by linear, in the paper by linear_byol")


def test_what_a_profile_does_not_evaluate_says_so(tmp_path: Path) -> None:
    table = TABLE.replace("{metric: linear.top1}", "{metric: detection_voc0712.AP50}").partition("claims:")[0]
    project = Project(tmp_path, table=table)
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    found = cell(at(project.report()), "good")
    assert (found.display, found.command) == ("-", "")
    assert found.verdict is not None and found.verdict.sentence == "this profile does not evaluate detection_voc0712"


def test_two_contents_of_one_data_set_are_two_tables(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    project.run("good", 1, numbers(61.0, 50.0, 0.8))
    project.run("good", 0, numbers(10.0, 50.0, 0.8), content="bbbbbbbbbbbb")
    report = project.report()
    first, second = (table for table in report.tables if table.profile == "smoke")
    assert [cell(table, "good").display for table in (first, second)] == ["60.5 ± 6.4", "10.0"]
    assert first.data is not None and first.data.content == CONTENT and first.slug != second.slug


def test_versions_protocols_and_machines_do_not_mix(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (row,) = (
        row
        for row in load_sweep(project.sweep).expand("smoke", {"shapes": DataIdentity("shapes", CONTENT, 100)})
        if row.name == "good"
    )
    planned = row.cells[0].protocols
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    project.run("good", 1, numbers(10.0, 50.0, 0.8), config={"version": 7})
    other = tuple(p | {"l2_high": 3.0} if p["name"] == "linear" else p for p in planned)
    project.run("good", 2, numbers(20.0, 50.0, 0.8), protocols=other)
    table = at(project.report())
    assert cell(table, "good").display == "60.0"
    notes = " ".join(table.row("good").notes)
    assert "version 7" in notes and "another linear protocol (l2_high = 3.0) left out" in notes
    assert cell(table, "good", "knn.top1").estimate is not None and cell(table, "good", "knn.top1").n == 2  # kNN is the same


def test_only_runs_of_an_older_version_are_shown_as_stale(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="smoke")
    for seed in range(3):
        project.run("good", seed, numbers(60.0 + seed / 100, 50.0, 0.8), config={"version": 0})
    found = cell(at(project.report()), "good")
    assert found.stale and found.display.endswith("(stale)") and found.command
    assert found.verdict is not None and found.verdict.kind == "not comparable" and "version 0" in found.verdict.sentence


def test_memory_and_time_of_different_machines_never_share_a_number(tmp_path: Path) -> None:
    table = TABLE.replace("{metric: linear.top1}", "{metric: pretrain.hours}").partition("claims:")[0]
    project = Project(tmp_path, table=table)
    ids = [project.run("good", seed, numbers(60.0, 50.0, 0.8)) for seed in range(3)]
    path = project.store / "cells" / ids[2] / "record.json"
    path.write_text(path.read_text().replace("Example CPU", "Another CPU"))
    found = at(project.report())
    hours = cell(found, "good")
    assert hours.n == 2 and hours.estimate is not None and hours.estimate.mean == pytest.approx(12.5 / 3600)
    assert "Another CPU" in " ".join(found.row("good").notes)


def test_diverged_seeds_are_counted_and_prove_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="smoke")
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    project.run("good", 1, {}, status="diverged")
    project.run("bad", 0, {}, status="diverged")
    project.run("bad", 1, {}, status="diverged")
    table = at(project.report())
    good, bad = cell(table, "good"), cell(table, "bad")
    assert (good.display, good.seeds) == ("60.0 (1 diverged)", "2") and good.verdict is not None
    assert good.verdict.kind == "undecided" and bad.verdict is not None
    assert (bad.display, bad.verdict.kind) == ("diverged", "differs")


def test_unused_runs_are_counted(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    project.run("aside", 0, numbers(60.0, 50.0, 0.8))  # in the sweep, not in the table
    assert project.report().unused == 1


def test_a_table_of_our_own_has_every_row_of_the_sweep_and_no_verdicts(tmp_path: Path) -> None:
    text = "table: own\ntitle: Own\npaper: {name: Ours}\nsweep: sweeps/toy.yaml\nown: all\n"
    text += "protocol: {about: none, profile: null}\n"
    project = Project(tmp_path, sweep=SWEEP)
    project.table.unlink()
    project.table.with_name("own.yaml").write_text(text + "beside: [linear.top1, knn.top1]\n")
    project.run("aside", 0, numbers(60.0, 50.0, 0.8))
    (table,) = project.report().tables
    assert [row.id for row in table.rows] == ["Random init", "good", "bad", "aside"]
    assert cell(table, "aside", "linear.top1").display == "60.0" and cell(table, "aside", "linear.top1").verdict is None
    assert not table.published and KNN["name"] == "knn" and LINEAR["name"] == "linear"


def test_the_data_of_the_published_rows_come_first(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    for seed in range(3):
        project.run("Random init", seed, numbers(20.0, 20.0, 0.6), content="0" * 12)
    first, second = (table for table in project.report().every if table.profile == "smoke")
    assert first.data is not None and first.data.content == CONTENT and first.trained and not second.trained


def test_a_row_that_a_profile_runs_on_other_data_is_not_in_the_table(tmp_path: Path) -> None:
    sweep = SWEEP.replace("smoke: {seeds: [0, 1]}", "smoke: {seeds: [0, 1], rows: {bad: {data: {name: cifar10}}}}")
    project = Project(tmp_path, sweep=sweep)
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    found = cell(at(project.report()), "bad")
    assert found.verdict is not None and found.display == "-"
    assert found.verdict.sentence == "profile smoke runs this row on cifar10, the table is about shapes"


def test_a_table_may_ask_for_bootstrap_intervals(tmp_path: Path) -> None:
    project = Project(tmp_path, table=TABLE + "interval: bootstrap\n")
    for seed in range(8):
        project.run("good", seed, numbers(60.0 + seed**2 / 10, 50.0, 0.8))
        project.run("bad", seed % 3, numbers(50.0 + seed % 3, 50.0, 0.8))
    table = at(project.report())
    good, bad = cell(table, "good").estimate, cell(table, "bad").estimate
    assert good is not None and bad is not None and (good.kind, bad.kind) == ("bootstrap", "t")  # too few seeds of the second
    assert good.low is not None and good.high is not None and good.high - good.mean != pytest.approx(good.mean - good.low)
    plain = Project(tmp_path / "plain")
    for seed in range(8):
        plain.run("good", seed, numbers(60.0 + seed**2 / 10, 50.0, 0.8))
    found = cell(at(plain.report()), "good").estimate
    assert found is not None and found.kind == "t" and found.mean == good.mean and found.low != good.low
