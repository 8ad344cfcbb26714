"""What became of a job that is gone: from sacct's words, from the end of its log, and honestly where neither says."""

import json
import os

import pytest

from benchmark.launch.jobs import SUBMITTED, InQueue, ask_slurm, end_job, fate, lay_to_rest, log_of, submitted
from benchmark.store.owner import Claim, failure_of, read_owner
from benchmark.store.record import read_json, write_json
from benchmark.store.store import Store


@pytest.fixture
def store(tmp_path):
    (tmp_path / "runs" / "slurm").mkdir(parents=True)
    return Store(tmp_path / "runs", create=True)


@pytest.mark.parametrize(
    "state, code, status, failure, word",
    [
        ("OUT_OF_MEMORY", "0:125", "failed", "oom", "mem_gb"),
        ("TIMEOUT", "0:0", "stopped", "timeout", "time limit"),
        ("PREEMPTED", "0:0", "stopped", "preempted", "not requeued"),
        ("NODE_FAIL", "1:0", "stopped", "node", "lost its node"),
        ("CANCELLED", "0:15", "stopped", None, "was cancelled"),
        ("FAILED", "0:9", "stopped", "node", "SIGKILL"),
        ("FAILED", "139:0", "failed", "code", "SIGSEGV"),
        ("FAILED", "1:0", "failed", "code", "exit code 1"),
        ("COMPLETED", "0:0", "failed", "code", "without a record"),
    ],
)
def test_sacct_says_why(store, state, code, status, failure, word):
    found = fate(store, "12_3", {"12_3": (state, code)})
    assert (found.status, found.failure) == (status, failure)
    assert word in found.note and "12_3" in found.note


# As slurmstepd 22.05 and the kernel write it.
@pytest.mark.parametrize(
    "line, failure",
    [
        ("slurmstepd-node1: error: *** STEP 6.0 ON node1 CANCELLED AT 2026-11-23T05:18:50 DUE TO TIME LIMIT ***", "timeout"),
        ("slurmstepd: error: *** JOB 6 ON node1 CANCELLED AT 2026-11-23T05:18:50 DUE TO PREEMPTION ***", "preempted"),
        ("slurmstepd: error: *** JOB 6 ON node1 CANCELLED AT 2026-11-23T05:18:50 DUE TO NODE FAILURE, SEE LOG ***", "node"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=6.0. Some of the step tasks have been OOM Killed.", "oom"),
        ("slurmstepd: error: Exceeded job memory limit", "oom"),
    ],
)
def test_where_sacct_is_silent_the_end_of_the_log_says_why(store, line, failure):
    log_of(store, "6").write_text(f"srun: error: node1: task 0: Killed\n{line}\nsrun: Force Terminated StepId=6.0\n")
    assert fate(store, "6", "Slurm accounting storage is disabled").failure == failure
    assert fate(store, "6", {"6": ("FAILED", "9:0")}).failure == failure


def test_an_earlier_start_of_the_job_does_not_explain_its_end(store):
    line = "slurmstepd: error: *** JOB 6 ON node1 CANCELLED AT 2026-11-23T05:18:50 DUE TO PREEMPTION ***\n"
    log_of(store, "6").write_text(line + "and then it went on\n" * 30)
    assert fate(store, "6", {"6": ("FAILED", "1:0")}).failure == "code"


def test_without_sacct_and_without_a_word_it_says_where_to_look(store):
    log_of(store, "6").write_text("nothing to see\n")
    found = fate(store, "6", "Slurm accounting storage is disabled")
    told = "sacct does not answer here (Slurm accounting storage is disabled): why a job died can only be read from its log"
    assert f"{told} {log_of(store, '6')}" in found.note
    assert "sacct does not know it; it left no log" in fate(store, "7", {}).note


def test_a_job_that_is_over_speaks_for_itself_alone(store):
    folder = store.folder("byol-0")
    folder.mkdir()
    write_json(folder / SUBMITTED, {"job": "6", "node": "node1"})
    end_job(folder, "5", "failed", "an older one")
    assert submitted(store) == {"byol-0": {"job": "6", "node": "node1"}}
    end_job(folder, "6", "stopped", "the code has changed")
    assert submitted(store)["byol-0"] == {"job": "6", "node": "node1", "ended": "stopped", "note": "the code has changed"}
    (folder / SUBMITTED).write_text("{")  # torn: it says nothing
    assert submitted(store) == {}


def test_the_dead_are_laid_to_rest_with_their_class_and_the_living_are_left_alone(store):
    folder = store.folder("byol-0")
    folder.mkdir()
    write_json(folder / SUBMITTED, {"job": "6"})
    assert Claim.take(folder) is not None
    found = fate(store, "6", {"6": ("OUT_OF_MEMORY", "0:125")})
    lay_to_rest(store.cell("byol-0"), found, "6")  # this very process holds it
    assert "released" not in read_owner(folder / "owner.json")
    owner = json.loads((folder / "owner.json").read_text())
    write_json(folder / "owner.json", owner | {"process_start": "0"})  # another process had this number
    lay_to_rest(store.cell("byol-0"), found, "6")
    owner = read_owner(folder / "owner.json")
    assert (owner["released"], failure_of(owner), owner["note"]) == ("died", "oom", found.note)
    assert read_json(folder / SUBMITTED)["ended"] == "failed"


def test_a_program_that_is_not_there_is_a_few_words(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert ask_slurm("sacct", "-n") == (None, "there is no sacct on this machine")


@pytest.mark.parametrize("reason, stuck", [("Priority", False), ("BeginTime", False), ("launch failed requeued held", True),
                                           ("JobHeldUser", True), ("DependencyNeverSatisfied", True)])  # fmt: skip
def test_a_job_that_waits_for_a_person_is_told_from_one_that_waits_its_turn(reason, stuck):
    assert InQueue("pending", reason).stuck is stuck
