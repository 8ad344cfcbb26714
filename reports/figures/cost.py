"""Accuracy against what it cost: a point for each row, so that a cheaper one that reaches as much is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures.sketch import Sketch
from reports.figures.style import FONT, canvas, cut, legend_right, look, wide

if TYPE_CHECKING:
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
    rows = [[cut(p.label, 26), p.hours, p.accuracy, p.low, p.high, p.group] for p in points if p.hours > 0]
    says = "Each point is a row: hours of one training against its accuracy; whiskers are 95 % intervals over random seeds."
    return Sketch(name, "cost", title, says, {"points": rows, "axis": axis}) if len(rows) > 1 else None


def paint(data: dict[str, Any]) -> Figure:
    groups = list(dict.fromkeys(point[5] for point in data["points"]))
    room = wide(groups, 2.6) + 0.35
    width = 5.2 + room
    figure, (ax,) = canvas(width, 3.9, left=0.65, right=room + 0.1, top=0.25, bottom=0.5)
    entries = {}
    for number, group in enumerate(groups):
        style = look(number)
        members = [point for point in data["points"] if point[5] == group]
        for label, hours, accuracy, low, high, _ in members:
            error = [[accuracy - low], [high - accuracy]] if low is not None and high is not None else None
            handle = ax.errorbar(
                hours, accuracy, yerr=error, fmt=style["marker"], color=style["color"], markersize=5, capsize=2, linewidth=1.1
            )
            entries.setdefault(group, handle)
            if len(data["points"]) <= 30:
                ax.annotate(
                    label, (hours, accuracy), xytext=(5, 3), textcoords="offset points", fontsize=FONT - 2.5, alpha=0.85
                )
    ax.set(xscale="log", xlabel="hours of one training", ylabel=data["axis"])
    ax.grid(alpha=0.12)
    legend_right(figure, entries, width, room)
    return figure
