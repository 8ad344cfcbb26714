"""How large a difference is: as in the paper, or negligible. Tests of equivalence, at the paper's own protocol alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from reports.aggregate import LEVEL
from reports.claims.judged import EACH, ClaimVerdict, Part, Side, decide, most, one_seed, shown, unable
from reports.claims.learned import best, decide_if_learned
from reports.claims.orders import corrected, not_enough
from reports.claims.welch import Difference, difference
from reports.metrics import Metric
from reports.verdict import advice


def gap(
    above: Side, below: Side, paper: float, margin: float, metric: Metric, scaled: str = "", level: float = LEVEL
) -> ClaimVerdict:
    """Whether above - below is the paper's, within margin. `scaled`: why this scale cannot say, or ''.

    Supported when the whole Welch interval lies within paper ± margin (TOST), contradicted when all of it lies outside,
    undecided when it reaches across an edge.
    """
    if silent := unable([above, below]):
        return silent
    if scaled:
        return ClaimVerdict("undecided", f"the size of a gap can only be tested at the paper's protocol; {scaled}")
    if silent := one_seed([above, below]):
        return silent
    found = difference(above.estimate, below.estimate, level)
    assert found is not None
    words = shown(above, below, found, metric)
    target = f"the paper's {paper:+.{metric.decimals}f} ± {margin:g}"
    room = margin - abs(found.mean - paper)
    inside = Part.of(found, found.p_within(paper, margin), room)
    outside = Part.of(found, found.p_outside(paper, margin), room)
    if inside.p <= 1 - level:
        return decide("supported", f"{words} lies within {target}", [inside])
    if outside.p <= 1 - level:
        return decide("contradicted", f"{words} lies outside {target}", [outside])
    more = inside.more_seeds(level)
    sentence = f"{words} reaches across an edge of {target}; {advice(more, EACH)}"
    return ClaimVerdict("undecided", sentence, more, p=min(inside.p, outside.p), parts=(inside,))


def within(
    rows: Sequence[Side],
    margin: float,
    metric: Metric,
    scaled: str = "",
    baseline: Side | None = None,
    level: float = LEVEL,
) -> ClaimVerdict:
    """Whether all rows are equal within margin: the paper says that it does not matter which one is taken.

    Supported when the Welch interval of every pair's difference lies within ± margin (TOST for each; all must hold, so
    nothing is corrected). Contradicted when that of one pair lies outside after Holm's correction for the number of pairs.
    Undecided otherwise, and at any other scale than the paper's. With a baseline the best row must have learned.
    """
    if silent := unable(rows):
        return silent
    if scaled:
        return ClaimVerdict("undecided", f"an equality within a margin can only be tested at the paper's protocol; {scaled}")
    if silent := one_seed(rows):
        return silent
    pairs = [(first, second, found) for first, second in combinations(rows, 2) if (found := _pair(first, second, level))]
    alpha, ways, target = 1 - level, len(pairs), f"0 ± {margin:g}"
    inside = [Part.of(found, found.p_within(0.0, margin), margin - abs(found.mean)) for _, _, found in pairs]
    p = max(part.p for part in inside)
    top = best(rows, metric)
    if p <= alpha:
        first, second, found = max(pairs, key=lambda pair: max(-pair[2].low, pair[2].high))
        words = f"{shown(first, second, found, metric)} lies within {target}" + (", and so does every other pair" * (ways > 1))
        return decide_if_learned("supported", words, inside, top, baseline, metric, level)
    first, second, worst = min(pairs, key=lambda pair: (pair[2].p_outside(0.0, margin), -abs(pair[2].mean)))
    alone = worst.p_outside(0.0, margin)
    outside = Part.of(worst, alone, margin - abs(worst.mean), ways)
    if outside.p <= alpha:
        words = f"{shown(first, second, worst, metric)} lies outside {target}{corrected(ways, 'pairs')}"
        return decide_if_learned("contradicted", words, [outside], top, baseline, metric, level)
    if alone <= alpha:
        words = f"{shown(first, second, worst, metric)} lies outside {target}, {not_enough(alone, ways, level)}"
        parts = [outside]
    else:
        first, second, found = pairs[max(range(ways), key=lambda index: inside[index].p)]
        words = f"{shown(first, second, found, metric)} reaches across an edge of {target}"
        parts = [part for part in inside if part.p > alpha]
    more = most(parts, level)
    return ClaimVerdict("undecided", f"{words}; {advice(more, EACH)}", more, p=min(p, outside.p), parts=tuple(parts))


def _pair(first: Side, second: Side, level: float) -> Difference | None:
    return difference(first.estimate, second.estimate, level)
