"""What `python -m benchmark.evaluate` prints: what matched, what was measured. Readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from torch import Tensor

from benchmark.evaluate.foreign import Foreign, described, listed

_out = Console(highlight=False)


def lines(rows: Iterable[tuple[str, str]]) -> None:
    """Two columns; a long line goes on below its own beginning."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        style = "[bold yellow]" if name == "notice" else ""
        grid.add_row(f"{style}{escape(name)}", escape(text))
    _out.print(grid)


def match(foreign: Foreign) -> None:
    """Every tensor of the checkpoint, in groups: taken, left aside, and what does not fit."""
    found = foreign.match
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensors", justify="right", no_wrap=True)
    table.add_column("numbers", justify="right", no_wrap=True)
    table.add_column("are", no_wrap=True)
    table.add_column("keys", overflow="fold")
    taken = _numbers(found.matched.values())
    table.add_row(str(len(found.matched)), taken, "[green]taken[/green]", escape(_beginnings(found.matched)))
    for what in dict.fromkeys(found.aside.values()):
        keys = [key for key, belongs in found.aside.items() if belongs == what]
        table.add_row(str(len(keys)), "", "left aside", escape(f"{what}: {_beginnings(keys, 2)}"))
    for what, keys in (("missing", found.missing), ("unknown", found.unknown)):
        if keys:
            table.add_row(str(len(keys)), "", f"[red]{what}[/red]", escape(listed(keys, 60)))
    for key, (theirs, ours) in list(found.wrong.items())[:20]:
        shapes = f"{key}: {list(theirs)}, ours {list(ours)}"
        table.add_row("1", "", "[red]of another shape[/red]", escape(shapes))
    if len(found.wrong) > 20:
        table.add_row(str(len(found.wrong) - 20), "", "[red]of another shape[/red]", "as well")
    if found.others:
        table.add_row("", "", "not looked at", escape(listed(found.others, 8)))
    _out.print()
    _out.print(table)
    _out.print()


def about(foreign: Foreign) -> list[tuple[str, str]]:
    """What the network is, for `lines`."""
    who = f"{foreign.method}, step {foreign.step:,}, " if foreign.method else ""
    rows = [("layout", f"{foreign.layout}: {foreign.about}"), ("encoder", f"{who}{described(foreign.encoder)}")]
    if foreign.same_pads:
        rows.append(("notice", "its strided convolutions are padded as TensorFlow's SAME, as DeepMind trained them"))
    return rows + [("notice", note) for note in foreign.match.notes]


def results(records: Sequence[Mapping[str, Any]], fresh: set[str]) -> None:
    """A row for each protocol, if there is any. fresh: the ids of the records that this run made; the others were there."""
    if not records:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("protocol", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("chosen", overflow="fold")
    table.add_column("took", justify="right", no_wrap=True)
    for record in records:
        metrics = record["metrics"] or {}
        names, values = list(metrics), [_value(value) for value in metrics.values()]
        if record["status"] == "diverged":
            names, values = ["[yellow]diverged[/yellow]"], [""]
        chosen = [f"{name} {_value(value)}" for name, value in (record.get("chosen") or {}).items() if _plain(value)]
        took = _time(record["timing"]["wall_seconds"]) if record["id"] in fresh else "[dim]had it[/dim]"
        table.add_row(escape(record["stage"]), "\n".join(names), "\n".join(values), escape(", ".join(chosen)), took)
    _out.print(table)


def say(text: str) -> None:
    _out.print(escape(text), soft_wrap=True)


class Work(AbstractContextManager["Work"]):
    """A bar for what is under way; nothing where nobody watches."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"))
        self._bars = Bars(*columns, console=_out, transient=True, disable=not _out.is_terminal)
        self._task = self._bars.add_task("", total=None, note="")

    def __enter__(self) -> Work:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def begins(self, stage: str) -> None:
        self._bars.update(self._task, description=escape(stage), completed=0, total=None, note="")

    def goes_on(self, progress: Any) -> None:
        note = f"loss {progress.loss:.3f}, {_time(progress.eta_seconds)} left"
        self._bars.update(self._task, completed=progress.step, total=progress.total, note=note)


def _beginnings(keys: Iterable[str], depth: int = 1) -> str:
    """`conv1, bn1, layer1, ...`: the keys up to their first dots."""
    starts = list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in keys))
    return listed(starts, 8)


def _numbers(tensors: Iterable[Tensor]) -> str:
    count = sum(tensor.numel() for tensor in tensors)
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if 1 <= abs(value) < 1e5 else f"{value:.3g}"
    return "-" if value is None else str(value)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
