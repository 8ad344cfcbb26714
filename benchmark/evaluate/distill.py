"""SimCLR v2's distillation: a fine-tuned network teaches a fresh one on images without labels (2006.10029, section 2).

    teacher   the network of this evaluation, fine-tuned with few labels (benchmark.evaluate.finetune)
    student   the teacher's encoder initialized anew, or another one, and a linear layer
    loss      equation 2, or 3 where alpha is below 1 (methods.distillation), over all training images of the cell

How choices are made: those of the teacher on held-out images, as in its fine-tuning; nothing of the student is chosen, and
its epoch is the last. Of the labels only the teacher's are used. The test images are looked at once by each of the two.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data import split_labels
from benchmark.errors import InputError
from benchmark.evaluate.finetune import accuracies, fine_tune, regime
from benchmark.evaluate.fit import finite, fit
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.train.loop import Diverged
from benchmark.train.seeding import seed_everything
from methods.base import Setting, Step
from methods.distillation import Distillation, DistillationConfig
from methods.encoders import EncoderConfig
from methods.encoders.config import VITS

NAMES = ("distill", "distill_self_1", "distill_self_10", "distill_small_1", "distill_small_10")

_UNWATCHED = Step(step=0, total_steps=1, epoch=0, watched=False)
_CHANNELS = {"rgb": 3, "lab": 3, "sobel": 2}


def distill(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """top1 and top5 of the student, teacher_top1 and teacher_top5, heldout_top1 of the teacher's choice where it has one, and
    agreement: on how many test images both say the same. Percent.

    InputError as fine-tuning, and where there is no such student.
    """
    name, split = protocol["name"], subject.split
    encoder = student_encoder(subject, protocol)  # before the teacher is trained: it may be refused
    tuned = fine_tune(subject, protocol["teacher"], place, f"{name}: teacher")
    told, labels = subject.outputs("test", split.test, tuned.network.eval())
    method = student(subject, protocol, encoder, tuned.network)

    def loss(views: list[Tensor], known: Tensor) -> Tensor:
        return method.loss([torch.cat(views, dim=1)], known, known, _UNWATCHED)[0]

    everything = np.union1d(split.train, split.held_out)
    trained = nn.ModuleList([method.encoder, method.classifier])  # the teacher is a stage of its own in the checkpoint
    plan = regime(subject, protocol, protocol["epochs"], protocol["learning_rate"])
    known = only(split_labels(subject.dataset, "train"), tuned.labelled)
    fit(subject, place, everything, plan, trained, method.param_groups(), loss, "student", known)
    if not finite(trained):
        raise Diverged(plan.steps(len(everything)))

    said, _ = subject.outputs("test", split.test, nn.Sequential(method.encoder, method.classifier).eval())
    teacher = {f"teacher_{metric}": value for metric, value in accuracies(told, labels, tuned.steps).items()}
    agreement = 100.0 * (said.argmax(dim=1) == told.argmax(dim=1)).double().mean().item()
    metrics = accuracies(said, labels, plan.steps(len(everything))) | teacher | tuned.metrics | {"agreement": agreement}
    return Found(metrics, tuned.chosen | {"unlabelled": len(everything) - len(tuned.labelled)})


def only(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """N labels of the training file -> those of `indices`, -1 for all others."""
    known = np.full_like(labels, -1)
    known[indices] = labels[indices]
    return known


def student_encoder(subject: Subject, protocol: dict[str, Any]) -> EncoderConfig:
    """What the student is: as the network under evaluation where the protocol says nothing else. InputError where it cannot be.

    Batch norms are of the whole batch, as in fine-tuning.
    """
    own = getattr(subject.network.backbone(), "config", None)
    if not isinstance(own, EncoderConfig):
        if protocol["student"] == "self":
            raise InputError(
                f"{protocol['name']}: the network is of several encoders and has no twin; name a student's encoder"
            )
        own = EncoderConfig()
    said: dict[str, Any] = {"bn_splits": 1}
    if protocol["student"] != "self":
        if (protocol["student"] in VITS) != (own.name in VITS):
            own = EncoderConfig()  # what the other kind is told means nothing here
        said |= {"name": protocol["student"], "width": protocol["student_width"], "sk": protocol["student_sk"]}
    try:
        return dataclasses.replace(own, **said)
    except ValueError as error:
        raise InputError(f"{protocol['name']}: the student cannot be made, {error}") from None


def student(subject: Subject, protocol: dict[str, Any], encoder: EncoderConfig, teacher: nn.Module) -> Distillation:
    """The student with its teacher, in training mode, initialized from the subject's seed."""
    seed_everything(subject.seed, "student")
    config = DistillationConfig(protocol["temperature"], protocol["alpha"])
    channels = sum(_CHANNELS[space] for space in subject.channels)
    try:
        method = Distillation(config, encoder, Setting(num_classes=subject.num_classes, channels=channels))
    except ValueError as error:
        raise InputError(f"{protocol['name']}: {error}") from None
    method.set_teacher(teacher)
    method.to(subject.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method.train()
