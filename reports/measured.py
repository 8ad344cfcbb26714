"""One cell of a table between the records and the page: which metric stands in it, what was measured, may it be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reports.aggregate import Estimate, Measured, estimate, measure
from reports.claims import difference
from reports.comparable import why_not
from reports.evidence import Data, Run
from reports.filling import Filled, Filling, NotFilled
from reports.metrics import METRICS, PRETRAIN, Metric
from reports.planned import PlannedRow, value_at
from reports.reference import Reference
from reports.spec import ColumnSpec, RowSpec, TableSpec
from reports.table import Column, Entry, interval
from reports.verdict import Verdict, compare


@dataclass(frozen=True)
class Measurement:
    """metric: what is (to be) measured here at this profile, None where nothing is. incomparable: why it may not be held
    against the published number, beyond what holds for the whole profile."""

    filled: Filling
    metric: Metric | None
    measured: Measured
    reference: Reference | None = None
    incomparable: str = ""
    of: tuple[str, ...] = field(default=())  # a derived number's columns

    @property
    def planned(self) -> PlannedRow | None:
        return self.filled.planned if isinstance(self.filled, Filled) else None


def measurement(
    filling: Filling, column: str, spec: TableSpec, runs: Mapping[str, Sequence[Run]], data: Data | None, row: RowSpec
) -> Measurement:
    """The cell of this row and column, from the runs of its training on this data. Derived columns come later (`derived`)."""
    stated = next((each for each in spec.columns if each.id == column), None)
    reference = row.references.get(column)
    metrics = stated.measures() if stated else (METRICS()[column.partition("@")[0]],)  # beside a published column, or hidden
    if isinstance(filling, NotFilled):
        return Measurement(filling, metrics[0] if metrics else None, Measured(missing=filling.why), reference)
    if stated is not None and not metrics:
        why = stated.missing or "computed from the other columns of its row"
        return Measurement(filling if stated.derive else NotFilled(why), None, Measured(missing=why), reference)
    planned = filling.planned
    metric = next((each for each in metrics if each.stage == PRETRAIN or each.stage in planned.protocols), None)
    if metric is None:
        why = f"this profile does not evaluate {' or '.join(dict.fromkeys(each.stage for each in metrics))}"
        return Measurement(NotFilled(why), metrics[0], Measured(missing=why), reference)
    measured = measure(planned, runs.get(planned.key, []), metric, data, spec.interval)
    return Measurement(filling, metric, measured, reference, _incomparable(spec, stated, metric, planned, reference, data))


def _incomparable(
    spec: TableSpec,
    stated: ColumnSpec | None,
    metric: Metric,
    planned: PlannedRow,
    reference: Reference | None,
    data: Data | None,
) -> str:
    if stated is None or reference is None:
        return ""
    if why := why_not(reference, planned.config, data):
        return why
    for key, value in spec.config.items():
        if (found := value_at(planned.config, key)) != value and not (key == "data.name" and data and data.name == value):
            return f"{key} is {found}, in the paper {value}"
    if (own := stated.own()) and metric not in own:
        return f"measured by {metric.stage}, in the paper by {' or '.join(each.stage for each in own)}"
    return ""


def derived(spec: TableSpec, cells: dict[tuple[str, str], Measurement], scale: str) -> None:
    """Fill the derived columns from the measured ones of their row, in place."""
    for (row, column), found in list(cells.items()):
        stated = next((each for each in spec.columns if each.id == column), None)
        if stated is None or stated.derive is None:
            continue
        parts = [cells.get((row, name)) for name in stated.derive.columns]
        cells[row, column] = _derived(found, [part for part in parts if part], stated, len(parts))


def _derived(found: Measurement, parts: Sequence[Measurement], stated: ColumnSpec, wanted: int) -> Measurement:
    assert stated.derive is not None
    metric = next((part.metric for part in parts if part.metric), None)
    shown = replace(metric, label=stated.label) if metric else None
    estimates = [part.measured.estimate for part in parts]
    missing = [part.measured.missing or "no record" for part in parts if part.measured.estimate is None]
    runs = tuple(dict.fromkeys(run for part in parts for run in part.measured.runs))
    stale = next((part.measured.stale for part in parts if part.measured.stale), "")
    incomparable = next((part.incomparable for part in parts if part.incomparable), "")
    filled = next(
        (part.filled for part in parts if isinstance(part.filled, NotFilled)), parts[0].filled if parts else found.filled
    )
    if len(parts) < wanted or missing:
        why = missing[0] if missing else "a column it is computed from is not there"
        return replace(found, filled=filled, metric=shown, measured=Measured(missing=why), of=stated.derive.columns)
    values = [each for each in estimates if each is not None]
    number = _mean(values) if stated.derive.how == "mean" else _minus(values)
    measured = Measured(estimate=number, runs=runs, stale=stale)
    return replace(found, filled=filled, metric=shown, measured=measured, incomparable=incomparable, of=stated.derive.columns)


def _mean(parts: Sequence[Estimate]) -> Estimate:
    """The mean over columns, seed by seed where all have the same number of seeds; else of the means, without an interval."""
    if len({part.n for part in parts}) == 1:
        return estimate([sum(values) / len(values) for values in zip(*(part.values for part in parts), strict=True)])
    return estimate([sum(part.mean for part in parts) / len(parts)])


def _minus(parts: Sequence[Estimate]) -> Estimate:
    """The difference of two independent means with Welch's interval. Its n is the smaller of the two."""
    first, second = parts[0], parts[1]
    found = difference(first, second)
    values = tuple(a - b for a, b in zip(first.values, second.values, strict=False))
    if found is None:
        return Estimate(values[:1], first.mean - second.mean, None, None, None)
    std = ((first.std or 0.0) ** 2 + (second.std or 0.0) ** 2) ** 0.5
    return Estimate(values, found.mean, std, found.low, found.high)


def comparison(found: Measurement, column: Column, row: RowSpec, scale: str) -> Verdict:
    """The verdict on a published cell."""
    if isinstance(found.filled, NotFilled):
        return Verdict("not run", found.filled.why)
    metric = found.metric or column.metric
    assert metric is not None
    return compare(found.measured, found.reference, column.margin, metric, row.differs or scale or found.incomparable)


def entry(found: Measurement, verdict: Verdict | None) -> Entry:
    """The finished cell."""
    planned, measured = found.planned, found.measured
    wanted = len(planned.seeds) if planned else 0
    done = measured.n + measured.diverged
    complete = planned is None or (done >= wanted and not measured.stale)
    return Entry(
        display=_shown(found),
        reference=found.reference,
        metric=found.metric,
        estimate=measured.estimate,
        diverged=measured.diverged,
        wanted=wanted,
        verdict=verdict,
        reason=measured.stale or measured.missing,
        runs=measured.runs,
        training=planned.name if planned else "",
        command="" if complete or planned is None else planned.command,
        again=planned.again if planned else "",
        stale=bool(measured.stale),
    )


def _shown(found: Measurement) -> str:
    measured = found.measured
    if isinstance(found.filled, NotFilled):
        return "-"
    if measured.estimate is None or found.metric is None:
        return "diverged" if measured.diverged else ("not evaluated" if measured.runs else "not run")
    text = interval(measured.estimate, found.metric)
    if measured.diverged:
        text += f" ({measured.diverged} diverged)"
    return f"{text} (stale)" if measured.stale else text
