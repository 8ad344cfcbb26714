"""What a sweep would run: the rows a table refers to, how to recognise their records, and the command that makes them.

This is the only module here that touches `benchmark.plan.sweep`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.plan.sweep import Row, Sweep, load_sweep
from reports.evidence import experiment_key


@dataclass(frozen=True)
class PlannedRow:
    """One row of a sweep at one profile. `key` finds its runs.

    protocols: its evaluations by stage, as they are now, the first where a sweep asks for one several times; without the
    content of detection data, which is not at hand here. again: runs its seeds anew, whatever is recorded.
    """

    name: str
    key: str
    method: str
    version: int
    config: dict[str, Any]
    protocols: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    command: str

    @property
    def again(self) -> str:
        return f"{self.command} --mode force"


@dataclass(frozen=True)
class Profile:
    """One scale of a sweep. `command` runs all of it. cells: its rows as the sweep expands them."""

    name: str
    about: str
    rows: dict[str, PlannedRow]
    command: str
    cells: tuple[Row, ...]

    def select(self, wanted: Mapping[str, Any]) -> list[str]:
        """The rows whose config has these values; `encoder.name: resnet50` looks inside. Alike rows count once."""
        groups: dict[str, str] = {}
        for row in self.rows.values():
            if all(value_at(row.config, key) == value for key, value in wanted.items()):
                groups.setdefault(row.key, row.name)
        return list(groups.values())


@dataclass(frozen=True)
class Plan:
    """A sweep as a report needs it: its rows, its profiles in the file's order, and which published rows its rows fill."""

    path: str
    sweep: Sweep
    store: str = ""

    @property
    def question(self) -> str:
        return self.sweep.question

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.sweep.rows)

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        return self.sweep.tables

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        return {name: _profile(self.sweep, self.path, name, self.store) for name in self.sweep.profiles}


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def read_plan(root: Path, sweep: str, store: str = "") -> Plan:
    """Load a sweep named relative to the root of the project; `store` goes into its commands unless empty.

    Raises InputError as load_sweep does.
    """
    plan = Plan(sweep, load_sweep(root / sweep), store)
    if not plan.profiles:
        raise InputError(f"{root / sweep}: no profile is given")
    return plan


def _profile(sweep: Sweep, path: str, name: str, store: str) -> Profile:
    base = f"python -m benchmark.run {shlex.quote(path)} --profile {name}" + (f" --store {shlex.quote(store)}" if store else "")
    rows = {}
    cells = sweep.expand(name)
    for row in cells:
        config = row.cells[0].config
        rows[row.name] = PlannedRow(
            name=row.name,
            key=experiment_key(config),
            method=str(config["method"]),
            version=int(config["version"]),
            config=config,
            protocols=_by_stage(row.cells[0].protocols),
            seeds=tuple(cell.seed for cell in row.cells),
            command=f"{base} --only {shlex.quote('row=' + row.name)}",
        )
    return Profile(name, sweep.about(name), rows, base, tuple(cells))


def _by_stage(protocols: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for protocol in protocols:
        found.setdefault(str(protocol["name"]), {key: value for key, value in protocol.items() if key != "content"})
    return found
