"""Which cells a rule of a cluster profile is about: conditions on their configs, `encoder.name: [vit_small, vit_base]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.document import leaves, undotted
from benchmark.plan.schema import check_value, experiment_spec, method_names

_BESIDE = {"seed": "int", "data.content": "str"}  # in every config, but nothing that a sweep sets


@dataclass(frozen=True)
class Condition:
    """Holds for a cell whose setting at the dotted path `key` is one of `values`; a cell without that setting is not meant."""

    key: str
    values: tuple[Any, ...]

    def holds(self, config: Mapping[str, Any]) -> bool:
        value: Any = config
        for part in self.key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                value = _left_out(str(config.get("method", ""))).get(self.key)
                break
            value = value[part]
        return value is not None and any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values
        )


def read_conditions(section: dict[str, Any], where: Callable[[tuple[str, ...]], str]) -> tuple[Condition, ...]:
    """Raises InputError for a key that no method knows and for a value that it cannot have. A list means any of these."""
    found = []
    for written, value in leaves(section):
        key = ".".join(undotted(written))
        specs = _settings().get(key)
        if specs is None:
            told = "no setting of a cell; a rule looks at words and numbers that a sweep can set, such as encoder.name"
            raise InputError(f"{where(written)}: '{key}' is {told}{nearest(key, _settings())}")
        values = value if isinstance(value, list) else [value]
        if not values or any(one is None or isinstance(one, list | dict) for one in values):
            raise InputError(f"{where(written)}: expected a value or a list of values, found {value!r}")
        found.append(Condition(key, tuple(_checked(one, specs, key, where, written) for one in values)))
    return tuple(found)


def _checked(
    value: Any, specs: list[dict[str, Any]], key: str, where: Callable[[tuple[str, ...]], str], written: tuple[str, ...]
) -> Any:
    """The value as a config holds it. What one method allows is allowed: a rule is not about one method alone."""
    refusal: InputError | None = None
    for spec in specs:
        try:
            return check_value(value, spec, tuple(key.split(".")), lambda path: where(written))
        except InputError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


@cache
def _settings() -> dict[str, list[dict[str, Any]]]:
    """Dotted path -> the different specs that methods have for it."""
    found: dict[str, list[dict[str, Any]]] = {"method": [{"type": "str", "choices": method_names()}]}
    found |= {key: [{"type": kind}] for key, kind in _BESIDE.items()}
    for method in method_names():
        for key, spec in _of_spec(experiment_spec(method)):
            if spec not in found.setdefault(key, []):
                found[key].append(spec)
    return found


def _of_spec(spec: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in spec["fields"].items():
        if inner["type"] == "section":
            yield from _of_spec(inner, (*above, name))
        elif inner["type"] in ("int", "float", "bool", "str"):
            yield ".".join((*above, name)), inner


@cache
def _left_out(method: str) -> dict[str, Any]:
    """Dotted path -> default, of the settings that this method's configs leave out at their default."""
    if method not in method_names():
        return {}
    return {key: spec["absent"] for key, spec in _of_spec(experiment_spec(method)) if "absent" in spec}
