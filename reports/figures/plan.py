"""Which figures a table gets: those its file asks for, as far as its runs allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reports.evidence import Run
from reports.figures import curves, factors, numbers
from reports.figures.sketch import Sketch
from reports.table import Table

_KINDS: dict[str, Callable[[Table, Mapping[str, Run]], Sketch | None]] = {
    "numbers": numbers.sketch,
    "curves": curves.training,
    "collapse": curves.health,
    "knn": curves.neighbours,
    "instability": curves.instability,
    "heatmap": factors.heatmap,
    "bars": factors.bars,
    "lines": factors.lines,
}


_SAME = {"heatmap", "bars", "lines"}  # each shows the numbers of the dot plot, in a form of its own


def sketches(table: Table, runs: Mapping[str, Run]) -> list[Sketch]:
    """In the order of the table's file. A figure without anything of ours in it is not made: the table says as much."""
    if not table.trained:
        return []
    kinds = [kind for kind in table.figures if kind in _KINDS and not (kind == "numbers" and _SAME & set(table.figures))]
    made = (_KINDS[kind](table, runs) for kind in kinds)
    return [sketch for sketch in made if sketch is not None]
