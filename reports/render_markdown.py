"""Tables as GitHub Markdown. Text is escaped; nothing is computed here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reports import captions
from reports.grid import grid as layout
from reports.table import Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$]|&(?=#?\w+;))")  # an ampersand alone is itself, &lt; would become another sign


def escape(text: str) -> str:
    """The text with everything Markdown or an HTML-minded reader of it would interpret made literal, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """The text as an inline code span, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence}{text}{fence}" if longest == 0 else f"{fence} {text} {fence}"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """A pipe table of texts that are already escaped, padded so that the source reads well too."""
    widths = [max(3, len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(header)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *(line(row) for row in rows)])


def rows_of(table: Table) -> str:
    """The table proper. A published column that is two here, paper and ours, has its name before both."""
    found = layout(table)
    header = [escape(f"{heading.group}: {heading.text}" if heading.group else heading.text) for heading in found.headings]
    rows = [[escape(cell) for cell in row] for row in found.rows]
    return grid(header, rows, [heading.numeric for heading in found.headings])


def claims_of(table: Table) -> str:
    """The claims with what the runs say, or '' for a table without any."""
    if not table.claims:
        return ""
    rows = [[escape(claim.words), escape(claim.says), escape(claim.verdict.sentence)] for claim in table.claims]
    return grid(["outcome", "the paper says", "why"], rows, [False] * 3)


def render_table(table: Table, level: int = 2) -> str:
    """One table with its claims and everything below it. `level` is that of its heading."""
    parts = ["#" * level + " " + escape(captions.heading(table)), " ".join(map(escape, captions.caption(table)))]
    parts.append(rows_of(table))
    if legend := captions.legend(table):
        parts.append(escape(captions.joined(legend)))
    if claims := claims_of(table):
        parts.append(claims)
    if verdicts := [f"- *{escape(kind)}*: {escape(why)}" for kind, why in captions.reasons(table)]:
        parts.append("\n".join(["Verdicts:", "", *verdicts]))
    if remarks := captions.remarks(table):
        parts.append("\n".join(["Remarks:", "", *(f"- {escape(name)}: {escape(text)}" for name, text in remarks)]))
    if table.departures:
        parts.append("\n".join(["Departures from the papers:", "", *(f"- {escape(text)}" for text in table.departures)]))
    if commands := captions.commands(table):
        parts.append("\n".join(["To fill or complete:", "", *(f"- {escape(name)}: {code(text)}" for name, text in commands)]))
    return "\n\n".join(parts) + "\n"


def render(tables: Sequence[Table], warnings: Sequence[str] = ()) -> str:
    """A whole file: the tables of one id at every profile and data set shown, and what could not be read."""
    parts = [render_table(table) for table in tables]
    if warnings:
        parts.append("\n".join(["## Warnings", "", *(f"- {escape(text)}" for text in warnings)]) + "\n")
    return "\n".join(parts)
