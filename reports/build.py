"""A report from end to end: folders in, tables and files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError
from reports.assemble import Report, assemble
from reports.evidence import read_evidence
from reports.planned import Plan, read_plan
from reports.reference import read_references
from reports.spec import TableSpec, read_tables

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sources:
    """Where a report reads from. root: the folder that the tables' sweep paths start from."""

    stores: Sequence[Path]
    root: Path = ROOT
    tables: Path = ROOT / "reports" / "tables"
    references: Path = ROOT / "reports" / "reference"


def load(sources: Sources, tables: Sequence[str] = (), profile: str | None = None, store: str = "") -> Report:
    """Read everything and join it. `store`: the folder to name in the commands when it is not the usual one.

    Bad input is named in the report's `problems` and costs itself alone. Raises InputError for a table or profile that was
    asked for and does not exist, and for a registry that cannot be read at all.
    """
    problems: list[str] = []
    references = read_references(sources.references)
    specs = read_tables(sources.tables, references, tables, problems)
    plans: dict[str, Plan] = {}
    for sweep in dict.fromkeys(spec.sweep for spec in specs if spec.sweep):
        try:
            plans[sweep] = read_plan(sources.root, sweep, store)
        except InputError as error:
            problems.append(str(error))
    specs = [spec for spec in specs if not spec.sweep or spec.sweep in plans]
    if profile is not None and plans and not any(profile in plan.profiles for plan in plans.values()):
        known = dict.fromkeys(name for plan in plans.values() for name in plan.profiles)
        raise InputError(f"--profile: no sweep has a profile '{profile}'; they have {', '.join(known)}")
    evidence = read_evidence(sources.stores)
    return assemble(_in_order(specs, plans), plans, evidence, profile, problems)


def _in_order(specs: Sequence[TableSpec], plans: Mapping[str, Plan]) -> list[TableSpec]:
    """By year and paper, which is the order in which the papers answered one another; tables of ours last."""
    return sorted(specs, key=lambda spec: (not spec.published, spec.arxiv or spec.year[2:], spec.paper, spec.id))


def tables_of(sweep: str | None, tables: Sequence[str] = ()) -> list[str]:
    """The ids of the tables asked for: those named, or those that a sweep fills. Raises InputError where it fills none."""
    if sweep is None:
        return list(tables)
    path = Path(sweep).resolve()
    specs = read_tables(ROOT / "reports" / "tables", read_references(ROOT / "reports" / "reference"), (), [])
    found = [spec.id for spec in specs if spec.sweep and (ROOT / spec.sweep).resolve() == path]
    if not found:
        raise InputError(f"--sweep: no table in reports/tables is about {sweep}")
    return [*tables, *found]
