"""The `evaluate` part of a sweep: protocols with their settings, and what they become on one cell.

    evaluate: [knn, linear]                                  by name, as the protocol is published
    evaluate: {knn: {k: 20}, linear: {}}                     with settings of one's own
    evaluate: {knn: [{k: 20}, {k: 200}]}                     one protocol several times; a table shows the first of them

A protocol that is measured on a detection data set names it in `dataset`, one that learns from a list of images names the
file in `labels`; its identity has the content of that set, or of that file, as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.cell import canonical
from benchmark.plan.document import undot
from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.resolve import UNPREPARED
from benchmark.plan.schema import Spec, Where, check_value, defaults, fill
from methods.catalogue import from_values

Protocol = dict[str, Any]  # {"name": "knn", "version": 1, "k": 200, ...}
DEFAULT = ("knn", "linear", "collapse")


def read_protocols(wanted: Any, where: Where) -> tuple[Protocol, ...]:
    """Every protocol that is asked for, with all its settings. where: of a key path within `evaluate`.

    InputError for an unknown protocol, a setting that it does not have or cannot have, and what is asked for twice.
    """
    if isinstance(wanted, list):
        names = [str(name) for name in wanted]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"{where(())}: {twice} is asked for twice; keep one")
        wanted = dict.fromkeys(names)
    if not isinstance(wanted, dict):
        raise InputError(f"{where(())}: expected a list of protocols among {', '.join(PROTOCOLS)}")
    protocols: list[Protocol] = []
    for name, said in wanted.items():
        if name not in PROTOCOLS:
            allowed = ", ".join(PROTOCOLS)
            raise InputError(f"{where(())}: unknown protocol '{name}'; allowed: {allowed}{nearest(name, PROTOCOLS)}")
        several = isinstance(said, list)
        if several and not said:
            raise InputError(f"{where((name,))}: an empty list; write its settings, or {name}: {{}}")
        for number, section in enumerate(said if several else [said]):
            at = (name, f"[{number}]") if several else (name,)
            protocol = _protocol(name, {} if section is None else section, _below(where, at))
            if protocol in protocols:
                raise InputError(f"{where(at)}: {name} is asked for twice with the same settings; keep one")
            protocols.append(protocol)
    return tuple(protocols)


def _below(where: Where, at: tuple[str, ...]) -> Where:
    return lambda path: where((*at, *path))


def _protocol(name: str, section: Any, where: Where) -> Protocol:
    version, config = PROTOCOLS[name]
    spec: Spec = {"type": "section", **defaults(config)}
    said = undot(section, where) if isinstance(section, dict) else section
    filled = fill(check_value(said, spec, (), where), spec)
    try:
        from_values(config, filled)
    except ValueError as error:  # what each setting allows by itself, but not together
        raise InputError(f"{where(())}: {error}") from None
    made: Protocol = canonical({"name": name, "version": version, **filled})
    return made


def on_cell(
    protocols: Iterable[Protocol], config: Mapping[str, Any], boxes: Mapping[str, str] | None = None, count: int = 0
) -> tuple[Protocol, ...]:
    """The protocols as they are carried out on a cell of this config. boxes: detection data set -> content, of those at hand.
    count: training images of the data set, 0 where it is not at hand.

    kNN cannot ask for more neighbours than there are training images: a small set lowers k and says so in the id.
    """
    data = config["data"]
    images = min(filter(None, (data["train_images"], count)), default=0)
    aside = max(1, round(images * data["held_out"])) if data["held_out"] else 0  # as benchmark.data.split
    kept = max(0, images - aside)
    made: list[Protocol] = []
    for protocol in protocols:
        if "k" in protocol and kept:
            protocol = protocol | {"k": min(protocol["k"], kept)}
            if "ks" in protocol:
                protocol["ks"] = list(dict.fromkeys(min(k, kept) for k in protocol["ks"]))
        if name := boxes_of(protocol):
            protocol = protocol | {"content": (boxes or {}).get(name, UNPREPARED)}
        if listed := labels_file(protocol):
            protocol = protocol | {"content": content_of(listed)}
        if protocol not in made:
            made.append(protocol)
    return tuple(made)


def labels_file(protocol: Mapping[str, Any]) -> Path | None:
    """The list of labelled images that a protocol, or its teacher, learns from, if it is a file."""
    labels = str(protocol.get("teacher", protocol).get("labels", ""))
    return Path(labels) if labels.endswith(".txt") else None


def content_of(file: Path) -> str:
    """12 hex digits of the bytes of a list of images; `unprepared` where it is not at hand."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except OSError:
        return UNPREPARED


def boxes_of(protocol: Mapping[str, Any]) -> str | None:
    """The detection data set that a protocol is measured on, if any."""
    name = protocol.get("dataset", "none")
    return None if name == "none" else str(name)
