"""Losses as pure functions. Each is computed outside autocast, in float32 at least (float64 stays float64)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Widen half-precision tensors to float32 and leave autocast, which would compute the logits in bfloat16."""

    def widen(x: object) -> object:
        return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x

    @functools.wraps(function)
    def run(first: Tensor, *args: object, **kwargs: object) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return function(widen(first), *map(widen, args), **{k: widen(v) for k, v in kwargs.items()})

    return run


@full_precision
def cosine_regression(p: Tensor, z: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """BYOL's equation 2, one direction: mean over the batch of |p/|p| - z/|z||^2 = 2 - 2 cos(p, z). In [0, 4]."""
    return 2.0 - 2.0 * F.cosine_similarity(p, z, dim=1).mean()


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, tau: float) -> Tensor:  # B x d, B x d, K x d -> scalar
    """MoCo's loss (1911.05722, equation 1): cross-entropy of the positive among itself and K negatives.

    q and k are normalized here; the queue's keys are unit vectors already and must not hold k (see memory.KeyQueue).
    """
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)  # B x 1
    negative = q @ queue.T  # B x K
    logits = torch.cat([positive, negative], dim=1) / tau  # B x (1 + K)
    return F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))


@full_precision
def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:  # B x C, B -> scalar
    """Cross-entropy with labels, mean over the batch."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)
