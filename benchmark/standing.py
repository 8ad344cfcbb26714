"""Where a cell stands, told from its files alone, whoever brings it to its end and wherever.

planned      nothing has been done               interrupted  started, not finished, and nobody has it in hand
stale        done under another VERSION          partly       trained; evaluations are missing
submitted    in SLURM's queue, never started     failed       its own code or memory; see the class and the log
requeued     in SLURM's queue, started before    diverged     its numbers were not finite
running      somebody has it in hand             done
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.plan.plan import Action
from benchmark.store.owner import failure_of
from benchmark.store.record import divergence
from benchmark.store.store import CellRecord, Store

STATES = (
    "running", "failed", "diverged", "interrupted", "requeued", "submitted", "partly", "stale", "planned", "done",
)  # fmt: skip
OVER = ("done", "failed", "diverged")  # whoever waits for such a cell waits in vain
_TAIL = 4096  # bytes at the end of a file that are looked at
LOG_LINES = 4


@dataclass(frozen=True)
class Standing:
    """One line of the table. share: of `stage`, 0..1; left: seconds that the stage still takes; knn: top-1 in percent."""

    cell_id: str
    rows: tuple[str, ...]
    seed: int
    state: str
    stage: str = ""
    share: float | None = None
    left: float | None = None
    loss: float | None = None
    knn: float | None = None
    restarts: int = 0
    host: str = ""
    failure: str | None = None
    note: str = ""
    log: Path | None = None

    @property
    def progress(self) -> str:
        """`train 45 %`, `knn`, or nothing."""
        share = f"{self.share:.0%}".replace("%", " %") if self.share is not None else ""
        return " ".join(filter(None, [self.stage, share]))

    @property
    def troubled(self) -> bool:
        """Whether the reader will want to know why it stands so."""
        return self.state in ("failed", "diverged") or (self.failure is not None and self.state not in ("running", "done"))


def standing(action: Action, found: CellRecord, queued: str | None = None) -> Standing:
    """found: what the cell's folder holds; queued: a few words about its job in SLURM's queue."""
    owner = found.owner or {}
    state = _state(action, found, queued)
    progress = (owner.get("progress") or {}) if state in ("running", "interrupted", "requeued") else {}
    stage, share, left = _stage(progress, owner, state)
    if state == "partly":
        stage = f"{len(_measured(action, found))} of {len(action.cell.evaluations)} measured"
    return Standing(
        action.cell.id,
        action.rows,
        action.cell.seed,
        state,
        stage,
        share,
        left,
        _loss(found, progress),
        _knn(action, found),
        max(0, int(owner.get("token", 1)) - 1),
        str(owner.get("host", "")).partition(".")[0],
        "diverged" if state == "diverged" else failure_of(owner) if state not in ("running", "done") else None,
        _note(action, found, owner, state, queued),
        found.folder / "log.txt" if owner else None,
    )


def _state(action: Action, found: CellRecord, queued: str | None) -> str:
    owner = found.owner or {}
    if found.running:
        return "running"
    if found.record is not None and found.record["status"] == "diverged":
        return "diverged"
    if found.record is not None and len(_measured(action, found)) == len(action.cell.evaluations):
        return "done"
    if queued:
        return "requeued" if owner else "submitted"
    if owner.get("released") == "failed":
        return "failed"
    if found.record is not None:
        return "partly"
    if owner or found.has_checkpoint:
        return "interrupted"
    return "stale" if action.why.startswith("stale") else "planned"


def _measured(action: Action, found: CellRecord) -> set[str]:
    return {evaluation.id for evaluation in action.cell.evaluations} & found.evaluated


def _stage(progress: dict[str, Any], owner: dict[str, Any], state: str) -> tuple[str, float | None, float | None]:
    """(what it is at, how much of it is done, seconds left). A clock ahead of ours makes no time that is left longer."""
    stage, total = str(progress.get("stage", "")), progress.get("total")
    if not isinstance(total, int) or not total:
        return stage, None, None
    left = progress.get("eta_seconds")
    if state != "running" or left is None:
        return stage, progress["step"] / total, None
    return stage, progress["step"] / total, max(0.0, left - max(0.0, time.time() - owner["heartbeat"]))


def _loss(found: CellRecord, progress: dict[str, Any]) -> float | None:
    """Of the training: its end, else the newest that was logged, else what the holder last said."""
    if found.record is not None:
        return _number((found.record["metrics"] or {}).get("loss"))
    if not found.owner:
        return None
    logged = last_lines(found.folder / "metrics.jsonl", 1)
    try:
        return _number(json.loads(logged[0]).get("loss")) if logged else _number(progress.get("loss"))
    except (ValueError, AttributeError):  # the line is being written
        return _number(progress.get("loss"))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _knn(action: Action, found: CellRecord) -> float | None:
    """Of the first kNN protocol that was asked for and has been measured."""
    records = {record["id"]: record for records in found.evaluations.values() for record in records}
    asked = (evaluation for evaluation in action.cell.evaluations if str(evaluation.protocol["name"]).startswith("knn"))
    measured = (records[evaluation.id]["metrics"] or {} for evaluation in asked if evaluation.id in records)
    return next((_number(metrics["top1"]) for metrics in measured if "top1" in metrics), None)


def _note(action: Action, found: CellRecord, owner: dict[str, Any], state: str, queued: str | None) -> str:
    if state == "diverged":
        assert found.record is not None
        return divergence(found.record)
    if state in ("submitted", "requeued"):
        return queued or ""
    if state == "done":
        diverged = [one.protocol["name"] for one in action.cell.evaluations if one.id in found.diverged]
        return f"{', '.join(map(str, diverged))} diverged" if diverged else ""
    if state == "stale":
        return action.why
    if state in ("failed", "interrupted", "partly"):
        lost = "its process is gone without a word" if state == "interrupted" and owner and not owner.get("released") else ""
        return str(owner.get("note") or lost)
    return ""


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file that say something; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


def evidence(one: Standing, store: Store) -> list[str]:
    """The last lines of the cell's log; where SLURM ended its job, those of the job's standard error too."""
    from benchmark.launch.jobs import SUBMITTED, log_of
    from benchmark.store.record import read_json

    lines = last_lines(one.log, LOG_LINES) if one.log else []
    try:
        job = read_json(store.folder(one.cell_id) / SUBMITTED).get("job")
    except InputError:
        return lines
    return lines + [line for line in last_lines(log_of(store, str(job)), LOG_LINES) if line not in lines]


class Readings:
    """The cells of a store, read again only where a file of theirs has changed: looking costs a few stats a cell."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, tuple[tuple[int, ...], CellRecord]] = {}

    def cell(self, cell_id: str) -> CellRecord:
        marks = tuple(_changed(self._store.folder(cell_id) / name) for name in _FILES)
        known = self._read.get(cell_id)
        if known is None or known[0] != marks:
            known = self._read[cell_id] = marks, self._store.cell(cell_id)
        return known[1]

    def standings(self, actions: Iterable[Action], queued: dict[str, str]) -> list[Standing]:
        return [standing(action, self.cell(action.cell.id), queued.get(action.cell.id)) for action in actions]


_FILES = ("owner.json", "record.json", "evaluations", "checkpoint.pt")


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
