"""The table of where every cell of a run stands (`--status`), and the same kept fresh on the screen (`--status --watch`)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from benchmark.plan.cost import words
from benchmark.plan.plan import Action
from benchmark.standing import OVER, STATES, Readings, Standing, evidence
from benchmark.store.store import Store

REFRESH = 2.0  # seconds between looks at the files
ASK_AGAIN = 15.0  # seconds between questions to SLURM
_WIDE = 118  # columns from which host and restarts have room of their own
_EXPLAINED = 8  # cells whose trouble is shown in full
STYLE = {
    "done": "green", "running": "cyan", "failed": "red", "diverged": "yellow", "interrupted": "yellow", "partly": "yellow",
    "stale": "yellow", "submitted": "blue", "requeued": "blue",
}  # fmt: skip


def show(
    actions: list[Action], store: Store, queued: Callable[[], dict[str, str]], jobs: int, watch: bool, out: Console
) -> bool:
    """Print where the cells stand; with `watch` stay until each has ended. Whether none has failed.

    queued: asks SLURM for the cells in its queue. jobs: cells at once, where none runs to tell.
    """
    readings = Readings(store)
    if not watch:
        found = readings.standings(actions, queued())
        out.print(_table(found, out.width))
        out.print(_summary(found, actions, jobs))
        out.print(_troubles(found, store))
    elif out.is_terminal:
        found = _stay(actions, store, readings, queued, jobs, out)
    else:
        found = _tell(actions, readings, queued, out)
    return not any(one.state == "failed" for one in found)


def _looks(actions: list[Action], readings: Readings, queued: Callable[[], dict[str, str]]) -> Any:
    """The standings, again and again, until every cell has ended."""
    asked, waiting = -ASK_AGAIN, {}  # type: float, dict[str, str]
    while True:
        if time.monotonic() - asked >= ASK_AGAIN:
            asked, waiting = time.monotonic(), queued()
        found = readings.standings(actions, waiting)
        yield found
        if all(one.state in OVER for one in found):
            return
        time.sleep(REFRESH)


def _stay(
    actions: list[Action], store: Store, readings: Readings, queued: Callable[[], dict[str, str]], jobs: int, out: Console
) -> list[Standing]:
    found: list[Standing] = []
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
        for found in _looks(actions, readings, queued):
            below = [_summary(found, actions, jobs)]
            shown, rest = folded(found, max(3, out.height - 8))
            more = [f"[dim]and {rest}[/dim]"] if rest else []
            live.update(Group(_table(shown, out.width), *more, *below), refresh=True)
    out.print(_troubles(found, store))
    return found


def _tell(actions: list[Action], readings: Readings, queued: Callable[[], dict[str, str]], out: Console) -> list[Standing]:
    """Into a file or a pipe: a line for each change of a state."""
    before: dict[str, str] = {}
    found: list[Standing] = []
    for found in _looks(actions, readings, queued):
        for one in found:
            if before.get(one.cell_id) != one.state:
                before[one.cell_id] = one.state
                note = f": {one.note}" if one.note else ""
                at = time.strftime("%H:%M:%S")
                out.print(
                    f"{at} {one.state:11} {_name(one)}, seed {one.seed} ({one.cell_id}){note}", markup=False, soft_wrap=True
                )
    return found


def folded(found: list[Standing], room: int) -> tuple[list[Standing], str]:
    """What fits on the screen, what moves and what failed first; and the rest in words, such as `40 planned, 12 done`."""
    ranked = sorted(found, key=lambda one: STATES.index(one.state))
    if len(ranked) <= room:
        return found, ""
    rest = Counter(one.state for one in ranked[room:])
    return ranked[:room], ", ".join(f"{count} {state}" for state, count in rest.items())


def _table(found: list[Standing], width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("row", overflow="fold", ratio=None)
    table.add_column("seed", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("progress", no_wrap=wide, overflow="fold")
    for name in ("left", "loss", "kNN %"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("restarts", justify="right")
        table.add_column("host", no_wrap=True)
        table.add_column("cell", no_wrap=True, style="dim")
    for one in found:
        style = STYLE.get(one.state, "")
        left = words(one.left) if one.left is not None else ""
        loss = f"{one.loss:.3f}" if one.loss is not None else ""
        knn = f"{one.knn:.1f}" if one.knn is not None else ""
        state = f"[{style}]{one.state}[/{style}]" if style else one.state
        more = [str(one.restarts or ""), escape(one.host), one.cell_id] if wide else []
        name = escape(_name(one)) if wide else _with_host(one)
        table.add_row(name, str(one.seed), state, escape(one.progress), left, loss, knn, *more)
    return table


def _name(one: Standing) -> str:
    more = f" (+{len(one.rows) - 1})" if len(one.rows) > 1 else ""
    return one.rows[0] + more


def _with_host(one: Standing) -> str:
    """Where a column has no room for them, what a narrow screen still wants to know of a cell that moves."""
    restarts = f"{one.restarts} restart{'s' if one.restarts > 1 else ''}" if one.restarts else ""
    about = ", ".join(filter(None, [one.host if one.state == "running" else "", restarts]))
    return escape(_name(one)) + (f"\n  [dim]{escape(about)}[/dim]" if about else "")


def _summary(found: list[Standing], actions: list[Action], jobs: int) -> str:
    """How many stand where, and how long it will take at the present pace: as many at once as there are now."""
    counts = Counter(one.state for one in found)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    price = {action.cell.id: action.seconds for action in actions}
    left = sum(one.left or 0.0 if one.state == "running" else price[one.cell_id] for one in found if one.state not in OVER)
    if not left:
        return told
    running = counts["running"]
    at_once, pace = (running, f"with {running} running") if running else (jobs, f"with {jobs} at once")
    longest = max((one.left or 0.0 if one.state == "running" else price[one.cell_id] for one in found), default=0.0)
    return f"{told}; about {words(left)} of device time left, {words(max(left / at_once, longest))} {pace}"


def _troubles(found: list[Standing], store: Store) -> RenderableType:
    """Why cells failed, diverged or were lost: the class, the words, where the log is and how it ends."""
    troubled = [one for one in found if one.troubled]
    lines: list[RenderableType] = []
    for one in troubled[:_EXPLAINED]:
        style = STYLE.get(one.state, "")
        what = one.failure or one.state
        note = one.note.removeprefix(f"{what}: ")
        lines += ["", f"[{style}]{what}[/{style}]  {escape(_name(one))}, seed {one.seed}: {escape(note)}"]
        if one.log:
            lines.append(Padding(f"[dim]{escape(str(one.log))}[/dim]", (0, 0, 0, 2)))
        lines += [Padding(escape(line), (0, 0, 0, 4)) for line in evidence(one, store)]
    if len(troubled) > _EXPLAINED:
        lines += ["", f"and {len(troubled) - _EXPLAINED} more; --only and --cell show them one by one"]
    return Group(*lines)
