"""Which training fills which cell: one and only one, or a reason, or bad input with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.assemble import Report
from reports.table import Table
from tests.reports.builder import numbers
from tests.reports.project import SWEEP, TABLE, Project, cell_of, write_registry


def smoke(report: Report) -> Table:
    return next(table for table in report.every if table.profile == "smoke")


def test_every_published_row_is_there_and_the_bounds_below(tmp_path: Path) -> None:
    table = smoke(Project(tmp_path).report())
    assert [(row.id, row.own) for row in table.rows] == [
        ("good", False),
        ("bad", False),
        ("absent", False),
        ("Random init", True),
    ]
    entry = table.entry("absent", "acc.")
    assert entry is not None and entry.display == "-" and entry.verdict is not None
    assert (entry.verdict.kind, entry.verdict.sentence, entry.command) == ("not run", "it is not among the methods", "")
    assert table.baseline == "Random init"


def test_a_table_that_no_sweep_fills_is_there_too(tmp_path: Path) -> None:
    project = Project(tmp_path)
    text = TABLE.replace("sweep: sweeps/toy.yaml", "sweep: null\nmissing: language is not here").replace("PROFILE", "null")
    project.table.write_text(text.partition("claims:")[0])
    (table,) = project.report().tables
    assert [row.id for row in table.rows] == ["good", "bad", "absent"] and table.profile == ""
    assert {entry.verdict.sentence for row in table.rows for entry in row.published if entry.verdict} == {
        "language is not here"
    }


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("{method: byol, projector.norm: none}", ""),
        ("{method: byol}", "fits 3 rows: good, bad, aside; add what tells them apart"),
        ("{method: simclr}", "fits no row; check keys and values"),
        ("{projector.norm: nome}", "fits no row"),
    ],
)
def test_a_selection_fits_exactly_one_row_of_the_sweep(tmp_path: Path, selection: str, words: str) -> None:
    project = Project(tmp_path, more=f"rows: {{bad: {{select: {selection}}}}}\n")
    report = project.report()
    if not words:
        found = smoke(report).entry("bad", "acc.")
        assert found is not None and found.training == "bad"
    else:
        (problem,) = report.problems
        assert words in problem and "toy.yaml" in problem and "rows > bad > select" in problem and not report.tables


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"bad": "bad"', '"bad": "bda"', "no row of this name"),
        ('"bad": "bad", ', "", "says what fills the row 'bad'"),
    ],
)
def test_what_the_sweep_gets_wrong_is_named_and_the_rest_stays(tmp_path: Path, old: str, new: str, words: str) -> None:
    project = Project(tmp_path, sweep=SWEEP.replace(old, new))
    (problem,) = project.report().problems
    assert words in problem


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "below: bad",
            "below: bda",
            "claims > order: no row 'bda'; the rows are good, bad, absent, Random init; did you mean 'bad'",
        ),
        ("claims:", "baseline: Random\nclaims:", "baseline: no row 'Random'"),
        ("claims:", "rows: {bad: {row: bda}}\nclaims:", "sweeps/toy.yaml has no row 'bda'; did you mean 'bad'"),
    ],
)
def test_names_that_only_the_join_knows(tmp_path: Path, old: str, new: str, words: str) -> None:
    project = Project(tmp_path, table=TABLE.replace(old, new))
    (problem,) = project.report().problems
    assert words in problem


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = Project(tmp_path, profile="imagenet").report().problems
    assert "protocol > profile: sweeps/toy.yaml has no profile 'imagenet'; it has smoke, cpu" in problem
    with pytest.raises(InputError, match="no sweep has a profile 'cifar'"):
        Project(tmp_path / "second").report("cifar")


def test_columns_that_are_trainings_of_their_own(tmp_path: Path) -> None:
    """Each column its training; a derived column comes from ours; nothing stands beside a row of several trainings."""
    sweep = SWEEP.replace('"good": "good", "bad": "bad"', '"both": {"with": "good", "without": "bad", "gain": {absent: "no"}}')
    table = TABLE.replace(
        '"acc.": {metric: linear.top1}',
        "with: {metric: linear.top1}, without: {metric: linear.top1}, gain: {derive: {minus: [with, without]}}",
    ).partition("claims:")[0]
    project = Project(tmp_path, sweep=sweep, table=table)
    values = (("both", "with", "60"), ("both", "without", "50"), ("both", "gain", "10"), ("absent", "with", "1"))
    write_registry(project.registry, [cell_of("toy", *value) for value in values])
    for seed in (0, 1):
        project.run("good", seed, numbers(61.0 + seed, 50.0, 0.8))
        project.run("bad", seed, numbers(40.0 + 2 * seed, 50.0, 0.8))
    (found,) = project.report().tables
    row = found.row("both")
    with_, without, gain, *beside = row.entries
    assert with_ is not None and without is not None and gain is not None and beside == [None, None]
    assert (with_.training, without.training) == ("good", "bad")
    assert (
        gain.estimate is not None and gain.estimate.mean == 20.5 and gain.reference is not None and gain.reference.value == 10
    )
    # Welch: standard deviations 0.7071 and 1.4142 of two seeds each, 1.4706 degrees of freedom, quantile 6.18
    assert gain.estimate.high is not None and gain.estimate.high - 20.5 == pytest.approx(6.18 * (0.25 + 1.0) ** 0.5, abs=0.3)
    assert set(gain.runs) == {*with_.runs, *without.runs}


def test_a_bound_named_like_a_published_row_does_not_take_its_place(tmp_path: Path) -> None:
    """SimCLR's table of colour strengths prints a row Supervised of other trainings than the sweep's upper bound."""
    sweep = SWEEP.replace("Random init: {method: random}", "Random init: {method: random}\n  good one: {method: supervised}")
    sweep = sweep.replace('"good": "good"', '"good one": "good"')
    project = Project(tmp_path, sweep=sweep, table=TABLE.replace("above: good", "above: good one"))
    write_registry(project.registry, [cell_of("toy", row, "acc.", "60") for row in ("good one", "bad", "absent")])
    table = smoke(project.report())
    assert [row.id for row in table.rows] == ["good one", "bad", "absent", "Random init", "good one (ours)"]
    entries = [table.entry(row, "acc.") for row in ("good one", "good one (ours)")]
    assert [entry.training for entry in entries if entry] == ["good", "good one"]


def test_a_table_whose_sweep_lacks_the_scale_asked_for_is_left_out(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.sweep.with_name("other.yaml").write_text(SWEEP.replace("  cpu: {set: {epochs: 2}, seeds: [0, 1, 2]}\n", ""))
    text = "table: other\ntitle: Other\npaper: {name: Ours}\nsweep: sweeps/other.yaml\nown: all\n"
    project.table.with_name("other.yaml").write_text(text + "protocol: {about: none, profile: null}\nbeside: [knn.top1]\n")
    report = project.report("cpu")
    assert [table.id for table in report.tables] == ["toy"] and not report.problems
