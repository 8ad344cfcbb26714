"""The sentences around a table, as plain text: the same in every output format, which only escapes and places them."""

from __future__ import annotations

from collections.abc import Iterable

from reports.aggregate import LEVEL
from reports.metrics import COLLAPSE
from reports.reference import MEANING
from reports.table import MARKS, Entry, Row, Table

# What stands behind our number where paper and ours share a narrow column.
OUTCOMES = {"reproduced": "=", "differs": "≠", "undecided": "?", "not comparable": "~", "not run": ""}


def heading(table: Table) -> str:
    """Title and origin in one line."""
    return f"{table.title} ({origin(table)})" if table.published else table.title


def origin(table: Table) -> str:
    """Paper, table or figure, arXiv number."""
    parts = [table.paper, table.source, f"arXiv {table.arxiv}" if table.arxiv else ""]
    return ", ".join(part for part in parts if part)


def caption(table: Table, scale: bool = True) -> list[str]:
    """What a reader must know before reading a number; `scale=False` where the page says that part elsewhere."""
    lines = [f"The paper's protocol: {_sentence(table.protocol)}"] if table.published else [_sentence(table.protocol)]
    if not table.sweep:
        return [*lines, f"Nothing here fills this table: {_sentence(table.missing)}"]
    lines.append(f"Ours: {table.where}" + (f": {_sentence(table.about)}" if table.about else "."))
    if table.scale and scale:
        lines.append(f"Numbers are not comparable with the paper's: {table.scale}. Claims are tested in their direction only.")
    lines += measures(table)
    if not table.has_runs:
        return lines
    kinds = dict.fromkeys(entry.estimate.kind for row in table.rows for entry in row.cells if entry.estimate)
    named = " or ".join({"t": "Student's t", "bootstrap": "a studentized bootstrap"}[kind] for kind in kinds) or "Student's t"
    lines.append(
        f"± is the half width of the {LEVEL:.0%} interval of the mean over n random seeds ({named}); without ± there is one "
        "seed and no interval. k/m means k seeds of m planned."
    )
    if not table.scale:
        lines += margins(table)
    if table.claims:
        lines.append(f"The claims of this table are one family, tested at {LEVEL:.0%} together (Holm).")
    if any(column.metric is COLLAPSE for column in table.columns):
        low, high = table.thresholds.collapsed_below, table.thresholds.spread_above
        lines.append(
            f"{COLLAPSE.label} of the projection on test images: below {low:g} collapsed, above {high:g} not collapsed."
        )
    if table.hardware:
        lines.append(f"Measured on {'; '.join(table.hardware)}.")
    return lines


def measures(table: Table) -> list[str]:
    """What ours is in each published column, where paper and ours stand under the column's own name."""
    if table.single:
        return []
    grouped: dict[str, list[str]] = {}
    for column in table.columns:
        if column.kind == "published" and column.metric is not None:
            name, _, last = column.metric.label.rpartition(" ")
            shared = column.metric.unit == "AP" and name and f" {column.label}".endswith(f" {last}")
            grouped.setdefault(name if shared else column.metric.label, []).append(column.label)
    if len(grouped) == 1:
        return [f"Ours is {next(iter(grouped))}."]
    said = [f"{name} in {', '.join(labels)}" for name, labels in grouped.items() if labels != [name]]
    return [f"Ours is {'; '.join(said)}."] if said else []


def margins(table: Table) -> list[str]:
    """What "reproduced" means, once for all columns that share a margin."""
    grouped: dict[tuple[float, str], list[str]] = {}
    for column in table.columns:
        if column.margin:
            grouped.setdefault((column.margin, column.margin_why), []).append(column.label)
    several = len(grouped) > 1
    return [
        f"Reproduced means the whole interval within ±{margin:g} of the paper's number"
        + (f" ({', '.join(labels)})" if several else "")
        + f": {_sentence(why)}"
        for (margin, why), labels in grouped.items()
    ]


def legend(table: Table) -> list[str]:
    """The marks on the paper's numbers, and on ours where the verdict is a mark; those that occur."""
    entries = [entry for row in table.rows for entry in row.cells]
    references = [entry.reference for entry in entries if entry.reference]
    lines = []
    for mark in dict.fromkeys(MARKS.values()):
        found = [status for status in MARKS if MARKS[status] == mark and any(r.status == status for r in references)]
        if mark and found:
            lines.append(f"{mark} {'; '.join(f'{status}: {MEANING[status]}' for status in found)}")
    if any(not reference.printed for reference in references):
        lines.append("? in the paper's column: the number is not established, or the paper prints none")
    if not table.single:
        kinds = dict.fromkeys(entry.verdict.kind for entry in entries if entry.verdict and entry.estimate)
        marks = [f"{OUTCOMES[kind]} {kind}" for kind in kinds if OUTCOMES[kind]]
        if marks:
            lines.append(f"Behind our number: {', '.join(marks)}")
    return lines


def reasons(table: Table) -> list[tuple[str, str]]:
    """(verdict, why) with the cells it holds for, each reason once."""
    grouped: dict[tuple[str, str], list[str]] = {}
    total = 0
    for row in table.rows:
        for column, entry in table.pairs(row):
            if entry is None or entry.verdict is None:
                continue
            total += 1
            name = row.name if table.single else f"{row.name}, {column.label}"
            grouped.setdefault((entry.verdict.kind, entry.verdict.sentence), []).append(name)
    lines = []
    for (kind, sentence), names in grouped.items():
        lines.append((kind, f"{sentence} ({_whom(names, total)})"))
    return lines


def _whom(names: list[str], total: int) -> str:
    if len(names) == total and total > 1:
        return "all cells"
    return "; ".join(names) if len(names) <= 4 else f"{'; '.join(names[:3])} and {len(names) - 3} more"


def remarks(table: Table) -> list[tuple[str, str]]:
    """(row, remark) for whatever is known about single rows; what holds for several is said once."""
    grouped: dict[str, list[str]] = {}
    for row in table.rows:
        for note in row.notes:
            grouped.setdefault(note, []).append(row.name)
    return [("; ".join(names) if len(names) <= 4 else f"{len(names)} rows", note) for note, names in grouped.items()]


def commands(table: Table, brief: bool = False) -> list[tuple[str, str]]:
    """(what it fills, command): one for each incomplete training, or one for all where the whole table is empty.

    `brief`: one for all as soon as several are incomplete (finished runs are never repeated, so it does the same).
    """
    wanted: dict[str, list[str]] = {}
    for row in table.rows:
        for entry in row.cells:
            if entry.command:
                wanted.setdefault(entry.command, []).append(entry.training)
    if not wanted:
        return []
    if len(wanted) > 1 and not table.has_runs:
        return [("every row", table.command)]
    if len(wanted) > 2 and brief:
        return [(f"the {len(wanted)} trainings with n below the plan", table.command)]
    return [(trainings[0], command) for command, trainings in wanted.items()]


def why(row: Row, table: Table) -> str:
    """The reason of the row's main verdict, unless it is the one printed for the whole table."""
    reason = row.main.verdict.sentence if row.main and row.main.verdict else ""
    return "" if reason == table.scale else reason


def outcome_mark(entry: Entry) -> str:
    """A verdict as a single character behind our number, '' where there is none or nothing to mark."""
    return OUTCOMES[entry.verdict.kind] if entry.verdict and (entry.estimate or entry.diverged) else ""


def leftovers(unused: int) -> list[str]:
    """A sentence about runs that no table shows, if there are any."""
    if not unused:
        return []
    runs = "1 finished run belongs" if unused == 1 else f"{unused} finished runs belong"
    return [f"{runs} to no row of these tables (other settings than any profile's)."]


def _sentence(text: str) -> str:
    """With a full stop, whether or not it came with one."""
    return " ".join(text.split()).rstrip(".") + "." if text.strip() else ""


def joined(texts: Iterable[str]) -> str:
    """Several sentences without full stops as one paragraph."""
    return " ".join(_sentence(text) for text in texts)
