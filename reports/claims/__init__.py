"""What our runs say about a statement of a paper: collapses, orders, sizes and shapes. Pure functions of `Side`s.

Every judging function returns a `ClaimVerdict`: supported, contradicted, undecided (with the seeds that would probably
settle it) or not run. Each decision but a collapse carries a p-value; `holm` corrects those of one table for their number.

    judged.py     what goes in and comes out, and the rows about which nothing can be said
    welch.py      differences and contrasts of independent means, their intervals and p-values
    learned.py    whether a row is better than the untrained network, without which accuracy says nothing
    collapses.py  collapse
    orders.py     order, ordering
    sizes.py      gap, within
    shapes.py     trend, inverse_u, interaction
    family.py     holm
"""

from reports.claims.collapses import COLLAPSED_BELOW, SPREAD_ABOVE, Thresholds, collapse
from reports.claims.family import holm
from reports.claims.judged import ClaimVerdict, Outcome, Side
from reports.claims.orders import order, ordering
from reports.claims.shapes import Direction, interaction, inverse_u, trend
from reports.claims.sizes import gap, within
from reports.claims.welch import Difference, contrast, difference

__all__ = [
    "COLLAPSED_BELOW",
    "SPREAD_ABOVE",
    "ClaimVerdict",
    "Difference",
    "Direction",
    "Outcome",
    "Side",
    "Thresholds",
    "collapse",
    "contrast",
    "difference",
    "gap",
    "holm",
    "interaction",
    "inverse_u",
    "order",
    "ordering",
    "trend",
    "within",
]
