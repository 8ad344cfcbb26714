"""Numbers in a text file come from here: what stands between two markers is replaced by the report.

<!-- report:begin byol_bn_blog -->   every shown profile of a table; `byol_bn_blog/cpu` only that profile
<!-- report:end byol_bn_blog -->     `claims`: those decided; `coverage`; `methods`; `bench`, `steps` ...: speed
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmark.errors import InputError, nearest
from benchmark.store.record import write_bytes
from reports import bench, captions, methods
from reports.assemble import Report
from reports.bench import Bench
from reports.overview import overview
from reports.render_markdown import claims_of, escape, grid, rows_of
from reports.table import Table

_MARKER = re.compile(r"^<!-- report:(begin|end) (\S+) -->[ \t]*$", re.MULTILINE)


def rewrite(path: Path, report: Report, measured: Mapping[str, Bench] | None = None) -> bool:
    """Replace every marked part of the file; returns whether anything changed. Raises InputError as `renewed` does."""
    new = renewed(path, report, measured)
    if changed := new != path.read_text(encoding="utf-8"):
        write_bytes(path, new.encode())
    return changed


def renewed(path: Path, report: Report, measured: Mapping[str, Bench] | None = None) -> str:
    """The file's text with every marked part as it should be. Raises InputError for markers that do not pair up or a name
    the report does not have."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    marks = list(_MARKER.finditer(text))
    if not marks:
        raise InputError(f"{path}: has no line '<!-- report:begin NAME -->'; put one where a table should stand")
    parts, at = [], 0
    for begin, end in _pairs(path, text, marks):
        parts += [text[at : begin.end()], "\n\n", _content(path, text, begin, report, measured or {}).strip(), "\n\n"]
        at = end.start()
    return "".join([*parts, text[at:]])


def _pairs(path: Path, text: str, marks: list[re.Match[str]]) -> list[tuple[re.Match[str], re.Match[str]]]:
    pairs = []
    for i in range(0, len(marks), 2):
        begin, end = marks[i], marks[i + 1] if i + 1 < len(marks) else None
        if begin[1] != "begin" or end is None or end[1] != "end" or begin[2] != end[2]:
            raise InputError(f"{path}:{_line(text, begin)}: expected a begin and an end marker of the same name, not nested")
        pairs.append((begin, end))
    return pairs


def _content(path: Path, text: str, mark: re.Match[str], report: Report, measured: Mapping[str, Bench]) -> str:
    name = mark[2]
    if name == "claims":
        return claims_overview(report)
    if name == "methods":
        return methods.markdown()
    if name == "coverage":
        from reports import coverage

        return coverage.markdown(report)
    if name in bench.TITLES:
        return bench.markdown(measured.get(name))
    wanted = name.split("/")
    tables = [table for table in report.tables if name == table.id]
    if len(wanted) == 2:
        tables = [table for table in report.every if [table.id, table.profile] == wanted]
    if not tables:
        known = ["claims", "coverage", "methods", *bench.TITLES, *dict.fromkeys(table.id for table in report.tables)]
        raise InputError(
            f"{path}:{_line(text, mark)}: the report has no '{name}'; it has {', '.join(known)}{nearest(name, known)}"
        )
    return "\n\n".join(_short(table) for table in tables)


def _short(table: Table) -> str:
    """A table for running text: heading, where it was measured, numbers, marks, claims."""
    lines = [f"**{escape(captions.heading(table))}**, {escape(table.where)}", rows_of(table)]
    notes = [*([f"Not comparable: {table.scale}"] if table.scale else []), *captions.legend(table)]
    if notes:
        lines.append(escape(". ".join(notes) + "."))
    if table.claims:
        lines.append(claims_of(table))
    return "\n\n".join(lines)


def claims_overview(report: Report) -> str:
    """The claims of which something has run, at the scales at which something has, as a Markdown table."""
    scopes, lines = overview(report)
    lines = [line for line in lines if any(words not in ("", "not run") for words in line.words.values())]
    scopes = [scope for scope in scopes if any(line.words.get(scope, "") not in ("", "not run") for line in lines)]
    rows = [
        [escape(line.table.paper), escape(line.claim.says), *(escape(line.words.get(scope, "")) for scope in scopes)]
        for line in lines
    ]
    header = ["paper", "claim", *(escape(scope.shown(scopes)) for scope in scopes)]
    return grid(header, rows, [False] * len(header))


def _line(text: str, mark: re.Match[str]) -> int:
    return text.count("\n", 0, mark.start()) + 1
