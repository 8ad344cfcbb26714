"""Whether our cell may be held against the published one: the same data, network, length and batch, at the paper's protocol.

The registry says for every published number what it was trained on and how long; what its words say and our config does not
(or what cannot be read from them) makes a cell *not comparable*, with the reason. Claims are then tested in direction only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reports.evidence import Data
from reports.planned import value_at
from reports.reference import Reference

_DATA = {
    "ImageNet-1k": "imagenet",
    "ImageNet-100": "imagenet100",
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "STL-10": "stl10",
}
_RAW = ("cifar10", "cifar100", "stl10")  # published as raw pixels, so that JPEG files are other images
_RESNET = re.compile(r"^(?:ResNet-|RN|R)(\d+)(?:\s*\(?(?:w|x)?(\d)x?\)?)?(?:\s|$|\)|-|\+)")
_VIT = re.compile(r"^ViT-(Ti|T|S|B)(?:/(\d+)|(?=\s|$))")
_DETECTORS = re.compile(r"(?:R50|R-50|ResNet-50)")
_SIZES = {"Ti": "tiny", "T": "tiny", "S": "small", "B": "base"}


def why_not(reference: Reference | None, config: Mapping[str, Any], data: Data | None) -> str:
    """Why a cell with this config cannot be held against this published number, '' when it can."""
    if reference is None:
        return ""
    return _data(reference, config, data) or _encoder(reference, config) or _numbers(reference, config)


def _data(reference: Reference, config: Mapping[str, Any], data: Data | None) -> str:
    found = data.name if data else str(value_at(config, "data.name"))
    wanted = _DATA.get(reference.dataset, "imagenet")  # detection data: what the network was trained on before
    if reference.dataset and found != wanted:
        return f"data.name is {found}, in the paper {wanted}"
    if data and found in _RAW and "jpeg" in data.note.lower():
        return f"the images are JPEG files ({data.note}), the paper's are not re-encoded"
    return ""


def _encoder(reference: Reference, config: Mapping[str, Any]) -> str:
    text = reference.encoder
    if not text or "distilled" in text:  # the words name the student, the config the network that teaches it
        return ""
    name, width = encoder_of(text)
    ours, our_width = value_at(config, "encoder.name"), float(value_at(config, "encoder.width") or 1.0)
    if not name:
        return f"the paper's network is {text}, ours {ours}"
    if name != ours:
        return f"encoder.name is {ours}, in the paper {name}"
    if ours.startswith("resnet") and width != our_width:
        return f"encoder.width is {our_width:g}, in the paper {width:g}"
    patch = int(found[2] or 16) if (found := _VIT.match(text)) else 0
    ours_patch = value_at(config, "encoder.patch_size") or 16  # a config leaves it out at its default
    if patch and patch != ours_patch:
        return f"encoder.patch_size is {ours_patch}, in the paper {patch}"
    selective = "SK=yes" in text or "+SK" in text
    if selective != bool(value_at(config, "encoder.sk")):
        return f"the paper's network has {'' if selective else 'no '}selective kernels"
    return ""


def encoder_of(text: str) -> tuple[str, float]:
    """(our name of the encoder, its width) of the registry's words; ('', 1) where they name no network of ours."""
    if found := _RESNET.match(text):
        wide = re.search(r"[wx](\d)|(?<![\d.])(\d)x\b", text[found.end(1) :].partition("distilled")[0])
        width = 0.5 if "half-width" in text else float((wide[1] or wide[2]) if wide and "stem" not in text else 1)
        return f"resnet{found[1]}", width
    if found := _VIT.match(text):
        return f"vit_{_SIZES[found[1]]}", 1.0
    if _DETECTORS.search(text):
        return "resnet50", 1.0
    return "", 1.0


def _numbers(reference: Reference, config: Mapping[str, Any]) -> str:
    for text, key in ((reference.epochs, "epochs"), (reference.batch, "batch_size")):
        ours = config.get(key)
        if not text or ours is None:
            continue
        if not re.fullmatch(r"\d+", text):
            return f"the paper's {key} is {text}, ours {ours}"
        if int(text) != ours:
            return f"{key} is {ours}, in the paper {text}"
    return ""
