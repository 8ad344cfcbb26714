"""Numbers over the levels of a factor: SimCLR's heat map of two augmentations, grouped bars, lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.sketch import Sketch
from reports.figures.style import FONT, INK, OURS, PAPER, canvas, cut, legend_right, legend_top, look, wide
from reports.table import Column, Entry, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?(?:e-?\d+)?)(\s*[kK]\b)?(?:/(\d+))?")


def _table(table: Table) -> tuple[list[Row], list[Column]] | None:
    """The published rows and columns, where anything of ours is in them."""
    columns = [column for column in table.columns if column.kind == "published"]
    rows = [row for row in table.rows if not row.own]
    ours = any((entry := row.entries[table.columns.index(c)]) and entry.estimate for row in rows for c in columns)
    return (rows, columns) if ours else None


def _entry(table: Table, row: Row, column: Column) -> Entry | None:
    return row.entries[table.columns.index(column)]


def heatmap(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """Rows x columns, the paper's numbers beside ours. None where nothing of ours is there."""
    if (found := _table(table)) is None:
        return None
    rows, columns = found
    paper, ours = [], []
    for row in rows:
        entries = [_entry(table, row, column) for column in columns]
        paper.append([entry.reference.value if entry and entry.reference else None for entry in entries])
        ours.append([entry.estimate.mean if entry and entry.estimate else None for entry in entries])
    shown = [_short(column.label) for column in columns]
    data = {
        "rows": [_short(row.name) for row in rows],
        "columns": shown,
        "paper": paper,
        "ours": ours,
        "scaled": bool(table.scale),
    }
    says = "Each panel has its own colours, from its lowest number to its highest; hatched cells have no number."
    return Sketch(f"{table.slug}-heatmap", "heatmap", f"The paper's matrix and ours: {table.title}, {table.where}", says, data)


def _short(name: str) -> str:
    """`1st transformation: Crop` -> `Crop`."""
    return cut(name.rpartition(": ")[2], 16)


def paint_heatmap(data: dict[str, Any]) -> Figure:
    import numpy as np
    import seaborn

    rows, columns = data["rows"], data["columns"]
    side = 0.46
    left = wide(rows)
    width = left + 2 * side * len(columns) + 0.9
    height = side * len(rows) + wide(columns) * 0.72 + 0.6
    bottom = wide(columns) * 0.72 + 0.1
    figure, axes = canvas(width, height, 2, left=left + 0.15, right=0.2, top=0.4, bottom=bottom, between=0.45)
    ours = "ours: another scale, compare the pattern" if data["scaled"] else "ours"
    palette = seaborn.color_palette("blend:#f2f0ea,#0173b2", as_cmap=True)
    for number, (ax, values, title) in enumerate(zip(axes, (data["paper"], data["ours"]), ("paper", ours), strict=True)):
        matrix = np.array([[np.nan if v is None else v for v in line] for line in values], dtype=float)
        ax.set_facecolor("none")
        known = matrix[np.isfinite(matrix)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        ax.imshow(matrix, cmap=palette, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value is None:
                    ax.add_patch(_hatched(x, y))
                else:
                    dark = (value - low) / max(high - low, 1e-9) > 0.55
                    color = "white" if dark else "#111111"
                    ax.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=FONT - 2, color=color)
        ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(len(rows)), rows if number == 0 else [""] * len(rows))
        ax.tick_params(length=0)
        ax.set_title(title)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure


def _hatched(x: float, y: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor=INK, alpha=0.25, linewidth=0)


def bars(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """A group for each row, a bar for each column: ours; the paper's number as a line across it."""
    if (found := _table(table)) is None:
        return None
    rows, columns = found
    groups = []
    for row in rows:
        bars_of = []
        for column in columns:
            entry = _entry(table, row, column)
            ours = [entry.estimate.mean, entry.estimate.half_width] if entry and entry.estimate else None
            paper = entry.reference.value if entry and entry.reference else None
            bars_of.append([ours, paper, bool(entry and entry.reference and entry.reference.status != "paper-text")])
        groups.append([cut(row.name, 30), bars_of])
    baseline = next((row.main for row in table.rows if row.id == table.baseline), None)
    floor = baseline.estimate.mean if baseline and baseline.estimate else None
    unit = columns[0].metric.unit if columns[0].metric else ""
    label = f"{columns[0].metric.label}, {unit}" if columns[0].metric else ""
    data = {"groups": groups, "columns": [column.label for column in columns], "axis": label.rstrip(", "), "floor": floor}
    data["scaled"] = bool(table.scale)
    says = "Bars are ours with 95 % intervals over random seeds, the short lines across them the paper's numbers."
    return Sketch(f"{table.slug}-bars", "bars", f"{table.title}, {table.where}", says, data)


def paint_bars(data: dict[str, Any]) -> Figure:
    from matplotlib.lines import Line2D

    groups, columns = data["groups"], data["columns"]
    names = [name for name, _ in groups]
    room = wide(columns if len(columns) > 1 else [], 2.4) + 0.55
    room = max(room, wide(["ours, untrained"]) + 0.5)
    across = min(8.5, max(3.2, len(groups) * (0.2 * len(columns) + 0.25)))
    width = 0.9 + across + room
    turned = max(wide([name]) for name in names) > across / len(groups)
    bottom = (wide(names) * 0.62 + 0.35) if turned else 0.45
    figure, (ax,) = canvas(width, 2.7 + bottom, left=0.65, right=room + 0.1, top=0.35, bottom=bottom)
    entries: dict[str, Any] = {}
    thick = 0.8 / len(columns)
    for place, column in enumerate(columns):
        style = look(place)
        for x, (_, bars_of) in enumerate(groups):
            ours, paper, hollow = bars_of[place]
            at = x - 0.4 + thick * (place + 0.5)
            if ours:
                bar = ax.bar(at, ours[0], thick * 0.92, color=style["color"], alpha=0.85)
                entries.setdefault(column if len(columns) > 1 else "ours", bar)
                if ours[1]:
                    ax.errorbar(at, ours[0], yerr=ours[1], color=INK, capsize=2, linewidth=1)
            if paper is not None:
                reach = thick * 0.46
                ax.plot([at - reach, at + reach], [paper, paper], color=PAPER, linewidth=2, linestyle=":" if hollow else "-")
                entries.setdefault("paper", Line2D([], [], color=PAPER, linewidth=2))
    if data["floor"] is not None:
        entries["ours, untrained"] = ax.axhline(data["floor"], color=INK, alpha=0.5, linestyle=":", linewidth=1)
    ax.set_xticks(range(len(names)), names, rotation=35 if turned else 0, ha="right" if turned else "center")
    ax.set_ylabel(data["axis"])
    if data["scaled"]:
        ax.set_title("another scale: compare the order, not the values", fontsize=8)
    legend_right(figure, entries, width, room)
    return figure


def lines(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """Accuracy over a factor whose levels are numbers: those of the columns where there are several, else those of the rows."""
    if (found := _table(table)) is None:
        return None
    rows, columns = found
    across = [_level(column.label) for column in columns]
    by_column = len(columns) > 1 and sum(level is not None for level in across) > 1
    series: list[list[Any]] = []
    if by_column:
        for row in rows:
            points = [
                _point(level, _entry(table, row, c)) for level, c in zip(across, columns, strict=True) if level is not None
            ]
            series.append([cut(row.name, 30), [point for point in points if point]])
        factor = _factor([column.label for column in columns])
    else:
        levels = [_level(row.name) for row in rows]
        if sum(level is not None for level in levels) < 2:
            return None
        for column in columns:
            points = [
                _point(level, _entry(table, row, column)) for level, row in zip(levels, rows, strict=True) if level is not None
            ]
            series.append([column.label if len(columns) > 1 else "", [point for point in points if point]])
        factor = _factor([row.name for row in rows])
    series = [[name, points] for name, points in series if any(point[1] for point in points)]
    if not series:
        return None
    unit = columns[0].metric.unit if columns[0].metric else ""
    label = f"{columns[0].metric.label}, {unit}".rstrip(", ") if columns[0].metric else ""
    data = {"series": series, "axis": label, "factor": factor, "scaled": bool(table.scale)}
    says = "Solid lines are ours with 95 % intervals over random seeds, dashed ones the paper's numbers."
    return Sketch(f"{table.slug}-lines", "lines", f"{table.title}, {table.where}", says, data)


def _level(label: str) -> float | None:
    """The number in a label such as `batch 256`, `tau=0.07`, `K=65536`, `4k`, `1/8`."""
    found = _NUMBER.search(label.replace("=", " "))
    if not found:
        return None
    value = float(found[1]) * (1000 if found[2] else 1)
    return value / float(found[3]) if found[3] and float(found[3]) else value


def _factor(labels: list[str]) -> str:
    """What the labels have in common before their numbers."""
    first = re.split(r"[\d=]", labels[0])[0].strip(" :,[(")
    return first if first and all(label.startswith(first) for label in labels) else "level"


def _point(level: float, entry: Entry | None) -> list[Any] | None:
    if entry is None:
        return None
    ours = [entry.estimate.mean, entry.estimate.half_width] if entry.estimate else None
    paper = entry.reference.value if entry.reference else None
    return [level, ours, paper] if ours or paper is not None else None


def paint_lines(data: dict[str, Any]) -> Figure:
    from matplotlib.lines import Line2D

    names = [name for name, _ in data["series"] if name]
    room = wide(names, 2.4) + 0.55 if names else 0.2
    width = 4.9 + room
    entries: dict[str, Any] = {}
    levels = sorted({point[0] for _, points in data["series"] for point in points})
    turned = len(levels) > 6
    figure, (ax,) = canvas(width, 3.3, left=0.65, right=room + 0.1, top=0.42, bottom=0.75 if turned else 0.5)
    for number, (name, points) in enumerate(data["series"]):
        style = look(number) if names else {"color": OURS, "marker": "o"}
        points = sorted(points, key=lambda point: point[0])
        ours = [(p[0], *p[1]) for p in points if p[1]]
        if ours:
            x, y, half = zip(*ours, strict=True)
            handle = ax.errorbar(
                x,
                y,
                yerr=[h or 0.0 for h in half],
                color=style["color"],
                marker=style["marker"],
                markersize=4.5,
                capsize=2,
                linewidth=1.4,
            )
            entries.setdefault(name or "ours", handle)
        paper = [(p[0], p[2]) for p in points if p[2] is not None]
        if paper:
            _paper(ax, paper, style["color"] if names else PAPER)
    if levels[0] > 0 and levels[-1] / levels[0] > 20:
        ax.set_xscale("log")
    ax.set_xticks(levels, [f"{level:g}" for level in levels], rotation=35 if turned else 0)
    ax.minorticks_off()
    ax.set(xlabel=data["factor"], ylabel=data["axis"])
    ax.grid(axis="y", alpha=0.12)
    if data["scaled"]:
        ax.set_title("another scale: compare the course, not the values", fontsize=8)
    dashed = {"paper": Line2D([], [], color=INK if names else PAPER, linestyle="--", marker="D", markersize=4)}
    if names:
        legend_right(figure, entries | dashed, width, room)
    else:
        legend_top(figure, entries | dashed)
    return figure


def _paper(ax: Axes, points: list[tuple[float, float]], color: Any) -> None:
    x, y = zip(*points, strict=True)
    ax.plot(x, y, linestyle="--", marker="D", markersize=4, color=color, markerfacecolor="none", linewidth=1)
