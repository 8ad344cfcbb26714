"""Every shipped sweep: its words are checked, it has the rows of the papers' tables, and its first training runs."""

import json
from pathlib import Path

import pytest

from benchmark.data.datasets import find, prepare
from benchmark.execute import Machine, execute
from benchmark.plan.cell import Cell, canonical
from benchmark.plan.plan import unique_cells
from benchmark.plan.sweep import PROFILES, DataIdentity, load_sweep
from benchmark.plan.tables import ABSENT, rows_of
from benchmark.store.store import Store
from benchmark.train.stop import StopRequest
from reports.reference import read_references
from tests.e2e.conftest import cache  # noqa: F401

FOLDER = Path(__file__).resolve().parents[2] / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
# table -> row -> its columns, as the registry has them
PUBLISHED: dict[str, dict[str, list[str]]] = {}
for table, cells in read_references(FOLDER.parent / "reports" / "reference").items():
    for row, column in cells:
        PUBLISHED.setdefault(table, {}).setdefault(row, []).append(column)
# One shows every protocol, the other is what headline.yaml and its like are made from.
WITHOUT_ALL_SCALES = {"evaluation", "methods"}
STEPS = 2

by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@by_file
def test_every_scale_expands(path):
    """What a sweep may say is checked where it is read: unknown keys, values out of range, rows that contradict themselves."""
    sweep = load_sweep(path)
    assert sweep.question.endswith("?")
    assert sweep.paper.get("key"), "a sweep names its paper"
    if path.stem not in WITHOUT_ALL_SCALES:
        assert sorted(sweep.profiles, key=PROFILES.index) == list(PROFILES)
    for profile in sweep.profiles:
        rows = sweep.expand(profile)
        assert [row.name for row in rows] == [name for name, _ in sweep.rows]
        assert any(row.cells[0].config["method"] == "random" for row in rows), "no row shows what an untrained network reaches"


@by_file
def test_it_has_the_rows_of_the_papers_tables(path):
    """Each row of a published table is filled by a row of the sweep, or the sweep says why not; no row is made up."""
    for table, lines in load_sweep(path).tables.items():
        assert table in PUBLISHED, f"{table}: no such table in the reference numbers"
        assert list(lines) == list(PUBLISHED[table]), f"{table}: the rows are not those of the paper, in its order"
        for row, filled in lines.items():
            if isinstance(filled, dict) and ABSENT not in filled:
                assert list(filled) == PUBLISHED[table][row], f"{table}, {row}: the columns are not those of the paper"
        assert rows_of(lines), f"{table}: no row of this sweep fills it"


def test_every_published_table_has_its_sweep_or_a_reason():
    filled = {table for path in FILES for table in load_sweep(path).tables}
    unfilled = (FOLDER / "README.md").read_text().partition("## Tables without a sweep")[2]
    for table in PUBLISHED:
        assert (table in filled) != (f"`{table}`" in unfilled), (
            f"{table}: either a sweep fills it or sweeps/README.md says why not"
        )


@by_file
def test_the_first_training_runs_two_steps(path, cache, tmp_path):  # noqa: F811
    shapes = prepare(find("shapes", None, cache), cache)
    identity = {"shapes": DataIdentity("shapes", shapes.content, shapes.counts["train"])}
    rows = load_sweep(path).expand("smoke", identity, seeds=[0])
    first = next(cell for cell, _ in unique_cells(rows) if "epochs" in cell.config)
    config = json.loads(json.dumps(first.config))
    config["data"] |= {
        "name": "shapes",
        "content": shapes.content,
        "train_images": STEPS * config["batch_size"],
        "held_out": 0.0,
    }
    cell = Cell(canonical(config | {"epochs": 1}))
    store = Store(tmp_path / "runs", create=True)
    store.request(cell.id, cell.config, ())
    result = execute(store, cell.id, cell.config, [], shapes, Machine("cpu", 1, 0), StopRequest())
    assert result.status == "done", result.note
    record = store.cell(cell.id).record
    assert record is not None and record["timing"]["steps"] == STEPS
    assert record["metrics"]["loss"] is not None
