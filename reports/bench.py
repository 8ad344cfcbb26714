"""The bench's tables for the README and the page, loaders, training steps and evaluation beside what people use: each from
the newest committed record that has it.

A record is what `python -m benchmark.bench --json reports/records/bench/NAME.json` writes, in the shape that
`benchmark/bench/record.py` describes. Nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from reports.render_markdown import escape, grid

HEADER = ("what", "ours", "beside", "its number", "ratio", "goal", "")
NUMERIC = (False, True, False, True, True, False, False)
TITLES = {
    "bench": "Speed of the loaders", "steps": "Time of a training step", "evaluation": "Speed of the evaluation",
    "launching": "Cost of planning and launching", "reporting": "Cost of a report",
}  # fmt: skip
_STEP = "step of "
_EVALUATION = ("kNN", "health telemetry")
_LAUNCHING = ("planning", "launching", "from the command")
_REPORTING = "report on "
_OURS = "Retable"
MISSING = "Not measured yet: `make bench` measures, and `--json reports/records/bench/NAME.json` keeps the record."
_SCHEMA = 1
_TOLD = ("images/s", "s", "MiB")  # units of the other loaders' lines that are told where no goal is missed
_KINDS: dict[str, type | tuple[type, ...]] = {
    "bench": str,
    "subject": str,
    "unit": str,
    "median": (int, float),
    "low": (int, float),
    "high": (int, float),
    "detail": str,
}


@dataclass(frozen=True)
class Bench:
    """rows: texts under header, of which some are numbers. notes: sentences on how it was measured."""

    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    header: tuple[str, ...] = HEADER
    numeric: tuple[bool, ...] = NUMERIC


def newest(folder: Path) -> tuple[dict[str, Bench], tuple[str, ...]]:
    """Of each table of TITLES that any record has, the one of the latest date; and a sentence for each file that cannot be
    read."""
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(_read(path))
        except InputError as error:
            problems.append(str(error))
    found = {}
    for name, show in (
        ("bench", _shown),
        ("steps", _steps),
        ("evaluation", _evaluation),
        ("launching", _alone),
        ("reporting", _alone),
    ):
        having = [part for record in records if (part := _part(record, name))["results"]]
        if having:
            found[name] = show(max(having, key=lambda record: record["date"]))
    return found, tuple(problems)


def markdown(bench: Bench | None) -> str:
    """For running text: the table, then how it was measured."""
    if bench is None:
        return MISSING
    table = grid([escape(name) for name in bench.header], [[escape(text) for text in row] for row in bench.rows], bench.numeric)
    return "\n".join([table, "", *(f"- {escape(note)}" for note in bench.notes)])


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The record with what belongs to one of the tables alone."""
    parts = {key: [line for line in record.get(key, []) if _table(line["bench"]) == name] for key in ("results", "missing")}
    return record | parts


def _table(bench: str) -> str:
    """Which of TITLES a line belongs to."""
    if bench.startswith(_STEP):
        return "steps"
    if bench.startswith(_LAUNCHING):
        return "launching"
    if bench.startswith(_REPORTING):
        return "reporting"
    return "evaluation" if bench.startswith(_EVALUATION) else "bench"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != _SCHEMA:
            raise ValueError(f"schema {record['schema']}, this version reads {_SCHEMA}")
        for line in record["results"]:
            for key, kind in _KINDS.items():
                if not isinstance(line[key], kind):
                    raise ValueError(f"{key} is {line[key]!r}")
        record["machine"]["cpu"], record["machine"]["cores"], record["date"][:10], record["versions"]["torch"], record["images"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path}: not a record of the bench ({reason}); write it anew with python -m benchmark.bench"
        ) from None
    found: dict[str, Any] = record
    return found


def _shown(record: dict[str, Any]) -> Bench:
    """All lines of the loader that the goals are for; the peers stand in these, everything else in the notes."""
    lines: list[dict[str, Any]] = record["results"]
    alone = {(line["bench"], line["subject"]): line for line in lines if not line.get("peer")}
    main = next((line["subject"] for line in lines if line.get("goal")), "")
    rows = [_row(line, alone.get((line["bench"], line.get("peer")))) for line in lines if line["subject"] == main]
    beside = {(line["bench"], line["peer"]) for line in lines if line.get("peer")}
    peers = [alone[key] for key in alone if key in beside]
    others = [line for line in lines if (line["bench"], line["subject"]) not in beside and line["subject"] != main]
    return Bench(tuple(rows), tuple(_notes(record, main, peers, others)))


def _steps(record: dict[str, Any]) -> Bench:
    """A line for each method, a column for each peer: its time, and how many times ours that is."""
    lines: list[dict[str, Any]] = record["results"]
    beside: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        if line.get("peer"):
            beside.setdefault(line["bench"].removeprefix(_STEP), {})[line["peer"]] = line
    medians = {(line["bench"].removeprefix(_STEP), line["subject"]): line["median"] for line in lines if not line.get("peer")}
    peers = list(dict.fromkeys(peer for row in beside.values() for peer in row))
    rows = []
    for method, row in beside.items():
        ours = next(iter(row.values()))["median"]
        cells = [f"{_number(medians[method, peer])} ({row[peer]['ratio']:.3f}x)" if peer in row else "" for peer in peers]
        missed = [peer for peer in peers if peer in row and row[peer].get("met") is False]
        rows.append((method, _number(ours), *cells, f"missed: {', '.join(missed)}" if missed else "met"))
    goals = {peer: next(row[peer].get("goal") for row in beside.values() if peer in row) for peer in peers}
    notes = list(_where(record, _OURS))
    notes.append(
        "Medians in milliseconds; in brackets the median over the turns of the peer's time over ours (above 1: ours is faster)."
    )
    notes.append("Goals: " + ", ".join(f"{peer} {goal}" for peer, goal in goals.items() if goal) + ".")
    if detail := next((line["detail"] for line in lines if line["detail"]), ""):
        notes.append(f"{detail[0].upper()}{detail[1:]}.")
    for bench, left in _grouped(record.get("missing", []), "bench").items():
        notes.append(f"Not measured: {bench}, " + "; ".join(f"{line['subject']} ({line['why']})" for line in left) + ".")
    header = ("method", "ours", *peers, "")
    return Bench(tuple(rows), tuple(notes), header, (False, True, *(True for _ in peers), False))


def _evaluation(record: dict[str, Any]) -> Bench:
    """A row for every line that has a peer; how each was measured in the notes."""
    lines: list[dict[str, Any]] = record["results"]
    alone = {(line["bench"], line["subject"]): line for line in lines if not line.get("peer")}
    rows = []
    for line in (line for line in lines if line.get("peer")):
        what, *others = _row(line, alone.get((line["bench"], line["peer"])))
        others[3] = f"{line['ratio']:.3f}"  # what telemetry costs is a matter of percents
        rows.append((what + line["subject"].removeprefix(_OURS), *others))
    return Bench(tuple(rows), (*_where(record, _OURS), *_details(record)))


def _alone(record: dict[str, Any]) -> Bench:
    """A row for every line of ours, with a peer or without; how each was measured in the notes."""
    lines: list[dict[str, Any]] = record["results"]
    peers = {(line["bench"], line["subject"]): line for line in lines if not line["subject"].startswith(_OURS)}
    ours = [line for line in lines if line["subject"].startswith(_OURS)]
    rows = tuple(_row(line, peers.get((line["bench"], line.get("peer")))) for line in ours)
    return Bench(rows, (*_where(record, _OURS), *_details(record)))


def _details(record: dict[str, Any]) -> Iterator[str]:
    """How each line was measured, and what was not."""
    for detail, told in _grouped([line for line in record["results"] if line["detail"]], "detail").items():
        yield f"{', '.join(dict.fromkeys(line['bench'] for line in told))}: {detail}."
    for bench, left in _grouped(record.get("missing", []), "bench").items():
        yield f"Not measured: {bench}, " + "; ".join(f"{line['subject']} ({line['why']})" for line in left) + "."


def _row(line: dict[str, Any], peer: dict[str, Any] | None) -> tuple[str, ...]:
    ratio, met = line.get("ratio"), line.get("met")
    return (
        line["bench"],
        _amount(line),
        line.get("peer") or "",
        _number(peer["median"]) if peer else "",
        "" if ratio is None else f"{ratio:.1f}" if peer else f"{ratio:.2f}",
        line.get("goal") or "",
        "" if met is None else "met" if met else "missed",
    )


def _notes(
    record: dict[str, Any], main: str, peers: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> Iterator[str]:
    yield from _where(record, main)
    for name, words in record["images"].items():
        yield f"{name[0].upper()}{name[1:]} images: {words}."
    for bench, lines in _grouped(peers, "bench").items():
        ways = (f"{line['subject']} ({line['detail'].partition(';')[0]})" for line in lines)
        yield f"{bench}, each peer in the fastest way found: {', '.join(ways)}."
    for subject, lines in _grouped(others, "subject").items():
        told = (f"{line['bench']}: {_amount(line)}{_missed(line)}" for line in lines if line["unit"] in _TOLD or _missed(line))
        if said := "; ".join(dict.fromkeys(told)):
            yield f"{subject}. {said[0].upper()}{said[1:]}."
    for bench, lines in _grouped(record.get("missing", []), "bench").items():
        yield f"Not measured: {bench}, " + "; ".join(f"{line['subject']} ({line['why']})" for line in lines) + "."


def _where(record: dict[str, Any], main: str) -> Iterator[str]:
    machine, versions = record["machine"], record["versions"]
    if record.get("quick"):
        yield "A quick run: its numbers say nothing."
    named = ("torch", "torchvision", "ffcv", "numba", "faiss-cpu", "lightly", "kornia")
    made_with = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    where = f"{machine['cpu']}, {machine['cores']} cores, {record['date'][:10]}, commit {_commit(record)}, {made_with}"
    yield f"Ours: {main}. All in one run, in turns: {where}."


def _grouped(lines: Sequence[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line[key], []).append(line)
    return groups


def _missed(line: dict[str, Any]) -> str:
    return f" (goal: {line['goal']}, missed)" if line.get("met") is False else ""


def _commit(record: dict[str, Any]) -> str:
    return (record.get("git") or "unknown")[:10] + (" with changes" if record.get("dirty") else "")


def _amount(line: dict[str, Any]) -> str:
    return f"{_number(line['median'])} {line['unit']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
