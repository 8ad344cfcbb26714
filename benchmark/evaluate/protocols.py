"""The protocols by name: what each makes of a subject. Their settings are benchmark.plan.protocols'.

Those on frozen features see images without augmentation; whatever is chosen is chosen on held-out training images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.blog_logistic import half_split_logistic
from benchmark.evaluate.collapse import collapse_metrics
from benchmark.evaluate.knn import weighted_knn
from benchmark.evaluate.linear import fit_linear
from benchmark.evaluate.subject import Evaluator, Found, Place, Subject


def knn(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    features, k, temperature = subject.features, protocol["k"], protocol["temperature"]
    scores = weighted_knn(features.train_x, features.train_y, features.test_x, features.num_classes, k, temperature)
    return Found({"top1": top1(scores, features.test_y)})


def linear(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    features = subject.features
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


def blog_logistic(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    features = subject.features
    return Found(half_split_logistic(features.test_x, features.test_y, features.num_classes))


def collapse(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    return Found(collapse_metrics(subject.features.test_z, subject.features.test_x))


PROTOCOLS: dict[str, Evaluator] = {
    "knn": knn,
    "linear": linear,
    "blog_logistic": blog_logistic,
    "collapse": collapse,
}
