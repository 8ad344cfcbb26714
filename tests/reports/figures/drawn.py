"""Tables made by hand and drawings taken apart: what stands in an SVG, in the units of its axes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reports.aggregate import estimate
from reports.claims import Thresholds
from reports.evidence import Data, Run
from reports.figures.paint import paint
from reports.figures.sketch import Sketch
from reports.metrics import metric
from reports.reference import Reference
from reports.table import Column, Entry, Row, Table

Cell = tuple[float | None, Sequence[float]]  # the paper's number, ours by seed
LINEAR = metric("linear.top1", "test")
FIELDS = [field.name for field in dataclasses.fields(Reference)]


def entry_of(cell: Cell | None, status: str = "paper-text", runs: tuple[str, ...] = (), training: str = "") -> Entry | None:
    if cell is None:
        return None
    paper, values = cell
    words: dict[str, Any] = dict.fromkeys(FIELDS, "") | {"value": paper, "printed": str(paper), "status": status}
    return Entry(
        display="",
        reference=None if paper is None else Reference(**words),
        metric=LINEAR,
        estimate=estimate(values) if values else None,
        runs=runs,
        training=training,
    )


def table_of(
    rows: dict[str, Sequence[Cell | None]], columns: Sequence[str] = ("acc.",), status: str = "paper-text", **more: Any
) -> Table:
    """rows: name -> a cell for each column. runs of a row: `NAME/0` and so on, as many as `seeds` says."""
    seeds = more.pop("seeds", {})
    made = []
    for name, cells in rows.items():
        runs = tuple(f"{name}/{seed}" for seed in range(seeds.get(name, 0)))
        entries = tuple(entry_of(cell, status, runs, name if runs else "") for cell in cells)
        made.append(Row(id=name, name=name, label=name, settings=(), entries=entries))
    words: dict[str, Any] = {field.name: "" for field in dataclasses.fields(Table)}
    words |= {"id": "toy", "title": "Toys", "profile": "smoke", "data": None, "thresholds": Thresholds(0.15, 0.5)}
    words |= {"columns": tuple(Column(name, "published", name, LINEAR) for name in columns), "rows": tuple(made)}
    words |= {"settings": (), "claims": (), "hardware": (), "departures": (), "figures": ("numbers",)}
    return Table(**words | {"published": True, "trained": True, "baseline": ""} | more)


def run_of(name: str, curves: dict[str, Any], folder: Path = Path(), **evaluations: Any) -> Run:
    seed = int(name.rpartition("/")[2])
    return Run(name, "key", seed, "byol", 1, Data("toy", "aaaa"), False, {"curves": curves}, evaluations, folder)


class Picture:
    """A painted figure. One panel's numbers are read back from the places of its marks and its axis' words."""

    def __init__(self, sketch: Sketch | None) -> None:
        assert sketch is not None
        self.sketch = sketch
        self.svg = paint(sketch, pdf=False)[0]
        self.root = ElementTree.fromstring(self.svg)
        box = [float(word) for word in self.root.get("viewBox", "").split()]
        self.width, self.height = box[2], box[3]

    @property
    def words(self) -> list[tuple[str, float, float]]:
        """(text, x, y) of all texts."""
        found = []
        for element in self.root.iter():
            if element.tag.endswith("}text"):
                found.append((element.text or "", float(element.get("x", "nan")), float(element.get("y", "nan"))))
        return found

    @property
    def texts(self) -> list[str]:
        return [text for text, _, _ in self.words]

    def group(self, name: str) -> ElementTree.Element | None:
        wanted = f"{self.sketch.name}-{name}"
        return next((element for element in self.root.iter() if element.get("id") == wanted), None)

    def marks(self, name: str) -> list[tuple[float, float]]:
        """Where the marks of a group stand, in points."""
        group = self.group(name)
        uses = [] if group is None else [each for each in group.iter() if each.tag.endswith("}use")]
        return [(float(use.get("x", "nan")), float(use.get("y", "nan"))) for use in uses]

    def corners(self, name: str) -> list[list[tuple[float, float]]]:
        """The corners of each path of a group, in points."""
        group = self.group(name)
        paths = [] if group is None else [each for each in group.iter() if each.tag.endswith("}path")]
        pairs = [re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", "")) for path in paths]
        return [[(float(x), float(y)) for x, y in found] for found in pairs]

    def scale(self, which: str, near: float | None = None) -> Any:
        """From points to the numbers of the x or y axis, by two of its words: those in a line across or in a column."""
        numbers = [(float(t), x, y) for t, x, y in self.words if re.fullmatch(r"-?[\d.]+", t)]
        lines: dict[int, list[tuple[float, float]]] = {}
        for value, x, y in numbers:
            at, place = (y, x) if which == "x" else (x, y)
            lines.setdefault(round(at), []).append((place, value))
        most = max(lines.values(), key=len)
        (a, low), (b, high) = most[0], most[-1]
        # a number's words stand a little below its line: their shift is the same for all
        return lambda place, shift=0.0: low + (place + shift - a) * (high - low) / (b - a)
