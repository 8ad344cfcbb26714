"""What submitit pickles for SLURM: a cell id, a site, a fingerprint of the code. All state is in the store's own checkpoints.

Preempted, out of time or without one of its nodes, a cell writes a checkpoint if it still can and its job is requeued. Each
start of a job of several processes calls this on every one of them; rank 0 alone holds the cell and speaks with SLURM.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.launch.jobs import SUBMITTED, end_job
from benchmark.launch.work import Site
from benchmark.store.owner import Claim, bury, failure_of, read_owner
from benchmark.store.record import read_json, write_json

LOOK_AGAIN = 5.0  # seconds between looks at the heartbeat of this job's former self
FRUITLESS = 3  # starts in a row that end by the time limit or a lost node and leave nothing: then the cell has failed
_NEAR_THE_END = 90.0  # seconds; SLURM sends its warning up to a minute early
# JobState of a job that SLURM is ending -> what that is, for the cell
_ENDING = {"TIMEOUT": "timeout", "DEADLINE": "timeout", "NODE_FAIL": "node", "BOOT_FAIL": "node", "CANCELLED": None}

_WHY = {
    "timeout": "its time limit is near",
    "preempted": "it is preempted",
    "node": "a node, or another of its processes, is lost",
}


@dataclass
class CellJob:
    """One cell as a SLURM job.

    code: the fingerprint it was submitted with (benchmark.launch.code). minutes, warning: the job's time limit and the seconds
    before it at which SLURM warns. fruitless: starts in a row that left nothing behind.
    """

    site: Site
    cell_id: str
    force: bool
    retry: bool = False
    code: str | None = None
    minutes: int = 0
    warning: int = 120
    fruitless: int = 0

    def __call__(self) -> dict[str, str]:
        from benchmark.launch.ranks import follow, lead, place_in_job
        from benchmark.train.stop import StopRequest

        self._started = time.time()
        resubmit: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own handler, installed before this call
        stop = StopRequest(self.site.deadline)
        stop.listen(signal.SIGUSR2, signal.SIGTERM)
        place = place_in_job()
        if place is not None and place.rank > 0:
            follow(self.site, self.cell_id, place)
            return {"status": "followed", "note": f"rank {place.rank}"}
        stop.cause = self._cause
        before = self._marks()
        with lead(self.site, self.cell_id) as others:
            status, note, failure = self._run(stop, others)
        taken = status in ("stopped", "busy") and stop.signum is not None
        ending = _ending() if taken or failure == "node" else ""
        if (taken or failure == "node") and callable(resubmit) and not ending:
            status, note = self._requeue(resubmit, failure, note, fruitless=self._marks() == before)
        if status in ("done", "diverged"):
            (self._folder / SUBMITTED).unlink(missing_ok=True)
        elif not ending:  # else SLURM knows whether it comes back
            end_job(self._folder, _job(), status, note)
        if status == "failed":
            raise RuntimeError(note)
        return {"status": status, "note": note}

    def checkpoint(self) -> Any:
        """Called by submitit before it requeues: the same cell again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    @property
    def _folder(self) -> Path:
        return Path(self.site.store) / "cells" / self.cell_id

    def _run(self, stop: Any, others: Any) -> tuple[str, str, str | None]:
        """Bring the cell to its end, unless it is no longer the cell that was submitted: (status, note, class of failure)."""
        from benchmark.launch import code
        from benchmark.launch.worker import run_cell

        refusal = code.refusal(Path(self.site.store), self.code) if self.code else None
        if refusal is not None:
            self._log(f"not started: {refusal}")
            return "stopped", refusal, None
        restarted = self._wait_for_former_self(stop)
        # A requeued job has forgotten the old records once; what it has trained since then counts.
        force, retry = self.force and not restarted, self.retry and not restarted
        status, note, *_ = run_cell(self.site, stop, self.cell_id, force, retry, lambda stage, progress: None, others)
        return status, note, failure_of(read_owner(self._folder / "owner.json")) if status != "busy" else None

    def _requeue(self, resubmit: Any, failure: str | None, note: str, fruitless: bool) -> tuple[str, str]:
        """Give the job back to SLURM, which ends this process; returns only where that cannot be, with status and note."""
        from submitit.core.utils import UncompletedJobError

        self.fruitless = self.fruitless + 1 if fruitless and failure in ("timeout", "node") else 0
        if self.fruitless >= FRUITLESS:
            remedy = "raise minutes in the cluster profile" if failure == "timeout" else "look at the nodes it ran on"
            note = f"started {FRUITLESS} times without a checkpoint ({failure}); {remedy}"
            self._log(f"failed: {note}")
            if (claim := Claim.take(self._folder)) is not None:
                claim.release("failed", note, failure)
            return "failed", note
        self._log(f"job {_job()} is requeued: {_WHY.get(failure or '', note)}")
        try:
            resubmit(signal.SIGUSR2, None)  # calls checkpoint() above, requeues the job and ends this process
        except (subprocess.SubprocessError, OSError, UncompletedJobError) as error:
            note = f"the job could not be requeued ({error}); start the same command again"
            self._log(note)
        return "stopped", note

    def _cause(self, signum: int) -> str | None:
        """The class of what a signal announces: SLURM's own word for it first, then the clock. None where a person wants it."""
        shown = _shown()
        if shown.get("JobState") in _ENDING:
            return _ENDING[shown["JobState"]]
        if shown.get("PreemptTime", "None") not in ("None", "Unknown"):
            return "preempted"
        told = os.environ.get("SLURM_JOB_END_TIME", "")
        end = float(told) if told.isdecimal() else self._started + 60 * self.minutes
        if self.minutes and end - time.time() < self.warning + _NEAR_THE_END:
            return "timeout"
        return "preempted" if shown.get("JobState", "RUNNING") == "RUNNING" else None

    def _marks(self) -> dict[str, int]:
        """What a start can leave behind: when checkpoints and records were last written."""
        found = {}
        for path in (*self._folder.glob("*.pt"), *self._folder.glob("record.json"), *self._folder.glob("evaluations/*")):
            with contextlib.suppress(FileNotFoundError):
                found[str(path)] = path.stat().st_mtime_ns
        return found

    def _wait_for_former_self(self, stop: Any) -> bool:
        """Whether this very job has held the cell before. Killed without a word and restarted on another node, it finds its
        own heartbeat still fresh there, and ending as `busy` would leave the cell to nobody: it waits until that is stale."""
        from benchmark.store.store import Store

        job, store = os.environ.get("SLURM_JOB_ID"), Store(Path(self.site.store))
        while True:
            found = store.cell(self.cell_id)
            mine = job is not None and found.owner is not None and found.owner.get("job") == job
            if not mine or not found.running or stop.wanted:
                break
            time.sleep(LOOK_AGAIN)
        self._settle(found.owner if mine else None)
        return mine

    def _settle(self, former: dict[str, Any] | None) -> None:
        """Say on which node this start is, and what became of a former one that could not say so itself."""
        here, path = os.environ.get("SLURMD_NODENAME", ""), self._folder / SUBMITTED
        told: dict[str, Any] = {}
        with contextlib.suppress(InputError):
            told = read_json(path)
        if former is not None and not former.get("released") and isinstance(former.get("nonce"), str):
            there = str(told.get("node") or former["host"])
            lost = there != here
            note = f"node {there} was lost" if lost else f"it was killed on {there} without a warning"
            bury(self._folder, former["nonce"], "node" if lost else "preempted", note)
            self._log(f"job {_job()} starts again on {here}: {note}")
        if told.get("job") == _job() and (told.get("node") != here or "ended" in told):
            write_json(path, {"job": _job(), "node": here})

    def _log(self, text: str) -> None:
        """A line in the cell's log, as its trainings write them."""
        with contextlib.suppress(OSError), (self._folder / "log.txt").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _job() -> str:
    """This job as squeue and submitit name it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")


def _ending() -> str:
    """What SLURM calls the state of this job where it has already ended it: cancelled by its user, or being requeued by SLURM
    itself; else nothing. TERM announces that as well as a preemption, and a job that then requeued itself could not be
    cancelled at all."""
    state = _shown().get("JobState", "RUNNING")
    return "" if state == "RUNNING" else state


def _shown() -> dict[str, str]:
    """What scontrol shows of this job; nothing where it does not answer."""
    try:
        command = ["scontrol", "show", "job", "--oneliner", os.environ["SLURM_JOB_ID"]]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (KeyError, OSError, subprocess.TimeoutExpired):
        return {}
    return dict(re.findall(r"\b(JobState|PreemptTime)=(\S+)", shown))
