"""Claims find their cells, are one family, and say what limits them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.table import Claim
from tests.reports.builder import numbers
from tests.reports.project import SWEEP, TABLE, Project, cell_of, write_registry


def judged(project: Project) -> dict[str, Claim]:
    table = next(table for table in project.report().every if table.profile == "smoke")
    return {claim.id: claim for claim in table.claims}


def filled(project: Project, good: float = 60.0, bad: float = 50.0, floor: float = 20.0, std: float = 0.9) -> None:
    for seed in range(3):
        project.run("good", seed, numbers(good + 0.1 * seed, good + 0.1 * seed, std))
        project.run("bad", seed, numbers(bad + 0.1 * seed, bad + 0.1 * seed, 0.03))
        project.run("Random init", seed, numbers(floor + 0.1 * seed, floor + 0.1 * seed, 0.6))


@pytest.mark.parametrize(("profile", "words"), [("smoke", "supported"), ("cpu", "supported (direction)")])
def test_an_order_holds_at_the_papers_scale_or_in_direction(tmp_path: Path, profile: str, words: str) -> None:
    project = Project(tmp_path, profile=profile)
    filled(project)
    claim = judged(project)["order"]
    assert claim.words == words and claim.rows == ("good", "bad") and claim.verdict.p is not None and claim.verdict.p < 1e-6


def test_an_order_against_the_paper_is_contradicted(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="smoke")
    filled(project, good=40.0)
    assert judged(project)["order"].words == "contradicted"


def test_without_learning_accuracy_decides_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    filled(project, floor=70.0)
    assert judged(project)["order"].verdict.outcome == "undecided"


def test_what_nobody_has_seen_in_the_paper_decides_nothing_unless_its_text_says_so(tmp_path: Path) -> None:
    for name, more, outcome in (("plain", "", "undecided"), ("seen", ", seen: true", "supported")):
        table = TABLE.replace("says: Good is better than bad.}", f"says: Good is better than bad.{more}}}")
        project = Project(tmp_path / name, profile="smoke", table=table)
        lines = [cell_of("toy", "good", "acc.", "60", status="memory"), cell_of("toy", "bad", "acc.", "50")]
        write_registry(project.registry, [*lines, cell_of("toy", "absent", "acc.", "1")])
        filled(project)
        assert judged(project)["order"].verdict.outcome == outcome


def test_claims_on_another_measure_and_on_collapse(tmp_path: Path) -> None:
    more = "  near: {kind: order, above: good, below: bad, metric: knn.top1, says: kNN too.}\n"
    more += "  spread: {kind: not_collapsed, cell: good, says: Good spreads.}\n"
    more += "  gone: {kind: collapse, cell: bad, says: Bad collapses.}\n"
    project = Project(tmp_path, profile="smoke", more=more)
    filled(project)
    found = judged(project)
    assert {name: claim.words for name, claim in found.items()} == dict.fromkeys(
        ("order", "near", "spread", "gone"), "supported"
    )
    assert found["gone"].verdict.p is None  # decided by its edges, and so not one of the family


def test_a_family_of_claims_is_harder_to_please(tmp_path: Path) -> None:
    """p = 0.0327 for the difference 0.4 of rows with standard deviation 0.1528: enough alone, not beside three open claims."""
    values = ((60.2, 60.3, 60.5), (59.8, 59.9, 60.1))
    more = "".join(
        f"  {name}: {{kind: order, above: {above}, below: good, says: Another one.}}\n"
        for name, above in (("a", "Random init"), ("b", "bad"), ("c", "Random init"))
    )
    for folder, text, outcome in (("alone", "", "supported"), ("family", more, "undecided")):
        project = Project(tmp_path / folder, profile="smoke", more=text)
        for seed in range(3):
            project.run("good", seed, numbers(values[0][seed], 1.0, 0.9))
            project.run("bad", seed, numbers(values[1][seed], 1.0, 0.9))
            project.run("Random init", seed, numbers((10.0, 30.0, 20.0)[seed], 1.0, 0.9))
        claim = judged(project)["order"]
        assert claim.verdict.outcome == outcome, claim.verdict.sentence
    assert "Holm" in claim.verdict.sentence


def test_two_measures_are_never_set_against_each_other(tmp_path: Path) -> None:
    table = TABLE.replace(
        '{"acc.": {metric: linear.top1}}', '{"acc.": {metric: linear.top1}, near: {metric: knn.top1}}'
    ).replace("below: bad", "below: {row: bad, column: near}")
    project = Project(tmp_path, table=table)
    lines = [cell_of("toy", "good", "acc.", "60"), cell_of("toy", "bad", "near", "50"), cell_of("toy", "absent", "acc.", "1")]
    write_registry(project.registry, lines)
    filled(project)
    verdict = judged(project)["order"].verdict
    assert verdict.outcome == "not run" and "measured differently here, by linear and kNN" in verdict.sentence


def test_collapse_of_a_column_that_is_a_training_of_its_own(tmp_path: Path) -> None:
    sweep = SWEEP.replace('"good": "good", "bad": "bad"', '"both": {"with": "good", "without": "bad"}')
    table = TABLE.replace('"acc.": {metric: linear.top1}', "with: {metric: linear.top1}, without: {metric: linear.top1}")
    claim = "order: {kind: collapse, cell: {row: both, column: without}, says: Without it collapses.}"
    table = table.replace("order: {kind: order, above: good, below: bad, says: Good is better than bad.}", claim)
    project = Project(tmp_path, profile="smoke", sweep=sweep, table=table)
    values = (("both", "with", "60"), ("both", "without", "50"), ("absent", "with", "1"))
    write_registry(project.registry, [cell_of("toy", *value) for value in values])
    filled(project)
    verdict = judged(project)["order"].verdict
    assert verdict.outcome == "supported" and verdict.sentence.startswith("both, without: std(z)·√d = 0.030")


def test_a_gap_needs_published_numbers_or_points(tmp_path: Path) -> None:
    more = "  size: {kind: gap, above: good, below: bad, margin: 0.5, says: Ten points apart.}\n"
    project = Project(tmp_path / "first", profile="smoke", more=more)
    filled(project)
    assert judged(project)["size"].words == "supported"
    lines = [cell_of("toy", "good", "acc.", ""), cell_of("toy", "bad", "acc.", "50"), cell_of("toy", "absent", "acc.", "1")]
    write_registry(project.registry, lines)
    (problem,) = project.report().problems
    assert "claims > size" in problem and "a gap needs two cells whose published numbers are established" in problem
    scaled = Project(tmp_path / "second", profile="cpu", more=more)
    filled(scaled)
    assert judged(scaled)["size"].verdict.outcome == "undecided"  # the size of a gap says nothing at another scale
