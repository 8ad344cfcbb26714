"""The local launcher: a bounded pool of worker processes, with GPUs or a share of the CPU each.

A worker that dies (a crash, the kernel's out-of-memory killer) costs the cell it had, and is replaced. Its claim is given the
class of the failure, so that whoever reads the store later sees why.
"""

from __future__ import annotations

import queue
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmark.launch.child import Child, Events
from benchmark.launch.machine import Resources
from benchmark.launch.work import Ended, Limits, Site, Watch, Work, held
from benchmark.store.owner import bury

_GRACE = 60.0  # seconds a worker gets to come to a safe step and write its checkpoint before it is killed
_STILLBORN = 3  # workers in a row that end before they are ready, after which none is replaced
_LOOK = 0.2  # seconds between looks at the clock
_BUSY_LOOK = 1.0  # seconds between looks at cells that other runs have in hand


def run(works: list[Work], site: Site, resources: Resources, watch: Watch, max_failures: int | None = None) -> Iterator[Ended]:
    """Yields each cell as it ends. On SIGINT or SIGTERM and at the deadline the workers checkpoint, and the cells left over end
    as stopped; asked twice, the workers are killed. Once `max_failures` cells have failed, none is started; those that run
    come to their end."""
    pool = _Pool(works, site, resources, watch, Limits(site.deadline, max_failures))
    before = {signum: signal.signal(signum, pool.asked) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield from pool.run()
    finally:
        pool.end()
        for signum, handler in before.items():
            signal.signal(signum, handler)


class _Pool:
    """The workers, the cells that wait, and those that wait for somebody else to let them go."""

    def __init__(self, works: list[Work], site: Site, resources: Resources, watch: Watch, limits: Limits) -> None:
        self.site, self.resources, self.watch, self.limits = site, resources, watch, limits
        self.events: Events = queue.Queue()
        self.waiting, self.busy = deque(works), list[Work]()
        self.workers = {number: self._start(number) for number in range(min(resources.jobs, len(works)))}
        self.told = 0.0  # when the workers were asked to stop
        self.signals: list[str] = []
        self.looked = 0.0
        self.no_worker, self.stillborn = "", 0  # why there is none; how many in a row ended before they could do anything

    def asked(self, signum: int, frame: FrameType | None) -> None:
        self.signals.append(signal.Signals(signum).name)

    def _start(self, number: int) -> Child:
        gpus = self.resources.visible(number)
        return Child(number, replace(self.site, device="cuda" if gpus is not None else "cpu"), gpus, self.events)

    def run(self) -> Iterator[Ended]:
        while self.workers:
            self._stop_if_wanted()
            self._hand_out()
            try:
                child, event = self.events.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if event is None:
                yield from self._died(child)
            elif "ready" in event:
                child.ready, self.stillborn = True, 0
            elif "stage" in event and child.work is not None:
                self.watch(child.work, event["stage"], event["progress"])
            elif "ended" in event and child.work is not None:
                yield from self._ended(child, event["ended"], event["note"])
        for work in (*self.waiting, *self.busy):
            why = self.why_no_more()
            yield Ended(work, "stopped", why, begun=False) if why else Ended(work, "failed", self.no_worker, "code")

    def why_no_more(self) -> str:
        """Why no cell may be started any more; empty if one may."""
        return f"asked to stop by {self.signals[0]}" if self.signals else self.limits.why_no_more()

    def _stop_if_wanted(self) -> None:
        over = self.limits.reached()
        if (self.signals or over) and not self.told:
            self.told = time.monotonic()
            for child in self.workers.values():
                if self.signals or child.work is None:
                    child.ask_to_stop()  # at a deadline those at work know it by themselves
        at_once = len(self.signals) > 1
        if self.told and (at_once or time.monotonic() - self.told > _GRACE):
            since = self.signals[0] if self.signals else "the deadline"
            why = f"asked twice to stop by {since}" if at_once else f"came to no safe step within {_GRACE:.0f} s of {since}"
            for child in self.workers.values():
                child.kill("preempted" if at_once else "timeout", why)

    def _hand_out(self) -> None:
        if self.busy and time.monotonic() - self.looked > _BUSY_LOOK:
            self.looked = time.monotonic()
            free = [work for work in self.busy if not held(self.site, work)]
            self.busy = [work for work in self.busy if work not in free]
            self.waiting += free
        for child in self.workers.values():
            if not child.ready or child.work is not None:
                continue
            no_more = self.signals or (self.limits.why_no_more() if child.begun else self.limits.why_none_at_all())
            work = None if no_more else self._next()
            if work is not None:
                child.give(work)
            elif no_more or not self.busy:
                child.ready = False
                child.dismiss()

    def _next(self) -> Work | None:
        """A cell that nobody has in hand."""
        while self.waiting:
            work = self.waiting.popleft()
            if not held(self.site, work):
                return work
            self.busy.append(work)
        return None

    def _ended(self, child: Child, status: str, note: str) -> Iterator[Ended]:
        work, child.work = child.work, None
        assert work is not None
        if status == "busy":  # another run was quicker
            self.busy.append(work)
            return
        yield self.limits.count(Ended.of(self.site, work, status, note))
        if status == "stopped" and not self.signals and not self.limits.reached():
            child.ready = False  # somebody has asked this worker alone to stop, and it would refuse every cell
            child.dismiss()

    def _died(self, child: Child) -> Iterator[Ended]:
        self.workers.pop(child.number, None)
        failure, words = child.death()
        if child.work is not None:
            folder = Path(self.site.store) / "cells" / child.work.cell_id
            bury(folder, child.process.pid, failure, words)
            stopped = bool(self.signals or child.killed)
            yield self.limits.count(Ended(child.work, "stopped" if stopped else "failed", words, None if stopped else failure))
        elif not child.begun:
            self.no_worker, self.stillborn = f"no worker could be started: {words}", self.stillborn + 1
        # One that cannot even start is not started for ever: that is an installation at fault, or a machine without memory.
        if (self.waiting or self.busy) and not self.why_no_more() and (child.begun or self.stillborn < _STILLBORN):
            self.workers[child.number] = self._start(child.number)

    def end(self) -> None:
        """Nobody is left behind, whatever ended the run: those still there write a checkpoint and go."""
        for child in self.workers.values():
            child.ask_to_stop()
