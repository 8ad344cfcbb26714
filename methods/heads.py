"""Projection and prediction heads: multi-layer perceptrons with a norm by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods.norms import StandardizedLinear, norm_1d


@dataclass(frozen=True)
class HeadConfig:
    """(linear, norm, ReLU) x (layers - 1), then a linear layer.

    layers: linear layers in all; 1 is a linear head, 0 no head at all.
    hidden, out: widths of the hidden layers and of the output.
    norm: after every hidden linear layer; the names are the encoders'. `layer` is LayerNorm over the vector.
    final_norm: the same norm after the last linear layer too (SimSiam's and MoCo v3's projectors).
    final_bias: whether the last linear layer has a bias, where no norm follows it.
    groups: of the group norms.
    """

    layers: int = 2
    hidden: int = 512
    out: int = 128
    norm: Literal["batch", "group", "group_ws", "layer", "none", "affine"] = "batch"
    final_norm: bool = False
    final_bias: bool = True
    groups: int = 16


def mlp(in_dim: int, config: HeadConfig) -> nn.Sequential:
    """The head of `config` on B x in_dim, with PyTorch's default initialization of linear layers."""
    if config.layers < 0:
        raise ValueError(f"a head's layers must be at least 0, not {config.layers}")
    if min(config.hidden, config.out) < 1:
        raise ValueError(f"a head's widths must be at least 1, not hidden {config.hidden} and out {config.out}")
    linear = StandardizedLinear if config.norm == "group_ws" else nn.Linear
    # A bias before batch norm is subtracted again, before Affine it is a second offset: neither is kept.
    hidden_bias = config.norm not in ("batch", "affine")
    layers: list[nn.Module] = []
    for _ in range(config.layers - 1):
        layers.append(linear(in_dim, config.hidden, bias=hidden_bias))
        layers.append(norm_1d(config.norm, config.hidden, config.groups))
        layers.append(nn.ReLU(inplace=True))
        in_dim = config.hidden
    if config.layers > 0 and config.final_norm:
        layers.append(linear(in_dim, config.out, bias=hidden_bias))
        layers.append(norm_1d(config.norm, config.out, config.groups))
    elif config.layers > 0:
        # Never standardized: without a norm behind it, that would fix the output's scale.
        layers.append(nn.Linear(in_dim, config.out, bias=config.final_bias))
    return nn.Sequential(*layers)


def out_dim(in_dim: int, config: HeadConfig) -> int:
    """The width of what `mlp(in_dim, config)` returns."""
    return config.out if config.layers > 0 else in_dim


def has_batch_norm(config: HeadConfig) -> bool:
    """Whether `mlp` puts a batch norm into the head: then a batch of one image cannot train it."""
    return config.norm == "batch" and (config.layers > 1 or (config.layers == 1 and config.final_norm))


def predictor_mlp(width: int, config: HeadConfig) -> nn.Sequential:
    """The head q that predicts one projection from another: it must end in the projector's width. ValueError otherwise."""
    if out_dim(width, config) != width:
        raise ValueError(f"predictor.out is {config.out}, but the projector's output has {width}")
    return mlp(width, config)
