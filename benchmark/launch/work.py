"""What launchers pass around: the cells to bring to their end, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.store.owner import alive, failure_of, read_owner

NEARLY_OVER = 5.0  # seconds before a deadline from which on no further cell is started


@dataclass(frozen=True)
class Work:
    """One cell for a launcher. The cell's config lies in the store; label is for people.

    force: forget what is there; retry: measure anew the evaluations that diverged.
    """

    cell_id: str
    label: str
    force: bool = False
    retry: bool = False


@dataclass(frozen=True)
class Site:
    """Where cells run: everything a worker needs to know, none of it part of an id."""

    store: str
    cache: str
    data: dict[str, str]  # data set -> where the user said it lies
    device: str
    threads: int
    workers: int
    backend: Literal["auto", "ffcv", "torch", "resident"]
    deadline: float | None = None
    boxes: dict[str, dict[str, str | None]] = field(default_factory=dict)  # detection data set -> {"path", "content"}
    ranks: int = 1  # processes that train one cell together

    def values(self) -> dict[str, Any]:
        return asdict(self)

    def data_path(self, name: str) -> Path | None:
        return Path(self.data[name]) if name in self.data else None


@dataclass(frozen=True)
class Ended:
    """status: done | diverged | failed | stopped | busy. failure: one of `benchmark.store.owner.FAILURES`, if it has a class.

    begun: whether anything was done about it in this run; one that is stopped before that needs no line of its own.
    """

    work: Work
    status: str
    note: str = ""
    failure: str | None = None
    begun: bool = True

    @classmethod
    def of(cls, site: Site, work: Work, status: str, note: str) -> Ended:
        """With the class that the cell's own process has written down; what the user can put right has none."""
        owner = read_owner(_claim(site, work))
        mine = status in ("failed", "diverged") and owner.get("note") == note
        return cls(work, status, note, failure_of(owner) if mine else None)


def held(site: Site, work: Work) -> bool:
    """Whether a living process has this cell in hand."""
    return alive(read_owner(_claim(site, work)))


def _claim(site: Site, work: Work) -> Path:
    return Path(site.store) / "cells" / work.cell_id / "owner.json"


@dataclass
class Limits:
    """When a run starts no more cells: near its deadline (seconds since the epoch), or after too many failures."""

    deadline: float | None = None
    max_failures: int | None = None
    failed: int = 0

    def count(self, end: Ended) -> Ended:
        self.failed += end.status == "failed"
        return end

    def reached(self) -> bool:
        return self.deadline is not None and time.time() >= self.deadline

    def why_none_at_all(self) -> str:
        """Why not even a first cell may be started; empty if it may."""
        if self.reached():
            return "the deadline was reached"
        if self.max_failures is not None and self.failed >= self.max_failures:
            return f"not started: {self.failed} cell{'s have' if self.failed > 1 else ' has'} failed (--max-failures)"
        return ""

    def why_no_more(self) -> str:
        """The same of a further cell: one that would be stopped in its first steps is not begun. A process's first is begun
        however short the time is, or a run with a short deadline would never get anywhere."""
        if self.deadline is not None and time.time() >= self.deadline - NEARLY_OVER:
            return "the deadline was reached"
        return self.why_none_at_all()


# (work, stage, progress values or None): called often, must be quick
Watch = Callable[[Work, str, dict[str, Any] | None], None]
