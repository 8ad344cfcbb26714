"""One row's layers of overrides -> its complete config: every key checked, every default filled in.

What a layer may say depends on the method that the row ends up with, so this is where a contradictory row is found out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.schema import (
    Spec,
    Where,
    check_value,
    experiment_spec,
    field_of,
    fill,
    method_names,
    view_values,
)
from benchmark.plan.views import added, check_view, concerns, misfit, planned_views, uncut
from methods.catalogue import CATALOGUE

Path_ = tuple[str, ...]
UNPREPARED = "unprepared"  # data content before the first conversion on this machine


@dataclass(frozen=True)
class DataIdentity:
    """Which images a config is about: the set's name and the 12 hex digits of its pixels and labels; how many it trains on."""

    name: str
    content: str
    count: int = 0


@dataclass(frozen=True)
class Layer:
    """Overrides from one place. `explicit`: the row itself says so, so its method must know the key."""

    values: dict[Path_, Any]
    where: Where
    explicit: bool


def shown(value: Any) -> str:
    """A value as a sweep file would spell it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolve(layers: Iterable[Layer]) -> dict[str, Any]:
    """The complete config of one row: every key checked, every default filled in, what does not apply left out.

    The images are those it asks for; `with_images` says which ones are at hand.
    """
    layers = list(layers)
    method = _method(layers)
    spec = experiment_spec(method)
    known_elsewhere = _known_to_methods()
    chosen: dict[Path_, tuple[Any, Layer]] = {}
    for layer in layers:
        for path, value in layer.values.items():
            if path == ("method",):
                continue
            if path[0] not in spec["fields"] and path[0] in known_elsewhere and not layer.explicit:
                continue
            if path[0] == "views" and not layer.explicit and not concerns(path, CATALOGUE()["methods"][method]):
                continue
            chosen[path] = (value, layer)
    nested: dict[str, Any] = {}
    for path, (value, layer) in chosen.items():
        checked = _check_leaf(path, value, spec, layer, method)
        if checked == {}:  # an empty section says nothing, and must not wipe what lies beneath
            continue
        inner = nested
        for parent in path[:-1]:
            inner = inner.setdefault(parent, {})
        inner[path[-1]] = checked
    _contradictions(method, nested, spec, chosen)
    entry = CATALOGUE()["methods"][method]
    config = {"method": method, "version": entry["version"], **fill(nested, spec)}
    _check_heads(config, spec, layers)
    _drop_unused(config, spec)
    config["data"]["content"] = UNPREPARED
    _unused_view(config, entry, chosen)
    try:
        views = planned_views(nested.get("views", {}), config, entry)
    except ValueError as error:
        raise InputError(f"{_last_spoken(layers, 'views')}: {error}") from None
    if problem := misfit(views, config, entry):
        raise InputError(f"{_last_spoken(layers, 'views')}: {problem}")
    encoder = CATALOGUE()["encoder"]["fields"]
    patch_size = config["encoder"].get("patch_size", encoder.get("patch_size", {}).get("default", 0))
    if problem := uncut(views, config, patch_size):
        raise InputError(f"{_last_spoken(layers, 'views', 'encoder')}: {problem}")
    config["views"] = [view_values(view) for view in views]
    if not entry["trains"]:  # nothing of the training can matter to a network that is not trained
        config = {key: config[key] for key in ("method", "version", "data", "encoder")}
    return config


def with_images(config: dict[str, Any], data: Mapping[str, DataIdentity] | None) -> dict[str, Any]:
    """The config about the images that are at hand for the set it asks for; another one may stand in."""
    at_hand = (data or {}).get(config["data"]["name"])
    if at_hand is None:
        return config
    return config | {"data": config["data"] | {"name": at_hand.name, "content": at_hand.content}}


@functools.cache
def _known_to_methods() -> frozenset[str]:
    return frozenset(key for entry in CATALOGUE()["methods"].values() for key in entry["config"]["fields"])


def _method(layers: list[Layer]) -> str:
    found = None
    for layer in layers:
        if ("method",) in layer.values:
            value = layer.values[("method",)]
            names = method_names()
            if value not in names:
                at = layer.where(("method",))
                raise InputError(f"{at}: unknown method '{value}'; allowed: {', '.join(names)}{nearest(value, names)}")
            found = str(value)
    if found is None:
        raise InputError(f"{layers[0].where(())}: no method is named; write `method: byol` under base")
    return found


def _check_leaf(path: Path_, value: Any, spec: Spec, layer: Layer, method: str) -> Any:
    if path[0] == "views":
        return check_view(path, value, method, CATALOGUE()["methods"][method], layer.where)
    if value == {}:
        return {}
    inner = {"type": "section", **spec}

    def whole(_: Path_) -> str:
        return layer.where(path)

    for depth in range(1, len(path) + 1):
        if inner["type"] != "section":
            raise InputError(
                f"{layer.where(path)}: '{'.'.join(path[: depth - 1])}' is a value of method {method}, not a section"
            )
        inner = field_of(inner, path[:depth], whole)
    return check_value(value, inner, path, layer.where)


def _last_spoken(layers: list[Layer], *sections: str) -> str:
    """Where one of the sections was last spoken of, within a layer the first of them; else where the images were."""
    for wanted in (sections, ("data",)):
        for layer in reversed(layers):
            for section in wanted:
                for path in layer.values:
                    if path[0] == section:
                        return layer.where(path)
    return layers[0].where(())


def _unused_view(config: dict[str, Any], entry: dict[str, Any], chosen: dict[Path_, tuple[Any, Layer]]) -> None:
    """A row that speaks of a view which its method's switches do not add."""
    for path, (_, layer) in chosen.items():
        if path[:2] == ("views", "added") and layer.explicit and not list(added(config, entry)):
            switches = [key for key, field in entry["config"]["fields"].items() if "adds" in field]
            said = " and ".join(f"'{key}: {shown(config.get(key))}'" for key in switches)
            raise InputError(f"{layer.where(path)}: contradicts {said}, which adds no view; drop one of them")


def _contradictions(method: str, nested: dict[str, Any], spec: Spec, chosen: dict[Path_, tuple[Any, Layer]]) -> None:
    """What is well typed but cannot be meant: a setting of a part that is switched off, a warm-up longer than the training."""
    _governed((), nested, spec, chosen)
    if not CATALOGUE()["methods"][method]["trains"]:
        for path, (_, layer) in chosen.items():
            if layer.explicit and path[0] not in ("data", "encoder"):
                raise InputError(f"{layer.where(path)}: contradicts method '{method}', which is not trained; drop this key")
    epochs = nested.get("epochs", spec["fields"]["epochs"]["default"])
    schedule = nested.get("schedule", {})
    warmup = schedule.get("warmup_epochs", 0.0)
    if warmup > epochs:
        at = chosen[("schedule", "warmup_epochs")][1].where(("schedule", "warmup_epochs"))
        raise InputError(f"{at}: a warm-up of {warmup} epochs does not fit into {epochs} epochs")
    if schedule.get("kind") == "step":
        _milestones(list(schedule.get("milestones", [])), epochs, chosen)


def _milestones(milestones: list[int], epochs: int, chosen: dict[Path_, tuple[Any, Layer]]) -> None:
    said = ("schedule", "milestones") if milestones else ("schedule", "kind")
    at = chosen[said][1].where(said)
    if not milestones:
        raise InputError(f"{at}: 'kind: step' needs milestones, the epochs at which the rate falls, such as [120, 160]")
    if sorted(set(milestones)) != milestones or not 0 < milestones[0] <= milestones[-1] < epochs:
        raise InputError(f"{at}: expected rising epochs above 0 and below {epochs}, found {milestones}")


def _governed(section: Path_, nested: dict[str, Any], spec: Spec, chosen: dict[Path_, tuple[Any, Layer]]) -> None:
    """What the values of a section leave unused, or cannot do without."""
    for key, field in spec["fields"].items():
        if field["type"] == "section":
            _governed((*section, key), nested.get(key, {}), field, chosen)
        if "governs" not in field and "needs" not in field:
            continue
        said = shown(nested.get(key, field.get("default")))
        places = {(name,) for name in (field.get("governs") or {}).get(said, [])}
        for path, (_, layer) in chosen.items():
            if layer.explicit and path[: len(section)] == section and path[len(section) : len(section) + 1] in places:
                at, name = layer.where(path), ".".join((*section, key))
                raise InputError(
                    f"{at}: contradicts '{name}: {said}', which leaves {path[len(section)]} unused; drop one of them"
                )
        for other, wanted in (field.get("needs") or {}).get(said, {}).items():
            found = shown(nested.get(other, spec["fields"][other]["default"]))
            if found != shown(wanted):
                said_at = next((path for path in ((*section, key), (*section, other)) if path in chosen), next(iter(chosen)))
                at = chosen[said_at][1].where(said_at)
                raise InputError(f"{at}: '{key}: {said}' needs '{other}: {shown(wanted)}', but {other} is {found}")


def _drop_unused(config: dict[str, Any], spec: Spec, common: bool = False) -> None:
    """What another value leaves unused must not make ids differ: settings that came later are not mentioned, those of a section
    that all methods have in `common` are at their defaults, so that rows of two methods' sweeps can be one cell."""
    for key, field in spec["fields"].items():
        if field["type"] == "section":
            _drop_unused(config[key], field, key in ("optimizer", "schedule"))
        if "governs" not in field:
            continue
        for other in field["governs"].get(shown(config.get(key, field.get("default"))), []):
            unused = spec["fields"][other]
            if "absent" in unused:
                config.pop(other, None)
            elif common and other in config:
                config[other] = unused["default"]


def _check_heads(config: dict[str, Any], spec: Spec, layers: list[Layer]) -> None:
    """Settings that a method declares to be equal ("matches"), such as the output widths of projector and predictor, or to
    reach another ("at_least"), such as a queue's length and the batch; 0 is none."""
    unused = {
        other
        for name, switch in spec["fields"].items()
        for other in (switch["governs"].get(shown(config.get(name)), []) if "governs" in switch else [])
    }
    for key, field in spec["fields"].items():
        if key in unused:
            continue
        for setting, other in (field.get("matches") or {}).items():
            if config[key][setting] != config[other][setting]:
                at = _last_said((key, setting), layers)
                raise InputError(f"{at}: is {config[key][setting]}, but must equal {other}.{setting}, {config[other][setting]}")
        least = field.get("at_least")
        found = config.get(key, field.get("default"))
        if least and found and found < config[least]:
            at = _last_said((key,), layers, (least,))
            raise InputError(f"{at}: {key} is {found}, but must be at least {least}, {config[least]}")


def _last_said(path: Path_, layers: list[Layer], other: Path_ | None = None) -> str:
    """Where a key was last spoken of; else where `other` was."""
    for wanted in (path, other):
        for layer in reversed(layers):
            if wanted in layer.values:
                return layer.where(wanted)
    return layers[0].where(path)
