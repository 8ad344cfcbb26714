"""The papers' numbers, each with its source and how far it has been checked.

One CSV row per published cell. An empty `value` means "not established": the paper prints no number there, or nobody
has seen the cell yet. `document` is what the user's source documents say about the same cell, as text, where they say
anything.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmark.errors import InputError, nearest

Status = Literal["paper-text", "secondary", "memory", "unverified"]
STATUSES: tuple[str, ...] = get_args(Status)
COLUMNS = (
    *("table", "row", "paper", "arxiv", "year", "source", "label", "metric", "dataset", "encoder", "epochs", "batch"),
    *("value", "unit", "status", "document", "note"),
)
MEANING = {
    "paper-text": "seen in the paper's own text or its authors' code",
    "secondary": "seen only in another public text that quotes the paper",
    "memory": "recalled, not seen; gates nothing",
    "unverified": "not seen in any reliable text; gates nothing",
}


@dataclass(frozen=True)
class Reference:
    """One published cell. `printed` is the number as the paper prints it (48, not 48.0), `value` that as a float."""

    table: str
    row: str
    paper: str
    arxiv: str
    year: str
    source: str
    label: str
    metric: str
    dataset: str
    encoder: str
    epochs: str
    batch: str
    printed: str
    value: float | None
    unit: str
    status: str
    document: str
    note: str

    @property
    def gates(self) -> bool:
        """Whether a verdict may rest on this row: somebody has seen what the paper says there."""
        return self.status in ("paper-text", "secondary")

    @property
    def cited(self) -> str:
        return f"{self.paper} {self.year}, {self.source}" + (f" (arXiv {self.arxiv})" if self.arxiv else "")


References = dict[tuple[str, str], Reference]


def read_references(folder: Path) -> References:
    """Every row of every CSV in the folder, by (table, row). Raises InputError naming file, line and column."""
    found: References = {}
    for path in sorted(folder.glob("*.csv")):
        for line, reference in _rows(path):
            key = (reference.table, reference.row)
            if key in found:
                raise InputError(f"{path}:{line}: row '{reference.row}' of table '{reference.table}' is given twice; keep one")
            found[key] = reference
    return found


def reference_of(references: References, table: str, row: str, where: str) -> Reference:
    """The published cell that a table refers to. Raises InputError when no CSV has it."""
    try:
        return references[table, row]
    except KeyError:
        rows = [name for of, name in references if of == table]
        known = f"known: {', '.join(rows)}{nearest(row, rows)}" if rows else f"no row of table '{table}' is known"
        raise InputError(f"{where}: no reference row '{row}' in reports/reference/*.csv; {known}") from None


def _rows(path: Path) -> Iterable[tuple[int, Reference]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}:1: expected exactly the columns {','.join(COLUMNS)}")
            for raw in reader:
                yield reader.line_num, _checked(raw, f"{path}:{reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file ({error})") from None


def _checked(raw: dict[str, str], where: str) -> Reference:
    if None in raw or None in raw.values():
        raise InputError(f"{where}: expected {len(COLUMNS)} columns; a text with a comma needs quotes")
    texts = {key: value.strip() for key, value in raw.items()}
    for key in ("table", "row", "paper", "label", "metric", "status"):
        if not texts[key]:
            raise InputError(f"{where}: the column '{key}' is empty")
    if texts["status"] not in STATUSES:
        hint = nearest(texts["status"], STATUSES)
        raise InputError(f"{where}: unknown status '{texts['status']}'; allowed: {', '.join(STATUSES)}{hint}")
    value = None
    if texts["value"]:
        for key in ("source", "unit"):
            if not texts[key]:
                raise InputError(
                    f"{where}: the number {texts['value']} has no {key}; a number without a {key} is not a reference"
                )
        value = _number(texts["value"], where)
    printed = texts.pop("value")
    return Reference(**texts, printed=printed, value=value)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{where}: the column 'value' holds '{text}'; expected a number, or nothing when it is not established"
        )
    return value
