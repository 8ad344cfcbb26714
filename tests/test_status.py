"""Where cells stand, from their files: written here by the product's own claims and runs, read as --status reads them."""

import io
import json
import os
import socket
import time
from dataclasses import replace

import pytest
from rich.console import Console

from benchmark.plan.plan import Known, make_plan
from benchmark.plan.sweep import DataIdentity, load_sweep
from benchmark.standing import Readings, Standing
from benchmark.status import Board, folded, show
from benchmark.store.owner import STALE, Claim
from benchmark.store.record import write_json
from benchmark.store.store import Store
from tests.e2e.conftest import SWEEP, Project, cache, project, undisturbed  # noqa: F401
from tests.plan.test_plan import evaluation_record, pretrain_record

PROGRESS = {"stage": "train", "step": 30, "total": 120, "loss": 3.25, "eta_seconds": 60.0}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", create=True)


@pytest.fixture
def actions(tmp_path, store):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    rows = load_sweep(tmp_path / "sweep.yaml").expand("smoke", {"shapes": DataIdentity("shapes", "0" * 12, 400)})
    made = make_plan(rows, store, "cached", "cpu")
    for action in made:
        store.request(action.cell.id, action.cell.config, action.cell.protocols)
    return made


def claim(store, action, **changed):
    """A claim on the cell, as a worker makes it; `changed`: what its file says otherwise afterwards."""
    held = Claim.take(store.folder(action.cell.id))
    held.beat(PROGRESS, force=True)
    if changed:
        path = store.folder(action.cell.id) / "owner.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return held


def stand(store, action, queued=None):
    (one,) = Readings(Known.read(store, "cpu")).standings([action], {action.cell.id: queued} if queued else {})
    return one


def text(actions, store, width=160, queued=None):
    out = Console(file=io.StringIO(), width=width, highlight=False)
    show(Board(actions, Known.read(store, "cpu"), queued or {}, dict, 2, out), False)
    return out.file.getvalue()


def test_untouched_submitted_and_requeued(store, actions):
    assert stand(store, actions[0]).state == "planned"
    assert stand(store, actions[0], "job 7 (pending)").state == "submitted"
    claim(store, actions[0]).release("stopped", "asked to stop by SIGUSR2")
    again = stand(store, actions[0], "job 7 (pending)")
    assert (again.state, again.note) == ("requeued", "asked to stop by SIGUSR2; job 7 (pending)")
    assert stand(store, actions[0]).state == "interrupted"


def test_running_says_stage_share_time_left_loss_and_host(store, actions):
    claim(store, actions[0])
    one = stand(store, actions[0])
    assert (one.state, one.progress, one.loss, one.restarts) == ("running", "train 25%", 3.25, 0)
    assert one.left is not None and 55 < one.left <= 60
    (store.folder(one.cell_id) / "metrics.jsonl").write_text('{"step": 30, "loss": 3.25}\n{"step": 40, "loss": 2.5}\n')
    assert stand(store, actions[0]).loss == 2.5  # newer than the last beat
    (store.folder(one.cell_id) / "metrics.jsonl").write_text('{"step": 30, "loss": 3.25}\n{"step": 40, "lo')
    assert stand(store, actions[0]).loss == 3.25


def test_a_heartbeat_of_another_host(store, actions):
    """Fresh, or of a clock that is ahead: running; old: gone, whatever it says."""
    claim(store, actions[0], host="node7.cluster.site", heartbeat=time.time() + 40)
    ahead = stand(store, actions[0])
    assert (ahead.state, ahead.host, ahead.left) == ("running", "node7", 60.0)
    path = store.folder(actions[0].cell.id) / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"heartbeat": time.time() - STALE - 1}))
    gone = stand(store, actions[0])
    assert (gone.state, gone.left, gone.failure) == ("interrupted", None, "node")
    assert gone.note == "no heartbeat from node7.cluster.site for 2 min"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": socket.gethostname(), "process_start": "1"}))
    assert (stand(store, actions[0]).failure, stand(store, actions[0]).note) == (None, "its process is gone without a word")


def test_a_torn_claim_is_no_claim(store, actions):
    """Nobody holds such a cell; but somebody did, so it is not as if nothing had been done."""
    claim(store, actions[0])
    path = store.folder(actions[0].cell.id) / "owner.json"
    path.write_text(path.read_text()[:40])
    assert (stand(store, actions[0]).state, stand(store, actions[0]).note) == ("interrupted", "its claim cannot be read")
    (store.folder(actions[0].cell.id) / "checkpoint.pt").write_bytes(b"0")
    assert stand(store, actions[0]).state == "interrupted"


def finish(store, action, evaluations=99, **evaluation):
    """The records that a run leaves; `evaluation`: what that of the last one says otherwise."""
    folder = store.folder(action.cell.id)
    (folder / "evaluations").mkdir(exist_ok=True, parents=True)
    write_json(folder / "record.json", pretrain_record(action.cell))
    measured = action.cell.evaluations[:evaluations]
    for one in measured:
        record = evaluation_record(one, 1.0, 0.0) | (evaluation if one is measured[-1] else {})
        write_json(folder / "evaluations" / f"{one.id}.json", record)


def test_records_come_before_the_claim(store, actions):
    """A holder that was killed between its last record and the release of its claim; one that measures; one that stopped."""
    finish(store, actions[0])
    claim(store, actions[0], host="elsewhere", heartbeat=time.time() - STALE - 1)
    assert (stand(store, actions[0]).state, stand(store, actions[0]).worth_words) == ("done", False)
    finish(store, actions[1], 1)
    held = claim(store, actions[1])
    held.beat({"stage": "linear, 2 of 3"}, force=True)
    assert (stand(store, actions[1]).state, stand(store, actions[1]).progress) == ("running", "linear, 2 of 3")
    held.release("stopped", "asked to stop by SIGTERM")
    assert (stand(store, actions[1]).state, stand(store, actions[1]).progress) == ("partly", "1 of 3 measured")
    assert "partly  contrastive, seed 0: asked to stop by SIGTERM" in text(actions, store)


def test_an_evaluation_that_diverged_is_told_of_a_done_cell(store, actions):
    found = {"status": "diverged", "metrics": {}, "diverged": {"step": 3, "layer": None, "gradient_norm": None}}
    finish(store, actions[0], **found)
    assert stand(store, actions[0]).state == "done"
    name = actions[0].cell.evaluations[-1].protocol["name"]
    assert f"diverged  byol, seed 0: {name} diverged" in text(actions, store)


def test_a_job_that_refused_to_start_says_why(store, actions):
    (store.folder(actions[0].cell.id) / "submitted.json").write_text(
        '{"job": "7_0", "ended": "stopped", "note": "the code has changed"}'
    )
    assert (stand(store, actions[0]).state, stand(store, actions[0]).note) == ("planned", "the code has changed")
    assert "planned  byol, seed 0: the code has changed" in text(actions, store)


def test_a_stale_cell_is_one_that_another_version_finished(store, actions):
    old = replace(actions[0].cell, config=actions[0].cell.config | {"version": 0})
    finish(store, replace(actions[0], cell=old))
    one = stand(store, actions[0])
    assert (one.state, one.note) == ("stale", f"byol VERSION 0 -> {actions[0].cell.config['version']}")
    claim(store, actions[0]).release("stopped", "asked to stop")
    assert stand(store, actions[0]).state == "interrupted"


def test_a_knn_that_training_logs_is_shown_until_the_record_is_there(store, actions):
    claim(store, actions[0])
    folder = store.folder(actions[0].cell.id)
    (folder / "metrics.jsonl").write_text('{"step": 30, "loss": 3.25, "knn": 41.5}\n')
    assert stand(store, actions[0]).knn == 41.5
    finish(store, actions[0], 1, metrics={"top1": 62.25})
    assert stand(store, actions[0]).knn == 62.25


def test_what_is_left_counts_what_comes_after_the_stage(store, actions):
    """Of a running cell its evaluations too, of one in SLURM's queue all; of an ended one nothing."""
    claim(store, actions[0])
    finish(store, actions[1])
    queued = {actions[2].cell.id: "in SLURM's queue as 7_1 (pending)"}
    known = Known.read(store, "cpu")
    board = Board(actions, known, queued, dict, 2, Console(file=io.StringIO()))
    found = next(board.looks())
    running, ended, waiting = (board.left(action, one) for action, one in zip(actions, found, strict=True))
    after, _ = known.seconds(actions[0].cell.config, actions[0].cell.evaluations, False)
    assert running == pytest.approx(found[0].left + after)
    assert ended == 0
    assert waiting == known.seconds(actions[2].cell.config, actions[2].cell.evaluations, True)[0]


@pytest.mark.parametrize(
    "released, failure, state", [("failed", "oom", "failed"), ("failed", "code", "failed"), ("died", "node", "interrupted")]
)
def test_a_failure_shows_its_class_and_the_end_of_its_log(store, actions, released, failure, state):
    log = store.folder(actions[1].cell.id) / "log.txt"
    claim(store, actions[1]).release(released, f"{failure}: it went wrong", failure)
    log.write_text("".join(f"line {number}\n" for number in range(2000)) + "\nRuntimeError: [red]it went wrong\n")
    shown = text(actions, store)
    assert stand(store, actions[1]).state == state
    assert f"{failure}  contrastive, seed 0: it went wrong" in shown
    assert "RuntimeError: [red]it went wrong" in shown and "line 1999" in shown and "line 1990\n" not in shown
    assert str(log) in shown.replace("\n", "").replace(" ", "") or str(log) in shown


def test_what_slurm_wrote_of_a_job_is_shown_too(store, actions):
    claim(store, actions[0]).release("died", "its job 12 was ended at its time limit", "timeout")
    (store.folder(actions[0].cell.id) / "submitted.json").write_text('{"job": "12_0"}')
    (store.path / "slurm").mkdir()
    (store.path / "slurm" / "12_0_0_log.err").write_text("slurmstepd: error: *** JOB 12 CANCELLED DUE TO TIME LIMIT ***\n")
    shown = text(actions, store)
    assert "timeout  byol, seed 0: its job 12 was ended at its time limit" in shown
    assert "DUE TO TIME LIMIT" in shown


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_its_width(store, actions, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))  # without it a file is given more room
    claim(store, actions[0])
    shown = text(actions, store, width, {actions[1].cell.id: "in SLURM's queue as 7_1 (pending)"})
    assert max(map(len, shown.splitlines())) <= width
    assert "running" in shown and "train 25%" in shown and "submitted" in shown
    assert "1 running, 1 submitted, 1 planned; about" in " ".join(shown.split())


def test_a_short_screen_shows_what_moves_and_counts_the_rest():
    found = [
        Standing(f"c{i}", ("r",), 0, state) for i, state in enumerate(["done"] * 5 + ["planned"] * 4 + ["running", "failed"])
    ]
    shown, rest = folded(found, 4)
    assert [one.state for one in shown] == ["running", "failed", "planned", "planned"]
    assert rest == "2 planned, 5 done"
    assert folded(found, 11) == (found, "")


def test_a_cell_with_two_lines_takes_the_room_of_two():
    found = [Standing(f"c{i}", ("r",), 0, "running", host="node1") for i in range(4)]
    assert folded(found, 5, lambda one: 2) == (found[:2], "2 running")


def test_only_what_changed_is_read_again(store, actions):
    claim(store, actions[0]).release("stopped", "asked to stop")
    finish(store, actions[1])
    long_ago = time.time() - 3600
    for path in store.cells_folder.glob("**/*"):
        os.utime(path, (long_ago, long_ago))
    known = Known.read(store, "cpu")
    readings = Readings(known)
    for action in actions[:2]:
        first = readings.look(action.cell.id)
        assert first.found is known.cells[action.cell.id]  # what the plan has read
        assert readings.look(action.cell.id) is first
    held = claim(store, actions[0])
    assert readings.look(actions[0].cell.id).found.running
    held.release("failed", "out of memory", "oom")
    assert readings.look(actions[0].cell.id).owner["failure"] == "oom"
    (evaluation,) = (store.folder(actions[1].cell.id) / "evaluations").glob("collapse-*.json")
    evaluation.unlink()
    assert len(readings.look(actions[1].cell.id).found.evaluated) == 2


@pytest.mark.slow
def test_watching_a_run_tells_each_change_and_ends_with_it(project, undisturbed):  # noqa: F811
    """Beside a real run: it begins while that works, says what becomes of each cell, and ends when all have ended."""
    process = project.start("--launcher", "inline")
    watched = project.run("--status", "--watch")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert watched.returncode == 0, watched.stdout + watched.stderr
    lines = watched.stdout.splitlines()
    for name in ("byol", "contrastive", "random"):
        assert any(" done " in line and f" {name}, seed 0" in line for line in lines), watched.stdout
    assert any(" running " in line or " planned " in line for line in lines)
    final = project.run("--status")
    assert "3 done" in final.stdout
    assert project.numbers() == undisturbed.numbers()
    knn = next((project.cell("byol") / "evaluations").glob("knn-*.json"))
    assert f"{json.loads(knn.read_text())['metrics']['top1']:.1f}" in final.stdout


def test_before_the_images_are_converted_there_is_nothing_to_watch(tmp_path):
    """The ids are provisional until then: a table of them would never change, and never end."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    watched = Project(tmp_path, tmp_path / "cache").run("--status", "--watch")
    assert watched.returncode == 2, watched.stdout
    assert "--watch: the images are not converted yet" in watched.stderr
