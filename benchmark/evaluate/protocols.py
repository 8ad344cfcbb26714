"""The protocols by name: features of a frozen method, taken once, and what each protocol makes of them.

No augmentation and no gradient: images at their evaluation size, normalized, the network in eval mode and float32. The test
images are used once, at the last epoch; whatever is chosen is chosen on held-out training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmark.data import central_views, split_labels
from benchmark.data.datasets import Dataset
from benchmark.data.split import Split
from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.blog_logistic import half_split_logistic
from benchmark.evaluate.collapse import collapse_metrics
from benchmark.evaluate.knn import weighted_knn
from benchmark.evaluate.linear import fit_linear
from methods.base import Method

_BATCH = 500


@dataclass(frozen=True)
class Found:
    """What a protocol measured, and what it chose on held-out images to get there."""

    metrics: dict[str, float]
    chosen: dict[str, Any] = field(default_factory=dict)


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


@torch.no_grad()
def extract(
    method: Method,
    dataset: Dataset,
    split: Split,
    image_size: int,
    device: torch.device,
    channels: Sequence[str] = ("rgb",),
) -> Features:
    """All features of one checkpoint; a set of 60,000 images of 512 features takes 120 MB.

    channels: the colour spaces of the method's views; several where it takes modalities.
    """
    method.eval()

    def run(part: Literal["train", "test"], indices: np.ndarray, network: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        labels = split_labels(dataset, part)
        indices = indices[labels[indices] >= 0]  # STL-10's unlabelled images take part in pretraining only
        rows = []
        for start in range(0, len(indices), _BATCH):
            some, threads = indices[start : start + _BATCH], torch.get_num_threads()
            batch = central_views(dataset, part, some, image_size, channels, threads)
            batch = batch.to(device, memory_format=torch.channels_last)
            rows.append(network(batch).float())
        return torch.cat(rows), torch.from_numpy(labels[indices]).to(device)

    train_x, train_y = run("train", split.train, method.features)
    held_x, held_y = run("train", split.held_out, method.features) if len(split.held_out) else (train_x[:0], train_y[:0])
    test_x, test_y = run("test", split.test, method.features)
    test_z, _ = run("test", split.test, method.project)
    return Features(train_x, train_y, held_x, held_y, test_x, test_y, test_z, len(dataset.classes))


def knn(features: Features, protocol: dict[str, Any]) -> Found:
    k, temperature = protocol["k"], protocol["temperature"]
    scores = weighted_knn(features.train_x, features.train_y, features.test_x, features.num_classes, k, temperature)
    return Found({"top1": top1(scores, features.test_y)})


def linear(features: Features, protocol: dict[str, Any]) -> Found:
    if len(features.held_out_x) == 0:
        raise InputError("linear: data.held_out is 0, so there is nothing to choose its strength on; set it above 0")
    steps = np.arange(protocol["l2_low"], protocol["l2_high"] + 1e-9, protocol["l2_step"])
    probe = fit_linear(
        features.train_x,
        features.train_y,
        features.held_out_x,
        features.held_out_y,
        features.num_classes,
        [float(10.0**step) for step in steps],
        torch.float64 if features.train_x.device.type == "cpu" else torch.float32,
    )
    chosen = {"l2": probe.l2, "at_edge": probe.at_edge, "converged": probe.converged, "grid": probe.grid}
    test = top1(probe.scores(features.test_x), features.test_y)
    return Found({"top1": test, "heldout_top1": probe.heldout_top1}, chosen)


def blog_logistic(features: Features, protocol: dict[str, Any]) -> Found:
    return Found(half_split_logistic(features.test_x, features.test_y, features.num_classes))


def collapse(features: Features, protocol: dict[str, Any]) -> Found:
    return Found(collapse_metrics(features.test_z, features.test_x))


PROTOCOLS: dict[str, Callable[[Features, dict[str, Any]], Found]] = {
    "knn": knn,
    "linear": linear,
    "blog_logistic": blog_logistic,
    "collapse": collapse,
}
