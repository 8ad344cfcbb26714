"""The training loop: one pass from wherever the checkpoint stands to the last step."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.data.loader import Batch, Loader
from benchmark.store.record import finite, storage_error
from benchmark.train import checkpoint
from benchmark.train.optim import build_optimizer
from benchmark.train.schedule import learning_rate, peak_learning_rate
from benchmark.train.seeding import random_state, set_random_state
from benchmark.train.stop import Stopped, StopRequest
from methods.base import Method, Step

# Between checkpoints; the variable is for tests and for file systems where writing is dear.
CHECKPOINT_SECONDS = float(os.environ.get("RETABLE_CHECKPOINT_SECONDS", "30"))
LOG_POINTS = 50  # lines of metrics.jsonl for a whole training, at least (at most twice as many)


class Diverged(Exception):
    """The loss was not finite. `step` says when."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss was not finite at step {step}")
        self.step = step


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
    """One cell's training on one device. `run` returns when the last step is done, or raises Stopped or Diverged."""

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
    ) -> None:
        self.config, self.method, self.loader, self.folder, self.device = config, method, loader, folder, device
        self.token, self.stop, self.report, self.check_owner = token, stop, report, check_owner
        self.optimizer = build_optimizer(method.param_groups(), config["optimizer"], config["batch_size"])
        self.total = config["epochs"] * loader.batches_per_epoch
        self.warmup = round(config["schedule"]["warmup_epochs"] * loader.batches_per_epoch)
        self.peak = peak_learning_rate(config["optimizer"], config["batch_size"])
        self.log_every = max(1, self.total // LOG_POINTS)
        self.step = 0
        self.seconds_before = 0.0
        self.prepared = False
        self.lines: list[dict[str, float]] = []

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def restore(self) -> bool:
        """Take up the checkpoint if there is one; what metrics.jsonl holds beyond it will be written again."""
        if not self.checkpoint_path.exists():
            self._write_lines()
            return False
        state = checkpoint.load(self.checkpoint_path)  # on the CPU: load_state_dict copies, generator states stay there
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        self.step, self.seconds_before, self.prepared = state["step"], state["seconds"], True
        self.lines = state["lines"]
        self._write_lines()
        return True

    def run(self) -> Outcome:
        """Train to the end. On a stop request: checkpoint, then raise Stopped."""
        self.method.train()
        started = last_saved = time.monotonic()
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
                if self.step < self.total and (self.stop.wanted or now - last_saved > CHECKPOINT_SECONDS):
                    self.save(self.seconds_before + now - started)
                    last_saved = time.monotonic()
                    if self.stop.wanted:
                        raise Stopped(self.stop.reason)
        seconds = self.seconds_before + time.monotonic() - started
        self.save(seconds)
        images = self.total * self.config["batch_size"]
        names = list(dict.fromkeys(name for line in self.lines for name in line))
        curves = {name: [line.get(name, math.nan) for line in self.lines] for name in names}
        final = {name: values[-1] for name, values in curves.items() if name not in ("step", "epoch")}
        return Outcome(final, curves, seconds, images / max(seconds, 1e-9), self.total)

    def _one_step(self, batch: Batch, epoch: int) -> float:
        views = [view.to(self.device, non_blocking=True) for view in batch.views]
        index, labels = batch.index.to(self.device), batch.labels.to(self.device)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config["precision"] == "bf16")
        if not self.prepared:
            with autocast:
                self.method.prepare(views)
            self.prepared = True
        schedule = self.config["schedule"]
        rate = learning_rate(self.step, self.total, self.warmup, self.peak, schedule["kind"], schedule["final_fraction"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        at = Step(self.step, self.total, epoch)
        with autocast:
            loss, logs = self.method.loss(views, index, labels, at)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.method.after_step(at)
        self.step += 1
        if self.step % self.log_every == 0 or self.step in (1, self.total):
            numbers = {name: float(number) for name, number in logs.items()}
            epochs = self.step / self.loader.batches_per_epoch
            self._log({"step": self.step, "epoch": epochs, "loss": value, "learning_rate": rate, **numbers})
        return value

    def save(self, seconds: float) -> None:
        """Write the checkpoint unless another process has taken the cell over."""
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
        try:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(finite(line)) + "\n")
        except OSError as error:
            raise storage_error(self.metrics_path, error) from error

    def _write_lines(self) -> None:
        try:
            self.metrics_path.write_text("".join(json.dumps(finite(line)) + "\n" for line in self.lines))
        except OSError as error:
            raise storage_error(self.metrics_path, error) from error
