"""The papers' numbers: what ships is complete and sound, and what is not sound is refused with file and line."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.build import ROOT
from reports.reference import COLUMNS, read_references

SHIPPED = ROOT / "reports" / "reference"
GOOD = (
    *("t", "r", "c", "Paper", "2010.10241", "", "2020", "Table 1", "linear", "probe", "ImageNet", "net", "300", "4096"),
    *("72.1", "%", "secondary", "", ""),
)


def write(folder: Path, *rows: dict[str, str], name: str = "x.csv") -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(dict(zip(COLUMNS, GOOD, strict=True)) | row for row in rows)
    return folder


def test_every_published_cell_ships() -> None:
    found = read_references(SHIPPED)
    cells = [cell for table in found.values() for cell in table.values()]
    assert (len(found), len(cells)) == (113, 1224)
    counts = {"paper-text": 970, "secondary": 103, "memory": 143, "unverified": 8}
    assert Counter(cell.status for cell in cells) == counts
    assert all(cell.source and cell.unit and (cell.arxiv or cell.url) for cell in cells if cell.value is not None)


@pytest.mark.parametrize(
    ("table", "row", "column", "printed"),
    [
        ("simsiam_stopgrad", "w/ stop-grad", "acc.", "67.7"),
        ("byol_bn_blog", "Prediction BN Only [proj MLP norm=None; pred MLP norm=BN]", "Performance", "48"),
        ("mocov2_table3", "end-to-end (batch 4096)", "memory/GPU", "93.0"),
        ("simclr_batch_epochs", "batch 8192", "100 epochs", "64.8"),
    ],
)
def test_numbers_are_kept_as_printed(table: str, row: str, column: str, printed: str) -> None:
    cell = read_references(SHIPPED)[table][row, column]
    assert (cell.printed, cell.value, cell.gates) == (printed, float(printed), True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": ""}, "has no source"),
        ({"unit": ""}, "has no unit"),
        ({"arxiv": ""}, "neither arxiv nor url"),
        ({"arxiv": "2010"}, "expected a number such as"),
        ({"value": "about 72"}, "expected a number"),
        ({"value": "nan"}, "expected a number"),
        ({"status": "sure"}, "unknown status 'sure'"),
        ({"row": ""}, "the column 'row' is empty"),
    ],
)
def test_an_unsound_row_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=r"x\.csv:2: ") as error:
        read_references(write(tmp_path, changes))
    assert words in str(error.value)


def test_a_cell_is_given_once_and_a_table_is_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.csv:3: .*given twice"):
        read_references(write(tmp_path, {}, {}))
    write(tmp_path, {})
    with pytest.raises(InputError, match=r"y\.csv:2: .*also in x\.csv"):
        read_references(write(tmp_path, {"row": "other"}, name="y.csv"))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("table,row\nt,r\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.csv:1: expected exactly the columns"):
        read_references(tmp_path)


def test_a_comma_without_quotes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {}) / "x.csv"
    path.write_text(path.read_text(encoding="utf-8").rstrip() + ",more\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.csv:2: .*needs quotes"):
        read_references(tmp_path)
