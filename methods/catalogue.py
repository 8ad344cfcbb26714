"""What can be said of the methods without importing torch: their config fields, defaults, versions, papers.

Planning and reporting read `catalogue.json` beside this file. `python -m methods.catalogue` writes it anew from the
classes; a test fails when the two differ.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

_PATH = Path(__file__).with_name("catalogue.json")


@functools.cache
def CATALOGUE() -> dict[str, Any]:
    """{"encoder": spec, "methods": {name: {version, paper, num_views, recipe, trains, ..., config: spec}}}.

    A spec is what `describe` returns. Read once a process; treat it as read-only.
    """
    return json.loads(_PATH.read_text(encoding="utf-8"))


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    """The types of a config's fields; evaluating their texts takes longer than all else that is done with them."""
    return get_type_hints(config)


def describe(config: type, default: Any = None) -> dict[str, Any]:
    """The spec of a config dataclass: {"fields": {name: {"type", "default", "choices"?, "fields"?, ...}}}.

    Types are int, float, bool, str, pair (two floats), ints and floats (any number), names (any number of `choices`) and
    section (a nested dataclass, with its own fields). Defaults are those of `default`, an instance, else of the class.

    A field's metadata goes along, for planning to refuse rows that contradict it:
        governs   {value: keys that are unused under it}
        needs     {value: {key: value} it cannot do without}
        matches   {key of this section: other section that must have the same value there}
        at_least  the key of another number that this one must reach: a queue holds a batch
        adds      {value: recipes, the first view of each is one more view}
        later     a setting that came after records were published; `absent` is the value at which a cell's config and so
                  its id leave it out
    Raises TypeError for a field that a sweep could not set.
    """
    hints = _hints(config)
    spec: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(default, field.name) if default is not None else _default(config, field)
        described = _describe_field(f"{config.__name__}.{field.name}", hints[field.name], value)
        said = {key: told for key, told in field.metadata.items() if key != "later"}
        if field.metadata.get("later"):  # a config in which it has this value does not mention it
            said["absent"] = _plain(_default(config, field))
        spec[field.name] = described | said
    return {"fields": spec}


def from_values(config: type, values: dict[str, Any]) -> Any:
    """An instance of a config dataclass from plain values, as a cell's config.json holds them.

    Sections become dataclasses and lists tuples; fields that `values` lacks keep their defaults.
    """
    hints = _hints(config)
    made = {}
    for name, value in values.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            value = from_values(hint, value)
        elif isinstance(value, list):
            value = tuple(value)
        made[name] = value
    return config(**made)


def _default(config: type, field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"{config.__name__}.{field.name} has no default: every field of a config needs one")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _describe_field(name: str, hint: Any, value: Any) -> dict[str, Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        return {"type": "section", **describe(hint, value)}
    if get_origin(hint) is Literal:
        return {"type": "str", "default": value, "choices": list(get_args(hint))}
    if hint in (bool, int, float, str):
        return {"type": hint.__name__, "default": value}
    if hint == tuple[int, ...]:
        return {"type": "ints", "default": list(value)}
    if hint == tuple[float, ...]:
        return {"type": "floats", "default": list(value)}
    if get_origin(hint) is tuple and get_args(hint) == (float, float):
        return {"type": "pair", "default": list(value)}
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,) and get_origin(get_args(hint)[0]) is Literal:
        return {"type": "names", "default": list(value), "choices": list(get_args(get_args(hint)[0]))}
    shown = hint if isinstance(hint, types.GenericAlias) else getattr(hint, "__name__", hint)
    raise TypeError(f"{name} has type {shown}, which a sweep cannot set")


def documented(docstring: str) -> dict[str, str]:
    """What a method's file says of itself: its first sentence as `title`, the number it should reach as `reaches`."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\n|\n(?=Should reach|Switches)", docstring.strip())]
    reaches = next((part for part in paragraphs if part.startswith("Should reach")), "")
    return {"title": paragraphs[0].removesuffix("."), "reaches": reaches.removeprefix("Should reach").strip(" ,.")}


def generate() -> dict[str, Any]:
    """The catalogue of the classes as they are now. Imports torch."""
    from methods import METHODS, load
    from methods.encoders.config import EncoderConfig

    methods: dict[str, Any] = {}
    for name in sorted(METHODS):
        method = load(name)
        methods[name] = {
            "version": method.VERSION,
            "paper": method.PAPER,
            **documented(sys.modules[method.__module__].__doc__ or ""),
            "num_views": method.NUM_VIEWS,
            "recipe": method.RECIPE,
            "trains": method.TRAINS,
            "multi_crop": method.MULTI_CROP,
            "patches": method.PATCHES,
            "modalities": method.MODALITIES,
            "config": describe(method.Config),
        }
    return {"encoder": describe(EncoderConfig), "methods": methods}


def rendered() -> str:
    """The text that catalogue.json should hold. Imports torch."""
    return json.dumps(generate(), indent=1) + "\n"


if __name__ == "__main__":
    _PATH.write_text(rendered(), encoding="utf-8")
    print(f"wrote {_PATH.name}: {', '.join(generate()['methods'])}")
