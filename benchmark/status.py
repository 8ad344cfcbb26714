"""The table of where every cell of a run stands (`--status`), and the same kept fresh on the screen (`--status --watch`)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from benchmark.plan.cost import words
from benchmark.plan.plan import Action, Known
from benchmark.standing import OVER, STATES, Readings, Standing, evidence

REFRESH = 2.0  # seconds between looks at the files
ASK_AGAIN = 15.0  # seconds between questions to SLURM
_WIDE = 118  # columns from which host, restarts and id have room of their own
_HEADS = ("seed", "state", "progress", "left", "loss", "kNN %", "restarts", "host", "cell")
_OF_NARROW = 6  # of these
_RIGHT = ("seed", "left", "loss", "kNN %", "restarts")
_FILE_WIDTH = 160  # columns of a table that is written into a file or a pipe
_NAME = 12  # columns that a row's name has at least
_EXPLAINED = 8  # cells whose trouble is shown in full
_SIDE_BY_SIDE = 4  # names of cells with one trouble in common
STYLE = {
    "done": "green", "running": "cyan", "failed": "red", "diverged": "yellow", "interrupted": "yellow", "partly": "yellow",
    "stale": "yellow", "submitted": "blue", "requeued": "blue", "stopped": "yellow",
}  # fmt: skip
Queued = Mapping[str, str]  # cell id -> a few words about its job in SLURM's queue


@dataclass
class Board:
    """What `show` needs to know. queued: SLURM's queue as it was just now, `ask`: as it is; jobs: cells at once where none
    runs to tell."""

    actions: list[Action]
    known: Known
    queued: Queued
    ask: Callable[[], Queued]
    jobs: int
    out: Console
    prices: dict[tuple[object, ...], float] = field(default_factory=dict)

    def looks(self) -> Iterator[list[Standing]]:
        """The standings, again and again, until every cell has ended."""
        readings, asked = Readings(self.known), time.monotonic()
        while True:
            if time.monotonic() - asked >= ASK_AGAIN:
                self.queued, asked = self.ask(), time.monotonic()
            found = readings.standings(self.actions, self.queued)
            yield found
            if all(one.state in OVER for one in found):
                return
            time.sleep(REFRESH)

    def left(self, action: Action, one: Standing) -> float:
        """Seconds of one device until it is done: what its holder says of its stage, and the price of what comes after."""
        if one.state in OVER:
            return 0.0
        training = one.stage == "train" and one.share is not None
        missing = [evaluation for evaluation in action.cell.evaluations if evaluation.id not in one.measured]
        if one.left is not None and not training and missing:
            missing = missing[1:]  # the first is that which it is at
        trains = not one.trained and not (training and one.left is not None)
        key = (action.rows, trains, len(missing))  # the cells of a row differ in their seed alone, so they cost the same
        if key not in self.prices:
            self.prices[key] = self.known.seconds(action.cell.config, missing, trains)[0]
        if training and one.left is None:  # interrupted: it goes on from about there
            untrained = self.known.seconds(action.cell.config, missing, False)[0]
            return untrained + (self.prices[key] - untrained) * (1 - (one.share or 0.0))
        return (one.left or 0.0) + self.prices[key]


def show(board: Board, watch: bool) -> bool:
    """Print where the cells stand; with `watch` stay until each has ended, or Ctrl-C. Whether none has failed."""
    out = board.out
    if not watch:
        found = next(board.looks())
        told = out.is_terminal or "COLUMNS" in os.environ
        out.print(_table(found, out.width if told else _FILE_WIDTH), soft_wrap=not told)
        out.print(summary(board, found), soft_wrap=not told)
        _troubles(board, found)
        return not any(one.state == "failed" for one in found)
    try:
        found = _stay(board) if out.is_terminal else _tell(board)
    except KeyboardInterrupt:  # whoever has seen enough has done nothing wrong
        return True
    return not any(one.state == "failed" for one in found)


def _stay(board: Board) -> list[Standing]:
    found: list[Standing] = []
    out = board.out
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
        for found in board.looks():
            below = summary(board, found)
            room = out.height - 3 - len(out.render_lines(below))  # the head of the table, the line of the rest, the cursor
            shown, rest = folded(found, max(3, room), _lines(out.width))
            more = [f"[dim]and {rest}[/dim]"] if rest else []
            live.update(Group(_table(shown, out.width), *more, below), refresh=True)
    _troubles(board, found)
    return found


def _tell(board: Board) -> list[Standing]:
    """Into a file or a pipe: a line for each change of a state."""
    before: dict[str, str] = {}
    found: list[Standing] = []
    for found in board.looks():
        for one in found:
            if before.get(one.cell_id) != one.state:
                before[one.cell_id] = one.state
                why = ": ".join(filter(None, [one.failure, _note(one)]))
                line = f"{time.strftime('%H:%M:%S')} {one.state:11} {label(one)} ({one.cell_id}){': ' if why else ''}{why}"
                board.out.print(line, markup=False, soft_wrap=True)
    board.out.print(f"{time.strftime('%H:%M:%S')} {summary(board, found)}", soft_wrap=True)
    return found


def folded(found: list[Standing], room: int, lines: Callable[[Standing], int] = lambda one: 1) -> tuple[list[Standing], str]:
    """What fits on the screen, what moves and what failed first; and the rest in words, such as `40 planned, 12 done`.

    room: lines on the screen; lines: how many a cell takes.
    """
    if sum(map(lines, found)) <= room:
        return found, ""
    ranked = sorted(found, key=lambda one: STATES.index(one.state))
    taken = shown = 0
    for one in ranked:
        taken += lines(one)
        if taken > room:
            break
        shown += 1
    rest = Counter(one.state for one in ranked[shown:])
    return ranked[:shown], ", ".join(f"{count} {state}" for state, count in rest.items())


def _lines(width: int) -> Callable[[Standing], int]:
    return lambda one: 1 if width >= _WIDE or not _beside(one) else 2


def _table(found: list[Standing], width: int) -> Text:
    """One line a cell; on a narrow screen a second one says the host of a cell that moves, and its restarts.

    Laid out here: a table of rich would take seconds for thousands of cells, and share out too little room by itself.
    """
    wide = width >= _WIDE
    heads = _HEADS if wide else _HEADS[:_OF_NARROW]
    rows = [_cells(one)[: len(heads)] for one in found]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    room = max(_NAME, width - sum(widths) - 2 * len(widths))  # two spaces between two columns
    names = [_clipped(one, room) for one in found]
    room = max(map(cell_len, ["row", *names]))
    lines = [Text("row".ljust(room) + _columns(heads, heads, widths), "bold")]
    for one, name, row in zip(found, names, rows, strict=True):
        line = Text(name + " " * (room - cell_len(name)) + _columns(row, heads, widths))
        if style := STYLE.get(one.state):
            start = room + len(name) - cell_len(name) + widths[0] + 4
            line.stylize(style, start, start + len(one.state))
        if wide:
            line.stylize("dim", len(line) - widths[-1])
        lines.append(line)
        if not wide and (beside := _beside(one)):
            lines.append(Text(f"  {beside}"[:width], "dim"))
    table = Text("\n", no_wrap=True, overflow="crop").join(lines)
    table.no_wrap, table.overflow = True, "crop"
    return table


def _columns(row: Sequence[str], heads: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, heads, widths, strict=True)
    return "".join("  " + (text.rjust(width) if head in _RIGHT else text.ljust(width)) for text, head, width in cells)


def _cells(one: Standing) -> list[str]:
    return [
        str(one.seed),
        one.state,
        one.progress,
        words(one.left) if one.left is not None else "",
        f"{one.loss:.3f}" if one.loss is not None else "",
        f"{one.knn:.1f}" if one.knn is not None else "",
        str(one.restarts or ""),
        one.host,
        one.cell_id,
    ]


def _more(one: Standing) -> str:
    return f" (+{len(one.rows) - 1})" if len(one.rows) > 1 else ""


def _clipped(one: Standing, room: int) -> str:
    """The name of its row; of one that is too long the beginning, and how many more rows there are."""
    name, more = one.rows[0], _more(one)
    if cell_len(name + more) <= room:
        return name + more
    return set_cell_size(name, room - len(more) - 1).rstrip() + "…" + more


def label(one: Standing) -> str:
    return f"{one.rows[0]}{_more(one)}, seed {one.seed}"


def _beside(one: Standing) -> str:
    """Where a column has no room for them, what a narrow screen still wants to know of a cell."""
    restarts = f"{one.restarts} restart{'s' if one.restarts > 1 else ''}" if one.restarts and one.state != "done" else ""
    return ", ".join(filter(None, [one.host if one.state == "running" else "", restarts]))


def summary(board: Board, found: list[Standing]) -> str:
    """How many stand where, and how long it will take at the present pace: as many at once as there are now."""
    counts = Counter(one.state for one in found)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    each = [board.left(action, one) for action, one in zip(board.actions, found, strict=True)]
    left, running = sum(each), counts["running"]
    if not left:
        return told
    at_once, pace = (running, f"with {running} running") if running else (board.jobs, f"with {board.jobs} at once")
    return f"{told}; about {words(left)} of device time left, {words(max(left / at_once, *each))} {pace}"


def _note(one: Standing) -> str:
    """Notes of older versions have their class in front."""
    return one.note.removeprefix(f"{one.failure}: ") if one.failure else one.note


def _troubles(board: Board, found: list[Standing]) -> None:
    """Why cells failed, diverged or were lost: the class, the words, where the log is and how it ends. Whatever was only
    stopped, by a person or for want of something, has a line for all that say the same."""
    out = board.out
    ranked = sorted((one for one in found if one.worth_words), key=lambda one: STATES.index(one.state))
    lost = [one for one in ranked if one.failure is not None]
    for one in lost[:_EXPLAINED]:
        style = STYLE.get(one.state, "")
        out.print(f"\n[{style}]{one.failure}[/{style}]  {escape(label(one))}: {escape(_note(one))}", soft_wrap=True)
        ending = evidence(one, board.known.store)
        if one.log and ending:
            out.print(f"  [dim]{escape(str(one.log))}[/dim]", soft_wrap=True)
        for line in ending:
            out.print(f"    {line}", markup=False, soft_wrap=True)
    if len(lost) > _EXPLAINED:
        out.print(f"\nand {len(lost) - _EXPLAINED} more; --only and --cell show them one by one")
    same: dict[tuple[str, str], list[Standing]] = {}
    for one in ranked:
        if one.failure is None:
            same.setdefault((one.state, one.note), []).append(one)
    if same:
        out.print()
    for (state, note), those in same.items():
        names = "; ".join(label(one) for one in those[:_SIDE_BY_SIDE])
        more = f" and {len(those) - _SIDE_BY_SIDE} more" if len(those) > _SIDE_BY_SIDE else ""
        out.print(f"[{STYLE.get(state, 'dim')}]{state}[/]  {escape(names)}{more}: {escape(note)}", soft_wrap=True)
