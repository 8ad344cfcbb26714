"""What trainings logged, over their epochs: loss and spread, kNN, health, and MoCo v3's gradients. Means over seeds with the
range between them; one colour, dash and marker for each row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.sketch import Sketch
from reports.figures.style import INK, LINE, OURS, PAPER, axis, canvas, cut, heading, legend, legend_width, look
from reports.table import Entry, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 24  # rows; beyond that nobody tells lines apart
_FEW = 6  # rows whose bands do not hide one another
# the first layer's gradient: a method's own name for it, or the loop's
_FIRST = ("gradient_first", "gradient/encoder.patch_embed", "gradient/encoder.conv1")
Curve = tuple[list[float], list[float]]  # epochs, values

SPIKE: dict[str, Any] = {"color": INK, "marker": "v", "linestyle": "none", "markersize": 4.5, "markerfacecolor": "none"}
_SPIKE, _AROUND = 4.0, 5  # so many times the median of this many points to either side

BANDS = "Lines are means over random seeds, bands the range between seeds."


def training(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """Spread of the projection and the loss, whose unit differs from method to method."""
    spread = _panel("spread of the projection, std(z)·√d", "std", edges=True)
    says = f"{BANDS} A loss is divided by its first logged value, because rows with other losses have other units."
    return _sketch(table, runs, "curves", "Training", [spread, _panel("loss / first logged loss", "loss", relative=True)], says)


def health(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """What tells a collapse while it happens."""
    panels = [
        _panel("spread of the projection, std(z)·√d", "std", edges=True),
        _panel("mean cosine of two images", "pair_cosine"),
        _panel("effective rank", "effective_rank"),
    ]
    return _sketch(table, runs, "collapse", "Collapse", panels, f"{BANDS} A spread near 0 and a cosine near 1 are a collapse.")


def neighbours(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """kNN accuracy on held-out images while training ran, where it was logged."""
    says = f"{BANDS} Weighted kNN, k = 20, of held-out images by a tenth of the training images; no test image is seen."
    return _sketch(table, runs, "knn", "kNN while training", [_panel("kNN on held-out images, %", "knn")], says)


def instability(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """MoCo v3's figures 1 to 6: dips of kNN, and spikes of the gradient that begin in the first layer."""
    panels = [
        _panel("gradient norm, first layer", *_FIRST, log=True, spikes=True),
        _panel("gradient norm, all", "gradient_norm", log=True, spikes=True),
        _panel("kNN on held-out images, %", "knn"),
        _panel("loss / first logged loss", "loss", relative=True),
    ]
    says = f"{BANDS} A triangle marks a point of one training above {_SPIKE:g} times the median of the {2 * _AROUND} around it."
    says += " A spike in the first layer before one of all gradients is where MoCo v3 sees instability begin."
    return _sketch(table, runs, "instability", "Instability", panels, says)


def _panel(title: str, *keys: str, **how: bool) -> dict[str, Any]:
    """how: `edges` of the collapse statistic, `relative` to the first value, `log` scale, `spikes` marked."""
    return {"title": title, "keys": keys, "edges": False, "relative": False, "log": False, "spikes": False} | how


def _sketch(
    table: Table, runs: Mapping[str, Run], kind: str, title: str, panels: Sequence[dict[str, Any]], says: str
) -> Sketch | None:
    trainings = _trainings(table, runs)[:_MOST]
    made = []
    for panel in panels:
        if panel["relative"] and not _all_positive(trainings, panel["keys"]):  # SimSiam's cosine begins at 0 and falls to -1
            panel = panel | {"relative": False, "title": "loss"}
        lines = [(name, found) for name, members in trainings if (found := _line(members, panel))]
        if lines:
            kept = {key: panel[key] for key in ("title", "edges", "log")}
            made.append(kept | {"lines": [[name, found] for name, found in lines]})
    if not made:
        return None
    low, high = table.thresholds.collapsed_below, table.thresholds.spread_above
    data = {"panels": made, "edges": [low, high]}
    return Sketch(f"{table.slug}-{kind}", "curves", f"{title}: {table.title}, {table.where}", says, data)


def _trainings(table: Table, runs: Mapping[str, Run]) -> list[tuple[str, list[Run]]]:
    """(name, runs) of every training of the table, each once."""
    found: dict[tuple[str, ...], str] = {}
    for row in table.rows:
        entries: dict[str, Entry] = {}
        for entry in row.cells:
            if entry.runs and entry.training:
                entries.setdefault(entry.training, entry)
        for training_name, entry in entries.items():
            found.setdefault(entry.runs, row.name if len(entries) == 1 else training_name)
    return [(name, [runs[run] for run in members if run in runs]) for members, name in found.items()]


def _all_positive(trainings: Sequence[tuple[str, list[Run]]], keys: Sequence[str]) -> bool:
    curves = (_curve(run, keys) for _, members in trainings for run in members)
    return all(value > 0 for curve in curves if curve for value in curve[1])


def _line(members: Sequence[Run], panel: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the runs that logged it: epochs, mean, lowest and highest; or each by itself where their epochs differ."""
    curves = [curve for run in members if (curve := _curve(run, panel["keys"])) is not None]
    if panel["relative"]:
        curves = [(epochs, [value / values[0] for value in values]) for epochs, values in curves]
    if panel["log"]:
        curves = [(epochs, [value if value > 0 else math.nan for value in values]) for epochs, values in curves]
    if not curves:
        return None
    spikes = [point for epochs, values in curves for point in _spikes(epochs, values)] if panel["spikes"] else []
    if any(epochs != curves[0][0] for epochs, _ in curves):
        return {"each": [[epochs, values] for epochs, values in curves], "spikes": spikes}
    columns = list(zip(*(values for _, values in curves), strict=True))
    mean = [math.fsum(column) / len(column) for column in columns]
    several = len(curves) > 1
    ends = [[min(column) for column in columns], [max(column) for column in columns]] if several else None
    return {"epochs": curves[0][0], "mean": mean, "range": ends, "spikes": spikes}


def _spikes(epochs: Sequence[float], values: Sequence[float]) -> list[list[float]]:
    """(epoch, value) of the points that stand out from those around them."""
    found = []
    for place, value in enumerate(values):
        around = [v for v in (*values[max(0, place - _AROUND) : place], *values[place + 1 : place + 1 + _AROUND]) if v == v]
        if around and value > _SPIKE * statistics.median(around):
            found.append([epochs[place], value])
    return found


def _curve(run: Run, keys: Sequence[str]) -> Curve | None:
    """The first of these series that the run logged, without its gaps; None where it has not even two points."""
    curves: dict[str, Any] = run.record.get("curves") or {}
    epochs = curves.get("epoch")
    for key in keys:
        series = curves.get(key)
        if not isinstance(series, list) or not isinstance(epochs, list) or len(series) != len(epochs):
            continue
        points = [(float(e), float(v)) for e, v in zip(epochs, series, strict=True) if _number(e) and _number(v)]
        if len(points) > 1:
            return [e for e, _ in points], [v for _, v in points]
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def paint(data: dict[str, Any]) -> Figure:
    panels = data["panels"]
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel["lines"]))
    styles = {name: look(number) for number, name in enumerate(names)}
    shown = {name: cut(name, 2.5) for name in names}
    columns = len(panels) if len(panels) <= 3 else 2
    each = 3.0 if columns < 3 else 2.4
    rows = -(-len(panels) // columns)
    room = legend_width(list(shown.values())) + 0.25
    width, height = 0.55 + columns * (each + 0.55) - 0.3 + room, max(rows * 2.9, 0.5 + LINE * len(names))
    figure, axes = canvas(width, height, columns, rows, left=0.5, right=room + 0.05, top=0.32, bottom=0.5, between=0.5)
    for number, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
        for name, line in panel["lines"]:
            _plot(ax, line, styles[name], f"{names.index(name)}-{number}", 0.18 if len(names) <= _FEW else 0.06)
        ax.set_xlim(left=0)
        if panel["log"]:
            ax.set_yscale("log")
        elif panel["edges"]:
            _edges(ax, *data["edges"])
        logged = len(panel["lines"])
        heading(ax, panel["title"] + (f" (of {logged} of {len(names)})" if logged < len(names) else ""))
        axis(ax, "x", "epoch")
        axis(ax, "y")
    for ax in axes[len(panels) :]:
        ax.remove()
    marks: dict[str, dict[str, Any]] = {shown[name]: styles[name] for name in names}
    if any(line.get("spikes") for panel in panels for _, line in panel["lines"]):
        marks["spike"] = SPIKE
    legend(figure, marks, width - room, height / 2 + LINE * (len(marks) - 1) / 2)
    return figure


def _plot(ax: Axes, line: Mapping[str, Any], style: Mapping[str, Any], gid: str, band: float) -> None:
    own = dict(style) | {"linewidth": 1.4, "markersize": 3.5, "gid": f"line-{gid}"}
    several = line.get("each") or [[line["epochs"], line["mean"]]]
    for epochs, values in several:
        ax.plot(epochs, values, **own, markevery=max(1, len(epochs) // 5))
    if line.get("range"):
        ax.fill_between(line["epochs"], *line["range"], color=style["color"], alpha=band, linewidth=0)
    if line.get("spikes"):
        ax.plot(*zip(*line["spikes"], strict=True), **SPIKE, zorder=3)


def _edges(ax: Axes, low: float, high: float) -> None:
    """Where the collapse statistic says collapsed, and where not."""
    ax.set_ylim(0, max(1.12, ax.get_ylim()[1]))
    ax.axhspan(0, low, color=PAPER, alpha=0.10, linewidth=0)
    ax.axhspan(high, ax.get_ylim()[1], color=OURS, alpha=0.07, linewidth=0)
    for height, text, align in ((low, "collapsed", "top"), (high, "not collapsed", "bottom")):
        ax.text(0.985, height, text, transform=ax.get_yaxis_transform(), ha="right", va=align, fontsize=6.5, alpha=0.8)
