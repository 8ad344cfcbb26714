"""Tables for a terminal: what `make smoke` ends with. Readable at 80 columns; from 130 on with the reasons and with all that
was measured beside."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from reports import captions
from reports.assemble import Report
from reports.metrics import COLLAPSE
from reports.table import Column, Entry, Table

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
    """Every table of which something was trained (all of them where nothing was), then what could not be read."""
    trained = [table for table in report.tables if table.trained]
    for table in trained or report.tables:
        print_table(table, console)
    for line in (*(f"warning: {text}" for text in report.warnings), *captions.leftovers(report.unused)):
        console.print(Text(line, style="yellow"))


def print_table(table: Table, console: Console) -> None:
    """One table, its claims, and the commands for what is missing."""
    console.print(Text(captions.heading(table), style="bold"))
    if table.sweep:
        console.print(Text(table.where, style="dim"))
    else:
        console.print(Text(f"Nothing here fills it: {table.missing}", style="dim"))
    wide = console.width >= WIDE
    for part in [_single(table, wide)] if table.single else _several(table, console.width):
        console.print(part)
    notes = [f"Not comparable: {table.scale}."] if table.scale else []
    if not table.single and any(entry.display == "not run" for row in table.rows for entry in row.cells):
        notes.append("Beside the paper's number: ours, · where it has not run")
    for line in (*notes, *captions.measures(table), *captions.legend(table)):
        console.print(Text(line, style="dim"))
    if table.claims:
        console.print(_claims(table))
    for name, command in captions.commands(table, brief=True):
        console.print(Text(f"To fill {name}:", style="dim"))
        console.print(Text(f"  {command}"), soft_wrap=True)
    console.print()


def _single(table: Table, wide: bool) -> Grid:
    grid = _grid()
    published = [i for i, column in enumerate(table.columns) if column.kind == "published"]
    others = [i for i, column in enumerate(table.columns) if i not in published]
    explained = wide and any(captions.why(row, table) for row in table.rows)
    shown = [i for i in others if wide or not published or table.columns[i].metric is COLLAPSE]
    documented = any(entry.reference and entry.reference.document for row in table.rows for entry in row.cells)
    grid.add_column("row", ratio=1, min_width=16)
    for place in published:
        grid.add_column("paper", justify="right", no_wrap=True)
        if documented:
            grid.add_column("doc.", justify="right", no_wrap=True)
        grid.add_column(_header("ours", table.columns[place]), justify="right")
    for place in shown:
        grid.add_column(_header(table.columns[place].label, table.columns[place]), justify="right")
    grid.add_column("n", justify="right", no_wrap=True)
    if published:
        grid.add_column("verdict", no_wrap=True)
        if explained:
            grid.add_column("why", ratio=2)
    for row in table.rows:
        cells = [Text(row.name)]
        for place in published:
            entry = row.entries[place]
            cells.append(Text(entry.paper if entry else ""))
            if documented:
                cells.append(Text(entry.reference.document if entry and entry.reference else ""))
            cells.append(_measured(entry))
        cells += [_measured(row.entries[place]) for place in shown]
        main = (row.entries[published[0]] if published else None) or row.main
        cells.append(Text(main.seeds if main and main.training else ""))
        if published:
            entry = row.entries[published[0]]
            kind = entry.verdict.kind if entry and entry.verdict else ""
            cells.append(Text(entry.outcome if entry else "", style=_STYLES.get(kind, "")))
            if explained:
                cells.append(Text(captions.why(row, table), style="dim"))
        grid.add_row(*cells)
    return grid


def _several(table: Table, width: int) -> list[Grid]:
    """As many grids below one another as the width needs; each column is `paper ours`."""
    places = [i for i, column in enumerate(table.columns) if column.kind == "published" or width >= WIDE]
    name = min(28, max(len(row.name) for row in table.rows))
    each = max(9, *(len(_pair(row.entries[i]).plain) for row in table.rows for i in places)) + 2
    count = -(-len(places) // max(1, (width - name - 8) // each))
    share = -(-len(places) // max(1, count))
    grids = []
    for start in range(0, len(places), share):
        some = places[start : start + share]
        grid = _grid()
        grid.add_column("row", ratio=1, min_width=12)
        for place in some:
            grid.add_column(_header(table.columns[place].label, table.columns[place]), justify="right")
        for row in table.rows:
            grid.add_row(Text(row.name), *(_pair(row.entries[place]) for place in some))
        grids.append(grid)
    return grids


def _grid() -> Grid:
    return Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _header(text: str, column: Column) -> str:
    """With the unit, which an AP carries in its name, and an arrow to the better end."""
    unit = column.metric.unit if column.metric and column.metric.unit != "AP" and column.metric.unit not in text else ""
    return " ".join(part for part in (text, unit, column.metric.arrow if column.metric else "") if part)


def _pair(entry: Entry | None) -> Text:
    """The paper's number, then ours in its verdict's colour and with its mark."""
    if entry is None:
        return Text("")
    text = Text(entry.paper)
    ours = entry.display.replace(" ± ", "±").replace("not run", "·")
    style = _STYLES.get(entry.verdict.kind, "") if entry.verdict else ""
    return text.append(f" {ours}{captions.outcome_mark(entry)}", style="dim" if ours in ("·", "-") else style)


def _measured(entry: Entry | None) -> Text:
    text = entry.display.replace(" ± ", "±") if entry else ""
    return Text(text, style="dim" if text in ("not run", "not evaluated", "-") else "")


def _claims(table: Table) -> Grid:
    grid = _grid()
    grid.add_column("outcome", max_width=15)
    grid.add_column("the paper says; what these runs show", ratio=1)
    for claim in table.claims:
        says = Text(claim.says).append("\n" + claim.verdict.sentence, style="dim")
        grid.add_row(Text(claim.words, style=_STYLES.get(claim.verdict.outcome, "")), says)
    return grid
