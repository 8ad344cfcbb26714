"""Supervised training for the protocols that need some: linear probes, fine-tuning, distillation. Interrupted, it goes on.

The images, their order and their augmentation depend on the subject's random seed alone, and the checkpoint holds all else:
a training that was stopped ends with the same bits as one that was not. An evaluation may train several times, in stages:
the checkpoint keeps what the finished ones trained, and a run that goes on does not repeat them.
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

    def steps(self, images: int) -> int:
        """Of a training on so many images."""
        return self.epochs * max(1, images // self.batch_size)


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
    known: np.ndarray | None = None,
) -> float:
    """Train `trained` in place on the training images `indices`; returns the seconds it took, over all restarts.

    groups: `[{"params", "decay", "times"?}]` as methods state them; `times` multiplies the group's rate. The caller sets the
    modes of its modules. stage: its name, another for each training of an evaluation, which come in the same order every time;
    a finished one only has its result loaded. A training set smaller than a batch is one batch. known: the labels that the
    loss is given in the place of the training file's own, N of its images; -1 for what it must not know.
    Raises Stopped after a checkpoint, Diverged when no part's loss is finite any more, InputError where there is no image.
    """
    if len(indices) == 0:
        raise InputError(f"{stage}: there is no labelled training image to learn from")
    saved = checkpoint.load(place.checkpoint) if place.checkpoint.exists() else None
    if saved and stage in saved["finished"]:
        trained.load_state_dict(saved["finished"][stage]["trained"])
        return float(saved["finished"][stage]["seconds"])
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
        step, before, finished = _restore(saved, stage, trained, optimizer)
        started = last_saved = time.monotonic()
        first = step
        while step < schedule.total:
            epoch, done = divmod(step, loader.batches_per_epoch)
            for batch in loader.epoch(epoch, start_batch=done):
                labels = batch.labels if known is None else torch.from_numpy(known[batch.index.cpu().numpy()])
                value = _step(subject, batch.views, labels, regime, optimizer, schedule, step, loss)
                step += 1
                now = time.monotonic()
                rate = (step - first) * size / max(now - started, 1e-9)
                left = (schedule.total - step) * size / max(rate, 1e-9)
                at = step / loader.batches_per_epoch
                subject.report(Progress(step, schedule.total, at, value, rate, left))
                last = step == schedule.total
                if last or subject.stop.wanted or now - last_saved > CHECKPOINT_SECONDS:
                    _save(subject, place, stage, trained, optimizer, step, before + now - started, finished)
                    last_saved = time.monotonic()
                    if subject.stop.wanted and not last:
                        raise Stopped(subject.stop.reason)
        return before + time.monotonic() - started


def finite(trained: nn.Module) -> bool:
    """Whether all that it has learned is: no loss sees the weights after the last step, nor a batch norm's running averages."""
    return all(bool(value.isfinite().all()) for value in trained.state_dict().values())


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


def _restore(
    saved: dict[str, Any] | None, stage: str, trained: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float, dict[str, Any]]:
    """Take up the checkpoint if there is one: (steps done, seconds spent, what earlier stages trained)."""
    if saved is None:
        return 0, 0.0, {}
    if not saved["stage"]:
        return 0, 0.0, saved["finished"]
    if saved["stage"] != stage:  # the stage before this one, and it is finished: stages are trained one after another
        return 0, 0.0, saved["finished"] | {saved["stage"]: {key: saved[key] for key in ("trained", "seconds")}}
    trained.load_state_dict(saved["trained"])
    optimizer.load_state_dict(saved["optimizer"])
    set_random_state(saved["random"])
    return saved["step"], saved["seconds"], saved["finished"]


def _save(
    subject: Subject, place: Place, stage: str, trained: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float,
    finished: dict[str, Any],
) -> None:  # fmt: skip
    subject.check()
    state = {
        "stage": stage,
        "trained": trained.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "step": step,
        "seconds": seconds,
        "finished": finished,
    }
    checkpoint.save(place.checkpoint, state)


def settle(subject: Subject, place: Place, stage: str, number: float) -> None:
    """Keep, of a stage that was trained to its end or has diverged, this number alone: its weights are not needed any more."""
    subject.check()
    saved: dict[str, Any] = {"stage": "", "finished": {}}
    if place.checkpoint.exists():
        saved = checkpoint.load(place.checkpoint)
    finished: dict[str, Any] = saved["finished"]
    if saved["stage"] not in ("", stage):  # the stage diverged before its first checkpoint
        finished = finished | {saved["stage"]: {key: saved[key] for key in ("trained", "seconds")}}
    checkpoint.save(place.checkpoint, {"stage": "", "finished": finished | {stage: {"settled": number}}})


def settled(place: Place, stage: str) -> float | None:
    """The number that a stage was settled with, None where it was not."""
    saved = checkpoint.load(place.checkpoint) if place.checkpoint.exists() else {"finished": {}}
    number = saved["finished"].get(stage, {}).get("settled")
    return None if number is None else float(number)
