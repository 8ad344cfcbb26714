"""The sentences around a table, as plain text: the same in every output format, which only escapes and places them."""

from __future__ import annotations

from reports.aggregate import LEVEL
from reports.assemble import MARKS
from reports.metrics import COLLAPSE
from reports.reference import MEANING
from reports.table import Row, Table


def caption(table: Table, scale: bool = True) -> list[str]:
    """What a reader must know before reading a number; `scale=False` where the page says that part elsewhere."""
    lines = [
        f"The paper's protocol: {table.protocol}.",
        f"Ours: {table.where}" + (f": {table.about}." if table.about else "."),
    ]
    if table.scale and scale:
        lines.append(
            f"Accuracies are not comparable with the paper's: {table.scale}. Claims are tested in their direction only."
        )
    lines.append(
        f"± is the half width of the {LEVEL:.0%} t interval of the mean over n random seeds (sample standard "
        "deviation); without ± there is one seed and no interval. k/m means k seeds of m planned."
    )
    if not table.scale:
        lines.append(f"Reproduced means the whole interval within ±{table.margin:g} of the paper's number: {table.margin_why}.")
    if any(column.metric is COLLAPSE for column in table.columns):
        low, high = table.thresholds.collapsed_below, table.thresholds.spread_above
        lines.append(
            f"{COLLAPSE.label} of the projection on test images: below {low:g} collapsed, above {high:g} not collapsed."
        )
    if table.hardware:
        lines.append(f"Measured on {'; '.join(table.hardware)}.")
    return lines


def legend(table: Table) -> list[str]:
    """The marks on the paper's numbers, those that occur."""
    references = [cell.reference for row in table.rows for cell in row.cells if cell.reference]
    lines = [
        f"{MARKS[status]} {status}: {MEANING[status]}"
        for status in MARKS
        if MARKS[status] and any(reference.status == status for reference in references)
    ]
    if any(not reference.printed for reference in references):
        lines.append("? the number is not established")
    return lines


def reasons(table: Table) -> list[tuple[str, str]]:
    """(verdict, why) with the rows it holds for, each reason once."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        verdict = table.cell(row, "verdict").verdict
        if verdict is not None:
            grouped.setdefault((verdict.kind, verdict.sentence), []).append(row.name)
    lines = []
    for (kind, sentence), names in grouped.items():
        whom = "all rows" if len(names) == len(table.rows) and len(names) > 1 else "; ".join(names)
        lines.append((kind, f"{sentence} ({whom})"))
    return lines


def remarks(table: Table) -> list[tuple[str, str]]:
    """(row, remark) for whatever is known about single rows."""
    return [(row.name, note) for row in table.rows for note in row.notes]


def commands(table: Table, brief: bool = False) -> list[tuple[str, str]]:
    """(what it fills, command): one for each incomplete row, or one for all where the whole table is empty.

    `brief`: one for all as soon as several rows are incomplete (finished runs are never repeated, so it does the same).
    """
    incomplete = [row for row in table.rows if not row.complete]
    if len(incomplete) > 1 and not table.has_runs:
        return [("every row", table.command)]
    if len(incomplete) > 2 and brief:
        return [(f"the {len(incomplete)} rows with n below the plan", table.command)]
    return [(row.name, row.command) for row in incomplete]


def status_of(row: Row, table: Table) -> str:
    """The checking status of the paper's number in this row, or ''."""
    reference = table.cell(row, "paper").reference
    return reference.status if reference else ""


def heading(table: Table) -> str:
    """Title and origin in one line."""
    origin = table.paper + (f", arXiv {table.arxiv}" if table.arxiv else "")
    return f"{table.title} ({origin})"


def leftovers(unused: int) -> list[str]:
    """A sentence about runs that no table shows, if there are any."""
    if not unused:
        return []
    runs = "1 finished run belongs" if unused == 1 else f"{unused} finished runs belong"
    return [f"{runs} to no row of these tables (other settings than any profile's)."]
