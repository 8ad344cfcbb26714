"""Supervised training for the protocols that need some: linear probes, fine-tuning, distillation. Interrupted, it goes on.

The images, their order and their augmentation depend on the subject's random seed alone, and the checkpoint holds all else:
a training that was stopped ends with the same bits as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data import open_loader
from benchmark.errors import InputError
from benchmark.evaluate.subject import Place, Subject
from benchmark.train import checkpoint
from benchmark.train.loop import CHECKPOINT_SECONDS, Diverged, Progress
from benchmark.train.optim import build_optimizer
from benchmark.train.schedule import Schedule
from benchmark.train.seeding import random_state, seed_everything, set_random_state
from benchmark.train.stop import Stopped
from methods.views import ViewConfig


@dataclass(frozen=True)
class Regime:
    """How long and how. optimizer, schedule: sections as a cell's config has them (OptimizerConfig, ScheduleConfig)."""

    epochs: int
    batch_size: int
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    views: tuple[ViewConfig, ...] = (ViewConfig(),)  # crop and flip
    precision: str = "fp32"
    seed: int = 0


Loss = Callable[[list[Tensor], Tensor], Tensor]  # views, labels -> a scalar, or K losses of K parts that share no parameter


def fit(
    subject: Subject,
    place: Place,
    indices: np.ndarray,
    regime: Regime,
    trained: nn.Module,
    groups: list[dict[str, Any]],
    loss: Loss,
    stage: str,
) -> float:
    """Train `trained` in place on the training images `indices`; returns the seconds it took, over all restarts.

    groups: `[{"params", "decay", "times"?}]` as methods state them; `times` multiplies the group's rate. The caller sets the
    modes of its modules. Raises Stopped after a checkpoint, Diverged when no part's loss is finite any more, InputError where
    there are fewer images than a batch needs.
    """
    if len(indices) == 0:
        raise InputError(f"{stage}: there is no labelled training image to learn from")
    size = min(regime.batch_size, len(indices))
    optimizer = build_optimizer(groups, regime.optimizer, size)
    for group in optimizer.param_groups:
        group["peak"] *= group.get("times", 1.0)
    dataset = subject.dataset
    with open_loader(
        dataset,
        indices=indices,
        views=regime.views,
        batch_size=size,
        seed=regime.seed,
        workers=subject.workers,
        out_size=subject.image_size,
        mean=dataset.mean,
        std=dataset.std,
        backend=subject.backend,
        device=str(subject.device),
    ) as loader:
        schedule = Schedule(regime.schedule, regime.epochs, loader.batches_per_epoch, float(regime.optimizer["weight_decay"]))
        seed_everything(regime.seed, stage)
        step, before = _restore(place, stage, trained, optimizer)
        started = saved = time.monotonic()
        first = step
        while step < schedule.total:
            epoch, done = divmod(step, loader.batches_per_epoch)
            for batch in loader.epoch(epoch, start_batch=done):
                value = _step(subject, batch.views, batch.labels, regime, optimizer, schedule, step, loss)
                step += 1
                now = time.monotonic()
                rate = (step - first) * size / max(now - started, 1e-9)
                left = (schedule.total - step) * size / max(rate, 1e-9)
                at = step / loader.batches_per_epoch
                subject.report(Progress(step, schedule.total, at, value, rate, left))
                last = step == schedule.total
                if last or subject.stop.wanted or now - saved > CHECKPOINT_SECONDS:
                    _save(subject, place, stage, trained, optimizer, step, before + now - started)
                    saved = time.monotonic()
                    if subject.stop.wanted and not last:
                        raise Stopped(subject.stop.reason)
        return before + time.monotonic() - started


def _step(
    subject: Subject, views: list[Tensor], labels: Tensor, regime: Regime, optimizer: torch.optim.Optimizer,
    schedule: Schedule, step: int, loss: Loss,
) -> float:  # fmt: skip
    device = subject.device
    on_device = [view.to(device, non_blocking=True, memory_format=torch.channels_last) for view in views]
    with torch.autocast(device.type, torch.bfloat16, enabled=regime.precision == "bf16"):
        parts = loss(on_device, labels.to(device)).reshape(-1)
    finite = parts.detach().isfinite()
    if not finite.any():
        raise Diverged(step)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step, group["peak"])
    optimizer.zero_grad(set_to_none=True)
    parts.sum().backward()
    optimizer.step()
    return float(parts.detach()[finite].min())


def _restore(place: Place, stage: str, trained: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Take up the checkpoint of this stage if there is one: (steps done, seconds spent)."""
    if not place.checkpoint.exists():
        return 0, 0.0
    state = checkpoint.load(place.checkpoint)
    if state["stage"] != stage:  # that of an earlier stage of the same evaluation
        return 0, 0.0
    trained.load_state_dict(state["trained"])
    optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"])
    return state["step"], state["seconds"]


def _save(
    subject: Subject, place: Place, stage: str, trained: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    subject.check()
    state = {
        "stage": stage,
        "trained": trained.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "step": step,
        "seconds": seconds,
    }
    checkpoint.save(place.checkpoint, state)
