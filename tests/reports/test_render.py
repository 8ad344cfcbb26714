"""The golden tables byte for byte in every format, and text that must survive each of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from reports import build, captions, readme, render_csv, render_json, render_latex, render_markdown, render_terminal
from reports.aggregate import Estimate
from reports.assemble import Report
from reports.grid import grid
from reports.latex_text import escape, typewriter
from reports.render_latex import _stacked
from reports.table import Table
from tests.reports.toy import CONTENT, GOLDEN, OTHER_CONTENT, rendered, report, write_store

NASTY = (
    r"100% & a_b $x$ #1 {y} ~ ^ \cmd <i>|`'\" ?` !` --- << >> ,, "
    + "".join(map(chr, range(0xA1, 0x250)))
    + "√τ→∈漢🙂\u200b\u0301"
)
EXPECTED = sorted(path.name for path in (GOLDEN / "expected").iterdir())
ENGINES = [name for name in ("pdflatex", "lualatex") if shutil.which(name)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    return folder


@pytest.fixture(scope="module")
def toy(store: Path) -> Report:
    return report(store)


@pytest.fixture(scope="module")
def texts(store: Path) -> dict[str, str]:
    return rendered(store)


@pytest.fixture(scope="module")
def shipped() -> Report:
    return build.load(build.Sources([build.ROOT / "reports" / "records"]))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_golden_tables(texts: dict[str, str], name: str) -> None:
    """After a change that is meant: python -m tests.reports.toy, and look at the difference."""
    assert texts[name] == (GOLDEN / "expected" / name).read_text(encoding="utf-8")


def test_every_table_has_every_format(texts: dict[str, str]) -> None:
    names = {
        f"{table}.{ending}" for table in ("toy_heads", "toy_lengths", "toy_missing") for ending in ["md", "tex", "csv", "json"]
    }
    assert set(texts) == set(EXPECTED) == names


def test_nothing_that_is_no_number_or_no_word_gets_out(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b|(?<![\w.])-0\.0+\b", text), name


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_true_zero_is_a_number_and_a_missing_one_is_empty(texts: dict[str, str]) -> None:
    by = {(line["row"], line["metric"], line["content"]): line for line in lines(texts["toy_heads.csv"])}
    zero = by["zero", "linear.top1", CONTENT]
    assert (zero["mean"], zero["low"], zero["paper"], zero["verdict"]) == ("0", "0", "0", "reproduced")
    lost = by["diverged", "linear.top1", CONTENT]
    assert (lost["mean"], lost["low"], lost["n"], lost["diverged"]) == ("", "", "0", "3")
    assert by["'+1 unknown", "linear.top1", CONTENT]["paper"] == by["not run", "linear.top1", CONTENT]["mean"] == ""
    assert re.search(r"\| zero .* \|     0 \| .* 0\.0 ± 0\.0 \|", texts["toy_heads.md"])
    cells = {row["label"]: row["cells"]["acc."] for row in json.loads(texts["toy_heads.json"])["profiles"][0]["rows"]}
    assert cells["zero"]["paper"]["value"] == cells["zero"]["ours"]["mean"] == 0
    assert cells["diverged"]["ours"] is None and cells["diverged"]["diverged"] == 3
    assert cells["+1 unknown"]["paper"]["value"] is None


def test_no_text_of_the_csv_is_a_formula_and_its_numbers_are_numbers(texts: dict[str, str]) -> None:
    found = lines(texts["toy_heads.csv"])
    assert {"'+1 unknown", "'@elsewhere"} <= {line["row"] for line in found}
    for line in found:
        for key, text in line.items():
            if key in render_csv._NUMBERS:
                assert text == "" or math.isfinite(float(text))
            else:
                assert not text.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_infinity_and_what_is_no_number_are_null_in_json_and_empty_in_csv(toy: Report) -> None:
    table = toy.by_id["toy_heads"][0]
    row = table.rows[0]
    assert row.entries[0] is not None
    broken = replace(row.entries[0], estimate=Estimate((math.nan, 1.0), math.nan, math.inf, -math.inf, math.inf))
    spoilt = replace(table, rows=(replace(row, entries=(broken, *row.entries[1:])), *table.rows[1:]))

    def never(text: str) -> None:
        raise AssertionError(text)

    ours = json.loads(render_json.render([spoilt]), parse_constant=never)["profiles"][0]["rows"][0]["cells"]["acc."]["ours"]
    assert (ours["mean"], ours["low"], ours["high"], ours["std"], ours["values"]) == (None, None, None, None, [None, 1.0])
    (line, *_) = lines(render_csv.render([spoilt]))
    assert line["mean"] == line["low"] == line["high"] == line["std"] == ""


def test_other_data_is_another_table_and_older_records_are_left_out(toy: Report, texts: dict[str, str]) -> None:
    found = toy.by_id["toy_heads"]
    assert [table.data.content for table in found if table.data] == [CONTENT, OTHER_CONTENT]
    means = [entry.estimate.mean for table in found if (entry := table.rows[0].entries[0]) and entry.estimate]
    assert means == [pytest.approx(57.7), 12.0]  # the run of version 0 reached 11
    assert "1 run of byol version 0 (the code is at 1) left out" in texts["toy_heads.md"]
    other = found[0].rows[1].entries[0]
    assert other and other.estimate and other.estimate.n == 3  # the one by another protocol reached 99
    assert "1 run with another linear protocol (version = 0) left out" in texts["toy_heads.md"]


def test_every_row_that_has_not_run_carries_its_command(texts: dict[str, str]) -> None:
    for table, row in (("toy_heads", "later"), ("toy_lengths", "huge")):
        for ending in ("md", "csv", "json", "tex"):
            text = re.sub(r"\{\}", "", texts[f"{table}.{ending}"])
            assert f"--only row={row}" in text, ending


def test_where_nothing_has_run_one_command_fills_the_table(tmp_path: Path) -> None:
    for table in report(tmp_path).tables:
        wanted = [("every row", f"python -m benchmark.run {table.sweep} --profile cifar10")] if table.sweep else []
        assert captions.commands(table) == wanted
        text = render_markdown.render([table])
        assert text.count("python -m") == len(wanted) and "±" not in text.partition("\n|")[0]


def test_several_columns_are_marked_by_their_verdicts_and_the_marks_explained(toy: Report) -> None:
    (table,) = toy.by_id["toy_lengths"]
    found = grid(table)
    assert [heading.group for heading in found.headings if heading.text == "ours"] == [
        *("10 epochs % ↑", "20 epochs % ↑", "gain % ↑", "hours*"),
    ]
    assert found.rows[0] == ("batch 20", "50", "50.2 ± 0.6 =", "60", "60.0 ± 0.6 ?", "10", "9.8 ± 0.3 =", "", "", "2")
    assert found.rows[2] == ("batch 80", "49‡", "-", "57‡", "not run", "", "-", "", "", "0/2")
    assert captions.legend(table)[-1] == "Behind our number: = reproduced, ? undecided, ≠ differs"


def test_margins_are_told_with_their_reasons(toy: Report) -> None:
    (table,) = toy.by_id["toy_lengths"]
    told = " ".join(captions.caption(table))
    assert "within ±1 of the paper's number (10 epochs, gain): chosen for the test." in told
    assert "within ±0.5 of the paper's number (20 epochs): three runs of the paper lie within 0.4." in told
    assert "one family, tested at 95% together (Holm)" in told and "Measured on Example CPU." in told


def test_detectors_that_measure_the_papers_own_three_numbers_are_named_once(shipped: Report) -> None:
    (table,) = shipped.by_id["simsiam_transfer"]
    (told,) = captions.measures(table)
    assert told.startswith("Ours is VOC07 11-point in VOC07 AP50, VOC07 AP, VOC07 AP75; VOC07+12 11-point in VOC07+12 AP50,")


def test_markdown_is_escaped() -> None:
    assert render_markdown.escape("a|b\n*c*_d_ <e> $f$ &lt; &") == r"a\|b \*c\*\_d\_ \<e\> \$f\$ \&lt; &"
    assert render_markdown.code("plain") == "`plain`"
    assert render_markdown.code("a ` b") == "`` a ` b ``"


def test_markdown_tables_have_as_many_cells_in_every_line(texts: dict[str, str]) -> None:
    for name in ("toy_heads.md", "toy_lengths.md", "toy_missing.md"):
        for block in re.findall(r"(?:^\|.*\n)+", texts[name], re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_a_reader_of_markdown_sees_every_cell_as_it_was(toy: Report) -> None:
    reader = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    for table in toy.tables:
        found = ElementTree.fromstring(f"<all>{reader.render(render_markdown.rows_of(table))}</all>")
        cells = [["".join(cell.itertext()) for cell in row.iter("td")] for row in found.iter("tr")]
        assert cells[1:] == [[" ".join(cell.split()) for cell in row] for row in grid(table).rows]
        said = ElementTree.fromstring(f"<all>{reader.render(render_markdown.render_table(table)).replace('&nbsp;', '')}</all>")
        whole = " ".join("".join(said.itertext()).split())
        assert all(" ".join(sentence.split()) in whole for sentence in captions.caption(table))
        assert {tag.tag for tag in said.iter()} <= {
            "all",
            "h2",
            "p",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            *("ul", "li", "em", "code"),
        }


def test_latex_is_escaped() -> None:
    assert escape(r"5% & a_b {c} \d ~ ^ # $") == (
        r"5\% \& a\_b \{c\} \textbackslash{}d \textasciitilde{} \textasciicircum{} \# \$"
    )
    assert escape("57.7 ± 0.4, √d, ‡, τ, 漢, é, ą, --x") == (
        r"57.7 $\pm$ 0.4, $\surd$d, $^{\ddagger}$, $\tau$, ?, \'{e}, a, -{}-x"
    )
    assert typewriter("""--only 'row=a "b"' x/y""") == (
        r"\texttt{-{}-only \char39 row=a \char34 b\char34 \char39  x/\allowbreak y}"
    )
    assert escape(NASTY).isascii()


def compiled(body: str, folder: Path, engine: str = "pdflatex") -> str:
    """The log of a document with the least preamble that the fragments ask for."""
    source = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    (folder / "t.tex").write_text(source, encoding="utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "t.log").read_text(encoding="utf-8", errors="replace").replace("\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_latex_compiles_in_either_engine(texts: dict[str, str], tmp_path: Path, engine: str) -> None:
    tables = "\n".join(text for name, text in texts.items() if name.endswith(".tex"))
    log = compiled(f"{tables}\n\n{escape(NASTY)}\n\n{typewriter(NASTY)}", tmp_path, engine)
    assert "Missing character" not in log


def measured(table: Table) -> Table:
    """As wide as it gets: numbers with intervals in all cells that can have one."""
    value = Estimate((57.7, 57.9, 57.5), 57.7, 0.2, 57.3, 58.1)
    rows = []
    for row in table.rows:
        full = [
            replace(entry, display="57.7 ± 12.4", estimate=value, runs=("x",), wanted=5) if entry and entry.training else entry
            for entry in row.entries
        ]
        rows.append(replace(row, entries=tuple(full)))
    return replace(table, rows=tuple(rows), hardware=("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"))


@pytest.mark.slow
@pytest.mark.skipif("pdflatex" not in ENGINES, reason="needs pdflatex")
@pytest.mark.parametrize("full", [False, True], ids=["as they are", "full"])
def test_every_shipped_table_compiles_and_fits_its_page(shipped: Report, tmp_path: Path, full: bool) -> None:
    tables = [measured(table) if full else table for table in shipped.tables]
    log = compiled("\n".join(render_latex.render_table(table) + r"\clearpage" for table in tables), tmp_path)
    assert "Float too large" not in log
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert all(points < 10 for points in too_wide)


def test_a_wide_table_stands_in_parts_with_every_column_once(shipped: Report) -> None:
    (table,) = shipped.by_id["simsiam_transfer"]
    whole = grid(table)
    parts = _stacked(whole, 1)
    assert len(parts) > 1
    assert [heading for part in parts for heading in part.headings[1:]] == list(whole.headings[1:])
    for part in parts:
        assert part.headings[0] == whole.headings[0] and len(part.rows) == len(whole.rows)
        groups = [heading.group for heading in part.headings if heading.group]
        assert groups and all(groups.count(group) == 2 for group in groups)


def printed(tables: list[Table], width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for table in tables:
        render_terminal.print_table(table, console)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_every_number_within_its_width(toy: Report, shipped: Report, width: int) -> None:
    tables = [*toy.tables, *shipped.by_id["simsiam_transfer"], *shipped.by_id["simclr_augmentation"]]
    for table in tables:
        text = printed([table], width)
        assert all(len(line) <= width or "benchmark.run" in line for line in text.splitlines())
        for row in table.rows:
            for column, entry in table.pairs(row):
                if entry and column.kind == "published":
                    assert entry.paper in text
                    assert entry.estimate is None or entry.display.replace(" ± ", "±") in text


def test_the_terminal_explains_a_verdict_where_there_is_room(toy: Report) -> None:
    table = toy.by_id["toy_heads"][0]
    assert "the whole 95% interval" in " ".join(printed([table], 200).split())
    assert "why" not in printed([table], 80).splitlines()[3]


def test_a_text_with_markers_gets_tables_and_their_coverage(toy: Report, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    marks = [f"<!-- report:begin {name} -->\nold\n<!-- report:end {name} -->" for name in ("toy_lengths/cifar10", "coverage")]
    path.write_text("before\n\n" + "\n\n".join(marks) + "\n\nafter\n", encoding="utf-8")
    assert readme.rewrite(path, toy) and not readme.rewrite(path, toy)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n\n<!-- report:begin toy_lengths/cifar10 -->\n\n**Batch and length")
    assert "old" not in text and "50.2 ± 0.6 =" in text and text.endswith("-->\n\nafter\n")
    assert "| Example" in text.partition("report:begin coverage")[2]
