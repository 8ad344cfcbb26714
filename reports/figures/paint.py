"""Sketches to files: NAME.svg and NAME.pdf. What was drawn from the same data before is taken as it is.

Drawing is the dear part of a report, so it is done in as many processes as there are cores; the SVG remembers the digest of
its data.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.store.record import write_bytes
from reports.figures import bars, cost, curves, heatmap, lines, numbers, pictures
from reports.figures.sketch import Sketch
from reports.figures.style import INK, rc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAINTERS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "numbers": numbers.paint,
    "curves": curves.paint,
    "heatmap": heatmap.paint,
    "bars": bars.paint,
    "lines": lines.paint,
    "cost": cost.paint,
    "pictures": pictures.paint,
}
_FEW = 4  # figures for which no processes are started
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<!-- data {digest} -->\n'


@dataclass(frozen=True)
class Drawing:
    """A finished figure: svg is an element to be inlined in a page; says is its description in words. NAME.svg and NAME.pdf
    lie in the folder."""

    name: str
    title: str
    says: str
    svg: str


def render(sketches: Iterable[Sketch], folder: Path, pdf: bool = True) -> dict[str, Drawing]:
    """Draw what is new or has changed, into the folder; every drawing by its name. InputError when it cannot be written.

    pdf: draw those too, which takes twice as long as everything else.
    """
    return begin(sketches, folder, pdf)()


def begin(sketches: Iterable[Sketch], folder: Path, pdf: bool = True) -> Callable[[], dict[str, Drawing]]:
    """The same in two steps: the processes draw while the caller does something else, until it asks for the drawings."""
    wanted = list(sketches)
    svgs = {sketch.name: _known(sketch, folder, pdf) for sketch in wanted}
    missing = [(sketch, pdf) for sketch in wanted if svgs[sketch.name] is None]
    painted, pool = _paint_all(missing)

    def finish() -> dict[str, Drawing]:
        with pool or contextlib.nullcontext():
            for (sketch, _), (svg, page) in zip(missing, painted, strict=True):
                _write(folder, sketch, svg, page)
                svgs[sketch.name] = svg
        return {sketch.name: Drawing(sketch.name, sketch.title, sketch.says, svgs[sketch.name] or "") for sketch in wanted}

    return finish


def _write(folder: Path, sketch: Sketch, svg: str, page: bytes | None) -> None:
    for name, content in ((f"{sketch.name}.pdf", page), (f"{sketch.name}.svg", _HEAD.format(digest=sketch.digest) + svg)):
        if content is None:  # an older one would show other numbers
            (folder / name).unlink(missing_ok=True)
        else:
            write_bytes(folder / name, content if isinstance(content, bytes) else content.encode())


def undrawn(sketches: Iterable[Sketch], folder: Path) -> int:
    """How many of them the folder does not have yet."""
    return sum(_known(sketch, folder, pdf=True) is None for sketch in sketches)


def _known(sketch: Sketch, folder: Path, pdf: bool) -> str | None:
    """The figure as it was drawn from these data before, None where it was not."""
    path = folder / f"{sketch.name}.svg"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = _HEAD.format(digest=sketch.digest)
    return text[len(head) :] if text.startswith(head) and (not pdf or path.with_suffix(".pdf").is_file()) else None


def _paint_all(wanted: list[tuple[Sketch, bool]]) -> tuple[Iterable[tuple[str, bytes | None]], ProcessPoolExecutor | None]:
    """What will have been painted, in order, and the processes that do it; a few are painted here, when they are asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, 8)
    if len(wanted) <= _FEW or workers == 1:
        return map(_paint, wanted), None
    # imported once, before the processes part
    for module in ("seaborn", "matplotlib.backends.backend_svg", "matplotlib.backends.backend_pdf"):
        importlib.import_module(module)
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    # what they inherit, every record of the report, is none of their garbage collector's business
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=gc.freeze)
    return pool.map(_paint, wanted, chunksize=max(1, len(wanted) // (4 * workers))), pool


def _paint(one: tuple[Sketch, bool]) -> tuple[str, bytes | None]:
    return paint(*one)


def paint(sketch: Sketch, pdf: bool = True) -> tuple[str, bytes | None]:
    """(the <svg> element, the PDF's bytes); the same for the same sketch."""
    import matplotlib

    settings: Any = dict(rc())
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a browser has other fonts to take it from
        figure = PAINTERS[sketch.kind](sketch.data)
        svg, page = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        unsigned: dict[str, Any] = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        if pdf:
            figure.savefig(page, format="pdf", transparent=True, metadata=unsigned)
    return _inline(svg.getvalue(), sketch.name, sketch.title), page.getvalue() if pdf else None


def _inline(svg: str, name: str, title: str) -> str:
    """The <svg> element alone: with a name, ids of this figure only, and ink and size left to the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<\w+ id=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    size = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    label = "".join(filter(str.isprintable, title)).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    most = f' style="max-width:{float(size[1]) / 72:.2f}in"' if size else ""
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")  # Verdana is as wide, letter by letter
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}"{most} ', 1).strip() + "\n"
