"""What covers the published tables, counted by hand on a small project and by the registry on the shipped one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import build
from reports.coverage import NOT_ASKED, UNREAD, Coverage, coverage, markdown, shown
from reports.reference import read_references
from tests.reports import toy
from tests.reports.builder import numbers
from tests.reports.project import Project


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Coverage:
    store = tmp_path_factory.mktemp("store")
    toy.write_store(store)
    return coverage(toy.report(store))


def test_a_cell_is_counted_once_at_the_scale_that_says_most(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="cpu")
    for seed in range(2):  # 60 in the paper; the registry says nothing that would keep it from being compared
        project.run("good", seed, numbers(60.0 + 0.01 * seed), profile="cpu")
        project.run("good", seed, numbers(20.0), profile="smoke")
        project.run("bad", seed, numbers(20.0), profile="smoke")
    (line,) = coverage(project.report()).lines
    assert (line.cells, line.rows, line.filled) == (3, 3, 2)
    assert line.run == {"smoke": 2, "cpu": 1}
    assert line.verdicts == {"reproduced": 1, "not comparable": 1, "not run": 1}
    assert line.why == (("it is not among the methods", 1),) and line.reasons == "it is not among the methods (1 cell)"


def test_what_differs_is_never_hidden_behind_what_is_reproduced(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="cpu")
    for seed in range(2):
        project.run("good", seed, numbers(60.0 + 0.01 * seed), profile="cpu")
        project.run("good", seed, numbers(30.0 + 0.01 * seed), profile="cpu", content="bbbbbbbbbbbb")
    (line,) = coverage(project.report()).lines
    assert line.verdicts == {"differs": 1, "not run": 2}


def test_untrained_rows_of_ours_and_trainings_without_a_number_count_for_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="cpu")
    project.run("Random init", 0, numbers(10.0), profile="cpu")
    project.run("good", 0, {}, profile="cpu")
    (line,) = coverage(project.report()).lines
    assert not line.any_run and line.run == {"smoke": 0, "cpu": 0} and line.verdicts is not None
    assert sum(line.verdicts.values()) == 3


def test_a_table_that_nothing_fills_says_why(golden: Coverage) -> None:
    line = next(line for line in golden.lines if line.id == "toy_missing")
    assert line.table is not None and line.filled == 0 and line.run == {}
    assert line.reasons == line.table.missing and shown(line.verdicts) == f"{line.cells} not run"


def test_a_table_that_could_not_be_read_is_there_all_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.table.write_text("table: toy\n")
    report = project.report()
    assert report.problems and not coverage(report).lines
    (line,) = coverage(report, {"toy": 3}).lines
    assert (line.id, line.table, line.cells, line.why) == ("toy", None, 3, ((UNREAD, 3),))
    assert "| toy " in markdown(report, {"toy": 3}) and UNREAD in markdown(report, {"toy": 3})


def test_a_table_that_was_not_asked_for_is_not_called_unreadable(tmp_path: Path) -> None:
    report = Project(tmp_path).report()
    *_, line = coverage(report, {"toy": 3, "other": 2}).lines
    assert (line.id, line.cells, line.reasons) == ("other", 2, NOT_ASKED)
    assert coverage(report, {"other": 2}).total.cells == 5


def test_every_table_of_the_registry_has_a_line_with_all_of_its_cells() -> None:
    references = read_references(build.ROOT / "reports" / "reference")
    found = coverage(build.load(build.Sources([])))
    assert {line.id: line.cells for line in found.lines} == {name: len(cells) for name, cells in references.items()}
    for line in found.lines:
        assert line.verdicts == {"not run": line.cells}
        assert line.filled == line.rows or line.why, line.id  # nothing is absent without a reason
    assert list(found.profiles) == ["smoke", "cpu", "cifar10", "imagenet100", "imagenet"]


def test_the_table_for_running_text_ends_with_the_sums(golden: Coverage, tmp_path: Path) -> None:
    toy.write_store(tmp_path)
    lines = markdown(toy.report(tmp_path)).splitlines()
    assert len(lines) == 2 + len(golden.lines) + 1
    cells = [text.strip() for text in lines[-1].strip("|").split("|")]
    assert cells[:4] == ["together", *(str(getattr(golden.total, name)) for name in ("cells", "rows", "filled"))]
