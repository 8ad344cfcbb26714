"""The shape of a number over an ordered factor: a trend, an optimum inside, and whether one effect exceeds another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark.errors import InputError
from reports.aggregate import LEVEL
from reports.claims.judged import (
    EACH,
    ClaimVerdict,
    Outcome,
    Part,
    Side,
    better_sign,
    bounds,
    most,
    one_seed,
    shown,
    unable,
)
from reports.claims.learned import best, decide_if_learned
from reports.claims.orders import corrected, neighbours, not_enough
from reports.claims.welch import Difference, contrast, difference
from reports.metrics import Metric
from reports.verdict import advice

Direction = Literal["rises", "falls"]


def trend(
    rows: Sequence[Side], direction: Direction, baseline: Side | None, metric: Metric, level: float = LEVEL
) -> ClaimVerdict:
    """Whether the number itself rises or falls over the rows, which are in the order of the factor, in equal steps.

    The claim is one of monotony with plateaus: no step goes the other way, and the ends differ. Supported when the linear
    contrast (the slope of the least-squares line through the means, every row with its own spread, Welch-Satterthwaite) is
    decided in the claimed direction and no neighbouring step is decided against it at the same level, without any
    correction: a veto is to be easy. Contradicted when the slope or one step is decided against it after Holm's correction
    for all of these. Either way the best row (of a step: its better one) must have learned. Undecided otherwise: a flat
    line, or a slope as claimed with a step the other way that is not yet beyond doubt.
    """
    if silent := unable(rows) or one_seed(rows):
        return silent
    sign, alpha = (1.0 if direction == "rises" else -1.0), 1 - level
    middle = (len(rows) - 1) / 2
    unit = sum((place - middle) ** 2 for place in range(len(rows)))
    slope = contrast([((place - middle) / unit, row.estimate) for place, row in enumerate(rows)], level)
    assert slope is not None
    ways = len(rows) if len(rows) > 2 else 1  # the slope over two rows is their step
    wanted = Part.of(slope, _p(slope, sign), slope.mean)
    against = Part.of(slope, _p(slope, -sign), slope.mean, ways)
    earlier, later, worst = min(neighbours(rows, metric, level), key=lambda step: _p(step[2], sign))
    veto = _p(worst, sign)
    step_against = Part.of(worst, veto, worst.mean, ways)
    words = f"from {rows[0].name} to {rows[-1].name} it changes by {bounds(slope, metric)} a step"
    if wanted.p <= alpha < veto:
        return decide_if_learned("supported", words, [wanted], best(rows, metric), baseline, metric, level)
    if against.p <= alpha:
        words += f", the wrong way{corrected(ways, 'tests')}"
        return decide_if_learned("contradicted", words, [against], best(rows, metric), baseline, metric, level)
    p = min(wanted.p if veto > alpha else 1.0, against.p, step_against.p)
    if veto > alpha:
        turned = _p(slope, -sign)
        part = wanted if turned > alpha else against
        why = "which includes 0" if turned > alpha else f"the wrong way, {not_enough(turned, ways, level)}"
        more = part.more_seeds(level)
        return ClaimVerdict("undecided", f"{words}, {why}; {advice(more, EACH)}", more, p=p, parts=(part,))
    words += f", but {shown(earlier, later, worst, metric)} goes the wrong way"
    if step_against.p <= alpha:
        words += corrected(ways, "tests")
        return decide_if_learned("contradicted", words, [step_against], best([earlier, later], metric), baseline, metric, level)
    more = step_against.more_seeds(level)
    sentence = f"{words}, {not_enough(veto, ways, level)}; {advice(more, EACH)}"
    return ClaimVerdict("undecided", sentence, more, p=p, parts=(step_against,))


def inverse_u(rows: Sequence[Side], baseline: Side | None, metric: Metric, level: float = LEVEL) -> ClaimVerdict:
    """Whether the best value of an ordered factor lies inside its range: a rise, then a fall, of how good the rows are.

    Supported when one inner row is better than both ends: for each inner row both Welch tests must hold (intersection-
    union), and the best of the inner rows is corrected for their number (Holm). Contradicted when one end is better than
    every inner row, corrected for the two ends. Either way that best row must have learned. Undecided otherwise.
    """
    if len(rows) < 3:
        raise InputError(f"an inverse U needs at least 3 rows in the order of the factor, found {len(rows)}")
    if silent := unable(rows) or one_seed(rows):
        return silent
    ends, inner = (rows[0], rows[-1]), rows[1:-1]
    inside = min((_Peak.of(row, ends, metric, level, len(inner)) for row in inner), key=lambda peak: peak.p)
    outside = min((_Peak.of(end, inner, metric, level, len(ends)) for end in ends), key=lambda peak: peak.p)
    if inside.p <= 1 - level:
        words = inside.words(metric) + corrected(len(inner), "inner rows")
        return decide_if_learned("supported", words, inside.parts, inside.row, baseline, metric, level)
    if outside.p <= 1 - level:
        words = outside.words(metric) + corrected(len(ends), "ends")
        return decide_if_learned("contradicted", words, outside.parts, outside.row, baseline, metric, level)
    near, where = (inside, "inside") if best(rows, metric) in inner else (outside, "an end")
    parts = [part for part in near.parts if part.p > 1 - level]
    more = most(parts, level)
    words = f"the best row is {where}, but not for sure: {near.words(metric)}{corrected(near.parts[0].ways, 'candidates')}"
    p = min(inside.p, outside.p)
    return ClaimVerdict("undecided", f"{words}; {advice(more, EACH)}", more, p=p, parts=tuple(parts))


@dataclass(frozen=True)
class _Peak:
    """The statement that a row is better than each of some others, picked as the best of `ways` such statements."""

    row: Side
    others: tuple[Side, ...]
    differences: tuple[Difference, ...]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, row: Side, others: Sequence[Side], metric: Metric, level: float, ways: int) -> _Peak:
        found = [difference(row.estimate, other.estimate, level) for other in others]
        known = tuple(one for one in found if one is not None)
        sign = better_sign(metric)
        return cls(row, tuple(others), known, tuple(Part.of(one, _p(one, sign), one.mean, ways) for one in known))

    @property
    def p(self) -> float:
        return max(part.p for part in self.parts)

    def words(self, metric: Metric) -> str:
        pairs = zip(self.others, self.differences, strict=True)
        return "; ".join(shown(self.row, other, found, metric) for other, found in pairs)


def interaction(
    first: tuple[Side, Side],
    second: tuple[Side, Side],
    baseline: Side | None,
    metric: Metric,
    level: float = LEVEL,
) -> ClaimVerdict:
    """Whether first[0] - first[1] is larger than second[0] - second[1]: a difference of differences, in the number itself.

    Supported when its whole Welch-Satterthwaite interval is above 0, contradicted when all of it is below 0, undecided when
    it includes 0. A row that stands in both differences enters once, with both of its weights. The best of the rows must
    have learned.
    """
    weights: dict[Side, float] = {}
    for side, weight in zip((*first, *second), (1.0, -1.0, -1.0, 1.0), strict=True):
        weights[side] = weights.get(side, 0.0) + weight
    rows = list(weights)
    if silent := unable(rows) or one_seed(rows):
        return silent
    found = contrast([(weight, side.estimate) for side, weight in weights.items()], level)
    assert found is not None
    names = f"({first[0].name} - {first[1].name}) - ({second[0].name} - {second[1].name})"
    words = f"{names} = {bounds(found, metric)}"
    part = Part.of(found, found.p_unequal(), found.mean)
    if part.p > 1 - level:
        more = part.more_seeds(level)
        return ClaimVerdict("undecided", f"{words} includes 0; {advice(more, EACH)}", more, p=part.p, parts=(part,))
    outcome: Outcome = "supported" if found.mean > 0 else "contradicted"
    return decide_if_learned(outcome, words, [part], best(rows, metric), baseline, metric, level)


def _p(found: Difference, sign: float) -> float:
    return found.p_above() if sign > 0 else found.p_below()
