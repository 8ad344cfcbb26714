"""How every figure looks: ink, colours that colour-blind readers tell apart, margins measured from the labels.

matplotlib's own layout, ticks, legends and error bars take four fifths of the time of drawing a figure of this size. Margins
are reckoned here from the letters' widths, and axes and legends are drawn as what they are: a few lines and words.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # all but black on paper; becomes currentColor in the SVG
PAPER, OURS = "#d55e00", "#0173b2"
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"
_ORDER = (0, 1, 2, 3, 4, 9, 5, 7)  # of seaborn's colorblind palette, without the two that vanish on white
FONT = 8.5
SMALL = FONT - 0.5
LINE = 0.19  # inches from one line of a legend to the next
SCALED = "another scale: compare the order, not the values"
EMPTY = "nothing of ours was run: the paper's numbers alone"


@cache
def rc() -> Mapping[str, Any]:
    """matplotlib's settings for all figures."""
    import seaborn

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color", "hatch.color")
    return {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper"),
        **dict.fromkeys(inked, INK),
        "svg.fonttype": "none",
        "svg.hashsalt": "figure",  # the same ids every time
        "pdf.fonttype": 42,  # as publishers ask
        "font.family": ["DejaVu Sans"],
        "font.size": FONT,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "hatch.linewidth": 0.6,
        "image.interpolation": "none",
        "text.parse_math": False,  # a dollar sign in a row's name is a dollar sign
    }


@cache
def _palette() -> list[tuple[float, float, float]]:
    import seaborn

    colours = seaborn.color_palette("colorblind")
    return [colours[place] for place in _ORDER]


def look(number: int) -> dict[str, Any]:
    """Colour, dash and marker of the n-th thing drawn; none of them alone has to tell two things apart."""
    palette = _palette()
    turn = number // len(palette)
    return {
        "color": palette[number % len(palette)],
        "linestyle": DASHES[(number + turn) % len(DASHES)],
        "marker": MARKERS[(number + 3 * turn) % len(MARKERS)],
    }


@cache
def _font() -> Any:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    font = FT2Font(findfont("DejaVu Sans"))  # our own: those that matplotlib keeps change their size while it draws
    font.set_size(100, 72)
    return font


# An open font is an open file, whose place parent and children would share: each reads with the others' seeks in between.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_font.cache_clear)


@cache
def _advance(letter: str) -> float:
    """Width of a letter as a share of the font's size; of one that the font lacks, the widest there is."""
    from matplotlib.ft2font import LoadFlags

    font = _font()
    if not font.get_char_index(ord(letter)):
        return 1.0
    return float(font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance) / 65536 / 100


def wide(text: str, size: float = SMALL) -> float:
    """Inches that a label takes."""
    return sum(map(_advance, text)) * size / 72


def widest(texts: Sequence[str], size: float = SMALL) -> float:
    return max((wide(text, size) for text in texts), default=0.0)


def cut(text: str, most: float = 3.0, size: float = SMALL) -> str:
    """The text, or its beginning where it takes more than so many inches; the table beside the figure has all of it."""
    text = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    if wide(text, size) <= most:
        return text
    while text and wide(text + "…", size) > most:
        text = text[:-1].rstrip()
    return text + "…"


def canvas(
    width: float,
    height: float,
    columns: int = 1,
    rows: int = 1,
    left: float = 0.6,
    right: float = 0.15,
    top: float = 0.35,
    bottom: float = 0.5,
    between: float = 0.65,
    below: float = 0.8,
) -> tuple[Figure, list[Axes]]:
    """A figure of width x height inches with a grid of axes; all margins in inches. `axis` draws their ticks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    inner = (width - left - right - between * (columns - 1)) / columns
    tall = (height - top - bottom - below * (rows - 1)) / rows
    made = []
    for place in range(rows * columns):
        x, y = left + (place % columns) * (inner + between), height - top - tall - (place // columns) * (tall + below)
        ax = figure.add_axes((x / width, y / height, inner / width, tall / height))
        ax.xaxis.set_visible(False)
        ax.yaxis.set_visible(False)
        ax.set_title("", y=1.0)  # keeps matplotlib from searching for its place
        made.append(ax)
    return figure, made


def _shifted(ax: Axes, base: Any, right: float, up: float) -> Any:
    """A transform that ends so many points away."""
    from matplotlib.transforms import ScaledTranslation

    figure: Any = ax.figure
    return base + ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)


def ticks_of(low: float, high: float, log: bool, most: int = 6) -> list[tuple[float, str]]:
    """Where an axis from low to high has its numbers, and what they are."""
    from matplotlib.ticker import MaxNLocator

    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        if last > first:
            step = -(-(last - first) // most)
            return [(10.0**p, _power(p)) for p in range(first, last + 1, step)]
    values = [float(v) for v in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    slack = 1e-9 * (high - low)
    return [(v, f"{round(v, 12) + 0.0:g}") for v in values if low - slack <= v <= high + slack and (v > 0 or not log)]


def _power(exponent: int) -> str:
    if -3 <= exponent <= 4:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def axis(
    ax: Axes,
    which: str,
    label: str = "",
    ticks: Sequence[tuple[float, str]] | None = None,
    marks: bool = True,
    turned: bool = False,
    grid: float = 0.0,
    most: int = 6,
) -> None:
    """Ticks, numbers and label of the x or y axis, after everything else is drawn. ticks: (place, word), else round numbers.
    marks: short lines at them. grid: how strong the lines across are."""
    from matplotlib.lines import Line2D

    flat = which == "x"
    low, high = ax.get_xlim() if flat else ax.get_ylim()
    log = (ax.get_xscale() if flat else ax.get_yscale()) == "log"
    ticks = ticks_of(min(low, high), max(low, high), log, most) if ticks is None else ticks
    base = ax.get_xaxis_transform() if flat else ax.get_yaxis_transform()
    places = [place for place, _ in ticks]

    def line(x: Any, y: Any, **how: Any) -> None:
        ax.add_artist(Line2D(*((x, y) if flat else (y, x)), transform=base, color=INK, **how))

    if grid:
        line([v for p in places for v in (p, p, math.nan)], [0, 1, math.nan] * len(places), alpha=grid, lw=0.7, zorder=0)
    if marks:
        line(places, [0] * len(places), linestyle="none", marker=3 if flat else 0, markersize=3, clip_on=False, mew=0.8)
    side: dict[str, Any] = (
        {"ha": "right" if turned else "center", "va": "top"} if flat else {"ha": "right", "va": "center_baseline"}
    )
    if turned:
        side |= {"rotation": 35, "rotation_mode": "anchor"}
    away = _shifted(ax, base, *((0, -6) if flat else (-6, 0)))
    for place, word in ticks:
        if word:
            x, y = (place, 0.0) if flat else (0.0, place)
            ax.text(x, y, word, transform=away, fontsize=SMALL, **side)
    if label and flat:
        ax.text(0.5, 0, label, transform=_shifted(ax, ax.transAxes, 0, -20), ha="center", va="top", fontsize=FONT)
    elif label:
        room = 12 + 72 * widest([word for _, word in ticks])
        ax.text(
            0, 0.5, label, transform=_shifted(ax, ax.transAxes, -room, 0), ha="right", va="center", rotation=90, fontsize=FONT
        )


def heading(ax: Axes, text: str, size: float = FONT + 0.5) -> None:
    """The words over a panel."""
    ax.text(0, 1, text, transform=_shifted(ax, ax.transAxes, 0, 6), ha="left", va="bottom", fontsize=size)


def legend(figure: Figure, entries: Mapping[str, Mapping[str, Any]], left: float, top: float, flat: bool = False) -> None:
    """Words and what they stand for, from (left, top) in inches downwards, or side by side. An entry is how its line looks;
    `bar` draws a patch."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    inches = figure.dpi_scale_trans
    x, y = left, top
    for name, how in entries.items():
        style: dict[str, Any] = dict(how)
        if style.pop("bar", False):
            figure.add_artist(Rectangle((x + 0.06, y - 0.05), 0.2, 0.1, transform=inches, **style))
        else:
            xs = [x, x + 0.16, x + 0.32]
            drawn: dict[str, Any] = {"linewidth": 1.4, "markersize": 4.5, "markevery": [1]} | style
            figure.add_artist(Line2D(xs, [y] * 3, transform=inches, **drawn))
        figure.text(x + 0.4, y, name, transform=inches, va="center_baseline", fontsize=SMALL)
        if flat:
            x += 0.4 + wide(name) + 0.2
        else:
            y -= LINE


def legend_width(names: Sequence[str], flat: bool = False) -> float:
    """Inches that the legend of these takes."""
    return sum(0.6 + wide(name) for name in names) if flat else 0.4 + widest(names) + 0.1


def whiskers(
    ax: Axes, at: Sequence[float], low: Sequence[float], high: Sequence[float], *, color: Any, flat: bool = False
) -> None:
    """Intervals with short ends: upright at x, or flat at y."""
    along = [v for a, b in zip(low, high, strict=True) for v in (a, b, math.nan)]
    across = [v for place in at for v in (place, place, math.nan)]
    ends: dict[str, Any] = {
        "marker": "|" if flat else "_",
        "markersize": 5,
        "linewidth": 1.2,
        "markeredgewidth": 1.2,
        "zorder": 2.5,
    }
    ax.plot(*((along, across) if flat else (across, along)), color=color, linestyle="-", **ends)
