"""Cells x store -> what to do with each cell, and why. Nothing here changes the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmark.plan.cell import Cell, Evaluation, without_version
from benchmark.plan.cost import Counts, Prices
from benchmark.plan.cost_evaluations import EvaluationPrices
from benchmark.plan.sweep import Row
from benchmark.store.record import divergence
from benchmark.store.store import CellRecord, Store

_START = 5.0  # seconds before a cell begins: imports, compiled kernels, reading the checkpoint
_BARELY = 0.1  # the share of a cost that may be guessed where the rest is measured
Mode = Literal["cached", "retry", "force"]
# train: from the start; again: from the start, forgetting what is there; leave, submitted: somebody else has it in hand
Do = Literal["train", "again", "resume", "evaluate", "nothing", "leave", "submitted"]


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

    @property
    def works(self) -> bool:
        return self.do in ("train", "again", "resume", "evaluate")


def unique_cells(rows: Iterable[Row]) -> list[tuple[Cell, tuple[str, ...]]]:
    """Each cell once, with the rows that share it, in the order seed by seed so that every row has a number early."""
    names: dict[str, list[str]] = {}
    cells: dict[str, Cell] = {}
    for row in rows:
        for cell in row.cells:
            cells.setdefault(cell.id, cell)
            names.setdefault(cell.id, []).append(row.name)
    order = {cell_id: position for position, cell_id in enumerate(cells)}
    seeds = list(dict.fromkeys(cell.seed for row in rows for cell in row.cells))
    ranked = sorted(cells, key=lambda cell_id: (seeds.index(cells[cell_id].seed), order[cell_id]))
    return [(cells[cell_id], tuple(names[cell_id])) for cell_id in ranked]


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
    known = {found.id: found for found in store.cells()}
    records = [found.record for found in known.values() if found.record is not None]
    prices = Prices.from_records(records, device, images)
    evaluated = [
        (found.record["config"], record)
        for found in known.values()
        if found.record is not None
        for records_of in found.evaluations.values()
        for record in records_of
    ]
    evaluation_prices = EvaluationPrices.from_records(evaluated, prices)
    versions: dict[str, int] = {}
    for record in records:
        if record["status"] == "done":
            versions[without_version(record["config"])] = record["config"]["version"]
    actions = []
    for cell, names in unique_cells(rows):
        found = known.get(cell.id) or CellRecord(cell.id, store.folder(cell.id))
        do, why, evaluations = _decide(cell, found, mode, versions)
        if queued and cell.id in queued and (do in ("train", "again", "resume", "evaluate") or why.startswith("failed")):
            do, why = "submitted", queued[cell.id]
        seconds, guessed = 0.0, 0.0
        if do in ("train", "again", "resume", "evaluate"):
            seconds, guessed = evaluation_prices.seconds([evaluation.protocol for evaluation in evaluations], cell.config)
            if do != "evaluate":
                training, measured = prices.seconds(cell.config)
                seconds, guessed = seconds + training, guessed + (0.0 if measured else training)
            seconds += _START
        actions.append(Action(cell, names, do, why, evaluations, seconds, guessed <= _BARELY * seconds))
    return actions


def _decide(cell: Cell, found: CellRecord, mode: Mode, versions: dict[str, int]) -> tuple[Do, str, tuple[Evaluation, ...]]:
    have = found.evaluated - (found.diverged if mode == "retry" else set())
    missing = tuple(evaluation for evaluation in cell.evaluations if evaluation.id not in have)
    if found.running:
        assert found.owner is not None
        return "leave", f"running on {found.owner['host']} (process {found.owner['pid']})", missing
    if mode == "force":
        return "again", "forced: trained and evaluated again", cell.evaluations
    if found.record is not None:
        if found.record["status"] == "diverged":
            if mode == "retry":
                return "again", "diverged before; tried again", cell.evaluations
            return "nothing", f"diverged: {divergence(found.record)} (--mode retry tries again)", ()
        if missing and found.has_checkpoint:
            return "evaluate", f"trained; {_names(missing)} still to measure", missing
        if missing:
            return "train", "trained, but its checkpoint is gone and an evaluation is missing", missing
        diverged = tuple(evaluation for evaluation in cell.evaluations if evaluation.id in found.diverged)
        return "nothing", f"done; {_names(diverged)} diverged (--mode retry measures again)" if diverged else "done", ()
    if any("record.json" in problem for problem in found.problems):
        do: Do = "resume" if found.has_checkpoint else "train"
        return do, "its record cannot be read; made again", missing
    failed = found.owner is not None and found.owner.get("released") == "failed"
    if failed and mode == "cached":
        assert found.owner is not None
        return "nothing", f"failed: {found.owner.get('note', '')} (--mode retry tries again)", ()
    again = f"failed before ({found.owner.get('note', '')}); tried again" if failed and found.owner else ""
    if found.has_checkpoint:
        return "resume", again or "interrupted; goes on from its checkpoint", missing
    old = versions.get(without_version(cell.config))
    if old is not None:
        return "train", f"stale: {cell.config['method']} VERSION {old} -> {cell.config['version']}", missing
    return "train", again or "new", missing


def _names(evaluations: Iterable[Evaluation]) -> str:
    return ", ".join(dict.fromkeys(str(evaluation.protocol["name"]) for evaluation in evaluations))
