"""Accuracy against what it cost: a point for each row, so that a cheaper one that reaches as much is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures.sketch import Sketch
from reports.figures.style import LINE, SMALL, axis, canvas, cut, legend, legend_width, look, whiskers, wide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """hours: of one training, the mean over its seeds. accuracy in percent; low, high: its interval, None for one seed."""

    label: str
    hours: float
    accuracy: float
    low: float | None
    high: float | None
    group: str


def cost_against_accuracy(name: str, title: str, points: Sequence[Point], axis: str = "accuracy, %") -> Sketch | None:
    """None where there are fewer than two points."""
    if len(points) < 2:
        return None
    rows = [[p.label, p.hours, p.accuracy, p.low, p.high, p.group] for p in points if p.hours > 0]
    says = "Each point is a row: hours of one training against its accuracy; whiskers are 95 % intervals over random seeds. "
    says += "Names that would cover one another are left out."
    return Sketch(name, "cost", title, says, {"points": rows, "axis": axis}) if len(rows) > 1 else None


def paint(data: dict[str, Any]) -> Figure:
    points = data["points"]
    groups = list(dict.fromkeys(point[5] for point in points))
    marks = {cut(group, 2.4): look(number) | {"linestyle": "none"} for number, group in enumerate(groups)}
    room = legend_width(list(marks)) + 0.2
    width, inner, tall = 5.6 + room, 4.8, 3.3
    height = max(tall + 0.75, 0.5 + LINE * len(groups))
    figure, (ax,) = canvas(width, height, left=0.7, right=room + 0.1, top=0.2, bottom=height - tall - 0.2)
    for how, group in zip(marks.values(), groups, strict=True):
        members = [point for point in points if point[5] == group]
        several = [(p[1], p[3], p[4]) for p in members if p[3] is not None and p[4] is not None]
        if several:
            whiskers(ax, *zip(*several, strict=True), color=how["color"])
        ax.plot([p[1] for p in members], [p[2] for p in members], **how, markersize=5, gid=f"points-{groups.index(group)}")
    hours = [point[1] for point in points]
    if max(hours) > 3 * min(hours):
        ax.set_xscale("log")
        ax.set_xlim(min(hours) / 1.25, max(hours) * 1.6)
    else:
        ax.margins(x=0.15)
    _labels(ax, points, inner, tall)
    axis(ax, "x", "hours of one training", grid=0.12, ticks=_hours(*ax.get_xlim()) if ax.get_xscale() == "log" else None)
    axis(ax, "y", data["axis"], grid=0.12)
    legend(figure, marks, width - room, height - 0.35)
    return figure


def _hours(low: float, high: float) -> list[tuple[float, str]]:
    """1, 2 and 5 of each decade, or the decades alone where those are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low <= 1000 else (1,)
    found = [digit * 10.0**decade for decade in decades for digit in digits]
    return [(value, f"{value:g}") for value in found if low <= value <= high]


def _labels(ax: Axes, points: list[list[Any]], inner: float, tall: float) -> None:
    """Names beside the points, those that fit without covering a point or another name."""
    ax.autoscale_view()
    transform, box = ax.transData, ax.bbox
    places = [transform.transform((p[1], p[2])) for p in points]
    inch = box.width / inner
    high = SMALL / 72 * inch * 1.1
    taken = [(x - 0.05 * inch, y - 0.05 * inch, x + 0.05 * inch, y + 0.05 * inch) for x, y in places]
    for (x, y), point in zip(places, points, strict=True):
        text = cut(point[0], 1.6, SMALL - 1)
        length = wide(text, SMALL - 1) * inch
        for side, up in ((1, 0.5), (-1, 0.5), (1, -0.9), (-1, -0.9), (1, 1.3), (-1, 1.3)):
            left = x + 0.07 * inch if side > 0 else x - 0.07 * inch - length
            low = y + (up - 0.5) * high
            frame = (left, low, left + length, low + high)
            inside = frame[0] >= box.x0 and frame[2] <= box.x1 + 0.2 * inch and frame[1] >= box.y0 and frame[3] <= box.y1
            if inside and not any(_meet(frame, other) for other in taken):
                taken.append(frame)
                offset = ((left - x) / inch * 72, (low - y) / inch * 72)
                ax.annotate(
                    text, (point[1], point[2]), offset, textcoords="offset points", va="bottom", fontsize=SMALL - 1, alpha=0.85
                )
                break


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
