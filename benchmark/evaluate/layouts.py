"""Which tensors of a checkpoint are the encoder's: the key layouts of the official releases.

A release wraps the state dict of its encoder: in a dict of the checkpoint (`state_dict`, `model`, `teacher`), behind a prefix
(`encoder_q.`), beside heads, queues and a second network. A layout names what is taken and what is left aside; a key that it
does not name is never ignored. `module.`, which PyTorch's data-parallel wrapper puts before every key, is taken off first.

Seen in the released code of each: MoCo, MoCo v3, SimSiam, SwAV, Barlow Twins, VICReg, DINO, and a conversion of BYOL's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.detection.convert import beside_trunk, from_detectron2, is_detectron2
from benchmark.evaluate.names import from_haiku, from_torchvision_vit, is_haiku
from methods.encoders.vit import positions

_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel, of torch.compile
_STEMS = ("conv1.weight", "conv1.0.weight", "patch_embed.proj.weight", "conv_proj.weight")  # an encoder has one of them
_HEADS = {"fc.": "classifier", "head.": "classifier", "heads.": "classifier"}


@dataclass(frozen=True)
class Form:
    """One way a release lies in a file. inside: the key of the checkpoint that holds the tensors, "" for the file itself.

    prefix: of the encoder's keys. aside: beginning of a key -> what it belongs to, expected and not taken. marks: beginnings of
    keys that tell this form from others.
    """

    inside: str
    prefix: str = ""
    aside: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """forms: as the releases have them. heads: of the attention of its ViTs, by channels, where not one for every 64.

    same_pads: its strided convolutions are padded as TensorFlow's SAME. about: what is evaluated.
    """

    forms: tuple[Form, ...]
    about: str
    heads: Mapping[int, int] = field(default_factory=dict)
    same_pads: bool = False


_MOCO = {"encoder_q.fc.": "head", "encoder_k.": "key encoder", "queue": "queue"}
_SWAV = {"projection_head.": "projection head", "prototypes": "prototypes"}
LAYOUTS: dict[str, Layout] = {
    "moco": Layout((Form("state_dict", "encoder_q.", _MOCO, ("queue",)),), "the query encoder"),
    "moco-v3": Layout(
        (
            Form(
                "state_dict",
                "base_encoder.",
                {"base_encoder.fc.": "projector", "base_encoder.head.": "projector", "predictor.": "predictor",
                 "momentum_encoder.": "momentum encoder"},
                ("momentum_encoder.", "predictor."),
            ),
            Form("model", "", _HEADS),  # after the repository's convert_to_deit.py
        ),
        "the base encoder",
        {384: 12, 768: 12},
    ),
    "simsiam": Layout(
        (Form("state_dict", "encoder.", {"encoder.fc.": "projector", "predictor.": "predictor"}, ("predictor.",)),),
        "the encoder",
    ),
    "byol": Layout((Form("", "", _HEADS), Form("state_dict", "", _HEADS)), "the online encoder, converted", same_pads=True),
    "swav": Layout((Form("", "", _SWAV, ("projection_head.",)), Form("state_dict", "", _SWAV, ("projection_head.",))),
                   "the encoder"),
    "barlow": Layout(
        (Form("model", "backbone.", {"projector.": "projector", "bn.": "projector"}, ("bn.",)), Form("", "", _HEADS)),
        "the backbone",
    ),
    "vicreg": Layout(
        (Form("model", "backbone.", {"projector.": "projector"}, ("projector.",)), Form("", "", _HEADS)), "the backbone"
    ),
    "dino": Layout(
        (Form("teacher", "backbone.", {"head.": "head"}, ("head.",)), Form("", "", _HEADS)), "the teacher's backbone"
    ),
    "torchvision": Layout((Form("", "", _HEADS), Form("model", "", _HEADS), Form("state_dict", "", _HEADS)), "the trunk"),
    "timm": Layout(
        (Form("", "", _HEADS), Form("state_dict_ema", "", _HEADS), Form("state_dict", "", _HEADS), Form("model", "", _HEADS)),
        "the trunk",
    ),
    "detectron2": Layout((Form("model", "stem"), Form("", "stem")), "the backbone"),
}  # fmt: skip
OURS = "retable"
NAMES = (*LAYOUTS, OURS, "auto")


@dataclass
class Taken:
    """What a layout makes of a file. encoder: its tensors under our names. aside: key -> what it belongs to.

    others: entries of the checkpoint beside the state dict. notes: what was concluded rather than read.
    """

    layout: str
    encoder: dict[str, Tensor]
    aside: dict[str, str]
    unknown: list[str]
    others: list[str]
    notes: list[str]

    @property
    def described(self) -> Layout:
        return LAYOUTS[self.layout]


def is_ours(contents: Mapping[str, Any]) -> bool:
    return {"config", "method", "format"} <= set(contents)


def take(contents: Mapping[str, Any], layout: str, path: Path) -> Taken:
    """The encoder of a checkpoint. layout: a key of LAYOUTS, or auto for the one whose marks and keys are all there.

    InputError where no form of the layout is in the file, or several layouts would read it differently.
    """
    if layout in ("auto", "detectron2") and (taken := _of_detectron2(contents, path)) is not None:
        return taken
    if layout == "auto":
        return _recognized(contents, path)
    found = [taken for form in LAYOUTS[layout].forms if (taken := _taken(contents, layout, form)) is not None]
    if not found:
        raise InputError(f"{path}: has no encoder where layout {layout} keeps it ({_places(layout)}); {_hint(contents)}")
    return _finished(min(found, key=lambda taken: len(taken.unknown)))


def _of_detectron2(contents: Mapping[str, Any], path: Path) -> Taken | None:
    """None where no backbone of detectron2's is in the file."""
    for form in LAYOUTS["detectron2"].forms:
        tensors = _tensors(contents, form.inside)
        if tensors is None or not is_detectron2(tensors):
            continue
        try:
            encoder = from_detectron2(tensors)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        aside = dict.fromkeys(beside_trunk(tensors), "detector")
        # Neither leaves a trace in names or shapes.
        note = "taken as an RGB network with the stride on the 3x3 convolutions, which detectron2's own MSRA weights are not"
        return Taken("detectron2", encoder, aside, [], [key for key in contents if key != form.inside and form.inside], [note])
    return None


def _finished(taken: Taken) -> Taken:
    if taken.layout == "moco-v3":
        _without_fixed_positions(taken)
    return taken


def _recognized(contents: Mapping[str, Any], path: Path) -> Taken:
    for name, layout in LAYOUTS.items():
        for form in layout.forms:
            if form.marks:
                taken = _taken(contents, name, form)
                if taken is not None and not taken.unknown and all(_has(contents, form, mark) for mark in form.marks):
                    return _finished(taken)
    for form in LAYOUTS["byol"].forms:
        if is_haiku(_tensors(contents, form.inside) or ()) and (taken := _taken(contents, "byol", form)) is not None:
            return taken  # DeepMind's own names, which nobody else's files have
    for form in LAYOUTS["timm"].forms:
        taken = _taken(contents, "timm", form)
        if taken is None:
            continue
        theirs = _tensors(contents, form.inside) or {}
        if "patch_embed.proj.weight" not in theirs:
            taken.layout = "torchvision"
            if not any(key.endswith("num_batches_tracked") for key in taken.encoder) and "bn1.running_mean" in taken.encoder:
                raise InputError(
                    f"{path}: batch norms without num_batches_tracked are torchvision's of before 2018, or a conversion of "
                    "BYOL's, whose convolutions are padded otherwise; say --layout torchvision or --layout byol"
                )
        elif _without_fixed_positions(taken):
            taken.layout = "moco-v3"
        return taken
    raise InputError(f"{path}: {_hint(contents)}; say what it is with --layout ({', '.join(LAYOUTS)})")


def _taken(contents: Mapping[str, Any], layout: str, form: Form) -> Taken | None:
    """None where the form's place or its encoder is not in the file."""
    tensors = _tensors(contents, form.inside)
    if tensors is None:
        return None
    if is_haiku(tensors):
        if layout != "byol":
            return None
        tensors = from_haiku(tensors)
        form = Form(form.inside, form.prefix, {**form.aside, **{key: "head" for key in tensors if "/" in key}})
    taken = Taken(layout, {}, {}, [], [], [])
    for key, value in tensors.items():
        belongs = next((what for start, what in form.aside.items() if key.startswith(start)), None)
        if belongs is not None:
            taken.aside[key] = belongs
        elif key.startswith(form.prefix):
            taken.encoder[from_torchvision_vit(key.removeprefix(form.prefix))] = value
        else:
            taken.unknown.append(key)
    if not any(stem in taken.encoder for stem in _STEMS):
        return None
    if form.inside:
        taken.others = [key for key in contents if key != form.inside]
    return taken


def _tensors(contents: Mapping[str, Any], inside: str) -> dict[str, Tensor] | None:
    """The state dict at a place of the file, without wrappers' prefixes; None where there is something else."""
    found = contents.get(inside) if inside else contents
    if not isinstance(found, Mapping) or not found:
        return None
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()):
        return None
    tensors = dict(found)
    while wrapper := next((w for w in _WRAPPERS if all(key.startswith(w) for key in tensors)), None):
        tensors = {key.removeprefix(wrapper): value for key, value in tensors.items()}
    return tensors


def _has(contents: Mapping[str, Any], form: Form, mark: str) -> bool:
    return any(key.startswith(mark) for key in _tensors(contents, form.inside) or {})


def _without_fixed_positions(taken: Taken) -> bool:
    """Set aside positions that are MoCo v3's sines and cosines, which ours computes. Whether they were."""
    table = taken.encoder.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[2] % 4 or not table.numel():
        return False
    grid = math.isqrt(table.shape[1] - 1)
    if grid < 1 or grid**2 != table.shape[1] - 1:
        return False
    fixed = positions(grid, grid, table.shape[2], torch.zeros(()))
    wanted = torch.cat([torch.zeros_like(fixed[:1]), fixed])[None]
    if not torch.allclose(table.float(), wanted, rtol=0, atol=1e-4):
        return False
    taken.aside["pos_embed"] = "fixed sin-cos positions"
    del taken.encoder["pos_embed"]
    taken.notes.append("its positions are MoCo v3's fixed ones, so its ViT has 12 heads unless --encoder says otherwise")
    return True


def _places(layout: str) -> str:
    return " or ".join(f"{form.inside + ': ' if form.inside else ''}{form.prefix or 'conv1, patch_embed'}..."
                       for form in LAYOUTS[layout].forms)  # fmt: skip


def _hint(contents: Mapping[str, Any]) -> str:
    """What the file holds, as a part of a sentence."""
    if is_ours(contents):
        return "it is a checkpoint of Retable's own, --layout retable"
    shown = []
    for key, value in contents.items():
        if isinstance(value, Mapping) and value and all(isinstance(child, Tensor) for child in value.values()):
            starts = dict.fromkeys(re.match(r"(?:module\.)?[^.]*", str(child))[0] for child in value)  # type: ignore[index]
            shown.append(f"{key}: {', '.join([f'{start}...' for start in starts][:4])}")
        else:
            shown.append(str(key))
    more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
    return f"it holds {'; '.join(shown[:6])}{more}" if shown else "it is empty"
