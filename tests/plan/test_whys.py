"""The whys of a plan: what has become of a cell, what has changed since, who else wants it; and how they are laid out."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from benchmark import plan_table
from benchmark.plan.cell import Cell
from benchmark.plan.plan import Action, make_plan
from benchmark.plan.shared import wanted_elsewhere
from benchmark.plan.sweep import load_sweep
from benchmark.run import main
from benchmark.store.owner import Claim, bury
from benchmark.store.record import write_json
from benchmark.store.store import Store
from tests.plan.test_plan import TEXT, action, evaluation_record, pretrain_record, setting


def finish(store: Any, cell: Cell) -> None:
    folder = store.folder(cell.id)
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    write_json(folder / "record.json", pretrain_record(cell))
    for evaluation in cell.evaluations:
        write_json(folder / "evaluations" / f"{evaluation.id}.json", evaluation_record(evaluation, 1.0, 0.0))


@pytest.mark.parametrize(
    ("note", "failure"), [("out of memory", "oom"), ("oom: out of memory", None), ("oom: out of memory", "oom")]
)
def test_a_failure_has_its_class_once(tmp_path: Path, note: str, failure: str | None) -> None:
    rows, store = setting(tmp_path)
    claim = Claim.take(store.folder(rows[0].cells[0].id))
    assert claim is not None
    claim.release("failed", note, failure)
    assert action(rows, store).why == "failed: oom: out of memory (--mode retry tries again)"
    assert action(rows, store, "retry").why == "failed before (oom: out of memory); tried again"


def test_a_worker_that_was_killed_leaves_an_interrupted_cell(tmp_path: Path) -> None:
    rows, store = setting(tmp_path)
    folder = store.folder(rows[0].cells[0].id)
    claim = Claim.take(folder)
    assert claim is not None
    gone = claim.owner | {"pid": 2**22 + 1, "process_start": "1", "host": socket.gethostname()}
    write_json(folder / "owner.json", gone)
    assert bury(folder, gone["nonce"], "oom", "killed by SIGKILL")
    why = "interrupted (oom: killed by SIGKILL) before its first checkpoint; from the start"
    assert (action(rows, store).do, action(rows, store).why) == ("train", why)
    (folder / "checkpoint.pt").write_bytes(b"x")
    assert action(rows, store).why == "interrupted (oom: killed by SIGKILL); goes on from its checkpoint"


def test_a_changed_protocol_is_named_with_what_changed(tmp_path: Path) -> None:
    rows, store = setting(tmp_path)
    cell = rows[0].cells[0]
    finish(store, cell)
    folder = store.folder(cell.id)
    (folder / "checkpoint.pt").write_bytes(b"x")
    (knn,) = folder.glob("evaluations/knn-*.json")
    knn.unlink()
    (protocol,) = (one for one in cell.protocols if one["name"] == "knn")
    assert action(rows, store).why == "trained; knn still to measure"
    old = Cell(cell.config, (protocol | {"version": 0},)).evaluations[0]
    write_json(folder / "evaluations" / f"{old.id}.json", evaluation_record(old, 1.0, 0.0))
    assert action(rows, store).why == "trained; knn still to measure (protocol changed: knn VERSION 0 -> 1)"
    # of several that were measured the nearest is the one that has been changed
    near = Cell(cell.config, (protocol | {"k": 7},)).evaluations[0]
    write_json(folder / "evaluations" / f"{near.id}.json", evaluation_record(near, 1.0, 0.0))
    (folder / "evaluations" / f"{old.id}.json").unlink()
    assert action(rows, store).why == f"trained; knn still to measure (protocol changed: knn k 7 -> {protocol['k']})"
    # one that is wanted too has not been changed into another
    both = [replace(rows[0], cells=(Cell(cell.config, (*cell.protocols, near.protocol)),))]
    assert action(both, store).why == "trained; knn still to measure"


def test_rows_that_share_a_cell_have_all_of_their_evaluations(tmp_path: Path) -> None:
    text = TEXT.replace("smoke: {", "smoke: {rows: {same as a: {evaluate: [linear]}}, ")
    (tmp_path / "s.yaml").write_text(text)
    rows = load_sweep(tmp_path / "s.yaml").expand("smoke")
    first = make_plan(rows, Store(tmp_path / "runs"), "cached", "cpu")[0]
    assert first.rows == ("a", "same as a")
    assert [one.protocol["name"] for one in first.evaluations] == ["knn", "collapse", "linear"]


def test_another_sweep_that_has_the_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(TEXT)
    (tmp_path / "two.yaml").write_text(TEXT.replace("  b: {projector.norm: none}\n", ""))
    (tmp_path / "three.yaml").write_text(TEXT.replace("smoke:", "cpu:"))  # has no such profile
    (tmp_path / "broken.yaml").write_text("question: [")  # is nobody's business here
    sweep = load_sweep(tmp_path / "one.yaml")
    a, _, b = sweep.expand("smoke")
    found = wanted_elsewhere(sweep, "smoke", [cell.id for row in (a, b) for cell in row.cells])
    assert found == {cell.id: ("two.yaml",) for cell in a.cells}


def actions_of(tmp_path: Path) -> list[Action]:
    """`a`: one seed done, one failed; `b`: new."""
    rows, store = setting(tmp_path)
    first, second = rows[0].cells
    finish(store, first)
    claim = Claim.take(store.folder(second.id))
    assert claim is not None
    claim.release("failed", "out of memory", "oom")
    return make_plan(rows, store, "cached", "cpu")


def test_seeds_alike_are_one_line_and_every_cell_is_there(tmp_path: Path) -> None:
    actions = actions_of(tmp_path)
    lines = plan_table.cells(actions, 160)
    text = "\n".join(lines)
    assert "done 1/2" in text
    assert "seed 1 failed: oom: out of memory" in text
    assert text.count("new") == 1 and "0 1" in text
    for one in actions:
        assert text.count(one.cell.id) == 1
    assert text.count("a = same as a") == 1  # said once for its lines


def test_all_seeds_done(tmp_path: Path) -> None:
    rows, store = setting(tmp_path)
    for row in rows:
        for cell in row.cells:
            finish(store, cell)
    text = "\n".join(plan_table.cells(make_plan(rows, store, "cached", "cpu"), 120))
    assert text.count("done 2/2") == 2


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_window(tmp_path: Path, width: int) -> None:
    actions = actions_of(tmp_path)
    long = [replace(one, rows=("自己教師あり学習の行 " * 6 + "x" * 90,), shared=("a.yaml", "b.yaml")) for one in actions]
    for lines in (plan_table.cells(actions, width), plan_table.cells(long, width)):
        assert max(map(cell_len, lines)) <= width
    joined = "".join("".join(plan_table.cells(long, width)).split())
    assert joined.count("x" * 10) and "sharedwitha.yamland1more" in joined
    assert any(one.cell.id in joined for one in actions) == (width >= plan_table.IDS_FROM)


def test_the_command_prints_whys_and_stops_at_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(TEXT.replace("train_images: 100", "name: shapes, train_images: 100"))
    command = [str(tmp_path / "s.yaml"), "--profile", "smoke", "--plan", "--store", str(tmp_path / "runs")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "a = same as a" in said and "2 row entries share a cell" in said and "U-hours)" in said
    assert main([*command, "--budget", "0.0001"]) == 3
    assert "over budget" in capsys.readouterr().err
    assert main([*command, "--budget", "1000"]) == 0
    assert not (tmp_path / "runs").exists()
