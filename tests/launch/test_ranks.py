"""One cell trained by two processes: the numbers of one, the same bits after an interruption, and a lost rank costs nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from benchmark.store.record import read_json
from tests.e2e.conftest import Project, cache  # noqa: F401

# Batch norm statistics in two parts: what a rank counts for itself differs from the other's.
SWEEP = """
question: Does the number of ranks matter?
base:
  encoder: {name: convnet, width: 0.25, bn_splits: 2}
  projector: {hidden: 32, out: 16}
  predictor: {hidden: 32, out: 16}
  head: {hidden: 32, out: 16}
  data: {name: shapes, train_images: 320, test_images: 100, image_size: 32}
  optimizer: {learning_rate: 0.05}
  precision: fp32
  epochs: 2
  batch_size: 32
  queue: 64
rows:
  BYOL: {method: byol}
  MoCo v2: {method: mocov2}
  SwAV: {method: swav, prototypes: 16, freeze_steps: 2}
  DeepCluster: {method: deepcluster, clusters: 16, pca: 16}
  Random init: {method: random}
seeds: [0]
evaluate: {knn: {k: 20}}
profiles: {smoke: {}}
"""
TWO = ("--launcher", "inline", "--ranks", "2")
LONG = ("epochs=40", "--only", "row=BYOL")


@pytest.fixture
def project(tmp_path, cache):  # noqa: F811
    return _project(tmp_path, cache)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):  # noqa: F811
    """The long cell on two ranks, from start to end."""
    project = _project(tmp_path_factory.mktemp("undisturbed"), cache)
    done = project.run(*TWO, *LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def _project(folder, cache):  # noqa: F811
    (folder / "sweep.yaml").write_text(SWEEP)
    return Project(folder, cache)


def _others(project):
    """The processes that train along, of this store."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"benchmark.launch.ranks" in words and f"MARK={project.folder}".encode() in environment:
            found.append(int(folder.name))
    return found


def _started(project, *extra):
    """A run on two ranks, met at work: it has written lines and a checkpoint since it began."""
    log = next(iter(project.store.glob("cells/byol-*/log.txt")), None)
    before = log.read_text().count("training ") if log else 0
    mark = {"MARK": str(project.folder), "RETABLE_CHECKPOINT_SECONDS": "0.2"}
    process = project.start(*TWO, *LONG, *extra, **mark)
    for _ in range(1200):
        log = next(iter(project.store.glob("cells/byol-*/log.txt")), None)
        if log is not None and log.read_text().count("training ") > before:
            lines = (log.parent / "metrics.jsonl").read_text().splitlines()
            if len(lines) >= 3 and (log.parent / "checkpoint.pt").exists():
                return process
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("the training has not begun within a minute")


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one(tmp_path, cache):  # noqa: F811
    """Sums in another order, so not the same bits: rounding that two epochs have not blown up."""
    one, two = (_project(tmp_path / name, cache) for name in ("one", "two") if (tmp_path / name).mkdir() is None)
    assert one.run("--launcher", "inline").returncode == 0
    done = two.run(*TWO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [cell.name for cell in two.cells()] == [cell.name for cell in one.cells()]  # ranks are no part of an id
    for cell in two.cells():
        mine, theirs = read_json(cell / "record.json"), read_json(one.store / "cells" / cell.name / "record.json")
        if mine["config"]["method"] == "random":
            continue
        assert (mine["timing"]["ranks"], theirs["timing"]["ranks"]) == (2, 1)
        assert mine["curves"]["loss"] == pytest.approx(theirs["curves"]["loss"], rel=2e-3), cell.name
        weights = torch.load(cell / "checkpoint.pt", weights_only=True)["method"]
        expected = torch.load(one.store / "cells" / cell.name / "checkpoint.pt", weights_only=True)["method"]
        for name, value in expected.items():
            assert torch.allclose(weights[name].float(), value.float(), rtol=2e-2, atol=2e-3), f"{cell.name}: {name}"


@pytest.mark.slow
def test_stopped_robbed_of_a_rank_and_killed_it_keeps_every_bit(project, undisturbed):
    process = _started(project)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 4, output
    assert not _others(project)

    process = _started(project)
    (other,) = _others(project)
    os.kill(other, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "rank 1 of 2 was killed by SIGKILL" in " ".join(output.split())
    assert json.loads((project.cell("byol") / "owner.json").read_text())["failure"] == "node"

    process = _started(project)
    process.kill()  # the other rank has nobody left to train with
    process.communicate()
    for _ in range(600):
        if not _others(project):
            break
        time.sleep(0.1)
    assert not _others(project)

    done = project.run(*TWO, *LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (project.cell("byol") / "log.txt").read_text()
    assert (log.count("training starts"), log.count("goes on at step")) == (1, 3), log
    assert project.numbers() == undisturbed.numbers()
    mine, theirs = project.weights("byol"), undisturbed.weights("byol")
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_batch_that_the_ranks_cannot_share_is_one_sentence(project):
    done = project.run("--launcher", "inline", "--ranks", "3", "--only", "row=BYOL")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a batch of 32 cannot be shared by 3 ranks; make batch_size a multiple" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr
