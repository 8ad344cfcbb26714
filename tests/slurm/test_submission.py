"""What is submitted, what is not, and what is refused."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.slurm.conf import MAX_ARRAY
from tests.slurm.project import LONG, SlurmProject, assert_as_if_nothing_had_happened

pytestmark = pytest.mark.slurm

# The byol sweep, one random seed, small enough for a test.
BYOL = (
    "--seeds", "0", "data.name=shapes", "data.train_images=400", "data.test_images=200", "encoder.width=0.25", "epochs=3",
    "batch_size=32", "projector.hidden=32", "projector.out=16", "predictor.hidden=32", "predictor.out=16", "queue=64",
)  # fmt: skip


class ByolSweep(SlurmProject):
    """The sweep as it is shipped."""

    def command(self, *extra: str) -> list[str]:
        command = super().command(*extra)
        return [str(ROOT / "sweeps" / "byol_norm_ablation.yaml") if word.endswith("sweep.yaml") else word for word in command]


def test_the_byol_sweep_in_arrays_that_the_site_allows(tmp_path, cluster, cache):
    """More cells than MaxArraySize, and a profile that knows nothing of it: several arrays, and every cell to its end once."""
    alone, project = ByolSweep(tmp_path / "alone", cache, cluster), ByolSweep(tmp_path / "slurm", cache, cluster)
    for one in (alone, project):
        one.folder.mkdir()
    done = alone.run(*BYOL)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = len(alone.cells())
    assert cells > 3 * MAX_ARRAY
    said = project.submitted(*BYOL, array_limit=1000, array_parallelism=4)
    arrays = said.split(f"Submitted {cells} cells to SLURM as ")[1].split(".")[0].split(", ")
    assert len(arrays) == -(-cells // MAX_ARRAY)
    project.wait_for_the_end()
    assert_as_if_nothing_had_happened(project, alone)
    assert len(project.cells()) == cells
    assert f"{cells} done" in project.look("--status", *BYOL)
    listed = ("sacct", "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "State")
    project.wait("all are accounted for", lambda: cluster.run(*listed).split() == ["COMPLETED"] * cells)
    assert not list(project.store.glob("cells/*/submitted.json"))
    assert "Nothing to run" in project.submit(*BYOL).stdout


def test_cells_that_need_more_have_an_array_of_their_own(slurm_project, undisturbed):
    rules = "[{when: {method: contrastive}, cpus: 3, minutes: 90}, {when: {method: [random, contrastive]}, mem_gb: 2}]"
    said = slurm_project.submitted(cells=rules, setup='["export FROM_THE_PROFILE=yes"]')
    arrays = said.split("Submitted 3 cells to SLURM as ")[1].split(".")[0].split(", ")
    assert len(arrays) == 3, said
    assert f"scancel {' '.join(arrays)}" in said
    slurm_project.wait_for_the_end()
    assert_as_if_nothing_had_happened(slurm_project, undisturbed)
    asked = ("sacct", "-n", "-X", "-P", "-j", ",".join(arrays), "-o", "ReqCPUS,ReqMem,TimelimitRaw,State")
    found = [row.split("|") for row in slurm_project.cluster.run(*asked).splitlines()]
    assert sorted(row[:3] for row in found) == [["2", "1G", "60"], ["2", "2G", "60"], ["3", "2G", "90"]]
    # This cluster binds no task to cores, so that srun is told how many the job has can only be read, not felt.
    scripts = [path.read_text() for path in slurm_project.store.glob("slurm/*submission*.sh")]
    assert set(re.findall(r"srun .*--cpus-per-task=(\d+) ", "\n".join(scripts))) == {"2", "3"}


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
    assert "Submitted 2 cells" in slurm_project.submitted(*both, array_parallelism=1)
    again = slurm_project.submitted(*both)  # one job is starting, one is waiting
    assert "Nothing to submit: 2 cells are running or in SLURM's queue" in again
    slurm_project.wait_for_training()
    assert "Nothing to submit" in slurm_project.submitted(*both)
    assert "1 running, 1 submitted" in slurm_project.look("--status", *both)
    assert "(pending)" in slurm_project.look("--plan", *both)
    (waiting,) = (job for job, state in slurm_project.jobs().items() if state == "PENDING")
    slurm_project.cluster.run("scancel", waiting)
    assert "1 running, 1 planned" in slurm_project.look("--status", *both)
    assert "Submitted 1 cell to" in slurm_project.submitted(*both)
    slurm_project.wait_for_the_end()
    assert "2 done" in slurm_project.look("--status", *both)
    undisturbed_cells = {cell.name for cell in undisturbed_long.cells()}
    assert undisturbed_cells < {cell.name for cell in slurm_project.cells()}
    shutil.rmtree(slurm_project.cell("random"))
    assert_as_if_nothing_had_happened(slurm_project, undisturbed_long)


class Copied(SlurmProject):
    """A project that runs a copy of the code, for tests that change it."""

    @property
    def code(self) -> Path:
        return self.folder / "code"

    def run(self, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if not self.code.exists():
            for package in ("benchmark", "methods", "reports", "slurm"):
                shutil.copytree(ROOT / package, self.code / package, ignore=shutil.ignore_patterns("records"))
        where = self.environment(PYTHONPATH=str(self.code), **environment)
        return subprocess.run(self.command(*extra), cwd=self.code, env=where, capture_output=True, text=True, timeout=300)

    def change(self) -> None:
        """A change of nothing that counts; but who could tell?"""
        path = self.code / "methods" / "byol.py"
        path.write_text(path.read_text() + "# changed\n")

    def release(self) -> None:
        self.cluster.run("scontrol", "release", *self.jobs())


HELD = "{hold: true}"  # sbatch --hold: the job waits until it is released


def test_code_changed_between_submission_and_start(tmp_path, cluster, cache, undisturbed_long):
    """Refused and said, unless the job has a copy of the code as it was; submitted again, the cell runs the code as it is."""
    project = Copied(tmp_path, cache, cluster)
    shutil.copy(undisturbed_long.folder / "sweep.yaml", tmp_path)
    ended = project.waiting(*LONG, extra=HELD)
    project.wait("it is in the queue", project.jobs)
    project.change()
    project.release()
    done = ended()
    assert done.returncode == 4, done.stdout + done.stderr
    assert "the code has changed since this cell was submitted" in " ".join(done.stdout.split()), done.stdout
    assert "the code has changed since this cell was submitted (methods/byol.py)" in project.log()
    assert not (project.cell("byol") / "checkpoint.pt").exists()
    project.wait_for_the_end()  # its files said how it went before SLURM had cleared up
    assert "Submitted 1 cell to" in project.submitted(*LONG, "--snapshot", extra=HELD)
    (project.code / "methods" / "byol.py").write_text("raise SystemExit('this is not the code that was submitted')\n")
    project.release()
    project.wait_for_the_end()
    assert_as_if_nothing_had_happened(project, undisturbed_long)


def test_wait_stays_until_every_cell_has_ended(slurm_project, undisturbed):
    said = slurm_project.submitted("--wait")
    assert "3 done; records in" in said
    assert_as_if_nothing_had_happened(slurm_project, undisturbed)
