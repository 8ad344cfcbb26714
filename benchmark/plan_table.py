"""A plan as text: the table of cells with their whys and costs, the table of sweeps, and the sums below them.

Laid out here and not by rich: of 2,000 cells rich's own tables take seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from benchmark.plan.cost import words
from benchmark.plan.plan import Action
from benchmark.plan.shared import Alone, Saved

IDS_FROM = 100  # columns of a window that has room for the ids of the cells
_GAP = "  "
_LEAST = 14  # columns of a column that is continued on further lines


def cells(actions: Sequence[Action], width: int) -> list[str]:
    """A line for the cells of a row that have the same to be done to them for the same reason; the first line is the head.

    In a wide window the id of each cell stands at the end.
    """
    with_ids = width >= IDS_FROM
    head = ["row", "seed", "do", "cost", "why", *(["cell"] if with_ids else [])]
    lines = []
    for group in _grouped(actions, lambda action: action.rows):
        name = " = ".join(group[0].rows)
        for alike in _grouped(group, lambda action: (action.do, action.why)):
            ids = ["\n".join(action.cell.id for action in alike)] if with_ids else []
            lines.append([name, _seeds(alike), alike[0].do, _cost(alike), _why(alike, len(group)), *ids])
            name = ""  # said once
    return laid_out([head, *lines], width, flexible=(0, 4), right=(3,))


def sweeps(each: Sequence[Alone], width: int) -> list[str]:
    """A line for each sweep: what it would take alone."""
    lines = [["sweep", "rows", "cells", "left", "alone", "why"]]
    for one in each:
        cost = words(one.seconds) + (" ?" if one.guessed else "") if one.works else ""
        whys = ", ".join(f"{count} {why}" for why, count in one.whys.most_common())
        lines.append([one.file, str(one.rows), str(one.cells), str(one.works), cost, whys])
    return laid_out(lines, width, flexible=(0, 5), right=(1, 2, 3, 4))


def total(actions: Sequence[Action], jobs: int, ranks: int, device: str, where: str = "here") -> str:
    """The sum of a plan: cells with work left, device hours, the longest cell, the time that it takes, what is guessed.

    jobs: cells at once; ranks: devices that share a cell.
    """
    work = [action for action in actions if action.works]
    seconds = sum(action.seconds for action in work)
    shared = sum(len(action.rows) - 1 for action in actions)
    begin = f"{len(work)} of {len(actions)} cells have work left" + (f" ({shared} row entries share a cell)" if shared else "")
    if not work:
        return f"{begin}."
    longest = max(action.seconds for action in work)
    wall = max(seconds / (jobs * ranks), longest / ranks)
    guessed = sum(not action.measured for action in work)
    basis = f"{guessed} guessed (?)" if guessed else "all from past records"
    return (
        f"{begin}: about {words(seconds)} of device time ({hours(seconds, device)}), longest {words(longest)}, "
        f"{words(wall)} {where}; {basis}."
    )


def sharing(saves: Saved, device: str) -> str:
    """What it saves that each shared cell runs once."""
    if not saves.cells and saves.seconds < 1:
        return "No sweep shares a cell that has work left with another."
    count = f"{saves.cells} cell{'' if saves.cells == 1 else 's'}"
    return f"Sharing saves {count}, about {words(saves.seconds)} of device time ({hours(saves.seconds, device)})."


def hours(seconds: float, device: str) -> str:
    number = seconds / 3600
    shown = f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 1 else f"{max(number, 0.01):.2f}"
    return f"{shown} {'GPU' if device == 'cuda' else 'CPU'}-hours"


def laid_out(lines: Sequence[Sequence[str]], width: int, flexible: tuple[int, int], right: tuple[int, ...]) -> list[str]:
    """Texts in columns, at most `width` wide: the two flexible columns are continued below where there is no room."""
    natural = [max(max(map(cell_len, text.split("\n"))) for text in column) for column in zip(*lines, strict=True)]
    first, second = flexible
    room = width - sum(size for place, size in enumerate(natural) if place not in flexible) - len(_GAP) * (len(natural) - 1)
    if natural[first] + natural[second] > room:
        natural[first] = max(_LEAST, min(natural[first], max(room * 9 // 20, room - natural[second])))
        natural[second] = max(_LEAST, room - natural[first])
    made = []
    for line in lines:
        parts = [_wrapped(text, size) for text, size in zip(line, natural, strict=True)]
        for number in range(max(map(len, parts))):
            texts = []
            for place, (part, size) in enumerate(zip(parts, natural, strict=True)):
                text = part[number] if number < len(part) else ""
                space = " " * (size - cell_len(text))
                texts.append(space + text if place in right else text + space)
            made.append(_GAP.join(texts).rstrip())
    return made


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of this many columns, broken between words; a word that is longer is broken anywhere."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        if cell_len(paragraph) <= width:
            lines.append(paragraph)
            continue
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if cell_len(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while cell_len(word) > width:
                cut = next(n for n in range(len(word), 0, -1) if cell_len(word[:n]) <= width or n == 1)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return lines


def _grouped(actions: Iterable[Action], key: object) -> list[list[Action]]:
    """Actions with the same key together, in the order of the first of each."""
    assert callable(key)
    groups: dict[object, list[Action]] = {}
    for action in actions:
        groups.setdefault(key(action), []).append(action)
    return list(groups.values())


def _seeds(alike: list[Action]) -> str:
    """`0-2` for 0, 1 and 2."""
    seeds = sorted(action.cell.seed for action in alike)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return " ".join(map(str, seeds))


def _cost(alike: list[Action]) -> str:
    if not alike[0].works:
        return ""
    return words(sum(action.seconds for action in alike)) + ("" if all(action.measured for action in alike) else " ?")


def _why(alike: list[Action], asked: int) -> str:
    """asked: how many random seeds the row has."""
    why = alike[0].why
    if why == "done" or why.startswith("done;"):
        why = f"done {len(alike)}/{asked}{why.removeprefix('done')}"
    elif why.startswith("failed"):
        seeds = sorted(action.cell.seed for action in alike)
        why = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} {why}"
    files = list(dict.fromkeys(name for action in alike for name in action.shared))
    if not files:
        return why
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{why}; shared with {files[0]}{more}"
