"""The list of methods for the README: what each is, and the number of its paper that it should reach, as its file says."""

from __future__ import annotations

from methods.catalogue import CATALOGUE
from reports.render_markdown import code, escape, grid


def markdown() -> str:
    """A line for each method that is trained, in the order of their papers."""
    entries = [(name, entry) for name, entry in CATALOGUE()["methods"].items() if entry["trains"]]
    rows = [
        [code(name), escape(entry["title"]), escape(entry["reaches"])]
        for name, entry in sorted(entries, key=lambda item: (_year(item[1]["paper"]), item[0]))
    ]
    return grid(["method", "what it is", "should reach"], rows, [False] * 3)


def _year(paper: str) -> str:
    """arXiv numbers sort by date; what has none comes last."""
    return paper.partition("arXiv:")[2] or "9"
