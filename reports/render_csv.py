"""Tables as CSV for a spreadsheet or a script: one line per cell, numbers to six digits. `settings` reads name=value; ...

A value that does not exist is an empty field: never NaN, never a word in a number's place. A text that a spreadsheet would take
for a formula (it begins with = + - @ or a control character) gets an apostrophe before it; numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from reports.table import Column, Entry, Row, Table

COLUMNS = (
    *("table", "profile", "data", "content", "row", "settings", "column", "kind", "metric", "unit"),
    *("paper", "paper_status", "document", "mean", "low", "high", "std", "n", "diverged", "planned"),
    *("verdict", "reason", "command", "records"),
)
_NUMBERS = ("paper", "mean", "low", "high", "std", "n", "diverged", "planned")


def render(tables: Sequence[Table]) -> str:
    """A whole file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            for column, entry in table.pairs(row):
                if entry is not None:
                    writer.writerow(_safe(_line(table, row, column, entry)))
    return out.getvalue()


def _line(table: Table, row: Row, column: Column, entry: Entry) -> dict[str, str]:
    found, verdict = entry.estimate, entry.verdict
    return {
        "table": table.id,
        "profile": table.profile,
        "data": table.data.name if table.data else "",
        "content": table.data.content if table.data else "",
        "row": row.label,
        "settings": "; ".join(f"{name}={value}" for name, value in zip(table.settings, row.settings, strict=True) if value),
        "column": column.label,
        "kind": column.kind,
        "metric": entry.metric.id if entry.metric else "",
        "unit": entry.metric.unit if entry.metric else "",
        "paper": entry.reference.printed if entry.reference else "",
        "paper_status": entry.reference.status if entry.reference else "",
        "document": entry.reference.document if entry.reference else "",
        "mean": _number(found.mean if found else None),
        "low": _number(found.low if found else None),
        "high": _number(found.high if found else None),
        "std": _number(found.std if found else None),
        "n": str(found.n if found else 0),
        "diverged": str(entry.diverged),
        "planned": str(entry.wanted),
        "verdict": verdict.kind if verdict else "",
        "reason": verdict.sentence if verdict else entry.reason,
        "command": entry.command,
        "records": ";".join(entry.runs),
    }


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _safe(line: dict[str, str]) -> dict[str, str]:
    return {key: text if key in _NUMBERS else _text(text) for key, text in line.items()}


def _text(text: str) -> str:
    flat = " ".join(text.split())
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") else flat
