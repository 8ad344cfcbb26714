"""A table laid out in two dimensions of text, for the formats that are one: Markdown, LaTeX, the terminal.

With one published column: row | settings | paper | document | ours | what was measured beside it | n | verdict. With
several, each published column is two, paper and ours, the verdict a mark behind ours (`reports.captions.OUTCOMES`).
"""

from __future__ import annotations

from dataclasses import dataclass

from reports import captions
from reports.table import Column, Entry, Row, Table


@dataclass(frozen=True)
class Heading:
    """A column of text. group: the published column that it is half of, '' otherwise."""

    text: str
    numeric: bool = True
    group: str = ""


@dataclass(frozen=True)
class Grid:
    headings: tuple[Heading, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def groups(self) -> bool:
        return any(heading.group for heading in self.headings)


def grid(table: Table) -> Grid:
    """The whole table as text; nothing is escaped."""
    return _single(table) if table.single else _several(table)


def _single(table: Table) -> Grid:
    published = [i for i, column in enumerate(table.columns) if column.kind == "published"]
    documented = any(entry.reference and entry.reference.document for row in table.rows for entry in row.cells)
    measured = [i for i, column in enumerate(table.columns) if i not in published]
    headings = [Heading("row", False), *(Heading(name, False) for name in table.settings)]
    headings += [Heading("paper") for _ in published] + ([Heading("document")] if documented else [])
    headings += [Heading(_ours(table.columns[i], published)) for i in (*published, *measured)]
    headings += [Heading("n")] + ([Heading("verdict", False)] if published else [])
    rows = []
    for row in table.rows:
        first = row.entries[published[0]] if published else None
        main = first or row.main
        cells = [row.label, *row.settings, *([first.paper if first else ""] if published else [])]
        if documented:
            cells.append(first.reference.document if first and first.reference else "")
        cells += [_shown(row, i) for i in (*published, *measured)]
        cells.append(main.seeds if main and main.training else "")
        rows.append((*cells, *([first.outcome if first else ""] if published else [])))
    return Grid(tuple(headings), tuple(rows))


def _several(table: Table) -> Grid:
    headings = [Heading("row", False), *(Heading(name, False) for name in table.settings)]
    for column in table.columns:
        if column.kind == "published":
            headings += [
                Heading("paper", group=_better(column.header, column)),
                Heading("ours", group=_better(column.header, column)),
            ]
        else:
            headings.append(Heading(_better(column.header, column)))
    headings.append(Heading("n"))
    rows = []
    for row in table.rows:
        cells = [row.label, *row.settings]
        for i, column in enumerate(table.columns):
            entry = row.entries[i]
            if column.kind == "published":
                cells += [entry.paper if entry else "", _marked(entry) if entry else ""]
            else:
                cells.append(_shown(row, i))
        rows.append((*cells, _seeds(row)))
    return Grid(tuple(headings), tuple(rows))


def _ours(column: Column, published: list[int]) -> str:
    """Of the published column our measure, whose name may be another one than the paper's."""
    text = column.header
    if column.kind == "published" and column.metric is not None:
        unit = column.metric.unit
        text = f"{column.metric.label} {unit}".strip() if unit != "AP" else column.metric.label
    return _better(text, column)


def _better(text: str, column: Column) -> str:
    """With an arrow to the better end."""
    return f"{text} {column.metric.arrow}".strip() if column.metric else text


def _shown(row: Row, place: int) -> str:
    entry = row.entries[place]
    return entry.display if entry else ""


def _marked(entry: Entry) -> str:
    mark = captions.outcome_mark(entry)
    return f"{entry.display} {mark}" if mark else entry.display


def _seeds(row: Row) -> str:
    """How many seeds each number of the row has: one figure, or from fewest to most."""
    found = [entry for entry in row.cells if entry.training]
    counts = sorted({entry.seeds for entry in found}, key=lambda text: (len(text), text))
    return counts[0] if len(counts) == 1 else (f"{counts[0]} to {counts[-1]}" if counts else "")
