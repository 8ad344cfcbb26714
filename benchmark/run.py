"""python -m benchmark.run SWEEP.yaml: bring every cell of a sweep to its end, or say what that would take.

Running a sweep again is resuming it: finished cells are left alone, interrupted ones go on from their checkpoint.
Exit codes: 0 all done, 1 some cell failed, 2 bad input, 3 over budget, 4 stopped (deadline or signal) with work left.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmark import console, status
from benchmark.cli import arguments, refuse_idle_words
from benchmark.errors import InputError
from benchmark.launch import inline, local, slurm, wait
from benchmark.launch.given import OutOfTime, not_here
from benchmark.launch.machine import Resources
from benchmark.launch.work import Ended, Site, Watch, Work
from benchmark.plan.plan import Action
from benchmark.plan.resolve import UNPREPARED
from benchmark.planning import Asked, ask, label, problems
from benchmark.rounds import refuse_with_rounds, until_decided

OK, FAILED, BAD_INPUT, OVER_BUDGET, STOPPED = 0, 1, 2, 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return _main(args)
    except InputError as error:
        console.error(str(error))
        return BAD_INPUT
    except OutOfTime as over:
        console.error(str(over))
        return STOPPED
    except KeyboardInterrupt:
        return STOPPED


def _main(args: argparse.Namespace) -> int:
    refuse_idle_words(args)
    until = time.time() + args.deadline if args.deadline is not None else None
    if args.until_decided:
        refuse_with_rounds(args)
    asked = ask(args, None if args.plan or args.status else console.converting, until)
    if args.until_decided:
        return until_decided(asked, lambda more, spent: _round(asked, until, more, spent))
    return _round(asked, until)[0]


def _round(
    asked: Asked, until: float | None, more: Mapping[str, list[int]] | None = None, spent: float = 0.0
) -> tuple[int, float]:
    """Bring the cells that are meant to their end: (exit code, device hours they were estimated to take).

    more: row -> further random seeds. spent: device hours of earlier rounds, which count for the budget too.
    """
    args, store = asked.args, asked.store
    slurm.record_deaths(store)  # first: what a job has died of is part of what is known
    known, queued = asked.known(), slurm.queued(store)
    actions = asked.actions(known, queued, more)
    for problem in problems(actions, known):
        console.error(problem)
    absent = not_here(one.protocol for action in actions if action.works for one in action.evaluations)
    if absent and not (args.plan or args.status):
        raise InputError("; and ".join(absent))
    if not spent:
        console.header(asked, absent)
    if args.status:
        if args.watch and any(action.cell.config["data"]["content"] == UNPREPARED for action in actions):
            raise InputError(
                "--watch: the images are not converted yet, and the cells' names follow from them; start the run first"
            )
        board = status.Board(actions, known, queued, lambda: slurm.queued(store), asked.machine.jobs, console.out)
        well = status.show(board, args.watch)
        return OK if well or not args.watch else FAILED, 0.0
    each = asked.alone(known, queued) if args.all else []
    console.plan(asked, actions, each)
    hours = sum(action.seconds for action in actions) / 3600
    if args.budget is not None and spent + hours > args.budget:
        already = f" beside {spent:.1f} of earlier rounds" if spent else ""
        console.error(f"over budget: about {hours:.1f} device hours are left to run{already}, --budget allows {args.budget:g}")
        return OVER_BUDGET, hours
    return (OK if args.plan else _run(asked, actions, until)), hours


def _run(asked: Asked, actions: list[Action], until: float | None) -> int:
    args, store, machine = asked.args, asked.store, asked.machine
    elsewhere = [action for action in actions if action.do in ("leave", "submitted")]
    works = [action for action in actions if action.works or (action in elsewhere and args.launcher != "slurm")]
    staying = args.wait and args.launcher == "slurm"
    if not works and elsewhere and not staying:
        console.say(f"Nothing to submit: {len(elsewhere)} cells are running or in SLURM's queue (--status shows them).")
        return OK
    failed = [action for action in actions if action.do == "nothing" and action.why.startswith("failed")]
    for action in failed:
        console.error(f"{label(action)} ({action.cell.id}) {action.why}")
    if not works and not (elsewhere and staying):
        console.say("Nothing to run." if failed else "Nothing to run: every cell is finished.")
        return FAILED if failed else OK
    site = Site(
        store=str(args.store.resolve()),
        cache=str(asked.cache.resolve()),
        data={name: str(path.resolve()) for name, path in asked.given.items()},
        device=machine.device,
        threads=machine.threads,
        workers=machine.workers,
        backend=args.loader,
        deadline=until,
        boxes={
            name: {"path": str(source.path.resolve()) if source.path else None, "content": source.content}
            for name, source in asked.boxes.items()
        },
        ranks=args.ranks,
    )
    for action in works:
        store.request(action.cell.id, action.cell.config, action.cell.protocols)
    code = _launch(args, works, site, machine, elsewhere)
    return FAILED if failed and code == OK else code


def _launch(
    args: argparse.Namespace, actions: list[Action], site: Site, machine: Resources, elsewhere: Sequence[Action] = ()
) -> int:
    """elsewhere: cells in SLURM's queue or with another process, for --wait to stay with."""
    retry = args.mode == "retry"
    works = [Work(action.cell.id, label(action), force=action.do == "again", retry=retry) for action in actions]
    if args.launcher == "slurm":
        if args.cluster is None:
            raise InputError("--launcher slurm needs --cluster with a file of slurm/clusters/")
        submission = slurm.Submission(works, site, args.cluster, args.snapshot)
        also = [Work(action.cell.id, label(action)) for action in elsewhere] if args.wait else []
        return _submit(args, submission, also, {action.cell.id: action.seconds for action in actions})
    with console.Board(works, {action.cell.id: action.seconds for action in actions}, machine.jobs) as board:
        ends = list(_follow(args, works, site, machine, board))
    return _ended(ends, site)


def _submit(args: argparse.Namespace, submission: slurm.Submission, also: list[Work], seconds: dict[str, float]) -> int:
    """Submit and go; with --wait stay until every cell has ended, those in `also` among them."""
    works = [*submission.left, *also]
    waiting = wait.Waiting(submission, also, console.one_array, console.error)
    sent = waiting.send()
    console.submitted(sent, 0 if args.wait or submission.refused else len(submission.left), _command())
    if submission.refused and not (args.wait and (sent or also)):
        raise InputError(submission.refused)
    if not args.wait:
        return OK
    ends = []
    try:
        with console.Board(works, seconds, len(works)) as board:
            for end in waiting.ends(board.watch, args.max_failures):
                board.ended(end)
                ends.append(end)
    except KeyboardInterrupt:
        left = len(works) - len(ends)
        console.say(
            f"{left} cell{'s' if left != 1 else ''} left to SLURM: the jobs go on. The same command stays with them again."
        )
        return STOPPED
    return _ended(ends, submission.site)


def _ended(ends: list[Ended], site: Site) -> int:
    console.summary(ends, Path(site.store))
    statuses = {end.status for end in ends}
    if "failed" in statuses:
        return FAILED
    return STOPPED if "stopped" in statuses else OK


def _command() -> list[str]:
    return ["python", "-m", "benchmark.run", *sys.argv[1:]]


def _follow(
    args: argparse.Namespace, works: list[Work], site: Site, machine: Resources, board: console.Board
) -> Iterator[Ended]:
    watch: Watch = board.watch
    running = (
        inline.run(works, site, watch, args.max_failures)
        if args.launcher == "inline"
        else local.run(works, site, machine, watch, args.max_failures)
    )
    for end in running:
        board.ended(end)
        yield end


if __name__ == "__main__":
    sys.exit(main())
