"""What will be done with a cell, and why, for every state a store can be in."""

import os
import socket
import subprocess
import sys
import time

import pytest

from benchmark.plan.cost import words
from benchmark.plan.plan import make_plan, unique_cells
from benchmark.plan.sweep import load_sweep
from benchmark.store.owner import Claim
from benchmark.store.record import write_json
from benchmark.store.store import Store

TEXT = """
question: q
base: {method: byol, epochs: 1, batch_size: 10, data: {train_images: 100, held_out: 0.1}}
rows:
  a: {projector.norm: batch}
  same as a: {projector.norm: batch}
  b: {projector.norm: none}
evaluate: [knn, collapse]
profiles: {smoke: {seeds: [0, 1]}}
"""


def setting(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    rows = load_sweep(path).expand("smoke")
    store = Store(tmp_path / "store", create=True)
    for cell, _ in unique_cells(rows):
        store.folder(cell.id).mkdir()
    return rows, store


def pretrain_record(cell, **changes):
    return {
        "schema": 1,
        "stage": "pretrain",
        "id": cell.id,
        "status": "done",
        "config": cell.config,
        "metrics": {"loss": 1.0},
        "timing": {"images_per_second": 90.0},
        "provenance": {"hardware": {"device": "cpu"}},
        **changes,
    }


def evaluation_record(evaluation, wall, features, **provenance):
    return {
        "schema": 1,
        "stage": evaluation.protocol["name"],
        "protocol": evaluation.protocol,
        "id": evaluation.id,
        "status": "done",
        "metrics": {},
        "timing": {"wall_seconds": wall, "features_seconds": features},
        "provenance": provenance,
    }


def action(rows, store, mode="cached"):
    return make_plan(rows, store, mode, "cpu")[0]


def test_shared_cells_run_once_and_seed_by_seed(tmp_path):
    rows, _ = setting(tmp_path)
    cells = unique_cells(rows)
    assert [(names, cell.seed) for cell, names in cells] == [
        (("a", "same as a"), 0),
        (("b",), 0),
        (("a", "same as a"), 1),
        (("b",), 1),
    ]


def test_every_state_has_its_action_and_reason(tmp_path):
    rows, store = setting(tmp_path)
    cell = rows[0].cells[0]
    folder = store.folder(cell.id)
    assert (action(rows, store).do, action(rows, store).why) == ("train", "new")

    (folder / "checkpoint.pt").write_bytes(b"x")
    assert action(rows, store).do == "resume"

    write_json(folder / "record.json", pretrain_record(cell))
    found = action(rows, store)
    assert (found.do, found.why) == ("evaluate", "trained; knn, collapse still to measure")

    for evaluation in cell.evaluations:
        folder.joinpath("evaluations").mkdir(exist_ok=True)
        write_json(folder / "evaluations" / f"{evaluation.id}.json", evaluation_record(evaluation, 1.0, 0.0))
    assert (action(rows, store).do, action(rows, store).why) == ("nothing", "done")
    assert action(rows, store, "force").do == "again"

    (folder / "record.json").write_text("{")
    assert "cannot be read" in action(rows, store).why

    write_json(folder / "record.json", pretrain_record(cell, status="diverged", metrics=None))
    assert action(rows, store).do == "nothing"
    assert action(rows, store).why == "diverged: the loss was not finite (--mode retry tries again)"
    found = {"step": 7, "gradient_norm": 3e8, "layer": "encoder.conv1.weight"}
    write_json(folder / "record.json", pretrain_record(cell, status="diverged", metrics=None, diverged=found))
    assert action(rows, store).why == (
        "diverged: the loss was not finite at step 7; the largest gradient, of norm 3e+08, was that of encoder.conv1.weight "
        "(--mode retry tries again)"
    )
    assert action(rows, store, "retry").do == "again"


def test_failed_cells_wait_for_retry(tmp_path):
    rows, store = setting(tmp_path)
    claim = Claim.take(store.folder(rows[0].cells[0].id))
    claim.release("failed", "oom: out of memory")
    assert action(rows, store).do == "nothing"
    assert action(rows, store).why == "failed: oom: out of memory (--mode retry tries again)"
    assert action(rows, store, "retry").do == "train"


def test_a_running_cell_is_left_alone(tmp_path):
    rows, store = setting(tmp_path)
    Claim.take(store.folder(rows[0].cells[0].id))
    found = action(rows, store)
    assert (found.do, found.why) == ("leave", f"running on {socket.gethostname()} (process {os.getpid()})")


def test_an_older_version_is_stale(tmp_path):
    rows, store = setting(tmp_path)
    cell = rows[0].cells[0]
    old = type(cell)(cell.config | {"version": 0})
    store.folder(old.id).mkdir()
    write_json(store.folder(old.id) / "record.json", pretrain_record(old))
    assert action(rows, store).why == "stale: byol VERSION 0 -> 1"


def test_the_cost_of_a_cell_is_that_of_its_training_and_of_its_evaluations(tmp_path):
    rows, store = setting(tmp_path)
    cell, other = rows[0].cells
    new = action(rows, store)
    assert not new.measured
    record = pretrain_record(other)
    write_json(store.folder(other.id) / "record.json", record)
    trained = action(rows, store)
    assert not trained.measured  # how long 90 images take is known, how long the 10,000 for kNN is not
    store.folder(other.id).joinpath("evaluations").mkdir()
    for number, evaluation in enumerate(other.evaluations):
        made = evaluation_record(evaluation, 4.0 if number else 14.0, 0.0 if number else 10.0, **record["provenance"])
        write_json(store.folder(other.id) / "evaluations" / f"{evaluation.id}.json", made)
    found = action(rows, store)
    assert found.measured
    assert found.seconds == pytest.approx(5 + 90 / 90 + 10 + 4 + 4)  # to begin, to train, the features, two protocols
    write_json(store.folder(cell.id) / "record.json", pretrain_record(cell))
    (store.folder(cell.id) / "checkpoint.pt").write_bytes(b"x")
    rest = action(rows, store)
    assert (rest.do, rest.measured) == ("evaluate", True)
    assert rest.seconds == pytest.approx(5 + 10 + 4 + 4)


def test_a_diverged_evaluation_is_done_until_it_is_tried_again(tmp_path):
    rows, store = setting(tmp_path)
    cell = rows[0].cells[0]
    folder = store.folder(cell.id)
    write_json(folder / "record.json", pretrain_record(cell))
    (folder / "checkpoint.pt").write_bytes(b"x")
    (folder / "evaluations").mkdir()
    for evaluation, status in zip(cell.evaluations, ("diverged", "done"), strict=True):
        made = evaluation_record(evaluation, 1.0, 0.0) | {"status": status}
        write_json(folder / "evaluations" / f"{evaluation.id}.json", made)
    found = action(rows, store)
    assert (found.do, found.why) == ("nothing", "done; knn diverged (--mode retry measures again)")
    again = action(rows, store, "retry")
    assert (again.do, [one.protocol["name"] for one in again.evaluations]) == ("evaluate", ["knn"])


def test_words():
    assert [words(s) for s in (5, 89, 120, 5399, 5400, 7260, 400_000)] == [
        "5 s", "89 s", "2 min", "90 min", "1 h 30", "2 h 01", "5 days",
    ]  # fmt: skip


def test_plan_and_status_need_no_torch_and_are_quick(tmp_path):
    """The walls: nothing that plans, shows status or reports may import torch (seconds on a login node)."""
    code = """
import sys
from benchmark.run import main
code = main(sys.argv[1:])
assert not {"torch", "numba", "ffcv", "submitit"} & set(sys.modules), sorted({"torch", "numba", "ffcv"} & set(sys.modules))
sys.exit(code)
"""
    for flag in ("--plan", "--status"):
        started = time.monotonic()
        arguments = ["sweeps/byol_norm_ablation.yaml", flag, "--store", str(tmp_path), "data.name=shapes"]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - started < 20  # a hang, not a speed, is what this can catch; make bench measures
        assert not list(tmp_path.iterdir())  # looking changes nothing
