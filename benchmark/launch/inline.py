"""The inline launcher: cells one after the other in this process. What tests and debuggers use."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator

from benchmark.launch.work import Ended, Limits, Site, Watch, Work, held
from benchmark.launch.worker import run_cell

BUSY_WAIT = 1.0  # seconds between looks at a cell that another process runs


def run(works: list[Work], site: Site, watch: Watch, max_failures: int | None = None) -> Iterator[Ended]:
    """Yields each cell as it ends; a stop request ends the current cell at its next step and leaves the others, and so does a
    deadline. Once `max_failures` cells have failed, none is started."""
    from benchmark.train.stop import StopRequest

    limits, begun = Limits(site.deadline, max_failures), False
    stop = StopRequest(site.deadline)
    stop.listen(signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    queue = deque(works)
    while queue:
        work = queue.popleft()
        why = stop.reason if stop.wanted else limits.why_no_more() if begun else limits.why_none_at_all()
        if why:
            yield Ended(work, "stopped", why, begun=False)
            continue
        if held(site, work):
            queue.append(work)
            if all(held(site, other) for other in queue):
                time.sleep(BUSY_WAIT)
            continue

        def report(stage: str, progress: object, work: Work = work) -> None:
            watch(work, stage, progress.__dict__ if progress else None)

        status, note = run_cell(site, stop, work.cell_id, work.force, work.retry, report)
        if status == "busy":
            queue.append(work)
            continue
        begun = True
        yield limits.count(Ended.of(site, work, status, note))
