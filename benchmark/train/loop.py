"""The training loop: one pass from wherever the checkpoint stands to the last step."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from benchmark.data.loader import Batch, Loader
from benchmark.errors import InputError
from benchmark.store.record import divergence, finite, storage_error
from benchmark.train import checkpoint
from benchmark.train.distributed import agreed, average_gradients, averaged, told_by_the_first
from benchmark.train.images import TrainingImages
from benchmark.train.optim import OURS, build_optimizer, clip_gradients
from benchmark.train.schedule import Schedule, peak_learning_rate
from benchmark.train.seeding import random_state, set_random_state
from benchmark.train.stop import Stopped, StopRequest
from methods.base import Method, Step
from methods.gather import rank, world_size
from methods.norms import average_running_statistics

# Between checkpoints; the variable is for tests and for file systems where writing is dear.
CHECKPOINT_SECONDS = float(os.environ.get("RETABLE_CHECKPOINT_SECONDS", "30"))
LOG_POINTS = 50  # lines of metrics.jsonl for a whole training, at least (at most twice as many)


class Diverged(Exception):
    """The loss was not finite at `step`, or the features after that many, the last. layer, gradient_norm: the parameter with
    the largest gradient (after clipping) at the step before, or at this one if it is the first; one whose gradient was not
    finite comes first. None: nothing is known."""

    def __init__(
        self,
        step: int,
        gradient_norm: float | None = None,
        layer: str | None = None,
        what: Literal["loss", "features"] = "loss",
    ) -> None:
        self.step, self.gradient_norm, self.layer, self.what = step, gradient_norm, layer, what
        super().__init__(divergence(self.found))

    @property
    def found(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"what": self.what, "step": self.step, "gradient_norm": self.gradient_norm, "layer": self.layer}


def largest_gradient(model: torch.nn.Module) -> tuple[str, float] | None:
    """(name, norm) of the parameter with the largest gradient, the first that is not finite if there is one."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return None
    norms = torch.stack([grad.detach().float().norm() for _, grad in named])
    infinite = ~torch.isfinite(norms)
    place = int(infinite.int().argmax() if infinite.any() else norms.argmax())
    return named[place][0], float(norms[place])


def gradient_norms(model: torch.nn.Module) -> dict[str, Tensor]:
    """`gradient_norm` of all gradients together, and `gradient/<block>` of each block: a stage or a transformer block of the
    encoder, its first layer (MoCo v3's instability begins there, 2104.02057, section 4.2), each head."""
    blocks: dict[str, list[Tensor]] = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            parts = name.split(".")
            depth = 1 if parts[0] != "encoder" else 3 if parts[1] == "blocks" else 2
            blocks.setdefault(".".join(parts[:depth]), []).append(p.grad)
    if not blocks:
        return {}
    norms = [torch.stack(torch._foreach_norm(grads)).float().norm() for grads in blocks.values()]
    return {"gradient_norm": torch.stack(norms).norm()} | {f"gradient/{b}": n for b, n in zip(blocks, norms, strict=True)}


@dataclass
class Progress:
    """Where a training stands; what the status table and the progress bar show."""

    step: int
    total: int
    epoch: float
    loss: float
    images_per_second: float
    eta_seconds: float


@dataclass
class Outcome:
    """What a finished training leaves: totals over all restarts."""

    metrics: dict[str, float]
    curves: dict[str, list[float]]
    wall_seconds: float
    images_per_second: float
    steps: int


class Training:
    """One cell's training, on this device or on this one and those of the other ranks, all of which have a Training of their
    own and call the same methods. `run` returns when the last step is done, or raises Stopped or Diverged: on every rank at
    the same step. Rank 0 alone touches the folder.

    images: the training set, for methods that want to see it between epochs, and what `index` counts; without it methods get
    the data set's own numbers.
    """

    def __init__(
        self,
        config: dict[str, Any],
        method: Method,
        loader: Loader,
        folder: Path,
        device: torch.device,
        token: int,
        stop: StopRequest,
        report: Callable[[Progress], None],
        check_owner: Callable[[], None],
        images: TrainingImages | None = None,
    ) -> None:
        self.config, self.method, self.loader, self.folder, self.device = config, method, loader, folder, device
        self.token, self.stop, self.report, self.check_owner = token, stop, report, check_owner
        self.optimizer = build_optimizer(method.param_groups(), config["optimizer"], config["batch_size"])
        decay = float(config["optimizer"]["weight_decay"])
        self.schedule = Schedule(config["schedule"], config["epochs"], loader.batches_per_epoch, decay)
        self.total = self.schedule.total
        self.clip = float(config["optimizer"].get("clip_norm", 0.0)), config["optimizer"].get("clip_by", "all")
        self.images = images
        self.monitor: Callable[[Method, int], float | None] | None = None  # rank 0's: kNN accuracy after a step, if it is due
        self.positions = images.positions() if images is not None else None
        self.log_every = max(1, self.total // LOG_POINTS)
        self.step = 0
        self.seconds_before = 0.0
        self.prepared = False
        self.first = True  # no step has been done by this process
        self.leads = rank() == 0
        self.last_saved = time.monotonic()
        self.wishes = False, False  # to stop, to save: what the ranks agreed on at the last step
        self.lines: list[dict[str, float]] = []

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def restore(self) -> bool:
        """Take up the checkpoint if there is one; what metrics.jsonl holds beyond it will be written again."""
        found = self.leads and self.checkpoint_path.exists()
        # On the CPU: load_state_dict copies, generator states stay there.
        state = told_by_the_first(checkpoint.load(self.checkpoint_path) if found else None)
        if state is None:
            self._write_lines()
            return False
        self.method.load_state_dict(state["method"])
        own = [{key: group[key] for key in OURS} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)  # they follow from the config; checkpoints of older versions do not have them
        set_random_state(state["random"])
        self.step, self.seconds_before, self.prepared = state["step"], state["seconds"], True
        self.lines = state["lines"]
        self._write_lines()
        return True

    def run(self) -> Outcome:
        """Train to the end. On a stop request: checkpoint, then raise Stopped."""
        self.method.train()
        started = self.last_saved = time.monotonic()
        first_step, batches = self.step, self.loader.batches_per_epoch
        loss_value = float("nan")
        while self.step < self.total:
            epoch, done_batches = divmod(self.step, batches)
            for batch in self.loader.epoch(epoch, start_batch=done_batches):
                loss_value = self._one_step(batch, epoch)
                now = time.monotonic()
                rate = (self.step - first_step) * self.config["batch_size"] / max(now - started, 1e-9)
                left = (self.total - self.step) * self.config["batch_size"] / max(rate, 1e-9)
                self.report(Progress(self.step, self.total, self.step / batches, loss_value, rate, left))
                stop, save = self._wishes() if world_size() == 1 else self.wishes
                if self.step < self.total and (stop or save):
                    self.save(self.seconds_before + now - started)
                    self.last_saved = time.monotonic()
                    if stop:
                        raise Stopped(self.stop.reason or "another rank was asked to stop")
        self._check_features()
        seconds = self.seconds_before + time.monotonic() - started
        self.save(seconds)
        images = self.total * self.config["batch_size"]
        names = list(dict.fromkeys(name for line in self.lines for name in line))
        curves = {name: [line.get(name, math.nan) for line in self.lines] for name in names}
        final = {name: values[-1] for name, values in curves.items() if name not in ("step", "epoch")}
        return Outcome(final, curves, seconds, images / max(seconds, 1e-9), self.total)

    def _wishes(self) -> tuple[bool, bool]:
        return self.stop.wanted, time.monotonic() - self.last_saved > CHECKPOINT_SECONDS

    def _one_step(self, batch: Batch, epoch: int) -> float:
        views = [view.to(self.device, non_blocking=True) for view in batch.views]
        labels = batch.labels.to(self.device)
        index = batch.index.to(self.device) if self.positions is None else self._positions(batch.index)
        watched = (self.step + 1) % self.log_every == 0 or self.step + 1 in (1, self.total)
        at = Step(self.step, self.total, epoch, watched)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config["precision"] == "bf16")
        with self._refusals(), autocast:
            self._begin(views, epoch)
            loss, logs = self.method.loss(views, index, labels, at)
        value = float(loss.detach())
        if world_size() > 1:
            value, *wishes = agreed(value, *self._wishes())
            self.wishes = wishes[0], wishes[1]
        if not math.isfinite(value):
            raise self._diverged(loss)
        rate = self._follow_schedule()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.method.parameters())
        logs = {**logs, **self.method.after_backward(at)}
        if watched:
            logs |= gradient_norms(self.method)
        norm, by = self.clip
        if norm > 0:
            clip_gradients(self.method.parameters(), norm, by)
        self.optimizer.step()
        self.method.after_step(at)
        average_running_statistics(self.method)
        self.step += 1
        self.first = False
        if watched:
            numbers = averaged(logs)
            if self.monitor is not None and self.leads and (seen := self.monitor(self.method, self.step)) is not None:
                numbers["knn"] = seen
            epochs = self.step / self.loader.batches_per_epoch
            self._log({"step": self.step, "epoch": epochs, "loss": value, "learning_rate": rate, **numbers})
        return value

    def _positions(self, index: Tensor) -> Tensor:
        assert self.positions is not None
        if self.positions.device != index.device:  # once: a resident loader's indices are on the device
            self.positions = self.positions.to(index.device)
        return self.positions[index].to(self.device)

    def _begin(self, views: list[Tensor], epoch: int) -> None:
        """What comes before the first step of all, and before the first of an epoch."""
        if not self.prepared:
            self.method.prepare(views)
            self.prepared = True
        if self.method.EPOCH_PASS and self.step % self.loader.batches_per_epoch == 0:
            if self.images is None:
                raise ValueError(f"method {self.method.NAME} wants to see the training set between epochs, and has none")
            self.method.begin_epoch(epoch, self.images)
            self.method.train()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What a method refuses when it meets its first batch is wrong in the cell's config."""
        try:
            yield
        except ValueError as error:
            if not self.first:
                raise
            raise InputError(f"{self.folder / 'config.json'}: {error}") from error

    def _follow_schedule(self) -> float:
        """Set the rate and the weight decay of every group for this step; returns the rate of those that follow it."""
        decay = self.schedule.decay(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] if group["fixed_rate"] else self.schedule.rate(self.step, group["peak"])
            group["weight_decay"] = decay if group["decayed"] else 0.0
        peak = peak_learning_rate(self.config["optimizer"], self.config["batch_size"])
        return self.schedule.rate(self.step, peak)

    def _diverged(self, loss: Tensor) -> Diverged:
        """The gradients of the step before are still there; at the first step those of this loss must do."""
        if all(p.grad is None for p in self.method.parameters()) and loss.requires_grad:
            loss.backward()
        layer, norm = largest_gradient(self.method) or (None, None)
        return Diverged(self.step, norm, layer)

    @torch.no_grad()
    def _check_features(self) -> None:
        """No loss follows the last step, so what it did to the network is seen in some features, before evaluation trips."""
        if self.images is None:
            return
        images, _ = next(iter(self.images))
        self.method.eval()
        if not all(torch.isfinite(found).all() for found in (self.method.features(images), self.method.project(images))):
            layer, norm = largest_gradient(self.method) or (None, None)
            raise Diverged(self.step, norm, layer, "features")

    def save(self, seconds: float) -> None:
        """Write the checkpoint unless another process has taken the cell over. Every rank calls this at the same step."""
        if not self.leads:
            return
        self.check_owner()
        state = {
            "config": self.config,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "step": self.step,
            "lines": self.lines,
            "total": self.total,
            "seconds": seconds,
            "token": self.token,
        }
        checkpoint.save(self.checkpoint_path, state)

    def _log(self, line: dict[str, float]) -> None:
        self.lines.append(line)
        if not self.leads:
            return
        self.check_owner()
        try:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(finite(line)) + "\n")
        except OSError as error:
            raise storage_error(self.metrics_path, error) from error

    def _write_lines(self) -> None:
        if not self.leads:
            return
        try:
            self.metrics_path.write_text("".join(json.dumps(finite(line)) + "\n" for line in self.lines))
        except OSError as error:
            raise storage_error(self.metrics_path, error) from error
