"""The paper's numbers and ours, row by row: a dot plot, one panel for each of the first columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.sketch import Sketch
from reports.figures.style import INK, OURS, PAPER, canvas, cut, legend_top, wide
from reports.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 4  # columns beside one another; a table of more has its first ones drawn


def sketch(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """None where no column has a number of ours."""
    columns = [column for column in table.columns if column.kind == "published"] or list(table.columns[:1])
    panels = [panel for column in columns if (panel := _panel(table, column))][:_PANELS]
    if not panels:
        return None
    names = [row.name for row in table.rows]
    kept = [i for i in range(len(names)) if any(panel["paper"][i] is not None or panel["ours"][i] for panel in panels)]
    for panel in panels:
        for key in ("paper", "hollow", "ours"):
            panel[key] = [panel[key][i] for i in kept]
    data = {"rows": [cut(names[i]) for i in kept], "panels": panels, "scaled": bool(table.scale)}
    says = (
        "Whiskers are 95 % intervals over random seeds; a point without whiskers is one seed. A hollow diamond is a published "
    )
    says += "number that nobody has seen in the paper itself."
    return Sketch(f"{table.slug}-numbers", "numbers", f"The paper's numbers and ours: {table.title}, {table.where}", says, data)


def _panel(table: Table, column: Column) -> dict[str, Any] | None:
    place = table.columns.index(column)
    entries = [row.entries[place] for row in table.rows]
    if not any(entry and entry.estimate for entry in entries):
        return None
    paper, hollow, ours = [], [], []
    for entry in entries:
        reference = entry.reference if entry else None
        paper.append(reference.value if reference else None)
        hollow.append(bool(reference and reference.status != "paper-text"))
        found = entry.estimate if entry else None
        ours.append([found.mean, found.half_width] if found else None)
    baseline = table.entry(table.baseline, column.id) if table.baseline else None
    floor = baseline.estimate.mean if baseline and baseline.estimate else None
    unit = f", {column.metric.unit}" if column.metric and column.metric.unit else ""
    measured = column.metric.label if column.metric else ""
    label = column.label if measured in ("", column.label) else f"{column.label} (ours: {measured})"
    return {"label": cut(label + unit, 46), "paper": paper, "hollow": hollow, "ours": ours, "floor": floor}


def paint(data: dict[str, Any]) -> Figure:
    rows, panels = data["rows"], data["panels"]
    left = wide(rows)
    width = left + 0.3 + len(panels) * (4.4 if len(panels) == 1 else 2.6)
    height = 1.15 + 0.27 * len(rows) + (0.2 if data["scaled"] else 0.0)
    top = 0.42 + (0.2 if data["scaled"] else 0.0)
    figure, axes = canvas(width, height, columns=len(panels), left=left + 0.1, right=0.2, top=top, bottom=0.5, between=0.25)
    for number, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        _draw(ax, panel, len(rows))
        ax.set_yticks(range(len(rows)), rows if number == 0 else [""] * len(rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel(panel["label"])
        ax.grid(axis="y", alpha=0.15)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    if data["scaled"]:
        axes[0].set_title("another scale: compare the order, not the values", fontsize=8)
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    legend_top(figure, entries)
    return figure


def _draw(ax: Axes, panel: dict[str, Any], rows: int) -> None:
    for hollow, label in ((False, "paper"), (True, "paper, not seen there")):
        points = [(v, y) for y, v in enumerate(panel["paper"]) if v is not None and panel["hollow"][y] == hollow]
        if points:
            face = "none" if hollow else PAPER
            x, y = zip(*points, strict=True)
            ax.plot(x, y, "D", color=PAPER, markerfacecolor=face, markersize=5.5, label=label)
    points = [(found[0], y, found[1]) for y, found in enumerate(panel["ours"]) if found]
    x, y, half = zip(*points, strict=True)
    ax.errorbar(
        x, y, xerr=[h or 0.0 for h in half], fmt="o", color=OURS, markersize=5, capsize=2.5, linewidth=1.3, label="ours"
    )
    if panel["floor"] is not None:
        ax.axvline(panel["floor"], color=INK, alpha=0.5, linestyle=":", linewidth=1, label="ours, untrained", zorder=0)
