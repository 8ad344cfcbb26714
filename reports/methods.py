"""The methods, as their own files and the tables show them: the list for the README, and what a page about each is made of.

Texts come from the sources as they are now (a method's docstring says its equations and the number it should reach), settings
from the catalogue, numbers and verdicts from the report. Nothing here imports torch.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmark.plan.sweep import PROFILES
from methods.catalogue import CATALOGUE
from methods.departures import Departure, of_module
from reports import lineage
from reports.assemble import Report
from reports.lineage import Step, Work
from reports.metrics import METRICS
from reports.render_markdown import code, escape, grid
from reports.table import Claim, Entry, Row, Table

_ROOT = Path(__file__).resolve().parents[1]
_BOUNDS = {"random": "Untrained network", "supervised": "Supervised network"}  # they belong to no family
_LABELS = {"contrastive": "BYOL with MoCo’s loss"} | _BOUNDS
_SHOWN = ("linear.top1", "knn.top1")  # what every profile that measures anything measures


def markdown() -> str:
    """A line for each method that is trained, in the order of their papers."""
    entries = [(name, entry) for name, entry in CATALOGUE()["methods"].items() if entry["trains"]]
    rows = [
        [code(name), escape(entry["title"]), escape(entry["reaches"])]
        for name, entry in sorted(entries, key=lambda item: (_year(item[1]["paper"]), item[0]))
    ]
    return grid(["method", "what it is", "should reach"], rows, [False] * 3)


def _year(paper: str) -> str:
    """arXiv numbers sort by date; what has none comes last."""
    return paper.partition("arXiv:")[2] or "9"


@dataclass(frozen=True)
class Number:
    """What one scale measured in a cell. keys: of the trainings behind it."""

    table: Table
    entry: Entry
    keys: tuple[str, ...]

    @property
    def where(self) -> str:
        return self.table.profile


@dataclass(frozen=True)
class Line:
    """A cell of a published table that the method fills: the row, the column, the paper's number, ours at each scale."""

    row: Row
    column: str
    entry: Entry
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Statement:
    """A claim about rows of the method. verdicts: (table at one scale, the claim there), where it was judged."""

    says: str
    verdicts: tuple[tuple[Table, Claim], ...]


@dataclass(frozen=True)
class Used:
    """A table in which the method has rows. table: at the paper's own scale. commands: (profile, what runs these rows)."""

    table: Table
    lines: tuple[Line, ...]
    claims: tuple[Statement, ...]
    commands: tuple[tuple[str, str], ...]

    @property
    def measured(self) -> int:
        return sum(bool(line.numbers) for line in self.lines)


@dataclass(frozen=True)
class Best:
    """The highest mean of any row of the method at one scale."""

    number: Number
    row: Row
    metric: str


Block = tuple[Literal["text", "formula"], str]


@dataclass(frozen=True)
class Setting:
    """A field of the method's config by its dotted key, with its default as JSON."""

    key: str
    kind: str
    default: str
    note: str


@dataclass(frozen=True)
class Method:
    """Everything on the page of one method. text: its docstring after the first sentence, which is `title`."""

    name: str
    label: str
    title: str
    reaches: str
    year: str
    arxiv: str
    paper: str
    path: str
    version: int
    recipe: str
    views: int
    text: tuple[Block, ...]
    works: tuple[Work, ...]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    settings: tuple[Setting, ...]
    departures: tuple[Departure, ...]
    used: tuple[Used, ...]
    best: tuple[Best, ...]

    @property
    def published(self) -> list[Line]:
        """The paper's cells among those that its rows fill; an untrained network has few, and a row in every table."""
        return [line for used in self.used for line in used.lines if line.entry.reference is not None]

    @property
    def measured(self) -> int:
        return sum(bool(line.numbers) for line in self.published)


def gather(report: Report) -> list[Method]:
    """Every method of METHODS, by the date of its paper."""
    modules = _modules()
    entries = CATALOGUE()["methods"]
    used, best = _used(report), _best(report)
    made = [_method(name, entries[name], modules[name], used.get(name, ()), best.get(name, ())) for name in entries]
    return sorted(made, key=lambda method: (method.name in _BOUNDS, _year(entries[method.name]["paper"]), method.name))


def _method(name: str, entry: Mapping[str, Any], module: str, used: Sequence[Used], best: Sequence[Best]) -> Method:
    works = tuple(lineage.of_method(name))
    key, _, number = entry["paper"].partition(" arXiv:")
    path = _path(module)
    return Method(
        name=name,
        label=_LABELS.get(name) or (works[0].name if works else name),
        title=entry["title"],
        reaches=entry["reaches"],
        year=str(works[0].year) if works else "",
        arxiv=number,
        paper="" if key == "none" else key,
        path=path.relative_to(_ROOT).as_posix(),
        version=int(entry["version"]),
        recipe=entry["recipe"],
        views=int(entry["num_views"]),
        text=tuple(blocks(_docstring(path))),
        works=works,
        before=tuple(lineage.ancestors(name)),
        after=tuple(lineage.descendants(name)),
        settings=tuple(settings(entry["config"]["fields"])),
        departures=tuple(of_module(module)),
        used=tuple(used),
        best=tuple(best),
    )


@cache
def _modules() -> dict[str, str]:
    """The module of each method, read from METHODS without importing it."""
    tree = ast.parse((_ROOT / "methods" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "METHODS" and node.value is not None:
            return {name: place.partition(":")[0] for name, place in ast.literal_eval(node.value).items()}
    raise LookupError("methods/__init__.py has no METHODS")


def _path(module: str) -> Path:
    return _ROOT / Path(*module.split(".")).with_suffix(".py")


@cache
def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def blocks(docstring: str) -> Iterator[Block]:
    """A docstring after its first sentence: running text, and what is indented (equations, lists of switches) as it stands."""
    lines = docstring.split("\n\n", 1)[-1].splitlines() if "\n\n" in docstring else []
    held: list[str] = []
    kind: Literal["text", "formula"] = "text"

    def told() -> Iterator[Block]:
        while held and not held[-1].strip():
            held.pop()
        if held:
            yield kind, " ".join(held) if kind == "text" else "\n".join(held)
        held.clear()

    for line in lines:
        here: Literal["text", "formula"] = "formula" if line.startswith("    ") else "text"
        if not line.strip():
            if kind == "text":
                yield from told()
            elif held:
                held.append("")
            continue
        if here != kind or line.startswith(("Should reach", "Switches", "Protocol", "Default protocol")):
            yield from told()
        kind = here
        held.append(line[4:] if here == "formula" else line.strip())
    yield from told()


def settings(fields: Mapping[str, Any], prefix: str = "") -> Iterator[Setting]:
    """The fields of a catalogue's config, sections opened, with what a sweep must know of them."""
    for name, spec in fields.items():
        key = f"{prefix}{name}"
        if "fields" in spec:
            yield from settings(spec["fields"], f"{key}.")
            continue
        kind = " | ".join(map(str, spec["choices"])) if "choices" in spec else spec["type"]
        notes = [f"{value} leaves {', '.join(keys)} unused" for value, keys in spec.get("governs", {}).items()]
        notes += [
            f"{value} needs {', '.join(f'{other}: {_plain(wanted)}' for other, wanted in needs.items())}"
            for value, needs in spec.get("needs", {}).items()
        ]
        yield Setting(key, kind, _plain(spec["default"]), "; ".join(notes))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- where it stands in the tables ------------------------------------------------------------------------------------------


def _trains(report: Report) -> dict[str, dict[str, str]]:
    """The method of every row, by sweep. A row keeps its method at every profile."""
    return {
        sweep: {name: row.method for profile in plan.profiles.values() for name, row in profile.rows.items()}
        for sweep, plan in report.plans.items()
    }


def _used(report: Report) -> dict[str, list[Used]]:
    """The tables of every method, in the report's order."""
    groups: dict[str, list[Table]] = {}
    for table in report.every:
        groups.setdefault(table.id, []).append(table)
    methods = _trains(report)
    found: dict[str, list[Used]] = {}
    for tables in groups.values():
        rows = methods.get(tables[0].sweep)
        if rows is None:
            continue
        first = next((table for table in tables if not table.scale), tables[-1])  # at the paper's own scale, if any
        lines: dict[str, list[Line]] = {}
        about: dict[str, set[str]] = {}  # rows of the table by method
        for row in first.rows:
            for column, entry in first.pairs(row):
                if entry is None or column.kind != "published" or entry.training not in rows:
                    continue
                numbers = tuple(_numbers(report, tables, row.id, column.id))
                lines.setdefault(rows[entry.training], []).append(Line(row, column.label, entry, numbers))
                about.setdefault(rows[entry.training], set()).add(row.id)
        for method, mine in lines.items():
            commands = {table.profile: f"{table.command} --only {shlex.quote(f'method={method}')}" for table in tables}
            used = Used(first, tuple(mine), _claims(tables, about[method]), tuple(commands.items()))
            found.setdefault(method, []).append(used)
    return found


def _numbers(report: Report, tables: Sequence[Table], row: str, column: str) -> Iterator[Number]:
    """The same cell wherever there are runs of it."""
    for table in tables:
        each = next((found for found in table.rows if found.id == row), None)
        if each is None:
            continue
        entry = next((entry for found, entry in table.pairs(each) if found.id == column), None)
        if entry is not None and entry.n:
            yield Number(table, entry, _keys(report, entry))


def _keys(report: Report, entry: Entry) -> tuple[str, ...]:
    return tuple(dict.fromkeys(report.runs[run].key for run in entry.runs if run in report.runs))


def _claims(tables: Sequence[Table], rows: set[str]) -> tuple[Statement, ...]:
    """What the paper says about these rows, and what was found at each scale where anything was."""
    found: dict[str, tuple[str, list[tuple[Table, Claim]]]] = {}
    for table in tables:
        for claim in table.claims:
            if rows.isdisjoint(claim.rows):
                continue
            verdicts = found.setdefault(claim.id, (claim.says, []))[1]
            if claim.verdict.outcome != "not run":
                verdicts.append((table, claim))
    return tuple(Statement(says, tuple(verdicts)) for says, verdicts in found.values())


def _best(report: Report) -> dict[str, list[Best]]:
    """By method: at each scale and on each data the row with the highest mean of each measure that all scales share."""
    methods = _trains(report)
    found: dict[tuple[str, str, str, str], Best] = {}
    for table in report.every:
        rows = methods.get(table.sweep, {})
        for row in table.rows if table.data else ():
            for entry in row.cells:
                metric, value = entry.metric, entry.estimate
                if metric is None or metric.id not in _SHOWN or value is None or entry.stale or entry.training not in rows:
                    continue
                place = rows[entry.training], table.profile, table.data.content if table.data else "", metric.id
                known = found.get(place)
                if known is None or value.mean > _mean(known):
                    found[place] = Best(Number(table, entry, _keys(report, entry)), row, METRICS()[metric.id].label)
    made: dict[str, list[Best]] = {}
    for (name, *_), best in sorted(found.items(), key=lambda item: (_scale(item[0][1]), item[0][3] != _SHOWN[0])):
        made.setdefault(name, []).append(best)
    return made


def _scale(profile: str) -> int:
    return PROFILES.index(profile) if profile in PROFILES else len(PROFILES)


def _mean(best: Best) -> float:
    assert best.number.entry.estimate is not None
    return best.number.entry.estimate.mean
