"""Collapse, seen while training and after it: one definition for the training log and for the evaluation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _unit(z: Tensor) -> Tensor:  # B x d -> B x d, float32 at least
    return F.normalize(z.detach().to(z.dtype if z.itemsize > 4 else torch.float32), dim=1)


def std_ratio(z: Tensor) -> Tensor:  # B x d -> scalar
    """Standard deviation of z/|z| per channel, mean over channels, times sqrt(d).

    SimSiam's measure (2011.10566, figure 2), scaled: 0 where all outputs are the same, 1 where they are spread
    evenly over the sphere. Population deviation, so one sample gives 0. Zero vectors count as the origin.
    """
    return _unit(z).std(dim=0, correction=0).mean() * z.shape[1] ** 0.5


def pair_cosine(z: Tensor) -> Tensor:  # B x d -> scalar
    """Mean cosine between different samples: 1 where all outputs point one way, 0 where they are spread evenly.

    The batch-norm blog prints it for negatives. Not a number for fewer than two samples.
    """
    unit = _unit(z)
    n = len(unit)
    if n < 2:
        return unit.new_tensor(float("nan"))
    # sum over i != j of u_i . u_j = |sum u|^2 - sum |u|^2: no B x B matrix needed.
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1))
