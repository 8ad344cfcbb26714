"""Two stores compared: the words are those of the interval, and nothing that was not measured alike is held together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from reports import against
from reports.against import Comparison, Pair, compare, markdown
from reports.assemble import Report
from reports.site import Site
from reports.site import against as page
from tests.reports.builder import numbers
from tests.reports.project import Project

LINEAR, KNN = "acc.", "knn.top1"


class Stores:
    """The same project with two stores, each filled in turn."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.here, self.there = root / "here", root / "there"

    def fill(self, store: Path, row: str, values: list[float], **more: Any) -> list[str]:
        self.project.store = store
        return [self.project.run(row, seed, numbers(value, 50.0), **more) for seed, value in enumerate(values)]

    def report(self, store: Path) -> Report:
        self.project.store = store
        store.mkdir(exist_ok=True)
        return self.project.report()

    def compared(self) -> Comparison:
        return compare(self.report(self.here), self.report(self.there), "here", "there")


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def change(store: Path, run: str, edit: Callable[[dict[str, Any]], object]) -> None:
    path = store / "cells" / run / "record.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def cell(found: Comparison, row: str, column: str = LINEAR) -> Pair:
    (pair,) = [pair for pair in found.pairs if pair.row.id == row and pair.column.id == column]
    return pair


@pytest.mark.parametrize(
    ("here", "there", "outcome"),
    [
        ([60.0, 60.2, 60.1], [60.1, 60.3, 60.0], "agree"),  # all within 1 point
        ([60.0, 60.2, 60.1], [64.0, 64.2, 64.1], "differ"),
        ([64.0, 64.2, 64.1], [60.0, 60.2, 60.1], "differ"),
        ([60.0, 60.2, 60.1], [61.0, 61.2, 61.1], "undecided"),  # 1.0 apart, the margin itself
        ([60.0], [64.0, 64.2], "undecided"),
        ([60.0], [60.0], "agree"),  # the same number; nothing more can be asked of one seed
    ],
)
def test_the_interval_of_the_difference_decides(stores: Stores, here: list[float], there: list[float], outcome: str) -> None:
    stores.fill(stores.here, "good", here)
    stores.fill(stores.there, "good", there)
    assert cell(stores.compared(), "good").outcome == outcome


def test_the_interval_is_welchs(stores: Stores) -> None:
    here, there = [60.0, 63.0, 61.5], [60.5, 60.7]
    stores.fill(stores.here, "good", here)
    stores.fill(stores.there, "good", there)
    pair = cell(stores.compared(), "good")
    low, high = stats.ttest_ind(here, there, equal_var=False).confidence_interval(0.95)
    assert (pair.low, pair.high) == pytest.approx((low, high))
    assert pair.gap == pytest.approx(0.9) and pair.difference.startswith("+0.9 [")


def test_what_only_one_store_has_is_said(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 61.0])
    stores.fill(stores.there, "bad", [40.0])
    found = stores.compared()
    assert (cell(found, "good").outcome, cell(found, "bad").outcome) == ("only here", "only there")
    assert "2 seeds" in cell(found, "good").sentence and "1 seed" in cell(found, "bad").sentence
    assert found.counts["differ"] == found.counts["agree"] == 0


def test_an_empty_store_is_no_error(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 61.0])
    assert {pair.outcome for pair in stores.compared().pairs} == {"only here"}
    assert compare(stores.report(stores.there), stores.report(stores.there)).pairs == ()


def test_other_images_are_never_held_together(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    stores.fill(stores.there, "good", [70.0, 70.1], content="bbbbbbbbbbbb")
    found = stores.compared()
    assert {pair.outcome for pair in found.pairs} == {"only here", "only there"}
    (told,) = found.other_data
    assert "aaaaaaaaaaaa" in told and "bbbbbbbbbbbb" in told


def test_other_versions_are_told_apart(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    stores.fill(stores.there, "good", [70.0, 70.1], config={"version": 0})
    pair = cell(stores.compared(), "good")
    assert (pair.outcome, pair.gap) == ("not comparable", None)
    assert pair.sentence == "method version 1 here, 0 there"


def test_other_protocols_are_told_apart(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    row = stores.report(stores.here).plans["sweeps/toy.yaml"].profiles["smoke"].rows["good"]
    other = tuple(p | {"l2_low": -9} if p["name"] == "linear" else p for p in row.protocols.values())
    stores.fill(stores.there, "good", [70.0, 70.1], protocols=other)
    found = stores.compared()
    assert cell(found, "good").outcome == "not comparable"
    assert cell(found, "good").sentence == f"l2_low {row.protocols['linear']['l2_low']} here, -9 there"
    assert cell(found, "good", KNN).outcome == "agree"  # that protocol is the same in both


def test_two_protocols_in_one_store_are_no_hindrance_where_the_planned_one_is_among_them(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    row = stores.report(stores.here).plans["sweeps/toy.yaml"].profiles["smoke"].rows["good"]
    other = tuple(p | {"l2_low": -9} if p["name"] == "linear" else p for p in row.protocols.values())
    stores.fill(stores.here, "good", [70.0, 70.1], protocols=other)
    stores.fill(stores.there, "good", [60.0, 60.1])
    assert cell(stores.compared(), "good").outcome == "agree"


def test_a_seed_that_diverged_in_one_store_alone(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    stores.fill(stores.there, "good", [1.0, 1.0], status="diverged")
    assert cell(stores.compared(), "good").outcome == "differ"
    stores.fill(stores.here, "bad", [60.0, 60.1])
    stores.fill(stores.there, "bad", [60.0])
    stores.project.store = stores.there
    stores.project.run("bad", 1, {}, status="diverged")
    pair = cell(stores.compared(), "bad")
    assert (pair.outcome, pair.sentence[:43]) == ("undecided", "0 of 2 seeds diverged here, 1 of 2 there: a")


def test_what_matters_comes_first(stores: Stores) -> None:
    """Decided differences, the largest first; the paper's own column before what stands beside it."""
    for row, there in (("good", 66.0), ("bad", 70.0)):
        stores.fill(stores.here, row, [60.0, 60.1])
        stores.fill(stores.there, row, [there, there + 0.1])
    stores.fill(stores.there, "Random init", [30.0])
    found = stores.compared()
    assert [pair.row.id for pair in found.of("differ")] == ["bad", "good"]
    order = [against.OUTCOMES.index(pair.outcome) for pair in found.pairs]
    assert order == sorted(order) and found.pairs[0].row.id == "bad"


def test_a_claim_that_turns_is_named(stores: Stores) -> None:
    for store, good, bad in ((stores.here, 60.0, 40.0), (stores.there, 40.0, 60.0)):
        stores.fill(store, "good", [good, good + 0.1, good + 0.2])
        stores.fill(store, "bad", [bad, bad + 0.1, bad + 0.2])
        stores.fill(store, "Random init", [20.0, 20.1, 20.2])
    (claim,) = stores.compared().claims
    assert (claim.here.split()[0], claim.there.split()[0]) == ("supported", "contradicted")
    assert compare(stores.report(stores.here), stores.report(stores.here)).claims == ()


def test_machines_and_versions_that_are_not_the_same_come_first(stores: Stores) -> None:
    stores.fill(stores.here, "good", [60.0, 60.1])
    for run in stores.fill(stores.there, "good", [60.0, 60.1]):
        change(stores.there, run, lambda record: record["provenance"]["versions"].update(torch="3.0.0"))
    facts = {fact.name: fact for fact in stores.compared().facts}
    assert (facts["torch"].here, facts["torch"].there, facts["torch"].same) == ((("2.14.1", 2),), (("3.0.0", 2),), False)
    assert facts["cpu"].same and next(iter(facts)) == "torch"


def test_a_number_that_stands_in_two_tables_is_told_once(stores: Stores) -> None:
    text = stores.project.table.read_text()
    (stores.project.table.parent / "again.yaml").write_text(text.replace("table: toy", "table: again").replace("Toys", "Again"))
    line = stores.project.registry.read_text().splitlines()
    more = [each.replace("toy,", "again,", 1) for each in line[1:]]
    stores.project.registry.write_text("\n".join([*line, *more]) + "\n")
    sweep = stores.project.sweep.read_text()
    stores.project.sweep.write_text(
        sweep.replace("  tables:\n    toy:", "  tables:\n    again: {good: good, bad: bad, absent: {absent: no}}\n    toy:")
    )
    stores.fill(stores.here, "good", [60.0, 60.1])
    stores.fill(stores.there, "good", [70.0, 70.1])
    found = stores.compared()
    (pair,) = found.of("differ")
    assert pair.also == ("Toys",) and pair.table.title == "Again"


def test_the_page_and_the_markdown_say_it_all(stores: Stores, tmp_path: Path) -> None:
    ids = stores.fill(stores.here, "good", [60.0, 60.1])
    stores.fill(stores.there, "good", [70.0, 70.1])
    stores.fill(stores.there, "bad", [40.0])
    found = compare(stores.report(stores.here), stores.report(stores.there), "runs <a>", "elsewhere")
    site = Site(tmp_path / "site", stores.report(stores.here), also=["against.html"])
    page.write(site, found)
    text = (tmp_path / "site" / "against.html").read_text()
    assert "runs &lt;a&gt;" in text and "<a></code>" not in text
    assert f'href="{site.training(site.report.runs[ids[0]].key)}"' in text
    assert (tmp_path / "site" / "against.md").read_text() == markdown(found)
    assert "| -10.0 [-10.3, -9.7] |" in markdown(found)
    assert "## Only there" in markdown(found)
