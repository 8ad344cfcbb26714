"""The optimizer of a cell, from its config and the method's parameter groups."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.train.schedule import peak_learning_rate


def build_optimizer(groups: list[dict[str, Any]], optimizer: dict[str, Any], batch_size: int) -> torch.optim.Optimizer:
    """groups: `[{"params": [...], "decay": bool, ...}]` as the method states them.

    With exclude_bias_and_norm the groups marked decay=False get no weight decay, and so no LARS adaptation either: timm's
    LARS (trust ratio 0.001 ||w|| / (||g|| + wd ||w||), as 1708.03888) leaves groups without weight decay unadapted.
    """
    decay = float(optimizer["weight_decay"])
    exclude = bool(optimizer["exclude_bias_and_norm"])
    prepared = [
        {**{key: value for key, value in group.items() if key != "decay"},
         "weight_decay": 0.0 if exclude and not group["decay"] else decay}
        for group in groups
        if group["params"]
    ]  # fmt: skip
    rate = peak_learning_rate(optimizer, batch_size)
    name = optimizer["name"]
    if name == "sgd":
        return torch.optim.SGD(prepared, lr=rate, momentum=optimizer["momentum"], nesterov=optimizer["nesterov"])
    if name == "adamw":
        return torch.optim.AdamW(prepared, lr=rate)
    from timm.optim.lars import Lars

    return Lars(prepared, lr=rate, momentum=optimizer["momentum"], nesterov=optimizer["nesterov"])
