"""A finished table as plain data: what every renderer prints and none computes.

A cell keeps its value apart from how it is displayed, and remembers the runs behind it or the reason why it is empty.
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

ColumnKind = Literal["label", "setting", "paper", "document", "measured", "n", "verdict"]


@dataclass(frozen=True)
class Column:
    """`metric` is set for a measured column. `primary`: the metric that the paper prints and the verdict is about."""

    kind: ColumnKind
    label: str
    metric: Metric | None = None
    primary: bool = False

    @property
    def header(self) -> str:
        """The label with the unit."""
        return f"{self.label} {self.metric.unit}".strip() if self.metric else self.label

    @property
    def numeric(self) -> bool:
        return self.kind in ("paper", "document", "measured", "n")


@dataclass(frozen=True)
class Cell:
    """One place in a table. display is plain text for every output format to escape; '' only where nothing belongs.

    value: the number behind a measured, paper or n cell. reason: why there is none, or what must be known about it.
    """

    display: str
    value: float | None = None
    estimate: Estimate | None = None
    reference: Reference | None = None
    verdict: Verdict | None = None
    reason: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line: a cell per column, the command that makes or completes its runs, remarks for below the table."""

    id: str
    name: str
    cells: tuple[Cell, ...]
    command: str
    complete: bool
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and what the runs of this table say about it."""

    id: str
    says: str
    verdict: ClaimVerdict
    scaled: bool

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
    """One paper table at one profile on one data set. Runs on other data are in another Table of the same id.

    scale: '' at the paper's own protocol, else why numbers are not comparable and claims are tested in direction only.
    baseline: the id of the untrained network's row.
    """

    id: str
    title: str
    paper: str
    arxiv: str
    url: str
    protocol: str
    profile: str
    about: str
    data: Data | None
    scale: str
    margin: float
    margin_why: str
    thresholds: Thresholds
    baseline: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    command: str
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
    def primary(self) -> Metric:
        return next(column.metric for column in self.columns if column.primary and column.metric)

    @property
    def has_runs(self) -> bool:
        return any(row.runs for row in self.rows)

    def pairs(self, row: Row) -> Iterator[tuple[Column, Cell]]:
        return zip(self.columns, row.cells, strict=True)

    def cell(self, row: Row, kind: ColumnKind, metric: Metric | None = None) -> Cell:
        """The row's cell of this kind; for measured columns the primary one unless a metric is given."""
        for column, cell in self.pairs(row):
            if column.kind == kind and (kind != "measured" or (column.primary if metric is None else column.metric == metric)):
                return cell
        raise KeyError(kind)


def interval(value: Estimate, metric: Metric) -> str:
    """`57.7 ± 0.4`, or `57.7` for one seed. ± is the half width of the 95 % t interval."""
    half = value.half_width
    return metric.shown(value.mean) if half is None else f"{metric.shown(value.mean)} ± {metric.shown(half)}"
