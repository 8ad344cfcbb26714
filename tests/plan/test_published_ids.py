"""What was published must be found again: every committed record is a cell that its sweep still plans, under the same id.

An id is a digest of the whole config. A setting that comes later must be marked so (`methods.encoders.config.LATER`) and
have the default that means what was run before; otherwise every record is orphaned, and this test says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.plan.cell import Cell, Evaluation
from benchmark.plan.resolve import DataIdentity
from benchmark.plan.sweep import load_sweep

CELLS = Path("reports/records/cells")
RECORDS: dict[str, dict[str, Any]] = {
    folder.name: json.loads((folder / "record.json").read_text()) for folder in sorted(CELLS.iterdir())
}


def planned() -> dict[str, set[str]]:
    """Cell id -> ids of its evaluations, of every sweep and profile, with the images that the records were made of and all
    seeds that they have: a row may be run with more than its sweep asks for."""
    found: dict[str, set[str]] = {}
    images = {DataIdentity(data["name"], data["content"]) for data in (r["config"]["data"] for r in RECORDS.values())}
    seeds = sorted({record["config"]["seed"] for record in RECORDS.values()})
    for path in sorted(Path("sweeps").glob("*.yaml")):
        sweep = load_sweep(path)
        for profile in sweep.profiles:
            for identity in images:
                for row in sweep.expand(profile, {identity.name: identity}, seeds):
                    for cell in row.cells:
                        found.setdefault(cell.id, set()).update(evaluation.id for evaluation in cell.evaluations)
    return found


@pytest.fixture(scope="module")
def today() -> dict[str, set[str]]:
    return planned()


def test_there_are_records() -> None:
    assert len(RECORDS) >= 86


def test_every_published_cell_is_planned_today(today: dict[str, set[str]]) -> None:
    assert not set(RECORDS) - set(today)


def test_every_published_evaluation_is_planned_today(today: dict[str, set[str]]) -> None:
    published = {path.parent.parent.name: set() for path in CELLS.glob("*/evaluations/*.json")}
    for path in CELLS.glob("*/evaluations/*.json"):
        published[path.parent.parent.name].add(path.stem)
    assert published.keys() == RECORDS.keys()
    assert not {cell: ids - today[cell] for cell, ids in published.items() if ids - today[cell]}


@pytest.mark.parametrize("name", RECORDS)
def test_an_id_follows_from_the_config_that_was_published(name: str) -> None:
    """The digest itself has not changed either."""
    assert Cell(RECORDS[name]["config"]).id == RECORDS[name]["id"] == name
    for path in (CELLS / name / "evaluations").glob("*.json"):
        record = json.loads(path.read_text())
        assert Evaluation(name, record["protocol"]).id == record["id"] == path.stem
