"""Figures: well-formed, the same every time, readable on a dark page, and patient with gaps."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from reports.figures import INK, draw, write
from tests.reports.builder import curves, numbers, write_run
from tests.reports.toy import report, settings, write_store


def test_both_figures_are_well_formed_and_take_their_ink_from_the_page(tmp_path: Path) -> None:
    write_store(tmp_path)
    found = report(tmp_path)
    drawings = draw(found.tables[0], found.runs)
    assert [drawing.name.rsplit("-", 1)[1] for drawing in drawings] == ["curves", "numbers"]
    ids: list[str] = []
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.svg)
        ids += [element.get("id", "") for element in root.iter() if element.get("id")]
        assert root.get("role") == "img" and root.get("aria-label") and root.get("viewBox") and root.get("width") is None
        assert INK not in drawing.svg and "currentColor" in drawing.svg and "matplotlib.org" not in drawing.svg
    assert len(ids) == len(set(ids))
    assert "differs | 100% &amp; a_b" in drawings[0].svg.replace(r"\$", "$")


def test_figures_are_the_same_every_time_and_written_once(tmp_path: Path) -> None:
    write_store(tmp_path / "store")
    found = report(tmp_path / "store")
    first, second = draw(found.tables[0], found.runs), draw(found.tables[0], found.runs)
    assert [drawing.svg for drawing in first] == [drawing.svg for drawing in second]
    out = tmp_path / "out"
    out.mkdir()
    write(first, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(before) == 4 and all((out / f"{drawing.name}.pdf").read_bytes().startswith(b"%PDF") for drawing in first)
    write(second, out)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_gaps_and_unequal_curves_are_drawn_as_far_as_they_go(tmp_path: Path) -> None:
    broken = curves(4.0, 1.0, 0.8, points=6)
    broken["loss"][3] = float("nan")  # stored as null
    for seed, series in enumerate((broken, curves(4.0, 1.0, 0.8, points=9), {"epoch": [0.0], "loss": [1.0]})):
        write_run(tmp_path, settings("same", "imagenet", seed), numbers(57.0, 50.0, 0.9), series=series)
    found = report(tmp_path)
    for drawing in draw(found.tables[0], found.runs):
        ElementTree.fromstring(drawing.svg)


def test_no_runs_no_figures(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert draw(found.tables[0], found.runs) == []
