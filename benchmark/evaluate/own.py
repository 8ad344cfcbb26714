"""A checkpoint of Retable's own: the method of its cell, with the weights it ended with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.weights_file import WeightsFile
from methods import METHODS, load
from methods.base import Method, Setting
from methods.catalogue import from_values
from methods.encoders import EncoderConfig
from methods.views import ViewConfig

# Stand for the sizes of the training set until the tensors have said them: no layer has a side that one of them divides.
_IMAGES, _CLASSES = 1_000_003, 10_007


@dataclass(frozen=True)
class Own:
    """The method, not loaded yet, and its state. data: the cell's section. step: optimizer steps done."""

    method: Method
    state: dict[str, Tensor]
    name: str
    encoder: EncoderConfig
    channels: Sequence[str]
    data: dict[str, Any]
    seed: int
    step: int
    others: list[str]


def open_own(file: WeightsFile) -> Own:
    """InputError where the file is not a checkpoint of this version's methods."""
    contents = file.contents
    config, state = contents.get("config"), contents.get("method")
    if not isinstance(config, Mapping) or not isinstance(state, Mapping) or "method" not in config:
        raise InputError(f"{file.path}: is no checkpoint of Retable's; give its layout with --layout")
    if others := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{file.path}: its method holds {others[0]}, which is no tensor; give a checkpoint as Retable left it")
    name = str(config["method"])
    if name not in METHODS:
        raise InputError(f"{file.path}: is of method '{name}', which this version does not have")
    version = load(name).VERSION
    if config.get("version") != version:
        raise InputError(f"{file.path}: is of {name} VERSION {config.get('version')}, this code has {version}; train it again")
    try:
        return _opened(name, dict(config), dict(state), contents)
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:  # of a config or a state of any values
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file.path}: its cell cannot be built by this version ({words})") from None


def _opened(name: str, config: dict[str, Any], state: dict[str, Tensor], contents: Mapping[str, Any]) -> Own:
    kind = load(name)
    own = {field.name: config[field.name] for field in dataclasses.fields(kind.Config) if field.name in config}
    encoder = from_values(EncoderConfig, config["encoder"])
    views = [from_values(ViewConfig, view) for view in config.get("views") or ()] or [ViewConfig()]
    seen = [view for number, view in enumerate(views) if number == 0 or view.same_draws]
    setting = Setting(
        num_images=_IMAGES,
        num_classes=_CLASSES,
        batch_size=config.get("batch_size", 0),
        num_views=len(config.get("views") or ()),
        channels=sum(view.channel_count for view in seen),
        seed=config["seed"],
    )

    def built(images: int, classes: int) -> Method:
        method: Method = kind(
            from_values(kind.Config, own), encoder, dataclasses.replace(setting, num_images=images, num_classes=classes)
        )
        return method

    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in built(_IMAGES, _CLASSES).state_dict().items()}
    method = built(_size(shapes, state, _IMAGES), _size(shapes, state, _CLASSES))
    return Own(
        method, state, name, encoder, [view.channels for view in seen], dict(config["data"]), int(config["seed"]),
        int(contents.get("step", 0)), [key for key in contents if key != "method"],
    )  # fmt: skip


def _size(shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], stand_in: int) -> int:
    """What stands in the state where the shapes have `stand_in`; the stand-in itself where no tensor depends on it."""
    for key, shape in shapes.items():
        if stand_in in shape and key in state and state[key].ndim == len(shape):
            return int(state[key].shape[shape.index(stand_in)])
    return stand_in
