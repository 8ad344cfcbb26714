"""The numbers of one run of the bench, and what they were measured with: a JSON object.

    {schema, quick, date, git, dirty, machine, versions, images, settings,
     results: [{bench, subject, unit, median, low, high, peer, ratio, goal, met, detail}],
     missing: [{bench, subject, why}]}

`ratio` says how many times better than its peer a subject is, in the same run: above 1 is better. A goal is a bound on the
ratio or, where there is no peer, on the median; `met` is null where there is no goal.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark.launch.machine import cores
from benchmark.store.provenance import code, cpu_name, versions
from benchmark.store.record import write_json

SCHEMA = 1
_PEERS = ("kornia", "lightly", "ffcv", "llvmlite", "faiss-cpu")


@dataclass(frozen=True)
class Goal:
    """At least so many times the peer (`ratio`), or at most so much of the unit (`most`)."""

    ratio: float | None = None
    most: float | None = None

    def text(self, unit: str) -> str:
        return f"at least {self.ratio:g}x" if self.ratio is not None else f"at most {self.most:g} {unit}"

    def met(self, median: float, ratio: float | None) -> bool | None:
        """Whether the goal is reached; None where what it bounds was not measured."""
        if self.ratio is not None:
            return None if ratio is None else ratio >= self.ratio
        return None if self.most is None else median <= self.most


@dataclass(frozen=True)
class Result:
    """One line of the record. low, high: of the repetitions. detail: what was measured or how, for people."""

    bench: str
    subject: str
    unit: str
    median: float
    low: float
    high: float
    peer: str | None = None
    ratio: float | None = None
    goal: str | None = None
    met: bool | None = None
    detail: str = ""


@dataclass(frozen=True)
class Missing:
    """What could not be measured, and why."""

    bench: str
    subject: str
    why: str


@dataclass
class Outcome:
    """What a bench hands back."""

    results: list[Result] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.results += other.results
        self.missing += other.missing


def measured(
    bench: str, subject: str, unit: str, values: Sequence[float], goal: Goal | None = None, detail: str = ""
) -> Result:
    """The result of repetitions that have no peer."""
    median = statistics.median(values)
    return Result(
        bench, subject, unit, median, min(values), max(values),
        goal=goal.text(unit) if goal else None, met=goal.met(median, None) if goal else None, detail=detail,
    )  # fmt: skip


def compared(
    bench: str, subject: str, unit: str, values: Sequence[float], peer: str, peers: Sequence[float],
    goal: Goal | None = None, detail: str = "",
) -> Result:  # fmt: skip
    """The result of repetitions beside a peer's, of a unit of which more is better; the ratio is that of the medians."""
    median = statistics.median(values)
    ratio = median / statistics.median(peers)
    return Result(
        bench, subject, unit, median, min(values), max(values), peer, ratio,
        goal.text(unit) if goal else None, goal.met(median, ratio) if goal else None, detail,
    )  # fmt: skip


def assemble(outcome: Outcome, images: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that has just ended."""
    return {
        "schema": SCHEMA,
        "quick": bool(settings["quick"]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **code(),
        "machine": {"cpu": cpu_name(), "cores": cores(), "memory_gib": _memory()},
        "versions": _versions(),
        "images": images,
        "settings": settings,
        "results": [asdict(result) for result in outcome.results],
        "missing": [asdict(missing) for missing in outcome.missing],
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record; InputError where the file cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _versions() -> dict[str, str]:
    found = versions()
    for name in _PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    from PIL import features

    found["libjpeg-turbo (Pillow)"] = str(features.version("libjpeg_turbo"))
    return dict(sorted(found.items()))


def _memory() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
