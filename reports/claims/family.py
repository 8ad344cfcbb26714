"""Many claims tested on one table: which decisions stand when their number is taken into account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reports.aggregate import LEVEL
from reports.claims.judged import EACH, ClaimVerdict, most
from reports.verdict import advice


def holm(verdicts: Sequence[ClaimVerdict], level: float = LEVEL) -> list[ClaimVerdict]:
    """The verdicts of one family, in their order; a decision that does not pass Holm's step (1979) becomes undecided.

    The family: the claims of one table at one profile on one data set that were tested, that is, have a p. The smallest p
    must be at most (1 - level)/m for m of them, the next one (1 - level)/(m - 1), and so on until the first that fails;
    that one and all after it are undecided. So the probability of any wrong decision in the family stays below 1 - level
    whatever their dependence. A claim that is undecided by itself counts in m but never passes. Collapses do not count.
    """
    tested = [index for index, verdict in enumerate(verdicts) if verdict.p is not None]
    ranked = sorted((index for index in tested if verdicts[index].decided), key=lambda index: verdicts[index].p or 0.0)
    found, m = list(verdicts), len(tested)
    passed = 0
    while passed < len(ranked) and (verdicts[ranked[passed]].p or 0.0) <= (1 - level) / (m - passed):
        passed += 1
    for index in ranked[passed:]:
        found[index] = _withheld(verdicts[index], m, (1 - level) / (m - passed))
    return found


def _withheld(verdict: ClaimVerdict, m: int, needed: float) -> ClaimVerdict:
    """Undecided, with the seeds that the parts which fail would need to pass at the stricter level."""
    p = verdict.p or 0.0
    failing = [part for part in verdict.parts if part.p > needed]
    rows = [part for part in failing if not part.untrained]
    reason = (
        f"{verdict.sentence}; by itself that would be {verdict.outcome}, but with {m} claims tested here Holm's correction "
        f"asks for p ≤ {needed:.2g} and p is {p:.2g}"
    )
    if rows:
        more = most(rows, 1 - needed)
        return replace(verdict, outcome="undecided", sentence=f"{reason}; {advice(more, EACH)}", more_seeds=more)
    if failing:
        reason += "; more seeds of the untrained network would probably decide it"
    return replace(verdict, outcome="undecided", sentence=reason, more_seeds=None, waits_for_baseline=bool(failing))
