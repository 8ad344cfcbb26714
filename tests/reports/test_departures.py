"""The page of departures has every note of the sources, escaped, in both formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from methods import departures as notes
from reports import __main__ as reports_main
from reports import departures
from reports.build import ROOT
from reports.site import Site, pages
from tests.reports import toy


def test_every_mark_in_the_sources_is_on_the_page() -> None:
    marks = sum(
        path.read_text(encoding="utf-8").count("NOTE(departs):")
        for folder in ("methods", "benchmark")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "departures.py"
    )
    found = [note for source in departures.gather() for note in source.notes]
    assert len(found) == marks > 10
    for note in found:
        assert re.fullmatch(r"[A-Z].*[.)]", note.text), f"{note.path}:{note.line} is not a full sentence: {note.text}"


def test_methods_come_first_and_are_named_by_their_papers() -> None:
    sources = departures.gather()
    kinds = [source.path.split("/")[0] for source in sources]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"methods", "benchmark"}
    byol = next(source for source in sources if source.path == "methods/byol.py")
    assert byol.title.startswith("BYOL: Bootstrap your own latent (Grill et al., 2020, arXiv 2006.07733)")
    assert any("moves it before the optimizer and changes tau once an epoch." in note.text for note in byol.notes)


def test_a_note_ends_where_another_begins_or_the_comment_ends(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text(
        '"""About.\n\nNOTE(departs): in a docstring it goes on\nto the blank line.\n\nNot this.\n"""\n\n'
        "# Before. NOTE(departs): the first\n#   of two.\n# NOTE(departs): The second.\nx = 'NOTE(departs): no comment'\n"
    )
    found = [(note.line, note.text) for note in notes.in_file(file)]
    assert found == [(3, "In a docstring it goes on to the blank line."), (9, "The first of two."), (11, "The second.")]


def test_text_is_escaped_in_both_formats(tmp_path: Path) -> None:
    source = departures.Source("methods/x.py", "X <b>", (notes.Departure("methods/x.py", 1, "Not <i>this</i> but a_b*c."),))
    site = Site(tmp_path / "site", toy.report(tmp_path), also=["departures.html"])
    pages.write(site, {}, {}, [source], ())
    page = (tmp_path / "site" / "departures.html").read_text()
    assert "Not &lt;i&gt;this&lt;/i&gt; but a_b*c." in page and "X &lt;b&gt;" in page
    assert r"- Not \<i\>this\</i\> but a\_b\*c." in departures.markdown([source])


def test_the_report_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reports_main.main(["--records", str(tmp_path), "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    sentence = "The target starts as a copy of the online network"
    assert sentence in (tmp_path / "out" / "departures.md").read_text()
    assert sentence in (tmp_path / "out" / "departures.html").read_text()
