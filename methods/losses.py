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
def nt_xent(
    z: Tensor,
    tau: float,
    normalize: bool = True,
    both: bool = True,
    queue: Tensor | None = None,
    keys: Tensor | None = None,
) -> Tensor:  # V x B x d -> scalar
    """SimCLR's loss (2002.05709, equation 1): each view must find the other view of its image among all other images.

        l(v, i) = -log exp(s(z_v, z_i) / tau) / (exp(s(z_v, z_i) / tau) + sum over negatives n of exp(s(z_v, z_n) / tau))

    is averaged over the images and over the ordered pairs of an anchor v and another view i of its image; the negatives are
    the views of all other images. With two views that is the paper's mean over 2N anchors, each with one positive and
    2(N - 1) negatives; with more it is equation 7 of SwAV (2006.09882, appendix A.8).

    normalize: s is the cosine; without it the inner product (table 5). both: the negatives are other images in all views,
    else in the positive's view alone (table 4). queue: K x d, further negatives, unit vectors. keys: V x B x d, what the
    anchors z are compared with, where that is not z itself (behind a predictor).
    """
    if normalize:
        z, keys = F.normalize(z, dim=2), None if keys is None else F.normalize(keys, dim=2)
    keys = z if keys is None else keys
    views, images, _ = z.shape
    anchors = z.flatten(0, 1) / tau
    scores = (anchors @ keys.flatten(0, 1).T).view(views, images, views, images)
    positive = scores.diagonal(dim1=1, dim2=3).transpose(1, 2)  # V x B x V: of each anchor with each view of its image
    same_image = torch.eye(images, dtype=torch.bool, device=z.device)[:, None]
    negative = scores.masked_fill(same_image, -torch.inf).logsumexp(dim=3)  # V x B x V
    if both:
        negative = negative.logsumexp(dim=2, keepdim=True)
    if queue is not None:
        negative = torch.logaddexp(negative, (anchors @ queue.T).logsumexp(dim=1).view(views, images, 1))
    # log(e^p / (e^p + e^n)) is the log of the sigmoid of p - n. An anchor is no view of its own.
    found = F.logsigmoid(positive - negative)
    pairs = views * (views - 1) * images
    return (found.diagonal(dim1=0, dim2=2).sum() - found.sum()) / pairs


@full_precision
def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:  # B x C, B -> scalar
    """Cross-entropy with labels, mean over the batch."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)
