"""Normalization layers, on maps and on vectors: what the BYOL debate is about.

`Affine` and the weight-standardized layers are ours; the others are PyTorch's own, chosen by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# BiT's (1912.11370, released code) constant inside the square root of weight standardization.
_WS_EPSILON = 1e-10


class Affine(nn.Module):
    """y = scale x + offset per channel (dimension 1), with no statistics at run time.

    Inside `data_dependent_init` the first forward sets scale and offset to what batch norm would have applied to that
    batch: scale <- scale / std, offset <- offset - scale mean / std. Layers are met in forward order, so each one sees
    inputs that the layers before it have already normalized, and the network starts as its batch-norm twin.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps
        self.fitting = False

    def forward(self, x: Tensor) -> Tensor:  # B x C or B x C x H x W
        if self.fitting:
            self._fit(x)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        # Cast, or the float32 parameters would promote half-precision maps to float32.
        return x * self.weight.to(x.dtype).view(shape) + self.bias.to(x.dtype).view(shape)

    @torch.no_grad()
    def _fit(self, x: Tensor) -> None:
        self.fitting = False
        wide = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(wide, dim=[d for d in range(x.ndim) if d != 1], correction=0)  # C, C
        scale = self.weight * torch.rsqrt(var + self.eps)
        self.bias.copy_(self.bias - scale * mean)
        self.weight.copy_(scale)


@contextmanager
def data_dependent_init(module: nn.Module) -> Iterator[bool]:
    """Within, the first forward of every `Affine` in `module` sets its parameters. Yields whether there is any."""
    layers = [layer for layer in module.modules() if isinstance(layer, Affine)]
    for layer in layers:
        layer.fitting = True
    try:
        yield bool(layers)
    finally:
        for layer in layers:
            layer.fitting = False


def standardized(weight: Tensor) -> Tensor:
    """Weight standardization (1903.10520): each output unit's weights with mean 0 and variance 1 over its fan-in.

    Computed in the parameters' own precision, outside autocast's choice; autocast casts the result.
    """
    var, mean = torch.var_mean(weight, dim=list(range(1, weight.ndim)), correction=0, keepdim=True)
    return (weight - mean) * torch.rsqrt(var + _WS_EPSILON)


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose weights are standardized at every forward; the stored ones are free."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, standardized(self.weight), self.bias, self.stride, self.padding, self.dilation, self.groups)


class StandardizedLinear(nn.Linear):
    """A linear layer whose weights are standardized at every forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, standardized(self.weight), self.bias)


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm, the same numbers; on a CPU, channels-last maps take the contiguous kernel.

    PyTorch's channels-last CPU kernel is two to four times slower than the way there and back where a group is a few
    channels (128 x 32 x 16 x 16 in bfloat16, 16 groups, forward and backward on one core); with one group it is not.
    """

    def forward(self, x: Tensor) -> Tensor:  # B x C or B x C x H x W
        if x.device.type != "cpu" or x.ndim != 4 or x.is_contiguous():
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def divisor(channels: int, groups: int) -> int:
    """The largest number of groups, at most `groups`, that divides `channels`."""
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    return next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)


def norm_2d(kind: str, channels: int, groups: int) -> nn.Module:
    """The layer that follows a convolution, for B x C x H x W. `layer` is over C, H and W together."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind in ("group", "group_ws"):
        return GroupNorm(divisor(channels, groups), channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return _without_statistics(kind, channels)


def norm_1d(kind: str, channels: int, groups: int) -> nn.Module:
    """The layer that follows a linear layer, for B x C."""
    if kind == "batch":
        return nn.BatchNorm1d(channels)
    if kind in ("group", "group_ws"):
        return nn.GroupNorm(divisor(channels, groups), channels)
    if kind == "layer":
        return nn.LayerNorm(channels)
    return _without_statistics(kind, channels)


def _without_statistics(kind: str, channels: int) -> nn.Module:
    if kind == "affine":
        return Affine(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown norm '{kind}'; the norms are batch, group, group_ws, layer, affine, none")
