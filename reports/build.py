"""A report from end to end: folders in, tables and files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import InputError
from benchmark.store.record import storage_error
from reports import against, audit, cost, departures, render_csv, render_json, render_latex, render_markdown
from reports.assemble import Report, assemble
from reports.audit import Finding, read_audit
from reports.bench import Bench
from reports.evidence import read_evidence
from reports.planned import Plan, read_plan
from reports.reference import named, read_references
from reports.spec import TableSpec, read_tables
from reports.table import Table

if TYPE_CHECKING:
    from reports.figures import Drawing

ROOT = Path(__file__).resolve().parents[1]
_PDFS = 60  # figures that a report draws for print too without being asked: they take twice as long as all else


@dataclass(frozen=True)
class Sources:
    """Where a report reads from. root: the folder that the tables' sweep paths start from."""

    stores: Sequence[Path]
    root: Path = ROOT
    tables: Path = ROOT / "reports" / "tables"
    references: Path = ROOT / "reports" / "reference"

    @classmethod
    def under(cls, root: Path, stores: Sequence[Path]) -> Sources:
        """Those of a project in this folder."""
        return cls(stores, root, root / "reports" / "tables", root / "reports" / "reference")


def load(sources: Sources, tables: Sequence[str] = (), profile: str | None = None, store: str = "") -> Report:
    """Read everything and join it. `store`: the folder to name in the commands when it is not the usual one.

    Bad input is named in the report's `problems` and costs itself alone. Raises InputError for a table or profile that was
    asked for and does not exist, and for a registry that cannot be read at all.
    """
    problems: list[str] = []
    references = read_references(sources.references, problems)
    with named(problems):
        read_audit(sources.references, references)
    specs = read_tables(sources.tables, references, tables, problems)
    plans: dict[str, Plan] = {}
    for sweep in dict.fromkeys(spec.sweep for spec in specs if spec.sweep):
        with named(problems):
            plans[sweep] = read_plan(sources.root, sweep, store)
    specs = [spec for spec in specs if not spec.sweep or spec.sweep in plans]
    if profile is not None and plans and not any(profile in plan.profiles for plan in plans.values()):
        known = dict.fromkeys(name for plan in plans.values() for name in plan.profiles)
        raise InputError(f"--profile: no sweep has a profile '{profile}'; they have {', '.join(known)}")
    evidence = read_evidence(sources.stores)
    return assemble(_in_order(specs, plans), plans, evidence, profile, problems)


def _in_order(specs: Sequence[TableSpec], plans: Mapping[str, Plan]) -> list[TableSpec]:
    """By year and paper, which is the order in which the papers answered one another; tables of ours last."""
    return sorted(specs, key=lambda spec: (not spec.published, spec.arxiv or spec.year[2:], spec.paper, spec.id))


def tables_of(sources: Sources, sweep: str | None, tables: Sequence[str] = ()) -> list[str]:
    """The ids of the tables asked for: those named, or those that a sweep fills. Raises InputError where it fills none."""
    if sweep is None:
        return list(tables)
    path = Path(sweep).resolve()
    specs = read_tables(sources.tables, read_references(sources.references), (), [])
    found = [spec.id for spec in specs if spec.sweep and (sources.root / spec.sweep).resolve() == path]
    if not found:
        raise InputError(f"--sweep: no table in {sources.tables} is about {sweep}")
    return [*tables, *found]


def write(
    report: Report,
    out: Path,
    figures: bool = True,
    measured: Mapping[str, Bench] | None = None,
    other: Report | None = None,
    other_name: str = "",
    problems: Sequence[str] = (),
    pdf: bool = False,
    references: Path = ROOT / "reports" / "reference",
) -> tuple[Path, tuple[str, ...]]:
    """Write the site, the tables in every format and the figures below `out`; returns the front page and what should be told.

    measured: the bench's tables. other: a report to compare with. pdf: print versions of all figures, however many there are.

    Raises InputError when the folder cannot be written.
    """
    from reports.figures import begin, sketches, undrawn
    from reports.site import Site, pages
    from reports.site import against as comparison_page
    from reports.site import cost as cost_page
    from reports.site import methods as method_pages

    told: list[str] = []
    costs = cost.gather(report)
    sketched = {table.slug: sketches(table, report.runs) for table in report.tables} if figures else {}
    wanted = [sketch for found in (*sketched.values(), costs.sketches) for sketch in found] if figures else []
    _folder(out / "figures")
    print_too = pdf or undrawn(wanted, out / "figures") <= _PDFS
    if not print_too:
        told.append(f"{len(wanted)} figures were drawn for the screen; --pdf draws them for print too")
    drawn = cache(begin(wanted, out / "figures", print_too))  # other processes draw meanwhile
    for name, tables in report.by_id.items():
        for ending, text in _formats(tables, report).items():
            _write(out / "tables" / f"{name}.{ending}", text)
    notes, registry = departures.gather(), read_references(references, [])
    findings: tuple[Finding, ...] = ()
    with named([]):  # what is wrong with it was told when the report was loaded
        findings = read_audit(references, registry)
    has = {"speed.html": bool(measured), "audit.html": bool(findings), "against.html": other is not None}
    pages_there = [name for name, there in has.items() if there]
    site = Site(out, report, also=["methods/index.html", "cost.html", "departures.html", *pages_there])

    def drawings() -> dict[str, list[Drawing]]:
        return {slug: [drawn()[sketch.name] for sketch in found] for slug, found in sketched.items()}

    method_pages.write(site)
    if other is not None:
        comparison_page.write(site, against.compare(report, other, "this store", other_name))
    site.write("departures.md", departures.markdown(notes))
    site.write("audit.md", audit.markdown(findings))
    cells = {name: len(found) for name, found in registry.items()}
    pages.write(site, drawings, measured or {}, notes, findings, problems, cells)
    cost_page.write(site, costs, drawn())
    site.finish()
    return out / "index.html", tuple(told)


def _formats(tables: Sequence[Table], report: Report) -> dict[str, str]:
    return {
        "md": render_markdown.render(tables, report.warnings),
        "tex": render_latex.render(tables),
        "csv": render_csv.render(tables),
        "json": render_json.render(tables),
    }


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def _write(path: Path, text: str) -> None:
    """Plainly, without waiting for the disk: what is lost in a crash is built anew."""
    _folder(path.parent)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise storage_error(path, error) from error
