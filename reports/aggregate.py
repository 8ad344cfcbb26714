"""From runs to numbers: the seeds of one row, their mean and its interval, and everything that must not be mixed in.

Runs of different data, method versions or protocol settings never share a number. `measure` uses the current version
and protocol; where only older runs exist they are used among themselves and the result says so. Numbers of another
detection engine than the planned one are never used: the engines do not agree closely enough.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from scipy.special import stdtrit  # quantile of Student's t; scipy.stats would cost a second of import

from reports.bootstrap import bootstrap_interval
from reports.evidence import Data, Run
from reports.metrics import PRETRAIN, Metric
from reports.planned import PlannedRow

LEVEL = 0.95


IntervalKind = Literal["t", "bootstrap"]


@dataclass(frozen=True)
class Estimate:
    """A mean over random seeds. std is the sample standard deviation (n - 1); the interval is Student's t at `level`, or the
    studentized bootstrap's where `kind` says so.

    With one seed there is neither: std, low and high are None.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None
    low: float | None
    high: float | None
    kind: IntervalKind = "t"
    level: float = LEVEL

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def half_width(self) -> float | None:
        """What stands behind ±: of the bootstrap's interval, which is not symmetric, the longer side."""
        if self.high is None or self.low is None:
            return None
        return self.high - self.mean if self.kind == "t" else max(self.high - self.mean, self.mean - self.low)


@lru_cache(maxsize=8192)
def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """How many standard errors a two-sided interval of this level reaches to either side."""
    return float(stdtrit(degrees, 0.5 + level / 2))


def estimate(values: Sequence[float], level: float = LEVEL, kind: IntervalKind = "t") -> Estimate:
    """Mean and interval of at least one value.

    Where a bootstrap is asked for and cannot be trusted (fewer than 8 values, or nearly all of them the same), the t interval
    is given and the estimate's `kind` is "t": the wider and safer one, never silently, since whoever prints it prints `kind`.
    """
    n = len(values)
    if min(values) == max(values):  # exactly, so that no rounding of the sum makes a spread of 1e-17
        mean, deviations = values[0], [0.0]
    else:
        mean = math.fsum(values) / n
        deviations = [value - mean for value in values]
    if n == 1:
        return Estimate(tuple(values), mean, None, None, None, level=level)
    std = math.hypot(*deviations) / math.sqrt(n - 1)  # hypot: the square of a huge deviation would overflow
    resampled = bootstrap_interval(values, level) if kind == "bootstrap" else None
    if resampled is not None:
        return Estimate(tuple(values), mean, std, *resampled, kind="bootstrap", level=level)
    half = t_quantile(n - 1, level) * std / math.sqrt(n)
    return Estimate(tuple(values), mean, std, mean - half, mean + half, level=level)


@dataclass(frozen=True)
class Measured:
    """What the runs of one row say about one metric.

    estimate is None when no run has a value for it; `missing` then says why. stale: why these runs are not of the
    current method or protocol ('' when they are). left_out: sentences on runs that exist but are not in the number.
    """

    estimate: Estimate | None = None
    diverged: int = 0
    runs: tuple[str, ...] = ()
    stale: str = ""
    missing: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return self.estimate.n if self.estimate else 0


NOT_RUN = Measured(missing="no record")


def measure(planned: PlannedRow, runs: Sequence[Run], metric: Metric, data: Data | None, kind: IntervalKind = "t") -> Measured:
    """The number of one cell of the table, from the runs of its row on this data."""
    usable = [run for run in runs if data is None or run.data == data]
    if not usable:
        return NOT_RUN
    current = _current(planned, metric, usable)
    variants: dict[tuple[int, str], list[tuple[Run, float | None]]] = {}
    unevaluated, elsewhere = [], []
    for run in usable:
        if run.diverged:
            variants.setdefault((run.version, current), []).append((run, None))
            continue
        known = False
        for record in _measurements(run, metric):
            value = (record.get("metrics") or {}).get(metric.key)
            number = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
            if number is None and record.get("status") != "diverged":
                continue
            known = True
            if other := _other_engine(record, planned, metric):
                elsewhere.append(other)
            else:
                variants.setdefault((run.version, _settings(record.get("protocol"))), []).append((run, number))
        if not known:
            unevaluated.append(run)
    by_others = [f"{_count(elsewhere.count(name), 'run')} of engine {name} left out" for name in sorted(set(elsewhere))]
    if not variants:
        measured_elsewhere = f"only measured with engine {', '.join(sorted(set(elsewhere)))}" if elsewhere else ""
        return Measured(
            missing=measured_elsewhere or f"{_count(len(unevaluated), 'run')} trained, {metric.stage} evaluation missing",
            runs=tuple(run.id for run in unevaluated),
            left_out=tuple(by_others),
        )
    wanted = (planned.version, current)
    chosen = wanted if wanted in variants else max(variants, key=lambda variant: (variant[0], len(variants[variant]), variant))
    left_out = [
        f"{_count(len(members), 'run')} {_why_other(variant, chosen, planned, metric)} left out"
        for variant, members in sorted(variants.items())
        if variant != chosen
    ]
    left_out += by_others
    if unevaluated:
        left_out.append(f"{_count(len(unevaluated), 'run')} without a {metric.stage} evaluation left out")
    members = variants[chosen]
    values = [value for _, value in members if value is not None]
    return Measured(
        estimate=estimate(values, kind=kind) if values else None,
        diverged=len(members) - len(values),
        runs=tuple(run.id for run, _ in members),
        stale="" if chosen == wanted else _why_other(chosen, wanted, planned, metric),
        missing="" if values else "diverged",
        left_out=tuple(left_out),
    )


def _current(planned: PlannedRow, metric: Metric, runs: Sequence[Run]) -> str:
    """The settings that are planned. Of detection data they do not say which content was at hand (see `PlannedRow`): it is
    that of most of the runs."""
    protocol = planned.protocols.get(metric.stage)
    measured = (record.get("protocol") or {} for run in runs for record in _measurements(run, metric))
    if metric.stage == PRETRAIN:  # whatever machine most of them ran on
        same = [found for found in measured if found]
    else:
        same = [found for found in measured if "content" in found and _without_content(found) == protocol]
    if not same:
        return _settings(protocol)
    every = [_settings(found) for found in same]
    return max(every, key=lambda settings: (every.count(settings), settings))


def _measurements(run: Run, metric: Metric) -> list[dict[str, Any]]:
    """The records that may hold the metric: those of its evaluation, or what the training itself took, by machine."""
    if metric.stage != PRETRAIN:
        return run.evaluations.get(metric.stage, [])
    timing = run.record.get("timing") or {}
    seconds, peak = timing.get("wall_seconds"), timing.get("peak_memory_bytes")
    found = {
        "hours": seconds / 3600 if isinstance(seconds, int | float) else None,
        "memory": peak / 2**30 if isinstance(peak, int | float) else None,
        "images_per_second": timing.get("images_per_second"),
    }
    where = {"hardware": run.hardware, "ranks": timing.get("ranks", 1)}
    return [{"status": "done", "metrics": found, "protocol": where}]


def _without_content(protocol: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key != "content"}


def _other_engine(record: dict[str, Any], planned: PlannedRow, metric: Metric) -> str:
    """The engine of a detection record where another one is planned, else ''."""
    wanted = (planned.protocols.get(metric.stage) or {}).get("engine")
    found = (record.get("protocol") or {}).get("engine")
    return str(found) if wanted and found and found != wanted else ""


def _settings(protocol: dict[str, Any] | None) -> str:
    return json.dumps(protocol, sort_keys=True)


def _why_other(variant: tuple[int, str], other: tuple[int, str], planned: PlannedRow, metric: Metric) -> str:
    """How this variant of a row differs from another one, in the words of a caption."""
    reasons = []
    if variant[0] != other[0]:
        reasons.append(f"of {planned.method} version {variant[0]} (the code is at {planned.version})")
    if variant[1] != other[1]:
        mine, theirs = (json.loads(settings) or {} for settings in (variant[1], other[1]))
        changed = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key) and key != "name"]
        shown = ", ".join(f"{key} = {mine.get(key)}" for key in changed)
        reasons.append(f"with another {metric.stage} protocol ({shown})")
    return " ".join(reasons)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
