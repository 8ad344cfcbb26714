"""Top-1 accuracy in percent: one definition for every protocol."""

from __future__ import annotations

from torch import Tensor


def top1(scores: Tensor, labels: Tensor) -> float:
    """Percent of rows of scores (N x C) whose largest entry, the first among equals, is at the label (N)."""
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(scores)} rows of scores for {len(labels)} labels")
    return 100.0 * (scores.argmax(dim=1) == labels.to(scores.device)).double().mean().item()
