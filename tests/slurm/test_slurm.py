"""The SLURM launcher against a real SLURM: what is submitted, signalled, requeued, cancelled and submitted again."""

import time

import pytest
import torch

from benchmark.store.record import read_json
from tests.e2e.test_resume import assert_same_as
from tests.slurm.conftest import LONG

pytestmark = pytest.mark.slurm


def test_a_sweep_as_an_array_gives_the_numbers_of_a_local_run(slurm_project, undisturbed):
    done = slurm_project.submit()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Submitted 3 cells to SLURM as" in done.stdout
    array = done.stdout.split("Submitted 3 cells to SLURM as ")[1].split(".")[0]
    slurm_project.wait_for_the_end()
    assert_same_as(slurm_project, undisturbed)
    status = slurm_project.look("--status")
    assert "3 done" in status
    states = slurm_project.cluster.run("sacct", "-n", "-X", "-P", "-j", array, "-o", "JobID,State").split()
    assert sorted(states) == [f"{array}_{number}|COMPLETED" for number in range(3)]
    # Since SLURM 22.05 a step is not given the CPUs of its job unless srun is told so.
    steps = slurm_project.cluster.run("sacct", "-n", "-P", "-j", array, "-o", "JobID,AllocCPUS").split()
    assert [line for line in steps if line.startswith(f"{array}_0.0|")] == [f"{array}_0.0|2"]
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


def test_the_same_command_again_submits_nothing_twice(slurm_project, undisturbed_long):
    assert "Submitted 1 cells" in slurm_project.submit(*LONG, array_parallelism=1).stdout
    again = slurm_project.submit(*LONG)  # its job is waiting, starting or training
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Submitted" not in again.stdout
    slurm_project.wait_for_training("byol")
    running = slurm_project.submit(*LONG)
    assert running.returncode == 0, running.stdout + running.stderr
    assert "Submitted" not in running.stdout
    assert len(slurm_project.cluster.queue()) == 1
    slurm_project.wait_for_the_end()
    assert slurm_project.log("byol").count("training starts") == 1
    assert slurm_project.numbers() == undisturbed_long.numbers()
