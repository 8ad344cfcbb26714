"""Which of several rows is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from reports.aggregate import LEVEL
from reports.claims.judged import EACH, ClaimVerdict, Part, Side, better_sign, most, one_seed, shown, unable
from reports.claims.learned import decide_if_learned
from reports.claims.welch import Difference, difference
from reports.metrics import Metric
from reports.verdict import advice


def order(above: Side, below: Side, baseline: Side | None, metric: Metric, level: float = LEVEL) -> ClaimVerdict:
    """Whether the first row is the better one: the larger number, or the smaller one of a metric where less is better.

    Supported when the whole Welch interval of the difference is on the claimed side of 0, contradicted when all of it is on
    the other side, undecided when it includes 0. Decidable only if the one measured better has learned at all, that is,
    beats the randomly initialized network (`baseline`; None where the metric needs no such row).
    """
    if silent := unable([above, below]):
        return silent
    first, second = above.estimate, below.estimate
    found = difference(first, second, level)
    if found is None:
        means = f"{metric.shown(first.mean)} against {metric.shown(second.mean)}"
        return ClaimVerdict("undecided", f"{means}, but one seed has no interval; at least 2 seeds of each row", 1)
    difference_shown = shown(above, below, found, metric)
    part = Part.of(found, found.p_unequal(), found.mean)
    if part.p > 1 - level:
        more = part.more_seeds(level)
        return ClaimVerdict("undecided", f"{difference_shown} includes 0; {advice(more, EACH)}", more, p=part.p, parts=(part,))
    if better_sign(metric) * found.mean > 0:
        return decide_if_learned("supported", difference_shown, [part], above, baseline, metric, level)
    return decide_if_learned("contradicted", difference_shown, [part], below, baseline, metric, level)


def ordering(rows: Sequence[Side], baseline: Side | None, metric: Metric, level: float = LEVEL) -> ClaimVerdict:
    """Whether each row is better than the next one; the best comes first.

    Supported when every neighbouring pair is decided as claimed, each by its Welch interval at the full level (an
    intersection-union test: all must hold, so nothing has to be corrected), and the first row has learned. Contradicted
    when one pair is decided the other way after Holm's correction for the number of pairs, and its better row has learned.
    Undecided otherwise.
    """
    if silent := unable(rows) or one_seed(rows):
        return silent
    steps = neighbours(rows, metric, level)
    sign, alpha, ways = better_sign(metric), 1 - level, len(steps)
    wanted = [Part.of(step, _p(step, sign), step.mean) for _, _, step in steps]
    p = max(part.p for part in wanted)
    if p <= alpha:
        sentence = "; ".join(shown(first, second, step, metric) for first, second, step in steps)
        return decide_if_learned("supported", sentence, wanted, rows[0], baseline, metric, level)
    first, second, worst = min(steps, key=lambda step: _p(step[2], -sign))
    against = Part.of(worst, _p(worst, -sign), worst.mean, ways)
    if against.p <= alpha:
        sentence = shown(first, second, worst, metric) + f", the wrong way{corrected(ways, 'steps')}"
        return decide_if_learned("contradicted", sentence, [against], second, baseline, metric, level)
    holding = sum(part.p <= alpha for part in wanted)
    begin = f"{holding} of {ways} steps hold; " if ways > 1 else ""
    if (near := _p(worst, -sign)) <= alpha:
        words, parts = f"{shown(first, second, worst, metric)} goes the wrong way, {not_enough(near, ways, level)}", [against]
    else:
        first, second, step = steps[max(range(ways), key=lambda index: wanted[index].p)]
        words, parts = f"{shown(first, second, step, metric)} includes 0", [part for part in wanted if part.p > alpha]
    more = most(parts, level)
    return ClaimVerdict("undecided", f"{begin}{words}; {advice(more, EACH)}", more, p=min(p, against.p), parts=tuple(parts))


def neighbours(rows: Sequence[Side], metric: Metric, level: float) -> list[tuple[Side, Side, Difference]]:
    """Every row, the next one, and their difference. The rows have at least two seeds each."""
    found = [(first, second, difference(first.estimate, second.estimate, level)) for first, second in pairwise(rows)]
    return [(first, second, step) for first, second, step in found if step is not None]


def corrected(ways: int, of: str) -> str:
    """The end of a clause about the best of several tests."""
    return f" (with Holm's correction for {ways} {of})" if ways > 1 else ""


def not_enough(p: float, ways: int, level: float) -> str:
    """Why a part that is decided by itself is not one of several."""
    return f"but p = {p:.2g} is above {(1 - level) / ways:.2g}, which Holm's correction for {ways} tests asks for"


def _p(step: Difference, sign: float) -> float:
    return step.p_above() if sign > 0 else step.p_below()
