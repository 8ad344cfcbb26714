"""Whether the representation of a row collapsed.

The collapse statistic is c = std(z)·√d: the standard deviation of z/|z| over images, per channel, averaged over the d
channels and multiplied by √d. It is 1 for directions spread evenly over the sphere and 0 when all images have one
representation. By Cauchy-Schwarz c² = s · (1 - mean cosine of two images' z), where s in (0, 1] is the effective share
of the channels that vary (1 when all vary alike). So

    c > 0.5   implies a mean cosine below 0.75: two images are told apart, the representation has not collapsed;
    c < 0.15  means s · (1 - cosine) < 0.0225: either nearly all images share one direction (complete collapse, mean
              cosine above 0.9775), or almost no channel varies (dimensional collapse).

In between nothing is decided. Networks that learn are found near 0.8 to 1, collapsed ones near 0.02, so that a single
seed is usually far from both edges: a collapse may be decided on one seed, or on each of several seeds by itself where
their t interval is too wide (at n = 2 it reaches nine standard deviations to either side), and the sentence says so. No
other claim ever is. The edges, not a test, decide, so that there is no p-value.
"""

from __future__ import annotations

from dataclasses import dataclass

from reports.claims.judged import ClaimVerdict, Outcome, Side, unable
from reports.metrics import COLLAPSE
from reports.verdict import advice, seeds_needed

COLLAPSED_BELOW = 0.15
SPREAD_ABOVE = 0.5


@dataclass(frozen=True)
class Thresholds:
    """The two edges of the collapse statistic; see the head of this module."""

    collapsed_below: float = COLLAPSED_BELOW
    spread_above: float = SPREAD_ABOVE


def collapse(row: Side, expected: bool, thresholds: Thresholds) -> ClaimVerdict:
    """Whether the row collapsed, against what the paper says it does (`expected`: it collapses)."""
    if silent := unable([row]):
        return silent
    found = row.estimate
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


def _c(value: float) -> str:
    return COLLAPSE.shown(value)
