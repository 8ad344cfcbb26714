"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any


def peak_learning_rate(optimizer: dict[str, Any], batch_size: int) -> float:
    """The rate after warm-up: lr x B / 256 where the paper scales with the batch (1706.02677), else lr itself."""
    rate = float(optimizer["learning_rate"])
    return rate * batch_size / 256 if optimizer["scale_with_batch"] else rate


def learning_rate(step: int, total: int, warmup: int, peak: float, kind: str, final_fraction: float) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine to final_fraction x peak (1608.03983) or a constant.

    step counts from 0; the first step of a warm-up already has rate peak / warmup, not 0.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if kind == "constant":
        return peak
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
