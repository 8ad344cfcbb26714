"""The finished runs a report rests on: records of a store and the committed ones, read once, never changed.

A file that cannot be read costs itself and nothing else: it is named in `problems` and the rest is used. This is the
only module here that touches `benchmark.store`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.plan.cell import group_key
from benchmark.store.record import storage_error, write_bytes, write_json
from benchmark.store.store import CellRecord, Store

LOG_LINES = 30
_LOG_BYTES = 16_384
_PICTURE_BYTES = 200_000


@dataclass(frozen=True, order=True)
class Data:
    """Which images a run saw. Two contents of one name (a re-encoded copy, say) are two different data sets."""

    name: str
    content: str
    note: str = field(default="", compare=False)

    @property
    def shown(self) -> str:
        return f"{self.name} ({self.note + ', ' if self.note else ''}content {self.content})"


@dataclass(frozen=True)
class Run:
    """One finished cell. `key` is what it shares with the other seeds of its row, under any VERSION of its method."""

    id: str
    key: str
    seed: int
    method: str
    version: int
    data: Data
    diverged: bool
    record: dict[str, Any]
    evaluations: dict[str, list[dict[str, Any]]]
    folder: Path = Path()

    @property
    def hardware(self) -> str:
        """The GPU it ran on, or the CPU."""
        hardware = (self.record.get("provenance") or {}).get("hardware") or {}
        return str(hardware.get("gpu") or hardware.get("cpu") or "")


@dataclass(frozen=True)
class Evidence:
    """All runs by key. problems: a sentence for every file that could not be read and every two records of one id that
    contradict each other; remarks: where a cell was run again elsewhere, with other numbers."""

    runs: dict[str, list[Run]]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    def all(self) -> Iterable[Run]:
        return (run for runs in self.runs.values() for run in runs)

    @cached_property
    def by_id(self) -> dict[str, Run]:
        return {run.id: run for run in self.all()}


def experiment_key(config: dict[str, Any]) -> str:
    """What the seeds of a row share (see benchmark.plan.cell.group_key), whatever VERSION of the method ran them."""
    return group_key({name: value for name, value in config.items() if name != "version"})


def read_evidence(folders: Iterable[Path]) -> Evidence:
    """Read every folder that exists; where two hold the same cell the earlier folder's record is used."""
    found: dict[str, Run] = {}
    problems: list[str] = []
    remarks: list[str] = []
    for folder in folders:
        for cell in Store(folder).cells():
            problems += cell.problems
            if cell.record is None:
                continue
            try:
                run = _run(cell, cell.record)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                path = cell.folder / "record.json"
                problems.append(f"{path}: not a record of a cell ({type(error).__name__}: {error}); it is left out")
                continue
            known = found.setdefault(run.id, run)
            if known is not run and (words := _disagreement(known, run)):
                again = _where(known) != _where(run)
                (remarks if again and _same_experiment(known, run) else problems).append(words)
    runs: dict[str, list[Run]] = {}
    for run in sorted(found.values(), key=lambda run: (run.seed, run.id)):
        runs.setdefault(run.key, []).append(run)
    return Evidence(runs, tuple(problems), tuple(remarks))


def _run(cell: CellRecord, record: dict[str, Any]) -> Run:
    config, data = record["config"], record["config"]["data"]
    return Run(
        id=cell.id,
        key=experiment_key(config),
        seed=int(config["seed"]),
        method=str(config["method"]),
        version=int(config["version"]),
        data=Data(str(data["name"]), str(data["content"]), str((record.get("data") or {}).get("note") or "")),
        diverged=record["status"] == "diverged",
        record=record,
        evaluations=cell.evaluations,
        folder=cell.folder,
    )


def _disagreement(used: Run, other: Run) -> str:
    """How two records of one cell differ, '' when they agree in what both have."""
    if not _same_experiment(used, other):
        return f"{other.folder}: has another config than {used.folder}, under the same id; one of them was changed by hand"
    mine, theirs = _numbers(used), _numbers(other)
    apart = next((name for name in mine if name in theirs and _apart(mine[name], theirs[name])), None)
    if apart is None:
        return ""
    mine_at, theirs_at = _where(used), _where(other)
    elsewhere = next((words for words in mine_at if mine_at[words] != theirs_at[words]), "")
    made = f" (it was made with {elsewhere})" if elsewhere else ""
    return f"{other.folder}: disagrees with {used.folder} about {apart}{made}; the latter is used"


def _apart(mine: Any, theirs: Any) -> bool:
    """Whether two answers differ by more than rounding; of metrics, in those that both have: a later version may measure
    more."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return any(_apart(mine[key], theirs[key]) for key in mine if key in theirs)
    if isinstance(mine, float) and isinstance(theirs, float):
        return not math.isclose(mine, theirs, rel_tol=1e-9)
    return bool(mine != theirs)


def _same_experiment(one: Run, other: Run) -> bool:
    return bool(one.record["config"] == other.record["config"])


def _where(run: Run) -> dict[str, Any]:
    """What the same cell may round otherwise for: the machine, the libraries, the commit."""
    provenance = run.record.get("provenance") or {}
    return {
        "other hardware": provenance.get("hardware"),
        "other versions of the libraries": provenance.get("versions"),
        "another commit": (provenance.get("git"), provenance.get("dirty")),
    }


def _numbers(run: Run) -> dict[str, Any]:
    """What two copies of one cell must agree on: the evaluations both have, and whether it diverged."""
    numbers = {record["id"]: record["metrics"] for records in run.evaluations.values() for record in records}
    return {"whether it diverged": run.diverged, **numbers}


def export(runs: Iterable[Run], target: Path) -> int:
    """Write runs as compact records in the layout of a store: no checkpoint, of the log its last lines, of the evaluations'
    pictures those that are small. Returns how many."""
    count = 0
    for run in runs:
        folder = target / "cells" / run.id
        try:
            (folder / "evaluations").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        for records in run.evaluations.values():
            for record in records:
                write_json(folder / "evaluations" / f"{record['id']}.json", record)
                for name in record.get("pictures") or []:
                    picture = run.folder / "evaluations" / Path(name).name
                    if picture.is_file() and picture.stat().st_size <= _PICTURE_BYTES:
                        write_bytes(folder / "evaluations" / picture.name, picture.read_bytes())
        if lines := log_tail(run):
            write_bytes(folder / "log.txt", "".join(f"{line}\n" for line in lines).encode())
        write_json(folder / "record.json", run.record)
        count += 1
    return count


def log_tail(run: Run, lines: int = LOG_LINES) -> list[str]:
    """The last lines of the run's log, without control characters; none where no log lies beside the record."""
    try:
        with (run.folder / "log.txt").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    found = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\x20-\x7e\u00a0-\uffff]", "", line) for line in text.splitlines()]
    return [line.rstrip() for line in found if line.strip()][-lines:]


def existing(store: Path, records: Path, explicit: bool) -> list[Path]:
    """The folders to read, the store first. Raises InputError when a store that was asked for by name is not there."""
    if explicit and not store.is_dir():
        raise InputError(f"{store}: no such store; name the folder that the runs were written to with --store")
    return [folder for folder in (store, records) if folder.is_dir()]
