"""The optimizer of a cell, from its config and the method's parameter groups; and what is done to gradients before its step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchmark.train.lars import Lars
from benchmark.train.schedule import batch_scale, peak_learning_rate

OURS = ("peak", "fixed_rate", "decayed")  # what groups have for the loop, beside what optimizers read


def build_optimizer(groups: list[dict[str, Any]], optimizer: dict[str, Any], batch_size: int) -> torch.optim.Optimizer:
    """groups: `[{"params": [...], "decay": bool, "fixed_rate"?: bool, ...}]` as the method states them.

    With exclude_bias_and_norm the groups marked decay=False get no weight decay and no adaptation by LARS or LAMB. Each group
    of the result has `peak`, its rate after the warm-up, `fixed_rate`, and `decayed`: whether weight decay is for it.
    """
    decay = float(optimizer["weight_decay"])
    exclude = bool(optimizer["exclude_bias_and_norm"])
    rate = peak_learning_rate(optimizer, batch_size)
    bias_rate = float(optimizer.get("bias_learning_rate", 0.0)) * batch_scale(optimizer, batch_size) or rate
    prepared = []
    for group in groups:
        if not group["params"]:
            continue
        spared = exclude and not group["decay"]
        prepared.append(
            {
                "fixed_rate": False,
                **{key: value for key, value in group.items() if key != "decay"},
                "weight_decay": 0.0 if spared else decay,
                "lr": rate if group["decay"] else bias_rate,
                "peak": rate if group["decay"] else bias_rate,
                "decayed": not spared,
                "always_adapt": not spared,
            }
        )
    return _build(prepared, optimizer, rate)


def _build(groups: list[dict[str, Any]], optimizer: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    name, momentum, nesterov = optimizer["name"], optimizer["momentum"], optimizer["nesterov"]
    first, second = (float(beta) for beta in optimizer.get("betas", (0.9, 0.999)))
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(first, second))
    if name == "lamb":
        from timm.optim.lamb import Lamb

        # timm's clips gradients to norm 1 unless told otherwise; the paper (1904.00962, algorithm 2) does not
        return Lamb(groups, lr=rate, betas=(first, second), max_grad_norm=None)
    variant, trust = optimizer.get("lars", "apex"), float(optimizer.get("trust", 0.001))
    clip = bool(optimizer.get("trust_clip", False))
    if variant != "apex":
        return Lars(groups, rate, variant, momentum, nesterov, trust, clip)
    from timm.optim.lars import Lars as ApexLars

    return ApexLars(groups, lr=rate, momentum=momentum, nesterov=nesterov, trust_coeff=trust, trust_clip=clip)


def clip_gradients(parameters: Iterable[Tensor], norm: float, by: str) -> Tensor:
    """Scale gradients down to at most `norm`: all together, or each parameter's by itself. Returns their norm before that."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))
    whole = torch.linalg.vector_norm(norms)
    factors = norm / ((norms if by == "parameter" else whole.expand_as(norms)) + 1e-6)
    torch._foreach_mul_(grads, list(factors.clamp_max(1.0).unbind()))
    return whole
