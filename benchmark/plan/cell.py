"""A cell: one fully resolved experiment with its random seed, and the content id that names it everywhere.

The id is `<method>-<12 hex>` of the canonical config: every default filled in, the method's VERSION, the data's content, the
random seed. Whatever only says where and how fast a cell runs (data path, workers, device, launcher, threads, log level) is
not in the config at all, so it cannot get into the id. The sweep's name is not in it either: sweeps share cells.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

SCHEMA = 1  # of the canonical config; a change makes every id new


def canonical(value: Any) -> Any:
    """The same value for every spelling: sorted keys, no tuples, no -0.0, no NaN."""
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(child) for child in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a config holds no NaN and no infinity")
        return value + 0.0
    return value


def digest(value: Any) -> str:
    """12 hex digits (48 bits) of the canonical JSON; Python prints a float as its shortest exact decimal."""
    try:
        text = _text(value)
    except ValueError:
        canonical(value)  # says it in its own words
        raise
    if "-0.0" in text:  # all that a value which is not canonical can differ in, and `canonical` takes ten times as long
        text = _text(canonical(value))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


@dataclass(frozen=True)
class Evaluation:
    """One protocol applied to one cell's checkpoint. Its id covers the cell, the protocol's settings and its VERSION."""

    cell_id: str
    protocol: dict[str, Any]  # {"name": "knn", "version": 1, "k": 200, ...}

    @cached_property
    def id(self) -> str:
        return f"{self.protocol['name']}-{digest({'cell': self.cell_id, 'protocol': self.protocol})}"


@dataclass(frozen=True)
class Cell:
    """config is complete and canonical; see benchmark.plan.sweep for how it comes about. The cells of a row share its parts:
    treat it as read-only."""

    config: dict[str, Any]
    protocols: tuple[dict[str, Any], ...] = field(default=())

    @cached_property
    def id(self) -> str:
        return f"{self.config['method']}-{digest({'schema': SCHEMA, 'config': self.config})}"

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(Evaluation(self.id, protocol) for protocol in self.protocols)


def group_key(config: dict[str, Any]) -> str:
    """What the repetitions of one row share: everything but the random seed and which variant of the data was at hand."""
    shared = {key: value for key, value in config.items() if key != "seed"}
    shared["data"] = {key: value for key, value in config["data"].items() if key not in ("name", "content")}
    return digest(shared)


def without_version(config: dict[str, Any]) -> str:
    """The same experiment under any VERSION of its method: how a plan finds a stale predecessor."""
    return digest({key: value for key, value in config.items() if key != "version"})
