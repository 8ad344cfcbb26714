"""Evaluations as a user sees them: all protocols in one sweep, interrupted, diverged, refused, without their data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark.evaluate.protocols import PROTOCOLS as EVALUATORS
from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.sweep import load_sweep
from benchmark.store.record import read_json
from tests.e2e.conftest import Project
from tests.e2e.test_resume import kill_tree

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ROOT / "sweeps" / "evaluation.yaml"
COCO128 = ROOT.parent / "shared" / "data" / "coco128.tar.gz"

TEXT = """
question: Does an evaluation survive?
base:
  method: simclr
  encoder: {{name: resnet10, stem: stride2, width: 0.25}}
  projector: {{hidden: 32, out: 16}}
  data: {{name: shapes, train_images: 200, test_images: 100, image_size: 32}}
  optimizer: {{learning_rate: 0.05}}
  epochs: 1
  batch_size: 32
rows:
  random: {{method: random}}
evaluate: {evaluate}
profiles: {{smoke: {{}}}}
"""
LONG = "{knn: {k: 20}, linear_byol: {epochs: 100, gap: false}, linear: {l2_low: -2, l2_high: -1}}"


def project(folder: Path, cache: Path, evaluate: str) -> Project:
    (folder / "sweep.yaml").write_text(TEXT.format(evaluate=evaluate))
    return Project(folder, cache)


def records(project: Project) -> dict[str, dict]:
    (cell,) = project.cells()
    return {path.stem.rpartition("-")[0]: read_json(path) for path in sorted(cell.glob("evaluations/*.json"))}


def test_planning_and_evaluation_know_the_same_protocols():
    assert set(PROTOCOLS) == set(EVALUATORS)


def test_every_protocol_is_shown():
    sweep = load_sweep(SWEEP)
    shown = {p["name"] for profile in sweep.profiles for row in sweep.expand(profile) for p in row.cells[0].protocols}
    assert shown == set(PROTOCOLS)


@pytest.mark.parametrize("profile", ["cifar10", "imagenet"])
def test_its_networks_are_those_of_the_methods_sweep(profile):
    """So that none is trained twice."""
    others = {cell.id for row in load_sweep(ROOT / "sweeps" / "methods.yaml").expand(profile) for cell in row.cells}
    assert {cell.id for row in load_sweep(SWEEP).expand(profile) for cell in row.cells} <= others


@pytest.mark.slow
def test_the_sweep_of_all_protocols_runs_from_start_to_end(tmp_path, cache):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")}
    command = [sys.executable, "-m", "benchmark.run", str(SWEEP), "--profile", "smoke", "--store", str(tmp_path / "runs")]
    environment = plain | {"RETABLE_CACHE": str(cache), "COLUMNS": "160"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=570)
    assert done.returncode == 0, done.stdout + done.stderr
    count = 0
    for row in load_sweep(SWEEP).expand("smoke"):
        (cell,) = (tmp_path / "runs" / "cells").glob(f"{row.cells[0].config['method']}-*")
        found = [read_json(path) for path in sorted(cell.glob("evaluations/*.json"))]
        assert len(found) == len(row.cells[0].protocols)
        count += len(found)
        for record in found:
            assert record["status"] == "done", record
            assert all(value is None or isinstance(value, int | float) for value in record["metrics"].values()), record
            assert record["timing"]["wall_seconds"] >= record["timing"]["features_seconds"] >= 0
            for name in record["pictures"]:
                assert (cell / "evaluations" / name).read_bytes()[:4] == b"\x89PNG"
        assert not list(cell.glob("evaluations/*.pt"))  # nothing of what was under way is left
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert "Nothing to run" in again.stdout and count > 20


def wait_for(project: Project, pattern: str, process: subprocess.Popen) -> None:
    for _ in range(3000):
        if list(project.store.glob(pattern)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{pattern} has not appeared within 5 minutes")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    made = project(tmp_path_factory.mktemp("whole"), cache, LONG)
    done = made.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_probe_that_is_stopped_goes_on_and_ends_with_the_same_numbers(tmp_path, cache, whole, signum):
    mine = project(tmp_path, cache, LONG)
    process = mine.start(RETABLE_CHECKPOINT_SECONDS="0.1")
    wait_for(mine, "cells/*/evaluations/linear_byol-*.pt", process)
    if signum == signal.SIGKILL:
        kill_tree(process)
    else:
        process.send_signal(signum)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 4, output
        status = mine.run("--status").stdout
        assert "partly" in status and "asked to stop by SIGTERM" in status
    (unfinished,) = mine.store.glob("cells/*/evaluations/linear_byol-*.pt")
    state = torch.load(unfinished, weights_only=True)
    assert state["step"] > 0
    measured = next(mine.store.glob("cells/*/evaluations/knn-*.json")).stat().st_mtime_ns
    assert not list(mine.store.glob("cells/*/evaluations/linear-*.json"))
    for _ in range(20):  # a process takes a moment to die
        plan = " ".join(mine.run("--plan").stdout.split())
        if "running on" not in plan:
            break
        time.sleep(0.5)
    assert "linear_byol, linear still to measure" in plan
    done = mine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert mine.numbers() == whole.numbers()
    mine_found, whole_found = records(mine), records(whole)
    assert {name: record["chosen"] for name, record in mine_found.items()} == {
        name: record["chosen"] for name, record in whole_found.items()
    }
    assert mine_found["linear_byol"]["timing"]["resumed"] and "resumed" not in whole_found["linear_byol"]["timing"]
    assert next(mine.store.glob("cells/*/evaluations/knn-*.json")).stat().st_mtime_ns == measured  # not repeated
    assert not unfinished.exists()


@pytest.mark.slow
def test_status_says_what_an_evaluation_is_doing(tmp_path, cache):
    mine = project(tmp_path, cache, "{knn: {k: 20}, linear_byol: {epochs: 30000, gap: false}}")
    process = mine.start()
    try:
        for _ in range(60):
            seen = mine.run("--status").stdout
            shares = re.findall(r"running\s+linear_byol, 2 of 2 (\d+)%", seen)
            if shares:
                break
            time.sleep(0.5)
        (done,) = shares
        assert int(done) < 50  # of this stage, which takes minutes, not of the training that is over
    finally:
        kill_tree(process)


@pytest.mark.slow
def test_an_evaluation_that_diverges_is_a_result(tmp_path, cache):
    mine = project(tmp_path, cache, "{linear_swav: {epochs: 3, learning_rates: [1e38]}, knn: {k: 20}}")
    done = mine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "linear_swav diverged: the loss was not finite at step" in " ".join(done.stdout.split())
    found = records(mine)
    assert (found["linear_swav"]["status"], found["linear_swav"]["metrics"]) == ("diverged", {})
    assert found["linear_swav"]["diverged"]["step"] > 0
    assert found["knn"]["status"] == "done"
    again = mine.run()
    assert "Nothing to run" in again.stdout
    assert "done 1/1; linear_swav diverged (--mode retry measures again)" in " ".join(mine.run("--plan").stdout.split())
    written = {path: path.stat().st_mtime_ns for path in mine.store.glob("cells/*/evaluations/*.json")}
    assert mine.run("--mode", "retry").returncode == 0
    repeated = [path.name for path, before in written.items() if path.stat().st_mtime_ns > before]
    assert [name.rpartition("-")[0] for name in repeated] == ["linear_swav"]


@pytest.mark.slow
def test_what_one_protocol_refuses_costs_no_other(tmp_path, cache):
    mine = project(tmp_path, cache, "{blog_logistic: {}, knn: {k: 20}, embedding_map: {}, collapse: {}}")
    done = mine.run("data.test_images=1")
    assert done.returncode == 1
    assert "blog_logistic: one test image has no two halves" in done.stderr and "; and embedding_map: 1 test" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert set(records(mine)) == {"knn", "collapse"}
    again = mine.run("data.test_images=1")  # once the user has put it right it would go on: no --mode retry is needed
    assert again.returncode == 1 and "blog_logistic: one test image" in again.stderr


@pytest.mark.slow
def test_what_a_machine_or_a_cell_lacks_is_said_before_anything_is_trained(tmp_path, cache):
    mine = project(tmp_path, cache, "{knn: {k: 20}, finetune_simclr_1: {labels: absent.txt}, linear: {}}")
    plan = mine.run("--plan")
    assert plan.returncode == 0
    assert "its list of labelled images absent.txt is no file" in " ".join(plan.stdout.split())
    done = mine.run()
    assert done.returncode == 2 and "its list of labelled images absent.txt is no file" in done.stderr
    unheld = mine.run("data.held_out=0.0")
    assert unheld.returncode == 2 and "linear chooses its l2 on held-out images, but data.held_out is 0" in unheld.stderr
    assert "Traceback" not in done.stderr + unheld.stderr
    assert not list(mine.store.glob("cells/*/record.json"))


@pytest.mark.slow
def test_without_its_detection_data_nothing_is_started(tmp_path, cache):
    mine = project(tmp_path, cache, "[knn, detection_voc07]")
    plan = mine.run("--plan")
    assert plan.returncode == 0
    said = " ".join(plan.stdout.split())
    assert "detection data set voc07 is needed" in said and "--data voc07=PATH" in said and "provisional" in said
    done = mine.run()
    assert done.returncode == 2
    assert "detection data set voc07 is needed" in done.stderr and "Traceback" not in done.stderr
    assert not list(mine.store.glob("cells/*/record.json"))
    wrong = mine.run("--data", f"voc07={tmp_path}")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


@pytest.mark.slow
@pytest.mark.skipif(not COCO128.exists(), reason="needs ../shared/data/coco128.tar.gz")
def test_detection_data_reaches_the_worker(tmp_path, cache):
    settings = (
        "{dataset: coco, iterations: 2, milestones: [1], warmup_iterations: 1, precise_bn: 1, batch_size: 2, "
        "train_sides: [64], test_side: 64, max_side: 96, train_photos: 4, test_photos: 2}"
    )
    mine = project(tmp_path, cache, f"{{detection_smoke: {settings}}}")
    done = mine.run("--data", f"coco={COCO128}")
    assert done.returncode == 0, done.stdout + done.stderr
    record = records(mine)["detection_smoke"]
    assert (record["protocol"]["dataset"], len(record["protocol"]["content"])) == ("coco", 12)
    assert record["protocol"]["content"] in done.stdout
    assert 0 <= record["metrics"]["AP"] <= 100
