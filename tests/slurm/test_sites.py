"""Sites that answer less than others: without accounting, and with a controller that is gone."""

import os
import signal

import pytest

from tests.slurm.project import LONG, OFTEN, assert_as_if_nothing_had_happened

pytestmark = pytest.mark.slurm


@pytest.mark.at_once(site="plain_site")
def test_without_accounting_nothing_waits_for_ever(project, reference):
    """Submitting, --status and --wait need no sacct; a worker that dies without a word is noticed, and said to be."""
    assert "disabled" in project.cluster.told("sacct")
    ended = project.waiting(*LONG, setup=OFTEN)
    project.wait_for_training()
    assert "1 running" in project.look("--status", *LONG)
    project.wait("there is a checkpoint", (project.cell("byol") / "checkpoint.pt").exists)
    os.kill(project.owner()["pid"], signal.SIGKILL)
    done = ended()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "sacct does not answer here" in said and "disabled" in said, said
    assert "sacct does not answer here" in " ".join(project.look("--status", *LONG).split())
    done = project.submit("--wait", *LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done" in done.stdout
    assert project.log().count(" training goes on at step ") == 1
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once(site="plain_site")
def test_requeued_without_accounting(project, reference):
    ended = project.waiting(*LONG)
    job = project.wait_for_training()
    project.cluster.run("scancel", "--signal=USR2", job)
    done = ended()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done" in done.stdout
    assert_as_if_nothing_had_happened(project, reference, starts=2)


@pytest.mark.at_once(site="lost_site")
def test_the_controller_is_gone(project, reference):
    """What runs goes on, and --wait follows it by its files; what is to be submitted is refused in a sentence."""
    ended = project.waiting(*LONG)
    project.wait_for_training()
    controller = project.cluster.daemons["slurmctld"]
    controller.terminate()
    controller.wait()
    done = ended()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done" in done.stdout
    assert "squeue does not answer" in done.stdout + done.stderr
    assert "1 done" in project.look("--status", *LONG)
    assert_as_if_nothing_had_happened(project, reference)
    refused = project.submit("--only", "row=random")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert refused.stderr.count("error:") == 1 and "SLURM refused the job: " in refused.stderr, refused.stderr
    assert "Unable to contact slurm controller" in " ".join(refused.stderr.split())
