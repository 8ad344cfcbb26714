"""Somebody else's checkpoint as a network that every protocol takes, or a refusal that says what does not fit.

The encoder is built here from the names and shapes of the tensors, and all of its tensors must be there: nothing is loaded
in part. Heads, queues and the other network of a pair are left aside, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate.architecture import encoder_of
from benchmark.evaluate.layouts import OURS, is_ours, take
from benchmark.evaluate.own import open_own
from benchmark.evaluate.weights_file import WeightsFile
from methods.encoders import EncoderConfig, build_encoder


@dataclass
class Match:
    """How a checkpoint's tensors fit an encoder's. aside: key -> what it belongs to. wrong: key -> (its shape, ours).

    others: what the checkpoint holds beside tensors of networks. notes: what was assumed.
    """

    matched: dict[str, Tensor] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not (self.unknown or self.missing or self.wrong)

    def refusal(self, what: str) -> str:
        """Why it is refused, as the end of a sentence: every kind of misfit with its keys."""
        parts = []
        if self.missing:
            parts.append(f"lacks {listed(self.missing)}")
        if self.wrong:
            shapes = [f"{key} of {_by(theirs)} for {_by(ours)}" for key, (theirs, ours) in self.wrong.items()]
            parts.append(f"has {listed(shapes)}")
        if self.unknown:
            parts.append(f"has {listed(self.unknown)}, which it does not know")
        return f"does not fit {what}: it {' and it '.join(parts)}"


@dataclass(frozen=True)
class Foreign:
    """A checkpoint, opened. encoder: the config of the network it holds. step: of a training of our own, else None.

    channels: the colour spaces the network takes. data: the data section of a cell of our own, else None.
    """

    network: nn.Module
    layout: str
    about: str
    encoder: EncoderConfig
    match: Match
    channels: Sequence[str] = ("rgb",)
    data: dict[str, Any] | None = None
    seed: int | None = None
    step: int | None = None
    method: str | None = None
    same_pads: bool = False


class ForeignEncoder(nn.Module):
    """An encoder alone, as protocols want a network. It has no projection: collapse is watched on its features."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def features(self, images: Tensor) -> Tensor:  # B x 3 x H x W -> B x D
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.features(images)

    def backbone(self) -> nn.Module:
        return self.encoder

    def finetune_network(self) -> nn.Module:
        return self.encoder


def open_foreign(file: WeightsFile, layout: str, said: Mapping[str, Any]) -> Foreign:
    """The network in a file. layout: one of layouts.NAMES. said: encoder settings that the user states.

    Nothing is refused yet for tensors that do not fit, and the network has no numbers then: see `Foreign.match` and `check`.
    InputError where there is no encoder of a known architecture, and where the user's words contradict the file.
    """
    if layout == OURS or (layout == "auto" and is_ours(file.contents)):
        if said:
            raise InputError(f"{file.path}: a checkpoint of our own says itself what its encoder is; leave --encoder out")
        own = open_own(file)
        match = compare(own.state, own.method.state_dict(), Match(others=own.others))
        if match.whole:
            load(own.method, match)
        return Foreign(
            own.method, OURS, "the network that its method evaluates", own.encoder, match,
            own.channels, own.data, own.seed, own.step, own.name,
        )  # fmt: skip
    taken = take(file.contents, layout, file.path)
    config, assumed = encoder_of(taken.encoder, said, taken.described.heads, file.path, "pos_embed" in taken.aside)
    try:
        with torch.device("meta"):  # its shapes: what a file of a few numbers claims to be is not allocated
            encoder, _ = build_encoder(config)
    except ValueError as error:
        raise InputError(f"{file.path}: {error}") from None
    match = Match(aside=taken.aside, unknown=taken.unknown, others=taken.others, notes=[*taken.notes, *assumed])
    compare(taken.encoder, encoder.state_dict(), match)
    if match.whole:
        encoder, _ = build_encoder(config)
        load(encoder, match)
    if taken.described.same_pads:
        pad_as_tensorflow(encoder)
    return Foreign(
        ForeignEncoder(encoder), taken.layout, taken.described.about, config, match, same_pads=taken.described.same_pads
    )


def check(foreign: Foreign, path: Path) -> None:
    """InputError unless every tensor fits and is finite."""
    if not foreign.match.whole:
        what = f"layout {foreign.layout}, {described(foreign.encoder)}"
        raise InputError(f"{path}: {foreign.match.refusal(what)}")
    for key, value in foreign.match.matched.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{path}: {key} holds numbers that are not finite; this training had diverged")


def compare(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], match: Match) -> Match:
    """Say in `match` what fits by name and shape, and what does not.

    A counter that a batch norm lacks is no misfit: PyTorch has it since 0.4.1, and nothing here reads it.
    """
    counters = {key for key in ours if key.endswith("num_batches_tracked")}
    for key, value in theirs.items():
        if key not in ours:
            match.unknown.append(key)
        elif value.shape != ours[key].shape:
            match.wrong[key] = (tuple(value.shape), tuple(ours[key].shape))
        else:
            match.matched[key] = value
    match.missing += [key for key in ours if key not in theirs and key not in counters]
    return match


def load(network: nn.Module, match: Match) -> None:
    """Load a match that is whole."""
    network.load_state_dict({**network.state_dict(), **match.matched})


# NOTE(departs): An even side of a strided convolution or pool of BYOL's is padded below and on the right only, as TensorFlow's
# SAME and DeepMind's own code; converted weights are evaluated so, while our own BYOL pads on all sides, as torchvision's.
def pad_as_tensorflow(encoder: nn.Module) -> None:
    """Make the strided convolutions and pools of an encoder pad as TensorFlow's SAME, in place."""

    def padded(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (x,) = inputs
        sides = []
        for side, kernel, stride in zip(reversed(x.shape[2:]), _pair(layer.kernel_size), _pair(layer.stride), strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            sides += [total // 2, total - total // 2]
        return F.pad(x, sides)  # zeros before a max-pool too: what it sees is not negative

    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and max(_pair(layer.stride)) > 1 and max(_pair(layer.kernel_size)) > 1:
            layer.padding = 0 if isinstance(layer, nn.MaxPool2d) else (0, 0)
            layer.register_forward_pre_hook(padded)


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def described(encoder: EncoderConfig) -> str:
    """An encoder in a few words: what differs from the defaults that this kind of encoder has."""
    words: list[str] = [encoder.name]
    if encoder.width != 1.0:
        words.append(f"width {encoder.width:g}")
    if encoder.name.startswith("vit"):
        words.append(f"patches of {encoder.patch_size}")
        if encoder.heads:
            words.append(f"{encoder.heads} heads")
        grid = f"learned positions {encoder.grid} x {encoder.grid}" if encoder.positions == "learned" else "sin-cos positions"
        words.append(grid)
    else:
        words.append(f"stem {encoder.stem}")
        if encoder.norm != "batch":
            words.append(f"norm {encoder.norm}")
        if encoder.sk:
            words.append("selective kernels")
    return ", ".join(words)


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c and 12 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
