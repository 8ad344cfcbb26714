"""Tables as CSV for a spreadsheet or a script: one line per row of the table and measured column, numbers unrounded.

A value that does not exist is an empty field: never NaN, never a word in a number's place.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from reports import captions
from reports.table import Table

COLUMNS = (
    *("table", "profile", "data", "content", "row", "settings", "metric", "unit"),
    *(
        "paper",
        "paper_status",
        "document",
        "mean",
        "low",
        "high",
        "std",
        "n",
        "verdict",
        "reason",
        "command",
        "records",
    ),
)


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def render(tables: Sequence[Table]) -> str:
    """A whole file. The paper's number and the verdict stand on the line of the metric that the paper prints."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            settings = [cell.display for column, cell in table.pairs(row) if column.kind == "setting"]
            paper, verdict = table.cell(row, "paper"), table.cell(row, "verdict")
            for column, cell in table.pairs(row):
                if column.metric is None:
                    continue
                found = cell.estimate
                line = {
                    "table": table.id,
                    "profile": table.profile,
                    "data": table.data.name if table.data else "",
                    "content": table.data.content if table.data else "",
                    "row": row.cells[0].display,
                    "settings": " / ".join(settings),
                    "metric": column.metric.id,
                    "unit": column.metric.unit,
                    "mean": _number(found.mean if found else None),
                    "low": _number(found.low if found else None),
                    "high": _number(found.high if found else None),
                    "std": _number(found.std if found else None),
                    "n": found.n if found else 0,
                    "records": ";".join(cell.runs),
                    "command": "" if row.complete else row.command,
                    "reason": cell.reason,
                }
                if column.primary:
                    line |= {
                        "paper": paper.reference.printed if paper.reference else "",
                        "paper_status": captions.status_of(row, table),
                        "document": table.cell(row, "document").display,
                        "verdict": verdict.verdict.kind if verdict.verdict else "",
                        "reason": verdict.reason,
                    }
                writer.writerow(line)
    return out.getvalue()
