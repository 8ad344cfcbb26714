"""Two stores side by side: what each measured in the same cells, whether they agree, and what was different about the machines.

Cells are the same where table, profile, data content, row and column are. Numbers of other versions of a method, of another
protocol, or of trainings on data with another content are never held against one another: such a pair is told apart and
counted. Costs (hours, memory) are compared only between the same hardware.

The words are those of a verdict (reports/verdict.py): two numbers agree when all of the 95 % interval of their difference
(Welch's) lies within the margin, and differ when all of it lies outside. Without a margin nothing can agree but what is equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reports.aggregate import Estimate
from reports.alike import unlike, variant
from reports.assemble import Report
from reports.claims import difference
from reports.evidence import Run
from reports.metrics import Metric
from reports.render_markdown import code, escape, grid
from reports.table import Column, Entry, Row, Table
from reports.verdict import advice, seeds_needed

Outcome = Literal["differ", "not comparable", "undecided", "only here", "only there", "agree"]
OUTCOMES: tuple[Outcome, ...] = ("differ", "not comparable", "undecided", "only here", "only there", "agree")
MEANING: dict[Outcome, str] = {
    "differ": "the whole interval of the difference lies outside the margin",
    "not comparable": "measured in both, but not alike",
    "undecided": "the interval of the difference reaches across an edge of the margin, or one side has a single seed",
    "only here": "nothing of it there",
    "only there": "nothing of it here",
    "agree": "the whole interval of the difference lies within the margin, or the numbers are the same",
}
_NO_MARGIN = 0.0


@dataclass(frozen=True)
class Pair:
    """One cell in both stores, None where one has nothing. gap: here - there, low and high its interval (None for one seed).

    also: the titles of further tables with the same numbers of the same runs, and the same outcome.
    """

    table: Table
    row: Row
    column: Column
    here: Entry | None
    there: Entry | None
    outcome: Outcome
    sentence: str
    gap: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float = _NO_MARGIN
    also: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        found = (self.here or self.there or Entry("")).metric or self.column.metric
        assert found is not None  # a cell with a number has a metric
        return found

    @property
    def difference(self) -> str:
        """`+0.4 [-0.2, +1.0]`, without the interval where there is none, '' where one side has no number."""
        if self.gap is None:
            return ""
        bounds = (
            f" [{self._signed(self.low)}, {self._signed(self.high)}]" if self.low is not None and self.high is not None else ""
        )
        return f"{self._signed(self.gap)}{bounds}"

    def _signed(self, value: float) -> str:
        """At the metric's precision; what rounds to 0 has no minus."""
        return f"{round(value, self.metric.decimals) + 0.0:+.{self.metric.decimals}f}"

    @property
    def measure(self) -> str:
        """The column, or where the numbers stand in columns of several names the measure."""
        if not self.row.own and not self.also:
            return self.column.header
        return self.metric.label + (f", {self.metric.unit}" if self.metric.unit in ("%", "h", "GB") else "")

    @property
    def weight(self) -> float:
        """How far apart, in margins; where there is none in shares of the number itself."""
        if self.gap is None:
            return 0.0
        scale = self.margin or max((abs(e.estimate.mean) for e in (self.here, self.there) if e and e.estimate), default=0.0)
        return abs(self.gap) / scale if scale else 0.0


@dataclass(frozen=True)
class Turned:
    """A claim with another outcome here than there, at one scale on the same data."""

    table: Table
    says: str
    here: str
    there: str


@dataclass(frozen=True)
class Fact:
    """Something of the machines or the code: what is found in each store, with how many runs say so."""

    name: str
    here: tuple[tuple[str, int], ...]
    there: tuple[tuple[str, int], ...]

    @property
    def same(self) -> bool:
        return {value for value, _ in self.here} == {value for value, _ in self.there}


@dataclass(frozen=True)
class Comparison:
    """pairs: what matters most first. other_data: scales whose runs are on data that the other store has not, in words."""

    here: str
    there: str
    pairs: tuple[Pair, ...]
    claims: tuple[Turned, ...]
    facts: tuple[Fact, ...]
    other_data: tuple[str, ...]
    runs: tuple[int, int, int]  # here, there, and cells with a record in both

    def of(self, outcome: Outcome) -> list[Pair]:
        return [pair for pair in self.pairs if pair.outcome == outcome]

    @property
    def counts(self) -> dict[Outcome, int]:
        found = Counter(pair.outcome for pair in self.pairs)
        return {outcome: found[outcome] for outcome in OUTCOMES}


def compare(here: Report, there: Report, name_here: str = "here", name_there: str = "there") -> Comparison:
    """Both reports are of the same sweeps and tables. Pure."""
    mine, theirs = _measured(here), _measured(there)
    pairs, claims = [], []
    for slug in dict.fromkeys([*mine, *theirs]):
        ours, other = mine.get(slug), theirs.get(slug)
        pairs += list(_pairs(here, there, ours, other))
        if ours is not None and other is not None:
            claims += list(_turned(ours, other))
    return Comparison(
        here=name_here,
        there=name_there,
        pairs=tuple(sorted(_once(pairs), key=_rank)),
        claims=tuple(claims),
        facts=tuple(_facts(here.runs.values(), there.runs.values())),
        other_data=tuple(_other_data(mine, theirs)),
        runs=(len(here.runs), len(there.runs), len(set(here.runs) & set(there.runs))),
    )


def _measured(report: Report) -> dict[str, Table]:
    """The tables with any run, at every scale and on every data: by id, profile and the data's content."""
    return {table.slug: table for table in report.every if table.data is not None}


def _once(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The same numbers once, at a table in which they are the paper's own row if there is one: some rows are in all of them."""
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        runs = tuple(entry.runs if entry else () for entry in (pair.here, pair.there))
        same = pair.table.profile, pair.table.data, runs, pair.metric.id, pair.gap, pair.outcome, pair.sentence
        groups.setdefault(same, []).append(pair)
    for found in groups.values():
        first = min(found, key=lambda pair: (pair.row.own, pair.column.kind != "published"))
        yield replace(first, also=tuple(dict.fromkeys(p.table.title for p in found if p.table.id != first.table.id)))


def _rank(pair: Pair) -> tuple[int, bool, bool, float]:
    """Decided differences first, and among them the papers' own rows and accuracies, the largest first."""
    return OUTCOMES.index(pair.outcome), pair.column.kind != "published", pair.row.own, -pair.weight


def _pairs(here: Report, there: Report, ours: Table | None, other: Table | None) -> Iterator[Pair]:
    for table, row, column, mine, theirs in _cells(ours, other):
        first = mine if mine is not None and mine.n else None
        second = theirs if theirs is not None and theirs.n else None
        margin = _margin(table, column, mine or theirs)
        if first is None and second is None:
            continue
        if first is None or second is None:
            found = first or second
            assert found is not None
            seeds = f"{found.n} seed{'s' if found.n != 1 else ''}"
            outcome: Outcome = "only here" if second is None else "only there"
            yield Pair(table, row, column, first, second, outcome, f"{found.display}, {seeds}", margin=margin)
            continue
        if words := unlike(variant(here, table, first), variant(there, table, second)):
            yield Pair(table, row, column, first, second, "not comparable", words, margin=margin)
            continue
        yield _judged(table, row, column, first, second, margin)


def _cells(ours: Table | None, other: Table | None) -> Iterator[tuple[Table, Row, Column, Entry | None, Entry | None]]:
    """Every cell of a table with its entry in each store."""
    table = ours or other
    assert table is not None
    theirs: dict[tuple[str, str], Entry | None] = {}
    if other is not None:
        theirs = {(row.id, column.id): entry for row in other.rows for column, entry in other.pairs(row)}
    for row in table.rows:
        for column, entry in table.pairs(row):
            mine = entry if ours is not None else None
            yield table, row, column, mine, theirs.get((row.id, column.id))


def _margin(table: Table, column: Column, entry: Entry | None) -> float:
    """The column's own margin; of an accuracy beside it the table's; of a cost or a statistic none."""
    metric = entry.metric if entry else None
    if column.kind == "published" and column.margin:
        return column.margin
    return table.main.margin if metric is not None and metric.is_accuracy else _NO_MARGIN


def _judged(table: Table, row: Row, column: Column, first: Entry, second: Entry, margin: float) -> Pair:
    """Two cells that were measured alike."""

    def pair(outcome: Outcome, sentence: str, gap: float | None = None, bounds: tuple[float, float] | None = None) -> Pair:
        low, high = bounds or (None, None)
        return Pair(table, row, column, first, second, outcome, sentence, gap, low, high, margin)

    mine, theirs = first.estimate, second.estimate
    if first.diverged or second.diverged:
        told = f"{first.diverged} of {first.n} seeds diverged here, {second.diverged} of {second.n} there"
        if mine is None and theirs is None:
            return pair("agree", f"{told}: no number in either")
        if mine is None or theirs is None:
            alone = (theirs or mine) is not None and not (first.diverged and second.diverged)
            return pair("differ" if alone and first.n > 1 and second.n > 1 else "undecided", told)
        return pair("undecided", f"{told}: a mean over survivors proves nothing", mine.mean - theirs.mean)
    assert mine is not None and theirs is not None
    gap = mine.mean - theirs.mean
    if sorted(mine.values) == sorted(theirs.values):
        same = first.runs == second.runs
        return pair("agree", "the same numbers, seed by seed" if same else "the same numbers", gap, (gap, gap))
    found = difference(mine, theirs)
    if found is None:
        return pair("undecided", _single(mine, theirs), gap)
    bounds = found.low, found.high
    metric = first.metric
    assert metric is not None
    within = f"± {margin:g}"
    if margin and found.low >= -margin and found.high <= margin:
        return pair("agree", f"the whole interval lies within {within}", gap, bounds)
    if found.low > margin or found.high < -margin:
        return pair("differ", f"the whole interval lies outside {within}" if margin else "the interval excludes 0", gap, bounds)
    if not margin:
        return pair("undecided", "the interval includes 0, and no margin says how close is close enough", gap, bounds)
    more = seeds_needed(found.spread, abs(margin - abs(gap)), found.seeds)
    return pair("undecided", f"the interval reaches across an edge of {within}; {advice(more, ' in each store')}", gap, bounds)


def _single(mine: Estimate, theirs: Estimate) -> str:
    where = "both have" if mine.n == theirs.n == 1 else "here is" if mine.n == 1 else "there is"
    return f"{where} one seed, which has no interval"


# -- claims, machines, data -------------------------------------------------------------------------------------------------


def _turned(ours: Table, other: Table) -> Iterator[Turned]:
    """Claims that were judged in both stores with another outcome."""
    theirs = {claim.id: claim for claim in other.claims}
    for claim in ours.claims:
        there = theirs.get(claim.id)
        if there is None or "not run" in (claim.verdict.outcome, there.verdict.outcome):
            continue
        if claim.verdict.outcome != there.verdict.outcome:
            yield Turned(ours, claim.says, claim.words, there.words)


def _facts(here: Iterable[Run], there: Iterable[Run]) -> Iterator[Fact]:
    """Code, libraries and hardware. What both stores have alike comes last."""
    mine, theirs = _provenance(here), _provenance(there)
    facts = [
        Fact(name, tuple(mine.get(name, Counter()).most_common()), tuple(theirs.get(name, Counter()).most_common()))
        for name in dict.fromkeys([*mine, *theirs])
    ]
    yield from sorted(facts, key=lambda fact: fact.same)


def _provenance(runs: Iterable[Run]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for run in runs:
        provenance = run.record.get("provenance") or {}
        told: dict[str, Any] = {"code (git)": str(provenance.get("git") or "unknown")[:12]}
        if provenance.get("dirty"):
            told["code (git)"] += " with changes"
        told |= provenance.get("hardware") or {}
        told |= provenance.get("versions") or {}
        for name, value in told.items():
            if value is not None:
                found.setdefault(name, Counter())[str(value)] += 1
    return found


def _other_data(mine: Mapping[str, Table], theirs: Mapping[str, Table]) -> Iterator[str]:
    """Where the stores have the same table at the same scale, but on other images."""
    places = {(table.id, table.profile): table for table in theirs.values()}
    told: Counter[tuple[str, str]] = Counter()
    for slug, table in mine.items():
        other = places.get((table.id, table.profile))
        if slug not in theirs and other is not None and table.data is not None and other.data is not None:
            told[table.data.shown, other.data.shown] += 1
    for (here, there), count in told.items():
        yield f"{count} table{'s' if count != 1 else ''} on {here} here, on {there} there: other images, so not compared"


# -- as Markdown ------------------------------------------------------------------------------------------------------------

_MANY = 200  # lines of cells that only one store has, or that agree


def markdown(comparison: Comparison) -> str:
    """The comparison as a file of its own."""
    here, there, both = comparison.runs
    parts = [
        "# Two stores compared",
        f"Here: {code(comparison.here)}, {here} records. There: {code(comparison.there)}, {there} records. {both} cells have "
        "a record in both. A difference is here minus there, with Welch's 95 % interval over random seeds.",
        grid(
            ["outcome", "cells", "meaning"],
            [[o, str(n), MEANING[o]] for o, n in comparison.counts.items()],
            [False, True, False],
        ),
    ]
    parts += [f"- {escape(text)}" for text in comparison.other_data]
    if comparison.claims:
        rows = [[escape(c.says), escape(c.table.where), c.here, c.there] for c in comparison.claims]
        parts += ["## Claims with another outcome", grid(["the paper says", "scale", "here", "there"], rows, [False] * 4)]
    for outcome in OUTCOMES:
        if found := comparison.of(outcome):
            parts += [f"## {outcome.capitalize()}", _lines(found[:_MANY])]
            if len(found) > _MANY:
                parts.append(f"and {len(found) - _MANY} more")
    facts = [[escape(fact.name), _values(fact.here), _values(fact.there)] for fact in comparison.facts if not fact.same]
    parts.append("## Machines and versions")
    parts.append(grid(["what", "here", "there"], facts, [False] * 3) if facts else "The same in both.")
    return "\n\n".join(parts) + "\n"


def _lines(pairs: Sequence[Pair]) -> str:
    header = ["table", "scale", "row", "column", "here", "there", "difference", "why"]
    rows = [
        [
            escape(pair.table.title + (f" and {len(pair.also)} more" if pair.also else "")),
            escape(pair.table.profile),
            escape(pair.row.name),
            escape(pair.measure),
            escape(pair.here.display) if pair.here else "",
            escape(pair.there.display) if pair.there else "",
            pair.difference,
            escape(pair.sentence),
        ]
        for pair in pairs
    ]
    return grid(header, rows, [False] * 4 + [True] * 3 + [False])


def _values(values: Sequence[tuple[str, int]]) -> str:
    return escape(", ".join(f"{value} ({count})" for value, count in values) or "none")
