"""A cell of two tasks over gloo: what disturbs one of them disturbs both, and the bits are those of an undisturbed pair."""

import os
import signal

import pytest

from tests.slurm.project import LONG, OFTEN, SlurmProject, assert_as_if_nothing_had_happened

pytestmark = pytest.mark.slurm

PAIR = {"ranks": 2, "cpus": 1}


@pytest.mark.at_once
def test_two_ranks(project, reference):
    """Asked to stop, both stop at the same step; and when one is killed the other does not go on alone."""
    alone = SlurmProject(project.folder / "alone", project.cache, project.cluster)
    alone.folder.mkdir()
    (alone.folder / "sweep.yaml").write_text((project.folder / "sweep.yaml").read_text())
    done = alone.run(*LONG, "--launcher", "inline", "--ranks", "2")
    assert done.returncode == 0, done.stdout + done.stderr

    said = project.submitted(*LONG, setup=OFTEN, **PAIR)
    assert "2 processes of 1 CPU" in said
    job = project.wait_for_training()
    tasks = project.cluster.tasks(job)
    assert sorted(tasks) == [0, 1] and tasks[0] == project.owner()["pid"]
    project.cluster.run("scancel", "--signal=USR2", job)
    project.wait_for_words("a checkpoint is written")
    project.wait_for_training(starts=2)
    again = project.cluster.tasks(job)
    assert sorted(again) == [0, 1] and not set(again.values()) & set(tasks.values())
    os.kill(again[1], signal.SIGKILL)
    project.wait_for_the_end()
    if project.owner()["released"] != "done":
        project.submitted(*LONG, **PAIR)
        project.wait_for_the_end()
    assert project.log().count(" training goes on at step ") == 2
    assert_as_if_nothing_had_happened(project, alone, starts=3)
