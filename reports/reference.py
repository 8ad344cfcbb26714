"""The registry: the papers' numbers, each with its source, how it was measured, and how far it has been checked.

reports/reference/<paper>.csv has one line per published cell. An empty `value` means "not established": the paper prints no
number there, or nobody has seen the cell yet. `document` is what the user's source documents say about the same cell, as text,
where they say anything. Names of rows look like `label [setting=value; ...]`; where a paper prints two rows under one name,
what tells them apart stands behind it in parentheses.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmark.errors import InputError, nearest

Status = Literal["paper-text", "secondary", "memory", "unverified"]
STATUSES: tuple[str, ...] = get_args(Status)
COLUMNS = (
    *("table", "row", "column", "paper", "arxiv", "url", "year", "source", "metric", "protocol", "dataset", "encoder"),
    *("epochs", "batch", "value", "unit", "status", "document", "note"),
)
MEANING = {
    "paper-text": "seen in the paper's own text or its authors' code",
    "secondary": "seen only in another public text that quotes the paper",
    "memory": "recalled, not seen; gates nothing",
    "unverified": "not seen in any reliable text; gates nothing",
}
_ALWAYS = ("table", "row", "column", "paper", "metric", "protocol", "status")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")


@dataclass(frozen=True)
class Reference:
    """One published cell. `printed` is the number as the paper prints it (48, not 48.0), `value` that as a float.

    source: the table or figure. protocol: how it was measured, with the name of ours that is meant to repeat it.
    """

    table: str
    row: str
    column: str
    paper: str
    arxiv: str
    url: str
    year: str
    source: str
    metric: str
    protocol: str
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
        """Whether a verdict may rest on this cell: somebody has seen what the paper says there."""
        return self.status in ("paper-text", "secondary")

    @property
    def cited(self) -> str:
        return f"{self.paper} {self.year}, {self.source}" + (f" (arXiv {self.arxiv})" if self.arxiv else "")


References = dict[str, dict[tuple[str, str], Reference]]  # table -> (row, column) -> cell, in the paper's order


def read_references(folder: Path, problems: list[str] | None = None) -> References:
    """Every cell of every CSV in the folder but the audit's. Raises InputError naming file, line and column; with a list for
    `problems` a wrong line is named there and left out."""
    found: References = {}
    homes: dict[str, Path] = {}
    for path in sorted(folder.glob("*.csv")):
        if path.name == "audit.csv":  # reports.audit reads it
            continue
        with named(problems):
            for line, raw in _lines(path):
                with named(problems):
                    _add(found, homes, _checked(raw, f"{path}:{line}"), path, line)
    return found


@contextlib.contextmanager
def named(problems: list[str] | None) -> Iterator[None]:
    """Bad input inside is added to `problems`, or raised where there is no such list."""
    try:
        yield
    except InputError as error:
        if problems is None:
            raise
        problems.append(str(error))


def _add(found: References, homes: dict[str, Path], reference: Reference, path: Path, line: int) -> None:
    cells = found.setdefault(reference.table, {})
    if homes.setdefault(reference.table, path) != path:
        raise InputError(f"{path}:{line}: table '{reference.table}' is also in {homes[reference.table].name}; keep one")
    if (reference.row, reference.column) in cells:
        raise InputError(
            f"{path}:{line}: row '{reference.row}', column '{reference.column}' of table '{reference.table}' is given "
            "twice; keep one, or say behind the row's name what tells them apart"
        )
    cells[reference.row, reference.column] = reference


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}:1: expected exactly the columns {','.join(COLUMNS)}")
            for raw in reader:
                yield reader.line_num, raw
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file ({error})") from None


def _checked(raw: dict[str, str], where: str) -> Reference:
    if None in raw or None in raw.values():
        raise InputError(f"{where}: expected {len(COLUMNS)} columns; a text with a comma needs quotes")
    texts = {key: value.strip() for key, value in raw.items()}
    for key in _ALWAYS:
        if not texts[key]:
            raise InputError(f"{where}: the column '{key}' is empty")
    if texts["status"] not in STATUSES:
        hint = nearest(texts["status"], STATUSES)
        raise InputError(f"{where}: unknown status '{texts['status']}'; allowed: {', '.join(STATUSES)}{hint}")
    if texts["arxiv"] and not _ARXIV.fullmatch(texts["arxiv"]):
        raise InputError(f"{where}: the column 'arxiv' holds '{texts['arxiv']}'; expected a number such as 2003.04297")
    value = None
    if texts["value"]:
        for key in ("source", "unit"):
            if not texts[key]:
                raise InputError(
                    f"{where}: the number {texts['value']} has no {key}; a number without a {key} is not a reference"
                )
        if not texts["arxiv"] and not texts["url"]:
            raise InputError(f"{where}: the number {texts['value']} has neither arxiv nor url; say where it was published")
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
