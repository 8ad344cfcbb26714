"""Collapse and health, seen while training and after it: one definition for the training log and for the evaluation.

    std               deviation of z/|z| per channel x sqrt(d)             0 collapsed, 1 spread over the sphere
    effective_rank    how many directions the batch fills                  0 collapsed
    pair_cosine       between different images of one view                 1 collapsed
    uniformity        log mean exp(-2 |u_i - u_j|^2) over pairs            0 collapsed, the lower the more even
    positive_cosine   between an image's two views, or one and its key     1 aligned
    alignment         mean |u - u'|^2 over positives, 2 - 2 cosine         0 aligned
    negative_cosine   between different images' views                      close to positive_cosine: nothing is told apart

Alignment and uniformity are Wang & Isola's (2005.10242, section 4), for exponents 2 and t = 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from methods.base import Step

SAMPLES = 256


def _unit(z: Tensor) -> Tensor:  # B x d -> B x d, float32 at least
    return F.normalize(z.detach().to(z.dtype if z.itemsize > 4 else torch.float32), dim=1)


def std_ratio(z: Tensor) -> Tensor:  # B x d -> scalar
    """Standard deviation of z/|z| per channel, mean over channels, times sqrt(d).

    SimSiam's measure (2011.10566, figure 2), scaled: 0 where all outputs are the same, 1 where they are spread
    evenly over the sphere. Population deviation, so one sample gives 0. Zero vectors count as the origin.
    """
    return _std(_unit(z))


def pair_cosine(z: Tensor) -> Tensor:  # B x d -> scalar
    """Mean cosine between different samples: 1 where all outputs point one way, 0 where they are spread evenly.

    The batch-norm blog prints it for negatives. Not a number for fewer than two samples.
    """
    return _pair_cosine(_unit(z))


def effective_rank(z: Tensor) -> Tensor:  # N x d -> scalar, float64
    """exp(entropy of p), p_i = s_i / sum s, s the singular values of the centred z. Between 1 and min(N - 1, d).

    Roy & Vetterli (2007); RankMe (2210.02885) uses it for representations, without centring. Centred here, so that a
    constant offset does not count as a direction. 0 when all rows are equal: then no direction varies at all. Singular
    values within rounding of the input's precision (eps times the norm of z) are taken as zero.
    """
    return _effective_rank(z, z.dtype)


def _effective_rank(z: Tensor, computed: torch.dtype) -> Tensor:
    """computed: the precision in which z, or what it was made of, was rounded."""
    eps = torch.finfo(computed).eps
    wide = z.detach().double()
    centred = wide - wide.mean(dim=0)
    # The smaller Gram matrix has the squared singular values as its eigenvalues, and is far cheaper than an SVD.
    gram = centred.T @ centred if len(z) >= z.shape[1] else centred @ centred.T
    finite = gram.isfinite().all()  # the solver refuses what is not
    s = torch.linalg.eigvalsh(torch.where(finite, gram, 0.0)).clamp_min(0.0).sqrt()
    s = torch.where(s > eps * wide.norm(), s, 0.0)
    p = s / s.sum().clamp_min(torch.finfo(s.dtype).tiny)
    rank = torch.where(s.sum() > 0, (-torch.special.xlogy(p, p).sum()).exp(), 0.0)
    return torch.where(finite, rank, torch.nan)


def alignment(z: Tensor, other: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """Mean squared distance between the unit vectors of an image's two views."""
    return _alignment(_unit(z), _unit(other))


def uniformity(z: Tensor) -> Tensor:  # B x d -> scalar
    """Log of the mean, over pairs of different samples, of exp(-2 |u_i - u_j|^2). Not a number for fewer than two."""
    return _uniformity(_unit(z))


def relative_entropy(p: Tensor) -> Tensor:  # ... x K -> ...
    """Entropy over log K: 0 where one entry has all the weight, 1 where all have the same."""
    return -torch.xlogy(p, p).sum(dim=-1) / math.log(p.shape[-1])


@torch.no_grad()
def health(step: Step, z: Tensor, other: Tensor | None = None) -> dict[str, Tensor]:  # B x d each
    """What a method logs of its outputs z for one view and, where an image has a second (a view, a key), of those; nothing
    at a step that nobody watches.

    Effective rank and uniformity look at the first 256 samples: what they cost does not grow with the batch. All of it is
    computed outside autocast, which would tell cosines apart in bfloat16 only: near a collapse, not at all.
    """
    if not step.watched:
        return {}
    with torch.autocast(z.device.type, enabled=False):
        return _health(z, other)


def _health(z: Tensor, other: Tensor | None) -> dict[str, Tensor]:
    unit, n = _unit(z), len(z)  # once: dividing by the norms costs as much as what follows
    few = unit[:SAMPLES]
    log = {"std": _std(unit), "pair_cosine": _pair_cosine(unit)}
    log |= {"effective_rank": _effective_rank(few, z.dtype), "uniformity": _uniformity(few)}
    if other is not None:
        second = _unit(other)
        same = (unit * second).sum(dim=1)
        different = (unit.sum(dim=0) @ second.sum(dim=0) - same.sum()) / (n * (n - 1) or math.nan)
        log |= {"positive_cosine": same.mean(), "negative_cosine": different, "alignment": _alignment(unit, second)}
    return log


# What the public functions of the same names compute, of unit vectors.


def _std(unit: Tensor) -> Tensor:  # B x d -> scalar
    return unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5


def _pair_cosine(unit: Tensor) -> Tensor:  # B x d -> scalar
    n = len(unit)
    if n < 2:
        return unit.new_tensor(float("nan"))
    # sum over i != j of u_i . u_j = |sum u|^2 - sum |u|^2: no B x B matrix needed.
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1))


def _alignment(unit: Tensor, other: Tensor) -> Tensor:  # B x d, B x d -> scalar
    return (unit - other).square().sum(dim=1).mean()


def _uniformity(unit: Tensor) -> Tensor:  # B x d -> scalar
    n = len(unit)
    if n < 2:
        return unit.new_tensor(float("nan"))
    potential = (4.0 * (unit @ unit.T - 1.0)).exp()  # |u_i - u_j|^2 = 2 - 2 cos
    return ((potential.sum() - potential.diagonal().sum()) / (n * (n - 1))).log()
