"""Tables for a terminal: what `make smoke` ends with. Readable at 80 columns, with kNN and the reasons from 130 on."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from reports import captions
from reports.assemble import Report
from reports.metrics import COLLAPSE
from reports.table import Row, Table

WIDE = 130
_STYLES = {
    "reproduced": "green",
    "supported": "green",
    "differs": "red",
    "contradicted": "red",
    "undecided": "yellow",
    "not comparable": "cyan",
    "not run": "dim",
}


def print_report(report: Report, console: Console) -> None:
    """Every shown table, then what could not be read."""
    for table in report.tables:
        print_table(table, console)
    for line in (*(f"warning: {text}" for text in report.warnings), *captions.leftovers(report.unused)):
        console.print(Text(line, style="yellow"))


def print_table(table: Table, console: Console) -> None:
    """One table, its claims, and the commands for what is missing."""
    console.print(Text(captions.heading(table), style="bold"))
    console.print(Text(f"{table.where}; ours: {table.primary.label} top-1 on test images", style="dim"))
    console.print(_numbers(table, console.width >= WIDE))
    for line in (*([f"Not comparable: {table.scale}."] if table.scale else []), *captions.legend(table)):
        console.print(Text(line, style="dim"))
    if table.claims:
        console.print(_claims(table))
    for name, command in captions.commands(table, brief=True):
        console.print(Text(f"To fill {name}:", style="dim"))
        console.print(Text(f"  {command}"), soft_wrap=True)
    console.print()


def _numbers(table: Table, wide: bool) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    others = [column.metric for column in table.columns if column.metric and not column.primary]
    shown = [metric for metric in others if wide or metric is COLLAPSE]
    grid.add_column("row", ratio=1, min_width=16)
    grid.add_column("paper", justify="right", no_wrap=True)
    grid.add_column("doc.", justify="right", no_wrap=True)
    grid.add_column(f"ours {table.primary.unit}".strip(), justify="right")
    for metric in shown:
        grid.add_column(metric.label, justify="right")
    grid.add_column("n", justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    if wide:
        grid.add_column("why", ratio=2)
    for row in table.rows:
        verdict = table.cell(row, "verdict")
        kind = verdict.verdict.kind if verdict.verdict else ""
        cells = [
            Text(row.name),
            Text(table.cell(row, "paper").display),
            Text(table.cell(row, "document").display),
            _measured(table.cell(row, "measured").display),
            *(_measured(table.cell(row, "measured", metric).display) for metric in shown),
            Text(table.cell(row, "n").display),
            Text(verdict.display, style=_STYLES.get(kind, "")),
        ]
        grid.add_row(*cells, *([Text(_why(row, table), style="dim")] if wide else []))
    return grid


def _why(row: Row, table: Table) -> str:
    """The reason, unless it is the one already printed for the whole table."""
    reason = table.cell(row, "verdict").reason
    return "" if reason == table.scale else reason


def _measured(display: str) -> Text:
    text = display.replace(" ± ", "±")
    return Text(text, style="dim" if text in ("not run", "not evaluated") else "")


def _claims(table: Table) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("outcome", max_width=15)
    grid.add_column("the paper says; what these runs show", ratio=1)
    for claim in table.claims:
        says = Text(claim.says).append("\n" + claim.verdict.sentence, style="dim")
        grid.add_row(Text(claim.words, style=_STYLES.get(claim.verdict.outcome, "")), says)
    return grid
