"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show(record: Mapping[str, Any], console: Console) -> None:
    """Ours beside their peers, the goals and whether they are met; what each peer did; what could not be measured."""
    results = record["results"]
    alone = {(line["bench"], line["subject"]): line for line in results if line["peer"] is None}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("bench", "ours", "", "beside", "", "ratio", "goal", ""):
        table.add_column(name, justify="right" if name == "ratio" else "left", overflow="fold")
    beside = {(line["bench"], line["peer"]) for line in results if line["peer"]}
    last = None
    for line in results:
        if (line["bench"], line["subject"]) in beside:
            continue  # a peer: its number stands in the lines of ours
        peer = alone.get((line["bench"], line["peer"]))
        head = (line["bench"], line["subject"], amount(line))
        shown, last = ("", "", "") if head == last else head, head  # said once for all of its peers
        table.add_row(
            *map(escape, shown), escape(line["peer"] or ""), _number(peer["median"]) if peer else "",
            f"{line['ratio']:.2f}" if line["ratio"] is not None else "", escape(line["goal"] or ""), _met(line["met"]),
        )  # fmt: skip
    console.print(table)
    for bench, subject in sorted(beside):
        if (found := alone.get((bench, subject))) and found["detail"]:
            console.print(escape(f"{bench}, {subject}: {found['detail']}"), style="dim")
    for line in results:
        if line["unit"] == "MiB":
            console.print(escape(f"{line['subject']}: {line['detail']}"), style="dim")
    for missing in record["missing"]:
        console.print(escape(f"not measured: {missing['bench']}, {missing['subject']}: {missing['why']}"), style="yellow")
    machine = record["machine"]
    console.print(escape(f"{machine['cpu']}, {machine['cores']} cores, torch {record['versions'].get('torch')}."))
    for name, words in record["images"].items():
        console.print(escape(f"{name} images: {words}."))
    if record["quick"]:
        console.print("A quick run shows that everything runs; its numbers say nothing.", style="yellow")


def amount(line: Mapping[str, Any]) -> str:
    """ "52,300 images/s (51,000 to 53,100)" """
    median, low, high = (_number(line[key]) for key in ("median", "low", "high"))
    return f"{median} {line['unit']}" + ("" if low == high else f" ({low} to {high})")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _met(met: bool | None) -> str:
    return "" if met is None else "[green]met[/green]" if met else "[red]missed[/red]"
