"""Accuracy over a factor whose levels are numbers: ours with intervals, the paper's dashed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.factors import entry, factor, hollow, level, measured, printed, published, value_label
from reports.figures.sketch import Sketch
from reports.figures.style import (
    EMPTY,
    FONT,
    INK,
    LINE,
    OURS,
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
)
from reports.table import Column, Entry, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHED: dict[str, Any] = {"linestyle": "--", "marker": "D", "markersize": 4, "markerfacecolor": "none", "linewidth": 1}


def sketch(table: Table, runs: Mapping[str, Run], empty: bool = False) -> Sketch | None:
    """The levels are those of the columns where there are several, else those of the rows. None where those are no numbers, or
    nothing of ours is there (unless `empty` asks for the paper's alone)."""
    if (found := published(table, empty)) is None:
        return None
    rows, columns = found
    across = [level(column.label) for column in columns]
    if sum(each is not None for each in across) > 1:
        series = [[row.name, _points(across, [entry(table, row, column) for column in columns])] for row in rows]
        name, measures = factor([column.label for column in columns]), columns[:1]
    else:
        down = [level(row.name) for row in rows]
        if len({each for each in down if each is not None}) < 2:
            return None
        series = [[_name(column, columns), _points(down, [entry(table, row, column) for row in rows])] for column in columns]
        name, measures = factor([row.name for row in rows]), columns
    ours = any(point[1] for _, points in series for point in points)
    series = [[name, points] for name, points in series if any(point[1] or (empty and not ours) for point in points)]
    if not series:
        return None
    remark = EMPTY if not ours else SCALED if table.scale else ""
    data = {"series": series, "axis": value_label(measures), "factor": name, "remark": remark}
    says = (
        "Solid lines are ours, with 95 % intervals over random seeds as whiskers and bands (none: one seed), "
        "dashed ones the paper's numbers; a cross is a "
        "number that nobody has seen in the paper itself."
    )
    return Sketch(f"{table.slug}-lines", "lines", f"{table.title}, {table.where}", says, data)


def _name(column: Column, columns: list[Column]) -> str:
    return column.label if len(columns) > 1 else ""


def _points(levels: list[float | None], cells: list[Entry | None]) -> list[list[Any]]:
    """[level, ours, the paper's, whether nobody has seen it there], by level."""
    found = [[at, measured(cell), printed(cell), hollow(cell)] for at, cell in zip(levels, cells, strict=True)]
    there = (point for point in found if point[0] is not None and (point[1] or point[2] is not None))
    return sorted(there, key=lambda point: point[0])


def paint(data: dict[str, Any]) -> Figure:
    series = data["series"]
    named = any(name for name, _ in series)
    marks: dict[str, dict[str, Any]] = {}
    for number, (name, points) in enumerate(series):
        if any(point[1] for point in points):
            marks[cut(name, 2.4) or "ours"] = _look(number, named) | {"linestyle": "-"}
        elif name:
            marks[cut(name, 2.4)] = _DASHED | {"color": look(number)["color"]}
    cells = [point for _, points in series for point in points]
    if any(point[2] is not None for point in cells):
        marks["paper"] = _DASHED | {"color": INK if named else PAPER}
    if any(point[2] is not None and point[3] for point in cells):
        marks["paper, not seen there"] = {"color": INK if named else PAPER, "linestyle": "none", "marker": "x"}
    room = legend_width(list(marks)) + 0.2
    levels = sorted({point[0] for point in cells})
    log = levels[0] > 0 and levels[-1] / levels[0] > 8
    width, height = 4.9 + room, max(3.2, 0.7 + LINE * len(marks))
    figure, (ax,) = canvas(width, height, left=0.65, right=room + 0.1, top=0.35, bottom=0.5)
    if log:
        ax.set_xscale("log")
    for number, (_, points) in enumerate(series):
        _draw(ax, points, _look(number, named), number, _look(number, named)["color"] if named else PAPER)
    ax.margins(x=0.05)
    axis(ax, "x", data["factor"], ticks=_apart(ax, levels, 4.1))
    axis(ax, "y", data["axis"], grid=0.12)
    if data["remark"]:
        heading(ax, data["remark"], FONT)
    legend(figure, marks, width - room, height - 0.45)
    return figure


def _look(number: int, named: bool) -> dict[str, Any]:
    return look(number) if named else {"color": OURS, "marker": "o", "linestyle": "-"}


def _draw(ax: Axes, points: list[list[Any]], how: dict[str, Any], number: int, paper: Any) -> None:
    ours = [(point[0], *point[1]) for point in points if point[1]]
    if ours:
        x, mean, low, high = zip(*ours, strict=True)
        # the paper's are the dashed ones: ours are told apart by colour and marker
        ax.plot(x, mean, color=how["color"], marker=how["marker"], markersize=4.5, linewidth=1.5, gid=f"ours-{number}")
        # a single seed has no interval: the band stops there, and whiskers keep what stands alone between two such
        lows, highs = ([math.nan if v is None else v for v in side] for side in (low, high))
        ax.fill_between(x, lows, highs, color=how["color"], alpha=0.18, linewidth=0)
        whiskers(ax, x, lows, highs, color=how["color"])
    printed = [(point[0], point[2]) for point in points if point[2] is not None]
    if printed:
        ax.plot(*zip(*printed, strict=True), **_DASHED, color=paper, gid=f"paper-{number}")
    unseen = [(point[0], point[2]) for point in points if point[2] is not None and point[3]]
    if unseen:
        ax.plot(*zip(*unseen, strict=True), color=paper, linestyle="none", marker="x", markersize=6, gid=f"hollow-{number}")


def _apart(ax: Axes, levels: list[float], inner: float) -> list[tuple[float, str]]:
    """The levels' numbers, those left out that would stand in another's place."""
    found: list[tuple[float, str]] = []
    low, high = (float(ax.transData.transform((v, 1))[0]) for v in ax.get_xlim())
    end = float("-inf")
    for value in levels:
        word = f"{value:g}" if value < 1e5 or value != int(value) else f"{int(value):,}".replace(",", "\u2009")
        x = (float(ax.transData.transform((value, 1))[0]) - low) / (high - low) * inner
        fits = x - wide(word) / 2 > end
        found.append((value, word if fits else ""))
        end = x + wide(word) / 2 + 0.06 if fits else end
    return found
