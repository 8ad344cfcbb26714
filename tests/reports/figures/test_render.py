"""Drawings as files: the same every time, drawn only where their data changed, readable on a dark page, PDF with its fonts."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reports.figures import Sketch, cost_against_accuracy, numbers, render, style, undrawn
from reports.figures.cost import Point
from reports.figures.style import INK
from tests.reports.figures.drawn import Picture, table_of


def toy(name: str = "toy", ours: float = 40.0) -> Sketch:
    table = table_of({"good": [(60.0, (ours, ours + 1))], "bad": [(50.0, ())]})
    sketch = numbers.sketch(dataclasses.replace(table, id=name), {})
    assert sketch is not None
    return sketch


def test_a_drawing_takes_its_ink_from_the_page_and_has_ids_of_its_own(tmp_path: Path) -> None:
    drawn = render([toy("one"), toy("two")], tmp_path)
    ids: list[str] = []
    for name, drawing in drawn.items():
        root = ElementTree.fromstring(drawing.svg)
        mine = [found for element in root.iter() if (found := element.get("id"))]
        ids += mine
        used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', drawing.svg))
        assert mine and used and used <= set(mine)
        assert root.get("role") == "img" and root.get("aria-label") == drawing.title and root.get("width") is None
        assert INK not in drawing.svg and "currentColor" in drawing.svg and "matplotlib.org" not in drawing.svg
        assert (tmp_path / f"{name}.svg").read_text().endswith(drawing.svg)
    assert len(ids) == len(set(ids))


def test_the_same_bytes_every_time_in_one_process_or_several(tmp_path: Path) -> None:
    names = [f"toy{i}" for i in range(6)]  # enough for processes of their own
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    render(map(toy, names), tmp_path / "a")
    for name in names:
        render([toy(name)], tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 12
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_what_changed_is_drawn_again(tmp_path: Path) -> None:
    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    both = [toy("one"), toy("two")]
    assert undrawn(both, tmp_path) == 2
    first = render(both, tmp_path)
    before = written()
    assert undrawn(both, tmp_path) == 0 and render(both, tmp_path) == first and written() == before
    changed = [toy("one"), toy("two", ours=41.0)]
    assert undrawn(changed, tmp_path) == 1
    render(changed, tmp_path)
    after = written()
    assert {name for name in before if before[name] != after[name]} == {f"{changed[1].name}.svg", f"{changed[1].name}.pdf"}
    (tmp_path / f"{both[0].name}.svg").write_bytes(b"\xff\xfe broken")
    assert undrawn(changed, tmp_path) == 1


def test_a_print_version_is_never_older_than_the_drawing(tmp_path: Path) -> None:
    render([toy()], tmp_path)
    render([toy(ours=41.0)], tmp_path, pdf=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".svg"]
    assert undrawn([toy(ours=41.0)], tmp_path) == 1
    render([toy(ours=41.0)], tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pdf", ".svg"]


def test_a_pdf_embeds_its_fonts_and_no_date(tmp_path: Path) -> None:
    render([toy()], tmp_path)
    content = next(tmp_path.glob("*.pdf")).read_bytes()
    assert content.startswith(b"%PDF") and b"/FontFile2" in content and b"DejaVuSans" in content
    assert b"/CreationDate" not in content and b"/Type3" not in content


def test_cost_names_its_points_and_keeps_names_apart() -> None:
    points = [Point("fast", 1.0, 50.0, 49.0, 51.0, "byol"), Point("slow", 40.0, 60.0, None, None, "simclr")]
    picture = Picture(cost_against_accuracy("cost-0", "Cost", points, "linear, %"))
    assert {"fast", "slow", "byol", "simclr", "1", "10", "linear, %"} <= set(picture.texts)
    assert len(picture.marks("points-0")) == 1
    crowd = [Point(f"row {i} of many", 1.0 + i / 1000, 50.0 + i / 1000, None, None, "byol") for i in range(25)]
    shown = [text for text in Picture(cost_against_accuracy("cost-1", "Cost", crowd)).texts if "of many" in text]
    assert 0 < len(shown) < 25
    assert cost_against_accuracy("cost-2", "Cost", points[:1]) is None


def test_nothing_is_imported_before_something_is_drawn() -> None:
    code = "import sys, reports.figures; sys.exit(any(name in sys.modules for name in ('matplotlib', 'seaborn', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_processes_that_draw_open_fonts_of_their_own(tmp_path: Path) -> None:
    """A font that was open before the fork would be read from one place by all of them."""
    assert style.wide("letters") > 0 and style._font.cache_info().currsize == 1
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit(_open_fonts).result() == 0
    many = [toy(f"toy{number}", 40.0 + number) for number in range(12)]
    assert len(render(many, tmp_path)) == 12 and len(list(tmp_path.glob("*.svg"))) == 12


def _open_fonts() -> int:
    return style._font.cache_info().currsize
