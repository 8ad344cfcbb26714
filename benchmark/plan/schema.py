"""What an experiment can say: the sections every method shares, their types, defaults and checks.

A method adds its own keys (projector, predictor, ...) beside these; they come from `methods/catalogue.json`, so that planning
never imports torch. Every value of a finished config has been checked here against a *spec*: a tree of
`{"type": ..., "default": ..., "choices": [...]}` made from dataclasses by `methods.catalogue.describe`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from benchmark.errors import InputError, nearest
from methods.catalogue import CATALOGUE, describe
from methods.views import ViewConfig

# Of settings that came after records were published: at its default such a setting is left out of a cell's config, so that
# a cell that does not use it keeps the id it had.
_LATER = {"later": True}
_OF_LARS, _OF_STEPS = ["lars", "trust", "trust_clip"], ["milestones", "gamma"]

Spec = dict[str, Any]
DATA_NAMES = r"[A-Za-z0-9_-]+"  # as benchmark.data takes them; planning does not import it
Where = Callable[[tuple[str, ...]], str]  # key path -> 'file:line: key > path'


@dataclass(frozen=True)
class DataConfig:
    """Which images. name: one of `benchmark.data.datasets.SIDES`, or any other that --data gives a path for. train_images and
    test_images of 0 mean all; a smaller number is a stratified subset chosen by a fixed rule, the same for every seed.
    held_out is the share of the training images kept aside for choices (probe strength)."""

    name: str = field(default="cifar10", metadata={"pattern": DATA_NAMES, "made_of": "letters (a to z), digits, - and _"})
    train_images: int = 0
    test_images: int = 0
    held_out: float = 0.1
    image_size: int = 32  # side of the views and of the evaluated images, pixels


@dataclass(frozen=True)
class OptimizerConfig:
    """learning_rate: with scale_with_batch the rate at a batch of 256 (scale_rule linear: lr x B / 256) or of one image (sqrt:
    lr x sqrt(B), as SimCLR), else the rate itself. bias_learning_rate: that of biases and normalization scales where it is
    another (Barlow Twins), scaled alike; 0 is the same.
    exclude_bias_and_norm: no weight decay (and no LARS or LAMB adaptation) for biases and normalization scales, as BYOL.
    betas: of adamw and lamb. momentum, nesterov: of sgd and lars.
    lars: whose update, because they differ (benchmark.train.lars); trust: its coefficient eta; trust_clip: a
    parameter's rate is the smaller of trust ratio and rate instead of their product (apex's option; solo-learn).
    clip_norm: gradients are scaled down to at most this norm, 0 never; clip_by: over all parameters together, or each by itself
    (DINO)."""

    name: Literal["sgd", "lars", "adamw", "lamb"] = field(
        default="sgd",
        metadata={
            "governs": {
                "sgd": ["betas", *_OF_LARS],
                "lars": ["betas"],
                "adamw": ["nesterov", *_OF_LARS],
                "lamb": ["nesterov", *_OF_LARS],
            }
        },
    )
    learning_rate: float = 0.03
    scale_with_batch: bool = field(default=False, metadata={"governs": {"false": ["scale_rule"]}})
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    exclude_bias_and_norm: bool = False
    scale_rule: Literal["linear", "sqrt"] = field(default="linear", metadata=_LATER)
    bias_learning_rate: float = field(default=0.0, metadata=_LATER)
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=_LATER)
    lars: Literal["apex", "paper", "google", "facebook"] = field(default="apex", metadata=_LATER)
    trust: float = field(default=0.001, metadata=_LATER)
    trust_clip: bool = field(default=False, metadata=_LATER)
    clip_norm: float = field(default=0.0, metadata=_LATER | {"governs": {"0.0": ["clip_by"]}})
    clip_by: Literal["all", "parameter"] = field(default="all", metadata=_LATER)


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then by kind: half a cosine down to final_fraction x the peak; constant; or `step`, multiplied by gamma
    at each epoch of milestones. every: stepped at every optimizer step, or after the warm-up once an epoch (MoCo, SimSiam).
    warmup_start: the fraction of the peak that the warm-up starts from (SwAV).
    weight_decay: constant, or half a cosine over the whole training to final_weight_decay (DINO)."""

    kind: Literal["cosine", "constant", "step"] = field(
        default="cosine",
        metadata={"governs": {"cosine": _OF_STEPS, "constant": _OF_STEPS, "step": ["final_fraction"]}},
    )
    warmup_epochs: float = 0.0
    final_fraction: float = 0.0
    milestones: tuple[int, ...] = field(default=(), metadata=_LATER)
    gamma: float = field(default=0.1, metadata=_LATER)
    every: Literal["step", "epoch"] = field(default="step", metadata=_LATER)
    warmup_start: float = field(default=0.0, metadata=_LATER)
    weight_decay: Literal["constant", "cosine"] = field(
        default="constant", metadata=_LATER | {"governs": {"constant": ["final_weight_decay"]}}
    )
    final_weight_decay: float = field(default=0.0, metadata=_LATER)


@dataclass(frozen=True)
class ExperimentConfig:
    """The keys common to all methods."""

    epochs: int = 10
    batch_size: int = 256
    precision: Literal["fp32", "bf16"] = "fp32"
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()


# Ranges by the name of a setting, whichever section it stands in.
_POSITIVE = ("epochs", "batch_size", "image_size", "k", "temperature", "hidden", "out", "queue", "groups", "width", "l2_step")
_FRACTION = ("final_fraction", "target_ema", "label_smoothing", "momentum", "solarize_threshold", "warmup_start")


@functools.cache
def defaults(config: type) -> Spec:
    """The spec of a config, made once a process; treat it as read-only."""
    return describe(config)


@functools.cache
def experiment_spec(method: str) -> Spec:
    """The spec of a whole cell of this method: common keys, encoder, and the method's own. Treat it as read-only."""
    catalogue = CATALOGUE()
    spec: Spec = {"fields": dict(defaults(ExperimentConfig)["fields"])}
    spec["fields"]["encoder"] = {"type": "section", **catalogue["encoder"]}
    spec["fields"]["views"] = {"type": "views"}
    spec["fields"].update(catalogue["methods"][method]["config"]["fields"])
    return spec


def method_names() -> list[str]:
    return sorted(CATALOGUE()["methods"])


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{value}'"
    return "a list" if isinstance(value, list) else "a section"


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _remedy(value: Any, kind: str) -> str:
    if isinstance(value, str) and kind in ("int", "float", "pair") and _number(value):
        return f"; write {value} without quotes"
    if kind == "bool" and value in ("no", "off", "yes", "on", 0, 1):
        return f"; write {'false' if value in ('no', 'off', 0) else 'true'}"
    if kind == "str" and isinstance(value, bool):
        return f'; write "{"none" if not value else "..."}" if a word is meant'
    return ""


def check_value(value: Any, spec: Spec, path: tuple[str, ...], where: Where) -> Any:
    """The value in its canonical type, or InputError naming place, finding, what is allowed and the nearest match."""
    kind = spec["type"]

    def refuse(expected: str) -> InputError:
        return InputError(f"{where(path)}: expected {expected}, found {_kind(value)}{_remedy(value, kind)}")

    if kind == "section":
        if not isinstance(value, dict):
            known = ", ".join(spec["fields"])
            raise refuse(f"a section with keys among {known}")
        return {key: check_value(child, field_of(spec, (*path, key), where), (*path, key), where)
                for key, child in value.items()}  # fmt: skip
    if kind == "bool":
        if not isinstance(value, bool):
            raise refuse("true or false")
        return value
    if kind == "str":
        choices = spec.get("choices")
        if not isinstance(value, str):
            raise refuse(f"one of {', '.join(choices)}" if choices else "a word")
        if choices and value not in choices:
            raise InputError(f"{where(path)}: unknown value '{value}'; allowed: {', '.join(choices)}{nearest(value, choices)}")
        if "pattern" in spec and not re.fullmatch(spec["pattern"], value):
            raise refuse(f"a name of {spec['made_of']}")
        return value
    if kind == "pair":
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(_is_number(v) for v in value):
            raise refuse("two numbers [low, high]")
        low, high = float(value[0]), float(value[1])
        if not 0 < low <= high < math.inf:
            raise InputError(f"{where(path)}: expected [low, high] with 0 < low <= high, found [{low}, {high}]")
        if path[-1] == "betas" and high >= 1:
            raise InputError(f"{where(path)}: expected two numbers above 0 and below 1, found [{low}, {high}]")
        return [low, high]
    if kind == "ints":
        if not isinstance(value, list | tuple) or not all(type(v) is int for v in value):
            raise refuse("a list of whole numbers")
        if any(v < 0 for v in value):
            raise InputError(f"{where(path)}: must not hold a negative number, found {list(value)}")
        return list(value)
    if kind == "floats":
        if not isinstance(value, list | tuple) or not value or not all(_is_number(v) and math.isfinite(v) for v in value):
            raise refuse("a list of numbers, at least one")
        return [_in_range(float(v) + 0.0, path, where) for v in value]
    if kind == "names":
        choices = spec["choices"]
        if not isinstance(value, list):
            raise refuse(f"a list of words among {', '.join(choices)}")
        for word in value:
            if word not in choices:
                allowed = f"allowed: {', '.join(choices)}{nearest(str(word), choices)}"
                raise InputError(f"{where(path)}: unknown value '{word}'; {allowed}")
        return value
    if kind == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse("a whole number")
        return value if value == spec.get("default") else _in_range(value, path, where)
    if kind == "float":
        if not _is_number(value) or not math.isfinite(value):
            raise refuse("a number" if not _is_number(value) else "a finite number")
        return float(value) + 0.0 if value == spec.get("default") else _in_range(float(value) + 0.0, path, where)
    raise AssertionError(f"unknown kind {kind} in the spec of {path}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(value: Any, path: tuple[str, ...], where: Where) -> Any:
    name = path[-1]
    if name in _POSITIVE and value <= 0:
        raise InputError(f"{where(path)}: must be above 0, found {value}")
    if (name.endswith("_prob") or name in _FRACTION) and not 0 <= value <= 1:
        raise InputError(f"{where(path)}: must lie between 0 and 1, found {value}")
    if name == "held_out" and not 0 <= value < 1:
        raise InputError(f"{where(path)}: must be at least 0 and below 1, found {value}")
    if name == "hue" and not 0 <= value <= 0.5:
        raise InputError(f"{where(path)}: must lie between 0 and 0.5, found {value}")
    if value < 0 and not name.startswith("l2_"):
        raise InputError(f"{where(path)}: must not be negative, found {value}")
    return value


def field_of(spec: Spec, path: tuple[str, ...], where: Where) -> Spec:
    """The spec of one key of a section, or InputError with the nearest known key."""
    known = spec["fields"]
    if path[-1] not in known:
        allowed = ", ".join(sorted(known)) or "no keys at all"
        raise InputError(f"{where(path)}: unknown key; allowed here: {allowed}{nearest(path[-1], known)}")
    found: Spec = known[path[-1]]
    return found


def fill(value: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """Every key of the spec, with the default where the value says nothing."""
    filled = {}
    for key, child in spec["fields"].items():
        if child["type"] == "views":
            continue
        if child["type"] == "section":
            filled[key] = fill(value.get(key, {}), child)
        else:
            default = child["default"]
            said = value.get(key, list(default) if isinstance(default, tuple) else default)
            if "absent" not in child or said != child["absent"]:
                filled[key] = said
    return filled


def view_values(view: ViewConfig) -> dict[str, Any]:
    """A view as a cell's config has it: without the settings that came later (`methods.views`) and are at their default."""
    said = {}
    for name, later, default in _view_settings():
        value = getattr(view, name)
        if not (later and value == default):
            said[name] = list(value) if isinstance(value, tuple) else value
    return said


@functools.cache
def _view_settings() -> list[tuple[str, bool, Any]]:
    """(name, whether it came later, default) of the settings of a view."""
    return [(f.name, bool(f.metadata.get("later")), f.default) for f in fields(ViewConfig)]
