"""What a cluster does to a running cell, done to one: its numbers are those of a run that nothing had happened to.

The tests marked `at_once` run side by side on nodes of their own (see conftest.py): those that wait longest come first. Each
submits the same cell from a folder of its own, disturbs it once it trains, and compares with the run that nobody disturbed.
"""

import os
import signal
import time

import pytest

from benchmark.store.owner import STALE
from benchmark.store.record import write_json
from tests.slurm.project import LONG, OFTEN, assert_as_if_nothing_had_happened, gone, paused

pytestmark = pytest.mark.slurm


def pause(project) -> int:
    """Stop the process that holds the cell, as a node without breath does; its number."""
    pid = project.owner()["pid"]
    os.kill(pid, signal.SIGSTOP)
    project.wait("it stands still", lambda: paused(pid))
    return pid


@pytest.mark.at_once
def test_time_limit(project, reference):
    """The cell needs less than the limit: it is paused until SLURM wakes it for its warning, which comes up to a minute early.
    The job is requeued, and has a whole time limit again."""
    project.submitted(*LONG, minutes=2, signal_delay_seconds=10)
    project.wait_for_training()
    pid = pause(project)
    project.wait("SLURM wakes it", lambda: not paused(pid))
    project.wait_for_words("a checkpoint is written")
    project.wait_for_the_end()
    assert "is requeued: its time limit is near" in project.log()
    assert_as_if_nothing_had_happened(project, reference, starts=None)
    assert project.owner()["token"] >= 2


@pytest.mark.at_once
def test_a_node_cut_off_and_back_again(project, reference):
    """Its daemon dies alone, and the process goes on unseen, first deaf and then awake, while a second copy runs elsewhere."""
    project.submitted(*LONG, partition="split", setup=OFTEN)
    project.wait_for_training()
    project.wait("there is a checkpoint", (project.cell("byol") / "checkpoint.pt").exists)
    old = pause(project)
    first = project.owner()
    node = project.node()
    project.cluster.lose(node)
    # One machine plays both nodes: the claim is made to look as it does from another one, with half a minute left to live.
    write_json(project.cell("byol") / "owner.json", first | {"host": node, "heartbeat": time.time() - STALE + 30})
    project.wait_for_training(starts=2)
    second = project.owner()
    assert (second["token"], second["job"]) == (2, first["job"])
    assert second["pid"] != old and second["started"] > first["heartbeat"]
    os.kill(old, signal.SIGCONT)
    project.wait("the old one is gone", lambda: gone(old))
    assert "this cell has been taken over by another process" in project.log()
    project.wait_for_the_end()
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_node_loss(project, reference):
    """Daemon, steps and tasks of the node are gone at once: SLURM starts the job on the other node."""
    project.submitted(*LONG, partition="frail", setup=OFTEN)
    job = project.wait_for_training()
    project.wait("there is a checkpoint", (project.cell("byol") / "checkpoint.pt").exists)
    node, pid = project.node(), project.owner()["pid"]
    project.cluster.lose(node, job)
    project.wait("its process is gone", lambda: gone(pid))
    project.wait_for_training(starts=2)
    assert project.node() != node
    project.wait_for_the_end()
    assert project.log().count(" training goes on at step ") == 1
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_preemption(project, reference):
    """A job of a partition of higher priority wants the only place: the cell makes room, and goes on when it is free again."""
    project.submitted(*LONG, partition="low")
    job = project.wait_for_training()
    batch = ("sbatch", "--parsable", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 5")
    high = project.cluster.run(*batch).strip()
    project.wait_for_words("a checkpoint is written")
    project.wait_for_the_end()
    assert f"job {job} is requeued: it is preempted" in project.log()
    states = project.cluster.run(
        "sacct", "-n", "-X", "-P", "--duplicates", "-j", f"{job},{high}", "-o", "JobID,State,Start,End"
    )
    rows = [line.split("|") for line in states.splitlines()]
    ((_, state, began, ended),) = [row for row in rows if row[0] == high]
    assert state == "COMPLETED", states
    starts = sorted(row[2] for row in rows if row[0] != high)
    assert len(starts) == 2 and starts[0] <= began < ended <= starts[1], states
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_usr2(project, reference):
    project.submitted(*LONG)
    job = project.wait_for_training()
    project.cluster.run("scancel", "--signal=USR2", job)
    project.wait_for_words("a checkpoint is written")
    project.wait_for_the_end()
    assert "asked to stop by SIGUSR2" in project.log()
    assert project.log().count(" training goes on at step ") == 1
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_cancelled(project, reference):
    """scancel sends TERM and leaves time; a job that requeued itself then could not be got rid of."""
    project.submitted(*LONG)
    job = project.wait_for_training()
    project.cluster.run("scancel", job)
    project.wait_for_words("a checkpoint is written")
    project.wait_for_the_end()
    time.sleep(8)  # a requeue would show by now: the old credential lives for five seconds
    assert not project.jobs()
    assert "interrupted" in project.look("--status", *LONG)
    project.submitted(*LONG)
    project.wait_for_the_end()
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_worker_killed(project, reference):
    """SIGKILL leaves no time for anything. SLURM calls the job failed; the same command again takes the cell up."""
    project.submitted(*LONG, setup=OFTEN)
    project.wait_for_training()
    project.wait("there is a checkpoint", (project.cell("byol") / "checkpoint.pt").exists)
    os.kill(project.owner()["pid"], signal.SIGKILL)
    project.wait_for_the_end()
    status = project.look("--status", *LONG)
    assert "1 interrupted" in status and "killed by SIGKILL" in status, status
    project.submitted(*LONG)
    project.wait_for_the_end()
    assert project.log().count(" training goes on at step ") == 1
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once
def test_forced(project, reference):
    """Trained anew once, and not again after a requeue. Killed, the job could not change what its pickle says, and SLURM starts
    it from the same pickle: force, once more."""
    project.submitted(*LONG)
    project.wait_for_the_end()
    log = project.cell("byol") / "log.txt"
    log.write_text("")
    (project.cell("byol") / "metrics.jsonl").unlink()
    project.submitted(*LONG, "--mode", "force", setup=OFTEN)
    job = project.wait_for_training()
    project.wait("there is a checkpoint", (project.cell("byol") / "checkpoint.pt").exists)
    os.kill(project.owner()["pid"], signal.SIGKILL)
    project.wait_for_the_end()
    project.cluster.run("scontrol", "requeue", job)
    project.wait("the job is back", project.jobs)
    project.wait_for_the_end()
    assert log.read_text().count(" training goes on at step ") == 1, log.read_text()
    assert_as_if_nothing_had_happened(project, reference, starts=3)
