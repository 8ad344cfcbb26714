"""The claims of a table, judged: their cells are looked up, tested as the kind asks, and corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from benchmark.errors import InputError
from reports import claims
from reports.aggregate import NOT_RUN, Measured
from reports.claims import ClaimVerdict, Side
from reports.claimspec import COLLAPSES, ClaimSpec, Point
from reports.filling import Layout, hidden
from reports.measured import Measurement
from reports.metrics import COLLAPSE, Metric
from reports.reference import Reference
from reports.spec import RowSpec, TableSpec

Cells = Mapping[tuple[str, str], Measurement]


def judge(spec: TableSpec, layout: Layout, cells: Cells, scale: str) -> tuple[list[ClaimVerdict], list[bool]]:
    """The verdicts on the table's claims, one family (Holm), and whether each was tested at another scale than the paper's."""
    rows = {row.id: row for row in layout.rows}
    found, scaled = [], []
    for claim in spec.claims:
        why = _scaled(spec, claim, rows, cells, scale)
        scaled.append(bool(why))
        found.append(_judge(spec, layout, claim, rows, cells, why))
    corrected = claims.holm(found)
    return [_checked(spec, claim, verdict, rows) for claim, verdict in zip(spec.claims, corrected, strict=True)], scaled


def _judge(
    spec: TableSpec, layout: Layout, claim: ClaimSpec, rows: Mapping[str, RowSpec], cells: Cells, scaled: str
) -> ClaimVerdict:
    if claim.kind in COLLAPSES:
        side = _side(spec, claim.points[0].row, _column(spec, claim, claim.points[0], cells), rows, cells)
        return claims.collapse(side, claim.kind == "collapse", spec.thresholds)
    sides = [_side(spec, point.row, _column(spec, claim, point, cells), rows, cells) for point in claim.points]
    metrics = _metrics(spec, claim, cells)
    if len(metrics) != 1:
        names = " and ".join(metric.label for metric in metrics)
        why = f"its cells are measured differently here, by {names}" if metrics else "nothing here measures it"
        return ClaimVerdict("not run", why)
    (metric,) = metrics
    baseline = _baseline(spec, layout, claim, rows, cells, metric)
    if claim.kind == "order":
        return claims.order(sides[0], sides[1], baseline, metric)
    if claim.kind == "ordering":
        return claims.ordering(sides, baseline, metric)
    if claim.kind == "gap":
        return claims.gap(sides[0], sides[1], _published_gap(spec, claim, rows), claim.margin, metric, scaled)
    if claim.kind == "within":
        return claims.within(sides, claim.margin, metric, scaled, baseline)
    if claim.kind == "trend":
        return claims.trend(sides, cast(Literal["rises", "falls"], claim.direction), baseline, metric)
    if claim.kind == "inverse_u":
        return claims.inverse_u(sides, baseline, metric)
    return claims.interaction((sides[0], sides[1]), (sides[2], sides[3]), baseline, metric)


def _column(spec: TableSpec, claim: ClaimSpec, point: Point, cells: Cells) -> str:
    """The id of the cell in the point's row: of the claim's own metric (that of the column's training, where the row has
    several), else of the column it names, else of the first."""
    metric = COLLAPSE if claim.kind in COLLAPSES else claim.metric
    if metric is not None:
        named = hidden(metric.id, point.column)
        return named if (point.row, named) in cells else metric.id
    return point.column or (spec.columns[0].id if spec.columns else spec.beside[0].id)


def _side(spec: TableSpec, row_id: str, column: str, rows: Mapping[str, RowSpec], cells: Cells) -> Side:
    row, found = rows[row_id], cells.get((row_id, column))
    published = column.rpartition("@")[2]
    several = sum(each.id in row.references for each in spec.columns) > 1
    name = f"{row.name}, {published}" if several and any(each.id == published for each in spec.columns) else row.name
    return Side(name, found.measured if found else NOT_RUN)


def _metrics(spec: TableSpec, claim: ClaimSpec, cells: Cells) -> list[Metric]:
    """What the claim's cells hold at this profile: one measure, or the claim cannot be judged."""
    found = [cells.get((point.row, _column(spec, claim, point, cells))) for point in claim.points]
    return (
        list({cell.metric.id: cell.metric for cell in found if cell and cell.metric and not cell.measured.missing}.values())
        or [cell.metric for cell in found if cell and cell.metric][:1]
    )


def _baseline(
    spec: TableSpec, layout: Layout, claim: ClaimSpec, rows: Mapping[str, RowSpec], cells: Cells, metric: Metric
) -> Side | None:
    """The untrained network on the same measure; None where the measure is no accuracy or the table has no such row."""
    if not metric.is_accuracy or not layout.baseline:
        return None
    names = [column.id for column in spec.columns] + [each.id for each in spec.beside]
    for name in (_column(spec, claim, claim.points[0], cells), *names):
        found = cells.get((layout.baseline, name))
        if found is not None and found.metric == metric:
            return Side(rows[layout.baseline].name, found.measured)
    return Side(rows[layout.baseline].name, Measured(missing=f"no {metric.label} of it"))


def _scaled(spec: TableSpec, claim: ClaimSpec, rows: Mapping[str, RowSpec], cells: Cells, scale: str) -> str:
    """Why only the direction of a claim can be tested here, '' where its rows are the paper's own."""
    for point in claim.points:
        found = cells.get((point.row, _column(spec, claim, point, cells)))
        if why := scale or (found.incomparable if found else "") or rows[point.row].differs:
            return why
    return ""


def _published_gap(spec: TableSpec, claim: ClaimSpec, rows: Mapping[str, RowSpec]) -> float:
    if claim.points_apart is not None:
        return claim.points_apart
    values = [reference.value for reference in _references(spec, claim, rows) if reference and reference.value is not None]
    if len(values) != 2:
        at = spec.at("claims", claim.id)
        raise InputError(
            f"{at}: a gap needs two cells whose published numbers are established, or `points:` that the paper states"
        )
    return values[0] - values[1]


def _references(spec: TableSpec, claim: ClaimSpec, rows: Mapping[str, RowSpec]) -> list[Reference | None]:
    """The published cells that the claim is about."""
    first = spec.columns[0].id if spec.columns else ""
    return [rows[point.row].references.get(point.column or first) for point in claim.points]


def _checked(spec: TableSpec, claim: ClaimSpec, verdict: ClaimVerdict, rows: Mapping[str, RowSpec]) -> ClaimVerdict:
    """A claim that rests on published numbers which nobody has seen is never decided, unless the paper's text states it."""
    if claim.seen:
        return verdict
    unseen = [reference for reference in _references(spec, claim, rows) if reference is not None and not reference.gates]
    if unseen and verdict.outcome in ("supported", "contradicted"):
        reason = f"the statement itself is not checked in the paper; measured: {verdict.sentence}"
        return ClaimVerdict("undecided", reason)
    return verdict
