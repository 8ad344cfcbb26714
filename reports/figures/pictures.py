"""What evaluations drew of a table's trainings: attention maps and embeddings, as a sheet with the rows' names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.evidence import Run
from reports.figures.sketch import Sketch
from reports.figures.style import canvas, cut, heading
from reports.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 12  # pictures on a sheet
_WIDTH = 4.4  # inches, of each


def sketch(table: Table, runs: Mapping[str, Run]) -> Sketch | None:
    """One picture of each kind for each row, that of its first seed; None where no evaluation left one beside its record."""
    found = []
    for row in table.rows:
        seen: set[str] = set()
        for run in (runs[name] for name in row.runs if name in runs):
            for stage, path in _pictures(run):
                if stage not in seen:
                    seen.add(stage)
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                    found.append([f"{row.name}: {stage.replace('_', ' ')}, seed {run.seed}", str(path), digest])
    if not found:
        return None
    more = f" The first {_MOST} of {len(found)}." if len(found) > _MOST else ""
    says = f"Each is of the row's first seed, as its evaluation drew it.{more}"
    data = {"pictures": found[:_MOST]}
    return Sketch(f"{table.slug}-pictures", "pictures", f"Pictures: {table.title}, {table.where}", says, data)


def _pictures(run: Run) -> list[tuple[str, Path]]:
    """(evaluation, file) of those that lie beside their records."""
    named = [(stage, Path(str(name)).name) for stage, all_of in run.evaluations.items() for r in all_of for name in _names(r)]
    paths = [(stage, run.folder / "evaluations" / name) for stage, name in named]
    return [(stage, path) for stage, path in paths if path.suffix == ".png" and path.is_file()]


def _names(record: Mapping[str, Any]) -> list[Any]:
    names = record.get("pictures")
    return names if isinstance(names, list) else []


def _read(caption: str, path: str) -> tuple[str, Any]:
    """The caption and the pixels; one white pixel where the file is no picture, and the caption says so."""
    import numpy as np
    from matplotlib.image import imread

    try:
        return caption, imread(path)
    except (OSError, SyntaxError, ValueError) as error:
        return f"{caption} cannot be read ({type(error).__name__})", np.ones((1, 1, 3))


def paint(data: dict[str, Any]) -> Figure:
    images = [_read(caption, path) for caption, path, _ in data["pictures"]]
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    tall = _WIDTH * max(min(1.6, image.shape[0] / image.shape[1]) for _, image in images)
    width, height = columns * (_WIDTH + 0.2) + 0.1, rows * (tall + 0.35) + 0.1
    figure, axes = canvas(width, height, columns, rows, left=0.1, right=0.2, top=0.35, bottom=0.1, between=0.2, below=0.35)
    for ax, (caption, image) in zip(axes, images, strict=False):
        # at most twice the pixels that a screen shows of it
        step = max(1, image.shape[1] // 1000)
        ax.imshow(image[::step, ::step], aspect="equal")
        ax.set_anchor("NW")
        ax.set_axis_off()
        heading(ax, cut(caption, _WIDTH))
    for ax in axes[len(images) :]:
        ax.remove()
    return figure
