"""Several sweeps at once: the cells that they share, and what each would cost alone. Also which other sweeps want a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError
from benchmark.plan.plan import Action, unique_cells
from benchmark.plan.sweep import DataIdentity, Row, Sweep, load_sweep


def sweeps_of(folder: Path, profile: str) -> tuple[list[Sweep], list[str]]:
    """Every sweep of a folder that has the profile, checked at that profile; and the files of those that do not have it."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InputError(f"{folder}: no sweeps there; expected a folder with .yaml files, such as sweeps/")
    every = [load_sweep(path, profile) for path in paths]
    found = [sweep for sweep in every if profile in sweep.profiles]
    if not found:
        known = dict.fromkeys(name for sweep in every for name in sweep.profiles)
        raise InputError(f"{folder}: none of its sweeps has a profile '{profile}'; they have {', '.join(known)}")
    return found, [sweep.path.name for sweep in every if profile not in sweep.profiles]


def labelled(sweep: Sweep, rows: Iterable[Row]) -> list[Row]:
    """The rows under names that tell them from another sweep's: `simclr_loss: NT-Xent`."""
    return [Row(f"{sweep.path.stem}: {row.name}", row.cells) for row in rows]


@dataclass(frozen=True)
class Alone:
    """What one sweep would take if it were the only one. whys: how many of its cells for which reason."""

    file: str
    rows: int
    cells: int
    works: int
    seconds: float
    guessed: int  # of the cells with work left
    whys: Counter[str]


def alone(file: str, actions: Iterable[Action]) -> Alone:
    """actions: of the cells that are meant."""
    actions = list(actions)
    work = [action for action in actions if action.works]
    return Alone(
        file=file,
        rows=len({name for action in actions for name in action.rows}),
        cells=len(actions),
        works=len(work),
        seconds=sum(action.seconds for action in work),
        guessed=sum(not action.measured for action in work),
        whys=Counter(_short(action) for action in actions),
    )


def _short(action: Action) -> str:
    """The beginning of a why, that many cells have in common: `failed: oom`, `stale: byol VERSION 3 -> 4`, `trained`."""
    begin = action.why.partition(" (")[0].partition("; ")[0]
    if action.do == "leave":
        return "running"
    if action.do == "submitted":
        return "in SLURM's queue"
    kind, _, rest = begin.partition(": ")
    return begin if kind == "stale" else f"{kind}: {rest.partition(':')[0]}" if kind == "failed" else kind


def wanted_elsewhere(
    sweep: Sweep,
    profile: str,
    cells: Iterable[str],
    data: Mapping[str, DataIdentity] | None = None,
    boxes: Mapping[str, str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Cell id -> the other sweep files of its folder that have the cell at this profile.

    One that cannot be read, or does not have the profile, wants nothing: its own plan says what is wrong with it.
    """
    asked, found = set(cells), dict[str, list[str]]()
    for path in sorted(sweep.path.parent.glob("*.yaml")):
        if path.resolve() == sweep.path.resolve():
            continue
        try:
            rows = load_sweep(path, profile).expand(profile, data, boxes=boxes)
        except InputError:
            continue
        for cell_id in {cell.id for row in rows for cell in row.cells} & asked:
            found.setdefault(cell_id, []).append(path.name)
    return {cell_id: tuple(names) for cell_id, names in found.items()}


def together(sweeps: Sequence[tuple[Sweep, list[Row]]]) -> tuple[list[Row], dict[str, tuple[str, ...]]]:
    """The rows of all sweeps, labelled; and of each cell that several of them have, their files."""
    files: dict[str, list[str]] = {}
    for sweep, rows in sweeps:
        for cell, _ in unique_cells(rows):
            files.setdefault(cell.id, []).append(sweep.path.name)
    rows = [row for sweep, its in sweeps for row in labelled(sweep, its)]
    return rows, {cell_id: tuple(names) for cell_id, names in files.items() if len(names) > 1}


@dataclass(frozen=True)
class Saved:
    """What running each shared cell once saves: cells with work left, and seconds of device time."""

    cells: int
    seconds: float


def saved(each: Iterable[Alone], actions: Iterable[Action]) -> Saved:
    each, work = list(each), [action for action in actions if action.works]
    cells = sum(one.works for one in each) - len(work)
    return Saved(cells, sum(one.seconds for one in each) - sum(action.seconds for action in work))
