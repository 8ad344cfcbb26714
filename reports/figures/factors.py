"""What the figures over a factor's levels have in common: the published rows and columns, and the numbers in their names."""

from __future__ import annotations

import re

from reports.table import Column, Entry, Row, Table

_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?(?:e-?\d+)?)(\s*[kK]\b)?(?:/(\d+))?")


def published(table: Table, empty: bool) -> tuple[list[Row], list[Column]] | None:
    """The published rows and columns; None where nothing of ours is in them (nor, if `empty` will do, of the paper's)."""
    columns = [column for column in table.columns if column.kind == "published"]
    rows = [row for row in table.rows if not row.own]
    cells = [found for row in rows for column in columns if (found := entry(table, row, column))]
    some = any(each.estimate or (empty and printed(each) is not None) for each in cells)
    return (rows, columns) if some else None


def entry(table: Table, row: Row, column: Column) -> Entry | None:
    return row.entries[table.columns.index(column)]


def printed(cell: Entry | None) -> float | None:
    """The paper's number."""
    return cell.reference.value if cell and cell.reference else None


def hollow(cell: Entry | None) -> bool:
    """Whether nobody has seen the paper's number there."""
    return bool(cell and cell.reference and not cell.reference.gates)


def measured(cell: Entry | None) -> list[float | None] | None:
    """Mean, low and high of ours."""
    return [cell.estimate.mean, cell.estimate.low, cell.estimate.high] if cell and cell.estimate else None


def value_label(columns: list[Column]) -> str:
    """What an axis of values is: the measure where all columns share one, else its unit."""
    metrics = {column.metric for column in columns if column.metric}
    units = {metric.unit for metric in metrics if metric.unit}
    words = [metrics.pop().label] if len(metrics) == 1 else []
    return ", ".join([*words, *(units if len(units) == 1 else [])])


def level(label: str) -> float | None:
    """The number in a label such as `batch 256`, `tau=0.07`, `K=65536`, `4k`, `1/8`."""
    found = _NUMBER.search(label.replace("=", " "))
    if not found:
        return None
    value = float(found[1]) * (1000 if found[2] else 1)
    return value / float(found[3]) if found[3] and float(found[3]) else value


def factor(labels: list[str]) -> str:
    """What the labels have in common before their numbers."""
    first = re.split(r"[\d=]", labels[0])[0].strip(" :,[(")
    return first if first and all(label.startswith(first) for label in labels) else "level"
