"""Accuracy in percent: one definition for every protocol."""

from __future__ import annotations

import torch
from torch import Tensor


def top1(scores: Tensor, labels: Tensor) -> float:
    """Percent of rows of scores (N x C) whose largest entry, the first among equals, is at the label (N)."""
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(scores)} rows of scores for {len(labels)} labels")
    return 100.0 * (scores.argmax(dim=1) == labels.to(scores.device)).double().mean().item()


def topk(scores: Tensor, labels: Tensor, k: int) -> float:
    """Percent of rows of scores (N x C) that have the label (N) among their k largest entries, of equals the first.

    A score that is not a number is larger than the label's.
    """
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(scores)} rows of scores for {len(labels)} labels")
    label = labels.to(scores.device)[:, None]
    own = scores.gather(1, label)
    before = torch.arange(scores.shape[1], device=scores.device) < label
    rank = (~(scores <= own) | ((scores == own) & before)).sum(dim=1)
    return 100.0 * (rank < k).double().mean().item()
