"""The local pool: what one cell does costs that one alone, whoever asks it to stop is heard, and nobody is left behind."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmark.store.owner import failure_of, process_start, read_owner
from tests.e2e.conftest import ROOT
from tests.e2e.test_resume import children, wait_for_training

LONG = ("epochs=60", "--only", "row=byol", "--only", "row=random", "--jobs", "1")


def gone(pid: int, seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process_start(pid) is None:
            return True
        time.sleep(0.05)
    return False


def _break(project, method: str) -> None:
    """A checkpoint that is whole, and is not this cell's: the error is of nobody's making but the code's."""
    folder = project.cell(method)
    for name in ("record.json", "owner.json"):
        (folder / name).unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save(state | {"method": {"nothing": torch.zeros(1)}}, folder / "checkpoint.pt")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "inline"])
def test_a_failure_is_shown_with_its_class_and_the_end_of_its_log(small_project, launcher):
    assert small_project.run("--only", "row=byol", "--only", "row=contrastive").returncode == 0
    _break(small_project, "byol")
    _break(small_project, "contrastive")
    command = ("--launcher", launcher, "--max-failures", "1", "--jobs", "1")
    done = small_project.run(*command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"byol, seed 0 \(byol-\w+\) failed: code: Error", done.stderr), done.stderr
    assert "nothing" in done.stderr  # the last lines of the log
    assert "log.txt" in done.stderr
    assert "2 cells not begun: 1 cell has failed (--max-failures)." in done.stderr
    owner = read_owner(small_project.cell("byol") / "owner.json")
    assert (owner["released"], failure_of(owner)) == ("failed", "code")
    assert not (small_project.cell("contrastive") / "owner.json").exists()
    assert not (small_project.store / "cells" / "random").exists()
    more = small_project.run("--launcher", launcher, "--max-failures", "2", "--jobs", "1", "--mode", "retry")
    assert more.returncode == 1
    assert "1 cell not begun: 2 cells have failed (--max-failures)." in more.stderr
    plain = small_project.run("--launcher", launcher, "--jobs", "1", "--mode", "retry")
    assert plain.returncode == 1
    assert (small_project.cell("random") / "record.json").exists()


@pytest.mark.slow
def test_a_killed_worker_is_buried_and_its_cell_goes_on_next_time(small_project):
    process = small_project.start(*LONG, RETABLE_CHECKPOINT_SECONDS="0.2")
    wait_for_training(small_project)
    while not (small_project.cell("byol") / "checkpoint.pt").exists():
        time.sleep(0.05)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "failed: node: killed by SIGKILL from outside" in output
    assert (small_project.cell("random") / "record.json").exists()
    owner = read_owner(small_project.cell("byol") / "owner.json")
    assert (owner["released"], failure_of(owner)) == ("died", "node")
    again = small_project.run(*LONG)  # not --mode retry: it was no fault of its own
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on at step" in (small_project.cell("byol") / "log.txt").read_text()


@pytest.mark.slow
def test_a_worker_without_memory_costs_its_cell_alone(small_project, control_group):
    """The kernel's own killer: a head of 3.6 GiB where 1.5 are allowed, beside a cell that fits."""
    group = control_group(1500)
    sweep = small_project.folder / "sweep.yaml"
    large = "byol: {projector.hidden: 30000, projector.out: 30000, predictor.out: 30000}"
    sweep.write_text(sweep.read_text().replace("byol: {}", large))
    command = small_project.command("--jobs", "1", "--only", "row=byol", "--only", "row=random")
    code = f"""
import os, pathlib, sys
pathlib.Path({str(group / "cgroup.procs")!r}).write_text(str(os.getpid()))
os.execv(sys.executable, {command!r})
"""
    environment = small_project.environment()
    start = [sys.executable, "-c", code]
    done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed: oom: killed by SIGKILL when memory ran out; try fewer --jobs" in done.stderr
    assert failure_of(read_owner(small_project.cell("byol") / "owner.json")) == "oom"
    assert (small_project.cell("random") / "record.json").exists()


@pytest.mark.slow
def test_a_worker_alone_that_is_asked_to_stop_takes_no_other_cell_with_it(small_project):
    process = small_project.start(*LONG)
    wait_for_training(small_project)
    os.kill(children(process.pid)[0], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 4, output
    assert read_owner(small_project.cell("byol") / "owner.json")["released"] == "stopped"
    assert (small_project.cell("random") / "record.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "asked twice", "killed"])
def test_nobody_is_left_behind(small_project, how):
    """Loader processes, too: they belong to the worker's group, and it may be killed before it can end them."""
    process = small_project.start("epochs=400", "--only", "row=byol", "--jobs", "1", "--loader", "torch")
    wait_for_training(small_project)
    worker = children(process.pid)[0]
    family = [worker, *children(worker)]
    if how == "killed":
        process.kill()
    else:
        process.send_signal(signal.SIGINT)
        if how == "asked twice":
            process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == "killed" else 4)
    assert all(gone(pid) for pid in family)
    plan = small_project.run("--plan", "epochs=400", "--only", "row=byol").stdout
    assert "running" not in plan
    assert small_project.run("epochs=400", "--only", "row=byol", "--deadline", "1s").returncode == 4


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "inline"])
def test_no_cell_is_begun_when_the_time_is_nearly_over(small_project, launcher):
    """The first of a process is begun however short the time is, or short runs would never get anywhere."""
    done = small_project.run("epochs=400", "--launcher", launcher, "--jobs", "1", "--deadline", "9s")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "2 cells not begun: the deadline was reached." in done.stderr
    assert read_owner(small_project.cell("byol") / "owner.json")["released"] == "stopped"
    assert [path.name for path in small_project.store.glob("cells/*/owner.json")] == ["owner.json"]


@pytest.mark.slow
def test_the_deadline_counts_from_the_start_and_ends_a_conversion(small_project):
    done = small_project.run("--deadline", "1s", RETABLE_CACHE=str(small_project.folder / "empty"))
    assert done.returncode == 4, done.stdout + done.stderr
    assert "the deadline was reached in the conversion of shapes" in done.stderr
    left = small_project.folder / "empty"
    assert [path.name for path in left.iterdir() if path.is_dir() and not path.name.startswith(".")] == []
    assert small_project.run("--only", "row=random").returncode == 0


@pytest.mark.slow
def test_an_evaluation_heeds_the_deadline(small_project):
    """Trained before; the probe's fit is long. Its record comes with the run that has the time."""
    assert small_project.run("--only", "row=random").returncode == 0
    sweep = small_project.folder / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace("linear: {l2_low: -2, l2_high: -1}", "finetune: {epochs: 4000}"))
    done = small_project.run("--only", "row=random", "--deadline", "14s")
    assert done.returncode == 4, done.stdout + done.stderr
    cell = small_project.cell("random")
    assert (cell / "record.json").exists()
    assert not list(cell.glob("evaluations/finetune-*.json"))
    assert list(cell.glob("evaluations/finetune-*.pt"))  # what it goes on from


def test_ranks_share_the_machine(monkeypatch):
    from benchmark.errors import InputError
    from benchmark.launch.machine import cores, resources

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7,8")
    two = resources(None, None, 2)
    assert (two.jobs, [two.visible(slot) for slot in range(2)]) == (2, ["3,5", "6,7"])
    assert two.words == "4 GPUs, 2 cells at once, 2 GPUs for each"
    assert resources(1, None, 2).gpus == ("3", "5")
    assert resources(None, None).words == "5 GPUs, one cell on each"
    with pytest.raises(InputError, match="--ranks 6: this machine has 5 GPUs"):
        resources(None, None, 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resources(None, 1, 2).jobs == max(1, cores() // 2)
    assert resources(3, 2, 2).words == "CPU, 3 cells at once with 2 processes of 2 threads each"
    assert resources(3, 2, 2).visible(0) is None
