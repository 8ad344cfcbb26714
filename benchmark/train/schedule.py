"""Learning rate and weight decay as pure functions of the step."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Any


def peak_learning_rate(optimizer: dict[str, Any], batch_size: int) -> float:
    """The rate after warm-up: lr x B / 256 where the paper scales with the batch (1706.02677), or lr x sqrt(B) where it does
    so by the square root (SimCLR, 2002.05709, appendix B.1), else lr itself."""
    rate = float(optimizer["learning_rate"])
    return rate * batch_scale(optimizer, batch_size)


def batch_scale(optimizer: dict[str, Any], batch_size: int) -> float:
    """What a rate is multiplied by for its batch."""
    if not optimizer["scale_with_batch"]:
        return 1.0
    return math.sqrt(batch_size) if optimizer.get("scale_rule") == "sqrt" else batch_size / 256


# NOTE(departs): The released codes of SimCLR, BYOL, Barlow Twins and VICReg begin their warm-up with a step of rate 0, which
# trains nothing; here the first step has the rate of their second, and the peak comes one step earlier.
def learning_rate(
    step: int,
    total: int,
    warmup: int,
    peak: float,
    kind: str,
    final_fraction: float,
    warmup_start: float = 0.0,
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine to final_fraction x peak (1608.03983), a constant, or a constant
    that is multiplied by gamma at each of `milestones` (steps).

    step counts from 0. A warm-up from 0 has rate peak / warmup at its first step and the peak at its last; one from
    warmup_start x peak begins with just that.
    """
    if step < warmup:
        if warmup_start > 0:
            return peak * (warmup_start + (1 - warmup_start) * step / max(1, warmup - 1))
        return peak * (step + 1) / warmup
    if kind == "constant":
        return peak
    if kind == "step":
        return peak * gamma ** bisect.bisect_right(milestones, step)
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def cosine_between(step: int, total: int, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at step `total`: DINO's weight decay (2104.14294)."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / max(1, total)))


@dataclass(frozen=True)
class Schedule:
    """What a cell's `schedule` says, in steps. section: of the config; per_epoch: steps of an epoch."""

    section: dict[str, Any]
    epochs: int
    per_epoch: int
    weight_decay: float
    total: int = field(init=False)
    warmup: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.epochs * self.per_epoch)
        object.__setattr__(self, "warmup", round(self.section["warmup_epochs"] * self.per_epoch))

    def rate(self, step: int, peak: float) -> float:
        """The learning rate of a step (from 0) whose peak is `peak`."""
        section = self.section
        if section.get("every") == "epoch":  # after the warm-up, which goes by steps in every paper's code
            step = step if step < self.warmup else max(self.warmup, step - step % self.per_epoch)
        milestones = tuple(epoch * self.per_epoch for epoch in section.get("milestones", ()))
        return learning_rate(
            step, self.total, self.warmup, peak, section["kind"], section["final_fraction"],
            section.get("warmup_start", 0.0), milestones, section.get("gamma", 0.1),
        )  # fmt: skip

    def decay(self, step: int) -> float:
        """The weight decay of a step, of parameters that have any."""
        if self.section.get("weight_decay") != "cosine":
            return self.weight_decay
        return cosine_between(step, self.total, self.weight_decay, self.section.get("final_weight_decay", 0.0))
