"""catalogue.json says what the classes say."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest

import methods.catalogue as catalogue
from methods import METHODS, load
from methods.byol import BYOLConfig
from methods.catalogue import CATALOGUE, describe, from_values
from methods.encoders.config import EncoderConfig


def test_the_file_is_in_step_with_the_classes() -> None:
    path = Path(catalogue.__file__).with_name("catalogue.json")
    assert path.read_text(encoding="utf-8") == catalogue.rendered(), "run python -m methods.catalogue"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_file_names_its_paper_its_protocol_and_the_number_to_reach(name: str) -> None:
    entry = CATALOGUE()["methods"][name]
    text = sys.modules[load(name).__module__].__doc__ or ""
    if not entry["trains"]:
        return
    assert re.search(r"arXiv \d{4}\.\d{5}|blog", text) or name == "supervised"
    assert re.search(r"\d", entry["reaches"]), "Should reach NUMBER (where it is printed)"
    assert re.search(r"table|README|abstract|figure|cited|memory", entry["reaches"]), "where the number is printed"
    assert re.search(r"^(Default p|P)rotocol", text, re.MULTILINE), "the paper's protocol"
    assert "=" in text, "the equations"


@dataclass(frozen=True)
class Inner:
    a: int = 1
    b: tuple[float, float] = (0.5, 2.0)


@dataclass(frozen=True)
class Outer:
    name: Literal["x", "y"] = "x"
    on: bool = True
    rate: float = field(default=0.1, metadata={"governs": {"0.0": ["text"]}})
    text: str = "t"
    inner: Inner = Inner(a=7)
    other: Inner = field(default_factory=Inner)


def test_describe_names_types_defaults_and_choices() -> None:
    assert describe(Outer)["fields"] == {
        "name": {"type": "str", "default": "x", "choices": ["x", "y"]},
        "on": {"type": "bool", "default": True},
        "rate": {"type": "float", "default": 0.1, "governs": {"0.0": ["text"]}},
        "text": {"type": "str", "default": "t"},
        "inner": {
            "type": "section",
            "fields": {"a": {"type": "int", "default": 7}, "b": {"type": "pair", "default": [0.5, 2.0]}},
        },
        "other": {
            "type": "section",
            "fields": {"a": {"type": "int", "default": 1}, "b": {"type": "pair", "default": [0.5, 2.0]}},
        },
    }


def test_describe_refuses_what_a_sweep_could_not_set() -> None:
    @dataclass(frozen=True)
    class Listed:
        values: list[int] = field(default_factory=list)

    @dataclass(frozen=True)
    class Bare:
        value: int

    with pytest.raises(TypeError, match="which a sweep cannot set"):
        describe(Listed)
    with pytest.raises(TypeError, match="has no default"):
        describe(Bare)


def test_values_make_the_config_they_came_from() -> None:
    outer = Outer(name="y", inner=Inner(a=3, b=(1.0, 2.0)))
    plain = asdict(outer)
    plain["inner"]["b"] = [1.0, 2.0]  # as JSON has it
    assert from_values(Outer, plain) == outer
    assert from_values(Outer, {}) == Outer()
    assert from_values(EncoderConfig, {"norm": "layer"}).norm == "layer"
    assert from_values(BYOLConfig, asdict(BYOLConfig())) == BYOLConfig()


def test_every_method_and_field_is_there() -> None:
    found = CATALOGUE()["methods"]
    assert set(found) == set(METHODS)
    for name, entry in found.items():
        assert list(entry["config"]["fields"]) == [f.name for f in fields(load(name).Config)]
        assert (entry["version"], entry["trains"]) == (load(name).VERSION, load(name).TRAINS)


def governed(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(key, entry, spec["fields"]) for key, entry in spec["fields"].items() if {"governs", "needs"} & set(entry)]


def test_rules_between_fields_name_fields_that_exist() -> None:
    for entry in CATALOGUE()["methods"].values():
        for _, rule, known in governed(entry["config"]):
            for unused in rule.get("governs", {}).values():
                assert set(unused) <= set(known)
            for needed in rule.get("needs", {}).values():
                assert set(needed) <= set(known)
