"""LARS as the papers and their codes have it, where timm's, which is apex's LARC, is another function.

With gradient g, weights w, weight decay b, rate r, trust eta, momentum m, the variants differ in two places: which norm the
trust ratio divides by, and whether the velocity holds the rate (which matters when the rate changes):

    paper     (You et al., 1708.03888, algorithm 1)   l = eta |w| / (|g| + b |w|)   v = m v + r l (g + b w)   w = w - v
    google    (SimCLR)                                l = eta |w| / |g + b w|       v = m v + r l (g + b w)   w = w - v
    facebook  (BYOL, Barlow Twins, VICReg, MoCo v3)   l = eta |w| / |g + b w|       v = m v + l (g + b w)     w = w - r v
    apex      (SwAV; timm)                            l = eta |w| / (|g| + b |w|)   v = m v + l (g + b w)     w = w - r v

Parameters that are not adapted have l = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


# NOTE(departs): SimCLR, BYOL, SwAV, Barlow Twins, VICReg and MoCo v3 all cite LARS (1708.03888), but the released codes compute
# three different updates, none of which is the paper's algorithm 1; optimizer.lars chooses among google (SimCLR), facebook
# (BYOL, Barlow Twins, VICReg, MoCo v3), apex (SwAV) and paper, and its default is apex, in timm's implementation.
# NOTE(departs): A bias or norm scale that a code exempts from weight decay but adapts, or the other way round, cannot be told
# apart here: optimizer.exclude_bias_and_norm does both.
class Lars(torch.optim.Optimizer):
    """Variants paper, google and facebook. Groups with `always_adapt` are adapted, others have trust ratio 1.

    clip: a parameter's rate is the smaller of l and r instead of their product, apex's option. A ratio whose numerator or
    denominator is 0 is 1.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        variant: str,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust: float = 0.001,
        clip: bool = False,
    ) -> None:
        if variant not in ("paper", "google", "facebook"):
            raise ValueError(f"variant must be paper, google or facebook, not '{variant}'")
        self.joint_norm = variant != "paper"
        self.rate_inside = variant != "facebook"
        self.clip = clip
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "trust": trust, "weight_decay": 0.0}
        super().__init__(groups, defaults | {"always_adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("this optimizer takes no closure")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._update(group, weights)

    def _update(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        rate, m, decay = group["lr"], group["momentum"], group["weight_decay"]
        grads = [p.grad for p in weights if p.grad is not None]
        full = list(torch._foreach_add(grads, weights, alpha=decay))
        if group["always_adapt"]:
            torch._foreach_mul_(full, self._ratios(group, weights, grads, full))
        if self.rate_inside:
            torch._foreach_mul_(full, rate)
        for p in weights:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        velocity = [self.state[p]["momentum_buffer"] for p in weights]
        torch._foreach_mul_(velocity, m)
        torch._foreach_add_(velocity, full)
        moved = torch._foreach_add(full, velocity, alpha=m) if group["nesterov"] else velocity
        torch._foreach_add_(weights, moved, alpha=-1.0 if self.rate_inside else -rate)

    def _ratios(self, group: dict[str, Any], weights: list[Tensor], grads: list[Tensor], full: list[Tensor]) -> list[Tensor]:
        w = torch.stack(torch._foreach_norm(weights))
        if self.joint_norm:
            below = torch.stack(torch._foreach_norm(full))
        else:
            g = torch.stack(torch._foreach_norm(grads))
            below = torch.where(g > 0, g + group["weight_decay"] * w, 0.0)
        ratio = torch.where((w > 0) & (below > 0), group["trust"] * w / below.clamp_min(1e-38), 1.0)
        if self.clip and group["lr"] > 0:
            ratio = (ratio / group["lr"]).clamp_max(1.0)
        return list(ratio.unbind())
