"""`paper.tables` of a sweep: which of its rows fills which row of which published table.

    tables:
      simclr_loss:                          a table of the reference numbers, by its id
        "Margin": "Margin"                  the paper's row, as the reference numbers call it -> a row of this sweep
      simclr_batch_epochs:
        "batch 256": {"100 epochs": "256 x 100", "200 epochs": "256 x 200"}     columns that are trainings of their own
        "batch 512": {absent: "why no row of this sweep answers it"}

Every row of the published table is there: one that is not trained says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.document import Document

ABSENT = "absent"
# table -> the paper's row -> our row, our row of each column, or {"absent": why}
Tables = dict[str, dict[str, Any]]


def read_tables(document: Document, rows: Iterable[str]) -> Tables:
    """The tables that a sweep fills. InputError for a row that the sweep does not have, and a reason that says nothing."""
    names = list(rows)
    found = (document.value.get("paper") or {}).get("tables") or {}
    if not isinstance(found, dict):
        raise InputError(f"{document.at('paper', 'tables')}: expected the ids of tables with their rows")
    for table, lines in found.items():
        if not isinstance(lines, dict) or not lines:
            at = document.at("paper", "tables", table)
            raise InputError(f"{at}: expected the paper's rows, each with the row of this sweep that fills it")
        for published, filled in lines.items():
            _check(document, ("paper", "tables", table, published), filled, names)
    return found


def _check(document: Document, at: tuple[str, ...], filled: Any, names: list[str]) -> None:
    if isinstance(filled, dict) and filled:
        if ABSENT in filled:
            if len(filled) > 1 or not isinstance(filled[ABSENT], str) or not filled[ABSENT].strip():
                raise InputError(f"{document.at(*at, ABSENT)}: expected the reason in words, and nothing beside it")
            return
        for column, name in filled.items():
            if isinstance(name, dict):
                _check(document, (*at, column), name, names)
            else:
                _check_name(document, (*at, column), name, names)
        return
    _check_name(document, at, filled, names)


def _check_name(document: Document, at: tuple[str, ...], name: Any, names: list[str]) -> None:
    if name not in names:
        hint = nearest(str(name), names)
        raise InputError(f"{document.at(*at)}: no row of this name; the rows are {', '.join(names)}{hint}")


def rows_of(lines: dict[str, Any]) -> list[str]:
    """The rows of a sweep that fill a table, each once."""
    found: list[str] = []
    for filled in lines.values():
        if isinstance(filled, str):
            found.append(filled)
        elif ABSENT not in filled:
            found += [name for name in filled.values() if isinstance(name, str)]
    return list(dict.fromkeys(found))
