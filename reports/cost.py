"""What it costs to find out: for every table at every scale the time measured so far, what is left, and what would decide it.

Estimates are those of `benchmark.run --plan`: from records of the same work where there are any, else declared guesses, which
are marked. Times are seconds of one device (a GPU, or the CPU cores of one process); a training on several ranks counts all.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.plan.cell import Evaluation
from benchmark.plan.cost import Prices, words
from benchmark.plan.cost_evaluations import EvaluationPrices
from benchmark.plan.plan import Known
from benchmark.plan.sweep import PROFILES
from benchmark.store.store import Store
from reports.assemble import Report
from reports.evidence import Run
from reports.figures.cost import Point, cost_against_accuracy
from reports.figures.sketch import Sketch
from reports.planned import PlannedRow
from reports.table import Entry, Row, Table

_ON_CPU = ("smoke", "cpu")  # the other scales want a GPU
_ACCURACY = "linear.top1"
_PAPERS_OWN = ("h", "GB")


@dataclass(frozen=True)
class Amount:
    """count: of cells or seeds. seconds: of one device, of which `guessed` are not from past records."""

    count: int = 0
    seconds: float = 0.0
    guessed: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.count + other.count, self.seconds + other.seconds, self.guessed + other.guessed)

    @property
    def shown(self) -> str:
        """`3 h 20`, with a question mark where more than a tenth of it is a guess; '' where there is nothing."""
        return f"{words(self.seconds)}{' ?' if self.guessed > 0.1 * self.seconds else ''}" if self.count else ""


@dataclass(frozen=True)
class Line:
    """One table at one scale. cells: trainings with their seeds. further: seeds beyond the planned ones that would probably
    decide what is undecided; hopeless: undecided verdicts and claims that no number of seeds settles."""

    table: Table
    cells: int
    done: int
    spent: Amount
    left: Amount
    further: Amount
    hopeless: int
    hardware: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """All tables at one scale, with what they share counted once."""

    profile: str
    device: str
    tables: int
    cells: int
    done: int
    spent: Amount
    left: Amount
    further: Amount
    hardware: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Published:
    """A cost that a paper prints, with what was measured here in that row: (profile, our number) where anything was."""

    table: Table
    row: Row
    column: str
    entry: Entry
    measured: tuple[tuple[Table, Entry], ...]


@dataclass(frozen=True)
class Costs:
    """total: the time of all runs of the report, those of no table included."""

    scales: tuple[Scale, ...]
    published: tuple[Published, ...]
    sketches: tuple[Sketch, ...]
    total: Amount


def gather(report: Report) -> Costs:
    """Everything on the page of costs, from what has been loaded already."""
    groups: dict[tuple[str, str], list[Table]] = {}
    for table in report.every:
        if table.sweep:
            groups.setdefault((table.profile, table.id), []).append(table)
    profiles = sorted(dict.fromkeys(profile for profile, _ in groups), key=_place)
    runs: dict[str, list[Run]] = {}
    for run in report.runs.values():
        runs.setdefault(run.key, []).append(run)
    took = {run.id: spent(run) for run in report.runs.values()}
    prices = {device: _Prices(device, runs, took) for device in ("cpu", "cuda")}
    scales = []
    for profile in profiles:
        tables = [found for (scale, _), found in groups.items() if scale == profile]
        scales.append(_scale(report, profile, tables, prices["cpu" if profile in _ON_CPU else "cuda"]))
    total = Amount(len(took), sum(took.values()))
    return Costs(tuple(scales), tuple(_published(report)), tuple(_sketches(report)), total)


def _place(profile: str) -> int:
    return PROFILES.index(profile) if profile in PROFILES else len(PROFILES)


def spent(run: Run) -> float:
    """Seconds of one device that a run and all evaluations of it took."""
    return trained(run) + sum(
        _number((record.get("timing") or {}).get("wall_seconds")) for records in run.evaluations.values() for record in records
    )


def trained(run: Run) -> float:
    """Seconds of one device that the training took."""
    timing = run.record.get("timing") or {}
    return _number(timing.get("wall_seconds")) * (_number(timing.get("ranks")) or 1)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


class _Prices:
    """What a seed of a row costs on one kind of device: the mean of its own runs, else what the plan says."""

    def __init__(self, device: str, runs: Mapping[str, Sequence[Run]], took: Mapping[str, float]) -> None:
        mine = [run for found in runs.values() for run in found if _device(run) == device]
        training = Prices.from_records((run.record for run in mine), device)
        evaluated = (
            (run.record["config"], record) for run in mine for records in run.evaluations.values() for record in records
        )
        self.device, self.runs, self.took = device, runs, took
        self._known = Known(Store(Path()), {}, training, EvaluationPrices.from_records(evaluated, training))
        self._whole: dict[tuple[str, tuple[str, ...]], tuple[float, bool]] = {}

    def seed(self, row: PlannedRow) -> Amount:
        """One more seed of a row, evaluated."""
        place = row.key, tuple(row.protocols)
        if place not in self._whole:
            own = [
                self.took[run.id]
                for run in self.runs.get(row.key, ())
                if _finished(run, row) and not run.diverged and _device(run) == self.device
            ]
            if own:
                self._whole[place] = statistics.fmean(own), True
            else:
                self._whole[place] = self._planned(row, row.protocols, trains=True)
        seconds, measured = self._whole[place]
        return Amount(1, seconds, 0.0 if measured else seconds)

    def rest(self, row: PlannedRow, run: Run | None) -> Amount:
        """What a seed still needs: all of it, or the evaluations that are missing, before which it is trained again where its
        checkpoint is gone."""
        if run is None:
            return self.seed(row)
        missing = [name for name in row.protocols if name not in run.evaluations]
        seconds, measured = self._planned(row, missing, trains=not (run.folder / "checkpoint.pt").is_file())
        return Amount(1, seconds, 0.0 if measured else seconds)

    def _planned(self, row: PlannedRow, stages: Iterable[str], trains: bool) -> tuple[float, bool]:
        return self._known.seconds(row.config, [Evaluation("", row.protocols[stage]) for stage in stages], trains)


def _device(run: Run) -> str:
    """`cpu` or `cuda`, '' where the record does not say."""
    return str(((run.record.get("provenance") or {}).get("hardware") or {}).get("device") or "")


def _finished(run: Run, row: PlannedRow) -> bool:
    """Whether a run is of today's VERSION and has all that is planned, or diverged."""
    return run.version == row.version and (run.diverged or set(row.protocols) <= set(run.evaluations))


# -- tables and scales ------------------------------------------------------------------------------------------------------


@dataclass
class _Shared:
    """What several tables of one scale have in common, each once: cells by training and seed, further seeds by training."""

    done: set[tuple[str, int]]
    left: dict[tuple[str, int], Amount]
    further: dict[str, Amount]
    runs: dict[str, Run]


def _scale(report: Report, profile: str, groups: Sequence[Sequence[Table]], prices: _Prices) -> Scale:
    shared = _Shared(set(), {}, {}, {})
    lines = [_line(report, tables, prices, shared) for tables in groups]
    runs = list(shared.runs.values())
    return Scale(
        profile=profile,
        device=prices.device,
        tables=len(lines),
        cells=len(shared.done | set(shared.left)),
        done=len(shared.done - set(shared.left)),
        spent=Amount(len(runs), sum(prices.took[run.id] for run in runs)),
        left=sum(shared.left.values(), Amount()),
        further=sum(shared.further.values(), Amount()),
        hardware=_hardware(runs),
        lines=tuple(lines),
    )


def _line(report: Report, tables: Sequence[Table], prices: _Prices, shared: _Shared) -> Line:
    """tables: of one id and scale, one for each data; what is left is counted on the first, which has the most runs."""
    table = tables[0]
    rows = report.plans[table.sweep].profiles[table.profile].rows
    trainings = {entry.training: rows[entry.training] for row in table.rows for entry in row.cells if entry.training in rows}
    planned = {row.key: row for row in trainings.values()}
    used = {run.id: run for key in planned for run in prices.runs.get(key, ())}
    left: dict[tuple[str, int], Amount] = {}
    done: set[tuple[str, int]] = set()
    for key, row in planned.items():
        mine = {
            run.seed: run for run in prices.runs.get(key, ()) if table.data in (None, run.data) and run.version == row.version
        }
        for seed in row.seeds:
            run = mine.get(seed)
            if run is not None and _finished(run, row):
                done.add((key, seed))
            else:
                left[key, seed] = prices.rest(row, run)
    further, hopeless = _further(table, trainings, left, prices)
    shared.done |= done
    shared.left |= left
    shared.runs |= used
    for key, amount in further.items():
        if key not in shared.further or shared.further[key].count < amount.count:
            shared.further[key] = amount
    return Line(
        table=table,
        cells=len(done) + len(left),
        done=len(done),
        spent=Amount(len(used), sum(prices.took[name] for name in used)),
        left=sum(left.values(), Amount()),
        further=sum(further.values(), Amount()),
        hopeless=hopeless,
        hardware=_hardware(used.values()),
    )


def _hardware(runs: Iterable[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.hardware for run in runs if run.hardware))


def _further(
    table: Table, trainings: Mapping[str, PlannedRow], left: Mapping[tuple[str, int], Amount], prices: _Prices
) -> tuple[dict[str, Amount], int]:
    """Seeds beyond the planned ones by training, and how many undecided statements none would decide."""
    wanted: dict[str, int] = {}
    hopeless = 0
    for entries, more in _undecided(table):
        if more is None:
            hopeless += 1
            continue
        target = min(entry.n for entry in entries) + more
        for entry in entries:
            if row := trainings.get(entry.training):
                planned = sum(key == row.key for key, _ in left)
                wanted[row.key] = max(wanted.get(row.key, 0), target - entry.n - planned)
    by_key = {row.key: row for row in trainings.values()}
    found = {}
    for key, count in wanted.items():
        if count > 0:
            one = prices.seed(by_key[key])
            found[key] = Amount(count, count * one.seconds, count * one.guessed)
    return found, hopeless


def _undecided(table: Table) -> Iterator[tuple[list[Entry], int | None]]:
    """The cells behind each undecided number or claim, with the seeds that would probably decide it."""
    for row in table.rows:
        for entry in row.cells:
            if entry.verdict is not None and entry.verdict.kind == "undecided":
                yield [entry], entry.verdict.more_seeds
    for claim in table.claims:
        if claim.verdict.outcome == "undecided":
            rows = dict.fromkeys(claim.rows)
            if claim.verdict.waits_for_baseline and table.baseline:
                rows = {table.baseline: None}
            cells = [main for name in rows if (main := table.row(name).main) is not None and main.training]
            if cells:
                yield cells, 1 if claim.verdict.waits_for_baseline else claim.verdict.more_seeds


# -- what papers say it cost, and accuracy against hours --------------------------------------------------------------------


def _published(report: Report) -> Iterator[Published]:
    """Hours and memory that the registry has, each once."""
    groups: dict[str, list[Table]] = {}
    for table in report.every:
        groups.setdefault(table.id, []).append(table)
    for tables in groups.values():
        first = next((table for table in tables if not table.scale), tables[-1])
        for row in first.rows:
            for column, entry in first.pairs(row):
                if entry is None or entry.reference is None or entry.reference.unit not in _PAPERS_OWN:
                    continue
                here = [(table, table.entry(row.id, column.id)) for table in tables]
                ours = tuple((table, each) for table, each in here if each is not None and each.estimate is not None)
                yield Published(first, row, column.label, entry, ours)


def _sketches(report: Report) -> Iterator[Sketch]:
    """A figure for each scale, data and machine on which at least two trainings have an accuracy. Hours of different machines
    are never in one picture."""
    groups: dict[tuple[str, str, str], dict[str, Point]] = {}
    shown: dict[tuple[str, str, str], str] = {}
    seen: set[tuple[str, str, str]] = set()
    for table in report.every:
        if table.data is None:
            continue
        for row in table.rows:
            for entry in row.cells:
                value = entry.estimate
                if entry.metric is None or entry.metric.id != _ACCURACY or value is None or entry.stale or not entry.training:
                    continue
                runs = [report.runs[run] for run in entry.runs]
                once = table.profile, table.data.content, runs[0].key
                if once in seen:
                    continue
                seen.add(once)
                machines = {run.hardware for run in runs}
                hours = statistics.fmean([trained(run) for run in runs]) / 3600
                if len(machines) > 1 or hours == 0 or len({run.key for run in runs}) > 1:
                    continue
                place = table.profile, table.data.content, machines.pop()
                point = Point(row.name, hours, value.mean, value.low, value.high, runs[0].method)
                groups.setdefault(place, {}).setdefault(runs[0].key, point)
                shown[place] = f"{table.where}, {place[2]}"
    ranked = sorted(groups.items(), key=lambda item: _place(item[0][0]))
    for number, (place, points) in enumerate(ranked):
        sketch = cost_against_accuracy(
            f"cost-{number}-{place[0]}", f"Linear accuracy against hours: {shown[place]}", list(points.values()), "linear, %"
        )
        if sketch is not None:
            yield sketch
