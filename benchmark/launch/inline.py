"""The inline launcher: cells one after the other in this process. What tests and debuggers use."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator

from benchmark.launch.work import Ended, Site, Watch, Work
from benchmark.launch.worker import run_cell

BUSY_WAIT = 1.0  # seconds between looks at a cell that another process runs


def run(works: list[Work], site: Site, watch: Watch) -> Iterator[Ended]:
    """Yields each cell as it ends; a stop request ends the current cell at its next step and leaves the others."""
    from benchmark.train.stop import StopRequest

    stop = StopRequest(site.deadline)
    stop.listen(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    queue = deque(works)
    while queue:
        work = queue.popleft()
        if stop.wanted:
            yield Ended(work, "stopped", stop.reason or "")
            continue

        def report(stage: str, progress: object, work: Work = work) -> None:
            watch(work, stage, progress.__dict__ if progress else None)

        status, note = run_cell(site, stop, work.cell_id, work.force, work.retry, report)
        if status == "busy":
            queue.append(work)
            time.sleep(BUSY_WAIT)
            continue
        yield Ended(work, status, note)
