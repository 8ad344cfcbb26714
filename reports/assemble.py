"""The join: table specs, registry, sweep rows and evidence -> finished tables, at every profile, on all data with runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmark.errors import InputError, nearest
from reports.evidence import Data, Evidence, Run
from reports.filling import Filled, Layout, NotFilled, lay_out
from reports.judge import judge
from reports.measured import Measurement, comparison, derived, entry, measurement
from reports.planned import Plan, Profile
from reports.spec import RowSpec, TableSpec
from reports.table import Claim, Column, Entry, Row, Table

_BOUNDS = ("random", "supervised")  # trained for every table, so that a table is not about them


@dataclass(frozen=True)
class Report:
    """Everything a renderer needs. tables: those to show; every: also those of profiles at which nothing has run (for the
    overviews). runs: by id. problems: sentences about bad input; remarks: about what is worth knowing of the records.
    plans: the sweeps by path. unused: how many readable runs belong to no row of any table."""

    tables: tuple[Table, ...]
    every: tuple[Table, ...]
    runs: Mapping[str, Run]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    plans: Mapping[str, Plan]
    unused: int

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.problems, *self.remarks)

    @cached_property
    def by_id(self) -> dict[str, list[Table]]:
        """The shown tables of each id, in the order of the report."""
        groups: dict[str, list[Table]] = {}
        for table in self.tables:
            groups.setdefault(table.id, []).append(table)
        return groups


def assemble(
    specs: Sequence[TableSpec],
    plans: Mapping[str, Plan],
    evidence: Evidence,
    profile: str | None = None,
    problems: list[str] | None = None,
) -> Report:
    """All tables. Without a profile: those at which something has run, or else the one that is the paper's own (the sweep's
    last where none is).

    Raises InputError for a profile, a row or a selection that does not exist; with a list for `problems` such a table is
    named there and left out.
    """
    shown: list[Table] = []
    every: list[Table] = []
    found: list[str] = [] if problems is None else problems
    for spec in specs:
        try:
            tables = _all_profiles(spec, plans.get(spec.sweep), evidence)
        except InputError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        every += tables
        if profile is not None:
            shown += [table for table in tables if table.profile in (profile, "")]
        else:
            shown += [table for table in tables if table.trained] or [_unfilled(spec, tables)]
    runs = evidence.by_id
    used = {run for table in every for row in table.rows for run in row.runs}
    return Report(
        tables=tuple(shown),
        every=tuple(every),
        runs=runs,
        problems=(*evidence.problems, *found),
        remarks=evidence.remarks,
        plans=plans,
        unused=len(set(runs) - used),
    )


def _all_profiles(spec: TableSpec, plan: Plan | None, evidence: Evidence) -> list[Table]:
    if plan is None:
        return [_table(spec, None, None, lay_out(spec, None, None), {}, None)]
    if spec.profile is not None and spec.profile not in plan.profiles:
        hint = nearest(spec.profile, plan.profiles)
        allowed = ", ".join(plan.profiles)
        where = spec.at("protocol", "profile")
        raise InputError(f"{where}: {spec.sweep} has no profile '{spec.profile}'; it has {allowed}{hint}")
    return [table for each in plan.profiles.values() for table in _tables(spec, plan, each, evidence)]


def _unfilled(spec: TableSpec, tables: Sequence[Table]) -> Table:
    """The table to show where nothing has run: that of the paper's own profile."""
    return next((table for table in tables if table.profile == spec.profile), tables[-1])


def _tables(spec: TableSpec, plan: Plan, profile: Profile, evidence: Evidence) -> list[Table]:
    """The table at one profile, once for each data set on which one of its published rows was run."""
    layout = lay_out(spec, plan, profile)
    runs = {key: evidence.runs.get(key, []) for key in layout.keys}
    own = {filled.planned.key for row, filled in layout.filled() if row.own and spec.published}
    seen: dict[Data, int] = {}
    for key, members in runs.items():
        for run in members:
            seen[run.data] = seen.get(run.data, 0) + (key not in own)
    ranked: list[Data | None] = [*sorted(seen, key=lambda data: (-seen[data], data))] or [None]
    return [_table(spec, plan, profile, layout, runs, data) for data in ranked]


def _table(
    spec: TableSpec,
    plan: Plan | None,
    profile: Profile | None,
    layout: Layout,
    runs: Mapping[str, Sequence[Run]],
    data: Data | None,
) -> Table:
    """One profile on one data set. Profile None: nothing here can fill the table."""
    cells = {
        (row.id, column): measurement(filled, column, spec, runs, data, row)
        for row, column, filled in layout.cells
    }  # fmt: skip
    scale = _scale(spec, profile)
    derived(spec, cells, scale)
    columns = _columns(spec, cells)
    rows = tuple(
        Row(
            id=row.id,
            name=row.name,
            label=row.label,
            settings=row.settings,
            entries=tuple(_entry(cells.get((row.id, column.id)), row, column, scale) for column in columns),
            own=row.own,
            notes=_notes(row, [found for (name, _), found in cells.items() if name == row.id]),
        )
        for row in layout.rows
    )
    used = [run for members in runs.values() for run in members if data is None or run.data == data]
    return Table(
        id=spec.id,
        title=spec.title,
        paper=spec.paper,
        year=spec.year,
        arxiv=spec.arxiv,
        url=spec.url,
        source=spec.source,
        published=spec.published,
        sweep=spec.sweep,
        missing=spec.missing,
        question=plan.question if plan else "",
        protocol=spec.protocol,
        profile=profile.name if profile else "",
        about=profile.about if profile else "",
        data=data,
        scale=scale or _common(cells.values()),
        thresholds=spec.thresholds,
        baseline=layout.baseline,
        settings=spec.settings,
        columns=columns,
        rows=rows,
        claims=_claims(spec, layout, cells, scale),
        command=profile.command if profile else "",
        figures=spec.figures,
        trained=any(run.method not in _BOUNDS for run in used),
        hardware=_unique(run.hardware for run in used),
        departures=_unique(f"{run.method}: {sentence}" for run in used for sentence in run.record.get("departures") or []),
    )


def _scale(spec: TableSpec, profile: Profile | None) -> str:
    """Why nothing at this profile is the paper's protocol, '' at the paper's own."""
    if profile is None or profile.name == spec.profile:
        return ""
    if spec.profile is None:
        return "no profile repeats the paper's protocol"
    return f"profile {profile.name} is not the paper's protocol (profile {spec.profile})"


def _common(cells: Iterable[Measurement]) -> str:
    """The reason that keeps every single published number of a table from being compared, where one does."""
    reasons = {found.incomparable for found in cells if found.reference is not None and isinstance(found.filled, Filled)}
    return reasons.pop() if len(reasons) == 1 else ""


def _columns(spec: TableSpec, cells: Mapping[tuple[str, str], Measurement]) -> tuple[Column, ...]:
    """What each column holds at this profile: of several measures in one column the most frequent names it."""
    columns = []
    for column in spec.columns:
        found = [cell.metric for (_, name), cell in cells.items() if name == column.id and cell.metric]
        metric = max(found, key=found.count) if found else column.metric
        columns.append(Column(column.id, "published", column.label, metric, column.margin, column.margin_why))
    used = {column.metric for column in columns}
    for metric in spec.beside:
        # where the paper's own measure has a stand-in at this profile, it needs no second column of its own
        if metric not in used:
            columns.append(Column(metric.id, "beside", metric.label, metric))
    return tuple(columns)


def _entry(found: Measurement | None, row: RowSpec, column: Column, scale: str) -> Entry | None:
    if found is None:
        return None
    verdict = None
    if column.kind == "published" and (found.reference is not None or isinstance(found.filled, NotFilled)):
        verdict = comparison(found, column, row, scale)
    return entry(found, verdict)


def _notes(row: RowSpec, cells: Sequence[Measurement]) -> tuple[str, ...]:
    published = [cell.reference.note for cell in cells if cell.reference]
    left_out = [sentence for cell in cells for sentence in cell.measured.left_out]
    return _unique((row.note, row.differs, *published, *left_out))


def _claims(spec: TableSpec, layout: Layout, cells: Mapping[tuple[str, str], Measurement], scale: str) -> tuple[Claim, ...]:
    verdicts, scaled = judge(spec, layout, cells, scale)
    return tuple(
        Claim(claim.id, claim.kind, claim.says, verdict, here, claim.rows)
        for claim, verdict, here in zip(spec.claims, verdicts, scaled, strict=True)
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))
