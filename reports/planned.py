"""What a sweep would run: the rows a table refers to, how to recognise their records, and the command that makes them.

This is the only module here that touches `benchmark.plan.sweep`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.plan.sweep import Sweep, load_sweep
from reports.evidence import experiment_key


@dataclass(frozen=True)
class PlannedRow:
    """One row of a sweep at one profile. `key` finds its runs.

    protocols: its evaluations by stage, as they are now, the first where a sweep asks for one several times; without the
    content of detection data, which is not at hand here.
    """

    name: str
    key: str
    method: str
    version: int
    config: dict[str, Any]
    protocols: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    command: str


@dataclass(frozen=True)
class Profile:
    """One scale of a sweep. `command` runs all of it."""

    name: str
    about: str
    rows: dict[str, PlannedRow]
    command: str


@dataclass(frozen=True)
class Plan:
    """A sweep as a report needs it: its profiles in the file's order."""

    question: str
    rows: tuple[str, ...]
    profiles: dict[str, Profile]


def read_plan(root: Path, sweep: str, store: str = "") -> Plan:
    """Load a sweep named relative to the root of the project; `store` goes into its commands unless empty.

    Raises InputError as load_sweep does.
    """
    loaded = load_sweep(root / sweep)
    return Plan(
        question=loaded.question,
        rows=tuple(name for name, _ in loaded.rows),
        profiles={name: _profile(loaded, sweep, name, store) for name in loaded.profiles},
    )


def _profile(sweep: Sweep, path: str, name: str, store: str) -> Profile:
    base = f"python -m benchmark.run {shlex.quote(path)} --profile {name}" + (f" --store {shlex.quote(store)}" if store else "")
    rows = {}
    for row in sweep.expand(name):
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
    return Profile(name, sweep.about(name), rows, base)


def _by_stage(protocols: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for protocol in protocols:
        found.setdefault(str(protocol["name"]), {key: value for key, value in protocol.items() if key != "content"})
    return found
