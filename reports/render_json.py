"""Tables as JSON for other programs: one document for each table, every profile and data set shown.

    {schema: 1, table, title, paper, year, arxiv, url, source, sweep, missing, protocol,
     profiles: [{profile, about, data: {name, content, note} | null, scale, command, hardware, settings, level,
       columns: [{id, kind: published | beside, label, metric, unit, higher_is_better, margin}],
       rows: [{id, label, settings, own, notes,
         cells: {<column id>: {
           paper: {value, printed, status, source, protocol, document} | null,
           ours: {mean, low, high, std, n, values} | null, diverged, planned,
           verdict: {kind, sentence, more_seeds} | null, reason, stale, metric, training, command, records}}}],
       claims: [{id, kind, says, outcome, words, sentence, more_seeds, p, rows}]}]}

Numbers are as measured, not rounded; what is not known is null; NaN and infinity never occur. low, high: the interval of the
mean at `level`. scale: why numbers are not comparable with the paper's, '' at its own protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from reports.aggregate import LEVEL
from reports.table import Claim, Column, Entry, Row, Table

SCHEMA = 1


def render(tables: Sequence[Table]) -> str:
    """A whole file. The tables are those of one id."""
    first = tables[0]
    document = {
        "schema": SCHEMA,
        "table": first.id,
        "title": first.title,
        "paper": first.paper,
        "year": first.year,
        "arxiv": first.arxiv,
        "url": first.url,
        "source": first.source,
        "sweep": first.sweep,
        "missing": first.missing,
        "protocol": first.protocol,
        "profiles": [_profile(table) for table in tables],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"  # NaN and infinity become null


def _profile(table: Table) -> dict[str, Any]:
    data = {"name": table.data.name, "content": table.data.content, "note": table.data.note} if table.data else None
    return {
        "profile": table.profile,
        "about": table.about,
        "data": data,
        "scale": table.scale,
        "command": table.command,
        "hardware": list(table.hardware),
        "settings": list(table.settings),
        "level": LEVEL,
        "columns": [_column(column) for column in table.columns],
        "rows": [_row(table, row) for row in table.rows],
        "claims": [_claim(claim) for claim in table.claims],
    }


def _column(column: Column) -> dict[str, Any]:
    metric = column.metric
    return {
        "id": column.id,
        "kind": column.kind,
        "label": column.label,
        "metric": metric.id if metric else None,
        "unit": metric.unit if metric else None,
        "higher_is_better": metric.higher_is_better if metric else None,
        "margin": column.margin or None,
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    cells = {column.id: _cell(entry) for column, entry in table.pairs(row) if entry is not None}
    return {
        "id": row.id,
        "label": row.label,
        "settings": list(row.settings),
        "own": row.own,
        "notes": list(row.notes),
        "cells": cells,
    }


def _cell(entry: Entry) -> dict[str, Any]:
    reference, found, verdict = entry.reference, entry.estimate, entry.verdict
    paper = ours = said = None
    if reference is not None:
        paper = {
            "value": reference.value,
            "printed": reference.printed or None,
            "status": reference.status,
            "source": reference.cited,
            "protocol": reference.protocol,
            "document": reference.document or None,
        }
    if found is not None:
        ours = {
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
            "std": found.std,
            "n": found.n,
            "values": found.values,
        }
    if verdict is not None:
        said = {"kind": verdict.kind, "sentence": verdict.sentence, "more_seeds": verdict.more_seeds}
    return {
        "paper": paper,
        "ours": ours,
        "diverged": entry.diverged,
        "planned": entry.wanted,
        "verdict": said,
        "reason": entry.reason,
        "stale": entry.stale,
        "metric": entry.metric.id if entry.metric else None,
        "training": entry.training or None,
        "command": entry.command or None,
        "records": list(entry.runs),
    }


def _claim(claim: Claim) -> dict[str, Any]:
    verdict = claim.verdict
    return {
        "id": claim.id,
        "kind": claim.kind,
        "says": claim.says,
        "outcome": verdict.outcome,
        "words": claim.words,
        "sentence": verdict.sentence,
        "more_seeds": verdict.more_seeds,
        "p": verdict.p,
        "rows": list(claim.rows),
    }
