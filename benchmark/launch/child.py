"""A worker as its runner sees it: a child process that is told what to do in JSON lines and answers in JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from benchmark.launch.death import oom_kills, why_it_died
from benchmark.launch.work import Site, Work

_ROOT = Path(__file__).resolve().parents[2]

Events = queue.Queue["tuple[Child, dict[str, Any] | None]"]


class Child:
    """One worker and the cell it has in hand. What it says goes into `events`; None is its end."""

    def __init__(self, number: int, site: Site, gpus: str | None, events: Events) -> None:
        environment = dict(os.environ)
        environment["OMP_NUM_THREADS"] = environment["NUMBA_NUM_THREADS"] = str(site.threads)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")]))
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        self.number = number
        self.work: Work | None = None
        self.ready = False  # has ended its imports and waits for a cell
        self.begun = 0  # cells it was given
        self.killed: tuple[str, str] | None = None  # by this run: (class of failure, words)
        self._oom_kills = oom_kills()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.launch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then asks the workers
        )
        self._say({"site": site.values()})
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()
        threading.Thread(target=self._outlive, args=(events,), daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is noticed by `_outlive`
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _listen(self, events: Events) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # killed in the middle of a line
                events.put((self, json.loads(line)))

    def _outlive(self, events: Events) -> None:
        """Its end, and that of all it has started: a loader's processes would hold memory, and its half of the pipe, for on."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet, so the number is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.join()
        events.put((self, None))

    def give(self, work: Work) -> None:
        self.work = work
        self.begun += 1
        self._say({"cell": work.cell_id, "force": work.force, "retry": work.retry})

    def dismiss(self) -> None:
        """Tell it that there is nothing more to do."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self, failure: str, why: str) -> None:
        self.killed = self.killed or (failure, why)
        self.process.kill()

    def death(self) -> tuple[str, str]:
        """(class of failure, words): why the process is gone."""
        now = oom_kills()
        starved = now is not None and self._oom_kills is not None and now > self._oom_kills
        return self.killed or why_it_died(self.process.returncode, starved)
