"""The slow copy of a network: how it is made, how it moves, and what happens to its buffers.

Buffers are never averaged. The running statistics of a target's batch norms are its own: targets run in train mode, so
their outputs use the statistics of the batch at hand (as BYOL's and MoCo's code does), and each forward moves the
target's own running statistics, which nothing reads during training. Averaging the online network's into them would mix
the statistics of two sets of weights.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def frozen_copy(*modules: nn.Module) -> nn.Sequential:
    """A copy of the modules, one after the other, whose parameters no optimizer sees."""
    return nn.Sequential(*copy.deepcopy(modules)).requires_grad_(False)


@torch.no_grad()
def copy_into(target: nn.Sequential, *modules: nn.Module) -> None:
    """Set the target to the modules as they are now, parameters and buffers."""
    for slow, fast in zip(target, modules, strict=True):
        slow.load_state_dict(fast.state_dict())


def cosine_to_one(base: float, fraction: float) -> float:
    """BYOL's schedule, 1 - (1 - base)(cos(pi k / K) + 1) / 2 with fraction = k / K: from `base` at step 0 to 1."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * fraction) + 1.0) / 2.0


@torch.no_grad()
def ema_update(target: nn.Sequential, *modules: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * modules, for parameters only."""
    slow: list[Tensor] = list(target.parameters())
    fast: list[Tensor] = [p for module in modules for p in module.parameters()]
    if len(slow) != len(fast):
        raise ValueError(f"the target has {len(slow)} parameters, the modules {len(fast)}")
    torch._foreach_lerp_(slow, fast, 1.0 - momentum)
