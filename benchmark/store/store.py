"""The store: a folder per cell, read by planning, reporting and status, written by execution.

STORE/cells/<id>/config.json         what the cell is, and which evaluations have been asked of it
                 owner.json          who runs it (benchmark.store.owner)
                 log.txt metrics.jsonl checkpoint.pt
                 record.json         exists and parses iff pretraining is finished
                 evaluations/<evaluation id>.json; <evaluation id>.pt while it is interrupted; <evaluation id>-* its pictures
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.store.owner import alive, read_owner
from benchmark.store.record import read_json, read_record, storage_error, write_json

_RECORD = re.compile(r".*-[0-9a-f]{12}\.json")  # named after the id of its evaluation


@dataclass
class CellRecord:
    """Everything a reader can know about one cell. `problems`: sentences about files that could not be read."""

    id: str
    folder: Path
    record: dict[str, Any] | None = None
    evaluations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # protocol name -> records
    owner: dict[str, Any] | None = None
    has_checkpoint: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.owner is not None and alive(self.owner)

    @property
    def problem(self) -> str | None:
        return self.problems[0] if self.problems else None

    @property
    def evaluated(self) -> set[str]:
        """The ids of the finished evaluations, those that diverged among them."""
        return {record["id"] for records in self.evaluations.values() for record in records}

    @property
    def diverged(self) -> set[str]:
        """The ids of the evaluations whose own training diverged."""
        found = (record for records in self.evaluations.values() for record in records)
        return {record["id"] for record in found if record["status"] == "diverged"}


class Store:
    """Opens a store. `create=True` makes the folder and checks that it can be written."""

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = path
        self.cells_folder = path / "cells"
        if create:
            try:
                self.cells_folder.mkdir(parents=True, exist_ok=True)
                probe = self.cells_folder / f".probe.{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise storage_error(path, error) from error

    def folder(self, cell_id: str) -> Path:
        return self.cells_folder / cell_id

    def request(self, cell_id: str, config: dict[str, Any], protocols: tuple[dict[str, Any], ...]) -> None:
        """Write down what is to be done, adding to the evaluations asked for earlier (another sweep may want others)."""
        folder = self.folder(cell_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        path = folder / "config.json"
        wanted = list(protocols)
        if path.exists():
            with contextlib.suppress(InputError):  # an unreadable request is simply written anew
                wanted += [p for p in read_json(path).get("evaluate") or [] if p not in wanted]
        new = {"id": cell_id, "config": config, "evaluate": wanted}
        if not path.exists() or path.read_bytes().strip() == b"" or _differs(path, new):
            write_json(path, new)

    def cells(self) -> Iterator[CellRecord]:
        """Every cell in the store, by id."""
        if not self.cells_folder.is_dir():
            return
        with os.scandir(self.cells_folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for name in names:
            yield self.cell(name)

    def cell(self, cell_id: str) -> CellRecord:
        """What the folder of this cell holds; a cell that was never touched gives an empty answer."""
        folder = self.folder(cell_id)
        found = CellRecord(cell_id, folder)
        names = _names(folder)
        if "record.json" in names:
            found.record = self._read(found, folder / "record.json")
        if found.record is not None and found.record["id"] != cell_id:
            found.problems.append(f"{folder / 'record.json'}: is the record of {found.record['id']}, not of this folder")
            found.record = None
        beside = folder / "evaluations"
        for name in sorted(_names(beside)) if "evaluations" in names else ():
            if not _RECORD.fullmatch(name):
                continue  # what an evaluation left beside its record
            record = self._read(found, beside / name)
            if record is not None:
                found.evaluations.setdefault(record["stage"], []).append(record)
        found.owner = (read_owner(folder / "owner.json") or None) if "owner.json" in names else None
        found.has_checkpoint = "checkpoint.pt" in names
        return found

    @staticmethod
    def _read(found: CellRecord, path: Path) -> dict[str, Any] | None:
        try:
            return read_record(path)
        except InputError as error:
            if path.exists():  # not taken away since the folder was listed
                found.problems.append(str(error))
            return None


def _names(folder: Path) -> set[str]:
    """What lies in a folder; of thousands of cells one listing each is a good deal quicker than looking for every file."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _differs(path: Path, new: dict[str, Any]) -> bool:
    try:
        return read_json(path) != new
    except InputError:
        return True
