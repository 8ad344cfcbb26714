"""--until-decided: round after round, more random seeds for the rows whose verdict is still open, and for no others.

The first round is the sweep as it is. Whatever the tables of the papers then leave undecided says how many more seeds would
probably settle it (`reports.verdict.seeds_needed`); a round adds at most as many as there are, since what a few seeds say of
their own spread is vague. It ends when nothing is open that seeds can settle, or at --max-seeds seeds of a row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import console
from benchmark.errors import InputError
from benchmark.planning import Asked

if TYPE_CHECKING:
    from reports.undecided import Open

OK, OVER_BUDGET, STOPPED = 0, 3, 4
Round = Callable[[Mapping[str, list[int]], float], tuple[int, float]]  # further seeds, hours spent -> exit code, hours


MOST_SEEDS = 10  # of a row, where --max-seeds says nothing


def refuse_with_rounds(args: argparse.Namespace) -> None:
    """InputError for what makes no sense beside --until-decided."""
    beside = {"--all": args.all, "--status": args.status, "--first": args.first, "--cell": args.cell}
    for word, given in beside.items():
        if given:
            raise InputError(f"--until-decided {word}: verdicts are about whole rows of one sweep; drop {word}")
    if any(text.partition("=")[0] == "seed" for text in args.only):
        raise InputError("--until-decided --only seed=...: which seeds there are is what the rounds decide; drop it")
    if args.mode == "force":
        raise InputError("--until-decided --mode force: would train everything anew in every round; drop one of them")
    for override in args.overrides:
        if not override.startswith("data.name="):
            raise InputError(f"--until-decided {override}: the tables know the sweep's own settings alone; drop this one")


def until_decided(asked: Asked, round_of: Round) -> int:
    """Rounds until nothing is open that seeds can settle. The exit code of the last one; that of a failure if there was one."""
    verdicts = _verdicts(asked)  # before anything is trained: a sweep without tables has none
    failed, spent = OK, 0.0
    if any(action.works or action.do in ("leave", "submitted") for action in asked.actions(asked.known(), {})):
        failed, spent = round_of({}, 0.0)
        if failed in (OVER_BUDGET, STOPPED) or _looked(asked):
            return failed
    asked.args.mode = "cached"  # what fails again in this call is not tried for ever
    while True:
        open_rows = verdicts()
        more = _with_work(asked, {row.name: _next(row, asked.args.max_seeds or MOST_SEEDS) for row in open_rows})
        if asked.args.plan:
            code, _ = round_of(more, spent)
            _say(open_rows, asked.args.max_seeds or MOST_SEEDS)
            return code
        _say(open_rows, asked.args.max_seeds or MOST_SEEDS)
        if not more:
            return failed
        code, hours = round_of(more, spent)
        spent += hours
        if code in (OVER_BUDGET, STOPPED) or _looked(asked):
            return code
        failed = failed or code


def _with_work(asked: Asked, more: dict[str, list[int]]) -> dict[str, list[int]]:
    """The further seeds, or none at all where each of them has failed already."""
    more, known = {row: seeds for row, seeds in more.items() if seeds}, asked.known()
    before = {action.cell.id for action in asked.actions(known, {})}
    works = (action.works for action in asked.actions(known, {}, more) if action.cell.id not in before)
    return more if any(works) else {}


def _looked(asked: Asked) -> bool:
    """Whether one round is all for now."""
    if asked.args.launcher == "slurm" and not (asked.args.wait or asked.args.plan):
        console.say("One round is submitted. Start the same command again once it has ended, or stay with --wait.")
        return True
    return bool(asked.args.plan)


def _verdicts(asked: Asked) -> Callable[[], list[Open]]:
    from reports.undecided import Tables  # a second of import that no other run pays for

    (sweep,) = asked.sweeps
    tables = Tables.of(sweep.path)
    contents = {(one.name, one.content) for one in asked.identities.values()}
    names = {row.name for _, rows in asked.rows() for row in rows}

    def verdicts() -> list[Open]:
        return [row for row in tables.open_rows(asked.profile, Path(asked.args.store), contents) if row.name in names]

    return verdicts


def _next(row: Open, most: int) -> list[int]:
    """The further seeds of a row in the next round: the smallest that it does not have."""
    count = min(row.more, max(1, len(row.seeds)), most - len(row.seeds))
    free = (seed for seed in range(len(row.seeds) + max(count, 0) + 1) if seed not in row.seeds)
    return [seed for seed, _ in zip(free, range(count), strict=False)]


def _say(rows: list[Open], most: int) -> None:
    """What is open, and why; in the end that nothing is."""
    for row in rows:
        at_most = f"; it has {len(row.seeds)} seeds, --max-seeds allows {most}" if len(row.seeds) >= most else ""
        console.say(f"Undecided: {row.name}: {row.why}{at_most}.")
    if not rows:
        console.say("Nothing is undecided that more random seeds could settle.")
