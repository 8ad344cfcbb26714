"""One row's layers of overrides -> its complete config: every key checked, every default filled in.

What a layer may say depends on the method that the row ends up with, so this is where a contradictory row is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.plan.schema import (
    Spec,
    Where,
    check_value,
    defaults,
    experiment_spec,
    field_of,
    fill,
    method_names,
    view_values,
)
from methods.catalogue import CATALOGUE, from_values
from methods.views import RECIPES, ViewConfig

Path_ = tuple[str, ...]
UNPREPARED = "unprepared"  # data content before the first conversion on this machine


@dataclass(frozen=True)
class DataIdentity:
    """Which images a config is about: the set's name and the 12 hex digits of its pixels and labels."""

    name: str
    content: str


@dataclass(frozen=True)
class Layer:
    """Overrides from one place. `explicit`: the row itself says so, so its method must know the key."""

    values: dict[Path_, Any]
    where: Where
    explicit: bool


def shown(value: Any) -> str:
    """A value as a sweep file would spell it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolve(layers: Iterable[Layer], data: Mapping[str, DataIdentity] | None) -> dict[str, Any]:
    """The complete config of one row: every key checked, every default filled in, what does not apply left out."""
    layers = list(layers)
    method = _method(layers)
    spec = experiment_spec(method)
    known_elsewhere = {key for entry in CATALOGUE()["methods"].values() for key in entry["config"]["fields"]}
    chosen: dict[Path_, tuple[Any, Layer]] = {}
    for layer in layers:
        for path, value in layer.values.items():
            if path == ("method",):
                continue
            if path[0] not in spec["fields"] and path[0] in known_elsewhere and not layer.explicit:
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
    at_hand = (data or {}).get(config["data"]["name"])
    config["data"]["content"] = at_hand.content if at_hand else UNPREPARED
    if at_hand:
        config["data"]["name"] = at_hand.name
    try:
        views = _views(nested.get("views", {}), entry["recipe"])[: entry["num_views"]]
    except ValueError as error:
        raise InputError(f"{_said_views(layers)}: {error}") from None
    misfit = _views_misfit(views, method, config["data"]["image_size"])
    if misfit:
        raise InputError(f"{_said_views(layers)}: {misfit}")
    config["views"] = [view_values(view) for view in views]
    if not entry["trains"]:  # nothing of the training can matter to a network that is not trained
        config = {key: config[key] for key in ("method", "version", "data", "encoder")}
    return config


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
        return _check_view(path, value, layer)
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


def _check_view(path: Path_, value: Any, layer: Layer) -> Any:
    if path == ("views", "recipe"):
        if not isinstance(value, str) or value not in RECIPES:
            allowed = ", ".join(RECIPES)
            raise InputError(f"{layer.where(path)}: unknown recipe '{value}'; allowed: {allowed}{nearest(value, RECIPES)}")
        return value
    if len(path) == 3 and path[1] in ("first", "second", "both"):
        spec = defaults(ViewConfig)
        return check_value(value, field_of(spec, path, layer.where), path, layer.where)
    raise InputError(f"{layer.where(path)}: expected views.recipe or views.first|second|both.<setting>")


def _views(section: dict[str, Any], recipe: str) -> list[ViewConfig]:
    first, second = RECIPES[section.get("recipe", recipe)][:2]
    both = section.get("both", {})
    said = (asdict(first) | both | section.get("first", {}), asdict(second) | both | section.get("second", {}))
    return [from_values(ViewConfig, values) for values in said]


def _views_misfit(views: list[ViewConfig], method: str, image_size: int) -> str | None:
    """What the method, its encoder or the size of the views cannot do with them."""
    if len({view.channels for view in views}) > 1:
        return f"the views of a method share their channels, found {' and '.join(view.channels for view in views)}"
    for view in views:
        if view.patch_grid:
            return f"method '{method}' takes whole views; drop patch_grid"
        if view.channel_count != 3:
            return f"the encoders take three channels, '{view.channels}' has {view.channel_count}; use rgb or lab"
        if view.misfit(image_size):
            return view.misfit(image_size)
    return None


def _said_views(layers: list[Layer]) -> str:
    """Where the views were last spoken of."""
    for layer in reversed(layers):
        for path in layer.values:
            if path[0] == "views":
                return layer.where(path)
    return layers[0].where(())


def _contradictions(method: str, nested: dict[str, Any], spec: Spec, chosen: dict[Path_, tuple[Any, Layer]]) -> None:
    """What is well typed but cannot be meant: a setting of a part that is switched off, a warm-up longer than the training."""
    for key, field in spec["fields"].items():
        said = shown(nested.get(key, field.get("default")))
        for path, (_, layer) in chosen.items():
            if path[0] in (field.get("governs") or {}).get(said, []) and layer.explicit:
                at = layer.where(path)
                raise InputError(f"{at}: contradicts '{key}: {said}', which leaves {path[0]} unused; drop one of them")
        for other, wanted in (field.get("needs") or {}).get(said, {}).items():
            found = shown(nested.get(other, spec["fields"][other]["default"]))
            if found != shown(wanted):
                at = chosen[(key,)][1].where((key,))
                raise InputError(f"{at}: '{key}: {said}' needs '{other}: {shown(wanted)}', but {other} is {found}")
    if not CATALOGUE()["methods"][method]["trains"]:
        for path, (_, layer) in chosen.items():
            if layer.explicit and path[0] not in ("data", "encoder"):
                raise InputError(f"{layer.where(path)}: contradicts method '{method}', which is not trained; drop this key")
    epochs = nested.get("epochs", spec["fields"]["epochs"]["default"])
    warmup = nested.get("schedule", {}).get("warmup_epochs", 0.0)
    if warmup > epochs:
        at = chosen[("schedule", "warmup_epochs")][1].where(("schedule", "warmup_epochs"))
        raise InputError(f"{at}: a warm-up of {warmup} epochs does not fit into {epochs} epochs")


def _check_heads(config: dict[str, Any], spec: Spec, layers: list[Layer]) -> None:
    """Settings that a method declares to be equal ("matches"), such as the output widths of projector and predictor."""
    for key, field in spec["fields"].items():
        for setting, other in (field.get("matches") or {}).items():
            unused = any(
                key in (switch.get("governs") or {}).get(shown(config.get(name)), []) for name, switch in spec["fields"].items()
            )
            if not unused and config[key][setting] != config[other][setting]:
                at = next((layer.where((key, setting)) for layer in reversed(layers) if (key, setting) in layer.values), None)
                at = at or layers[0].where((key, setting))
                raise InputError(f"{at}: is {config[key][setting]}, but must equal {other}.{setting}, {config[other][setting]}")
