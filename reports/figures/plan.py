"""Which figures a table gets: those its file asks for, as far as its runs allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reports.evidence import Run
from reports.figures import bars, curves, heatmap, lines, numbers, pictures
from reports.figures.sketch import Sketch
from reports.table import Table

_OVER_TIME: dict[str, Callable[[Table, Mapping[str, Run]], Sketch | None]] = {
    "curves": curves.training,
    "collapse": curves.health,
    "knn": curves.neighbours,
    "instability": curves.instability,
    "pictures": pictures.sketch,
}
_OF_NUMBERS: dict[str, Callable[[Table, Mapping[str, Run], bool], Sketch | None]] = {
    "numbers": numbers.sketch,
    "heatmap": heatmap.sketch,
    "bars": bars.sketch,
    "lines": lines.sketch,
}
_SAME = {"heatmap", "bars", "lines"}  # each shows the numbers of the dot plot, in a form of its own


def sketches(table: Table, runs: Mapping[str, Run], empty: bool = False) -> list[Sketch]:
    """In the order of the table's file. A figure without anything of ours in it is not made, as the table says as much; `empty`
    makes those that the paper's numbers alone can fill, with words saying so in the figure."""
    if not table.trained and not empty:
        return []
    made: dict[str, Sketch | None] = {}
    for kind in table.figures:
        if kind in _OF_NUMBERS:
            made[kind] = _OF_NUMBERS[kind](table, runs, empty)
        elif kind in _OVER_TIME:
            made[kind] = _OVER_TIME[kind](table, runs)
    if any(made.get(kind) for kind in _SAME):
        made["numbers"] = None
    return [sketch for sketch in made.values() if sketch is not None]
