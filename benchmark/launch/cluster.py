"""A file of `slurm/clusters/`: how to ask a site for what a cell needs, and which cells need more or less than most.

Read strictly, without torch and without SLURM: `python -m slurm.check` reads the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.launch.rules import Condition, read_conditions
from benchmark.plan.cost import words
from benchmark.plan.document import Document, read_document

_KINDS = {str: "a text", int: "a whole number", bool: "true or false", tuple: "a list of texts", dict: "a mapping"}
_MAY_BE_ZERO = ("gpus", "ranks", "mem_gb", "submit_limit")
_GPUS = re.compile(r"gpu(?::[^:,]+)?(?::(\d+))?")  # one word of --gres that asks for GPUs: gpu, gpu:2, gpu:a100:2
# What this program says itself: given again under `extra` one of the two would be lost without a word.
_OURS = {
    "time": "minutes", "partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint", "gres": "gres",
    "gpus": "gpus", "gpus-per-node": "gpus", "gpus-per-task": "gpus", "nodes": "nodes", "ntasks": "ranks",
    "ntasks-per-node": "ranks", "cpus-per-task": "cpus", "mem": "mem_gb", "signal": "signal_delay_seconds",
    "array": "array_limit and array_parallelism", "job-name": "", "output": "", "error": "", "open-mode": "", "requeue": "",
    "no-requeue": "",
}  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """What one job asks for; two cells with equal asks go into one array. Memory and GPUs are those of a node, CPUs those of
    a process; a cell is trained by `processes` of them, one for each GPU."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""  # handed to sbatch as it is, where a site wants GPUs to be named so
    gpus: int = 1
    nodes: int = 1
    ranks: int = 0  # only without GPUs: how many processes train a cell, over all its nodes; 0: one on each node
    cpus: int = 8
    mem_gb: int = 32  # 0: not asked for, the site decides
    minutes: int = 720
    signal_delay_seconds: int = 120  # time for a checkpoint between the warning and the kill
    extra: tuple[tuple[str, Any], ...] = ()  # more options of sbatch
    setup: tuple[str, ...] = ()  # shell lines before the job, such as `module load cuda`

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus if self.gpus else self.ranks or self.nodes

    @property
    def words(self) -> str:
        """For people: `2 nodes with 8 GPUs each, 16 processes, ...`."""
        gpus = f"{self.gpus} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else "no GPU"
        parts = [gpus if self.nodes == 1 else f"{self.nodes} nodes with {gpus}{' each' if self.gpus else ''}"]
        if self.processes > 1:
            parts.append(f"{self.processes} processes of {self.cpus} CPU{'s' if self.cpus > 1 else ''}")
        else:
            parts.append(f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}")
        if self.mem_gb:
            parts.append(f"{self.mem_gb} GB{' a node' if self.nodes > 1 else ''}")
        parts.append(words(60 * self.minutes))
        named = [("partition", self.partition), ("qos", self.qos), ("constraint", self.constraint), ("gres", self.gres)]
        parts += [f"{name} {value}" for name, value in named if value]
        parts += [name if value is True else f"{name} {value}" for name, value in self.extra]
        return ", ".join(parts)


@dataclass(frozen=True)
class Rule:
    """Cells that meet all conditions ask for something else; `where` begins an error about it."""

    conditions: tuple[Condition, ...]
    changes: Mapping[str, Any]
    where: str

    def matches(self, config: Mapping[str, Any]) -> bool:
        return all(condition.holds(config) for condition in self.conditions)


@dataclass(frozen=True)
class Cluster:
    """A whole profile. Of two rules that match a cell and set the same key the lower one in the file wins."""

    path: Path
    ask: Ask = field(default_factory=Ask)
    array_parallelism: int = 64  # cells of one submission that run at once
    array_limit: int = 1000  # cells of one array; the site's MaxArraySize caps it further
    submit_limit: int = 0  # our jobs in the queue at once, of all sweeps; 0: as many as there are
    snapshot: bool = False  # jobs run from a copy of the code as it was when they were submitted
    rules: tuple[Rule, ...] = ()

    def ask_for(self, config: Mapping[str, Any]) -> Ask:
        """What a cell with this config asks for. Raises InputError where the rules together make no sense."""
        ask, where = self.ask, str(self.path)
        for rule in self.rules:
            if rule.matches(config):
                ask, where = replace(ask, **rule.changes), rule.where
        _check(ask, where)
        return ask


_OF_THE_SITE = tuple(one.name for one in fields(Cluster) if one.name not in ("path", "ask", "rules"))
_OF_AN_ASK = tuple(one.name for one in fields(Ask))


def read_cluster(path: Path) -> Cluster:
    """Raises InputError naming file, line and key."""
    document = read_document(path)
    allowed = (*_OF_AN_ASK, *_OF_THE_SITE, "cells")
    for key in document.value:
        if key not in allowed:
            raise InputError(f"{document.at(key)}: unknown key; allowed here: {', '.join(allowed)}{nearest(key, allowed)}")
    asked = {key: _value(document, key) for key in document.value if key in _OF_AN_ASK}
    site = {key: _value(document, key) for key in document.value if key in _OF_THE_SITE}
    ask = Ask(**asked)
    _check(ask, str(path))
    return Cluster(path, ask, **site, rules=_rules(document))


def _value(document: Document, *keys: str) -> Any:
    """The checked value of one key of an ask or of the site, at the top or in a rule."""
    value: Any = document.value
    for key in keys:
        value = value[int(key[1:-1])] if isinstance(value, list) else value[key]
    key, at = keys[-1], document.at(*keys)
    default = Ask.__dataclass_fields__.get(key) or Cluster.__dataclass_fields__[key]
    expected = dict if key == "extra" else type(default.default)
    fits = type(value) is (list if expected is tuple else expected)
    if not fits or (expected is tuple and not all(isinstance(line, str) for line in value)):
        raise InputError(f"{at}: expected {_KINDS[expected]}, found {value!r}")
    least = 0 if key in _MAY_BE_ZERO else 1
    if expected is int and value < least:
        raise InputError(f"{at}: expected {least} or more, found {value}")
    if key == "extra":
        return _extra(document, keys, value)
    return tuple(value) if expected is tuple else value


def _extra(document: Document, keys: tuple[str, ...], value: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options for sbatch, spelled as it spells them: the leading dashes may be there or not."""
    found: dict[str, Any] = {}
    for written, given in value.items():
        at, name = document.at(*keys, written), written.lstrip("-").replace("_", "-")
        if name in _OURS:
            instead = f"; say {_OURS[name]} instead" if _OURS[name] else "; this program needs its own"
            raise InputError(f"{at}: this option of sbatch cannot be given under extra{instead}")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise InputError(f"{at}: expected a long option of sbatch such as exclude or mail-type, found '{written}'")
        if given is not True and (isinstance(given, bool) or not isinstance(given, str | int | float)):
            raise InputError(f"{at}: expected a text, a number or true (an option without a value), found {given!r}")
        found[name] = given if given is True else str(given)
    return tuple(sorted(found.items()))


def _rules(document: Document) -> tuple[Rule, ...]:
    listed = document.value.get("cells", [])
    if not isinstance(listed, list):
        raise InputError(f"{document.at('cells')}: expected a list of rules such as {{when: {{method: dino}}, gpus: 8}}")
    rules = []
    for number, rule in enumerate(listed):
        keys = ("cells", f"[{number}]")
        if not isinstance(rule, dict) or not isinstance(rule.get("when"), dict) or not rule["when"]:
            raise InputError(f"{document.at(*keys)}: expected a rule such as {{when: {{method: dino}}, gpus: 8}}")
        changes = [key for key in rule if key != "when"]
        for key in changes:
            if key in _OF_THE_SITE:
                raise InputError(f"{document.at(*keys, key)}: holds for the whole site; say it at the top of the file")
            if key not in _OF_AN_ASK:
                allowed = ("when", *_OF_AN_ASK)
                told = f"unknown key; allowed in a rule: {', '.join(allowed)}{nearest(key, allowed)}"
                raise InputError(f"{document.at(*keys, key)}: {told}")
        if not changes:
            raise InputError(f"{document.at(*keys)}: this rule changes nothing; add what its cells need, such as gpus: 8")
        conditions = read_conditions(rule["when"], lambda path, keys=keys: document.at(*keys, "when", *path))  # type: ignore[misc]
        rules.append(Rule(conditions, {key: _value(document, *keys, key) for key in changes}, document.at(*keys)))
    return tuple(rules)


def _check(ask: Ask, where: str) -> None:
    """What no single key is wrong about."""
    if ask.gpus and ask.ranks and ask.ranks != ask.gpus * ask.nodes:
        told = f"with GPUs a cell has gpus x nodes = {ask.gpus * ask.nodes} processes"
        raise InputError(f"{where}: ranks is {ask.ranks}, but {told}; leave ranks out")
    if ask.processes % ask.nodes:
        raise InputError(f"{where}: {ask.processes} ranks cannot be shared evenly by {ask.nodes} nodes")
    of_gpus = [found for word in ask.gres.split(",") if (found := _GPUS.fullmatch(word.strip()))]
    if of_gpus and (named := sum(int(found[1] or 1) for found in of_gpus)) != ask.gpus:
        raise InputError(f"{where}: gres asks for {named} GPUs a node, gpus for {ask.gpus}; the two must agree")


def names_gpus(gres: str) -> bool:
    """Whether a --gres asks for GPUs, so that they need not be asked for a second time."""
    return any(_GPUS.fullmatch(word.strip()) for word in gres.split(","))
