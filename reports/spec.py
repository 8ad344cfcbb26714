"""A paper's table as `reports/tables/<table>.yaml` writes it down: rows, columns, margin, protocol, claims; strictly
checked.

Nothing here knows of any record: `reports.assemble` joins a TableSpec with the sweep's rows and the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmark.errors import InputError, nearest
from benchmark.plan.document import Document, read_document
from reports.claims import COLLAPSED_BELOW, SPREAD_ABOVE, Thresholds
from reports.metrics import Metric, metric
from reports.reference import Reference, References, reference_of

ClaimKind = Literal["collapse", "not_collapsed", "order", "gap"]
_CLAIM_KEYS: dict[str, tuple[str, ...]] = {
    "collapse": ("row",),
    "not_collapsed": ("row",),
    "order": ("above", "below"),
    "gap": ("above", "below", "margin"),
}


@dataclass(frozen=True)
class RowSpec:
    """One row of the paper's table. `name` is its label, with its settings where the paper repeats the label.

    `sweep` is None for a row that nothing here can measure; `missing` then says why.

    `differs`: why our row is not quite the paper's, so that its number is never compared as if it were.
    """

    id: str
    name: str
    label: str
    settings: tuple[str, ...]
    reference: Reference | None
    sweep: str | None
    missing: str
    differs: str
    note: str


@dataclass(frozen=True)
class ClaimSpec:
    """A statement of the paper. `above` and `below` are the row ids of an order or a gap, `row` that of a collapse."""

    id: str
    kind: ClaimKind
    says: str
    row: str
    above: str
    below: str
    margin: float

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(row for row in (self.row, self.above, self.below) if row)


@dataclass(frozen=True)
class Protocol:
    """How the paper measured. `profile` repeats it, if any does, provided that the cell's config has these values; `metric`
    is what the paper itself measured there, where the table's first column is another measure."""

    about: str
    profile: str | None
    config: dict[str, Any]
    metric: Metric | None = None


@dataclass(frozen=True)
class TableSpec:
    """A whole table. `columns[0]` is the metric that the paper prints and verdicts are about; `baseline` the row of an
    untrained network, which any row must beat before its accuracy can say anything."""

    id: str
    path: Path
    title: str
    paper: str
    arxiv: str
    url: str
    sweep: str
    protocol: Protocol
    columns: tuple[Metric, ...]
    settings: tuple[str, ...]
    margin: float
    margin_why: str
    thresholds: Thresholds
    baseline: str
    rows: dict[str, RowSpec]
    claims: tuple[ClaimSpec, ...]

    @property
    def primary(self) -> Metric:
        return self.columns[0]

    def at(self, profile: str) -> TableSpec:
        """The table at one profile: where that repeats the paper's protocol, the paper's own measure comes first."""
        own = self.protocol.metric
        if own is None or profile != self.protocol.profile:
            return self
        return replace(self, columns=(own, *(column for column in self.columns if column != own)))


def read_tables(folder: Path, references: References, only: Iterable[str] = ()) -> list[TableSpec]:
    """Every table of the folder, or those named. Raises InputError for an unknown name."""
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    for name in only:
        if name not in paths:
            raise InputError(f"no table '{name}' in {folder}; it has {', '.join(paths)}{nearest(name, paths)}")
    return [read_table(paths[name], references) for name in (list(only) or paths)]


def read_table(path: Path, references: References) -> TableSpec:
    """Read and check one table. Raises InputError naming file, line, key and remedy."""
    document = read_document(path)
    top = _section(
        document,
        (),
        ("table", "title", "paper", "sweep", "protocol", "columns", "margin", "baseline", "rows"),
        ("settings", "collapse", "claims"),
    )
    if top["table"] != path.stem:
        raise InputError(f"{document.at('table')}: is '{top['table']}', but the file is named {path.name}; make them the same")
    paper = _section(document, ("paper",), ("name",), ("arxiv", "url"))
    protocol = _section(document, ("protocol",), ("about", "profile"), ("config", "metric"))
    margin = _section(document, ("margin",), ("points", "why"), ())
    collapse = _section(document, ("collapse",), (), ("collapsed_below", "spread_above"))
    columns = _list(document, "columns")
    settings = tuple(str(name) for name in _list(document, "settings")) if "settings" in top else ()
    rows = {name: _row(document, str(name), top["table"], len(settings), references) for name in _mapping(document, "rows")}
    if top["baseline"] not in rows:
        hint = nearest(top["baseline"], rows)
        raise InputError(f"{document.at('baseline')}: no row '{top['baseline']}'; the rows are {', '.join(rows)}{hint}")
    claims = tuple(_claim(document, str(name), rows) for name in _mapping(document, "claims"))
    return TableSpec(
        id=str(top["table"]),
        path=path,
        title=str(top["title"]),
        paper=str(paper["name"]),
        arxiv=str(paper.get("arxiv", "")),
        url=str(paper.get("url", "")),
        sweep=str(top["sweep"]),
        protocol=Protocol(
            str(protocol["about"]),
            protocol["profile"],
            protocol.get("config") or {},
            metric(protocol["metric"], document.at("protocol", "metric")) if "metric" in protocol else None,
        ),
        columns=tuple(metric(name, document.at("columns")) for name in columns),
        settings=settings,
        margin=_positive(document, ("margin", "points"), margin["points"]),
        margin_why=str(margin["why"]),
        thresholds=_thresholds(document, collapse),
        baseline=str(top["baseline"]),
        rows=rows,
        claims=claims,
    )


def _row(document: Document, name: str, table: str, width: int, references: References) -> RowSpec:
    at = ("rows", name)
    raw = _section(document, at, ("label", "sweep"), ("settings", "reference", "missing", "differs", "note"))
    settings = raw.get("settings", [])
    if not isinstance(settings, list) or len(settings) != width:
        raise InputError(f"{document.at(*at, 'settings')}: expected a list of {width}, one for each of the table's 'settings'")
    if raw["sweep"] is None and not raw.get("missing"):
        raise InputError(f"{document.at(*at)}: a row without a sweep row needs 'missing: <why nothing can measure it>'")
    reference = None
    if raw.get("reference") is not None:
        reference = reference_of(references, table, str(raw["reference"]), document.at(*at, "reference"))
    return RowSpec(
        id=name,
        name=_name(document, raw),
        label=str(raw["label"]),
        settings=tuple("" if value is None else str(value) for value in settings),
        reference=reference,
        sweep=None if raw["sweep"] is None else str(raw["sweep"]),
        missing=str(raw.get("missing", "")),
        differs=str(raw.get("differs", "")),
        note=str(raw.get("note", "")),
    )


def _name(document: Document, raw: dict[str, Any]) -> str:
    labels = [row.get("label") for row in document.value["rows"].values() if isinstance(row, dict)]
    shown = " / ".join(str(setting) for setting in raw.get("settings", []) if setting not in (None, ""))
    return f"{raw['label']} [{shown}]" if labels.count(raw["label"]) > 1 and shown else str(raw["label"])


def _claim(document: Document, name: str, rows: dict[str, RowSpec]) -> ClaimSpec:
    at = ("claims", name)
    kind = _section(document, at, ("kind",), ("says", "row", "above", "below", "margin"))["kind"]
    if kind not in _CLAIM_KEYS:
        hint = nearest(kind, _CLAIM_KEYS)
        raise InputError(f"{document.at(*at, 'kind')}: unknown kind '{kind}'; allowed: {', '.join(_CLAIM_KEYS)}{hint}")
    raw = _section(document, at, ("kind", "says", *_CLAIM_KEYS[kind]), ())
    for key in ("row", "above", "below"):
        if key in raw and raw[key] not in rows:
            hint = nearest(raw[key], rows)
            raise InputError(f"{document.at(*at, key)}: no row '{raw[key]}'; the rows are {', '.join(rows)}{hint}")
    if kind == "gap" and any((ref := rows[raw[key]].reference) is None or ref.value is None for key in ("above", "below")):
        raise InputError(f"{document.at(*at)}: a gap needs two rows whose published numbers are established")
    return ClaimSpec(
        id=name,
        kind=kind,
        says=str(raw["says"]),
        row=str(raw.get("row", "")),
        above=str(raw.get("above", "")),
        below=str(raw.get("below", "")),
        margin=_positive(document, (*at, "margin"), raw["margin"]) if kind == "gap" else 0.0,
    )


def _thresholds(document: Document, raw: dict[str, Any]) -> Thresholds:
    below = _positive(document, ("collapse", "collapsed_below"), raw.get("collapsed_below", COLLAPSED_BELOW))
    above = _positive(document, ("collapse", "spread_above"), raw.get("spread_above", SPREAD_ABOVE))
    if not below < above <= 1:
        raise InputError(f"{document.at('collapse')}: expected collapsed_below < spread_above <= 1, found {below} and {above}")
    return Thresholds(below, above)


def _section(document: Document, at: tuple[str, ...], required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The mapping at this key path with exactly these keys; a section that may be empty may also be absent."""
    value: Any = document.value
    for key in at:
        value = value.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{document.at(*at)}: expected keys and values")
    allowed = (*required, *optional)
    for key in value:
        if key not in allowed:
            raise InputError(f"{document.at(*at, key)}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}")
    for key in required:
        if key not in value:
            raise InputError(f"{document.at(*at)}: the key '{key}' is missing")
    return value


def _mapping(document: Document, key: str) -> dict[str, Any]:
    value = document.value.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{document.at(key)}: expected names, each with keys and values")
    return value


def _list(document: Document, key: str) -> list[Any]:
    value = document.value[key]
    if not isinstance(value, list) or not value:
        raise InputError(f"{document.at(key)}: expected a list")
    return value


def _positive(document: Document, at: tuple[str, ...], value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{document.at(*at)}: expected a number above 0, found {value!r}")
    return float(value)
