"""A page for each table: the paper's numbers beside ours at every scale with runs, claims, figures, what fills the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reports import captions
from reports.assemble import Report
from reports.reference import MEANING
from reports.site import Site, downloads
from reports.table import Column, Entry, Table

if TYPE_CHECKING:
    from reports.figures import Drawing


def write(site: Site, drawings: Mapping[str, Sequence[Drawing]]) -> None:
    """tables/<id>.html for each table shown. drawings: by the slug of the table they belong to."""
    scales: dict[str, dict[str, list[Table]]] = {}
    for table in site.report.every:
        scales.setdefault(table.id, {}).setdefault(table.profile, []).append(table)
    for name, tables in site.report.by_id.items():
        first = tables[0]
        site.page(
            f"tables/{name}.html",
            "table.html.j2",
            first.title,
            first=first,
            tables=tables,
            scales=[found for profile, found in scales.get(name, {}).items() if profile],
            shown={table.slug for table in tables},
            drawings={table.slug: drawings.get(table.slug, ()) for table in tables},
            files=downloads(name),
            captions=captions,
            meaning=MEANING,
            evidence=lambda entry: trainings(entry, site.report),
            sorted_by=sort_key,
            wide=wide,
            ran=ran,
        )


def trainings(entry: Entry, report: Report) -> list[str]:
    """The trainings behind a number, by key: several where it is computed from several columns."""
    return list(dict.fromkeys(report.runs[run].key for run in entry.runs if run in report.runs))


def sort_key(table: Table, column: Column, entry: Entry | None) -> str:
    """What a column is sorted by: our number, in a table without any the paper's; empty for a cell without."""
    if entry is None:
        return ""
    if entry.estimate is not None:
        return f"{entry.estimate.mean:.9g}"
    if not table.has_runs and entry.reference is not None and entry.reference.value is not None:
        return f"{entry.reference.value:.9g}"
    return ""


def wide(drawing: Drawing) -> bool:
    """Whether a figure needs more than the width of a column of text to be read."""
    box = drawing.svg.partition('viewBox="')[2].partition('"')[0].split()
    return len(box) == 4 and float(box[2]) > 560


def ran(tables: Sequence[Table]) -> str:
    """How much of one profile has run, in words."""
    rows = [row for table in tables[:1] for row in table.rows if not row.own or not table.published]
    done = {row.id for table in tables for row in table.rows if row.runs and any(row.id == each.id for each in rows)}
    return f"{len(done)} of {len(rows)} rows run"
