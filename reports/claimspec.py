"""The claims of a table file: statements of the paper that its rows can test, read strictly.

    claims:
      stop_gradient: {kind: not_collapsed, cell: w/ stop-grad, says: ...}
      batch: {kind: trend, cells: [...], direction: rises, says: ...}

A cell is a row's name, which means the first published column, or {row: ..., column: ...}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.document import Document
from reports.metrics import Metric, metric

# kind -> the keys that name its cells; then its other keys
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "collapse": (("cell",), ()),
    "not_collapsed": (("cell",), ()),
    "order": (("above", "below"), ()),
    "ordering": (("cells",), ()),
    "gap": (("above", "below"), ("margin",)),
    "within": (("cells",), ("margin",)),
    "trend": (("cells",), ("direction",)),
    "inverse_u": (("cells",), ()),
    "interaction": (("first", "second"), ()),
}
COLLAPSES = ("collapse", "not_collapsed")
DIRECTIONS = ("rises", "falls")
_FEWEST = {"ordering": 2, "within": 2, "trend": 3, "inverse_u": 3}


@dataclass(frozen=True)
class Point:
    """A cell of the table: a row's id and a column, '' for the first published one (or the first there is)."""

    row: str
    column: str = ""


@dataclass(frozen=True)
class ClaimSpec:
    """One claim. points: its cells, in the order its kind gives them a meaning: above, below; the order of a factor; A1, A0,
    B1, B0 of an interaction. metric: what it is judged on instead of the column's. points_apart: a gap the paper states in
    words, where it prints no two numbers. seen: the statement itself stands in the paper's text, whatever is known of the
    numbers of its cells."""

    id: str
    kind: str
    says: str
    points: tuple[Point, ...]
    metric: Metric | None = None
    margin: float = 0.0
    direction: str = ""
    points_apart: float | None = None
    seen: bool = False

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.row for point in self.points))


def read_claims(document: Document, rows: Sequence[str] | None, columns: Sequence[str]) -> tuple[ClaimSpec, ...]:
    """Every claim of the file. rows: the ids a claim may name, None where the join alone knows them."""
    raw = document.value.get("claims") or {}
    if not isinstance(raw, dict):
        raise InputError(f"{document.at('claims')}: expected names, each with keys and values")
    return tuple(_claim(document, str(name), found, rows, columns) for name, found in raw.items())


def _claim(document: Document, name: str, raw: Any, rows: Sequence[str] | None, columns: Sequence[str]) -> ClaimSpec:
    at = ("claims", name)
    if not isinstance(raw, dict):
        raise InputError(f"{document.at(*at)}: expected keys and values")
    kind = raw.get("kind")
    if kind not in KINDS:
        raise InputError(
            f"{document.at(*at, 'kind')}: unknown kind '{kind}'; allowed: {', '.join(KINDS)}{nearest(kind, KINDS)}"
        )
    cells, others = KINDS[kind]
    allowed = ("kind", "says", *cells, *others, "metric", "seen", *(("points",) if kind == "gap" else ()))
    for key in raw:
        if key not in allowed:
            raise InputError(f"{document.at(*at, key)}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}")
    for key in ("says", *cells, *others):
        if key not in raw:
            raise InputError(f"{document.at(*at)}: the key '{key}' is missing")
    if raw.get("direction", "rises") not in DIRECTIONS:
        hint = nearest(raw["direction"], DIRECTIONS)
        raise InputError(
            f"{document.at(*at, 'direction')}: expected {' or '.join(DIRECTIONS)}, found '{raw['direction']}'{hint}"
        )
    points: list[Point] = []
    for key in cells:
        found = raw[key]
        several = key in ("cells", "first", "second")
        if several != isinstance(found, list) or (several and len(found) < (2 if key != "cells" else _FEWEST[kind])):
            raise InputError(
                f"{document.at(*at, key)}: expected {'a list of cells' if several else 'one cell'}, found {found!r}"
            )
        points += [_point(document, (*at, key), each, rows, columns) for each in (found if several else [found])]
    if kind == "interaction" and len(points) != 4:
        raise InputError(f"{document.at(*at)}: an interaction has two cells in each of first and second")
    return ClaimSpec(
        id=name,
        kind=kind,
        says=" ".join(str(raw["says"]).split()),
        points=tuple(points),
        metric=metric(raw["metric"], document.at(*at, "metric")) if raw.get("metric") else None,
        margin=_number(document, (*at, "margin"), raw["margin"]) if "margin" in others else 0.0,
        direction=str(raw.get("direction", "")),
        points_apart=_number(document, (*at, "points"), raw["points"]) if raw.get("points") is not None else None,
        seen=_flag(document, (*at, "seen"), raw.get("seen", False)),
    )


def _point(document: Document, at: tuple[str, ...], raw: Any, rows: Sequence[str] | None, columns: Sequence[str]) -> Point:
    if isinstance(raw, dict):
        if not set(raw) <= {"row", "column"} or "row" not in raw:
            raise InputError(f"{document.at(*at)}: a cell is a row's name or {{row: ..., column: ...}}, found {raw!r}")
        point = Point(str(raw["row"]), str(raw.get("column", "")))
    else:
        point = Point(str(raw))
    if rows is not None and point.row not in rows:
        raise InputError(f"{document.at(*at)}: no row '{point.row}'; the rows are {', '.join(rows)}{nearest(point.row, rows)}")
    if point.column and point.column not in columns:
        hint = nearest(point.column, columns)
        raise InputError(f"{document.at(*at)}: no column '{point.column}'; the columns are {', '.join(columns)}{hint}")
    return point


def _number(document: Document, at: tuple[str, ...], value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{document.at(*at)}: expected a number, found {value!r}")
    return float(value)


def _flag(document: Document, at: tuple[str, ...], value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{document.at(*at)}: expected true or false, found {value!r}")
    return value
