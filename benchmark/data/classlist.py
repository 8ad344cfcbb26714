"""A list of classes, one a line: ImageNet-100 and other subsets of an image folder are given as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError, nearest


@dataclass(frozen=True)
class ClassList:
    """lines: the number and the text of every line that says something."""

    path: Path
    lines: tuple[tuple[int, str], ...]

    def choose(self, known: Iterable[str]) -> set[str]:
        """The class folders meant, out of the `known` ones; InputError names a line with an unknown or a repeated class.

        A line is the folder's name, or that name and a description after a space.
        """
        known = sorted(set(known))
        chosen: dict[str, int] = {}
        for number, text in self.lines:
            name = text if text in known else text.split()[0]
            where = f"{self.path}:{number}"
            if name not in known:
                raise InputError(
                    f"{where}: no class folder '{name}' among the {len(known)} of the source{nearest(name, known)}"
                )
            if name in chosen:
                raise InputError(f"{where}: class '{name}' is already on line {chosen[name]}; list every class once")
            chosen[name] = number
        return set(chosen)

    @property
    def state(self) -> str:
        """The same text for the same classes in any order."""
        return "\n".join(sorted(text for _, text in self.lines))


def read_class_list(path: Path) -> ClassList:
    """Read a list; empty lines and lines that begin with # say nothing."""
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path} names no class; give one class folder name a line")
    return ClassList(path, lines)


def read_lines(path: Path) -> tuple[tuple[int, str], ...]:
    """The number and the stripped text of every line that is neither empty nor a comment (#)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list ({error}); give a text file with one name a line") from None
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return tuple((number, line) for number, line in numbered if line and not line.startswith("#"))
