"""Rows x columns, the paper's numbers beside ours: SimCLR's figure 5, of pairs of augmentations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.factors import entry, hollow, measured, printed, published
from reports.figures.sketch import Sketch
from reports.figures.style import EMPTY, FONT, INK, SCALED, axis, canvas, cut, heading, widest
from reports.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 0.46  # inches, of a cell


def sketch(table: Table, runs: Mapping[str, Run], empty: bool = False) -> Sketch | None:
    """None where nothing of ours is there, unless `empty` asks for the paper's alone."""
    if (found := published(table, empty)) is None:
        return None
    rows, columns = found
    cells = [[entry(table, row, column) for column in columns] for row in rows]
    ours = [[(of[0] if (of := measured(cell)) else None) for cell in line] for line in cells]
    data = {
        "rows": [_short(row.name) for row in rows],
        "columns": [_short(column.label) for column in columns],
        "paper": [[printed(cell) for cell in line] for line in cells],
        "hollow": [[hollow(cell) for cell in line] for line in cells],
        "ours": ours,
        "remark": EMPTY if not any(v is not None for line in ours for v in line) else SCALED if table.scale else "",
    }
    says = (
        "Each panel has its own colours, from its lowest number to its highest; hatched cells have no number. In brackets: "
        "numbers that nobody has seen in the paper itself."
    )
    return Sketch(f"{table.slug}-heatmap", "heatmap", f"The paper's matrix and ours: {table.title}, {table.where}", says, data)


def _short(name: str) -> str:
    """`1st transformation: Crop` -> `Crop`."""
    return name.rpartition(": ")[2]


def paint(data: dict[str, Any]) -> Figure:
    rows, columns = [cut(name, 1.8) for name in data["rows"]], [cut(name, 1.2) for name in data["columns"]]
    left, below = widest(rows) + 0.3, widest(columns) * 0.6 + 0.35
    panel = _SIDE * len(columns)
    top = 0.6 if data["remark"] else 0.35
    width = left + 2 * panel + 0.6
    height = top + _SIDE * len(rows) + below
    figure, axes = canvas(width, height, 2, left=left, right=0.25, top=top, bottom=below, between=0.35)
    nowhere = [[False] * len(columns) for _ in rows]
    for ax, name, brackets in zip(axes, ("paper", "ours"), (data["hollow"], nowhere), strict=True):
        _matrix(ax, data[name], brackets, name)
        heading(ax, name)
        axis(ax, "x", ticks=list(enumerate(columns)), turned=True, marks=False)
        if name == "paper":
            axis(ax, "y", ticks=list(enumerate(rows)), marks=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    if data["remark"]:
        figure.text(left, height - 0.2, data["remark"], transform=figure.dpi_scale_trans, fontsize=FONT)
    return figure


def _matrix(ax: Axes, values: list[list[float | None]], brackets: list[list[bool]], name: str) -> None:
    import seaborn
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    palette = seaborn.color_palette("blend:#f2f0ea,#0173b2", as_cmap=True)
    known = [value for line in values for value in line if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    squares, colours, missing = [], [], []
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            square = Rectangle((x - 0.49, y - 0.49), 0.98, 0.98)
            if value is None:
                missing.append(square)
                continue
            share = (value - low) / (high - low) if high > low else 0.0
            squares.append(square)
            colours.append(palette(share))
            text = f"({value:.1f})" if brackets[y][x] else f"{value:.1f}"
            ink = "white" if share > 0.55 else "#111111"
            ax.text(x, y, text, ha="center", va="center_baseline", fontsize=FONT - 2, color=ink, gid=f"{name}-{y}-{x}")
    if squares:
        ax.add_collection(PatchCollection(squares, facecolors=colours, linewidths=0))
    if missing:
        hatched = PatchCollection(missing, facecolors="none", edgecolors=INK, hatch="////", alpha=0.45, linewidths=0)
        ax.add_collection(hatched)
    ax.set(xlim=(-0.5, len(values[0]) - 0.5), ylim=(len(values) - 0.5, -0.5))
