"""The report as one self-contained page: no script but a dozen lines, no network, figures inlined, light and dark.

The layout is `site/page.html.j2` and `site/style.css`; everything is escaped by the template engine except our own SVG.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.store.record import finite
from reports import captions
from reports.assemble import Report
from reports.bench import TITLES, Bench
from reports.departures import ABOUT, Source
from reports.evidence import Run
from reports.figures import Drawing
from reports.metrics import Metric
from reports.overview import overview
from reports.reference import MEANING
from reports.table import Table

_SITE = Path(__file__).parent / "site"


def render(
    report: Report,
    drawings: Mapping[str, Sequence[Drawing]],
    benches: Mapping[str, Bench] | None = None,
    departures: Sequence[Source] = (),
) -> str:
    """The whole page. `drawings`: the figures of each table by its slug."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_SITE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["pretty"] = _pretty
    groups: dict[str, list[Table]] = {}
    for table in report.tables:
        groups.setdefault(table.id, []).append(table)
    wanted = dict.fromkeys(run for table in report.tables for row in table.rows for run in row.runs)
    scopes, lines = overview(report)
    return environment.get_template("page.html.j2").render(
        style=_Markup((_SITE / "style.css").read_text(encoding="utf-8")),
        benches=benches or {},
        bench_titles=TITLES,
        captions=captions,
        count=len(wanted),
        departures=departures,
        departures_about=ABOUT,
        drawings={table.slug: drawings.get(table.slug, ()) for table in report.tables},
        evaluations_of=_evaluations,
        groups=list(groups.items()),
        lines=lines,
        meaning=MEANING,
        runs=report.runs,
        scopes=scopes,
        shown=report.tables,
        shown_runs=[report.runs[run] for run in wanted],
        unused=report.unused,
        value_of=_value,
        warnings=report.warnings,
    )


class _Markup(str):
    """Text that the template engine takes as it is (its own protocol: an `__html__` method)."""

    def __html__(self) -> str:
        return self


def _pretty(value: Any) -> str:
    return json.dumps(finite(value), indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) if value else "not recorded"


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """Protocol, numbers and choices of each evaluation, without what every record repeats."""
    keys = ("id", "protocol", "metrics", "chosen")
    return [{key: record[key] for key in keys if key in record} for records in run.evaluations.values() for record in records]


def _value(run: Run, metric: Metric) -> str:
    """One run's number, or the values of all its evaluations of that kind when there are several protocols."""
    values = [(record.get("metrics") or {}).get(metric.key) for record in run.evaluations.get(metric.stage, [])]
    numbers = [metric.shown(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return ", ".join(numbers) or ("diverged" if run.diverged else "")
