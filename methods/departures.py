"""Where a paper and its released code disagree, or ours leaves both: collected from the source, without importing it.

A departure is a comment, or a part of a docstring, that begins with `NOTE(departs):` and ends with its paragraph:

    # NOTE(departs): the paper sums the two directions, the released code takes their mean; this is the paper's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MARK = "NOTE(departs):"
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Departure:
    """path: of the file, from the project's folder. line: where the note begins, from 1."""

    path: str
    line: int
    text: str


def departures(*folders: str) -> list[Departure]:
    """Of all Python files under these folders of the project, in order of folder, path and line."""
    paths = [path for folder in folders for path in sorted((_ROOT / folder).rglob("*.py"))]
    return [note for path in paths if path != Path(__file__).resolve() for note in in_file(path)]


def of_module(module: str) -> list[Departure]:
    """Of one module of the project, given by its dotted name."""
    return in_file(_ROOT / Path(*module.split(".")).with_suffix(".py"))


def in_file(path: Path) -> list[Departure]:
    """The notes of one file. A note goes on over the lines that follow it as long as they are of the same kind."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        before, mark, text = line.partition(_MARK)
        if not mark or (before.strip() not in ("", "#") and not before.strip().startswith("#")):
            continue
        comment = before.lstrip().startswith("#")
        for later in lines[number + 1 :]:
            words = later.strip()
            goes_on = words.startswith("#") if comment else bool(words) and not words.startswith(('"""', "'''"))
            if not goes_on or _MARK in words:
                break
            text += " " + words.lstrip("# ")
        text = re.sub(r"\s+", " ", text).strip().removesuffix('"""')
        name = path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else path.name
        found.append(Departure(name, number + 1, text[:1].upper() + text[1:]))
    return found
