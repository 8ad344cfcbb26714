"""What launchers pass around: the cells to bring to their end, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


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
    """status: done | diverged | failed | stopped | busy."""

    work: Work
    status: str
    note: str = ""


# (work, stage, progress values or None): called often, must be quick
Watch = Callable[[Work, str, dict[str, Any] | None], None]
