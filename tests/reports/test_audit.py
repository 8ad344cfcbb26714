"""The documents' audit: numbers are compared here, and a finding without ground is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.errors import InputError
from reports.audit import COLUMNS, agreement, markdown, read_audit
from reports.build import ROOT
from reports.reference import read_references

SHIPPED = ROOT / "reports" / "reference"
CELLS = read_references(SHIPPED)
STOPGRAD = CELLS["simsiam_stopgrad"]["w/ stop-grad", "acc."]
GOOD = dict(zip(COLUMNS, ("a", "Note", "number", "x", "1", "2", "Table 1", "no", "", "", "", ""), strict=True))
PLACE = {"table": "simsiam_stopgrad", "row": "w/ stop-grad", "column": "acc."}


def write(folder: Path, *rows: dict[str, str]) -> Path:
    with (folder / "audit.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(GOOD | row for row in rows)
    return folder


def test_every_documents_value_of_the_registry_is_a_finding() -> None:
    found = read_audit(SHIPPED, CELLS)
    placed = {(one.table, one.row, one.column) for one in found if one.id.startswith("cell-")}
    assert placed == {(c.table, c.row, c.column) for t in CELLS.values() for c in t.values() if c.document}
    assert len(placed) == 103
    assert len({one.id for one in found}) == len(found)
    assert all(one.topic in markdown(found) for one in found)


@pytest.mark.parametrize(
    ("stated", "published", "agrees"),
    [
        ("48", 48.0, "yes"),
        ("~63", 63.4, "yes"),
        ("~70", 65.0, "no"),
        ("40+", 48.7, "yes"),
        ("70+", 63.8, "no"),
        ("67.3", 67.4, "no"),
        ("fails", 0.1, "unresolved"),
        ("1", None, "unresolved"),
    ],
)
def test_agreement_by_numbers(stated: str, published: float | None, agrees: str) -> None:
    assert agreement(stated, replace(STOPGRAD, value=published)) == agrees


def test_a_recalled_number_settles_nothing() -> None:
    assert agreement("67.7", replace(STOPGRAD, status="memory")) == "unresolved"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agrees": "maybe"}, "unknown agrees 'maybe'"),
        ({"kind": "word"}, "unknown kind 'word'"),
        ({"source": ""}, "disagrees without a source"),
        ({"says": ""}, "the column 'says' is empty"),
        (PLACE | {"row": "none"}, "is not in the registry"),
        (PLACE | {"paper_says": "67.8"}, "the registry has '67.7'"),
    ],
)
def test_an_unsound_finding_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=r"audit\.csv:2: ") as error:
        read_audit(write(tmp_path, changes), CELLS)
    assert words in str(error.value)


def test_an_id_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"audit\.csv:3: .*given twice"):
        read_audit(write(tmp_path, {}, {}), CELLS)


def test_a_project_without_an_audit_has_what_its_registry_tells(tmp_path: Path) -> None:
    assert read_audit(tmp_path, read_references(tmp_path)) == ()
