"""The protocols on frozen features: kNN, linear, the batch-norm blog's, collapse. Images are seen without augmentation.

How choices are made: kNN's k and temperature (where several are given) and the strength of `linear` are those that do best on
held-out training images. For kNN these are compared with the training images alone, and so are the test images afterwards:
what is a good k depends on how many there are to choose from. `linear` is fitted again on both. The blog's protocol fits to
labels of the test split by its definition, and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.blog_logistic import half_split_logistic
from benchmark.evaluate.collapse import alignment_metrics, collapse_metrics
from benchmark.evaluate.knn import Neighbours
from benchmark.evaluate.linear import fit_linear
from benchmark.evaluate.subject import Features, Found, Place, Subject

_ROWS = 1 << 16


def knn(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """top1 and, where k or temperature was chosen, heldout_top1."""
    name = protocol["name"]
    ks = protocol.get("ks") or [protocol["k"]]
    temperatures = protocol.get("temperatures") or [protocol["temperature"]]
    grid = list(dict.fromkeys(product(ks, temperatures)))
    features = sound(subject, name)

    def neighbours(x: Tensor, ks: Sequence[int], temperatures: Sequence[float]) -> Neighbours:
        return Neighbours.of(features.train_x, features.train_y, x, features.num_classes, ks, temperatures, subject.patience())

    if len(grid) == 1:
        k, temperature = grid[0]
        found = neighbours(features.test_x, [k], [temperature])
        return Found({"top1": _right(found.predict(k, temperature), features.test_y)})
    if len(features.held_out_x) == 0:
        raise InputError(f"{name}: data.held_out is 0, so there is nothing to choose k and temperature on; set it above 0")
    aside = neighbours(features.held_out_x, ks, temperatures)
    tried = {pair: _right(aside.predict(*pair), features.held_out_y) for pair in grid}
    k, temperature = max(tried, key=lambda pair: tried[pair])  # of equals the first that was given
    found = neighbours(features.test_x, [k], [temperature])
    test = _right(found.predict(k, temperature), features.test_y)
    chosen = {"k": k, "temperature": temperature, "grid": [[*pair, accuracy] for pair, accuracy in tried.items()]}
    return Found({"top1": test, "heldout_top1": tried[k, temperature]}, chosen)


def linear(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """top1 and heldout_top1, before the fit on all training images."""
    features = sound(subject, "linear")
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
        subject.patience(),
    )
    chosen = {"l2": probe.l2, "at_edge": probe.at_edge, "converged": probe.converged, "grid": probe.grid}
    test = top1(probe.scores(features.test_x), features.test_y)
    return Found({"top1": test, "heldout_top1": probe.heldout_top1}, chosen)


def blog_logistic(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    features = sound(subject, "blog_logistic")
    if len(features.test_x) < 2:
        raise InputError("blog_logistic: one test image has no two halves; raise data.test_images")
    return Found(half_split_logistic(features.test_x, features.test_y, features.num_classes))


def collapse(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    features = sound(subject, "collapse")
    return Found(collapse_metrics(features.test_z, features.test_x) | alignment_metrics(subject))


def sound(subject: Subject, name: str) -> Features:
    """The subject's features. InputError where a protocol can make nothing of them: no labelled images, labels that are no
    classes of the data set, numbers that are not finite."""
    for words, part, setting, indices in (
        ("training", "train", "data.train_images", subject.split.train),
        ("test", "test", "data.test_images", subject.split.test),
    ):
        if len(subject.labelled(part, indices)) == 0:  # type: ignore[arg-type]
            raise InputError(
                f"{name}: {subject.dataset.name} has no labelled {words} image here; see {setting} and its {part} part"
            )
    features = subject.features
    for words, x, y in (
        ("training", features.train_x, features.train_y),
        ("held-out", features.held_out_x, features.held_out_y),
        ("test", features.test_x, features.test_y),
    ):
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < features.num_classes:
            found, most = f"labels from {int(y.min())} to {int(y.max())}", features.num_classes - 1
            raise InputError(f"{name}: the {words} images of {subject.dataset.name} have {found}; its classes are 0 to {most}")
        if not _finite(x):
            raise InputError(
                f"{name}: features of {words} images are not finite; the network has diverged or is not loaded whole"
            )
    if not _finite(features.test_z):
        raise InputError(f"{name}: projections of test images are not finite; the network has diverged or is not loaded whole")
    return features


def _finite(x: Tensor) -> bool:
    return all(bool(part.isfinite().all()) for part in x.split(_ROWS))


def _right(predicted: Tensor, labels: Tensor) -> float:
    """Percent."""
    return 100.0 * (predicted == labels.to(predicted.device)).double().mean().item()
