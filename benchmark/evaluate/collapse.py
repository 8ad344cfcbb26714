"""Has the representation collapsed, and how: to a point (std), to a line or a few directions (effective rank)?

Accuracy says it late and at small scale not at all; these say it at once, by the very functions that training logs
(methods.telemetry). All are of test images, seen without augmentation, but for alignment, which needs two views of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from benchmark.data import open_loader
from benchmark.evaluate.subject import Subject
from methods import telemetry
from methods.telemetry import alignment, pair_cosine, std_ratio
from methods.views import RECIPES, Channels

__all__ = ["alignment", "alignment_metrics", "collapse_metrics", "effective_rank", "pair_cosine", "std_ratio", "uniformity"]

_IMAGES, _BATCH, _ROWS = 1000, 250, 1024


def collapse_metrics(z: Tensor, features: Tensor) -> dict[str, float]:
    """What the collapse protocol records of projections z (N x d) and features (N x D) of the same images."""
    return {
        "std": float(std_ratio(z)),
        "effective_rank": effective_rank(z),
        "pair_cosine": float(pair_cosine(z)),
        "uniformity": uniformity(z),
        "feature_std": float(std_ratio(features)),
        "feature_effective_rank": effective_rank(features),
        "feature_uniformity": uniformity(features),
    }


def effective_rank(z: Tensor) -> float:  # N x d
    """methods.telemetry's, of all rows."""
    return float(telemetry.effective_rank(z))


def uniformity(z: Tensor) -> float:  # N x d
    """Log of the mean, over pairs of different rows, of exp(-2 |u_i - u_j|^2), u = z/|z| (Wang & Isola, 2005.10242, section 4).

    0 where all are the same, the lower the more evenly they are spread. Over all pairs, a piece of the N x N of them at a time.
    """
    wide = z.detach().double() if z.dtype == torch.float64 else z.detach().float()
    unit = torch.nn.functional.normalize(wide, dim=1)
    total, n = 0.0, len(unit)
    if n < 2:
        return float("nan")
    for first in range(0, n, _ROWS):
        potential = (4.0 * (unit[first : first + _ROWS] @ unit.T - 1.0)).exp()  # |u_i - u_j|^2 = 2 - 2 cos
        total += float(potential.sum(dtype=torch.float64) - potential.diagonal(first).sum(dtype=torch.float64))
    return float(np.log(total / (n * (n - 1))))


@torch.no_grad()
def alignment_metrics(subject: Subject) -> dict[str, float]:
    """{"alignment", "feature_alignment"}: mean |u - u'|^2 of an image's two views (Wang & Isola, section 4, exponent 2).

    NOTE(departs): the views are SimCLR's whatever the method was trained with, so that networks can be compared; Wang and Isola
    take the training's own. The images are at most 1,000 held-out ones, training images where none are held out, the same for
    every network.
    """
    images = subject.split.held_out if len(subject.split.held_out) else subject.split.train
    images = images[np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(int)]
    recipe = RECIPES["simclr"][0]
    spaces = cast(Sequence[Channels], subject.channels)
    first = replace(recipe, channels=spaces[0])
    modalities = [replace(recipe, channels=channels, same_draws=True) for channels in spaces[1:]]
    subject.network.eval()
    z: list[list[Tensor]] = [[], []]
    x: list[list[Tensor]] = [[], []]
    with open_loader(
        subject.dataset,
        indices=images,
        views=(first, *modalities) * 2,
        batch_size=min(_BATCH, len(images)),
        seed=0,
        workers=subject.workers,
        out_size=subject.image_size,
        mean=subject.dataset.mean,
        std=subject.dataset.std,
        drop_last=False,
        backend=subject.backend,
        device=str(subject.device),
    ) as loader:
        for batch in loader.epoch(0):
            views = [view.to(subject.device, memory_format=torch.channels_last) for view in batch.views]
            half = len(views) // 2
            for number, parts in enumerate((views[:half], views[half:])):
                seen = parts[0] if half == 1 else torch.cat(parts, dim=1)
                z[number].append(subject.network.project(seen).float())
                x[number].append(subject.network.features(seen).float())
    return {
        "alignment": float(alignment(torch.cat(z[0]), torch.cat(z[1]))),
        "feature_alignment": float(alignment(torch.cat(x[0]), torch.cat(x[1]))),
    }
