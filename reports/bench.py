"""The bench's table for the README and the page: our loaders beside what people use, from the newest committed record.

A record is what `python -m benchmark.bench --json reports/records/bench/NAME.json` writes. Everything is said there; this only
chooses what to show: every line that has a goal, and what belongs beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from reports.render_markdown import escape, grid

HEADER = ("what", "ours", "beside", "its number", "ratio", "goal", "")
NUMERIC = (False, True, False, True, True, False, False)
MISSING = "Not measured yet: `make bench` measures, and `--json reports/records/bench/NAME.json` keeps the record."
_SCHEMA = 1
_KINDS: dict[str, type | tuple[type, ...]] = {
    "bench": str,
    "subject": str,
    "unit": str,
    "median": (int, float),
    "low": (int, float),
    "high": (int, float),
}


@dataclass(frozen=True)
class Bench:
    """rows: texts under HEADER. notes: sentences on how it was measured."""

    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def newest(folder: Path) -> Bench | None:
    """The record of the latest date in the folder, None where there is none; InputError names one that cannot be read."""
    records = [_read(path) for path in sorted(folder.glob("*.json"))]
    return _shown(max(records, key=lambda record: str(record["date"]))) if records else None


def markdown(bench: Bench | None) -> str:
    """For running text: the table, then how it was measured."""
    if bench is None:
        return MISSING
    table = grid([escape(name) for name in HEADER], [[escape(text) for text in row] for row in bench.rows], NUMERIC)
    return f"{table}\n\n{escape(' '.join(bench.notes))}"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != _SCHEMA:
            raise ValueError(f"schema {record['schema']}, this version reads {_SCHEMA}")
        for line in record["results"]:
            for key, kind in _KINDS.items():
                if not isinstance(line[key], kind):
                    raise ValueError(f"{key} is {line[key]!r}")
        record["machine"]["cpu"], record["machine"]["cores"], record["date"], record["versions"]["torch"], record["images"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not a record of the bench ({reason}); write it anew with python -m benchmark.bench") from None
    found: dict[str, Any] = record
    return found


def _shown(record: dict[str, Any]) -> Bench:
    lines: list[dict[str, Any]] = record["results"]
    alone = {(line["bench"], line["subject"]): line for line in lines if not line.get("peer")}
    peers = {(line["bench"], line["peer"]) for line in lines if line.get("peer")}
    ours = [line for line in lines if (line["bench"], line["subject"]) not in peers]
    first = {line["subject"] for line in ours if line.get("goal") and line.get("peer")}  # whom the goals are for
    rows = [_row(line, alone.get((line["bench"], line.get("peer")))) for line in ours if _wanted(line, first)]
    return Bench(tuple(rows), tuple(_notes(record, ours, alone, peers, first)))


def _wanted(line: dict[str, Any], first: Iterable[str]) -> bool:
    return bool(line.get("goal")) or (not line.get("peer") and line["subject"] in first)


def _row(line: dict[str, Any], peer: dict[str, Any] | None) -> tuple[str, ...]:
    ratio, goal = line.get("ratio"), line.get("goal") or ""
    return (
        line["bench"],
        f"{_number(line['median'])} {line['unit']}",
        line.get("peer") or "",
        f"{_number(peer['median'])} {peer['unit']}" if peer else "",
        f"{ratio:.1f}" if ratio is not None and line["unit"] == "images/s" else "",
        goal,
        {True: "met", False: "missed"}.get(line.get("met"), ""),  # type: ignore[arg-type]
    )


