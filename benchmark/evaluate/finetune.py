"""Fine-tuning with few labels: the pretrained network and a new linear layer, trained together, by a paper's protocol
(benchmark.plan.protocols.finetune).

    minimize over network, W, b:   mean cross-entropy(W network(augmented image) + b, label)      over the labelled images

The network is a copy, in training mode: its batch norms see the labelled images' batches. How choices are made: where a
protocol has several rates or numbers of epochs, each is trained on the labelled images that are not held out, the best on
the held-out ones wins (of equals the shorter, then the smaller rate), and what is tested is trained with it on all the
labelled images; the epoch is always the last. The test images are looked at once, when nothing is left to choose.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.data.subset import labelled_subset
from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1, topk
from benchmark.evaluate.fit import Regime, finite, fit, settle, settled
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.train.loop import Diverged
from benchmark.train.seeding import seed_everything
from methods.base import grouped
from methods.norms import BatchNorm1d, BatchNorm2d
from methods.views import ViewConfig

NAMES = (
    "finetune", "finetune_simclr_1", "finetune_simclr_10", "finetune_simclrv2_1", "finetune_simclrv2_10",
    "finetune_simclrv2_100", "finetune_byol_1", "finetune_byol_10", "finetune_swav_1", "finetune_swav_10",
    "finetune_barlow_1", "finetune_barlow_10", "finetune_vicreg_1", "finetune_vicreg_10",
)  # fmt: skip


def finetune(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """Any of the fine-tunings: top1, top5 (of five classes or more) and, where something is chosen, heldout_top1. Percent.

    InputError where a choice has no held-out images, there is no test image, or fewer than two images have labels.
    """
    tuned = fine_tune(subject, protocol, place, protocol["name"])
    scores, labels = subject.outputs("test", subject.split.test, tuned.network.eval())
    return Found(accuracies(scores, labels, tuned.steps) | tuned.metrics, tuned.chosen)


@dataclass(frozen=True)
class FineTuned:
    """network: B x C x H x W -> B x classes. labelled: ids in the training file of what it learned from, in so many steps."""

    network: nn.Sequential
    labelled: np.ndarray
    steps: int
    metrics: dict[str, float]
    chosen: dict[str, Any]


def fine_tune(subject: Subject, protocol: Mapping[str, Any], place: Place, name: str) -> FineTuned:
    """The network fine-tuned as `protocol` says; it has not seen a test image. name: for what is wrong with the data."""
    labelled, held_out = labelled_images(subject, protocol, name), subject.labelled("train", subject.split.held_out)
    epochs, rate = protocol["epochs"], protocol["learning_rates"][0]
    metrics: dict[str, float] = {}
    chosen: dict[str, Any] = {
        "labelled": len(labelled),
        "labelled_ids": hashlib.sha256(labelled.astype("<i8").tobytes()).hexdigest()[:12],
    }
    if len(labelled) < protocol["batch_size"]:
        chosen["batch_size"] = len(labelled)
    tried = choices(protocol)
    if len(tried) > 1:
        if not len(held_out):
            raise InputError(
                f"{name}: it chooses among {len(tried)} settings, but data.held_out is 0; set it above 0, or give one of "
                f"learning_rates and no shorter"
            )
        inner = np.setdiff1d(labelled, held_out)
        if len(inner) < 2:
            raise InputError(f"{name}: {len(inner)} labelled images are not held out, which is too few to choose with")
        grid = [(*choice, _tried(subject, protocol, place, inner, held_out, choice)) for choice in tried]
        if all(math.isnan(found) for _, _, found in grid):
            raise Diverged(0)
        epochs, rate, best = max(grid, key=lambda row: -1.0 if math.isnan(row[2]) else row[2])
        if not math.isnan(best):  # else what follows diverges as well, or is not chosen
            metrics["heldout_top1"] = best
        rates = sorted(set(protocol["learning_rates"]))
        chosen |= {
            "epochs": epochs,
            "learning_rate": rate,
            "at_edge": len(rates) > 1 and rate in (rates[0], rates[-1]),
            "grid": [[*choice, None if math.isnan(found) else found] for *choice, found in grid],
        }
    network = train(subject, protocol, place, labelled, epochs, rate, "fine-tuning")
    steps = regime(subject, protocol, epochs, rate).steps(len(labelled))
    return FineTuned(network, labelled, steps, metrics, chosen)


def labelled_images(subject: Subject, protocol: Mapping[str, Any], name: str) -> np.ndarray:
    """The ids of the training images that have a label for this protocol, among all that the cell has.

    InputError where they are fewer than two, and where there is no test image: better before a training than after it.
    """
    split = subject.split
    if not len(subject.labelled("test", split.test)):
        raise InputError(f"{name}: the test split has no labelled image; raise data.test_images")
    subject.check_labels(name)
    everything = subject.labelled("train", np.union1d(split.train, split.held_out))
    found = labelled_subset(subject.dataset, protocol["labels"], protocol["label_seed"], everything)
    if len(found) < 2:
        raise InputError(f"{name}: labels {protocol['labels']} is {len(found)} of {len(everything)} images; 2 are needed")
    return found


def choices(protocol: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(epochs, rate) of what is chosen among, the shortest and smallest first; one is no choice."""
    lengths = sorted({epochs for epochs in protocol["shorter"] if epochs < protocol["epochs"]} | {protocol["epochs"]})
    return [(epochs, rate) for epochs in lengths for rate in sorted(set(protocol["learning_rates"]))]


def _tried(
    subject: Subject,
    protocol: Mapping[str, Any],
    place: Place,
    images: np.ndarray,
    held_out: np.ndarray,
    choice: tuple[int, float],
) -> float:
    """Top-1 on the held-out images of one choice, NaN where it diverged. Done once, however often the evaluation goes on."""
    epochs, rate = choice
    stage = f"choice of {epochs} epochs at {rate:g}"
    found = settled(place, stage)
    if found is None:
        try:
            network = train(subject, protocol, place, images, epochs, rate, stage)
            scores, labels = subject.outputs("train", held_out, network.eval())
            found = top1(scores, labels) if scores.isfinite().all() else math.nan
        except Diverged:
            found = math.nan
        settle(subject, place, stage, found)
    return found


def train(
    subject: Subject, protocol: Mapping[str, Any], place: Place, images: np.ndarray, epochs: int, rate: float, stage: str
) -> nn.Sequential:
    """A fresh classifier, trained on `images` (ids in the training file) at this rate of its network."""
    network = classifier(subject, protocol).train()
    trunk, layer = network
    # The rates of the two differ by a factor; the optimizer's is the new layer's, which may be the only one that is not small.
    head_rate = protocol["head_learning_rate"] or rate
    groups = grouped(trunk.parameters(), times=rate / head_rate)
    groups.append({"params": list(layer.parameters()), "decay": False})  # SimCLR's LARS leaves this layer as it is

    def loss(views: list[Tensor], labels: Tensor) -> Tensor:
        return F.cross_entropy(network(torch.cat(views, dim=1)).float(), labels)

    plan = regime(subject, protocol, epochs, head_rate)
    fit(subject, place, images, plan, network, groups, loss, stage)
    if not finite(network):
        raise Diverged(plan.steps(len(images)))
    return network


def classifier(subject: Subject, protocol: Mapping[str, Any]) -> nn.Sequential:
    """(a copy of the pretrained network, a new linear layer), all of it to be trained, on the subject's device."""
    pretrained = subject.network.finetune_network() if protocol["keep_head"] else subject.network.backbone()
    trunk = copy.deepcopy(pretrained).requires_grad_(True)
    for module in trunk.modules():
        if isinstance(module, BatchNorm1d | BatchNorm2d):
            module.splits = 1
    images = subject.labelled("train", np.union1d(subject.split.train, subject.split.held_out))
    features, _ = subject.outputs("train", images[:1], trunk.eval())
    seed_everything(subject.seed, "classifier")
    layer = nn.Linear(features.shape[1], subject.num_classes)
    if protocol["head"] != "pytorch":
        nn.init.normal_(layer.weight, std=0.01 if protocol["head"] == "normal" else 0.0)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(trunk, layer.to(subject.device))


def regime(subject: Subject, protocol: Mapping[str, Any], epochs: int, rate: float) -> Regime:
    """What a TrainingConfig says, at this peak rate."""
    settings = ("momentum", "nesterov", "weight_decay", "scale_with_batch", "scale_rule")
    optimizer = {key: protocol[key] for key in settings} | {
        "name": protocol["optimizer"],
        "learning_rate": rate,
        "exclude_bias_and_norm": protocol["optimizer"] == "lars",
        "lars": "google",
    }
    schedule = {key: protocol[key] for key in ("every", "milestones", "gamma")} | {
        "kind": protocol["schedule"],
        "warmup_epochs": protocol["warmup"] * epochs,
        "final_fraction": 0.0,
    }
    # A network of several modalities sees one crop in each of their colour spaces.
    views = tuple(
        ViewConfig(crop_scale=tuple(protocol["crop_scale"]), channels=space, same_draws=number > 0)  # type: ignore[arg-type]
        for number, space in enumerate(subject.channels)
    )
    return Regime(epochs, protocol["batch_size"], optimizer, schedule, views, protocol["precision"], subject.seed)


def accuracies(scores: Tensor, labels: Tensor, steps: int) -> dict[str, float]:
    """top1 and, of five classes or more, top5, in percent. Diverged, after so many steps, where scores are not finite."""
    if not scores.isfinite().all():
        raise Diverged(steps, what="features")
    found = {"top1": top1(scores, labels)}
    return found | ({"top5": topk(scores, labels, 5)} if scores.shape[1] >= 5 else {})
