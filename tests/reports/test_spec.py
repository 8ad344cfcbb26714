"""Table files: mistakes are named with line, key and remedy; what they leave out comes from the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.reference import read_references
from reports.spec import TableSpec, read_table, read_tables
from tests.reports.project import TABLE, Project, cell_of, write_registry

LINES = [
    cell_of("toy", "good [BN=yes; LN=no]", "acc.", "60"),
    cell_of("toy", "good [BN=no; LN=yes]", "acc.", "55"),
    cell_of("toy", "bad (none)", "acc.", "50"),
    cell_of("toy", "bad (none)", "kNN", "40"),
    cell_of("toy", "bad (none)", "gain", "10"),
]
WIDE = TABLE.replace(
    'columns: {"acc.": {metric: linear.top1}}',
    'columns: {"acc.": {metric: linear_byol.top1}, kNN: {metric: knn_dino.top1}, gain: {derive: {minus: ["acc.", kNN]}}}',
).replace("above: good, below: bad", "above: 'good [BN=yes; LN=no]', below: {row: bad (none), column: acc.}")


def read(tmp_path: Path, text: str = WIDE) -> TableSpec:
    path = tmp_path / "toy.yaml"
    path.write_text(text.replace("PROFILE", "null"), encoding="utf-8")
    write_registry(tmp_path / "reference" / "toy.csv", LINES)
    return read_table(path, read_references(tmp_path / "reference"))


def test_rows_and_settings_are_the_registrys(tmp_path: Path) -> None:
    spec = read(tmp_path)
    assert spec.settings == ("BN", "LN")
    assert [(row.id, row.name, row.label, row.settings) for row in spec.rows] == [
        ("good [BN=yes; LN=no]", "good [yes / no]", "good", ("yes", "no")),
        ("good [BN=no; LN=yes]", "good [no / yes]", "good", ("no", "yes")),
        ("bad (none)", "bad (none)", "bad (none)", ("", "")),
    ]
    assert (spec.paper, spec.year, spec.arxiv, spec.source) == ("Example", "2020", "2001.00001", "Table 1")
    assert [value.value for value in spec.rows[2].references.values()] == [50, 40, 10]


def test_a_small_scale_has_a_stand_in_for_a_papers_own_probe(tmp_path: Path) -> None:
    first, second, third = read(tmp_path).columns
    assert [each.id for each in first.measures()] == ["linear_byol.top1", "linear.top1"]
    assert [each.id for each in second.measures()] == ["knn_dino.top1", "knn.top1"]
    assert third.derive is not None and third.derive.columns == ("acc.", "kNN") and not third.measures()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("table: toy", "table: tot", "toy.yaml:2: table: is 'tot', but the file is named toy.yaml"),
        ("margin: {points: 1.0", "margin: {points: 0", "expected a number above 0, found 0"),
        ("metric: linear_byol.top1", "metric: linear_byol.top2", "unknown metric 'linear_byol.top2'; a metric is"),
        ("kNN: {metric: knn_dino.top1}", "KNN: {metric: knn_dino.top1}", "has no column 'KNN'; it has acc., kNN, gain"),
        ("kNN: {metric: knn_dino.top1}, ", "", "nothing says how column 'kNN' is measured"),
        ("metric: knn_dino.top1", "label: nearest", "expected exactly one of metric:, derive: and missing:"),
        ('minus: ["acc.", kNN]', 'minus: ["acc.", kNM]', "no column 'kNM'; did you mean 'kNN'"),
        ('minus: ["acc.", kNN]', 'minus: ["acc."]', "expected minus: [column, column]"),
        ("sweep: sweeps/toy.yaml", "sweep: null", "needs 'missing: <why nothing here can fill it>'"),
        ("profile: PROFILE", "profil: cpu", "protocol > profil: unknown key; allowed here: about, profile, config"),
        ("figures: [numbers]", "figures: [number]", "unknown 'number'; allowed: numbers, curves"),
        ("title:", "titel:", "unknown key"),
        ("kind: order", "kind: odrer", "unknown kind 'odrer'; allowed: collapse, not_collapsed, order"),
        ("above:", "abov:", "claims > order > abov: unknown key; allowed here: kind, says, above, below, metric"),
        ("says: Good", "said: Good", "unknown key"),
        ("column: acc.}", "column: acd.}", "no column 'acd.'; the columns are acc., kNN, gain; did you mean 'acc.'"),
        ("{row: bad (none), column: acc.}", "[a, b]", "expected one cell, found ['a', 'b']"),
        ("kind: order, above", "kind: ordering, above", "unknown key; allowed here: kind, says, cells"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in WIDE
    with pytest.raises(InputError, match=r"toy\.yaml:\d+") as error:
        read(tmp_path, WIDE.replace(old, new, 1))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("{kind: trend, cells: [a, b], direction: rises, says: x}", "expected a list of cells"),
        ("{kind: trend, cells: [a, b, c], direction: up, says: x}", "expected rises or falls, found 'up'"),
        ("{kind: within, cells: [a, b], says: x}", "the key 'margin' is missing"),
        ("{kind: gap, above: a, below: b, margin: wide, says: x}", "expected a number, found 'wide'"),
        ("{kind: interaction, first: [a, b], second: [c], says: x}", "expected a list of cells"),
        ("{kind: collapse, cell: {rwo: a}, says: x}", "a cell is a row's name or {row: ..., column: ...}"),
    ],
)
def test_a_claim_that_says_too_little_is_named(tmp_path: Path, claim: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, WIDE.replace("figures:", f"  second: {claim}\nfigures:"))
    assert words in str(error.value) and "claims > second" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("rows: {bad: {note: x}}", "the registry's table has no row 'bad'"),
        ("rows: {bad (none): {nota: x}}", "unknown key; allowed here: label, settings, note, differs, row, select"),
        ("rows: {bad (none): {settings: [a]}}", "expected a list of 2, one for each of the table's settings"),
        ("rows: {bad (none): {row: bad, select: {method: byol}}}", "give row: or select:, not both"),
        ("interval: boot", "interval: expected t or bootstrap, found 'boot'"),
        ("own: boundz", "expected 'bounds', 'all', or names"),
        ("collapse: {collapsed_below: 0.7}", "expected collapsed_below < spread_above"),
    ],
)
def test_words_about_rows_must_fit(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, WIDE.replace("figures:", f"{rows}\nfigures:"))
    assert words in str(error.value)


def test_one_bad_file_can_be_left_out(tmp_path: Path) -> None:
    project = Project(tmp_path)
    broken = project.table.with_name("broken.yaml")
    broken.write_text("table: broken\n")
    references = read_references(project.registry.parent)
    with pytest.raises(InputError, match="the key 'title' is missing"):
        read_tables(project.table.parent, references)
    problems: list[str] = []
    assert [spec.id for spec in read_tables(project.table.parent, references, (), problems)] == ["toy"]
    assert len(problems) == 1 and "broken.yaml" in problems[0]
    with pytest.raises(InputError, match=r"no table 'tyo' in .*; did you mean 'toy'"):
        read_tables(project.table.parent, references, ["tyo"])
