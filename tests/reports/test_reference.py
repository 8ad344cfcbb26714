"""The papers' numbers: what ships is sound, and what is not sound is refused with file, line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.build import ROOT
from reports.reference import COLUMNS, read_references, reference_of

SHIPPED = ROOT / "reports" / "reference"
GOOD = (
    *("t", "r", "Paper", "2010.10241", "2020", "Table 1", "row", "linear", "ImageNet", "net", "300", "4096"),
    *("72.1", "%", "secondary", "", ""),
)


def write(folder: Path, **changes: str) -> Path:
    row = dict(zip(COLUMNS, GOOD, strict=True)) | changes
    (folder / "x.csv").write_text(",".join(COLUMNS) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    return folder


def test_the_shipped_numbers_of_the_ablation() -> None:
    found = read_references(SHIPPED)
    blog = {row: reference.value for (table, row), reference in found.items() if table == "byol_bn_blog"}
    assert blog == {
        "contrastive": 44.1,
        "bn_bn": 57.7,
        "projection_bn": 55.3,
        "prediction_bn": 48.0,
        "none": 28.3,
        "layer_norm": 29.4,
        "random": 28.8,
    }
    assert found["byol_gnws_headline", "gn_ws"].value == 73.9
    assert found["byol_norm_table1", "encoder_bn"].status == "secondary"
    assert all(reference.source for reference in found.values() if reference.value is not None)


def test_an_empty_value_is_not_a_number_and_gates_nothing() -> None:
    found = read_references(SHIPPED)["byol_norm_table1", "vanilla"]
    assert (found.value, found.printed, found.gates) == (None, "", False)


def test_the_number_is_kept_as_the_paper_prints_it() -> None:
    found = read_references(SHIPPED)["byol_bn_blog", "prediction_bn"]
    assert (found.printed, found.value, found.document) == ("48", 48.0, "~48")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": ""}, "has no source"),
        ({"unit": ""}, "has no unit"),
        ({"value": "about 72"}, "expected a number"),
        ({"value": "nan"}, "expected a number"),
        ({"status": "sure"}, "unknown status 'sure'"),
        ({"label": ""}, "the column 'label' is empty"),
        ({"note": "one, two"}, "a text with a comma needs quotes"),
    ],
)
def test_an_unsound_row_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=r"x\.csv:2: ") as error:
        read_references(write(tmp_path, **changes))
    assert words in str(error.value)


def test_a_row_twice_and_a_wrong_header_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "x.csv"
    path.write_text(path.read_text() + ",".join(GOOD) + "\n")
    with pytest.raises(InputError, match="is given twice"):
        read_references(tmp_path)
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="expected exactly the columns"):
        read_references(tmp_path)


def test_a_missing_row_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no reference row 'bn_bm'.*did you mean 'bn_bn'"):
        reference_of(read_references(SHIPPED), "byol_bn_blog", "bn_bm", "t.yaml:3")
