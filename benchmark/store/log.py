"""The end of a cell's log, for whoever has to say why the cell failed."""

from __future__ import annotations

from pathlib import Path

_READ = 8192  # bytes from the end


def last_lines(path: Path, count: int = 5) -> list[str]:
    """The last lines that say anything; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            start = max(0, file.tell() - _READ)
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.splitlines()[1 if start else 0 :]  # the first is a part of one
    return [line.rstrip() for line in lines if line.strip()][-count:]
