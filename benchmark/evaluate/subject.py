"""What is evaluated, and on what: a network from one checkpoint, the images, and where the work is done.

A protocol takes a Subject and a Place and returns what it Found. It sees the test images once, after everything is chosen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data import Backend, central_views, split_labels
from benchmark.data.datasets import Dataset
from benchmark.data.split import Split
from benchmark.errors import InputError
from benchmark.train.stop import StopRequest

_BATCH = 500
_PATIENCE = 10.0  # seconds in which work that keeps nothing may end although a stop is asked for


class Network(Protocol):
    """What protocols ask of a network: a Method from one of our checkpoints, or somebody else's encoder."""

    def features(self, images: Tensor) -> Tensor:
        """B x C x H x W -> B x D: the representation."""

    def project(self, images: Tensor) -> Tensor:
        """B x C x H x W -> B x d: what is watched for collapse."""

    def backbone(self) -> nn.Module:
        """The encoder itself (methods.encoders), for its maps, its attention and its weights."""

    def finetune_network(self) -> nn.Module:
        """B x C x H x W -> B x D: what fine-tuning goes on training."""

    def eval(self) -> Any:
        """Evaluation mode."""


@dataclass(frozen=True)
class Found:
    """What a protocol measured, and what it chose on held-out images to get there. pictures: files it left in its Place."""

    metrics: dict[str, float]
    chosen: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Features:
    """Encoder outputs of the three parts of the data, and the projection of the test images, on the device that made them.
    x: N x D, y: N."""

    train_x: Tensor
    train_y: Tensor
    held_out_x: Tensor
    held_out_y: Tensor
    test_x: Tensor
    test_y: Tensor
    test_z: Tensor
    num_classes: int


@dataclass(frozen=True)
class Place:
    """Where one evaluation keeps what it must not lose: files of its own in `folder`, their names beginning with `stem`."""

    folder: Path
    stem: str

    @property
    def checkpoint(self) -> Path:
        """Of a training that was interrupted; removed once the evaluation has its record."""
        return self.folder / f"{self.stem}.pt"

    def file(self, name: str) -> Path:
        return self.folder / f"{self.stem}-{name}"


@dataclass
class Subject:
    """A network in evaluation mode on `device`, and the data set with its split, normalized as the network wants it.

    channels: the colour spaces of its views; several where it takes modalities. check: raises where this process may no
    longer write. boxes: opens a detection data set by name.
    """

    network: Network
    dataset: Dataset
    split: Split
    image_size: int
    channels: Sequence[str]
    device: torch.device
    seed: int = 0
    workers: int = 0
    backend: Backend = "auto"
    stop: StopRequest = field(default_factory=StopRequest)
    report: Callable[[Any], None] = lambda progress: None
    check: Callable[[], None] = lambda: None
    boxes: Callable[[str], Any] | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("retable.evaluate"))
    features_seconds: float = 0.0  # what taking the features has cost so far

    @property
    def num_classes(self) -> int:
        return len(self.dataset.classes)

    def labelled(self, part: Literal["train", "test"], indices: np.ndarray) -> np.ndarray:
        """Those of the images that have a label: STL-10's unlabelled ones take part in pretraining only."""
        return indices[split_labels(self.dataset, part)[indices] >= 0]

    def check_labels(self, name: str) -> None:
        """InputError where an image that takes part has a label that is no class of the data set. name: of the protocol."""
        everything = np.union1d(self.split.train, self.split.held_out)
        parts: list[tuple[Literal["train", "test"], np.ndarray]] = [("train", everything), ("test", self.split.test)]
        for file, indices in parts:
            most = int(split_labels(self.dataset, file)[indices].max(initial=-1))
            if most >= self.num_classes:
                classes = f"the classes of {self.dataset.name} are 0 to {self.num_classes - 1}"
                raise InputError(f"{name}: a {file} image has label {most}; {classes}")

    def patience(self) -> Callable[[], None]:
        """`stop.heed` for work that begins now and keeps nothing: what ends in seconds may end, or features are lost too."""
        started = time.monotonic()

        def heed() -> None:
            if time.monotonic() - started > _PATIENCE:
                self.stop.heed()

        return heed

    @torch.no_grad()
    def outputs(
        self, part: Literal["train", "test"], indices: np.ndarray, network: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(network(central view) for every labelled image of `indices`, float32; their labels), on the device.

        Raises Stopped on request where it takes long: it is begun again then, and nothing else is lost.
        """
        indices, heed = self.labelled(part, indices), self.patience()
        labels = split_labels(self.dataset, part)[indices]
        rows, threads = [], torch.get_num_threads()
        for start in range(0, len(indices), _BATCH):
            heed()
            some = indices[start : start + _BATCH]
            batch = central_views(self.dataset, part, some, self.image_size, self.channels, threads)
            rows.append(network(batch.to(self.device, memory_format=torch.channels_last)).float())
        return torch.cat(rows), torch.from_numpy(labels).to(self.device)

    @cached_property
    def features(self) -> Features:
        """All features, taken once for all protocols; a set of 60,000 images of 512 features takes 120 MB.

        No augmentation and no gradient: images at their evaluation size, normalized, float32.
        """
        started = time.monotonic()
        self.network.eval()
        split, features = self.split, self.network.features
        train_x, train_y = self.outputs("train", split.train, features)
        held_x, held_y = train_x[:0], train_y[:0]
        if len(split.held_out):
            held_x, held_y = self.outputs("train", split.held_out, features)
        test_x, test_y = self.outputs("test", split.test, features)
        test_z, _ = self.outputs("test", split.test, self.network.project)
        self.features_seconds += time.monotonic() - started
        return Features(train_x, train_y, held_x, held_y, test_x, test_y, test_z, self.num_classes)


Evaluator = Callable[[Subject, dict[str, Any], Place], Found]
