"""Grouped bars: a group for each row, a bar for each column. Ours; the paper's number as a line across."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.factors import entry, hollow, measured, printed, published, value_label
from reports.figures.sketch import Sketch
from reports.figures.style import (
    EMPTY,
    INK,
    LINE,
    PAPER,
    SCALED,
    axis,
    canvas,
    cut,
    heading,
    legend,
    legend_width,
    look,
    whiskers,
    wide,
    widest,
)
from reports.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo", "++")
_SEEN: dict[str, Any] = {"color": PAPER, "linewidth": 2.2, "linestyle": "-"}
_UNSEEN: dict[str, Any] = {"color": PAPER, "linewidth": 2.2, "linestyle": (0, (1, 0.8))}
_FLOOR: dict[str, Any] = {"color": INK, "alpha": 0.6, "linestyle": ":", "linewidth": 1}


def sketch(table: Table, runs: Mapping[str, Run], empty: bool = False) -> Sketch | None:
    """None where nothing of ours is there, unless `empty` asks for the paper's alone."""
    if (found := published(table, empty)) is None:
        return None
    rows, columns = found
    groups = []
    for row in rows:
        cells = [entry(table, row, column) for column in columns]
        groups.append([row.name, [[measured(cell), printed(cell), hollow(cell)] for cell in cells]])
    groups = [[name, bars] for name, bars in groups if any(ours or paper is not None for ours, paper, _ in bars)]
    kept = [i for i in range(len(columns)) if any(bars[i][0] or bars[i][1] is not None for _, bars in groups)]
    baseline = next((row.main for row in table.rows if row.id == table.baseline), None)
    ours = any(bar[0] for _, bars in groups for bar in bars)
    data = {
        "groups": [[name, [bars[i] for i in kept]] for name, bars in groups],
        "columns": [columns[i].label for i in kept],
        "axis": value_label([columns[i] for i in kept]),
        "floor": baseline.estimate.mean if baseline and baseline.estimate else None,
        "remark": EMPTY if not ours else SCALED if table.scale else "",
    }
    says = "Bars are ours with 95 % intervals over random seeds, the lines across them the paper's numbers; "
    says += "a dotted one is a number that nobody has seen in the paper itself."
    return Sketch(f"{table.slug}-bars", "bars", f"{table.title}, {table.where}", says, data)


def paint(data: dict[str, Any]) -> Figure:
    from matplotlib.collections import LineCollection, PolyCollection

    groups, columns = data["groups"], [cut(name, 2.2) for name in data["columns"]]
    names, marks = [cut(name, 2.4) for name, _ in groups], _legend(data, columns)
    room = legend_width(list(marks)) + 0.2
    across = min(9.0, max(3.2, len(groups) * (0.16 * len(columns) + 0.25)))
    turned = any(wide(name) + 0.15 > across / len(groups) for name in names)
    bottom = widest(names) * 0.6 + 0.3 if turned else 0.35
    # a turned label reaches to the left of its group
    overhang = max((wide(name) * 0.82 - across * (i + 0.5) / len(groups) for i, name in enumerate(names)), default=0.0)
    left = max(0.65, overhang + 0.1) if turned else 0.65
    width, height = left + across + room + 0.15, max(2.6 + bottom, 0.7 + LINE * len(marks))
    figure, (ax,) = canvas(width, height, left=left, right=room + 0.15, top=0.35, bottom=bottom)
    thick = 0.8 / len(columns)
    values = [v for _, bars in groups for ours, paper, _ in bars for v in (*(ours or ()), paper) if v is not None]
    low = _start([*values, data["floor"]] if data["floor"] is not None else values)
    for place in range(len(columns)):
        at = [x - 0.4 + thick * (place + 0.5) for x in range(len(groups))]
        bars = [(x, line[place]) for x, (_, line) in zip(at, groups, strict=True)]
        ours = [(x, bar[0]) for x, bar in bars if bar[0]]
        if data["remark"] == EMPTY:  # outlines, so that the columns are told apart all the same
            ours = [(x, [bar[1], None, None]) for x, bar in bars if bar[1] is not None]
        reach = thick * 0.46
        if ours:
            corners = [[(x - reach, low), (x - reach, v[0]), (x + reach, v[0]), (x + reach, low)] for x, v in ours]
            style = _bar(place, len(columns), data["remark"] == EMPTY)
            ax.add_collection(
                PolyCollection(corners, **style, gid=f"{'outline' if data['remark'] == EMPTY else 'ours'}-{place}")
            )
            several = [(x, v[1], v[2]) for x, v in ours if v[1] is not None]
            if several:
                whiskers(ax, *zip(*several, strict=True), color=INK)
        for flag, style in ((False, _SEEN), (True, _UNSEEN)):
            lines = [[(x - reach, bar[1]), (x + reach, bar[1])] for x, bar in bars if bar[1] is not None and bar[2] == flag]
            if lines:
                name = f"{'hollow' if flag else 'paper'}-{place}"
                ax.add_collection(LineCollection(lines, **_plural(style), zorder=3, gid=name))
    if data["floor"] is not None:
        ax.axhline(data["floor"], **_FLOOR)
    high = max([*values, data["floor"] or low])
    ax.set(xlim=(-0.6, len(groups) - 0.4), ylim=(low, high + 0.06 * (high - low or 1.0)))
    axis(ax, "x", ticks=list(enumerate(names)), turned=turned, marks=False)
    axis(ax, "y", data["axis"], grid=0.12)
    if data["remark"] or low:
        starts = f"the axis begins at {low:g}" if low else ""
        heading(ax, "; ".join(filter(None, (data["remark"], starts))), 8)
    legend(figure, marks, width - room, height - 0.4)
    return figure


def _start(values: list[float]) -> float:
    """Where bars begin: 0, unless all of them would then look alike."""
    low, high = min(values), max(values)
    if low <= 0 or high - low > 0.35 * high:
        return min(0.0, low * 1.05)
    step = 10.0 ** math.floor(math.log10(high - low or high))
    return max(0.0, math.floor((low - 0.6 * (high - low)) / step) * step)


def _bar(place: int, columns: int, outline: bool) -> dict[str, Any]:
    if outline:
        color = look(place)["color"]
        return {"facecolor": "none", "edgecolor": color, "hatch": _HATCHES[place % len(_HATCHES)], "linewidth": 1}
    hatch = _HATCHES[place % len(_HATCHES)] if columns > 1 else ""
    return {"facecolor": look(place)["color"], "edgecolor": INK, "hatch": hatch, "alpha": 0.85, "linewidth": 0}


def _plural(style: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}s": value for name, value in style.items()}


def _legend(data: dict[str, Any], columns: list[str]) -> dict[str, dict[str, Any]]:
    cells = [bar for _, bars in data["groups"] for bar in bars]
    marks: dict[str, dict[str, Any]] = {}
    empty = data["remark"] == EMPTY
    if not empty or len(columns) > 1:
        for place, name in enumerate(columns):
            marks[name if len(columns) > 1 else "ours"] = {"bar": True} | _bar(place, len(columns), empty)
    for name, flag, style in (("paper", False, _SEEN), ("paper, not seen there", True, _UNSEEN)):
        if any(bar[1] is not None and bar[2] == flag for bar in cells):
            marks[name] = style
    if data["floor"] is not None:
        marks["ours, untrained"] = _FLOOR
    return marks
