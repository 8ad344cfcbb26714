"""A YAML file read strictly, with the line of every value kept for error messages.

Scalars follow the YAML 1.2 core schema, not PyYAML's 1.1: `1e-3` is a number, `no` and `on` are text, `010` is ten and
`10:30` is text. A key given twice is an error instead of a silent overwrite.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import InputError

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "True": True, "false": False, "False": False}


@dataclass
class Document:
    """The plain value of a file, and where each value stands: key path -> (file, line from 1)."""

    path: Path
    value: dict[str, Any]
    lines: dict[tuple[str, ...], tuple[Path, int]] = field(default_factory=dict)

    def at(self, *keys: str) -> str:
        """`file:line: key > path`, the beginning of an error about that value (or its nearest known parent)."""
        known = (self.lines[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.lines)
        where = "{}:{}".format(*next(known, (self.path, 1)))
        return f"{where}: {' > '.join(keys)}" if keys else where


def _scalar(node: yaml.ScalarNode) -> Any:
    # quoted or block text is always text; of plain text libyaml says '' and PyYAML None
    return node.value if node.style else scalar(node.value)


def scalar(text: str) -> Any:
    """What an unquoted word means: null, true, false, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _plain(node: yaml.Node, path: tuple[str, ...], document: Document, above: tuple[yaml.Node, ...] = ()) -> Any:
    document.lines[path] = (document.path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if node in above:
        raise InputError(f"{document.at(*path)}: an alias (*name) that contains itself")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*path, f"[{i}]"), document, above) for i, child in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise InputError(f"{document.at(*path)}: a key must be a word, found a list or a mapping")
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in result:
            raise InputError(f"{document.path}:{line}: {' > '.join((*path, key))}: this key is given twice; keep one")
        result[key] = _plain(value_node, (*path, key), document, above)
        document.lines[(*path, key)] = (document.path, line)
    return result


def read_document(path: Path) -> Document:
    """Read one YAML file whose top level is a mapping. Raises InputError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; that folder has {', '.join(near[:8])}" if near else ""
        raise InputError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    return _parsed(path, text)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, text: str) -> Document:
    """The document of a text; of many sweeps that include one file it is made once. Treat it as read-only."""
    try:
        node = _composed(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    document = Document(path, {})
    if node is None:
        raise InputError(f"{path}: the file is empty; expected a mapping")
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}:1: expected a mapping of keys to values at the top level")
    document.value = _plain(node, (), document)
    return document


def _composed(text: str) -> yaml.Node | None:
    """The nodes of a text, by libyaml where PyYAML was built with it: ten times as fast.

    What libyaml does not take is read again by PyYAML itself, whose words about it are the better ones; so is a text with
    tabs, some of which libyaml lets pass.
    """
    if hasattr(yaml, "CSafeLoader") and "\t" not in text:
        try:
            return yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            pass
    return yaml.compose(text, Loader=yaml.SafeLoader)


def leaves(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(key path, value) of every value that is not itself a mapping."""
    for key, child in value.items():
        if isinstance(child, dict) and child:
            yield from leaves(child, (*path, key))
        else:
            yield (*path, key), child


def undotted(path: tuple[str, ...]) -> tuple[str, ...]:
    """("a.b", "c") as ("a", "b", "c")."""
    return tuple(part for key in path for part in key.split("."))


def undot(section: dict[str, Any], where: Callable[[tuple[str, ...]], str]) -> dict[str, Any]:
    """`a.b: 1` as `a: {b: 1}`; the same key in both spellings is an error."""
    result: dict[str, Any] = {}
    for written, value in leaves(section):
        *parents, last = undotted(written)
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise InputError(f"{where(written)}: '{parent}' is both a value and a section here")
        if last in inner:
            raise InputError(f"{where(written)}: this key is given twice (once with dots, once as a section); keep one")
        inner[last] = value
    return result
