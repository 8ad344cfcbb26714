"""Table files: what ships can be read, and mistakes are named with line, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.build import ROOT
from reports.reference import read_references
from reports.spec import read_table, read_tables
from tests.reports.toy import GOLDEN

REFERENCES = read_references(GOLDEN / "reference")
TOY = (GOLDEN / "tables" / "toy.yaml").read_text(encoding="utf-8")


def test_every_shipped_table_can_be_read_and_tests_something() -> None:
    specs = read_tables(ROOT / "reports" / "tables", read_references(ROOT / "reports" / "reference"))
    assert {spec.id for spec in specs} >= {"byol_bn_blog", "byol_norm_table1", "byol_gnws_headline"}
    for spec in specs:
        assert spec.claims and spec.primary.higher_is_better and len({row.name for row in spec.rows.values()}) == len(spec.rows)


def test_a_repeated_label_is_told_apart_by_its_settings() -> None:
    rows = read_table(GOLDEN / "tables" / "toy.yaml", REFERENCES).rows
    assert (rows["near"].name, rows["single"].name, rows["zero"].name) == ("undecided [LN]", "undecided [GN]", "zero")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("table: toy", "table: tot", "toy.yaml:1: table: is 'tot', but the file is named toy.yaml"),
        ("baseline: random", "baseline: randon", "no row 'randon'"),
        ("margin: {points: 1.0", "margin: {points: 0", "expected a number above 0, found 0"),
        ("columns: [linear.top1", "columns: [linear.top2", "unknown metric 'linear.top2'"),
        ("reference: same,", "reference: sane,", "no reference row 'sane'"),
        ("sweep: null, missing", "sweep: null, note", "needs 'missing: <why nothing can measure it>'"),
        ("settings: [BN], reference: same", "settings: [BN, LN], reference: same", "expected a list of 1"),
        ("kind: not_collapsed", "kind: not_collapse", "did you mean 'not_collapsed'"),
        ("above: same, below: other, says", "above: sane, below: other, says", "no row 'sane'"),
        ("above: same, below: other, margin", "above: unknown, below: other, margin", "numbers are established"),
        ("says: Same does", "say: Same does", "unknown key; allowed here"),
        ("title:", "titel:", "unknown key"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "toy.yaml"
    assert old in TOY
    path.write_text(TOY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"toy\.yaml:\d+") as error:
        read_table(path, REFERENCES)
    assert words in str(error.value)


def test_the_collapse_edges_can_be_set_and_must_make_sense(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY + "collapse: {collapsed_below: 0.1, spread_above: 0.6}\n", encoding="utf-8")
    assert read_table(path, REFERENCES).thresholds.spread_above == 0.6
    path.write_text(TOY + "collapse: {collapsed_below: 0.7}\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected collapsed_below < spread_above"):
        read_table(path, REFERENCES)


def test_an_unknown_table_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no table 'tyo' in .*it has toy; did you mean 'toy'"):
        read_tables(GOLDEN / "tables", REFERENCES, ["tyo"])


def test_the_papers_own_measure_comes_first_at_its_own_protocol_only():
    root = Path(__file__).resolve().parents[2] / "reports"
    blog = next(s for s in read_tables(root / "tables", read_references(root / "reference")) if s.id == "byol_bn_blog")
    assert blog.at("imagenet").primary.id == "blog_logistic.top1"
    assert blog.at("smoke").primary.id == "linear.top1"
