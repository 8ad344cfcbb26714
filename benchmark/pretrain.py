"""The pretraining of one cell: from a config and a data set to a trained method. What each rank of it does.

What a cell is lies in its config; what is not in it (device, threads, ranks) only says where and how fast it is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.data import Backend, open_loader, split_labels
from benchmark.data.datasets import Dataset
from benchmark.data.split import Split, split
from benchmark.errors import InputError
from benchmark.monitor import knn_monitor
from benchmark.store.provenance import provenance
from benchmark.train import checkpoint
from benchmark.train.images import TrainingImages
from benchmark.train.loop import Outcome, Progress, Training
from benchmark.train.seeding import seed_everything
from benchmark.train.stop import StopRequest
from methods import load as load_method
from methods.base import Method, Setting
from methods.catalogue import from_values
from methods.encoders.config import EncoderConfig
from methods.gather import rank, world_size
from methods.views import ViewConfig


@dataclass(frozen=True)
class Machine:
    """Where and how fast: never part of an id. threads: of one rank on the CPU; workers: of its loader."""

    device: str
    threads: int
    workers: int
    backend: Backend = "auto"

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def provenance(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name() if self.torch_device.type == "cuda" else None
        return provenance(self.torch_device.type, name, self.threads)


class Pretraining:
    """One cell, resolved against the images at hand. InputError where they are not those that it was planned for."""

    def __init__(self, config: dict[str, Any], dataset: Dataset, machine: Machine, folder: Path) -> None:
        self.config, self.dataset, self.machine, self.folder = config, dataset, machine, folder
        data = config["data"]
        if dataset.content != data["content"]:
            raise InputError(
                f"{folder / 'config.json'}: data.content is {data['content']}, the {dataset.name} at hand has "
                f"{dataset.content}; point --data at the images this cell was planned for"
            )
        labels = split_labels(dataset, "train"), split_labels(dataset, "test")
        self.split: Split = split(*labels, data["train_images"], data["test_images"], data["held_out"])

    def build(self) -> Method:
        """The method with freshly initialized weights, a pure function of the config and its random seed."""
        method_class = load_method(self.config["method"])
        own = {
            field.name: self.config[field.name]
            for field in dataclasses.fields(method_class.Config)
            if field.name in self.config
        }  # one that came later is left out at its default
        seed_everything(self.config["seed"], "init")
        try:
            method = method_class(
                from_values(method_class.Config, own),
                from_values(EncoderConfig, self.config["encoder"]),
                self._setting(),
            )
        except ValueError as error:  # what a method cannot be trained with, in its own words
            raise InputError(f"{self.folder / 'config.json'}: {error}") from error
        return method.to(self.machine.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def save_untrained(self) -> None:
        """What a method that does not train leaves: its first weights."""
        state = {"config": self.config, "method": self.build().state_dict(), "step": 0}
        checkpoint.save(self.folder / "checkpoint.pt", state)

    def train(
        self,
        stop: StopRequest,
        report: Callable[[Progress], None],
        token: int,
        check_owner: Callable[[], None],
        begun: Callable[[Training, bool], None] = lambda training, resumed: None,
    ) -> Outcome:
        """From the checkpoint, or from the start, to the last step; on every rank at once where there are several.

        begun: called with the training, and whether it was resumed, before its first step. Raises what `Training.run` does.
        """
        method = self.build()
        seed_everything(self.config["seed"], "train")
        data = self.config["data"]
        if len(self.split.train) < self.config["batch_size"]:
            raise InputError(
                f"{self.folder / 'config.json'}: batch_size {self.config['batch_size']} is larger than the "
                f"{len(self.split.train)} training images; lower it or raise data.train_images"
            )
        device = self.machine.torch_device
        images = self._images(self.split.train)
        with open_loader(
            self.dataset,
            indices=self.split.train,
            views=self._views(),
            batch_size=self.config["batch_size"],
            seed=self.config["seed"],
            workers=self.machine.workers,
            out_size=data["image_size"],
            mean=self.dataset.mean,
            std=self.dataset.std,
            rank=rank(),
            world_size=world_size(),
            backend=self.machine.backend,
            device=self.machine.device,
        ) as loader:
            training = Training(self.config, method, loader, self.folder, device, token, stop, report, check_owner, images)
            training.monitor = knn_monitor(self.dataset, self.split, self._images, training.total, training.log_every)
            begun(training, training.restore())
            return training.run()

    def _images(self, indices: np.ndarray) -> TrainingImages:
        """Images of the training file as evaluation sees them."""
        size = self.config["data"]["image_size"]
        return TrainingImages(self.dataset, indices, size, self.machine.torch_device, self.channels)

    @property
    def channels(self) -> list[str]:
        """The colour spaces of what the encoder sees of one image."""
        return [view.channels for view in self._seen()]

    def _setting(self) -> Setting:
        return Setting(
            num_images=len(self.split.train),
            num_classes=len(self.dataset.classes),
            batch_size=self.config.get("batch_size", 0),
            num_views=len(self._views()) if self.config.get("views") else 0,
            channels=sum(view.channel_count for view in self._seen()),
            seed=self.config["seed"],
        )

    def _views(self) -> tuple[ViewConfig, ...]:
        return tuple(from_values(ViewConfig, view) for view in self.config["views"])

    def _seen(self) -> list[ViewConfig]:
        """What the encoder sees of an image: a view, or one for each modality."""
        views = self._views() if self.config.get("views") else (ViewConfig(),)
        return [view for number, view in enumerate(views) if number == 0 or view.same_draws]
