"""The training of a detector: SGD with a linear warm-up and steps, and population statistics for its batch norms at the end.

Interrupted, it goes on from its checkpoint. On a CPU it then ends with the same bits as if it had not been; on a GPU RoIAlign's
gradient is a sum in no fixed order.
"""

from __future__ import annotations

import bisect
import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.data.boxes import Photo
from benchmark.evaluate.detection import Trial
from benchmark.evaluate.detection.inputs import Example, training_batches
from benchmark.evaluate.detection.model import batch_norms
from benchmark.evaluate.subject import Place, Subject
from benchmark.train import checkpoint
from benchmark.train.loop import CHECKPOINT_SECONDS, Diverged, Progress
from benchmark.train.seeding import stream


def rate(step: int, protocol: dict[str, Any]) -> float:
    """The learning rate of a step, from 0: detectron2's WarmupMultiStepLR, rising linearly from warmup_factor."""
    value = protocol["learning_rate"] * protocol["gamma"] ** bisect.bisect_right(protocol["milestones"], step)
    if step < protocol["warmup_iterations"]:
        done = step / protocol["warmup_iterations"]
        value *= protocol["warmup_factor"] * (1 - done) + done
    return float(value)


def optimizer_for(detector: nn.Module, protocol: dict[str, Any]) -> torch.optim.SGD:
    """Weight decay on everything trained but the norms' scales and offsets (detectron2's WEIGHT_DECAY_NORM 0)."""
    convolutions = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    decayed = [p for layer in detector.modules() if isinstance(layer, convolutions) for p in layer.parameters(recurse=False)]
    known = {id(p) for p in decayed}
    spared = [p for p in detector.parameters() if id(p) not in known]
    groups = [
        {"params": [p for p in decayed if p.requires_grad], "weight_decay": protocol["weight_decay"]},
        {"params": [p for p in spared if p.requires_grad], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=protocol["learning_rate"], momentum=protocol["momentum"])


def train(
    subject: Subject, protocol: dict[str, Any], place: Place, photos: Sequence[Photo], trial: Trial, detector: nn.Module
) -> None:
    """All iterations from wherever the checkpoint stands, then the population statistics; the detector is left in evaluation
    mode. Raises Stopped after a checkpoint, Diverged where a loss is not finite."""
    optimizer = optimizer_for(detector, protocol)
    step, before, ready = _restore(place, trial, detector, optimizer)
    total, size = protocol["iterations"], protocol["batch_size"]
    started = saved = time.monotonic()
    first = step
    detector.train()
    with closing(training_batches(photos, protocol, trial.seed, subject.workers, step)) as batches:
        while step < total:
            loss = _step(detector, optimizer, next(batches), protocol, trial, step, subject.device)
            step += 1
            now = time.monotonic()
            pace = (step - first) * size / max(now - started, 1e-9)
            left = (total - step) * size / max(pace, 1e-9)
            subject.report(Progress(step, total, step * size / len(photos), loss, pace, left))
            if step == total or subject.stop.wanted or now - saved > CHECKPOINT_SECONDS:
                _save(subject, place, trial, detector, optimizer, step, before + now - started)
                saved = time.monotonic()
                subject.stop.heed()
        if not ready:
            precise_batch_norm(subject, protocol, trial, detector, batches)
            if protocol["precise_bn"]:
                _save(subject, place, trial, detector, optimizer, step, before + time.monotonic() - started, ready=True)
    detector.eval()
    subject.log.info("%s: trained %d steps in %.0f s", trial.stage, total, before + time.monotonic() - started)


def losses_of(
    detector: nn.Module, batch: list[Example], protocol: dict[str, Any], trial: Trial, step: int, device: torch.device
) -> dict[str, Tensor]:
    """The losses of one batch by name. Which anchors and regions are drawn depends on the trial and the step alone."""
    torch.manual_seed(stream(trial.seed, f"step {step}"))
    images = [image.to(device, non_blocking=True) for image, _ in batch]
    targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in batch]
    with torch.autocast(device.type, torch.bfloat16, enabled=protocol["precision"] == "bf16"):
        losses: dict[str, Tensor] = detector(images, targets)
    return losses


def _step(
    detector: nn.Module, optimizer: torch.optim.SGD, batch: list[Example], protocol: dict[str, Any], trial: Trial, step: int,
    device: torch.device,
) -> float:  # fmt: skip
    loss = torch.stack(list(losses_of(detector, batch, protocol, trial, step, device).values())).sum()
    value = float(loss.detach())
    if not torch.isfinite(loss):
        raise Diverged(step)
    for group in optimizer.param_groups:
        group["lr"] = rate(step, protocol)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return value


@torch.no_grad()
def precise_batch_norm(
    subject: Subject, protocol: dict[str, Any], trial: Trial, detector: nn.Module, batches: Iterator[list[Example]]
) -> None:
    """Running statistics <- those of the next `precise_bn` training batches, with the weights as they are at the end: over
    the batches B, mean = E[mean_B] and var = E[var_B + mean_B^2] - mean^2 (2105.07576, section 3).

    The moving averages that they replace have seen the weights change. Raises Stopped.
    """
    layers, number = batch_norms(detector), protocol["precise_bn"]
    if not layers or not number:
        return
    detector.train()
    momenta = [layer.momentum for layer in layers]
    zeros = functools.partial(torch.zeros_like, dtype=torch.float64)
    sums = [(zeros(layer.running_mean), zeros(layer.running_var)) for layer in layers]
    for layer in layers:
        layer.momentum = 1.0  # the running statistics are the last batch's
    for done in range(number):
        subject.stop.heed()
        losses_of(detector, next(batches), protocol, trial, protocol["iterations"] + done, subject.device)
        for layer, (mean, square) in zip(layers, sums, strict=True):
            mean += layer.running_mean
            square += layer.running_var.double() + layer.running_mean.double() ** 2
    for layer, momentum, (mean, square) in zip(layers, momenta, sums, strict=True):
        layer.momentum = momentum
        layer.running_mean.copy_(mean / number)
        layer.running_var.copy_(square / number - (mean / number) ** 2)


def _restore(place: Place, trial: Trial, detector: nn.Module, optimizer: torch.optim.SGD) -> tuple[int, float, bool]:
    """Take up this trial's checkpoint if there is one: (steps done, seconds spent, whether the statistics are ready)."""
    if not place.checkpoint.exists():
        return 0, 0.0, False
    state = checkpoint.load(place.checkpoint)
    if state["stage"] != trial.stage:
        return 0, 0.0, False
    detector.load_state_dict(state["trained"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"], state["ready"]


def _save(
    subject: Subject, place: Place, trial: Trial, detector: nn.Module, optimizer: torch.optim.SGD, step: int, seconds: float,
    ready: bool = False,
) -> None:  # fmt: skip
    subject.check()
    state = {
        "stage": trial.stage,
        "trained": detector.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
        "ready": ready,
    }
    checkpoint.save(place.checkpoint, state)
