"""The page of departures: where a paper and its released code disagree, or ours leaves both.

Gathered from the sources as they are now; a run's record has those of its method as they were when it ran.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from methods.departures import Departure, departures
from reports.render_markdown import code, escape

_ROOT = Path(__file__).resolve().parents[1]
ABOUT = (
    "Where a paper and its released code disagree, or where this implementation leaves both, it says so in the source, at "
    "the place where it happens. These are all of these notes."
)


@dataclass(frozen=True)
class Source:
    """The notes of one file, in their order. title: the first sentence of its docstring."""

    path: str
    title: str
    notes: tuple[Departure, ...]


def gather() -> list[Source]:
    """Of methods first, then of the machine that trains and evaluates them."""
    files: dict[str, list[Departure]] = {}
    for note in departures("methods", "benchmark"):
        files.setdefault(note.path, []).append(note)
    return [Source(path, _title(_ROOT / path), tuple(notes)) for path, notes in files.items()]


def _title(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".")


def markdown(sources: Sequence[Source]) -> str:
    """The page as a file of its own."""
    parts = ["# Departures from papers and released code", escape(ABOUT)]
    for source in sources:
        parts += [f"## {escape(source.title)}", code(source.path), "\n".join(f"- {escape(n.text)}" for n in source.notes)]
    return "\n\n".join(parts) + "\n"
