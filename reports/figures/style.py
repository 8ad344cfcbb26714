"""How every figure looks: ink, colours that colour-blind readers tell apart, margins reckoned from the labels.

matplotlib's constrained layout takes more time than the drawing; the margins are those of the longest label instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # all but black on paper; becomes currentColor in the SVG
PAPER, OURS = "#d55e00", "#0173b2"
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"
_ORDER = (0, 1, 2, 3, 4, 9, 5, 7)  # of seaborn's colorblind palette, without the two that vanish on white
_LETTER = 0.073  # inches, of the labels' size
FONT = 8.5


def rc(salt: str) -> dict[str, Any]:
    """matplotlib's settings for all figures. salt: makes the ids of one figure its own, and the same every time."""
    import seaborn

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color", "hatch.color")
    return {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper"),
        **dict.fromkeys(inked, INK),
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "pdf.fonttype": 42,  # as publishers ask
        "font.family": ["DejaVu Sans"],
        "font.size": FONT,
        "axes.labelsize": FONT,
        "axes.titlesize": FONT + 0.5,
        "xtick.labelsize": FONT - 0.5,
        "ytick.labelsize": FONT - 0.5,
        "legend.fontsize": FONT - 0.5,
        "legend.frameon": False,
        "axes.titlelocation": "left",
        "axes.spines.right": False,
        "axes.spines.top": False,
        "hatch.linewidth": 0.6,
    }


def look(number: int) -> dict[str, Any]:
    """Colour, dash and marker of the n-th thing drawn; none of them alone has to tell two things apart."""
    import seaborn

    palette = seaborn.color_palette("colorblind")
    turn = number // len(_ORDER)
    return {
        "color": palette[_ORDER[number % len(_ORDER)]],
        "linestyle": DASHES[turn % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def wide(texts: Sequence[str], most: float = 3.4) -> float:
    """Inches that the longest of these labels takes."""
    return min(most, _LETTER * max((len(text) for text in texts), default=0) + 0.15)


def cut(text: str, letters: int = 44) -> str:
    """The text, or its beginning where it is too long for a label; the table beside the figure has all of it."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


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
    below: float = 0.6,
) -> tuple[Figure, list[Axes]]:
    """A figure of width x height inches with a grid of axes; all margins in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    inner = (width - left - right - between * (columns - 1)) / columns
    tall = (height - top - bottom - below * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=between / max(inner, 0.1),
        hspace=below / max(tall, 0.1),
    )
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def legend_right(figure: Figure, entries: dict[str, Any], width: float, room: float, title: str = "") -> None:
    """A legend in the right margin of `room` inches."""
    figure.legend(
        entries.values(),
        [cut(name, 34) for name in entries],
        loc="center left",
        bbox_to_anchor=(1 - room / width, 0.5),
        title=title or None,
        title_fontsize=FONT - 0.5,
        alignment="left",
        borderaxespad=0.0,
    )


def legend_top(figure: Figure, entries: dict[str, Any]) -> None:
    """A legend in one line over everything."""
    figure.legend(entries.values(), entries.keys(), loc="upper right", ncols=max(1, len(entries)), borderaxespad=0.1)
