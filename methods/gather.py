"""Across ranks: what a method needs of torch.distributed, differentiable, and nothing at all where there is one rank.

One rule holds for every method: **a rank's loss may be anything whose mean over the ranks is the loss of the whole batch.**
Then the mean of the ranks' gradients, which is what distributed training applies, is the gradient of the whole batch, and
the number of ranks is no part of the experiment. Two ways lead there:

    z = gathered(z)            B/N x d -> B x d: every rank computes the loss of the whole batch
    s = summed(s)              a sum over this rank's samples -> over all samples

Both let the gradient through, summed over the ranks. Ranks hold equal parts of the batch, in the order of the ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gathered(x: Tensor) -> Tensor:  # B/N x ... -> B x ...
    """The rows of all ranks, in their order; the same tensor on one rank."""
    if world_size() == 1:
        return x
    out: Tensor = _Gather.apply(x)
    return out


def summed(x: Tensor) -> Tensor:
    """The sum over the ranks, elementwise; the same tensor on one rank."""
    if world_size() == 1:
        return x
    out: Tensor = _Sum.apply(x)
    return out


def own_rows(x: Tensor) -> Tensor:  # B x ... -> B/N x ...
    """This rank's rows of what is known for the whole batch; the way back from `gathered`."""
    return x.chunk(world_size())[rank()] if world_size() > 1 else x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank's loss used these rows.
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return own_rows(gradient)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
