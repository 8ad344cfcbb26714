"""What our runs say about a statement of the paper: a collapse, an order of two rows, a gap. Pure functions.

The collapse statistic is c = std(z)·√d: the standard deviation of z/|z| over images, per channel, averaged over the d
channels and multiplied by √d. It is 1 for directions spread evenly over the sphere and 0 when all images have one
representation. By Cauchy-Schwarz c² = s · (1 - mean cosine of two images' z), where s in (0, 1] is the effective share
of the channels that vary (1 when all vary alike). So

    c > 0.5   implies a mean cosine below 0.75: two images are told apart, the representation has not collapsed;
    c < 0.15  means s · (1 - cosine) < 0.0225: either nearly all images share one direction (complete collapse, mean
              cosine above 0.9775), or almost no channel varies (dimensional collapse).

In between nothing is decided. Networks that learn are found near 0.8 to 1, collapsed ones near 0.02, so that a single
seed is usually far from both edges: a collapse may be decided on one seed, or on each of several seeds by itself where
their t interval is too wide (at n = 2 it reaches nine standard deviations to either side), and the sentence says so.
Orders and gaps never are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from reports.aggregate import LEVEL, Estimate, Measured, t_quantile
from reports.metrics import COLLAPSE, Metric
from reports.verdict import advice, seeds_needed

Outcome = Literal["supported", "contradicted", "undecided", "not run"]
COLLAPSED_BELOW = 0.15
SPREAD_ABOVE = 0.5
EACH = " of each row"


@dataclass(frozen=True)
class Thresholds:
    """The two edges of the collapse statistic; see the head of this module."""

    collapsed_below: float = COLLAPSED_BELOW
    spread_above: float = SPREAD_ABOVE


@dataclass(frozen=True)
class ClaimVerdict:
    """basis: what a collapse was decided on when not on the interval of the mean: 'one seed' or 'each seed' by itself.

    waits_for_baseline: an order that is open only because the untrained network has a single seed.
    """

    outcome: Outcome
    sentence: str
    more_seeds: int | None = None
    basis: str = ""
    waits_for_baseline: bool = False


@dataclass(frozen=True)
class Side:
    """One row in a claim: its name in a sentence and its number."""

    name: str
    measured: Measured


@dataclass(frozen=True)
class Difference:
    """A difference of two independent means with Welch's interval."""

    mean: float
    low: float
    high: float


def difference(first: Estimate, second: Estimate, level: float = LEVEL) -> Difference | None:
    """first - second; None when either has a single seed and so no spread."""
    if first.std is None or second.std is None:
        return None
    mean = first.mean - second.mean
    a, b = first.std**2 / first.n, second.std**2 / second.n
    if a + b == 0:
        return Difference(mean, mean, mean)
    degrees = (a + b) ** 2 / (a**2 / (first.n - 1) + b**2 / (second.n - 1))
    half = t_quantile(degrees, level) * math.sqrt(a + b)
    return Difference(mean, mean - half, mean + half)


def collapse(row: Side, expected: bool, thresholds: Thresholds) -> ClaimVerdict:
    """Whether the row collapsed, against what the paper says it does (`expected`: it collapses)."""
    unable = _unable(row)
    if unable is not None or row.measured.estimate is None:
        return unable or ClaimVerdict("not run", "")
    found = row.measured.estimate
    one_seed = found.low is None or found.high is None
    low, high = (found.mean, found.mean) if found.low is None or found.high is None else (found.low, found.high)
    value = f"{COLLAPSE.label} = {COLLAPSE.shown(found.mean)}" + ("" if one_seed else f" in [{_c(low)}, {_c(high)}]")
    sides = {_side(seed, thresholds) for seed in found.values}
    state, basis = _side(low, thresholds), "one seed" if one_seed else ""
    if state is None or _side(high, thresholds) != state:
        # A further seed that agrees must not undo what one seed may decide, as a t interval of two seeds easily would.
        state, basis = (sides.pop(), "each seed") if len(sides) == 1 else (None, "")
    if state is None and thresholds.collapsed_below <= found.mean <= thresholds.spread_above:
        between = f"between {thresholds.collapsed_below:g} (collapsed) and {thresholds.spread_above:g} (not)"
        return ClaimVerdict("undecided", f"{row.name}: {value} lies {between}")
    if state is None:
        edge = thresholds.collapsed_below if found.mean < thresholds.collapsed_below else thresholds.spread_above
        more = seeds_needed(found.std or 0.0, abs(found.mean - edge), found.n)
        return ClaimVerdict("undecided", f"{row.name}: {value} reaches across {edge:g}; {advice(more)}", more)
    if state == "collapsed":
        words = f"below {thresholds.collapsed_below:g}: collapsed"
    else:
        words = f"above {thresholds.spread_above:g}: not collapsed"
    last = {
        "": f"{found.n} seeds",
        "one seed": "decided on one seed, far from the other outcome",
        "each seed": f"decided on each of {found.n} seeds alone, too few for a narrow interval",
    }[basis]
    outcome: Outcome = "supported" if (state == "collapsed") == expected else "contradicted"
    return ClaimVerdict(outcome, f"{row.name}: {value}, {words}; {last}", basis=basis)


def _side(value: float, thresholds: Thresholds) -> str | None:
    if value < thresholds.collapsed_below:
        return "collapsed"
    return "spread" if value > thresholds.spread_above else None


def order(above: Side, below: Side, baseline: Side, metric: Metric) -> ClaimVerdict:
    """Whether the first row is the better one. Decidable only if the one measured better has learned at all, that is,
    beats the randomly initialized network."""
    for side in (above, below):
        unable = _unable(side)
        if unable is not None:
            return unable
    first, second = above.measured.estimate, below.measured.estimate
    assert first is not None and second is not None
    sign = -1.0 if metric.higher_is_better is False else 1.0
    found = difference(first, second)
    if found is None:
        shown = f"{metric.shown(first.mean)} against {metric.shown(second.mean)}"
        return ClaimVerdict("undecided", f"{shown}, but one seed has no interval; at least 2 seeds of each row", 1)
    gap = _shown(above, below, found, metric)
    better, outcome = _leader(above, below, sign * found.low, sign * found.high)
    if better is None:
        more = seeds_needed(math.hypot(first.std or 0.0, second.std or 0.0), abs(found.mean), min(first.n, second.n))
        return ClaimVerdict("undecided", f"{gap} includes 0; {advice(more, EACH)}", more)
    learned = _beats(better, baseline, sign)
    if learned is not None:
        waits = baseline.measured.n == 1 and not baseline.measured.stale
        reason = f"{gap}, but {learned}, so accuracy cannot decide at this scale"
        return ClaimVerdict("undecided", reason, waits_for_baseline=waits)
    return ClaimVerdict(outcome, f"{gap}, and {better.name} is above {baseline.name}")


def gap(above: Side, below: Side, paper: float, margin: float, metric: Metric, scaled: str = "") -> ClaimVerdict:
    """Whether the difference of two rows is the paper's, within margin. `scaled`: why this scale cannot say, or ''."""
    for side in (above, below):
        unable = _unable(side)
        if unable is not None:
            return unable
    if scaled:
        return ClaimVerdict("undecided", f"the size of a gap can only be tested at the paper's protocol; {scaled}")
    first, second = above.measured.estimate, below.measured.estimate
    assert first is not None and second is not None
    found = difference(first, second)
    if found is None:
        return ClaimVerdict("undecided", "one seed has no interval; at least 2 seeds of each row", 1)
    shown = _shown(above, below, found, metric)
    target = f"the paper's {_signed(paper, metric)} ± {margin:g}"
    if found.low >= paper - margin and found.high <= paper + margin:
        return ClaimVerdict("supported", f"{shown} lies within {target}")
    if found.high < paper - margin or found.low > paper + margin:
        return ClaimVerdict("contradicted", f"{shown} lies outside {target}")
    spread = math.hypot(first.std or 0.0, second.std or 0.0)
    more = seeds_needed(spread, abs(margin - abs(found.mean - paper)), min(first.n, second.n))
    return ClaimVerdict("undecided", f"{shown} reaches across an edge of {target}; {advice(more, EACH)}", more)


def _unable(side: Side) -> ClaimVerdict | None:
    """Why nothing can be said about a row, or None when it has a number."""
    measured = side.measured
    if measured.diverged:
        total = measured.diverged + measured.n
        return ClaimVerdict("undecided", f"{side.name}: {measured.diverged} of {total} seeds diverged")
    if measured.estimate is None:
        return ClaimVerdict("not run", f"{side.name}: {measured.missing}")
    if measured.stale:
        return ClaimVerdict("not run", f"{side.name}: only runs {measured.stale} exist")
    return None


def _leader(above: Side, below: Side, low: float, high: float) -> tuple[Side | None, Outcome]:
    if low > 0:
        return above, "supported"
    if high < 0:
        return below, "contradicted"
    return None, "undecided"


def _beats(side: Side, baseline: Side, sign: float) -> str | None:
    """None when the row is above the baseline for sure, else the words for why that is not known."""
    assert side.measured.estimate is not None
    if baseline.measured.estimate is None or baseline.measured.stale:
        return f"{baseline.name} has not been measured"
    found = difference(side.measured.estimate, baseline.measured.estimate)
    if found is None:
        return f"{baseline.name} has one seed only"
    if min(sign * found.low, sign * found.high) > 0:
        return None
    return f"{side.name} is not above {baseline.name}"


def _shown(above: Side, below: Side, found: Difference, metric: Metric) -> str:
    mean, low, high = (_signed(value, metric) for value in (found.mean, found.low, found.high))
    return f"{above.name} - {below.name} = {mean} [{low}, {high}]"


def _signed(value: float, metric: Metric) -> str:
    return f"{value:+.{metric.decimals}f}"


def _c(value: float) -> str:
    return COLLAPSE.shown(value)
