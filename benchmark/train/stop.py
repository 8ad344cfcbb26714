"""A request to stop: by signal (Ctrl-C, TERM, SLURM's USR2) or by deadline, honoured at the next step boundary.

A signal handler only sets a flag, and only in the process that installed it: forked loader workers inherit handlers, and a
handler that acted inside a save or an optimizer step would leave a torn state.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


class Stopped(Exception):
    """Training stopped on request after writing a checkpoint; the work goes on at the next start."""


class StopRequest:
    """Poll `wanted` once a step. deadline: seconds since the epoch, or None.

    cause: says which class of failure (benchmark.store.owner) a signal stands for; asked once the checkpoint is written.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.reason: str | None = None
        self.signum: int | None = None
        self.cause: Callable[[int], str | None] = lambda signum: None
        self._pid = os.getpid()

    @property
    def wanted(self) -> bool:
        if self.reason is None and self.deadline is not None and time.time() >= self.deadline:
            self.reason = "the deadline was reached"
        return self.reason is not None

    @property
    def failure(self) -> str | None:
        return self.cause(self.signum) if self.signum is not None else None

    def heed(self) -> None:
        """Raise Stopped where a stop is wanted: between the steps of work that keeps no checkpoint, or has just written one."""
        if self.wanted:
            raise Stopped(self.reason)

    def ask(self, reason: str) -> None:
        """Ask from within this process; the first reason stands."""
        self.reason = self.reason or reason

    def listen(self, *signals: signal.Signals) -> None:
        for signum in signals:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: object) -> None:
        if os.getpid() != self._pid:
            return
        if self.signum == signum == signal.SIGINT:  # a second Ctrl-C means now
            raise KeyboardInterrupt
        self.signum = signum
        self.reason = f"asked to stop by {signal.Signals(signum).name}"
