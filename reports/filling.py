"""Which training fills which cell of a table at one profile: by the sweep's `paper.tables` or the table file's own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.tables import ABSENT
from reports.claimspec import COLLAPSES
from reports.metrics import COLLAPSE
from reports.planned import Plan, PlannedRow, Profile
from reports.spec import ALL, BOUNDS, RowSpec, TableSpec


@dataclass(frozen=True)
class Filled:
    """A training of the sweep."""

    planned: PlannedRow


@dataclass(frozen=True)
class NotFilled:
    """Why no training fills a cell."""

    why: str


Filling = Filled | NotFilled


@dataclass(frozen=True)
class Layout:
    """The rows of a table at one profile, own ones last, and for each of its cells (row, id of its column) what fills it."""

    rows: tuple[RowSpec, ...]
    cells: tuple[tuple[RowSpec, str, Filling], ...]
    baseline: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The trainings of the table, each once."""
        return tuple(dict.fromkeys(filled.planned.key for _, filled in self.filled()))

    def filled(self) -> Iterator[tuple[RowSpec, Filled]]:
        return ((row, filling) for row, _, filling in self.cells if isinstance(filling, Filled))


def lay_out(spec: TableSpec, plan: Plan | None, profile: Profile | None) -> Layout:
    """Raises InputError, with the place in the table's file, for a row that the sweep does not have, or a selection that fits
    none or several of its rows."""
    published = [row for row in spec.rows if not row.own]
    fillings = {row.id: _of_row(spec, row, plan, profile) for row in spec.rows}
    own = [row for row in spec.rows if row.own]
    if plan is not None and profile is not None and spec.own in (BOUNDS, ALL):
        own, found = _own_rows(spec, profile, fillings)
        fillings |= found
    home = _home(fillings.values())
    rows = (*published, *(row for row in own if _at_home(fillings[row.id], home) or spec.own != BOUNDS))
    cells = []
    for row in rows:
        of_row = fillings[row.id]
        trainings = {filled.planned.key: filled for filled in of_row.values() if isinstance(filled, Filled)}
        for column in spec.columns:
            if row.own or column.id in row.references or column.id in of_row or column.derive:
                filling = of_row.get(column.id) or of_row.get("") or NotFilled("the sweep has no row for this column")
                cells.append((row, column.id, _here(filling, home, profile)))
        cells += [(row, name, _here(of_row[column], home, profile)) for name, column in _judged(spec, row) if column in of_row]
        for metric in spec.beside:
            if len(trainings) == 1:  # several trainings in one row: nothing can stand for the row
                cells.append((row, metric.id, _here(next(iter(trainings.values())), home, profile)))
    _check_claims(spec, rows)
    return Layout(tuple(rows), tuple(cells), _baseline(spec, rows, fillings))


def hidden(metric: str, column: str) -> str:
    """The id of a cell that no column shows: another metric of the training in this column, for a claim about it."""
    return f"{metric}@{column}"


def _judged(spec: TableSpec, row: RowSpec) -> list[tuple[str, str]]:
    """(id, column) of the hidden cells of a row whose columns are trainings of their own."""
    wanted = []
    for claim in spec.claims:
        metric = COLLAPSE if claim.kind in COLLAPSES else claim.metric
        wanted += [(hidden(metric.id, p.column), p.column) for p in claim.points if metric and p.row == row.id and p.column]
    return list(dict.fromkeys(wanted))


def _of_row(spec: TableSpec, row: RowSpec, plan: Plan | None, profile: Profile | None) -> dict[str, Filling]:
    """What fills each column of a row; '' holds for every column."""
    if plan is None or profile is None:
        return {"": NotFilled(spec.missing)}
    if row.select is not None:
        return {"": Filled(profile.rows[_selected(spec, row, profile)])}
    said = row.fill if row.fill is not None else plan.tables.get(spec.id, {}).get(row.id)
    if said is None:
        at = spec.at("own" if row.own else "rows", row.id)
        raise InputError(f"{at}: neither this file nor {spec.sweep} (paper.tables) says what fills the row '{row.id}'")
    return _read(spec, row, said, profile)


def _read(spec: TableSpec, row: RowSpec, said: Any, profile: Profile) -> dict[str, Filling]:
    if isinstance(said, Mapping):
        if ABSENT in said:
            return {"": NotFilled(str(said[ABSENT]))}
        return {str(column): _read(spec, row, each, profile)[""] for column, each in said.items()}
    if said not in profile.rows:
        at = spec.at("own" if row.own else "rows", row.id, "row")
        raise InputError(f"{at}: {spec.sweep} has no row '{said}'{nearest(str(said), profile.rows)}")
    return {"": Filled(profile.rows[str(said)])}


def _selected(spec: TableSpec, row: RowSpec, profile: Profile) -> str:
    """The one row of the sweep that the selection fits."""
    assert row.select is not None
    found = profile.select(row.select)
    if len(found) == 1:
        return found[0]
    at = spec.at("own" if row.own else "rows", row.id, "select")
    which = f"{len(found)} rows: {', '.join(found)}; add what tells them apart" if found else "no row; check keys and values"
    raise InputError(f"{at}: must fit exactly one row of {spec.sweep} at profile {profile.name}, but fits {which}")


def _own_rows(
    spec: TableSpec, profile: Profile, fillings: Mapping[str, dict[str, Filling]]
) -> tuple[list[RowSpec], dict[str, dict[str, Filling]]]:
    """The bounds (untrained and supervised networks that the table does not have itself), or all rows of the sweep."""
    used = {filled.planned.key for of_row in fillings.values() for filled in of_row.values() if isinstance(filled, Filled)}
    rows: list[RowSpec] = []
    found: dict[str, dict[str, Filling]] = {}
    for planned in profile.rows.values():
        if spec.own == BOUNDS and (planned.method not in ("random", "supervised") or planned.key in used):
            continue
        note = "not a row of the paper" if spec.published else ""
        name = planned.name if planned.name not in fillings else f"{planned.name} (ours)"
        rows.append(RowSpec(name, name, name, ("",) * len(spec.settings), {}, own=True, note=note))
        found[name] = {"": Filled(planned)}
    return rows, found


def _home(fillings: Any) -> str:
    """The data that the table is about: those of its first row. A profile may give other rows the data of their own paper."""
    for of_row in fillings:
        for filled in of_row.values():
            if isinstance(filled, Filled):
                return str(filled.planned.config["data"]["name"])
    return ""


def _at_home(of_row: Mapping[str, Filling], home: str) -> bool:
    return all(not isinstance(each, Filled) or each.planned.config["data"]["name"] == home for each in of_row.values())


def _here(filling: Filling, home: str, profile: Profile | None) -> Filling:
    if isinstance(filling, Filled) and profile is not None:
        name = filling.planned.config["data"]["name"]
        if name != home:
            return NotFilled(f"profile {profile.name} runs this row on {name}, the table is about {home}")
    return filling


def _baseline(spec: TableSpec, rows: tuple[RowSpec, ...], fillings: Mapping[str, dict[str, Filling]]) -> str:
    """The row of the untrained network, '' where there is none. Raises InputError where the file names another one."""
    names = [row.id for row in rows]
    if spec.baseline:
        if spec.baseline not in names:
            hint = nearest(spec.baseline, names)
            raise InputError(f"{spec.at('baseline')}: no row '{spec.baseline}'; the rows are {', '.join(names)}{hint}")
        return spec.baseline
    for name in names:
        found = [each.planned.method for each in fillings[name].values() if isinstance(each, Filled)]
        if "random" in found:
            return name
    return ""


def _check_claims(spec: TableSpec, rows: tuple[RowSpec, ...]) -> None:
    names = [row.id for row in rows]
    for claim in spec.claims:
        for point in claim.points:
            if point.row not in names:
                hint = nearest(point.row, names)
                raise InputError(f"{spec.at('claims', claim.id)}: no row '{point.row}'; the rows are {', '.join(names)}{hint}")
