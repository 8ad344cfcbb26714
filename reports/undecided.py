"""Which rows of a sweep have a verdict, or are named by a claim, that more random seeds would probably settle.

Only what the power calculation gives a number for counts (`reports.verdict.seeds_needed`). No number of seeds settles a row
with seeds that diverged, a collapse statistic that lies between its edges, or what this scale cannot say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError
from reports.assemble import assemble
from reports.evidence import Data, Evidence, read_evidence
from reports.planned import Plan, PlannedRow, read_plan
from reports.reference import read_references
from reports.spec import TableSpec, read_tables
from reports.table import Entry, Table


@dataclass(frozen=True)
class Open:
    """A row of a sweep that is to have `more` seeds beside those that are finished, and the verdict that asks for them."""

    name: str
    seeds: tuple[int, ...]
    more: int
    why: str


@dataclass(frozen=True)
class Tables:
    """The tables about one sweep, and the sweep as they see it."""

    specs: tuple[TableSpec, ...]
    plan: Plan

    @classmethod
    def of(cls, sweep: Path) -> Tables:
        """Those of reports/tables beside the sweep's folder. InputError where no table is about it."""
        path = sweep.resolve()
        root = next((folder for folder in path.parents if (folder / "reports" / "tables").is_dir()), None)
        if root is not None:
            every = read_tables(root / "reports" / "tables", read_references(root / "reports" / "reference"))
            specs = tuple(spec for spec in every if spec.sweep and (root / spec.sweep).resolve() == path)
            if specs:
                return cls(specs, read_plan(root, specs[0].sweep))
        raise InputError(
            f"{sweep}: no table in reports/tables is about this sweep, so it has no verdicts to decide; run it without "
            "--until-decided, with --seeds for more seeds"
        )

    def open_rows(self, profile: str, store: Path, contents: Collection[tuple[str, str]] = ()) -> list[Open]:
        """The rows at this profile that a store's records leave open, in the order of the sweep.

        contents: (name, content) of the images at hand; those of no others count, where there are any.
        """
        evidence = read_evidence([store])
        found: dict[str, Open] = {}
        plans = {spec.sweep: self.plan for spec in self.specs}
        for spec in self.specs:
            for table in assemble([spec], plans, evidence, profile).tables:
                if contents and table.data is not None and (table.data.name, table.data.content) not in contents:
                    continue
                for row, more, why in _asked_for(spec, table):
                    planned = self.plan.profiles[profile].rows[row]
                    known = found.get(row)
                    if known is None or more > known.more:
                        found[row] = Open(row, _finished(planned, evidence, table.data), more, f"{why} ({spec.id})")
        return [found[name] for name in self.plan.rows if name in found]


def _asked_for(spec: TableSpec, table: Table) -> Iterator[tuple[str, int, str]]:
    """(row of the sweep, further seeds, what is undecided) for every verdict of one table that seeds would settle."""
    for row in table.rows:
        for entry in row.cells:
            verdict = entry.verdict
            if entry.training and verdict is not None and verdict.kind == "undecided" and verdict.more_seeds:
                yield entry.training, verdict.more_seeds, verdict.sentence
    for claim, stated in zip(spec.claims, table.claims, strict=True):
        if stated.verdict.outcome != "undecided":
            continue
        wanted: dict[str, int] = {}
        if stated.verdict.more_seeds:
            cells = [found for point in claim.points if (found := _cell(table, point.row, point.column))]
            target = min(map(_count, cells), default=0) + stated.verdict.more_seeds
            wanted = {cell.training: target - _count(cell) for cell in cells}
        elif stated.verdict.waits_for_baseline and table.baseline and (floor := _cell(table, table.baseline, "")):
            wanted = {floor.training: 1}
        for training, more in wanted.items():
            if training and more > 0:
                yield training, more, f"{stated.says.rstrip('.')}: {stated.verdict.sentence}"


def _cell(table: Table, row: str, column: str) -> Entry | None:
    return table.entry(row, column) if column else table.row(row).main


def _count(entry: Entry) -> int:
    """How many seeds are in a cell's number."""
    return entry.estimate.n if entry.estimate else 0


def _finished(planned: PlannedRow, evidence: Evidence, data: Data | None) -> tuple[int, ...]:
    """The seeds of a row that are trained by today's VERSION, and evaluated or diverged."""
    runs = [run for run in evidence.runs.get(planned.key, []) if data in (None, run.data) and run.version == planned.version]
    return tuple(sorted({run.seed for run in runs if run.diverged or set(planned.protocols) <= set(run.evaluations)}))
