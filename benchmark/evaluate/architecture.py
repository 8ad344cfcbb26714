"""Which of our encoders has tensors of these names and shapes: read off the tensors, never guessed where they do not say it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmark.errors import InputError
from methods.encoders.config import EncoderConfig
from methods.encoders.resnet import BLOCKS
from methods.encoders.vit import CHANNELS

# What shapes cannot tell: whoever knows better says it with --encoder.
_OPEN = ("groups", "zero_init", "bn_splits", "heads", "drop_path", "patch_projection")


def encoder_of(
    tensors: Mapping[str, Tensor], said: Mapping[str, Any], heads: Mapping[int, int], path: Path, fixed_positions: bool = False
) -> tuple[EncoderConfig, list[str]]:
    """The config of the encoder with these tensors (under our names), and what was assumed, in words.

    said: settings of EncoderConfig that the user states; one that the tensors contradict is an InputError, as are shapes
    that none of our encoders has. heads: of a ViT's attention by its channels, where its release has others than one for 64.
    fixed_positions: the file had MoCo v3's, which ours computes.
    """
    notes: list[str] = []
    if "patch_embed.proj.weight" in tensors:
        found = _vit(tensors, said, fixed_positions, path)
        if heads.get(tensors["patch_embed.proj.weight"].shape[0]):
            found["heads"] = heads[tensors["patch_embed.proj.weight"].shape[0]]
    else:
        found = _resnet(tensors, said, path, notes)
    for key, value in said.items():
        if key in found and key not in _OPEN and found[key] != value and not _alike(found[key], value):
            raise InputError(
                f"{path}: holds an encoder with {key} {_shown(found[key])}, but --encoder says {key}={_shown(value)}"
            )
    try:
        return EncoderConfig(**(found | dict(said))), notes
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _resnet(tensors: Mapping[str, Tensor], said: Mapping[str, Any], path: Path, notes: list[str]) -> dict[str, Any]:
    counts = tuple(_count(tensors, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
    bottleneck = any(re.fullmatch(r"layer1\.\d+\.conv3\.weight", key) for key in tensors)
    name = next((name for name, (blocks, deep) in BLOCKS.items() if (blocks, deep) == (counts, bottleneck)), None)
    if name is None:
        kind = "bottlenecks" if bottleneck else "basic blocks"
        known = ", ".join(f"{name} {'-'.join(map(str, blocks))}" for name, (blocks, _) in BLOCKS.items())
        raise InputError(f"{path}: holds stages layer1 to layer4 of {'-'.join(map(str, counts))} {kind}; known are {known}")
    selective = "layer1.0.conv2.conv.weight" in tensors
    first = next((tensors[key] for key in ("conv1.weight", "conv1.0.weight") if key in tensors), None)
    inner = tensors.get("layer1.0.conv1.weight")
    if first is None or inner is None or first.ndim != 4 or inner.ndim != 4:
        raise InputError(f"{path}: the first convolutions of a {name}, conv1.weight and layer1.0.conv1.weight, are not there")
    if first.shape[1] != 3:
        raise InputError(f"{path}: its {name} takes images of {first.shape[1]} channels, and not of red, green and blue")
    found: dict[str, Any] = {"name": name, "width": inner.shape[0] / 64, "sk": selective}
    if "bn1.running_mean" in tensors:
        found["norm"] = "batch"
    elif "bn1.weight" not in tensors:
        found["norm"] = "none"
    elif said.get("norm") not in ("group", "group_ws", "layer", "affine"):
        raise InputError(
            f"{path}: its norms have no running statistics, so they are not batch norms; say which, --encoder norm=group, "
            "group_ws, layer or affine (and groups=16)"
        )
    kernel = 7 if selective else first.shape[2]
    if kernel == 3:
        found["stem"] = said.get("stem", "cifar")
        if found["stem"] == "imagenet":
            raise InputError(f"{path}: its first convolution is 3x3, but --encoder says stem=imagenet, which is 7x7")
        if "stem" not in said:
            notes.append(
                "its first convolution is 3x3, taken as that of stride 1 (stem cifar); --encoder stem=stride2 if it is not"
            )
    elif kernel == 7:
        found["stem"] = "imagenet"
    else:
        raise InputError(f"{path}: its first convolution is {kernel}x{kernel}; the stems here are 7x7 and 3x3")
    return found


def _vit(tensors: Mapping[str, Tensor], said: Mapping[str, Any], fixed_positions: bool, path: Path) -> dict[str, Any]:
    patches = tensors["patch_embed.proj.weight"]
    if patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
        raise InputError(
            f"{path}: its patch projection has the shape {tuple(patches.shape)}; expected channels x 3 x side x side"
        )
    if patches.shape[1] != 3:
        raise InputError(f"{path}: its ViT takes images of {patches.shape[1]} channels, and not of red, green and blue")
    depth, channels = _count(tensors, r"blocks\.(\d+)\."), patches.shape[0]
    if depth != 12:
        raise InputError(f"{path}: its ViT has {depth} blocks; the ViTs here, {', '.join(CHANNELS)}, have 12")
    name = next((name for name, width in CHANNELS.items() if width == channels), "vit_small")
    found: dict[str, Any] = {
        "name": name,
        "width": channels / CHANNELS[name],
        "patch_size": patches.shape[2],
        "positions": "sincos",
    }
    table = tensors.get("pos_embed")
    if table is not None:
        grid = math.isqrt(max(0, table.shape[1] - 1)) if table.ndim == 3 else 0
        if grid < 1 or grid**2 + 1 != table.shape[1]:
            raise InputError(
                f"{path}: its positions have the shape {tuple(table.shape)}, which is not a square and a class token"
            )
        found |= {"positions": "learned", "grid": grid}
    elif not fixed_positions and said.get("positions") != "sincos":
        raise InputError(
            f"{path}: its ViT lacks pos_embed, the positions of its patches; if they are MoCo v3's fixed sines and cosines, "
            "say --encoder positions=sincos"
        )
    return found


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number in the keys' beginnings."""
    return max((int(found[1]) + 1 for key in tensors if (found := re.match(pattern, key))), default=0)


def _alike(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, int | float) and math.isclose(a, b, rel_tol=1e-3)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
