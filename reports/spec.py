"""A published table as `reports/tables/<table>.yaml` writes it down: its columns and how we measure them, margins, claims.

The published rows and numbers are the registry's (`reports.reference`), and which of our trainings fills which of them the
sweep says (`paper.tables`): a file here repeats neither. Nothing here knows of any record; `reports.assemble` joins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from benchmark.errors import InputError, nearest
from benchmark.plan.document import Document, read_document
from reports.aggregate import IntervalKind
from reports.claims import COLLAPSED_BELOW, SPREAD_ABOVE, Thresholds
from reports.claimspec import ClaimSpec, read_claims
from reports.metrics import Metric, metric, stand_in
from reports.reference import Reference, References

FIGURES = ("numbers", "curves", "collapse", "knn", "heatmap", "bars", "lines", "instability", "pictures")
BOUNDS, ALL = "bounds", "all"
_BRACKET = re.compile(r"\s*\[([^\[\]]*)\]\s*")


@dataclass(frozen=True)
class Derived:
    """A column computed from our own cells of the same row: `minus` of two, or the `mean` of several."""

    how: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ColumnSpec:
    """A published column. metric: the paper's own measure; or_: its other ones, where it does not measure all
    rows alike; elsewhere: what a profile measures that has none of them.

    missing: why nothing here measures it. Exactly one of metric, derive, missing says something.
    """

    id: str
    label: str
    metric: Metric | None
    elsewhere: Metric | None
    derive: Derived | None
    missing: str
    margin: float
    margin_why: str
    or_: tuple[Metric, ...] = ()

    def measures(self) -> tuple[Metric, ...]:
        """What may fill it, the paper's own first."""
        return tuple(each for each in (*self.own(), self.elsewhere) if each is not None)

    def own(self) -> tuple[Metric, ...]:
        """The paper's measures."""
        return tuple(each for each in (self.metric, *self.or_) if each is not None)


@dataclass(frozen=True)
class RowSpec:
    """A row of the table. references: its published cells by column. own: a row that the paper does not have.

    fill: the row of the sweep (or one for each column, or config values that must match exactly one row) where this file says
    it; None leaves it to the sweep. differs: why our row is not quite the paper's, so that it is never compared as if it were.
    """

    id: str
    name: str
    label: str
    settings: tuple[str, ...]
    references: Mapping[str, Reference]
    own: bool = False
    fill: str | dict[str, Any] | None = None
    select: dict[str, Any] | None = None
    differs: str = ""
    note: str = ""


@dataclass(frozen=True)
class TableSpec:
    """A whole table. own: `bounds`, `all` or the names of own rows, of which `rows` has those that the file itself states.

    interval: what the mean's is, Student's t or a bootstrap's (from 8 seeds on, t below).
    profile: the one that repeats the paper's protocol, None where none does; config: what a cell must have to be compared,
    beside what the registry says about data, encoder, epochs and batch.
    """

    id: str
    path: Path
    title: str
    paper: str
    year: str
    arxiv: str
    url: str
    source: str
    sweep: str
    missing: str
    protocol: str
    profile: str | None
    config: Mapping[str, Any]
    interval: IntervalKind
    columns: tuple[ColumnSpec, ...]
    beside: tuple[Metric, ...]
    settings: tuple[str, ...]
    thresholds: Thresholds
    rows: tuple[RowSpec, ...]
    own: str
    baseline: str
    claims: tuple[ClaimSpec, ...]
    figures: tuple[str, ...]
    lines: Document = field(repr=False, compare=False)

    @property
    def published(self) -> bool:
        return bool(self.columns)

    def at(self, *keys: str) -> str:
        """`file:line: key > path`, for errors that only the join can find."""
        return self.lines.at(*keys)


def read_tables(
    folder: Path, references: References, only: Iterable[str] = (), problems: list[str] | None = None
) -> list[TableSpec]:
    """Every table of the folder, or those named. Raises InputError for an unknown name and for what a file gets wrong; with
    a list for `problems` a wrong file is named there and left out."""
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    found = []
    for name in only:
        if name not in paths:
            raise InputError(f"no table '{name}' in {folder}; it has {', '.join(paths)}{nearest(name, paths)}")
    for name in list(only) or paths:
        try:
            found.append(read_table(paths[name], references))
        except InputError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return found


def read_table(path: Path, references: References) -> TableSpec:
    """Read and check one table. Raises InputError naming file, line, key and remedy."""
    document = read_document(path)
    required = ("table", "title", "sweep", "protocol")
    optional = (*("paper", "missing", "columns", "beside", "margin", "interval", "settings", "rows", "own", "baseline"),
                *("collapse", "claims", "figures"))  # fmt: skip
    top = section(document, (), required, optional)
    if top["table"] != path.stem:
        raise InputError(f"{document.at('table')}: is '{top['table']}', but the file is named {path.name}; make them the same")
    published = references.get(path.stem, {})
    protocol = section(document, ("protocol",), ("about", "profile"), ("config",))
    if top["sweep"] is None and not top.get("missing"):
        raise InputError(f"{document.at('sweep')}: a table without a sweep needs 'missing: <why nothing here can fill it>'")
    columns = _columns(document, top, published)
    settings, rows = _rows(document, top, published)
    first = next(iter(published.values()), None)
    paper = section(document, ("paper",), (), ("name", "year", "arxiv", "url")) if "paper" in top else {}
    if first is None and "name" not in paper:
        raise InputError(
            f"{document.at('table')}: the registry has no table '{path.stem}'; a table of ours needs 'paper: {{name: ...}}'"
        )
    own = top.get("own", BOUNDS)
    names = tuple(row.id for row in rows)
    return TableSpec(
        id=path.stem,
        path=path,
        title=str(top["title"]),
        paper=str(paper.get("name", first.paper if first else "")),
        year=str(paper.get("year", first.year if first else "")),
        arxiv=str(paper.get("arxiv", first.arxiv if first else "")),
        url=str(paper.get("url", first.url if first else "")),
        source=first.source if first else "",
        sweep=str(top["sweep"] or ""),
        missing=str(top.get("missing", "")),
        protocol=str(protocol["about"]).strip(),
        profile=protocol["profile"],
        config=protocol.get("config") or {},
        interval=_interval(document),
        columns=columns,
        beside=tuple(metric(name, document.at("beside")) for name in _list(document, "beside")),
        settings=settings,
        thresholds=_thresholds(document),
        rows=rows,
        own=own if isinstance(own, str) else "",
        baseline=str(top.get("baseline", "")),
        claims=read_claims(document, names if own not in (BOUNDS, ALL) else None, [column.id for column in columns]),
        figures=tuple(_known(document, "figures", name, FIGURES) for name in _list(document, "figures")),
        lines=document,
    )


def _columns(document: Document, top: dict[str, Any], published: Mapping[tuple[str, str], Reference]) -> tuple[ColumnSpec, ...]:
    wanted = list(dict.fromkeys(column for _, column in published))
    given = _mapping(document, "columns")
    for name in given:
        if name not in wanted:
            known = f"it has {', '.join(wanted)}{nearest(name, wanted)}" if wanted else "the registry has no such table"
            raise InputError(f"{document.at('columns', name)}: the registry's table has no column '{name}'; {known}")
    absent = [name for name in wanted if name not in given]
    if absent and not top.get("missing"):
        raise InputError(
            f"{document.at('columns')}: nothing says how column '{absent[0]}' is measured (metric:, derive: or missing:)"
        )
    found = tuple(_column(document, name, given) for name in given) if given else ()
    if top.get("missing"):
        found += tuple(ColumnSpec(name, name, None, None, None, str(top["missing"]), 0.0, "") for name in absent)
    for column in found:
        for part in column.derive.columns if column.derive else ():
            if part not in given:
                raise InputError(
                    f"{document.at('columns', column.id, 'derive')}: no column '{part}'{nearest(part, list(given))}"
                )
    return found


def _column(document: Document, name: str, given: dict[str, Any]) -> ColumnSpec:
    at = ("columns", name)
    raw = section(document, at, (), ("metric", "elsewhere", "derive", "missing", "label", "margin"))
    derive = None
    if raw.get("derive") is not None:
        parts = section(document, (*at, "derive"), (), ("minus", "mean"))
        if len(parts) != 1 or not all(isinstance(value, list) and len(value) > 1 for value in parts.values()):
            raise InputError(f"{document.at(*at, 'derive')}: expected minus: [column, column] or mean: [columns]")
        derive = next(Derived(how, tuple(map(str, columns))) for how, columns in parts.items())
    named = raw.get("metric")
    several = named if isinstance(named, list) else [named] if named is not None else []
    measures = [metric(each, document.at(*at, "metric")) for each in several]
    own, others = (measures[0], tuple(measures[1:])) if measures else (None, ())
    if sum((own is not None, derive is not None, bool(raw.get("missing")))) != 1:
        raise InputError(f"{document.at(*at)}: expected exactly one of metric:, derive: and missing: <why nothing measures it>")
    other = metric(raw["elsewhere"], document.at(*at, "elsewhere")) if raw.get("elsewhere") else own and stand_in(own)
    margin, why = 0.0, ""
    if own is not None or derive is not None:
        place = (*at, "margin") if "margin" in raw else ("margin",)
        words = section(document, place, ("points", "why"), ())
        margin, why = positive(document, (*place, "points"), words["points"]), str(words["why"])
    missing = str(raw.get("missing", ""))
    return ColumnSpec(name, str(raw.get("label", name)), own, other, derive, missing, margin, why, others)


def _rows(
    document: Document, top: dict[str, Any], published: Mapping[tuple[str, str], Reference]
) -> tuple[tuple[str, ...], tuple[RowSpec, ...]]:
    """The names of the setting columns, and the rows: the registry's in its order, then those the file adds."""
    cells: dict[str, dict[str, Reference]] = {}
    for (row, column), reference in published.items():
        cells.setdefault(row, {})[column] = reference
    words = _mapping(document, "rows")
    for name in words:
        if name not in cells:
            raise InputError(
                f"{document.at('rows', name)}: the registry's table has no row '{name}'{nearest(name, list(cells))}"
            )
    parsed = {name: _bracket(name) for name in cells}
    settings = tuple(map(str, _list(document, "settings"))) or tuple(
        dict.fromkeys(key for _, found in parsed.values() for key in found)
    )
    rows = [_row(document, ("rows", name), name, parsed[name], settings, cells[name]) for name in cells]
    if isinstance(top.get("own"), dict):
        rows += [_row(document, ("own", name), name, (name, {}), settings, None) for name in top["own"]]
    elif top.get("own", BOUNDS) not in (BOUNDS, ALL):
        raise InputError(f"{document.at('own')}: expected '{BOUNDS}', '{ALL}', or names each with `row: <row of the sweep>`")
    labels = [row.label for row in rows]
    return settings, tuple(_named(row, labels) for row in rows)


def _row(
    document: Document,
    at: tuple[str, ...],
    name: str,
    parsed: tuple[str, dict[str, str]],
    settings: tuple[str, ...],
    cells: dict[str, Reference] | None,
) -> RowSpec:
    raw = (
        section(document, at, (), ("label", "settings", "note", "differs", "row", "select"))
        if name in _mapping(document, at[0])
        else {}
    )
    label, found = parsed
    texts = tuple(found.get(key, "") for key in settings)
    if "settings" in raw:
        given = raw["settings"]
        if not isinstance(given, list) or len(given) != len(settings):
            raise InputError(
                f"{document.at(*at, 'settings')}: expected a list of {len(settings)}, one for each of the table's settings"
            )
        texts = tuple("" if value is None else str(value) for value in given)
    if "row" in raw and "select" in raw:
        raise InputError(f"{document.at(*at)}: give row: or select:, not both")
    select = section(document, (*at, "select"), (), None) if "select" in raw else None
    return RowSpec(
        id=name,
        name=name,
        label=str(raw.get("label", label)),
        settings=texts,
        references=cells or {},
        own=cells is None,
        fill=raw.get("row"),
        select=select,
        differs=str(raw.get("differs", "")),
        note=str(raw.get("note", "")),
    )


def _bracket(name: str) -> tuple[str, dict[str, str]]:
    """(label, settings) of a row called `label [key=value; key=value]`; a bracket of other contents stays in the label."""
    match = _BRACKET.search(name)
    parts = [part.partition("=") for part in match[1].split(";")] if match else []
    if not match or not all(equals for _, equals, _ in parts):
        return name, {}
    label = (name[: match.start()] + " " + name[match.end() :]).strip()
    return label or name, {key.strip(): value.strip() for key, _, value in parts}


def _named(row: RowSpec, labels: list[str]) -> RowSpec:
    """With a name that is unique in the table: the label, with its settings where another row has the same one."""
    shown = " / ".join(text for text in row.settings if text)
    name = f"{row.label} [{shown}]" if labels.count(row.label) > 1 and shown else row.label
    return RowSpec(**{**row.__dict__, "name": name})


def _interval(document: Document) -> IntervalKind:
    found = document.value.get("interval", "t")
    if found not in get_args(IntervalKind):
        allowed = " or ".join(get_args(IntervalKind))
        raise InputError(
            f"{document.at('interval')}: expected {allowed}, found '{found}'{nearest(found, get_args(IntervalKind))}"
        )
    return cast(IntervalKind, found)


def _thresholds(document: Document) -> Thresholds:
    raw = section(document, ("collapse",), (), ("collapsed_below", "spread_above"))
    below = positive(document, ("collapse", "collapsed_below"), raw.get("collapsed_below", COLLAPSED_BELOW))
    above = positive(document, ("collapse", "spread_above"), raw.get("spread_above", SPREAD_ABOVE))
    if not below < above <= 1:
        raise InputError(f"{document.at('collapse')}: expected collapsed_below < spread_above <= 1, found {below} and {above}")
    return Thresholds(below, above)


def section(
    document: Document, at: tuple[str, ...], required: tuple[str, ...], optional: tuple[str, ...] | None
) -> dict[str, Any]:
    """The mapping at this key path with exactly these keys (any, where optional is None); what may be empty may be absent."""
    value: Any = document.value
    for key in at:
        value = (value.get(key) if isinstance(value, dict) else None) or {}
    if not isinstance(value, dict):
        raise InputError(f"{document.at(*at)}: expected keys and values")
    allowed = (*required, *(optional or ()))
    for key in value if optional is not None else ():
        if key not in allowed:
            raise InputError(f"{document.at(*at, key)}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}")
    for key in required:
        if key not in value:
            raise InputError(f"{document.at(*at)}: the key '{key}' is missing")
    return value


def positive(document: Document, at: tuple[str, ...], value: Any) -> float:
    """The number at this key path. Raises InputError for anything but a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{document.at(*at)}: expected a number above 0, found {value!r}")
    return float(value)


def _mapping(document: Document, key: str) -> dict[str, Any]:
    value = document.value.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{document.at(key)}: expected names, each with keys and values")
    return value


def _list(document: Document, key: str) -> list[Any]:
    value = document.value.get(key) or []
    if not isinstance(value, list):
        raise InputError(f"{document.at(key)}: expected a list")
    return value


def _known(document: Document, key: str, name: Any, allowed: tuple[str, ...]) -> str:
    if name not in allowed:
        raise InputError(f"{document.at(key)}: unknown '{name}'; allowed: {', '.join(allowed)}{nearest(name, allowed)}")
    return str(name)
