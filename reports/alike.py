"""What must be alike before two numbers of one cell are held against each other: version, protocol, for a cost the machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from reports.assemble import Report
from reports.evidence import Run
from reports.metrics import PRETRAIN, Metric
from reports.table import Entry, Table

Variant = tuple[frozenset[int], frozenset[str]]


def variant(report: Report, table: Table, entry: Entry) -> Variant:
    """The versions of the method and the protocols (for a cost: the machine) under which a cell's number was measured."""
    runs = [report.runs[run] for run in entry.runs if run in report.runs]
    metric = entry.metric
    settings: set[str] = set()
    for run in runs:
        if run.diverged or metric is None:
            continue
        if metric.stage == PRETRAIN:
            settings.add(json.dumps({"hardware": run.hardware, "ranks": (run.record.get("timing") or {}).get("ranks", 1)}))
            continue
        settings |= _protocols(run, metric, {} if entry.stale else _planned(report, table, entry, metric))
    return frozenset(run.version for run in runs), frozenset(settings)


def _planned(report: Report, table: Table, entry: Entry, metric: Metric) -> Mapping[str, Any]:
    plan = report.plans.get(table.sweep)
    row = plan.profiles[table.profile].rows.get(entry.training) if plan else None
    return row.protocols.get(metric.stage, {}) if row else {}


def _protocols(run: Run, metric: Metric, planned: Mapping[str, Any]) -> set[str]:
    """Those of the run's records that hold the metric; where the planned one is among them, that alone was used."""
    found = [record.get("protocol") or {} for record in run.evaluations.get(metric.stage, []) if _holds(record, metric)]
    used = [protocol for protocol in found if planned and {k: v for k, v in protocol.items() if k != "content"} == planned]
    return {json.dumps(protocol, sort_keys=True) for protocol in used or found}


def _holds(record: Mapping[str, Any], metric: Metric) -> bool:
    return metric.key in (record.get("metrics") or {})


def unlike(here: Variant, there: Variant) -> str:
    """What keeps two numbers from being held against each other, '' where nothing does."""
    reasons = []
    if here[0] != there[0]:
        reasons.append(f"method version {_joined(here[0])} here, {_joined(there[0])} there")
    if here[1] and there[1] and here[1] != there[1]:
        mine, theirs = (_settings(settings) for settings in (here[1], there[1]))
        changed = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
        reasons += [
            f"{key} {_joined(mine.get(key, ['none']))} here, {_joined(theirs.get(key, ['none']))} there" for key in changed
        ]
    return "; ".join(reasons)


def _settings(variants: Iterable[str]) -> dict[str, list[str]]:
    """The values of each setting in any of the protocols."""
    found: dict[str, list[str]] = {}
    for text in sorted(variants):
        for key, value in json.loads(text).items():
            if str(value) not in found.setdefault(key, []):
                found[key].append(str(value))
    return found


def _joined(values: Iterable[object]) -> str:
    return " and ".join(sorted(map(str, values)))
