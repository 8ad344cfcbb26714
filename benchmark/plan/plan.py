"""Cells x store -> what to do with each cell, why, and what it costs. Nothing here changes the store."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from benchmark.plan.cell import Cell, Evaluation, without_version
from benchmark.plan.cost import Counts, Prices
from benchmark.plan.cost_evaluations import EvaluationPrices
from benchmark.plan.sweep import Row
from benchmark.plan.why import Do, Mode, decide
from benchmark.store.store import CellRecord, Store

_START = 5.0  # seconds before a cell begins: imports, compiled kernels, reading the checkpoint
_BARELY = 0.1  # the share of a cost that may be guessed where the rest is measured


@dataclass(frozen=True)
class Action:
    """What will happen to one cell. `rows` are the rows of the sweep that share it; seconds is the estimated cost, measured
    where past records tell nearly all of it."""

    cell: Cell
    rows: tuple[str, ...]
    do: Do
    why: str
    evaluations: tuple[Evaluation, ...]
    seconds: float
    measured: bool
    shared: tuple[str, ...] = ()  # other sweep files that have the cell, where somebody has looked

    @property
    def works(self) -> bool:
        return self.do in ("train", "again", "resume", "evaluate")


def unique_cells(rows: Iterable[Row]) -> list[tuple[Cell, tuple[str, ...]]]:
    """Each cell once, with the rows that share it, in the order seed by seed so that every row has a number early.

    Of rows that want different evaluations of one cell it has all.
    """
    names: dict[str, list[str]] = {}
    cells: dict[str, Cell] = {}
    for row in rows:
        for cell in row.cells:
            known = cells.setdefault(cell.id, cell)
            if more := [protocol for protocol in cell.protocols if protocol not in known.protocols]:
                cells[cell.id] = replace(known, protocols=(*known.protocols, *more))
            names.setdefault(cell.id, []).append(row.name)
    seeds = {seed: place for place, seed in enumerate(dict.fromkeys(cell.seed for row in rows for cell in row.cells))}
    ranked = sorted(cells, key=lambda cell_id: seeds[cells[cell_id].seed])  # a stable sort: else in the order of the rows
    return [(cells[cell_id], tuple(names[cell_id])) for cell_id in ranked]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: whatever is read is kept, and looking through it over and over takes its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True)
class Known:
    """What a store holds, read once for any number of plans, and what its records say of prices."""

    store: Store
    cells: Mapping[str, CellRecord]
    training: Prices
    evaluations: EvaluationPrices

    @classmethod
    def read(cls, store: Store, device: str, images: Counts | None = None) -> Known:
        """images: of the data sets at hand."""
        with _uncollected():
            cells = {found.id: found for found in store.cells()}
        training = Prices.from_records((found.record for found in cells.values() if found.record is not None), device, images)
        evaluated = (
            (found.record["config"], record)
            for found in cells.values()
            if found.record is not None
            for records in found.evaluations.values()
            for record in records
        )
        return cls(store, cells, training, EvaluationPrices.from_records(evaluated, training))

    @cached_property
    def _versions(self) -> dict[str, int]:
        """Experiment -> the VERSION of its method under which it was finished."""
        records = (found.record for found in self.cells.values() if found.record is not None)
        done = (record["config"] for record in records if record["status"] == "done")
        return {without_version(config): config["version"] for config in done}

    def version_before(self, cell: Cell) -> int | None:
        return self._versions.get(without_version(cell.config)) if self._versions else None

    def seconds(self, config: dict[str, Any], evaluations: Iterable[Evaluation], trains: bool) -> tuple[float, bool]:
        """(seconds of one device, whether past records tell nearly all of them)."""
        seconds, guessed = self.evaluations.seconds([evaluation.protocol for evaluation in evaluations], config)
        if trains:
            training, measured = self.training.seconds(config)
            seconds, guessed = seconds + training, guessed + (0.0 if measured else training)
        seconds += _START
        return seconds, guessed <= _BARELY * seconds


def make_plan(
    rows: list[Row],
    store: Store,
    mode: Mode,
    device: str,
    queued: Mapping[str, str] | None = None,
    images: Counts | None = None,
) -> list[Action]:
    """One action per cell of the sweep, in the order in which they will be started.

    queued: cell id -> words about the job that already waits to bring it to its end. images: of the data sets at hand.
    """
    return planned(rows, Known.read(store, device, images), mode, queued)


def planned(rows: list[Row], known: Known, mode: Mode, queued: Mapping[str, str] | None = None) -> list[Action]:
    """The same of a store that has been read."""
    actions = []
    # The cells of a row differ in their seed alone, so they cost the same.
    prices: dict[tuple[tuple[str, ...], bool, tuple[int, ...]], tuple[float, bool]] = {}
    for cell, names in unique_cells(rows):
        found = known.cells.get(cell.id) or CellRecord(cell.id, known.store.folder(cell.id))
        do, why, evaluations = decide(cell, found, mode, known.version_before)
        works = do in ("train", "again", "resume", "evaluate")
        if queued and cell.id in queued and (works or why.startswith("failed")):
            do, why, works = "submitted", queued[cell.id], False
        price = (0.0, True)
        if works:
            places = tuple(cell.protocols.index(evaluation.protocol) for evaluation in evaluations)
            alike = names, do != "evaluate", places
            if alike not in prices:
                prices[alike] = known.seconds(cell.config, evaluations, do != "evaluate")
            price = prices[alike]
        actions.append(Action(cell, names, do, why, evaluations, *price))
    return actions
