"""Normalization layers, on maps and on vectors: what the BYOL debate is about.

`Affine` and the weight-standardized layers are ours; the others are PyTorch's own, chosen by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.gather import summed, world_size

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
        var, own = torch.var_mean(wide, dim=[d for d in range(x.ndim) if d != 1], correction=0)  # C, C
        mean = summed(own) / world_size()  # of the batch of all ranks
        var = summed(var + (own - mean).square()) / world_size()
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


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, the same numbers. Of a map of one pixel an odd kernel reads only its own centre, and is given
    no more: with bfloat16 and channels-last maps PyTorch 2.14's CPU kernel returns garbage as the gradient of the rest.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x, self.weight)

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        middle = self.kernel_size[0] // 2
        if middle > 0 and x.shape[-2:] == (1, 1) and self.padding == (middle, middle):
            return F.conv2d(x, weight[:, :, middle : middle + 1, middle : middle + 1], self.bias)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class StandardizedConv2d(Conv2d):
    """A convolution whose weights are standardized at every forward; the stored ones are free."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x, standardized(self.weight))


class StandardizedLinear(nn.Linear):
    """A linear layer whose weights are standardized at every forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, standardized(self.weight), self.bias)


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm, the same numbers; on a CPU, channels-last maps take the contiguous kernel.

    A group of a single value is refused: its mean is that value, and all that follows would be zero.

    PyTorch's channels-last CPU kernel is two to four times slower than the way there and back where a group is a few
    channels (128 x 32 x 16 x 16 in bfloat16, 16 groups, forward and backward on one core); with one group it is not.
    """

    def forward(self, x: Tensor) -> Tensor:  # B x C or B x C x H x W
        if math.prod(x.shape[1:]) == self.num_groups:
            raise ValueError(_one_value(self.num_channels, self.num_groups, "a map of one pixel"))
        if x.device.type != "cpu" or x.ndim != 4 or x.is_contiguous():
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are a part of the experiment, not of the machine it runs on.

    splits: how many equal, consecutive parts of the whole batch, over all ranks, have statistics of their own. 1 is the
    whole batch (what others call SyncBN); 8 is a batch of 256 on MoCo's eight GPUs, wherever it runs. On N ranks either
    all of them share their statistics or each computes its splits / N alone, so splits is 1 or a multiple of N.
    Running statistics move by the mean over the parts; on several ranks call `average_running_statistics` before
    they are read.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, splits: int = 1) -> None:
        super().__init__(channels)
        self.splits = splits

    def forward(self, x: Tensor) -> Tensor:  # B x C or B x C x H x W
        ranks = world_size()
        if not self.training or (self.splits == 1 and ranks == 1):
            return super().forward(x)
        self.num_batches_tracked += 1
        if self.splits == 1:
            out: Tensor
            out, mean, var, count = _BatchNormOverRanks.apply(x, self.weight, self.bias, self.eps)
        else:
            out, mean, var, count = self._in_parts(x, self.splits // ranks)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
        return out

    def _in_parts(self, x: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor, int]:
        if self.splits % world_size():
            raise ValueError(f"bn_splits {self.splits} cannot be shared by {world_size()} ranks; make it a multiple, or 1")
        if len(x) % parts or len(x) // parts < 2:
            raise ValueError(f"{len(x)} samples cannot be split into {parts} parts of at least two for their batch norms")
        # Part by part along the channels, so that one call of PyTorch's kernel does them all.
        batch, channels, space = len(x), x.shape[1], x.shape[2:]
        wide = x.reshape(parts, batch // parts, channels, *space).transpose(0, 1).reshape(batch // parts, -1, *space)
        weight, bias = self.weight.repeat(parts), self.bias.repeat(parts)
        mean, var = torch.zeros_like(weight), torch.zeros_like(weight)
        out = F.batch_norm(wide, mean, var, weight, bias, True, 1.0, self.eps)  # momentum 1: mean and var are this batch's
        out = out.reshape(batch // parts, parts, channels, *space).transpose(0, 1).reshape(x.shape)
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            out = out.contiguous(memory_format=torch.channels_last)
        count = wide.numel() // wide.shape[1]
        biased = var.view(parts, channels).mean(dim=0) * ((count - 1) / count)
        return out, mean.view(parts, channels).mean(dim=0), biased, count


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """For B x C."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """For B x C x H x W."""


class _BatchNormOverRanks(torch.autograd.Function):
    """Batch norm of the batch of all ranks: two sums over the ranks forward, one backward.

    PyTorch's SyncBatchNorm does this on GPUs only. Statistics are computed in float32 at least, the variance from the
    centred values.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, int]:
        wide = x if x.dtype == torch.float64 else x.float()
        over = [d for d in range(x.ndim) if d != 1]
        count = x.numel() // x.shape[1] * world_size()
        mean = summed(wide.sum(dim=over)) / count  # C
        shape = (1, -1) + (1,) * (x.ndim - 2)
        var = summed((wide - mean.view(shape)).square().sum(dim=over)) / count  # C, of the population
        inverse = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.count = count
        ctx.mark_non_differentiable(mean, var)
        scale = weight * inverse
        out = wide * scale.view(shape) + (bias - mean * scale).view(shape)
        return out.to(x.dtype), mean, var, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *unused: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        shape = (1, -1) + (1,) * (x.ndim - 2)
        over = [d for d in range(x.ndim) if d != 1]
        normalized = (x.to(mean.dtype) - mean.view(shape)) * inverse.view(shape)
        gradient = gradient.to(mean.dtype)
        bias_gradient = gradient.sum(dim=over)  # C, of this rank: the loop takes the mean of all ranks
        weight_gradient = (gradient * normalized).sum(dim=over)
        whole = summed(torch.stack([bias_gradient, weight_gradient])) / ctx.count
        inner = gradient - whole[0].view(shape) - normalized * whole[1].view(shape)
        return (inner * (weight * inverse).view(shape)).to(x.dtype), weight_gradient, bias_gradient, None


@torch.no_grad()
def average_running_statistics(module: nn.Module) -> None:
    """Running statistics of batch norms in parts <- their mean over the ranks, in one message.

    They move linearly, so the mean of the moved ones is the moved mean but for its rounding: called after every step, a
    training that is interrupted and resumed keeps every bit.
    """
    if world_size() == 1:
        return
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.splits > 1]
    statistics = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    if statistics:
        whole = summed(torch.cat(statistics)) / world_size()
        torch._foreach_copy_(statistics, list(whole.split([len(value) for value in statistics])))


def divisor(channels: int, groups: int) -> int:
    """The largest number of groups, at most `groups`, that divides `channels`."""
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    return next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)


def _one_value(channels: int, groups: int, where: str) -> str:
    return f"{groups} groups of {channels} channels leave one value to a group of {where}, which becomes zero; lower groups"


def norm_2d(kind: str, channels: int, groups: int, splits: int = 1) -> nn.Module:
    """The layer that follows a convolution, for B x C x H x W. `layer` is over C, H and W together.

    splits: of `batch` alone, see `BatchNorm2d`.
    """
    if kind == "batch":
        return BatchNorm2d(channels, splits)
    if kind in ("group", "group_ws"):
        return GroupNorm(divisor(channels, groups), channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return _without_statistics(kind, channels)


def norm_1d(kind: str, channels: int, groups: int) -> nn.Module:
    """The layer that follows a linear layer, for B x C. ValueError for as many groups as channels."""
    if kind == "batch":
        return BatchNorm1d(channels)
    if kind in ("group", "group_ws"):
        groups = divisor(channels, groups)
        if groups == channels:
            raise ValueError(_one_value(channels, groups, "a vector"))
        return nn.GroupNorm(groups, channels)
    if kind == "layer":
        return nn.LayerNorm(channels)
    return _without_statistics(kind, channels)


def _without_statistics(kind: str, channels: int) -> nn.Module:
    if kind == "affine":
        return Affine(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown norm '{kind}'; the norms are batch, group, group_ws, layer, affine, none")
