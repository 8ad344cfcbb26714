"""Has the representation collapsed, and how: to a point (std), to a line or a few directions (effective rank)?

Accuracy says it late and at small scale not at all; these say it at once. `std_ratio` and `pair_cosine` are the very
functions that training logs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.telemetry import pair_cosine, std_ratio

__all__ = ["collapse_metrics", "effective_rank", "pair_cosine", "std_ratio"]


def effective_rank(z: Tensor) -> float:  # N x d
    """exp(entropy of p), p_i = s_i / sum s, s the singular values of the centred z. Between 1 and min(N - 1, d).

    Roy & Vetterli (2007); RankMe (2210.02885) uses it for representations, without centring. Centred here, so that a
    constant offset does not count as a direction. 0 when all rows are equal: then no direction varies at all. Singular
    values within rounding of the input's precision (eps times the norm of z) are taken as zero.
    """
    eps = torch.finfo(z.dtype).eps
    wide = z.detach().double()
    centred = wide - wide.mean(dim=0)
    # The smaller Gram matrix has the squared singular values as its eigenvalues, and is far cheaper than an SVD.
    gram = centred.T @ centred if len(z) >= z.shape[1] else centred @ centred.T
    s = torch.linalg.eigvalsh(gram).clamp_min(0.0).sqrt()
    s = s[s > eps * wide.norm()]
    if len(s) == 0:
        return 0.0
    p = s / s.sum()
    return float((-(p * p.log()).sum()).exp())


def collapse_metrics(z: Tensor, features: Tensor) -> dict[str, float]:
    """What the collapse protocol records of projections z (N x d) and features (N x D) of the same images."""
    return {
        "std": float(std_ratio(z)),
        "effective_rank": effective_rank(z),
        "pair_cosine": float(pair_cosine(z)),
        "feature_std": float(std_ratio(features)),
        "feature_effective_rank": effective_rank(features),
    }
