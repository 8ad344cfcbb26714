"""What a run prints: header, plan, live board, status, summary. Readable at 80 columns and, as plain lines, in a log."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmark import plan_table
from benchmark.data.datasets import Source
from benchmark.launch.slurm import Array
from benchmark.launch.work import Ended, Work
from benchmark.plan.cost import words
from benchmark.plan.plan import Action
from benchmark.plan.shared import Alone, saved
from benchmark.planning import Asked
from benchmark.status import STYLE
from benchmark.store.log import last_lines
from benchmark.store.owner import read_owner

out = Console(highlight=False, soft_wrap=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
_FILE_WIDTH = 160  # columns of a table that is written into a file or a pipe


def say(text: str) -> None:
    out.print(escape(text))


def error(text: str) -> None:
    _err.print(f"[red]error:[/red] {escape(text)}")


def header(asked: Asked, absent: Sequence[str] = ()) -> None:
    """The question, and every choice that was made for the user, with its reason. absent: what is not here."""
    alone = asked.sweeps[0] if not asked.args.all else None
    if alone is not None:
        out.print(f"[bold]{escape(alone.question)}[/bold]  ({escape(alone.path.name)})")
    else:
        out.print(f"[bold]Every sweep of {escape(str(asked.sweeps[0].path.parent))}[/bold]  ({len(asked.sweeps)} files)")
    lines = Table.grid(padding=(0, 2, 0, 0))  # a grid, so that a long line is continued below its own beginning
    about = alone.about(asked.profile) if alone is not None else ""
    lines.add_row("profile", f"{asked.profile}{': ' if about else ''}{escape(about)} [dim]({escape(asked.why)})[/dim]")
    if asked.without:
        lines.add_row("", f"[dim]without it: {escape(', '.join(asked.without))}[/dim]")
    for dataset in asked.datasets.values():
        counts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts.items())
        lines.add_row("data", f"{dataset.name}, {counts} [dim]({escape(dataset.kind)}, content {dataset.content})[/dim]")
    for source in asked.boxes.values():
        lines.add_row("boxes", f"{source.name} [dim](content {source.content})[/dim]")
    lines.add_row("machine", asked.machine.words)
    lines.add_row("store", escape(str(asked.args.store)))
    for notice in [*asked.notices, *absent]:
        lines.add_row("[bold yellow]notice[/bold yellow]", escape(notice))
    out.print(lines)
    out.print()


def plan(asked: Asked, actions: list[Action], each: Sequence[Alone]) -> None:
    """The sums; before them the table of cells where a plan was asked for, or with --all that of the sweeps."""
    width = out.width if out.is_terminal or "COLUMNS" in os.environ else _FILE_WIDTH
    lines = plan_table.sweeps(each, width) if each else plan_table.cells(actions, width) if asked.args.plan else []
    if lines:
        out.print(lines[0], style="bold", markup=False, soft_wrap=True)
        out.out("\n".join(lines[1:]), highlight=False)
        if not each and width < plan_table.IDS_FROM:
            out.print(f"[dim]A window of {plan_table.IDS_FROM} columns has room for the ids of the cells.[/dim]")
        out.print()
    jobs, ranks, where = asked.machine.jobs, asked.args.ranks, "here"
    if asked.cluster is not None:
        jobs, ranks, where = asked.cluster.array_parallelism, asked.cluster.ask.processes, "on the cluster"
    say(plan_table.total(actions, jobs, ranks, asked.device, where))
    if each:
        say(plan_table.sharing(saved(each, actions), asked.device))


def submitted(arrays: list[Array], left: int, command: list[str]) -> None:
    """The job ids, what each array asks for, and the exact commands that follow them up, unbroken whatever the width: they are
    there to be copied. left: cells that found no room in the queue."""
    numbers, cells = [array.number for array in arrays], sum(len(array.jobs) for array in arrays)
    if arrays:
        say(f"Submitted {cells} cell{'s' if cells > 1 else ''} to SLURM as {', '.join(numbers)}.")
        for array in arrays:
            one_array(array)
        status = [*(word for word in command if word != "--wait"), "--status"]
        out.print(f"  status: {escape(shlex.join(status))}", soft_wrap=True)
        out.print(f"  cancel: scancel {' '.join(numbers)}", soft_wrap=True)
    if left:
        limit = f"{left} cell{'s' if left > 1 else ''} not submitted: submit_limit of the cluster profile is reached."
        out.print(f"{limit} Later, or with --wait:\n  again: {escape(shlex.join(command))}", soft_wrap=True)


def one_array(array: Array) -> None:
    cells = f"{len(array.jobs)} cell{'s' if len(array.jobs) > 1 else ''}"
    out.print(f"  {array.number}: {cells}, each {escape(array.ask.words)}", soft_wrap=True)


@contextlib.contextmanager
def converting(source: Source) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for the one-time conversion of a data set; call it with (what, done, total)."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=out)
    with bar:
        task = bar.add_task(source.name, total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


class Board:
    """The cells in work, one bar each, under one for all; in a file or a pipe, a line for each cell that ends."""

    def __init__(self, works: list[Work], seconds: dict[str, float], jobs: int) -> None:
        self._all = len(works)
        self._ended = 0
        self._seconds = seconds
        self._jobs = jobs
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=out,
            expand=True,
            disable=not out.is_terminal,
        )
        self._total = self._progress.add_task("all cells", total=sum(seconds.values()) or 1, note="")
        self._tasks: dict[str, TaskID] = {}
        self._done_seconds = 0.0

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def watch(self, work: Work, stage: str, progress: dict[str, Any] | None) -> None:
        if work.cell_id not in self._tasks:
            name = work.label if len(work.label) <= 34 else work.label[:33] + "…"
            self._tasks[work.cell_id] = self._progress.add_task(escape(name), total=100, note="")
        if progress is None:
            self._progress.update(self._tasks[work.cell_id], completed=0, note=escape(stage))
            return
        what = "" if stage == "train" else f"{escape(stage)}: "
        note = f"{what}loss {progress['loss']:.3f}, {words(progress['eta_seconds'])} left"
        done = 100 * progress["step"] / progress["total"]
        self._progress.update(self._tasks[work.cell_id], completed=done, note=note)

    def ended(self, end: Ended) -> None:
        self._ended += 1
        self._done_seconds += self._seconds.get(end.work.cell_id, 0.0)
        task = self._tasks.pop(end.work.cell_id, None)
        if task is not None:
            self._progress.remove_task(task)
        if not end.begun:
            return  # the summary counts them
        elapsed = time.monotonic() - self._started
        left = elapsed * self._share_left()
        note = f"{self._ended}/{self._all}, {words(left)} left"
        self._progress.update(self._total, completed=self._done_seconds, note=note)
        style = STYLE.get(end.status, "")
        tail = f"  {escape(end.note)}" if end.note else ""
        line = Table.grid(padding=(0, 1, 0, 0), expand=True)
        line.add_column(justify="right", no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1, overflow="fold")
        line.add_column(justify="right", no_wrap=True, style="dim")
        count, status = f"{self._ended:>3}/{self._all}", f"[{style}]{end.status}[/{style}]"
        line.add_row(count, status, f"{escape(end.work.label)}{tail}", f"{words(elapsed)}, about {words(left)} left")
        out.print(line)

    def _share_left(self) -> float:
        """What is left as a multiple of what is done: by the cells' estimated costs, without any by their number."""
        whole = sum(self._seconds.values())
        if self._done_seconds:
            return max(whole - self._done_seconds, 0.0) / self._done_seconds
        return (self._all - self._ended) / self._ended


def summary(ends: list[Ended], store: Path) -> None:
    """What came of it: failures with their class and the end of their log, and what is left to do."""
    counts = Counter(end.status for end in ends)
    out.print()
    out.print(", ".join(f"{count} {status}" for status, count in counts.most_common()) + f"; records in {escape(str(store))}")
    for end in ends:
        if end.status == "failed":
            failure = f"{end.failure}: " if end.failure else ""
            error(f"{end.work.label} ({end.work.cell_id}) failed: {failure}{end.note}")
            log = store / "cells" / end.work.cell_id / "log.txt"
            lines = last_lines(log) if end.failure else []  # without a class it is a sentence that says all
            for line in [*lines, *([f"({log})"] if lines else [])]:
                _err.print(f"    [dim]{escape(line)}[/dim]")
    untouched = Counter(end.note for end in ends if not end.begun)
    for why, count in untouched.items():
        _err.print(f"{count} cell{'s' if count > 1 else ''} not begun: {escape(why.removeprefix('not started: '))}.")
    failed = [end.work.cell_id for end in ends if end.status == "failed"]
    died = [one for one in failed if read_owner(store / "cells" / one / "owner.json").get("released") == "died"]
    if len(failed) > len(died):
        _err.print("Start the same command again with --mode retry once the cause is removed; finished cells are kept.")
    elif counts["stopped"] or died:
        _err.print("Work is left: start the same command again, it goes on from the checkpoints.")
