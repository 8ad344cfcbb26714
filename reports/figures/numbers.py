"""The paper's numbers and ours, row by row: a dot plot, one panel for each of the first columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.sketch import Sketch
from reports.figures.style import (
    EMPTY,
    FONT,
    INK,
    OURS,
    PAPER,
    SCALED,
    axis,
    canvas,
    cut,
    legend,
    legend_width,
    whiskers,
    widest,
)
from reports.table import Column, Entry, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 4  # columns beside one another; a table of more has its first ones drawn


def sketch(table: Table, runs: Mapping[str, Run], empty: bool = False) -> Sketch | None:
    """None where no column has a number of ours, unless `empty` asks for the paper's alone."""
    columns = [column for column in table.columns if column.kind == "published"] or list(table.columns[:1])
    panels = [panel for column in columns if (panel := _panel(table, column, empty))][:_PANELS]
    if not panels:
        return None
    names = [row.name for row in table.rows]
    kept = [i for i in range(len(names)) if any(panel["paper"][i] is not None or panel["ours"][i] for panel in panels)]
    for panel in panels:
        for key in ("paper", "hollow", "ours"):
            panel[key] = [panel[key][i] for i in kept]
    ours = any(found for panel in panels for found in panel["ours"])
    remark = EMPTY if not ours else SCALED if table.scale else ""
    data = {"rows": [names[i] for i in kept], "panels": panels, "remark": remark}
    says = (
        "Whiskers are 95 % intervals over random seeds; a point without whiskers is one seed. A hollow diamond is a published "
        "number that nobody has seen in the paper itself."
    )
    return Sketch(f"{table.slug}-numbers", "numbers", f"The paper's numbers and ours: {table.title}, {table.where}", says, data)


def _panel(table: Table, column: Column, empty: bool) -> dict[str, Any] | None:
    place = table.columns.index(column)
    entries = [row.entries[place] for row in table.rows]
    if not any(entry and (entry.estimate or (empty and _printed(entry) is not None)) for entry in entries):
        return None
    ours = [
        [found.mean, found.low, found.high] if entry and (found := entry.estimate) and math.isfinite(found.mean) else None
        for entry in entries
    ]
    baseline = table.entry(table.baseline, column.id) if table.baseline else None
    floor = baseline.estimate.mean if baseline and baseline.estimate else None
    unit = f", {column.metric.unit}" if column.metric and column.metric.unit else ""
    measured = column.metric.label if column.metric else ""
    label = column.label if measured in ("", column.label) else f"{column.label} (ours: {measured})"
    return {
        "label": label + unit,
        "paper": [_printed(entry) for entry in entries],
        "hollow": [bool(entry and entry.reference and not entry.reference.gates) for entry in entries],
        "ours": ours,
        "floor": floor,
    }


def _printed(entry: Entry | None) -> float | None:
    return entry.reference.value if entry and entry.reference else None


def paint(data: dict[str, Any]) -> Figure:
    panels = data["panels"]
    rows = [cut(name) for name in data["rows"]]
    each = 4.4 if len(panels) == 1 else 2.5
    left = widest(rows) + 0.3
    marks = _legend(panels)
    width = max(left + len(panels) * (each + 0.3), legend_width(list(marks), flat=True) + 0.2)
    top = 0.62 if data["remark"] else 0.4
    height = top + 0.55 + 0.25 * max(len(rows), 2)
    figure, axes = canvas(width, height, columns=len(panels), left=left, right=0.2, top=top, bottom=0.5, between=0.3)
    for number, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        _draw(ax, panel, number)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.spines["left"].set_visible(False)
        names = [(float(y), name if number == 0 else "") for y, name in enumerate(rows)]
        axis(ax, "y", ticks=names, marks=False, grid=0.15)
        inner = (width - left - 0.2) / len(panels) - 0.15
        axis(ax, "x", cut(panel["label"], inner, FONT), most=int(inner / 0.5))
    if data["remark"]:
        figure.text(left, height - 0.46, data["remark"], transform=figure.dpi_scale_trans, fontsize=FONT)
    legend(figure, marks, max(0.1, min(left, width - legend_width(list(marks), flat=True))), height - 0.18, flat=True)
    return figure


_MARKS: dict[str, dict[str, Any]] = {
    "paper": {"color": PAPER, "marker": "D", "linestyle": "none", "markersize": 5},
    "paper, not seen there": {"color": PAPER, "marker": "D", "linestyle": "none", "markersize": 5, "markerfacecolor": "none"},
    "ours": {"color": OURS, "marker": "o", "linestyle": "-", "markersize": 5},
    "ours, untrained": {"color": INK, "alpha": 0.6, "linestyle": ":", "linewidth": 1},
}


def _legend(panels: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    both = [pair for panel in panels for pair in zip(panel["paper"], panel["hollow"], strict=True)]
    hollow = [flag for value, flag in both if value is not None]
    shown = {
        "paper": not all(hollow),
        "paper, not seen there": any(hollow),
        "ours": any(found for panel in panels for found in panel["ours"]),
        "ours, untrained": any(panel["floor"] is not None for panel in panels),
    }
    return {name: _MARKS[name] for name, there in shown.items() if there}


def _draw(ax: Axes, panel: dict[str, Any], number: int) -> None:
    if panel["floor"] is not None:
        ax.axvline(panel["floor"], **_MARKS["ours, untrained"], zorder=1)
    for hollow, label in ((False, "paper"), (True, "paper, not seen there")):
        points = [(v, y) for y, v in enumerate(panel["paper"]) if v is not None and panel["hollow"][y] == hollow]
        if points:
            ax.plot(*zip(*points, strict=True), **_MARKS[label], gid=f"{'hollow' if hollow else 'paper'}-{number}")
    several = [(y, found[1], found[2]) for y, found in enumerate(panel["ours"]) if found and found[1] is not None]
    if several:
        whiskers(ax, *zip(*several, strict=True), color=OURS, flat=True)
    points = [(found[0], y) for y, found in enumerate(panel["ours"]) if found]
    if points:
        ax.plot(*zip(*points, strict=True), **_MARKS["ours"] | {"linestyle": "none"}, gid=f"ours-{number}")
