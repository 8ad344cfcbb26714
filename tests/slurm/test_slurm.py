"""The SLURM launcher against a real SLURM: what is submitted, signalled, requeued, cancelled and submitted again."""

import os
import signal
import subprocess
import time

import pytest
import torch

from benchmark.store.owner import STALE
from benchmark.store.record import read_json, write_json
from tests.e2e.test_resume import assert_same_as
from tests.slurm.conftest import LONG

# `cluster` first: without a SLURM the tests are skipped before anything is trained for comparison.
pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]


def test_a_sweep_as_an_array_gives_the_numbers_of_a_local_run(slurm_project, undisturbed):
    done = slurm_project.submit()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Submitted 3 cells to SLURM as" in done.stdout
    array = done.stdout.split("Submitted 3 cells to SLURM as ")[1].split(".")[0]
    slurm_project.wait_for_the_end()
    assert_same_as(slurm_project, undisturbed)
    status = slurm_project.look("--status")
    assert "3 done" in status
    assert not list(slurm_project.store.glob("cells/*/submitted.json"))
    states = slurm_project.cluster.run("sacct", "-n", "-X", "-P", "-j", array, "-o", "JobID,State").split()
    assert sorted(states) == [f"{array}_{number}|COMPLETED" for number in range(3)]
    # This cluster binds no task to cores, so that srun is told how many the job has can only be read, not felt.
    scripts = [path.read_text() for path in slurm_project.store.glob("slurm/*submission*.sh")]
    assert scripts and all("srun " in text and "--cpus-per-task=2 " in text for text in scripts)
    assert "Nothing to run" in slurm_project.submit().stdout


def test_usr2_makes_a_cell_checkpoint_and_go_on_after_the_requeue(slurm_project, undisturbed_long):
    assert slurm_project.submit(*LONG).returncode == 0
    job = slurm_project.wait_for_training("byol")
    slurm_project.cluster.run("scancel", "--signal=USR2", job)
    slurm_project.wait("the checkpoint is written", lambda: "a checkpoint is written" in slurm_project.log("byol"))
    assert "asked to stop by SIGUSR2" in slurm_project.log("byol")
    slurm_project.wait_for_the_end()
    log = slurm_project.log("byol")
    assert log.count("training starts") == 1, log
    assert log.count("training goes on at step") == 1, log
    record = read_json(slurm_project.cell("byol") / "record.json")
    assert record["timing"]["restarts"] == 1
    assert slurm_project.numbers() == undisturbed_long.numbers()
    mine, theirs = slurm_project.weights("byol"), undisturbed_long.weights("byol")
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_cancelled_cell_checkpoints_and_stays_cancelled(slurm_project):
    """scancel sends TERM and leaves time; a job that requeued itself then could not be got rid of."""
    assert slurm_project.submit(*LONG).returncode == 0
    job = slurm_project.wait_for_training("byol")
    slurm_project.cluster.run("scancel", job)
    slurm_project.wait("the checkpoint is written", lambda: "a checkpoint is written" in slurm_project.log("byol"))
    slurm_project.wait_for_the_end()
    time.sleep(8)  # a requeue would show by now: the old credential lives for five seconds
    assert slurm_project.cluster.queue() == []
    assert "interrupted" in slurm_project.look("--status", *LONG)


def test_sbatch_refusing_is_one_sentence_and_exit_code_2(slurm_project):
    done = slurm_project.submit(partition="nowhere")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip().count("error:") == 1
    assert "SLURM refused the job: " in done.stderr
    assert "invalid partition" in done.stderr.lower()
    assert "cluster.yaml" in done.stderr
    assert "3 planned" in slurm_project.look("--status")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"partition": None, "partitions": "debug"}, ["cluster.yaml:6: partitions: unknown key", "did you mean 'partition'?"]),
        ({"cpus": "two"}, ["cluster.yaml:3: cpus: expected a whole number, found 'two'"]),
        ({"cpus": 0}, ["cluster.yaml:3: cpus: expected 1 or more, found 0"]),
        ({"gpus": -1}, ["cluster.yaml:2: gpus: expected 0 or more, found -1"]),
        ({"setup": "module load cuda"}, ["cluster.yaml:7: setup: expected a list of texts, found 'module load cuda'"]),
        ({"setup": "[1]"}, ["cluster.yaml:7: setup: expected a list of texts, found [1]"]),
        ({"partition": ""}, ["cluster.yaml:1: partition: expected a text, found None"]),
    ],
)
def test_a_wrong_profile_is_named_with_its_line(slurm_project, changes, words):
    done = slurm_project.submit(**changes)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in " ".join(done.stderr.split()), done.stderr


def test_without_slurm_it_says_where_to_go(slurm_project):
    path = str(slurm_project.profile())
    done = slurm_project.run("--launcher", "slurm", "--cluster", path, PATH=str(slurm_project.folder))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "there is no sbatch on this machine" in done.stderr


def test_the_same_command_again_submits_nothing_twice(slurm_project, undisturbed_long):
    """One cell at a time, so that the second waits while the first runs."""
    both = (*LONG, "--only", "row=random")
    assert "Submitted 2 cells" in slurm_project.submit(*both, array_parallelism=1).stdout
    again = slurm_project.submit(*both)  # one job is starting, one is waiting
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to submit: 2 cells are running or in SLURM's queue" in again.stdout
    slurm_project.wait_for_training("byol")
    assert "Nothing to submit" in slurm_project.submit(*both).stdout
    assert "1 running, 1 submitted" in slurm_project.look("--status", *both)
    assert "(pending)" in slurm_project.look("--plan", *both)
    waiting = next(line.split()[0] for line in slurm_project.cluster.queue() if line.endswith("PENDING"))
    slurm_project.cluster.run("scancel", waiting)
    assert "1 running, 1 planned" in slurm_project.look("--status", *both)
    assert "Submitted 1 cell to" in slurm_project.submit(*both).stdout
    slurm_project.wait_for_the_end()
    assert "2 done" in slurm_project.look("--status", *both)
    assert slurm_project.log("byol").count("training starts") == 1
    mine, theirs = slurm_project.numbers(), undisturbed_long.numbers()
    assert {name: mine[name] for name in theirs} == theirs


def test_a_forced_cell_is_trained_anew_once_and_not_again_after_a_requeue(slurm_project, undisturbed_long):
    """Killed, the job could not change what its pickle says, and SLURM starts it from the same pickle: force, once more."""
    subprocess.run(["cp", "-r", str(undisturbed_long.store), str(slurm_project.store)], check=True)
    log = slurm_project.cell("byol") / "log.txt"
    log.write_text("")
    (slurm_project.cell("byol") / "metrics.jsonl").unlink()
    often = '["export RETABLE_CHECKPOINT_SECONDS=0.2"]'
    assert "Submitted 1 cell to" in slurm_project.submit(*LONG, "--mode", "force", setup=often).stdout
    job = slurm_project.wait_for_training("byol")
    slurm_project.wait("there is a checkpoint", (slurm_project.cell("byol") / "checkpoint.pt").exists)
    os.kill(read_json(slurm_project.cell("byol") / "owner.json")["pid"], signal.SIGKILL)
    slurm_project.wait_for_the_end()
    slurm_project.cluster.run("scontrol", "requeue", job)
    slurm_project.wait("the job is back", slurm_project.cluster.queue)
    slurm_project.wait_for_the_end()
    assert log.read_text().count("training starts") == 1, log.read_text()
    assert log.read_text().count("training goes on at step") == 1, log.read_text()
    assert slurm_project.numbers() == undisturbed_long.numbers()


def test_a_restart_on_another_node_outwaits_its_own_heartbeat(slurm_project):
    """Killed without a word and started again elsewhere, the job finds its former self seemingly alive on the other node."""
    assert slurm_project.submit(*LONG).returncode == 0
    job = slurm_project.wait_for_training("byol")
    slurm_project.cluster.run("scontrol", "requeue", job)
    slurm_project.wait("the checkpoint is written", lambda: "a checkpoint is written" in slurm_project.log("byol"))
    path = slurm_project.cell("byol") / "owner.json"
    slurm_project.wait("the cell is given back", lambda: read_json(path).get("released"))
    owner = {key: value for key, value in read_json(path).items() if key not in ("released", "note")}
    write_json(path, owner | {"host": "another-node", "heartbeat": time.time() - STALE + 20})
    slurm_project.wait_for_the_end()
    assert "1 done" in slurm_project.look("--status", *LONG)
    assert slurm_project.log("byol").count("training goes on at step") == 1
