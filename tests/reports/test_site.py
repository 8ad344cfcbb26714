"""The site as a reader meets it: every page and link of it by a parser, and its behaviour in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reports import bench, build, departures
from reports.assemble import Report
from reports.site import Site, downloads, pages
from tests.reports import golden_site
from tests.reports.builder import curves, numbers
from tests.reports.chromium import FOUND, framed, said, show
from tests.reports.pages import Page, faults
from tests.reports.project import PUBLISHED, SWEEP, TABLE, Project, cell_of, write_registry

browser = pytest.mark.skipif(FOUND is None, reason="needs chromium")
HOSTILE = """a <script>alert(1)</script> & "b" | 'c' {{ d }} %"""


def write(report: Report, out: Path, problems: tuple[str, ...] = ()) -> Site:
    """The whole site, with stand-ins for the files beside the tables, which other renderers write."""
    site = Site(out, report, also=["departures.html", "speed.html", "audit.html"])
    measured, _ = bench.newest(build.ROOT / "reports" / "records" / "bench")
    pages.write(site, {}, measured, departures.gather(), (), problems)
    site.finish()
    for table in report.by_id:
        for file in downloads(table):
            (out / file).touch()
    return site


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one table with runs, at another scale than the paper's."""
    root = tmp_path_factory.mktemp("toy")
    project = Project(root, profile="cpu")
    write_registry(project.registry, [cell_of("toy", *cell) for cell in reversed(PUBLISHED)])
    for seed in range(2):
        project.run("good", seed, numbers(60.0 + seed, 50.0, 0.9), series=curves(4.0, 1.0, 0.9), status="done")
        project.run("bad", seed, numbers(5.0 + seed, 30.0, 0.1), series=curves(4.0, 1.0, 0.1), content="bbbbbbbbbbbb")
    run = project.run("bad", 0, numbers(41.5, 30.0, 0.1), series=curves(4.0, 1.0, 0.1))
    (project.store / "cells" / run / "log.txt").write_text("first line\n\x1b[31mthe <last> line\x1b[0m\n")
    write(project.report(), root / "site")
    return root / "site"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The site of the committed tables and records."""
    out = tmp_path_factory.mktemp("site")
    report = build.load(build.Sources([build.ROOT / "reports" / "records"]))
    write(report, out)
    return out, report


def test_every_page_is_whole_and_every_link_leads_somewhere(committed: tuple[Path, Report]) -> None:
    out, report = committed
    assert faults(out) == []
    assert {path.stem for path in (out / "tables").glob("*.html")} == set(report.by_id)
    assert {path.stem for path in (out / "runs").glob("*.html")} == {run.key for run in report.runs.values()} | {"index"}


def test_the_checker_sees_what_is_wrong(toy: Path, tmp_path: Path) -> None:
    text = (toy / "index.html").read_text()
    for change, words in {
        "<h1>x</h1></main>": "2 h1 elements",
        '<p id="main"></p></main>': "ids given twice",
        '<a href="tables/none.html">x</a></main>': "leads nowhere",
        '<a href="#none">x</a></main>': "leads to no place",
        '<a href="../outside.html">x</a></main>': "leads nowhere",
        '<img alt="x" src="https://example.org/x.png"></main>': "loads https://example.org",
        "<p><table></table></p></main>": "table in a paragraph",
        "<div></p></div></main>": "closed out of order",
        "<table><tbody></tbody></table></main>": "without a caption",
        '<b onclick="x()"></b></main>': "runs a script of its own",
    }.items():
        (tmp_path / "index.html").write_text(text.replace("</main>", change))
        assert any(words in fault for fault in faults(tmp_path)), words


def test_nothing_is_loaded_from_anywhere_else(toy: Path) -> None:
    for path in [*toy.rglob("*.html"), *toy.rglob("*.css"), *toy.rglob("*.js")]:
        text = path.read_text()
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text), path
        assert {link.removeprefix("../") for link in Page(text).loads} <= {"style.css", "script.js"} or path.suffix != ".html"


def test_the_front_page_leads_from_a_claim_to_its_table_and_from_a_number_to_its_evidence(toy: Path) -> None:
    front = (toy / "index.html").read_text()
    assert "Good is better than bad." in front and 'href="tables/toy.html#toy-smoke-aaaaaaaaaaaa-claims"' in front
    table = (toy / "tables" / "toy.html").read_text()
    (key,) = set(re.findall(r'<a href="../runs/(\w+)\.html">60\.5 ± 6\.4</a>', table))
    page = (toy / "runs" / f"{key}.html").read_text()
    for words in ("seed 0", "seed 1", "Example CPU", "2.14.1", "61", "--mode</span> force", "projector", "../tables/toy.html#"):
        assert words in page
    assert page.count("<polyline") == 2 * 2 + 2  # two seeds in two figures, and the legend


def test_the_log_s_last_lines_are_shown_without_control_characters(toy: Path) -> None:
    text = "".join(path.read_text() for path in (toy / "runs").glob("*.html"))
    assert "first line\nthe &lt;last&gt; line" in text and "\x1b" not in text


def test_runs_on_other_data_share_no_number(toy: Path) -> None:
    text = (toy / "tables" / "toy.html").read_text()
    assert "content aaaaaaaaaaaa" in text and "content bbbbbbbbbbbb" in text
    assert "41.5" in text and "5.5 ± 6.4" in text  # each in its own section


def test_text_of_tables_registry_and_records_cannot_break_a_page(tmp_path: Path) -> None:
    quoted = HOSTILE.replace("'", "''")
    table = TABLE.replace("title: Toys", f"title: '{quoted}'").replace("says: Good is better than bad.", f"says: '{quoted}'")
    sweep = SWEEP.replace("question: Which is better?", f"question: '{quoted}'")
    project = Project(tmp_path, table=table, sweep=sweep)
    cells = [cell_of("toy", row, column, value, paper=HOSTILE, source=HOSTILE) for row, column, value in PUBLISHED]
    write_registry(project.registry, [cell | {"url": "javascript:alert(1)", "arxiv": ""} for cell in cells])
    project.run("good", 0, numbers(60.0), note=HOSTILE, departures=(HOSTILE,))
    report = project.report()
    assert report.problems == ()
    write(report, tmp_path / "site", (f"{HOSTILE}: wrong",))
    assert faults(tmp_path / "site") == []
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text and "javascript:" not in text and 'scope="col">a <' not in text
    front = (tmp_path / "site" / "index.html").read_text()
    assert "a &lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;b&#34; | &#39;c&#39; {{ d }} %: wrong" in front


def test_the_golden_pages(tmp_path: Path) -> None:
    """After a change that is meant: python -m tests.reports.golden_site, and look at the difference."""
    expected = golden_site.EXPECTED
    made = golden_site.pages(tmp_path)
    assert set(made) == {path.relative_to(expected).as_posix() for path in expected.rglob("*.html")}
    for name, text in made.items():
        assert text == (expected / name).read_text(encoding="utf-8"), name


def test_pictures_of_evaluations_are_copied_beside_the_page(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run("good", 0, numbers(60.0, 50.0))
    (record,) = (project.store / "cells" / run / "evaluations").glob("knn-*.json")
    names = ["../../../secret.png", "knn 'a'.png", "gone.png", "page.html"]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"pictures": names}))
    for name in names[1:2] + names[3:]:
        (record.parent / name).write_bytes(b"\x89PNG picture")
    (project.store / "secret.png").write_bytes(b"not of this run")
    write(project.report(), tmp_path / "site")
    assert [path.name for path in (tmp_path / "site" / "runs" / "pictures").iterdir()] == [f"{run}-knn 'a'.png"]
    assert faults(tmp_path / "site") == []


def test_problems_stand_on_top(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.store / "cells" / "byol-000000000000").mkdir(parents=True)
    broken = project.store / "cells" / "byol-000000000000" / "record.json"
    broken.write_text("{")
    write(project.report(), tmp_path / "site", ("bench.json: wrong",))
    text = (tmp_path / "site" / "index.html").read_text()
    assert text.index("What is wrong with the input") < text.index("At a glance")
    assert str(broken) in text and "bench.json: wrong" in text


def test_a_second_build_touches_nothing_and_takes_away_what_nothing_leads_to(tmp_path: Path) -> None:
    project = Project(tmp_path)
    run = project.run("good", 0, numbers(60.0))
    out = tmp_path / "site"
    write(project.report(), out)
    key = next(path for path in (out / "runs").glob("*.html") if path.stem != "index")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.html")}
    (out / "runs" / "mine.html").write_text("<p>not a page of the report</p>")
    write(project.report(), out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (project.store / "cells" / run / "record.json").unlink()
    (out / "against.html").write_text(key.read_text())
    write(project.report(), out)
    assert not key.exists() and not (out / "against.html").exists() and (out / "runs" / "mine.html").exists()


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    project = Project(tmp_path, profile="cpu")
    write(project.report(), tmp_path / "site")
    assert faults(tmp_path / "site") == []
    assert "Nothing has run yet." in (tmp_path / "site" / "runs" / "index.html").read_text()
    table = re.sub(r"<[^>]+>", "", (tmp_path / "site" / "tables" / "toy.html").read_text())
    assert "python -m benchmark.run sweeps/toy.yaml --profile cpu\n" in table


@browser
def test_columns_sort_by_value_and_come_back(toy: Path, tmp_path: Path) -> None:
    order = """
      const table = document.querySelector('table.sortable');
      const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.startsWith('ours'));
      const rows = () => [...table.tBodies[0].rows].map((row) => row.cells[0].firstChild.textContent.trim()).join(',');
      const said = [rows()];
      for (let i = 0; i < 3; i++) {
        head.querySelector('button').click();
        said.push(`${head.getAttribute('aria-sort')}:${rows()}`);
      }
      return said.join(' / ');
    """
    shown = show(toy / "tables" / "toy.html", tmp_path / "profile", script=order)
    assert shown.console == []
    assert said(shown).split(" / ") == [
        "absent,bad,good,Random init",
        "descending:good,bad,absent,Random init",  # rows without a number stay below
        "ascending:bad,good,absent,Random init",
        "null:absent,bad,good,Random init",
    ]


@browser
def test_no_page_says_anything_on_the_console(toy: Path, tmp_path: Path) -> None:
    for name in ("index.html", "tables/toy.html", "runs/index.html", "departures.html", "speed.html"):
        assert show(toy / name, tmp_path / "profile").console == [], name
    assert show(toy / "index.html", tmp_path / "profile", script="nonsense();").console  # what goes wrong would be seen


@browser
def test_a_filter_hides_rows_and_says_how_many_are_left(committed: tuple[Path, Report], tmp_path: Path) -> None:
    script = """
      const input = document.querySelector('.filter input');
      input.value = 'simsiam stop';
      input.dispatchEvent(new Event('input'));
      const left = [...input.closest('section').querySelectorAll('tbody tr')].filter((row) => !row.hidden);
      if (!left.every((row) => /simsiam/i.test(row.textContent))) return 'others are left';
      return `${left.length} left, ${document.querySelector('.filter output').textContent}, ${input.labels.length} label`;
    """
    words = said(show(committed[0] / "index.html", tmp_path / "profile", script=script))
    assert re.fullmatch(r"(\d+) left, \1 of 113, 1 label", words) and not words.startswith(("0 ", "113 "))


@browser
def test_a_command_is_copied_as_it_is_typed(toy: Path, tmp_path: Path) -> None:
    script = """
      const button = document.querySelector('button.copy');
      button.click();
      await new Promise((done) => setTimeout(done, 300));
      const marked = getSelection().toString();  // where a page from a disk may not write to the clipboard
      return `${button.textContent}: ${marked || 'clipboard'} / ${button.previousElementSibling.textContent}`;
    """
    shown = show(toy / "tables" / "toy.html", tmp_path / "profile", "--virtual-time-budget=3000", script=script)
    command = r"python -m benchmark\.run sweeps/toy\.yaml --profile \w+( --only \S+)?"
    assert re.fullmatch(rf"(Copied|Selected): (clipboard|{command}) / {command}", said(shown))


@browser
def test_light_and_dark_follow_the_system_until_one_is_chosen(toy: Path, tmp_path: Path) -> None:
    script = """
      const ink = () => getComputedStyle(document.body).color;
      const button = document.querySelector('button.theme');
      const said = [ink()];
      for (let i = 0; i < 3; i++) { button.click(); said.push(`${ink()}=${localStorage.getItem('theme')}`); }
      return said.join('; ');
    """
    light, dark = "rgb(28, 33, 39)", "rgb(223, 228, 234)"
    for flag, system in (("--hide-scrollbars", light), ("--blink-settings=preferredColorScheme=0", dark)):
        words = said(show(toy / "index.html", tmp_path / "profile", flag, script=script))
        assert words == f"{system}; {light}=light; {dark}=dark; {system}=null"


@browser
@pytest.mark.parametrize(
    "name", ["index.html", "tables/byol_norm_table1.html", "tables/simclr_augmentation.html", "speed.html"]
)
def test_a_phone_scrolls_in_one_direction_only(committed: tuple[Path, Report], tmp_path: Path, name: str) -> None:
    width = framed(committed[0] / name, tmp_path / "profile", 360, "return document.documentElement.scrollWidth")
    assert int(width) <= 360


@browser
def test_without_a_script_everything_is_there(toy: Path, tmp_path: Path) -> None:
    page, forbidden = toy / "tables" / "toy.html", toy / "tables" / "forbidden.html"
    policy = """<head><meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""
    forbidden.write_text(page.read_text().replace("<head>", policy))
    shown = show(forbidden, tmp_path / "profile")
    forbidden.unlink()
    assert len(shown.console) == 1 and "has been blocked" in shown.console[0]
    assert "60.5 ± 6.4" in shown.dom and "<button" not in shown.dom
    assert "<button" in show(page, tmp_path / "profile").dom
