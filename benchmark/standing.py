"""Where a cell stands, told from its files alone, whoever brings it to its end and wherever.

planned      nothing has been done               interrupted  started, not finished, and nobody has it in hand
stale        done under another VERSION          partly       trained; evaluations are missing
submitted    in SLURM's queue, never started     failed       its own code or memory; see the class and the log
requeued     in SLURM's queue, started before    diverged     its numbers were not finite
running      somebody has it in hand             done
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.launch.jobs import SUBMITTED, log_of
from benchmark.plan.cost import words
from benchmark.plan.plan import Action, Known
from benchmark.store.log import last_lines
from benchmark.store.owner import failure_of
from benchmark.store.record import divergence, read_json
from benchmark.store.store import CellRecord, Store

STATES = (
    "running", "failed", "diverged", "interrupted", "requeued", "submitted", "partly", "stale", "planned", "done",
)  # fmt: skip
OVER = ("done", "failed", "diverged")  # whoever waits for such a cell waits in vain
LOG_LINES = 5
_SETTLED = 600.0  # seconds without a change after which what the plan has just read is believed
_UNSURE = 2.0  # seconds: a file changed so lately may change once more without its time of change telling


@dataclass(frozen=True)
class Standing:
    """One line of the table. share: of `stage`, 0..1; left: seconds that the stage still takes; knn: top-1 in percent;
    measured: the ids of its evaluations that have a record."""

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
    trained: bool = False
    measured: frozenset[str] = frozenset()

    @property
    def progress(self) -> str:
        """`train 45%`, `linear, 2 of 3 8%`, `knn`, or nothing."""
        share = f"{self.share:.0%}" if self.share is not None else ""
        return " ".join(filter(None, [self.stage, share]))

    @property
    def worth_words(self) -> bool:
        """Whether the reader will want to know why it stands so."""
        return self.state not in ("running", "submitted") and bool(self.failure or self.note)


@dataclass(frozen=True)
class Look:
    """What a cell's folder holds. logged: the newest line of its training's curve; job: of SLURM, that has it to do or had."""

    found: CellRecord
    marks: tuple[int, ...] = ()
    logged: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    claimed: bool = False  # there is a claim, be it torn

    @property
    def owner(self) -> dict[str, Any]:
        return self.found.owner or {}


def standing(action: Action, look: Look, queued: str | None = None, before: int | None = None) -> Standing:
    """queued: a few words about its job in SLURM's queue; before: the VERSION of its method under which it was done."""
    found, owner = look.found, look.owner
    state = _state(action, look, queued, before)
    progress = (owner.get("progress") or {}) if state in ("running", "interrupted", "requeued") else {}
    stage, share, left = _stage(progress, owner, state)
    if state == "partly":
        stage = f"{len(_measured(action, found))} of {len(action.cell.evaluations)} measured"
    failure, note = _trouble(action, look, state)
    if state == "stale":
        note = f"{action.cell.config['method']} VERSION {before} -> {action.cell.config['version']}"
    if queued and state in ("submitted", "requeued"):
        note = "; ".join(filter(None, [note, queued]))
    return Standing(
        action.cell.id,
        action.rows,
        action.cell.seed,
        state,
        stage,
        share,
        left,
        _loss(look, progress),
        _knn(action, look),
        max(0, int(owner.get("token", 1)) - 1),
        str(owner.get("host", "")).partition(".")[0],
        failure,
        note,
        found.folder / "log.txt" if look.claimed else None,
        found.record is not None,
        frozenset(_measured(action, found)),
    )


def _state(action: Action, look: Look, queued: str | None, before: int | None) -> str:
    found, owner = look.found, look.owner
    if found.running:
        return "running"
    if found.record is not None and found.record["status"] == "diverged":
        return "diverged"
    if found.record is not None and len(_measured(action, found)) == len(action.cell.evaluations):
        return "done"
    if queued:
        return "requeued" if look.claimed else "submitted"
    if owner.get("released") == "failed":
        return "failed"
    if found.record is not None:
        return "partly"
    if look.claimed or found.has_checkpoint:
        return "interrupted"
    return "stale" if before is not None else "planned"


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


def _loss(look: Look, progress: Mapping[str, Any]) -> float | None:
    """Of the training: its end, else the newest that was logged, else what the holder last said."""
    if look.found.record is not None:
        return _number((look.found.record["metrics"] or {}).get("loss"))
    return _number(look.logged.get("loss", progress.get("loss")))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _knn(action: Action, look: Look) -> float | None:
    """Of the first kNN protocol that was asked for and has been measured; before that what the training logged, if it did."""
    records = {record["id"]: record for records in look.found.evaluations.values() for record in records}
    asked = (evaluation for evaluation in action.cell.evaluations if str(evaluation.protocol["name"]).startswith("knn"))
    measured = (records[evaluation.id]["metrics"] or {} for evaluation in asked if evaluation.id in records)
    return next((_number(metrics["top1"]) for metrics in measured if "top1" in metrics), _number(look.logged.get("knn")))


def _trouble(action: Action, look: Look, state: str) -> tuple[str | None, str]:
    """(class of failure, words) of what keeps a cell from being done, or of an evaluation of a done one."""
    found, owner = look.found, look.owner
    if state == "running":
        return None, ""
    if state == "diverged":
        assert found.record is not None
        return "diverged", divergence(found.record)
    if state == "done":
        diverged = [str(one.protocol["name"]) for one in action.cell.evaluations if one.id in found.diverged]
        return ("diverged", f"{', '.join(diverged)} diverged") if diverged else (None, "")
    if owner and not owner.get("released"):
        if owner["host"] != socket.gethostname():
            return "node", f"no heartbeat from {owner['host']} for {words(time.time() - owner['heartbeat'])}"
        return None, "its process is gone without a word"
    if owner.get("released") == "done":  # other evaluations have been asked for since
        return None, ""
    note = owner.get("note") or ("its claim cannot be read" if look.claimed and not owner else "")
    return failure_of(owner), str(note or (look.job.get("note") if "ended" in look.job else "") or "")


def evidence(one: Standing, store: Store) -> list[str]:
    """The last lines of the cell's log; where SLURM ended its job, those of the job's standard error too."""
    lines = last_lines(one.log, LOG_LINES) if one.log else []
    job = _json(store.folder(one.cell_id) / SUBMITTED).get("job")
    more = last_lines(log_of(store, job), LOG_LINES) if isinstance(job, str) else []
    return lines + [line for line in more if line not in lines]


class Readings:
    """The cells of a store, read again only where something has changed: looking costs two stats a cell, and four of one that
    runs. What the plan has read is taken over where it has long been still."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._looks: dict[str, Look] = {}

    def look(self, cell_id: str) -> Look:
        folder = self._known.store.folder(cell_id)
        before = self._looks.get(cell_id)
        marks = _marks(folder, before is None or before.found.running)
        if before is None and (known := self._known.cells.get(cell_id)) and not known.running and _still(marks, _SETTLED):
            before = self._looks[cell_id] = _look(known, marks)
        if before is None or before.marks[: len(marks)] != marks[: len(before.marks)] or not _still(marks, _UNSURE):
            before = self._looks[cell_id] = _look(self._known.store.cell(cell_id), marks)
        return before

    def standings(self, actions: Iterable[Action], queued: Mapping[str, str]) -> list[Standing]:
        found = []
        for action in actions:
            look = self.look(action.cell.id)
            untouched = not (look.claimed or look.found.record or look.found.has_checkpoint)
            before = self._known.version_before(action.cell) if untouched else None
            found.append(standing(action, look, queued.get(action.cell.id), before))
        return found


def _look(found: CellRecord, marks: tuple[int, ...]) -> Look:
    job, claimed = {}, found.owner is not None
    logged: dict[str, Any] = {}
    if marks[0] and found.record is None:  # of one that is trained nothing more is to be known
        job = _json(found.folder / SUBMITTED)
        claimed = claimed or (found.folder / "owner.json").exists()
        for line in reversed(last_lines(found.folder / "metrics.jsonl", 2)):  # the last may still be in the making
            logged = _parsed(line)
            if logged:
                break
    return Look(found, marks, logged, job, claimed)


def _marks(folder: Path, moving: bool) -> tuple[int, ...]:
    """When the folder was last changed: every file but the curve is replaced as a whole, which its folder's time tells."""
    names = ("", "evaluations", "owner.json", "metrics.jsonl") if moving else ("", "evaluations")
    found = []
    for name in names:
        try:
            found.append((folder / name).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


def _still(marks: Iterable[int], seconds: float) -> bool:
    return time.time() - max(marks) / 1e9 > seconds


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError:
        return {}


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
