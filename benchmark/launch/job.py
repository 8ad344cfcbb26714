"""What submitit pickles for SLURM: a cell id and a site, nothing else. All state is in the store's own checkpoints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmark.launch.work import Site

LOOK_AGAIN = 5.0  # seconds between looks at the heartbeat of this job's former self


class CellJob:
    """One cell as a SLURM job. Preempted or out of time it checkpoints at the next step boundary and is requeued."""

    def __init__(self, site: Site, cell_id: str, force: bool, retry: bool = False) -> None:
        self.site, self.cell_id, self.force, self.retry = site, cell_id, force, retry

    def __call__(self) -> dict[str, str]:
        from benchmark.launch.slurm import SUBMITTED
        from benchmark.launch.worker import run_cell
        from benchmark.store.store import Store
        from benchmark.train.stop import StopRequest

        resubmit: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own handler, installed before this call
        stop = StopRequest(self.site.deadline)
        stop.listen(signal.SIGUSR2, signal.SIGTERM)
        store = Store(Path(self.site.store))
        restarted = self._wait_for_former_self(store, stop)
        # A requeued job has forgotten the old records once; what it has trained since then counts.
        force, retry = self.force and not restarted, self.retry and not restarted
        status, note = run_cell(self.site, stop, self.cell_id, force, retry, lambda stage, progress: None)
        if status in ("stopped", "busy") and stop.signum is not None and callable(resubmit) and not _over():
            resubmit(stop.signum, None)  # calls checkpoint() below, requeues the job and ends this process
        if status in ("done", "diverged"):
            (store.folder(self.cell_id) / SUBMITTED).unlink(missing_ok=True)
        if status == "failed":
            raise RuntimeError(note)
        return {"status": status, "note": note}

    def checkpoint(self) -> Any:
        """Called by submitit before it requeues: the same cell again."""
        import submitit

        return submitit.helpers.DelayedSubmission(CellJob(self.site, self.cell_id, self.force, self.retry))

    def _wait_for_former_self(self, store: Any, stop: Any) -> bool:
        """Whether this very job has held the cell before. Killed without a word and restarted on another node, it finds its
        own heartbeat still fresh there, and ending as `busy` would leave the cell to nobody: it waits until that is stale."""
        job = os.environ.get("SLURM_JOB_ID")
        while True:
            found = store.cell(self.cell_id)
            mine = job is not None and found.owner is not None and found.owner.get("job") == job
            if not mine or not found.running or stop.wanted:
                return mine
            time.sleep(LOOK_AGAIN)


def _over() -> bool:
    """Whether SLURM has already ended this job: cancelled by its user, or being requeued by SLURM itself. TERM announces
    that as well as a preemption, and a job that then requeued itself could not be cancelled at all."""
    try:
        command = ["scontrol", "show", "job", "--oneliner", os.environ["SLURM_JOB_ID"]]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (KeyError, OSError, subprocess.TimeoutExpired):
        return False
    state = re.search(r"\bJobState=(\w+)", shown)
    return state is not None and state[1] != "RUNNING"
