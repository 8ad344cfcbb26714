"""A finished table as plain data: what every renderer prints and none computes.

A cell of the table is an Entry: the paper's number, ours, the verdict, and either the runs behind it or the reason why
there are none. Values are kept apart from how they are displayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reports.aggregate import Estimate
from reports.claims import ClaimVerdict, Thresholds
from reports.evidence import Data
from reports.metrics import Metric
from reports.reference import Reference
from reports.verdict import Verdict

ColumnKind = Literal["published", "beside"]


@dataclass(frozen=True)
class Column:
    """A column of numbers. published: it stands in the paper; beside: measured on the same trainings, not in the paper.

    metric: what ours is at this profile, None where nothing here measures it. margin: how far from the paper's number a
    reproduced one may lie, and why.
    """

    id: str
    kind: ColumnKind
    label: str
    metric: Metric | None
    margin: float = 0.0
    margin_why: str = ""

    @property
    def header(self) -> str:
        """The label with the unit, which an AP carries in its name."""
        unit = self.metric.unit if self.metric and self.metric.unit != "AP" else ""
        return self.label if not unit or unit in self.label else f"{self.label} {unit}"


@dataclass(frozen=True)
class Entry:
    """One cell. display is our number as plain text for every output format to escape: `57.7 ± 0.4`, `not run`, `diverged`.

    reference: the published cell, None where the paper prints nothing there. estimate: ours, None where nothing was measured.
    wanted: how many seeds are planned. reason: why there is no number, or what must be known about the one there is.
    training: the row of the sweep behind it ('' if none). command: what fills or completes it ('' when nothing can or
    nothing is missing). again: what runs it anew.
    """

    display: str
    reference: Reference | None = None
    metric: Metric | None = None
    estimate: Estimate | None = None
    diverged: int = 0
    wanted: int = 0
    verdict: Verdict | None = None
    reason: str = ""
    runs: tuple[str, ...] = ()
    training: str = ""
    command: str = ""
    again: str = ""
    stale: bool = False

    @property
    def n(self) -> int:
        """How many random seeds are in the number or diverged."""
        return (self.estimate.n if self.estimate else 0) + self.diverged

    @property
    def seeds(self) -> str:
        """`3`, or `1/3` where more are planned."""
        return str(self.n) if self.n >= self.wanted else f"{self.n}/{self.wanted}"

    @property
    def complete(self) -> bool:
        return not self.command

    @property
    def mark(self) -> str:
        """What marks a published number that nobody has seen in the paper itself."""
        return MARKS[self.reference.status] if self.reference else ""

    @property
    def paper(self) -> str:
        """The published number with its mark; `?` where it is not established, '' where the paper prints nothing."""
        if self.reference is None:
            return ""
        return (self.reference.printed or "?") + self.mark

    @property
    def outcome(self) -> str:
        """The verdict in a few words, with the further seeds that would probably decide it."""
        if self.verdict is None:
            return ""
        more = f" (+{self.verdict.more_seeds})" if self.verdict.kind == "undecided" and self.verdict.more_seeds else ""
        return self.verdict.kind + more


MARKS = {"paper-text": "", "secondary": "†", "memory": "‡", "unverified": "‡"}


@dataclass(frozen=True)
class Row:
    """One line: an Entry for each column of the table, None where there is nothing to print or to measure.

    own: a row that the paper's table does not have (an untrained network, a supervised one). notes: remarks for below the
    table.
    """

    id: str
    name: str  # unique in the table: the label, with its settings where the paper repeats the label
    label: str
    settings: tuple[str, ...]
    entries: tuple[Entry | None, ...]
    own: bool = False
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry is not None)

    @property
    def published(self) -> list[Entry]:
        """The cells in which the paper prints something, or should."""
        return [entry for entry in self.cells if entry.reference is not None]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run for entry in self.cells for run in entry.runs))

    @property
    def main(self) -> Entry | None:
        """The cell that stands for the row where there is room for one: the first published one, or else the first."""
        return next(iter(self.published), None) or next(self.cells, None)

    @property
    def complete(self) -> bool:
        return all(entry.complete for entry in self.cells)

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.command for entry in self.cells if entry.command))


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what the runs of this table say about it. scaled: not at the paper's protocol."""

    id: str
    kind: str
    says: str
    verdict: ClaimVerdict
    scaled: bool
    rows: tuple[str, ...] = ()  # ids of the rows it is about

    @property
    def words(self) -> str:
        """The outcome in a few words, with what limits it."""
        outcome = self.verdict.outcome
        if outcome not in ("supported", "contradicted"):
            return outcome
        limits = [word for word in ("direction" if self.scaled else "", self.verdict.basis) if word]
        return f"{outcome} ({', '.join(limits)})" if limits else outcome


@dataclass(frozen=True)
class Table:
    """One published table at one profile on one data set. Runs on other data are in another Table of the same id.

    sweep: the file that fills it, '' for a table that nothing here can fill; missing then says why. published: whether it is
    in a paper at all (a sweep without a published table has one of its own). scale: '' at the paper's own protocol, else why
    numbers are not comparable and claims are tested in direction only. settings: the names of the leading columns that say
    what a row is. baseline: the id of the untrained network's row, '' where there is none. command runs all of it at this
    profile. trained: whether any run here is more than an untrained or a supervised network, which every table has.
    """

    id: str
    title: str
    paper: str
    year: str
    arxiv: str
    url: str
    source: str
    published: bool
    sweep: str
    missing: str
    question: str
    protocol: str
    profile: str
    about: str
    data: Data | None
    scale: str
    thresholds: Thresholds
    baseline: str
    settings: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    command: str
    figures: tuple[str, ...] = ()
    trained: bool = False
    hardware: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """A name for files and links: table, profile and, where there is one, the data."""
        return "-".join(part for part in (self.id, self.profile, self.data.content if self.data else "") if part)

    @property
    def where(self) -> str:
        return f"profile {self.profile}" + (f", data {self.data.shown}" if self.data else "")

    @property
    def main(self) -> Column:
        """The column that stands for the table where there is room for one."""
        return self.columns[0]

    @property
    def single(self) -> bool:
        """Whether the paper's table has one column of numbers, so that paper, ours and verdict can stand side by side."""
        return sum(column.kind == "published" for column in self.columns) <= 1

    @property
    def has_runs(self) -> bool:
        return any(row.runs for row in self.rows)

    def pairs(self, row: Row) -> Iterator[tuple[Column, Entry | None]]:
        return zip(self.columns, row.entries, strict=True)

    def row(self, row_id: str) -> Row:
        return next(row for row in self.rows if row.id == row_id)

    def entry(self, row_id: str, column: str = "") -> Entry | None:
        """The cell in this row and column (the first column unless named). KeyError for a column that is not there."""
        places = [i for i, each in enumerate(self.columns) if not column or each.id == column]
        if not places:
            raise KeyError(column)
        return self.row(row_id).entries[places[0]]


def interval(value: Estimate, metric: Metric) -> str:
    """`57.7 ± 0.4`, or `57.7` for one seed. ± is the half width of the 95 % interval."""
    half = value.half_width
    return metric.shown(value.mean) if half is None else f"{metric.shown(value.mean)} ± {metric.shown(half)}"
