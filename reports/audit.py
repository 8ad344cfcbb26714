"""The documents' audit: what the user's source documents state about the papers, beside what the papers say.

reports/reference/audit.csv holds the findings that need words. Every cell of the registry with a `document` value is a
finding too; whether such a pair of numbers agrees is computed here and written nowhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmark.errors import InputError, nearest
from reports.reference import Reference, References

Agrees = Literal["yes", "no", "partly", "unresolved"]
AGREES: tuple[str, ...] = get_args(Agrees)
KINDS = ("number", "setting", "statement")
COLUMNS = (
    *("id", "document", "kind", "topic", "says", "paper_says", "source", "agrees"),
    *("table", "row", "column", "note"),
)
_ALWAYS = ("id", "document", "kind", "topic", "says", "agrees")
_STATED = re.compile(r"(~?)(\d+(?:\.(\d+))?)(\+?)")


@dataclass(frozen=True)
class Finding:
    """One statement of a document. table, row, column: the registry's cell it is about, '' where there is none."""

    id: str
    document: str
    kind: str
    topic: str
    says: str
    paper_says: str
    source: str
    agrees: str
    table: str
    row: str
    column: str
    note: str


def read_audit(folder: Path, references: References) -> tuple[Finding, ...]:
    """The findings of audit.csv, where there is one, then those computed from the registry. Raises InputError naming file and
    line."""
    path = folder / "audit.csv"
    if not path.exists():
        return tuple(_of_registry(references))
    found: dict[str, Finding] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}:1: expected exactly the columns {','.join(COLUMNS)}")
            for raw in reader:
                where = f"{path}:{reader.line_num}"
                if None in raw or None in raw.values():
                    raise InputError(f"{where}: expected {len(COLUMNS)} columns; a text with a comma needs quotes")
                finding = Finding(**{key: value.strip() for key, value in raw.items()})
                _check(finding, references, where)
                if finding.id in found:
                    raise InputError(f"{where}: the id '{finding.id}' is given twice; each finding has its own")
                found[finding.id] = finding
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file ({error})") from None
    return (*found.values(), *_of_registry(references))


def _check(finding: Finding, references: References, where: str) -> None:
    for key in _ALWAYS:
        if not getattr(finding, key):
            raise InputError(f"{where}: the column '{key}' is empty")
    for key, allowed in (("agrees", AGREES), ("kind", KINDS)):
        word = getattr(finding, key)
        if word not in allowed:
            raise InputError(f"{where}: unknown {key} '{word}'; allowed: {', '.join(allowed)}{nearest(word, allowed)}")
    if finding.agrees in ("no", "partly") and not finding.source:
        raise InputError(f"{where}: '{finding.id}' disagrees without a source; say where the paper states it")
    if not finding.table:
        return
    cell = references.get(finding.table, {}).get((finding.row, finding.column))
    if cell is None:
        raise InputError(
            f"{where}: row '{finding.row}', column '{finding.column}' of table '{finding.table}' is not in the registry"
        )
    if finding.paper_says != cell.printed:
        raise InputError(f"{where}: paper_says is '{finding.paper_says}', but the registry has '{cell.printed}' in that cell")


def agreement(stated: str, reference: Reference) -> str:
    """Whether a stated number is the published one. '~63' agrees with what rounds to 63, '40+' with 40 or more.

    A cell that nobody has seen in the paper, and a statement that is not a number, leave it unresolved.
    """
    parts = _STATED.fullmatch(stated)
    if parts is None or reference.value is None or not reference.gates:
        return "unresolved"
    about, number, decimals, more = parts.groups()
    if more:
        return "yes" if reference.value >= float(number) else "no"
    published = round(reference.value, len(decimals or "")) if about else reference.value
    return "yes" if published == float(number) else "no"


def _of_registry(references: References) -> Iterable[Finding]:
    cells = [cell for table in references.values() for cell in table.values() if cell.document]
    for number, cell in enumerate(cells, 1):
        topic, unit = f"{cell.row}, {cell.column}", f" {cell.unit}" if cell.unit not in ("", "1") else ""
        says = cell.document + (unit if _STATED.fullmatch(cell.document) else "")
        paper_says = cell.printed + unit if cell.printed else ""
        place = (cell.table, cell.row, cell.column)
        agrees = agreement(cell.document, cell)
        yield Finding(
            f"cell-{number}", "Source documents", "number", topic, says, paper_says, cell.cited, agrees, *place, cell.note
        )


def markdown(findings: Iterable[Finding]) -> str:
    """The page: disagreements first, then what nobody could settle, then what was confirmed."""
    rows = sorted(findings, key=lambda finding: ("no", "partly", "unresolved", "yes").index(finding.agrees))
    lines = ["# What the documents say and what the papers say", ""]
    lines += ["| agrees | document | topic | says | the paper | source | note |", "| --- " * 7 + "|"]
    for one in rows:
        cells = (one.agrees, one.document, one.topic, one.says, one.paper_says, one.source, one.note)
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |")
    return "\n".join(lines) + "\n"
