"""The local launcher: a bounded pool of worker processes, one GPU or one share of the CPU each.

A worker that dies (a crash, the kernel's out-of-memory killer) costs the cell it had, and is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.launch.inline import BUSY_WAIT
from benchmark.launch.machine import Resources
from benchmark.launch.work import Ended, Site, Watch, Work

_ROOT = Path(__file__).resolve().parents[2]
_GRACE = 60.0  # seconds a worker gets to write its checkpoint before it is killed


class _Worker:
    """One child process and the cell it has in hand."""

    def __init__(
        self, number: int, site: Site, gpu: str | None, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        environment = dict(os.environ)
        environment["OMP_NUM_THREADS"] = environment["NUMBA_NUM_THREADS"] = str(site.threads)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")]))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self.number, self.work = number, None  # type: int, Work | None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.launch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then asks the workers
        )
        self._say({"site": site.values()})
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is noticed by the listener

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            events.put((self, json.loads(line)))
        self.process.wait()
        events.put((self, None))

    def give(self, work: Work) -> None:
        self.work = work
        self._say({"cell": work.cell_id, "force": work.force, "retry": work.retry})

    def dismiss(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def death(self) -> str:
        """Why the process is gone, in words."""
        code = self.process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            oom = "; the system may have run out of memory, try fewer --jobs" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{oom}"
        return f"its process ended with exit code {code}"


def run(works: list[Work], site: Site, resources: Resources, watch: Watch) -> Iterator[Ended]:
    """Yields each cell as it ends. On SIGINT or SIGTERM the workers checkpoint, and the cells left over end as stopped."""
    events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
    waiting = deque(works)
    asked: list[str] = []
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda received, frame: asked.append(signal.Signals(received).name))

    def start(number: int) -> _Worker:
        gpu = resources.gpus[number] if resources.gpus else None
        return _Worker(number, replace(site, device="cuda" if gpu is not None else "cpu"), gpu, events)

    workers = {number: start(number) for number in range(min(resources.jobs, len(works)))}
    told, last_words = 0.0, ""
    try:
        while workers:
            if asked and not told:
                told = time.monotonic()
                for worker in workers.values():
                    worker.process.send_signal(signal.SIGTERM)
            if told and time.monotonic() - told > _GRACE:
                for worker in workers.values():
                    worker.process.kill()
            try:
                worker, event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            if event is None:
                workers.pop(worker.number, None)
                last_words = f"no worker could be started: {worker.death()}"
                if worker.work is not None:
                    status = "stopped" if asked else "failed"
                    yield Ended(worker.work, status, worker.death())
                if waiting and not asked and worker.work is not None:
                    workers[worker.number] = start(worker.number)
                continue
            if "stage" in event:
                if worker.work is not None:
                    watch(worker.work, event["stage"], event["progress"])
                continue
            if "ended" in event and worker.work is not None:
                work, worker.work = worker.work, None
                if event["ended"] == "busy":
                    waiting.append(work)
                    threading.Event().wait(BUSY_WAIT / max(1, len(workers)))
                else:
                    yield Ended(work, event["ended"], event["note"])
            if waiting and not asked:
                worker.give(waiting.popleft())
            else:
                worker.dismiss()
    finally:
        for worker in workers.values():
            worker.process.terminate()
    for work in waiting:
        yield Ended(work, "stopped", f"asked to stop by {asked[0]}") if asked else Ended(work, "failed", last_words)
