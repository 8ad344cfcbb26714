"""What submitit pickles for SLURM: a cell id and a site, nothing else. All state is in the store's own checkpoints."""

from __future__ import annotations

import signal
from typing import Any

from benchmark.launch.work import Site


class CellJob:
    """One cell as a SLURM job. Preempted or out of time it checkpoints at the next step boundary and is requeued."""

    def __init__(self, site: Site, cell_id: str, force: bool) -> None:
        self.site, self.cell_id, self.force = site, cell_id, force

    def __call__(self) -> dict[str, str]:
        from benchmark.launch.worker import run_cell
        from benchmark.train.stop import StopRequest

        resubmit: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own handler, installed before this call
        stop = StopRequest(self.site.deadline)
        stop.listen(signal.SIGUSR2, signal.SIGTERM)
        status, note = run_cell(self.site, stop, self.cell_id, self.force, lambda stage, progress: None)
        if status == "stopped" and stop.signum is not None and callable(resubmit):
            resubmit(stop.signum, None)  # calls checkpoint() below, requeues the job and ends this process
        if status == "failed":
            raise RuntimeError(note)
        return {"status": status, "note": note}

    def checkpoint(self) -> Any:
        """Called by submitit before it requeues: the same cell again, without `force`: the work done so far counts."""
        import submitit

        return submitit.helpers.DelayedSubmission(CellJob(self.site, self.cell_id, False))
