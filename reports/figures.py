"""Figures of a table: training curves by row, and the paper's numbers beside ours. matplotlib and seaborn, imported
on first use.

Every figure is written as SVG (text as text, ink in the colour of the page around it, so that it reads on a dark page
too) and as PDF for print.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.store.record import write_bytes
from reports.evidence import Run
from reports.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # all but black on paper; becomes currentColor in the SVG
_PAPER, _OURS = "#d55e00", "#0173b2"
_ORDER = (0, 1, 2, 3, 4, 9, 5, 7)  # of seaborn's colorblind palette, without the two that vanish on white


@dataclass(frozen=True)
class Drawing:
    """A finished figure: svg is an element to be inlined in a page; says is its description in words."""

    name: str
    title: str
    says: str
    svg: str
    figure: Figure


def draw(table: Table, runs: Mapping[str, Run]) -> list[Drawing]:
    """The figures of one table, as many as its runs allow."""
    import matplotlib
    import seaborn

    style = {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper", font_scale=1.05),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK),
        "svg.fonttype": "none",
        "svg.hashsalt": table.slug,
        "font.family": ["DejaVu Sans"],
        "axes.titlelocation": "left",
    }
    drawings = []
    with matplotlib.rc_context(style):
        for kind, make in (("curves", _curves), ("numbers", _numbers)):
            made = make(table, runs)
            if made is not None:
                figure, title, says = made
                drawings.append(_finish(figure, f"{table.slug}-{kind}", title, says))
    return drawings


def write(drawings: Sequence[Drawing], folder: Path) -> None:
    """NAME.svg and NAME.pdf for each. Raises InputError when the folder cannot be written.

    Embedding TrueType fonts (which publishers ask for) takes most of a figure's time, so a PDF is made again only when its
    SVG has changed.
    """
    import matplotlib

    for drawing in drawings:
        svg, pdf = folder / f"{drawing.name}.svg", folder / f"{drawing.name}.pdf"
        content = f'<?xml version="1.0" encoding="utf-8"?>\n{drawing.svg}'.encode()
        if pdf.exists() and svg.exists() and svg.read_bytes() == content:
            continue
        page = io.BytesIO()
        unsigned: dict[str, Any] = dict.fromkeys(("CreationDate", "Creator", "Producer"))  # the same bytes every time
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            drawing.figure.savefig(page, format="pdf", transparent=True, metadata=unsigned)
        write_bytes(pdf, page.getvalue())
        write_bytes(svg, content)


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _finish(figure: Figure, name: str, title: str, says: str) -> Drawing:
    svg = io.StringIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once; saving would do it again for every format
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Drawing(name, title, says, _inline(svg.getvalue(), name, title), figure)


def _inline(svg: str, name: str, title: str) -> str:
    """The <svg> element alone: with a name, ids of this figure only, and ink and size left to the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', svg, count=1).strip() + "\n"


def _curves(table: Table, runs: Mapping[str, Run]) -> tuple[Figure, str, str] | None:
    """Spread and loss over training, one colour a row; the mean over seeds with the range between them."""
    import seaborn

    rows = [(row, found) for row in table.rows if (found := _curves_of(row, runs))]
    if not rows:
        return None
    palette = seaborn.color_palette("colorblind")
    figure, (spread, loss) = _figure(9.6, 3.7, 2)
    ends: dict[str, float] = {}
    for i, (row, curves) in enumerate(rows):
        look = {
            "color": palette[_ORDER[i % len(_ORDER)]],
            "linestyle": "-" if i < len(_ORDER) else "--",
            "label": row.name,
        }
        _band(spread, [(epochs, values["std"]) for epochs, values in curves if values.get("std")], look)
        _band(loss, [(epochs, relative) for epochs, values in curves if (relative := _relative(values.get("loss")))], look)
        finals = [values["std"][-1] for _, values in curves if values.get("std")]
        ends[row.name] = max((value for value in finals if math.isfinite(value)), default=-1.0)
    low, high = table.thresholds.collapsed_below, table.thresholds.spread_above
    spread.axhspan(0, low, color=_PAPER, alpha=0.10, linewidth=0)
    spread.axhspan(high, 1.05, color=_OURS, alpha=0.07, linewidth=0)
    for height, text, align in ((low, "collapsed", "top"), (high, "not collapsed", "bottom")):
        spread.text(0.985, height, text, transform=spread.get_yaxis_transform(), ha="right", va=align, fontsize=7, alpha=0.75)
    spread.set(ylim=(0, 1.05), xlabel="epoch", title="spread of the projection, std(z)·√d")
    loss.set(xlabel="epoch", title="loss / first logged loss")
    loss.set_ylim(bottom=0)
    for axes in (spread, loss):
        axes.set_xlim(left=0)
        seaborn.despine(ax=axes)
    handles, labels = loss.get_legend_handles_labels()
    ranked = sorted(zip(handles, labels, strict=True), key=lambda pair: -ends[pair[1]])
    legend = {label: handle for handle, label in ranked}
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside right center",
        frameon=False,
        fontsize=8,
        title="by final spread",
        title_fontsize=8,
    )
    says = (
        "Lines are means over random seeds, bands the range between seeds. The loss is divided by its first logged "
        "value, because rows with other losses have other units."
    )
    return figure, f"Training curves: {table.title}, {table.where}", says


def _curves_of(row: Row, runs: Mapping[str, Run]) -> list[tuple[list[float], dict[str, list[float]]]]:
    """(epochs, name -> values) of every run of the row that logged curves; a null in a record becomes NaN."""
    found = []
    for run_id in row.runs:
        curves: dict[str, Any] = runs[run_id].record.get("curves") or {}
        epochs = [_plain(value) for value in curves.get("epoch") or []]
        values = {
            name: [_plain(value) for value in series]
            for name, series in curves.items()
            if isinstance(series, list) and len(series) == len(epochs)
        }
        if len(epochs) > 1:
            found.append((epochs, values))
    return found


def _plain(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _relative(values: list[float] | None) -> list[float]:
    first = next((value for value in values or [] if math.isfinite(value) and value > 0), None)
    return [value / first for value in values or []] if first else []


def _band(axes: Axes, series: list[tuple[list[float], list[float]]], look: dict[str, Any]) -> None:
    """Mean and range over runs that were logged at the same epochs; otherwise each run by itself."""
    if not series:
        return
    if any(epochs != series[0][0] for epochs, _ in series):
        for epochs, values in series:
            axes.plot(epochs, values, **look, linewidth=1.2)
        return
    epochs, columns = series[0][0], list(zip(*(values for _, values in series), strict=True))
    axes.plot(epochs, [math.fsum(column) / len(column) for column in columns], **look, linewidth=1.6)
    if len(series) > 1:
        bounds = [min(column) for column in columns], [max(column) for column in columns]
        axes.fill_between(epochs, *bounds, color=look["color"], alpha=0.18, linewidth=0)


def _numbers(table: Table, runs: Mapping[str, Run]) -> tuple[Figure, str, str] | None:
    """The paper's number and ours, row by row; untrained network as a dotted line."""
    import seaborn

    cells = [(row, table.cell(row, "paper"), table.cell(row, "measured")) for row in table.rows]
    cells = [(row, paper, ours) for row, paper, ours in cells if paper.value is not None or ours.estimate is not None]
    if not any(ours.estimate for _, _, ours in cells):
        return None
    figure, (axes,) = _figure(7.2, 1.25 + 0.36 * len(cells), 1)
    for y, (row, paper, ours) in enumerate(cells):
        if paper.value is not None and paper.reference is not None:
            face = _PAPER if paper.reference.status == "paper-text" else "none"
            label = "paper" if paper.reference.status == "paper-text" else f"paper ({paper.reference.status})"
            axes.plot(paper.value, y, "D", color=_PAPER, markerfacecolor=face, markersize=6.5, label=label)
        if ours.estimate is not None:
            half = ours.estimate.half_width
            axes.errorbar(
                ours.estimate.mean,
                y,
                xerr=half,
                fmt="o",
                color=_OURS,
                markersize=6,
                capsize=3,
                linewidth=1.5,
                label="ours",
            )
        if row.id == table.baseline and ours.estimate is not None:
            axes.axvline(
                ours.estimate.mean, color=INK, alpha=0.5, linestyle=":", linewidth=1, label="ours, untrained", zorder=0
            )
    axes.set_yticks(range(len(cells)), [row.name for row, _, _ in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel(f"{table.primary.label} top-1, {table.primary.unit}")
    if table.scale:
        axes.set_title("another scale: compare the order, not the values", fontsize=8.5)
    axes.grid(axis="y", alpha=0.15)
    seaborn.despine(ax=axes, left=True)
    axes.tick_params(axis="y", length=0)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", frameon=False, ncols=4, fontsize=8)
    says = "Whiskers are 95 % t intervals over random seeds; a point without whiskers is one seed."
    return figure, f"The paper's numbers and ours: {table.title}, {table.where}", says
