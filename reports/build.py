"""A report from end to end: folders in, tables and files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.store.record import storage_error, write_bytes
from reports import departures, render_csv, render_latex, render_markdown
from reports.assemble import Report, assemble
from reports.bench import Bench
from reports.evidence import Evidence, read_evidence
from reports.planned import Plan, read_plan
from reports.reference import read_references
from reports.spec import TableSpec, read_tables
from reports.table import Table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sources:
    """Where a report reads from. root: the folder that the tables' sweep paths start from."""

    stores: Sequence[Path]
    root: Path = ROOT
    tables: Path = ROOT / "reports" / "tables"
    references: Path = ROOT / "reports" / "reference"


def load(sources: Sources, tables: Sequence[str] = (), profile: str | None = None, store: str = "") -> tuple[Report, Evidence]:
    """Read everything and join it. `store`: the folder to name in the commands when it is not the usual one.

    Raises InputError for a table, profile, sweep or reference row that does not exist.
    """
    specs = read_tables(sources.tables, read_references(sources.references), tables)
    plans = {sweep: read_plan(sources.root, sweep, store) for sweep in dict.fromkeys(spec.sweep for spec in specs)}
    if not tables:  # in the order of the sweeps' rows, which is the order in which the papers answered one another
        specs.sort(key=lambda spec: (spec.sweep, _place(spec, plans[spec.sweep])))
    evidence = read_evidence(sources.stores)
    return assemble(specs, plans, evidence, profile), evidence


def _place(spec: TableSpec, plan: Plan) -> int:
    """Where the sweep states the first row that this table refers to."""
    places = [plan.rows.index(row.sweep) for row in spec.rows.values() if row.sweep in plan.rows]
    return places[0] if places else 0


def write(report: Report, out: Path, figures: bool = True, measured: Mapping[str, Bench] | None = None) -> Path:
    """Write TABLE.md, .tex, .csv, departures.md, index.html and figures/ below `out`; returns the page.

    measured: the bench's tables for it.

    Raises InputError when the folder cannot be written.
    """
    from reports import render_html
    from reports.figures import Drawing, draw
    from reports.figures import write as write_figures

    drawings: dict[str, list[Drawing]] = {}
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    if figures:
        for table in report.tables:
            if table.has_runs:
                drawings[table.slug] = draw(table, report.runs)
                write_figures(drawings[table.slug], out / "figures")
    groups: dict[str, list[Table]] = {}
    for table in report.tables:
        groups.setdefault(table.id, []).append(table)
    for name, tables in groups.items():
        write_bytes(out / f"{name}.md", render_markdown.render(tables, report.warnings).encode())
        write_bytes(out / f"{name}.tex", render_latex.render(tables).encode())
        write_bytes(out / f"{name}.csv", render_csv.render(tables).encode())
    notes = departures.gather()
    write_bytes(out / "departures.md", departures.markdown(notes).encode())
    page = out / "index.html"
    write_bytes(page, render_html.render(report, drawings, measured or {}, notes).encode())
    return page
