"""What of the published numbers can be filled here, what has been run, and why the rest cannot: every table of the registry.

Pure: from a report's tables alone. The front page and README show it, so that nothing is silently absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from reports.assemble import Report
from reports.render_markdown import escape, grid
from reports.table import Entry, Table
from reports.verdict import Kind

# the nearest to a decision first; where two scales decide otherwise, it is the one that differs that must not be overlooked
_RANK: tuple[str, ...] = ("differs", "reproduced", "undecided", "not comparable", "not run")
assert set(_RANK) == set(get_args(Kind))
UNREAD = "its file in reports/tables could not be read"
LEFT_OUT = "it was not asked for, or its sweep could not be read"
NOT_ASKED = "it was not asked for"


@dataclass(frozen=True)
class Covered:
    """One published table. cells: the numbers the paper prints (or should), rows: the lines they stand in. filled: rows of
    which some number has a training in the sweep; run: rows measured at each profile that the sweep has. verdicts: each
    cell once, at its best scale. why: the reasons, each with the number of cells that it keeps empty."""

    id: str
    table: Table | None
    cells: int
    rows: int = 0
    filled: int = 0
    run: Mapping[str, int] | None = None
    verdicts: Mapping[str, int] | None = None
    why: tuple[tuple[str, int], ...] = ()

    @property
    def any_run(self) -> bool:
        return any((self.run or {}).values())

    @property
    def reasons(self) -> str:
        """All reasons in one line; how many cells each is about where it is not all of them."""
        return "; ".join(text if count >= self.cells else f"{text} ({_cells(count)})" for text, count in self.why)


@dataclass(frozen=True)
class Coverage:
    """profiles: every scale at which any published table has a sweep, smallest first as the sweeps list them."""

    profiles: tuple[str, ...]
    lines: tuple[Covered, ...]

    @property
    def total(self) -> Covered:
        """All lines together; as rows run at each profile the sums."""
        run: Counter[str] = Counter()
        verdicts: Counter[str] = Counter()
        for line in self.lines:
            run.update(line.run or {})
            verdicts.update(line.verdicts or {})
        cells, rows, filled = (sum(getattr(line, name) for line in self.lines) for name in ("cells", "rows", "filled"))
        return Covered("", None, cells, rows, filled, run, {kind: verdicts[kind] for kind in _RANK if verdicts[kind]})


def coverage(report: Report, registry: Mapping[str, int] | None = None) -> Coverage:
    """A line for each published table, in the report's order. registry: how many cells each table of the registry has; those
    that the report does not have come last."""
    tables: dict[str, list[Table]] = {}
    for table in report.every:
        if table.published:
            tables.setdefault(table.id, []).append(table)
    lines = [_line(found) for found in tables.values()]
    absent = [(name, cells) for name, cells in (registry or {}).items() if name not in tables]
    lines += [Covered(name, None, cells, why=((_why_absent(name, report.problems), cells),)) for name, cells in absent]
    profiles = dict.fromkeys(table.profile for found in tables.values() for table in found if table.profile)
    return Coverage(_in_order(list(profiles), list(tables.values())), tuple(lines))


def _why_absent(table: str, problems: Sequence[str]) -> str:
    """Why the report has nothing of a table of the registry."""
    if any(f"/{table}.yaml" in problem for problem in problems):
        return UNREAD
    return LEFT_OUT if problems else NOT_ASKED


def _in_order(profiles: list[str], groups: Sequence[Sequence[Table]]) -> tuple[str, ...]:
    """By how far down they stand in the sweeps' own lists, on average."""
    places: dict[str, list[int]] = {profile: [] for profile in profiles}
    for group in groups:
        for i, profile in enumerate(dict.fromkeys(table.profile for table in group if table.profile)):
            places[profile].append(i)
    return tuple(sorted(profiles, key=lambda profile: sum(places[profile]) / len(places[profile])))


def _line(tables: Sequence[Table]) -> Covered:
    """One published table from all its profiles and data sets."""
    best: dict[tuple[str, str], str] = {}
    reasons: dict[tuple[str, str], str] = {}
    filled: set[str] = set()
    run: dict[str, set[str]] = {table.profile: set() for table in tables if table.profile}
    for table in tables:
        for row in table.rows:
            for column, entry in table.pairs(row):
                if entry is None or entry.reference is None:
                    continue
                at = (row.id, column.id)
                kind = entry.verdict.kind if entry.verdict else "not run"
                best[at] = min(best.get(at, kind), kind, key=_RANK.index)
                if entry.training:
                    filled.add(row.id)
                    reasons[at] = ""
                else:
                    reasons.setdefault(at, _why(entry))
                if entry.n:
                    run[table.profile].add(row.id)
    counted = Counter(best.values())
    why = Counter(text for text in reasons.values() if text)
    return Covered(
        id=tables[0].id,
        table=tables[0],
        cells=len(best),
        rows=len({row for row, _ in best}),
        filled=len(filled),
        run={profile: len(rows) for profile, rows in run.items()},
        verdicts={kind: counted[kind] for kind in _RANK if counted[kind]},
        why=tuple(why.most_common()),
    )


def _why(entry: Entry) -> str:
    return entry.verdict.sentence if entry.verdict else entry.reason


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def shown(verdicts: Mapping[str, int] | None) -> str:
    """`2 reproduced, 3 not run`."""
    return ", ".join(f"{count} {kind}" for kind, count in (verdicts or {}).items())


def markdown(report: Report, registry: Mapping[str, int] | None = None) -> str:
    """The whole as a table for running text."""
    found = coverage(report, registry)
    header = ["published table", "cells", "rows", "with a sweep"]
    header += [f"run, {profile}" for profile in found.profiles] + ["verdicts", "why the rest is empty"]
    rows = [_row(line, found.profiles) for line in (*found.lines, found.total)]
    numeric = [False, True, True, True, *(True for _ in found.profiles), False, False]
    return grid([escape(name) for name in header], [[escape(text) for text in row] for row in rows], numeric)


def _row(line: Covered, profiles: Sequence[str]) -> list[str]:
    name = f"{line.table.paper}: {line.table.title}" if line.table else line.id or "together"
    run = line.run or {}
    counts = [str(run[profile]) if profile in run else "" for profile in profiles]
    return [name, str(line.cells), str(line.rows), str(line.filled), *counts, shown(line.verdicts), line.reasons]
