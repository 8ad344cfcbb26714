"""A project that runs on the throw-away cluster, and what must be the same after any disturbance."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmark.store.owner import process_start
from benchmark.store.record import read_json
from tests.e2e.conftest import Project
from tests.slurm.cluster import Cluster

PROFILE = {"partition": "debug", "gpus": 0, "cpus": 2, "mem_gb": 1, "minutes": 60, "signal_delay_seconds": 30}
# One cell of enough steps to be met at work.
LONG = ("epochs=60", "--only", "row=byol")
OFTEN = '["export RETABLE_CHECKPOINT_SECONDS=0.5"]'  # set-up lines of a cluster profile, for cells that get no warning
PATIENCE = 300.0  # seconds; on an idle machine nothing takes a tenth of that
_PAUSED = {"T", "t"}
_OF_A_START = {"seconds", "token"}  # what a checkpoint says of the machine and of the start that wrote it


@dataclass
class SlurmProject(Project):
    """A Project whose run command submits to the cluster. Several of them use it at the same time."""

    cluster: Cluster
    over: threading.Event = field(default_factory=threading.Event)  # set where nobody waits for it any more

    def profile(self, **changes: object) -> Path:
        """A cluster profile; a key with the value None is left out."""
        path = self.folder / "cluster.yaml"
        values = {key: value for key, value in (PROFILE | changes).items() if value is not None}
        path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        return path

    def submit(self, *extra: str, **changes: object):
        path = self.profile(**changes)
        return self.run("--launcher", "slurm", "--cluster", str(path), *extra, **self.cluster.environment())

    def submitted(self, *extra: str, **changes: object) -> str:
        """Submit, and what was said; anything but success is an error."""
        done = self.submit(*extra, **changes)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def waiting(self, *extra: str, **changes: object):
        """`--wait` in the background; call the answer for what came of it."""
        found = []
        thread = threading.Thread(target=lambda: found.append(self.submit("--wait", *extra, **changes)))
        thread.start()

        def ended():
            thread.join()
            return found[0]

        return ended

    def look(self, flag: str, *extra: str) -> str:
        """What --plan or --status prints, with the cluster at hand."""
        done = self.run(flag, *extra, **self.cluster.environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """This project's jobs that are not over: id -> state."""
        lines = [line.split("|") for line in self.cluster.run("squeue", "-h", "-r", "-o", "%i|%T|%o").splitlines()]
        return {job: state for job, state, script in lines if script.startswith(str(self.store))}

    def wait(self, what: str, condition: Callable[[], object], every: float = 0.2) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, f"waited in vain until {what}\n{self.evidence()}"
            assert not self.over.wait(every), "the tests have been ended"

    def wait_for_the_end(self) -> None:
        self.wait("its jobs are over", lambda: not self.jobs(), every=1.5)  # squeue takes time from those that work

    def wait_for_training(self, method: str = "byol", starts: int = 1) -> str:
        """Wait until the cell trains for the given time, some steps into it; the id of its job."""

        def progress() -> bool:
            lines = list(self.store.glob(f"cells/{method}-*/metrics.jsonl"))
            begun = bool(lines) and self.log(method).count(" training ") >= starts
            return begun and len(lines[0].read_text().splitlines()) >= 3

        self.wait(f"{method} trains", progress)
        return str(self.owner(method)["job"])

    def log(self, method: str = "byol") -> str:
        path = self.cell(method) / "log.txt"
        return path.read_text() if path.exists() else ""

    def wait_for_words(self, words: str, method: str = "byol") -> None:
        self.wait(f"the log says: {words}", lambda: words in self.log(method))

    def owner(self, method: str = "byol") -> dict[str, Any]:
        return read_json(self.cell(method) / "owner.json")

    def node(self) -> str:
        """Where its only job runs."""
        (job,) = self.jobs()
        return self.cluster.run("squeue", "-h", "-j", job, "-o", "%N").strip()

    def clear(self) -> None:
        """Cancel what is left; without a controller there is nobody to ask, and nothing but a long wait."""
        if self.cluster.daemons["slurmctld"].poll() is None and (jobs := self.jobs()):
            self.cluster.run("scancel", *jobs)

    def evidence(self) -> str:
        logs = sorted([*self.store.glob("slurm/*.err"), *self.store.glob("slurm/*.out"), *self.store.glob("cells/*/log.txt")])
        texts = [f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs]
        return "\n".join([*self.cluster.queue(), *texts, self.cluster.logs()])


def paused(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in _PAUSED
    return False


def gone(pid: int) -> bool:
    return process_start(pid) is None


def assert_as_if_nothing_had_happened(project: Project, reference: Project, starts: int | None = 1) -> None:
    """Every cell of the project has the metrics, curves, evaluations and checkpoint tensors of the reference, bit for bit, and
    its training was brought to the end exactly once. starts: how often each was begun or taken up (None: any number)."""
    mine, theirs = project.numbers(), reference.numbers()
    assert mine and mine == {name: theirs.get(name) for name in mine}
    for folder in project.cells():
        there = reference.store / "cells" / folder.name
        one, other = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (folder, there))
        _assert_same(_of_the_training(one), _of_the_training(other), folder.name)
        names = [path.name for path in sorted(folder.glob("evaluations/*.json"))]
        assert names == [path.name for path in sorted(there.glob("evaluations/*.json"))]
        owner, log = read_json(folder / "owner.json"), (folder / "log.txt").read_text()
        trains = "lines" in one  # random weights have nothing to train
        assert log.count(" training starts ") == log.count(" trained in ") == int(trains), log
        for name in names:  # measured once
            assert log.count(f" {name.rpartition('-')[0]}: ") == 1, log
        if trains:
            assert (folder / "metrics.jsonl").read_text() == (there / "metrics.jsonl").read_text()
        assert owner["released"] == "done", owner
        if starts is not None:
            assert owner["token"] == starts, log
            assert read_json(folder / "record.json")["timing"]["restarts"] == starts - 1


def _of_the_training(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in checkpoint.items() if key not in _OF_A_START}


def _assert_same(mine: Any, theirs: Any, where: str) -> None:
    assert type(mine) is type(theirs), where
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs), where
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key in mine:
            _assert_same(mine[key], theirs[key], f"{where}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs), where
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            _assert_same(one, other, f"{where}[{number}]")
    else:
        assert mine == theirs, where
