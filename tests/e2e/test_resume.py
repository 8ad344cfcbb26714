"""Killed at any moment and started again: nothing finished is repeated, nothing is lost, no number changes."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from benchmark.store.record import read_json


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL to the runner and its workers at once: what a power cut looks like."""
    for pid in [*children(process.pid), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def wait_for_training(project) -> None:
    """Until the byol cell says in its log that training has begun; a minute at most."""
    for _ in range(600):
        log = next(iter(project.store.glob("cells/byol-*/log.txt")), None)
        if log is not None and "training starts" in log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the training has not begun within a minute")


def assert_same_as(project, undisturbed):
    assert project.numbers() == undisturbed.numbers()
    for method in ("byol", "contrastive", "random"):
        mine, theirs = project.weights(method), undisturbed.weights(method)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "inline"])
def test_sigkill_at_random_moments(project, undisturbed, launcher):
    """Checkpoints every 0.2 s make it likely that a kill falls between two, or into the writing of one."""
    moments = random.Random(7)
    fast = {"RETABLE_CHECKPOINT_SECONDS": "0.2"}
    restarts = 0
    for _ in range(4):
        process = project.start("--launcher", launcher, **fast)
        wait_for_training(project)  # of the first start; the log of those that follow already says so
        time.sleep(moments.uniform(2.0, 8.0) if restarts else moments.uniform(0.0, 0.5))
        if process.poll() is not None:
            process.communicate()
            break
        kill_tree(process)
        restarts += 1
    assert restarts, "every run ended before it was killed: the sweep is too small for this test"
    finished = {path.parent: path.stat().st_mtime_ns for path in project.store.glob("cells/*/record.json")}
    done = project.run("--launcher", launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    for folder, written in finished.items():  # a finished training is never repeated
        assert (folder / "record.json").stat().st_mtime_ns == written
    assert_same_as(project, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_checkpoints_and_says_so(project, undisturbed, signum):
    process = project.start("epochs=40", "--only", "row=byol")
    wait_for_training(project)
    time.sleep(0.5)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 4, output
    assert "Work is left" in output
    assert (project.cell("byol") / "checkpoint.pt").exists()
    owner = read_json(project.cell("byol") / "owner.json")
    assert owner["released"] == "stopped"
    status = project.run("--status", "epochs=40", "--only", "row=byol").stdout
    assert "interrupted" in status
    assert "goes on from its checkpoint" in project.run("--plan", "epochs=40", "--only", "row=byol").stdout


@pytest.mark.slow
def test_the_deadline_stops_it_with_exit_code_4(project):
    done = project.run("epochs=2000", "--only", "row=byol", "--deadline", "8s")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "the deadline was reached" in done.stdout


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_cell_only(project):
    process = project.start("epochs=60", "--jobs", "1", "--only", "row=byol", "--only", "row=random")
    wait_for_training(project)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "killed by SIGKILL" in output
    assert (project.cell("random") / "record.json").exists()


@pytest.mark.slow
def test_a_second_run_trains_nothing(undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.store.rglob("*") if path.is_file()}
    done = undisturbed.run()
    assert done.returncode == 0
    assert "0 of 3 cells have work left" in done.stdout
    assert "Nothing to run" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in undisturbed.store.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_new_probe_repeats_no_training(undisturbed, project):
    """Evaluations have ids of their own: another k measures again on the old checkpoint."""
    subprocess.run(["cp", "-r", str(undisturbed.store), str(project.store)], check=True)
    text = (project.folder / "sweep.yaml").read_text()
    (project.folder / "sweep.yaml").write_text(text.replace("k: 20", "k: 5"))
    trained = (project.cell("byol") / "record.json").stat().st_mtime_ns
    done = project.run("--only", "row=byol")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.cell("byol") / "record.json").stat().st_mtime_ns == trained
    assert len(list(project.cell("byol").glob("evaluations/knn-*.json"))) == 2


@pytest.mark.slow
def test_two_runners_at_once_share_the_work(project, undisturbed):
    first, second = project.start("--jobs", "1"), project.start("--jobs", "1")
    outputs = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert_same_as(project, undisturbed)
    for cell in project.cells():  # each trained from start to end exactly once
        assert (cell / "log.txt").read_text().count("training starts") <= 1


@pytest.mark.slow
def test_loaders_give_the_same_numbers(project, undisturbed):
    """The torch loader and FFCV's feed bit-identical images, so everything downstream is identical too."""
    done = project.run("--loader", "torch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_as(project, undisturbed)


@pytest.mark.slow
def test_corrupt_files_are_named_and_nothing_else_is_lost(project, undisturbed):
    subprocess.run(["cp", "-r", str(undisturbed.store), str(project.store)], check=True)
    byol = project.cell("byol")
    (byol / "record.json").write_text("{")
    (byol / "checkpoint.pt").write_bytes(b"junk")
    done = project.run()
    assert done.returncode == 1
    assert "is damaged or not a checkpoint" in done.stderr
    assert "delete this file" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (byol / "checkpoint.pt").unlink()
    assert project.run().returncode == 0
    assert_same_as(project, undisturbed)


@pytest.mark.slow
def test_a_diverged_run_is_a_result_not_a_crash(project):
    done = project.run("optimizer.learning_rate=1e12", "--only", "row=byol")
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(project.cell("byol") / "record.json")
    assert record["status"] == "diverged"
    assert record["metrics"] is None
    json.dumps(record, allow_nan=False)
    again = project.run("optimizer.learning_rate=1e12", "--only", "row=byol")
    assert "Nothing to run" in again.stdout


@pytest.mark.slow
def test_the_runner_alone_is_killed(project, undisturbed):
    """Its worker notices, leaves a checkpoint and goes; nothing counts as failed, and the next run takes it up."""
    process = project.start("epochs=60", "--jobs", "1", "--only", "row=byol")
    wait_for_training(project)
    time.sleep(1.0)
    worker = children(process.pid)[0]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(300):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    owner = read_json(project.cell("byol") / "owner.json")
    assert owner.get("released") == "stopped", owner
    assert (project.cell("byol") / "checkpoint.pt").exists()
    again = project.run("epochs=60", "--only", "row=byol")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on at step" in (project.cell("byol") / "log.txt").read_text()


@pytest.mark.slow
def test_retry_takes_a_diverged_cell_from_its_start(project):
    done = project.run("optimizer.learning_rate=1e12", "--only", "row=byol")
    assert done.returncode == 0
    record = project.cell("byol") / "record.json"
    before = record.stat().st_mtime_ns
    assert project.run("optimizer.learning_rate=1e12", "--only", "row=byol", "--mode", "retry").returncode == 0
    assert record.stat().st_mtime_ns > before
    assert (project.cell("byol") / "log.txt").read_text().count("training starts") == 2
