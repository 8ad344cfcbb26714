"""The join: table specs x sweep rows x evidence -> finished tables, at every profile, on every data set with runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.errors import InputError, nearest
from reports import claims
from reports.aggregate import Measured, measure
from reports.claims import ClaimVerdict, Side
from reports.evidence import Data, Evidence, Run
from reports.metrics import COLLAPSE
from reports.planned import Plan, PlannedRow, Profile
from reports.reference import Reference
from reports.spec import ClaimSpec, RowSpec, TableSpec
from reports.table import Cell, Claim, Column, Row, Table, interval
from reports.verdict import Verdict, compare

MARKS = {"paper-text": "", "secondary": "†", "memory": "‡", "unverified": "‡"}


@dataclass(frozen=True)
class Report:
    """Everything a renderer needs. tables: those to show; every: also those of profiles at which nothing has run (for
    the overview of claims). runs: by id. unused: how many readable runs belong to no row of any table."""

    tables: tuple[Table, ...]
    every: tuple[Table, ...]
    runs: Mapping[str, Run]
    warnings: tuple[str, ...]
    unused: int


def assemble(specs: Sequence[TableSpec], plans: Mapping[str, Plan], evidence: Evidence, profile: str | None = None) -> Report:
    """All tables. Without a profile: those at which something has run, or else the sweep's first, cheapest one.

    Raises InputError for a profile or a sweep row that does not exist.
    """
    shown: list[Table] = []
    every: list[Table] = []
    for spec in specs:
        plan = plans[spec.sweep]
        _check(spec, plan, profile)
        tables = [table for each in plan.profiles.values() for table in _tables(spec, each, evidence)]
        every += tables
        if profile is not None:
            shown += [table for table in tables if table.profile == profile]
        else:
            shown += [table for table in tables if _worth_showing(spec, table)] or tables[:1]
    runs = {run.id: run for run in evidence.all()}
    used = {run for table in every for row in table.rows for run in row.runs}
    return Report(tuple(shown), tuple(every), runs, (*evidence.problems, *evidence.remarks), len(set(runs) - used))


def _check(spec: TableSpec, plan: Plan, profile: str | None) -> None:
    for row in spec.rows.values():
        if row.sweep is not None and row.sweep not in plan.rows:
            hint = nearest(row.sweep, plan.rows)
            raise InputError(f"{spec.path}: rows > {row.id} > sweep: {spec.sweep} has no row '{row.sweep}'{hint}")
    for wanted, where in ((spec.protocol.profile, f"{spec.path}: protocol > profile"), (profile, "--profile")):
        if wanted is not None and wanted not in plan.profiles:
            allowed = ", ".join(plan.profiles)
            raise InputError(
                f"{where}: {spec.sweep} has no profile '{wanted}'; it has {allowed}{nearest(wanted, plan.profiles)}"
            )


def _worth_showing(spec: TableSpec, table: Table) -> bool:
    """A profile is shown when something of it was trained: an untrained baseline may be another profile's run."""
    return any(row.runs for row in table.rows if row.id != spec.baseline)


def _tables(spec: TableSpec, profile: Profile, evidence: Evidence) -> list[Table]:
    """The table at one profile, once for each data set on which one of its rows was run."""
    planned, missing = _planned(spec, profile)
    runs = {row_id: evidence.runs.get(row.key, []) for row_id, row in planned.items()}
    seen: dict[Data, int] = {}
    for row_id, members in runs.items():
        for run in members:
            seen[run.data] = seen.get(run.data, 0) + (row_id != spec.baseline)
    if not seen:
        return [_table(spec, profile, planned, missing, runs, None)]
    ranked = sorted(seen, key=lambda data: (-seen[data], data))
    return [_table(spec, profile, planned, missing, runs, data) for data in ranked]


def _planned(spec: TableSpec, profile: Profile) -> tuple[dict[str, PlannedRow], dict[str, str]]:
    """The rows that can be measured at this profile, and why the others cannot.

    A profile may give each row the data its own paper used; a table holds rows of one data set only, that of its
    first row.
    """
    planned: dict[str, PlannedRow] = {}
    missing: dict[str, str] = {}
    home = None
    for row in spec.rows.values():
        if row.sweep is None:
            missing[row.id] = row.missing
            continue
        name = profile.rows[row.sweep].config["data"]["name"]
        home = home or name
        if name == home:
            planned[row.id] = profile.rows[row.sweep]
        else:
            missing[row.id] = f"profile {profile.name} runs this row on {name}, the table is about {home}"
    return planned, missing


def _table(
    spec: TableSpec,
    profile: Profile,
    planned: Mapping[str, PlannedRow],
    missing: Mapping[str, str],
    runs: Mapping[str, Sequence[Run]],
    data: Data | None,
) -> Table:
    spec = spec.at(profile.name)
    measured = {
        (row_id, metric.id): (
            measure(planned[row_id], runs[row_id], metric, data) if row_id in planned else Measured(missing=missing[row_id])
        )
        for row_id in spec.rows
        for metric in (*spec.columns, COLLAPSE)
    }
    scales = {row_id: _scale(spec, profile, row, data) for row_id, row in planned.items() if spec.rows[row_id].reference}
    columns = (
        Column("label", "row"),
        *(Column("setting", name) for name in spec.settings),
        Column("paper", "paper"),
        Column("document", "document"),
        *(Column("measured", metric.label, metric, metric == spec.primary) for metric in spec.columns),
        Column("n", "n"),
        Column("verdict", "verdict"),
    )
    rows = tuple(
        _row(spec, row, planned.get(row.id), {m.id: measured[row.id, m.id] for m in spec.columns}, scales.get(row.id, ""))
        for row in spec.rows.values()
    )
    used = [run for members in runs.values() for run in members if data is None or run.data == data]
    return Table(
        id=spec.id,
        title=spec.title,
        paper=spec.paper,
        arxiv=spec.arxiv,
        url=spec.url,
        protocol=spec.protocol.about,
        profile=profile.name,
        about=profile.about,
        data=data,
        scale=next(iter(scales.values()), "") if all(scales.values()) else "",
        margin=spec.margin,
        margin_why=spec.margin_why,
        thresholds=spec.thresholds,
        baseline=spec.baseline,
        columns=columns,
        rows=rows,
        claims=tuple(
            Claim(claim.id, claim.says, _claim(spec, claim, measured, scales), any(scales.get(row) for row in claim.rows))
            for claim in spec.claims
        ),
        command=profile.command,
        hardware=_unique(_hardware(run) for run in used),
        departures=_unique(f"{run.method}: {sentence}" for run in used for sentence in run.record.get("departures") or []),
    )


def _scale(spec: TableSpec, profile: Profile, row: PlannedRow, data: Data | None) -> str:
    """Why this row at this profile is not the paper's experiment, or ''. Keys that the row's method lacks do not count."""
    wanted = spec.protocol.profile
    if wanted is None:
        return "no profile repeats the paper's protocol"
    if profile.name != wanted:
        return f"profile {profile.name} is not the paper's protocol (profile {wanted})"
    for key, value in spec.protocol.config.items():
        found: Any = row.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if key == "data.name" and data is not None:
            found = data.name
        if found is not None and found != value:
            return f"{key} is {found}, in the paper {value}"
    return ""


def _row(spec: TableSpec, row: RowSpec, planned: PlannedRow | None, measured: dict[str, Measured], scale: str) -> Row:
    primary = measured[spec.primary.id]
    if planned is None:
        verdict = Verdict("not run", primary.missing)
    else:
        verdict = compare(primary, row.reference, spec.margin, spec.primary, row.differs or scale)
    wanted = len(planned.seeds) if planned else 0
    done = primary.n + primary.diverged
    more = f" (+{verdict.more_seeds})" if verdict.kind == "undecided" and verdict.more_seeds else ""
    cells = [Cell(row.label), *(Cell(setting) for setting in row.settings), _paper(row.reference)]
    cells.append(Cell(row.reference.document if row.reference else ""))
    for metric in spec.columns:
        found = measured[metric.id]
        display = _shown(found, spec, metric.id, primary) if planned else "-"
        value = found.estimate.mean if found.estimate else None
        cells.append(Cell(display, value, found.estimate, reason=found.stale or found.missing, runs=found.runs))
    cells.append(Cell(f"{done}" if done >= wanted else f"{done}/{wanted}", float(primary.n)))
    cells.append(Cell(verdict.kind + more, verdict=verdict, reason=verdict.sentence))
    reference_note = row.reference.note if row.reference else ""
    left_out = [sentence for found in measured.values() for sentence in found.left_out]
    return Row(
        id=row.id,
        name=row.name,
        cells=tuple(cells),
        command=planned.command if planned else "",
        complete=planned is None or (done >= wanted and not primary.stale),
        notes=_unique(text for text in (row.note, row.differs, reference_note, *left_out) if text),
        runs=_unique(run for found in measured.values() for run in found.runs),
    )


def _paper(reference: Reference | None) -> Cell:
    if reference is None:
        return Cell("")
    return Cell((reference.printed or "?") + MARKS[reference.status], reference.value, reference=reference)


def _shown(found: Measured, spec: TableSpec, metric: str, primary: Measured) -> str:
    if found.estimate is None:
        return "diverged" if found.diverged else ("not evaluated" if found.runs else "not run")
    text = interval(found.estimate, next(each for each in spec.columns if each.id == metric))
    if found.diverged:
        text += f" ({found.diverged} diverged)"
    if found.stale:
        text += " (stale)"
    return text if found.n == primary.n or not primary.n else f"{text} (n = {found.n})"


def _claim(
    spec: TableSpec, claim: ClaimSpec, measured: Mapping[tuple[str, str], Measured], scales: Mapping[str, str]
) -> ClaimVerdict:
    def side(row: str, metric: str) -> Side:
        return Side(spec.rows[row].name, measured[row, metric])

    unchecked = [row for row in claim.rows if (found := spec.rows[row].reference) is None or not found.gates]
    if claim.kind in ("collapse", "not_collapsed"):
        verdict = claims.collapse(side(claim.row, COLLAPSE.id), claim.kind == "collapse", spec.thresholds)
    else:
        above, below = side(claim.above, spec.primary.id), side(claim.below, spec.primary.id)
        if claim.kind == "order":
            verdict = claims.order(above, below, side(spec.baseline, spec.primary.id), spec.primary)
        else:
            papers = [found.value for row in claim.rows if (found := spec.rows[row].reference) and found.value is not None]
            scale = next((scales[row] for row in claim.rows if scales.get(row)), "")
            verdict = claims.gap(above, below, papers[0] - papers[1], claim.margin, spec.primary, scale)
    if unchecked and verdict.outcome in ("supported", "contradicted"):
        reason = f"the statement itself is not checked in the paper; measured: {verdict.sentence}"
        return ClaimVerdict("undecided", reason)
    return verdict


def _hardware(run: Run) -> str:
    hardware = (run.record.get("provenance") or {}).get("hardware") or {}
    return str(hardware.get("gpu") or hardware.get("cpu") or "")


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))
