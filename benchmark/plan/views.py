"""What a row says under `views` -> the views of its cells, in the order in which the method gets them.

views.recipe                       a key of methods.views.RECIPES instead of the method's own
views.first | second | both        settings of the first, the second, all views of that recipe
views.crops                        a list of {count, size, scale}: the full-size crops, then smaller ones (multi-crop)
views.local                        settings of the smaller crops
views.modalities                   colour spaces in which the same crop is shown again
views.added                        settings of the views that a switch of the method adds (InfoMin's Jigsaw branch)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, get_args

from benchmark.errors import InputError, nearest
from benchmark.plan.schema import Where, check_value, defaults, field_of
from methods.catalogue import from_values
from methods.views import RECIPES, Channels, ViewConfig, multi_crop

Path_ = tuple[str, ...]
_SECTIONS = ("first", "second", "both", "local", "added")
_CROP = {"count": {"type": "int"}, "size": {"type": "int"}, "scale": {"type": "pair"}}
_NEEDS = {"crops": "multi_crop", "local": "multi_crop", "modalities": "modalities"}


def concerns(path: Path_, entry: dict[str, Any]) -> bool:
    """Whether a key under `views` can mean anything to a method (an entry of the catalogue)."""
    if path[1:2] == ("added",):
        return any("adds" in field for field in entry["config"]["fields"].values())
    return len(path) < 2 or path[1] not in _NEEDS or bool(entry[_NEEDS[path[1]]])


def check_view(path: Path_, value: Any, method: str, entry: dict[str, Any], where: Where) -> Any:
    """A value under `views` in its canonical type, or InputError."""
    if not concerns(path, entry):
        means = "crops of several sizes" if path[1] in ("crops", "local") else "views of that kind"
        raise InputError(f"{where(path)}: method '{method}' takes no {means}; drop this key")
    if path == ("views", "recipe"):
        if not isinstance(value, str) or value not in RECIPES:
            raise InputError(
                f"{where(path)}: unknown recipe '{value}'; allowed: {', '.join(RECIPES)}{nearest(str(value), RECIPES)}"
            )
        return value
    if path[:2] == ("views", "crops"):
        return _crops(path[:2], value if len(path) == 2 else None, where)
    if path == ("views", "modalities"):
        return check_value(value, {"type": "names", "choices": list(get_args(Channels))}, path, where)
    if len(path) == 3 and path[1] in _SECTIONS:
        return check_value(value, field_of(defaults(ViewConfig), path, where), path, where)
    raise InputError(
        f"{where(path)}: expected views.recipe, views.crops, views.modalities or views.{'|'.join(_SECTIONS)}.<setting>"
    )


def _crops(path: Path_, value: Any, where: Where) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(group, dict) for group in value):
        raise InputError(f"{where(path)}: expected a list of entries such as {{count: 6, size: 96, scale: [0.05, 0.14]}}")
    return [_crop(path, group, f"{where(path)} > [{number}]") for number, group in enumerate(value)]


def _crop(path: Path_, group: dict[str, Any], at: str) -> dict[str, Any]:
    def where(path: Path_) -> str:
        return f"{at} > {path[-1]}"

    for key in group:
        field_of({"fields": _CROP}, (*path, str(key)), where)
    for key in _CROP:
        if key not in group:
            raise InputError(f"{at}: lacks '{key}'; each entry has count, size and scale")
    checked = {key: check_value(group[key], _CROP[key], (*path, key), where) for key in _CROP}
    if checked["count"] == 0:
        raise InputError(f"{at} > count: is 0; drop the entry")
    return checked


def planned_views(said: dict[str, Any], config: dict[str, Any], entry: dict[str, Any]) -> list[ViewConfig]:
    """The views of a row that says `said` under `views`. config: the rest of the row. ValueError where they cannot be made."""
    recipe = _recipe(said.get("recipe", entry["recipe"]))
    both = said.get("both", {})
    first, second = (_view(recipe[n] | both | said.get(name, {})) for n, name in enumerate(("first", "second")))
    views = [first, second][: entry["num_views"]]
    if crops := said.get("crops"):
        _check_crops(crops, said, entry["num_views"], config["data"]["image_size"])
        local = _view(recipe[-1] | both | said.get("local", {}))
        laws = [*views, local]
        views = list(multi_crop(laws, [(group["count"], group["size"], tuple(group["scale"])) for group in crops]))
    elif said.get("local"):
        raise ValueError("views.local are settings of smaller crops, and there are none; say views.crops")
    views += [replace(view, channels=space, same_draws=True) for view in views for space in said.get("modalities", [])]
    for number, name in enumerate(added(config, entry)):
        if name == entry["recipe"]:  # views of the row's own law, in turn
            views.append((first, second)[number % 2])
        else:
            views.append(_view(_recipe(name)[0] | said.get("added", {})))
    return views


def misfit(views: list[ViewConfig], config: dict[str, Any], entry: dict[str, Any]) -> str | None:
    """What the method or the size of the views cannot do with them."""
    method, image_size = config["method"], config["data"]["image_size"]
    own = [view for view in views if not view.same_draws]
    if len({view.channels for view in own}) > 1:
        return f"the views of a method share their channels, found {' and '.join(view.channels for view in own)}"
    whole = len(views) - len(list(added(config, entry)))
    for number, view in enumerate(views):
        if view.same_draws and not (entry["modalities"] and number):
            return f"method '{method}' takes no two views of the same draws; drop same_draws"
        if view.patch_grid and not entry["patches"] and number < whole:
            return f"method '{method}' takes whole views; drop patch_grid"
        if entry["patches"] and not view.patch_grid:
            return f"method '{method}' takes views in patches; say views.both.patch_grid"
        if problem := view.misfit(image_size):
            return problem
    return None


def uncut(views: list[ViewConfig], config: dict[str, Any], patch_size: int) -> str | None:
    """What a ViT of this patch_size cannot cut: views, or the images that are evaluated."""
    image_size = config["data"]["image_size"]
    sides = {view.patch_size if view.patch_grid else view.size or image_size for view in views} | {image_size}
    for side in sorted(sides):
        if config["encoder"]["name"].startswith("vit") and side % patch_size:
            return f"views of {side} pixels cannot be cut into patches of {patch_size}; change encoder.patch_size or the views"
    return None


@functools.cache
def _recipe(name: str) -> list[dict[str, Any]]:
    """The settings of a recipe's views. Treat them as read-only."""
    return [asdict(view) for view in RECIPES[name]]


_made: dict[str, ViewConfig] = {}  # the views of most rows are those of other rows


def _view(values: dict[str, Any]) -> ViewConfig:
    spelt = repr(values)  # and not the values: 1 and 1.0 are equal, but not in an id
    if spelt not in _made:
        _made[spelt] = from_values(ViewConfig, values)
    return _made[spelt]


def added(config: dict[str, Any], entry: dict[str, Any]) -> Iterator[str]:
    """Recipes whose first views the method's switches add."""
    for key, field in entry["config"]["fields"].items():
        value = config.get(key, field.get("default"))
        word = str(value).lower() if isinstance(value, bool) else str(value)
        yield from (field.get("adds") or {}).get(word, [])


def _check_crops(crops: list[dict[str, Any]], said: dict[str, Any], full: int, image_size: int) -> None:
    """Multi-crop as methods take it: first as many full-size crops as they have views, then smaller ones."""
    sizes = [group["size"] or image_size for group in crops]
    if crops[0]["count"] != full:
        raise ValueError(f"views.crops begins with {crops[0]['count']} crops, but this method takes {full} of full size first")
    for size in sizes[1:]:
        if size > sizes[0]:
            raise ValueError(f"views.crops has crops of {size} pixels after those of full size, {sizes[0]}; put those first")
    for section in ("first", "second", "both", "local"):
        for key in ("size", "crop_scale"):
            if key in said.get(section, {}):
                raise ValueError(f"views.{section}.{key} contradicts views.crops, which says it of every crop; drop one")
