"""python -m benchmark.run SWEEP.yaml: bring every cell of a sweep to its end, or say what that would take.

Running a sweep again is resuming it: finished cells are left alone, interrupted ones go on from their checkpoint.
Exit codes: 0 all done, 1 some cell failed, 2 bad input, 3 over budget, 4 stopped (deadline or signal) with work left.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark import console
from benchmark.cli import arguments, overrides_of, seeds_of
from benchmark.errors import InputError
from benchmark.launch import inline, local, slurm, wait
from benchmark.launch.given import OutOfTime, find_boxes, given_data, not_here, prepare_images
from benchmark.launch.machine import Resources, resources
from benchmark.launch.work import Ended, Site, Watch, Work
from benchmark.plan.document import leaves, scalar
from benchmark.plan.plan import Action, make_plan
from benchmark.plan.sweep import DataIdentity, Row, Sweep, box_names, data_names, load_sweep
from benchmark.store.store import Store

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
    until = time.time() + args.deadline if args.deadline is not None else None
    sweep = load_sweep(args.sweep)
    machine = resources(args.jobs, args.threads, args.ranks)
    profile, why = _profile(sweep, args.profile, machine)
    looking = args.plan or args.status
    store = Store(args.store, create=not looking)
    cache = Path(os.environ.get("RETABLE_CACHE") or args.store / "data")
    seeds, overrides = seeds_of(args.seeds), overrides_of(args.overrides)
    provisional = _chosen(sweep.expand(profile, None, seeds, overrides), args)
    names, of_boxes = data_names(provisional), box_names(provisional)
    given = given_data(args.data, names, of_boxes)
    boxes, notices = find_boxes(of_boxes, given, cache, looking)  # before anything is converted: it fails in no time
    datasets, more = prepare_images(names, given, cache, None if looking else console.converting, until)
    identities = {name: DataIdentity(one.name, one.content, one.counts["train"]) for name, one in datasets.items()}
    contents = {name: source.content for name, source in boxes.items()}
    rows = _chosen(sweep.expand(profile, identities, seeds, overrides, contents), args)
    # Where a cell stands does not depend on what --mode would do with it.
    images = {dataset.name: dataset.counts for dataset in datasets.values()}
    plan = make_plan(rows, store, "cached" if args.status else args.mode, machine.device, slurm.queued(store), images)
    actions = _selected(plan, args)
    for problem in (problem for action in actions for problem in store.cell(action.cell.id).problems):
        console.error(problem)
    if args.first:
        actions = [action for action in actions if action.works][:1]
    absent = not_here(one.protocol for action in actions if action.works for one in action.evaluations)
    if absent and not looking:
        raise InputError("; and ".join(absent))
    about, sets = sweep.about(profile), list(datasets.values())
    console.header(sweep, profile, why, about, sets, list(boxes.values()), machine, args.store, [*more, *notices, *absent])
    if args.status:
        console.status(actions, store)
        return OK
    console.plan(actions, machine.jobs, full=args.plan)
    hours = sum(action.seconds for action in actions) / 3600
    if args.budget is not None and hours > args.budget:
        console.error(f"over budget: about {hours:.1f} device hours are left to run, --budget allows {args.budget:g}")
        return OVER_BUDGET
    if args.plan:
        return OK
    elsewhere = [action for action in actions if action.do in ("leave", "submitted")]
    works = [action for action in actions if action.works or (action in elsewhere and args.launcher != "slurm")]
    staying = args.wait and args.launcher == "slurm"
    if not works and elsewhere and not staying:
        console.say(f"Nothing to submit: {len(elsewhere)} cells are running or in SLURM's queue (--status shows them).")
        return OK
    failed = [action for action in actions if action.do == "nothing" and action.why.startswith("failed")]
    for action in failed:
        console.error(f"{_label(action)} ({action.cell.id}) {action.why}")
    if not works and not (elsewhere and staying):
        console.say("Nothing to run." if failed else "Nothing to run: every cell is finished.")
        return FAILED if failed else OK
    site = Site(
        store=str(args.store.resolve()),
        cache=str(cache.resolve()),
        data={name: str(path.resolve()) for name, path in given.items() if name in names},
        device=machine.device,
        threads=machine.threads,
        workers=machine.workers,
        backend=args.loader,
        deadline=until,
        boxes={
            name: {"path": str(source.path.resolve()) if source.path else None, "content": source.content}
            for name, source in boxes.items()
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
    works = [Work(action.cell.id, _label(action), force=action.do == "again", retry=retry) for action in actions]
    if args.launcher == "slurm":
        if args.cluster is None:
            raise InputError("--launcher slurm needs --cluster with a file of slurm/clusters/")
        submission = slurm.Submission(works, site, args.cluster, args.snapshot)
        also = [Work(action.cell.id, _label(action)) for action in elsewhere] if args.wait else []
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
            for end in waiting.ends(board.watch):
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


def _profile(sweep: Sweep, asked: str | None, machine: Resources) -> tuple[str, str]:
    if asked and asked != "auto":
        sweep.about(asked)  # raises for an unknown profile
        return asked, "as asked"
    if machine.device == "cuda":
        return "cifar10", "this machine has a CUDA device; the papers' scale is --profile imagenet"
    return "smoke", "no CUDA device here; --profile cpu learns more, --profile cifar10 wants a GPU"


def _chosen(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    """The rows that `--only row=NAME` asks for, or all."""
    wanted = [value for key, _, value in (text.partition("=") for text in args.only) if key == "row"]
    names = {row.name.lower(): row for row in rows}
    for name in wanted:
        if name.lower() not in names:
            raise InputError(f"--only row={name}: no such row; the rows are {', '.join(n.name for n in rows)}")
    return [names[name.lower()] for name in wanted] if wanted else rows


def _selected(plan: list[Action], args: argparse.Namespace) -> list[Action]:
    """The cells that --cell and --only let through; a cell without the setting does not match it. None at all is an error."""
    conditions = {}
    for text in args.only:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--only {text}: expected KEY=VALUE such as seed=0 or row=NAME")
        if key != "row":
            conditions[key] = scalar(value)
    selected = []
    for action in plan:
        found = {".".join(path): leaf for path, leaf in leaves(action.cell.config)}
        named = not args.cell or any(action.cell.id.startswith(wanted) for wanted in args.cell)
        if named and all(key in found and found[key] == value for key, value in conditions.items()):
            selected.append(action)
    if not selected:
        asked = " ".join([*(f"--cell {cell}" for cell in args.cell), *(f"--only {text}" for text in args.only)])
        raise InputError(f"{asked}: none of the {len(plan)} cells matches; --plan lists them")
    return selected


def _label(action: Action) -> str:
    more = f" (+{len(action.rows) - 1})" if len(action.rows) > 1 else ""
    return f"{action.rows[0]}{more}, seed {action.cell.seed}"


if __name__ == "__main__":
    sys.exit(main())
