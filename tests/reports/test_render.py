"""The toy table byte for byte, and text that must survive every format."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports import render_html, render_latex, render_markdown
from reports.assemble import Report
from reports.figures import draw
from tests.reports.builder import config, numbers, write_run
from tests.reports.toy import GOLDEN, rendered, report, settings, write_store

NASTY = r"100% & a_b $x$ #1 {y} ~ ^ \cmd <i>|`'\""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    return folder


@pytest.fixture(scope="module")
def toy(store: Path) -> Report:
    return report(store)


@pytest.mark.parametrize("ending", ["md", "tex", "csv"])
def test_the_golden_table(store: Path, ending: str) -> None:
    """After a change that is meant: python -m tests.reports.toy, and look at the difference."""
    assert rendered(store)[ending] == (GOLDEN / "expected" / f"toy.{ending}").read_text(encoding="utf-8")


def test_a_true_zero_is_printed_and_a_missing_number_is_empty(store: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(rendered(store)["csv"])))
    by = {(line["row"], line["metric"]): line for line in reversed(lines)}
    assert by["zero", "linear.top1"]["mean"] == "0" and by["zero", "linear.top1"]["paper"] == "0"
    assert by["not run", "linear.top1"]["mean"] == by["diverged", "linear.top1"]["low"] == ""
    assert "| zero " in rendered(store)["md"] and "0.0 ± 0.0" in rendered(store)["md"]
    for text in rendered(store).values():
        assert not re.search(r"\bnan\b|\binf\b|None", text, re.IGNORECASE)


def test_every_row_that_has_not_run_carries_its_command(store: Path, toy: Report) -> None:
    for text in rendered(store).values():
        assert "row=absent" in text
    assert "--only row=absent" in render_html.render(toy, {})


def test_other_data_is_another_table_and_says_which(toy: Report) -> None:
    assert [(table.profile, table.data.content if table.data else "") for table in toy.tables] == [
        ("imagenet", "aaaaaaaaaaaa"),
        ("imagenet", "bbbbbbbbbbbb"),
    ]


def test_where_nothing_has_run_the_first_profile_is_shown_with_its_command(tmp_path: Path) -> None:
    empty = report(tmp_path)
    assert [table.profile for table in empty.tables] == ["smoke"]
    text = render_markdown.render(empty.tables)
    assert "`python -m benchmark.run sweeps/toy.yaml --profile smoke`" in text
    assert "Nothing has run yet." in render_html.render(empty, {})


def test_a_scaled_profile_tests_directions_only(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, settings("same", "smoke", seed), numbers(57.6 + 0.1 * seed, 50.0, 0.9))
        write_run(tmp_path, settings("other", "smoke", seed), numbers(54.9 + 0.1 * seed, 50.0, 0.9))
        write_run(tmp_path, settings("random", "smoke", seed), numbers(30.0 + 0.1 * seed, 30.0, 0.5))
    (table,) = report(tmp_path).tables
    same = table.rows[0]
    assert table.cell(same, "verdict").display == "not comparable"  # although it is within the margin
    assert table.cell(same, "verdict").reason == "profile smoke is not the paper's protocol (profile imagenet)"
    words = {claim.id: claim.words for claim in table.claims}
    assert words["spreads"] == words["order"] == "supported (direction)"
    assert words["gap"] == "undecided"


def test_a_config_that_departs_from_the_paper_is_not_comparable(tmp_path: Path) -> None:
    for seed in range(3):
        made = settings("same", "imagenet", seed, name="shapes")
        write_run(tmp_path, made, numbers(57.6 + 0.1 * seed, 50.0, 0.9))
    (table,) = report(tmp_path).tables
    assert table.cell(table.rows[0], "verdict").reason == "data.name is shapes, in the paper toy"


def test_markdown_is_escaped() -> None:
    assert render_markdown.escape("a|b\n*c*_d_ <e> $f$") == r"a\|b \*c\*\_d\_ \<e\> \$f\$"
    assert render_markdown.code("plain") == "`plain`"
    assert render_markdown.code("a ` b") == "`` a ` b ``"


def test_latex_is_escaped() -> None:
    assert render_latex.escape(r"5% & a_b {c} \d ~ ^ # $") == (
        r"5\% \& a\_b \{c\} \textbackslash{}d \textasciitilde{} \textasciicircum{} \# \$"
    )
    assert render_latex.escape("57.7 ± 0.4, √d, ‡, 漢") == r"57.7 $\pm$ 0.4, $\surd$d, $^{\ddagger}$, ?"
    assert not re.search(r"(?<!\\)[%&#_]", render_latex.escape(NASTY))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(store: Path, tmp_path: Path) -> None:
    packages = r"\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}"
    body = rendered(store)["tex"] + "\n" + render_latex.escape(NASTY)
    (tmp_path / "t.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


class Page(HTMLParser):
    """Ids, links and text of a page; notes tags that are closed out of order."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href") and value:
                self.links.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_is_whole_self_contained_and_its_links_lead_somewhere(toy: Report) -> None:
    text = render_html.render(toy, {table.slug: draw(table, toy.runs) for table in toy.tables})
    page = Page(text)
    assert page.wrong == [] and page.open == []
    assert len(page.ids) == len(set(page.ids))
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert inside and set(inside) <= set(page.ids)
    outside = {link for link in page.links if not link.startswith(("#", "figures/"))}
    assert outside == {"https://arxiv.org/abs/0000.00000"}  # a link to follow, nothing that loads
    assert not {"img", "link", "iframe"} & page.seen and text.count("<svg") == 4
    assert "<more>" not in text and "&lt;more&gt;" in text


def test_text_of_a_record_cannot_break_the_page(tmp_path: Path) -> None:
    made = settings("same", "imagenet", 0, remark="</pre><script>alert(1)</script>")
    write_run(tmp_path, made, numbers(57.0, 50.0, 0.9), departures=("<script>alert(2)</script>",), note="<b>")
    # the key of the row is its whole config, so a config with a remark belongs to no row of the table
    write_run(tmp_path, config("byol", 0, name="toy", epochs=10, row="same", encoder={"name": "net"}), numbers(57.0),
              departures=("<script>alert(2)</script>",), note="<b>")  # fmt: skip
    found = report(tmp_path)
    text = render_html.render(found, {})
    assert found.unused == 1 and "1 finished run belongs to no row" in text
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(2)" in text and "&lt;b&gt;" in text
