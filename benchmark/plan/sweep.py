"""A sweep file: one question, its named rows, and the profiles (scales) at which it can be asked; expanded into cells.

    base <- profile's `set` <- the row <- the profile's own words on that row <- key=value on the command line

Later layers win. A key of `base` or of a profile that another method knows but this row's method does not is left out (a
random-initialization row has no projector); a key that the row itself states must exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.cell import Cell, canonical
from benchmark.plan.document import Document, leaves, read_document, undot, undotted
from benchmark.plan.evaluations import DEFAULT, Protocol, boxes_of, on_cell, read_protocols
from benchmark.plan.resolve import DataIdentity, Layer, Path_, resolve, shown, with_images
from benchmark.plan.schema import Where
from benchmark.plan.suitable import unsuitable
from benchmark.plan.tables import Tables, read_tables

_TOP = (
    "include",
    "question",
    "paper",
    "base",
    "rows",
    "vary",
    "grid",
    "zip",
    "exclude",
    "seeds",
    "evaluate",
    "profiles",
)
_PROFILE = ("about", "set", "seeds", "evaluate", "rows")
PROFILES = ("smoke", "cpu", "cifar10", "imagenet100", "imagenet")


@dataclass(frozen=True)
class Row:
    """A named row of the paper's table at one profile: one cell per random seed."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file. `expand` turns it into rows of cells."""

    path: Path
    document: Document
    question: str
    paper: dict[str, Any]
    rows: tuple[tuple[str, Path_], ...]  # (name, where its overrides stand in the document; () for generated rows)
    generated: dict[str, dict[Path_, Any]]
    profiles: tuple[str, ...]
    tables: Tables  # which published rows its rows fill
    _made: dict[tuple[str, str], list[tuple[str, dict[str, Any], tuple[Protocol, ...]]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def expand(
        self,
        profile: str,
        data: Mapping[str, DataIdentity] | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        boxes: Mapping[str, str] | None = None,
    ) -> list[Row]:
        """Every row at this profile, in the file's order. Raises InputError on the first thing that does not fit.

        data: the name a config asks for -> the images at hand for it; another set may stand in (shapes for cifar10).
        boxes: detection data set -> content, of those at hand.
        """
        used_seeds = list(seeds) if seeds is not None else self._seeds(profile)
        rows = []
        for name, asked, wanted in self._resolved(profile, overrides or {}):
            config = with_images(asked, data)
            count = next((at_hand.count for at_hand in (data or {}).values() if at_hand.name == config["data"]["name"]), 0)
            evaluated = on_cell(wanted, config, boxes, count)
            rows.append(Row(name, tuple(Cell(config | {"seed": seed}, evaluated) for seed in used_seeds)))
        return rows

    def _resolved(self, profile: str, overrides: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], tuple[Protocol, ...]]]:
        """(name, config with any seed, protocols) of every row, made once: the images at hand change none of it."""
        spelt = profile, repr(list(overrides.items()))  # and not the values: 1 and 1.0 are equal, but not in an id
        if spelt in self._made:
            return self._made[spelt]
        settings = self._profile(profile)
        protocols = self._protocols(("profiles", profile, "evaluate"), settings.get("evaluate"))
        shared = [
            self._layer(self.document.value.get("base", {}), ("base",), False),
            self._layer(settings.get("set", {}), ("profiles", profile, "set"), False),
        ]
        command = Layer(
            {tuple(key.split(".")): value for key, value in overrides.items()},
            lambda path: f"command line: {'.'.join(path)}",
            False,
        )
        rows = []
        for name, at in self.rows:
            own = self.document.value["rows"][name] or {} if at else {}
            layers = [*shared, self._layer(own, at, True) if at else Layer(self.generated[name], self._where(()), True)]
            wanted, asked_at = protocols
            if words := dict((settings.get("rows") or {}).get(name) or {}):
                at_profile = ("profiles", profile, "rows", name)
                if "evaluate" in words:  # this row is measured otherwise than the others
                    wanted, asked_at = self._protocols((*at_profile, "evaluate"), words.pop("evaluate"))
                layers.append(self._layer(words, at_profile, True))
            config = resolve([*layers, command])
            for protocol in wanted:
                if problem := unsuitable(protocol, config):
                    raise InputError(f"{asked_at((protocol['name'],))}: row '{name}': {problem}")
            rows.append((name, canonical(config | {"seed": 0}), wanted))
        self._made[spelt] = rows
        return rows

    def seeds(self, profile: str) -> list[int]:
        return self._seeds(profile)

    def about(self, profile: str) -> str:
        return str(self._profile(profile).get("about", ""))

    def _profile(self, profile: str) -> dict[str, Any]:
        profiles = self.document.value.get("profiles", {})
        if profile not in profiles:
            raise InputError(
                f"{self.path}: this sweep has no profile '{profile}'; it has {', '.join(profiles)}{nearest(profile, profiles)}"
            )
        return profiles[profile] or {}

    def _where(self, prefix: Path_) -> Where:
        return lambda path: self.document.at(*prefix, *path)

    def _layer(self, section: Any, prefix: Path_, explicit: bool) -> Layer:
        if not isinstance(section or {}, dict):
            raise InputError(f"{self.document.at(*prefix)}: expected keys and values")
        lines: dict[Path_, Path_] = {}  # nested path -> path as written, because `a.b: 1` and `a: {b: 1}` are the same key

        def where(path: Path_) -> str:
            written = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), path)
            return self.document.at(*prefix, *written)

        for written, _ in leaves(section or {}):
            lines[undotted(written)] = written
        return Layer(dict(leaves(undot(section or {}, self._where(prefix)))), where, explicit)

    def _seeds(self, profile: str) -> list[int]:
        inside = "seeds" in self._profile(profile)
        found = self._profile(profile)["seeds"] if inside else self.document.value.get("seeds", [0])
        where = self.document.at(*(("profiles", profile, "seeds") if inside else ("seeds",)))
        if not isinstance(found, list) or not found or not all(type(seed) is int and seed >= 0 for seed in found):
            raise InputError(f"{where}: expected a list of whole numbers such as [0, 1, 2], found {found!r}")
        if len(set(found)) != len(found):
            raise InputError(f"{where}: a random seed is given twice in {found}")
        return list(found)

    def _protocols(self, prefix: Path_, wanted: Any) -> tuple[tuple[Protocol, ...], Where]:
        """The protocols that stand at `prefix`, or where nothing does those of the whole sweep; and where each stands."""
        if wanted is None:
            prefix, wanted = ("evaluate",), self.document.value.get("evaluate", list(DEFAULT))
        where = self._where(prefix)
        return read_protocols(wanted, where), where


def load_sweep(path: Path, profile: str | None = None) -> Sweep:
    """Read and check a sweep file with its includes. Raises InputError with file, line and key path.

    profile: the only one whose rows are resolved, where that is all that is asked of many files; None is all of them.
    """
    document = _with_includes(read_document(path), seen=())
    value = document.value
    for key in value:
        if key not in _TOP:
            raise InputError(f"{document.at(key)}: unknown key; allowed here: {', '.join(_TOP)}{nearest(key, _TOP)}")
    for key in ("question", "profiles"):
        if key not in value:
            raise InputError(f"{path}: the key '{key}' is missing; a sweep states its question and its profiles")
    for key in ("base", "rows", "grid", "vary", "profiles", "paper"):
        if not isinstance(value.get(key) or {}, dict):
            raise InputError(f"{document.at(key)}: expected keys and values")
    if not value["profiles"]:
        raise InputError(f"{document.at('profiles')}: no profile is given; a sweep has at least one of {', '.join(PROFILES)}")
    for key in ("zip", "exclude"):
        found = value.get(key) or []
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise InputError(f"{document.at(key)}: expected a list of entries such as {{epochs: 2}}")
    rows = [(name, ("rows", name)) for name in value.get("rows") or {}]
    generated = _generated(document)
    if not rows and not generated:
        if any(value.get(key) for key in ("vary", "grid", "zip")):
            raise InputError(f"{document.at('exclude')}: excludes every row")
        generated = {"base": {}}
    sweep = Sweep(
        path,
        document,
        str(value["question"]),
        value.get("paper") or {},
        (*rows, *((name, ()) for name in generated)),
        generated,
        tuple(value["profiles"] or {}),
        read_tables(document, [name for name, _ in rows] + list(generated)),
    )
    _check_profiles(sweep, profile)
    return sweep


def _check_profiles(sweep: Sweep, only: str | None) -> None:
    names = [name for name, _ in sweep.rows]
    for profile in sweep.profiles:
        if profile not in PROFILES:
            at = sweep.document.at("profiles", profile)
            raise InputError(f"{at}: unknown profile; allowed: {', '.join(PROFILES)}{nearest(profile, PROFILES)}")
        settings = sweep._profile(profile)
        if not isinstance(settings, dict):
            raise InputError(f"{sweep.document.at('profiles', profile)}: expected keys among {', '.join(_PROFILE)}")
        for key in settings:
            if key not in _PROFILE:
                at = sweep.document.at("profiles", profile, key)
                hint = nearest(key, _PROFILE) or "; settings of the experiment go under 'set'"
                raise InputError(f"{at}: unknown key; allowed here: {', '.join(_PROFILE)}{hint}")
        own = settings.get("rows") or {}
        if not isinstance(own, dict) or not all(isinstance(words or {}, dict) for words in own.values()):
            raise InputError(f"{sweep.document.at('profiles', profile, 'rows')}: expected row names with keys and values")
        for name in own:
            if name not in names:
                at = sweep.document.at("profiles", profile, "rows", name)
                raise InputError(f"{at}: no row of this name; the rows are {', '.join(names)}{nearest(name, names)}")
        if only in (None, profile):
            sweep.expand(profile)  # every row of every profile must resolve, whichever one is run later


def _with_includes(document: Document, seen: tuple[Path, ...]) -> Document:
    """The document with the files it includes merged beneath it (its own words win)."""
    includes = document.value.get("include", [])
    if not isinstance(includes, list):
        raise InputError(f"{document.at('include')}: expected a list of files")
    merged = Document(document.path, {}, {})
    for name in includes:
        target = (document.path.parent / str(name)).resolve()
        if target in seen:
            raise InputError(f"{document.at('include')}: {name} includes itself")
        if not target.is_file():
            raise InputError(f"{document.at('include')}: {name}: no such file beside {document.path.name}")
        part = _with_includes(read_document(target), (*seen, document.path.resolve()))
        merged.value = _merge(merged.value, part.value)
        merged.lines |= part.lines
    merged.value = _merge(merged.value, {k: v for k, v in document.value.items() if k != "include"})
    merged.lines |= document.lines
    return merged


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result


def _generated(document: Document) -> dict[str, dict[Path_, Any]]:
    """Rows from vary (one factor at a time from the base), grid (full product) and zip (coupled factors), less `exclude`."""
    value = document.value

    def axis(key: str, choices: Any, *at: str) -> list[tuple[str, Any]]:
        if not isinstance(choices, list) or not choices:
            raise InputError(f"{document.at(*at, key)}: expected a list of values")
        return [(key, choice) for choice in choices]

    combinations: list[tuple[tuple[str, Any], ...]] = []
    if value.get("vary"):
        combinations.append(())
        combinations += [(pair,) for key, choices in value["vary"].items() for pair in axis(key, choices, "vary")]
    if value.get("grid"):
        combinations += itertools.product(*(axis(key, choices, "grid") for key, choices in value["grid"].items()))
    for number, group in enumerate(value.get("zip") or []):
        columns = [axis(key, choices, "zip", f"[{number}]") for key, choices in group.items()]
        if len({len(column) for column in columns}) > 1:
            raise InputError(f"{document.at('zip', f'[{number}]')}: coupled factors must have equally many values")
        combinations += zip(*columns, strict=True)
    excluded = [set(map(_hashable, rule.items())) for rule in value.get("exclude") or []]
    rows = {}
    for pairs in combinations:
        if any(rule <= set(map(_hashable, pairs)) for rule in excluded):
            continue
        name = ", ".join(f"{key} = {shown(choice)}" for key, choice in pairs) or "base"
        rows[name] = {tuple(key.split(".")): choice for key, choice in pairs}
    return rows


def _hashable(pair: tuple[str, Any]) -> tuple[str, str]:
    return pair[0], repr(pair[1])


def box_names(rows: Iterable[Row]) -> list[str]:
    """The detection data sets that these rows are evaluated on, in the order of their first use."""
    protocols = (protocol for row in rows for cell in row.cells for protocol in cell.protocols)
    return list(dict.fromkeys(name for protocol in protocols if (name := boxes_of(protocol))))


def data_names(rows: Iterable[Row]) -> list[str]:
    """The data sets these rows are about, in the order of their first use."""
    return list(dict.fromkeys(str(cell.config["data"]["name"]) for row in rows for cell in row.cells))
