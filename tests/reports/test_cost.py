"""What it costs: hours spent are the records', what is left is what the plan says, and nothing that is shared counts twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.plan.plan import make_plan
from benchmark.plan.sweep import DataIdentity, load_sweep
from benchmark.store.store import Store
from reports import cost
from reports.build import ROOT
from reports.cost import Amount, Costs, Scale
from reports.site import Site
from reports.site import cost as page
from tests.reports.builder import numbers
from tests.reports.project import CONTENT, Project, cell_of, write_registry

TRAINING, EVALUATIONS = 12.5, 3 * 1.0  # seconds that the builder writes into every record


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.store.mkdir()
    return made


def scale(project: Project, profile: str) -> Scale:
    return next(each for each in cost.gather(project.report()).scales if each.profile == profile)


def change(project: Project, run: str, edit: Callable[[dict[str, Any]], object]) -> None:
    path = project.store / "cells" / run / "record.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def test_an_empty_store_costs_what_its_plan_says(project: Project) -> None:
    """The rows of the table, at both scales; `aside` is a row of the sweep that no table asks for."""
    for profile, seeds in (("smoke", 2), ("cpu", 3)):
        rows = [row for row in load_sweep(project.sweep).expand(profile) if row.name != "aside"]
        plan = make_plan(rows, Store(project.store), "cached", "cpu")
        found = scale(project, profile)
        assert (found.cells, found.done, found.left.count) == (3 * seeds, 0, 3 * seeds) == (len(plan), 0, len(plan))
        assert found.left.seconds == pytest.approx(sum(action.seconds for action in plan))
        assert found.left.shown.endswith(" ?") and found.spent == Amount() and found.further == Amount()


def test_what_was_spent_is_all_that_the_records_say(project: Project) -> None:
    runs = [project.run("good", seed, numbers(60.0 + seed, 50.0, 0.8)) for seed in (0, 1)]
    change(project, runs[0], lambda record: record["timing"].update(ranks=4))
    found = scale(project, "smoke")
    assert found.spent == Amount(2, 4 * TRAINING + TRAINING + 2 * EVALUATIONS)
    assert (found.done, found.left.count, found.hardware) == (2, 4, ("Example CPU",))
    assert scale(project, "cpu").spent == Amount()
    assert cost.gather(project.report()).total == found.spent


def test_a_row_with_runs_costs_what_they_did(project: Project) -> None:
    """One seed is there, so that the other one is no guess; rows that have not run are."""
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    (line,) = scale(project, "smoke").lines
    whole = line.left
    assert line.done == 1 and whole.count == 5
    project.run("good", 1, numbers(61.0, 50.0, 0.8))
    (line,) = scale(project, "smoke").lines
    assert whole.seconds - line.left.seconds == pytest.approx(TRAINING + EVALUATIONS)
    assert whole.guessed == pytest.approx(line.left.guessed)


def test_a_training_that_only_lacks_evaluations_is_not_trained_again(project: Project) -> None:
    """What is left costs what the plan of the same store says."""
    for seed in (0, 1):
        run = project.run("good", seed, numbers(60.0))  # neither knn nor collapse
        if seed == 0:  # the other one is not there any more, so that it must be trained again
            (project.store / "cells" / run / "checkpoint.pt").touch()
        project.run("bad", seed, numbers(40.0, 40.0, 0.8))
        project.run("Random init", seed, numbers(20.0, 20.0, 0.8))
    images = {"shapes": DataIdentity("shapes", CONTENT, 100)}
    rows = [row for row in load_sweep(project.sweep).expand("smoke", images) if row.name != "aside"]
    plan = [action for action in make_plan(rows, Store(project.store), "cached", "cpu") if action.works]
    assert [action.do for action in plan] == ["evaluate", "train"]
    found = scale(project, "smoke")
    assert (found.done, found.cells, found.left.count) == (4, 6, 2)
    assert found.left.seconds == pytest.approx(sum(action.seconds for action in plan))


def test_older_versions_and_other_seeds_do_not_count_as_done(project: Project) -> None:
    old = project.run("good", 0, numbers(60.0, 50.0, 0.8), config={"version": 0})
    change(project, old, lambda record: record["timing"].update(wall_seconds=1e6))  # nor is it what a seed takes now
    project.run("good", 7, numbers(60.0, 50.0, 0.8))
    found = scale(project, "smoke")
    assert (found.done, found.cells) == (0, 6) and found.left.seconds < 1000
    assert found.spent.count == 2


def test_a_run_that_diverged_is_done(project: Project) -> None:
    project.run("good", 0, {}, status="diverged")
    assert scale(project, "smoke").done == 1


@pytest.mark.parametrize(("profile", "planned"), [("smoke", 0), ("cpu", 1)])
def test_further_seeds_are_those_beyond_the_plan(project: Project, profile: str, planned: int) -> None:
    """The claim is open; what the power calculation asks for, less the seeds that are planned anyway."""
    for seed in (0, 1):
        project.run("good", seed, numbers(60.0 + 2 * seed, 50.0, 0.8), profile)
        project.run("bad", seed, numbers(58.0 + 2.5 * seed, 50.0, 0.8), profile)
        project.run("Random init", seed, numbers(20.0 + seed, 20.0, 0.8), profile)
    table = next(table for table in project.report().every if table.profile == profile)
    (claim,) = table.claims
    assert claim.verdict.outcome == "undecided" and claim.verdict.more_seeds is not None
    (line,) = scale(project, profile).lines
    assert line.further.count == 2 * (claim.verdict.more_seeds - planned)  # of each of the two rows
    assert line.further.seconds == pytest.approx(line.further.count * (TRAINING + EVALUATIONS))
    assert line.further.guessed == 0 and not line.further.shown.endswith("?")


def test_two_tables_share_their_cells(project: Project) -> None:
    text = project.table.read_text()
    (project.table.parent / "again.yaml").write_text(text.replace("table: toy", "table: again"))
    lines = [cell_of(table, row, "acc.", "60") for table in ("toy", "again") for row in ("good", "bad", "absent")]
    write_registry(project.registry, lines)
    words = "  tables:\n    again: {good: good, bad: bad, absent: {absent: no}}\n    toy:"
    project.sweep.write_text(project.sweep.read_text().replace("  tables:\n    toy:", words))
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    found = scale(project, "smoke")
    assert [(line.cells, line.done) for line in found.lines] == [(6, 1), (6, 1)]
    assert (found.tables, found.cells, found.done, found.spent.count) == (2, 6, 1, 1)
    assert found.left == found.lines[0].left == found.lines[1].left


def test_the_cost_that_a_paper_prints(project: Project) -> None:
    lines = [cell_of("toy", row, "acc.", "60") for row in ("good", "bad", "absent")]
    lines += [
        cell_of("toy", row, "time", value, unit="h", metric="training time") for row, value in (("good", "53"), ("bad", ""))
    ]
    write_registry(project.registry, lines)
    columns = 'columns: {"acc.": {metric: linear.top1}, "time": {metric: pretrain.hours}}'
    project.table.write_text(project.table.read_text().replace('columns: {"acc.": {metric: linear.top1}}', columns))
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    first, second = cost.gather(project.report()).published
    assert (first.row.id, first.column, first.entry.paper, second.entry.paper) == ("good", "time", "53", "?")
    ((table, entry),) = first.measured
    assert table.profile == "smoke" and entry.estimate is not None
    assert entry.estimate.mean == pytest.approx(TRAINING / 3600) and second.measured == ()


def test_a_figure_never_mixes_machines(project: Project) -> None:
    for row in ("good", "bad"):
        for seed in (0, 1):
            project.run(row, seed, numbers(60.0 + seed, 50.0, 0.8))
    (sketch,) = cost.gather(project.report()).sketches
    points = {point[0]: point for point in sketch.data["points"]}
    assert set(points) == {"good", "bad"} and "Example CPU" in sketch.title
    assert points["good"][1] == pytest.approx(TRAINING / 3600) and points["good"][2] == pytest.approx(60.5)
    for path in project.store.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        if record["config"]["projector"]["norm"] == "none":
            record["provenance"]["hardware"]["cpu"] = "Another"
            path.write_text(json.dumps(record))
    assert cost.gather(project.report()).sketches == ()  # one row on each machine


def test_the_page_has_every_scale_and_table(project: Project, tmp_path: Path) -> None:
    project.table.write_text(project.table.read_text().replace("title: Toys", 'title: "<i>Toys</i>"'))
    project.run("good", 0, numbers(60.0, 50.0, 0.8))
    report = project.report()
    site = Site(tmp_path / "site", report, also=["cost.html"])
    page.write(site, cost.gather(report), {})
    text = (tmp_path / "site" / "cost.html").read_text()
    assert "&lt;i&gt;Toys" in text and "<i>Toys" not in text
    assert all(f'id="{profile}"' in text for profile in ("smoke", "cpu"))
    assert 'href="tables/toy.html' in text and "16 s" in text  # 12.5 + 3, rounded
    page.write(site, Costs((), (), (), Amount()), {})
    assert "Nothing has run yet." in (tmp_path / "site" / "cost.html").read_text()


def test_it_needs_no_torch() -> None:
    unwanted = "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'jinja2')))"
    code = f"import sys, reports.site.cost, reports.site.against; {unwanted}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
