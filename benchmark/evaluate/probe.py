"""Trained linear probes: one linear layer on the features of a frozen network, as the papers train it, each by its name.

    minimize over W, b:   mean cross-entropy(W f(augmented image) + b, label)       f in evaluation mode, without gradient

The features of a batch are computed once for the layers of all learning rates, which are trained side by side and share
nothing. How choices are made: the rate is the best on the held-out training images (of equals the smallest), where there
are several; the epoch is always the last. The test images are looked at when nothing is left to choose.

Settings and sources of the protocols: benchmark.plan.protocols.probes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1, topk
from benchmark.evaluate.fit import Regime, finite, fit
from benchmark.evaluate.linear import fit_linear
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.train.loop import Diverged
from benchmark.train.seeding import stream
from methods.encoders.vit import ViT
from methods.views import ViewConfig

NAMES = (
    "linear_moco", "linear_mocov3", "linear_mocov3_vit", "linear_simsiam", "linear_simclr", "linear_byol", "linear_swav",
    "linear_barlow", "linear_vicreg", "linear_dino", "linear_dino_base", "linear_cmc",
)  # fmt: skip
_AT_ONCE = 512  # images in the network at a time: a batch of 4096 needs no more memory than that
_FAST_L2 = tuple(10.0**power for power in range(-5, 1))  # the grid of the `linear` protocol's defaults


def linear_probe(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """Any of the named probes, in percent: top1, top5 (of five classes or more) and, with held-out images, heldout_top1 (unless
    the layer was trained on them without a choice), fast_top1 and gap.

    InputError where there is nothing to train or test on, labels are no classes, a rate must be chosen and no images are held
    out, the network has too few blocks, or features that are not finite. Diverged where no layer's weights stay finite.
    """
    name, rates = protocol["name"], sorted(set(protocol["learning_rates"]))
    train = subject.labelled("train", subject.split.train)
    held_out = subject.labelled("train", subject.split.held_out)
    _check_labels(subject, name)
    if len(rates) > 1 and not len(held_out):
        raise InputError(
            f"{name}: learning_rates has {len(rates)} to choose from, but data.held_out is 0; set it above 0 or give one rate"
        )
    seen = FrozenFeatures(subject, protocol)
    metrics: dict[str, float] = {}
    chosen: dict[str, Any] = {"features": seen.width}
    heads: dict[float, nn.Linear] = {}
    if len(rates) > 1:
        heads = train_heads(subject, protocol, place, seen, train, rates, "choice")
        x, y = seen.of("held_out")
        grid = {rate: top1(head(x), y) for rate, head in heads.items()}
        best = max(grid, key=lambda rate: (grid[rate], -rate))
        metrics["heldout_top1"] = grid[best]
        chosen |= {"learning_rate": best, "grid": list(grid.items()), "at_edge": best in (rates[0], rates[-1])}
        if lost := [rate for rate in rates if rate not in heads]:
            chosen["diverged"] = lost
        rates = [best]
    if protocol["refit"]:
        train = np.union1d(train, held_out)
    if protocol["refit"] or not heads:
        heads = train_heads(subject, protocol, place, seen, train, rates, "probe")
    head = heads[rates[0]]
    if "heldout_top1" not in metrics and not protocol["refit"] and len(held_out):
        x, y = seen.of("held_out")
        metrics["heldout_top1"] = top1(head(x), y)
    if len(train) < protocol["batch_size"]:
        chosen["batch_size"] = len(train)
    x, y = seen.of("test")
    scores = head(x)
    found = {"top1": top1(scores, y)}
    if subject.num_classes >= 5:
        found["top5"] = topk(scores, y, 5)
    if protocol["gap"] and len(held_out):
        fast, chosen["fast_l2"] = _fast(seen, subject.num_classes)
        metrics |= {"fast_top1": fast, "gap": found["top1"] - fast}
    return Found(found | metrics, chosen)


def _check_labels(subject: Subject, name: str) -> None:
    split = subject.split
    parts: list[tuple[Literal["train", "test"], np.ndarray]] = [
        ("train", split.train),
        ("train", split.held_out),
        ("test", split.test),
    ]
    for number, (file, indices) in enumerate(parts):
        if not len(subject.labelled(file, indices)) and number != 1:
            raise InputError(f"{name}: there is no labelled {file} image")
    subject.check_labels(name)


class FrozenFeatures:
    """What the layer sees of images: B x C x H x W -> B x width, float32, without gradient.

    The network's own features or, with `blocks`, the class tokens of a ViT's last blocks (and the mean of its patch tokens).
    """

    def __init__(self, subject: Subject, protocol: dict[str, Any]) -> None:
        subject.network.eval()
        self.subject, self.name = subject, protocol["name"]
        self.half = protocol["precision"] == "bf16"
        self.backbone = subject.network.backbone()
        depth = len(self.backbone.blocks) if isinstance(self.backbone, ViT) else 0
        self.blocks = protocol["blocks"] if depth else 0
        self.patch_mean = protocol["patch_mean"]
        if self.blocks > depth:
            raise InputError(f"{self.name}: blocks is {self.blocks}, but the network has {depth}; lower it")
        # With the protocols on cached features; where there are none, the test images' alone may be all that is needed.
        wanted = (protocol["gap"] and len(subject.split.held_out) > 0) or "features" in vars(subject)
        self.shared = wanted and not self.blocks and not self.half
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        one = subject.labelled("train", subject.split.train)[:1]
        self.width = subject.outputs("train", one, self)[0].shape[1]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
            return torch.cat([self._of_some(some).float() for some in images.split(_AT_ONCE)])

    def _of_some(self, images: Tensor) -> Tensor:
        if self.blocks and isinstance(self.backbone, ViT):
            return self.backbone.intermediate(images, self.blocks, self.patch_mean).flatten(1)
        return self.subject.network.features(images)

    def of(self, part: Literal["train", "held_out", "test"]) -> tuple[Tensor, Tensor]:
        """(N x width, N): features of a part's labelled images as they are tested, without augmentation, and the labels."""
        if part not in self._kept:
            if self.shared:
                x, y = getattr(self.subject.features, f"{part}_x"), getattr(self.subject.features, f"{part}_y")
            else:
                indices = getattr(self.subject.split, part)
                x, y = self.subject.outputs("test" if part == "test" else "train", indices, self)
            if not x.isfinite().all():
                raise InputError(f"{self.name}: the network's features of {part.replace('_', '-')} images are not finite")
            self._kept[part] = x, y
        return self._kept[part]


def train_heads(
    subject: Subject,
    protocol: dict[str, Any],
    place: Place,
    seen: FrozenFeatures,
    indices: np.ndarray,
    rates: list[float],
    stage: str,
) -> dict[float, nn.Linear]:
    """A layer for each rate, all from the same initial weights, trained on the images `indices`; those that stayed finite."""
    generator = torch.Generator().manual_seed(stream(subject.seed, "probe"))
    weight = protocol["initial_std"] * torch.randn(subject.num_classes, seen.width, generator=generator)
    heads = nn.ModuleList(_linear(weight) for _ in rates).to(subject.device)

    def loss(views: list[Tensor], labels: Tensor) -> Tensor:
        x = seen(torch.cat(views, dim=1) if len(views) > 1 else views[0])
        with torch.autocast(x.device.type, enabled=False):
            return torch.stack([F.cross_entropy(head(x), labels) for head in heads])

    groups = [
        {"params": [p], "decay": True, "times": rate}
        for head, rate in zip(heads, rates, strict=True)
        for p in head.parameters()
    ]  # fmt: skip
    regime = _regime(subject, protocol)
    try:
        fit(subject, place, indices, regime, heads, groups, loss, stage)
    except Diverged as diverged:
        if diverged.step == 0:  # with weights that are finite
            raise InputError(f"{protocol['name']}: the network's features of train images are not finite") from diverged
        raise
    kept = {rate: head for rate, head in zip(rates, heads, strict=True) if finite(head)}
    if not kept:
        raise Diverged(regime.steps(len(indices)))
    return {rate: head.requires_grad_(False) for rate, head in kept.items()}  # type: ignore[misc]


def _linear(weight: Tensor) -> nn.Linear:  # C x D
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    return layer


def _regime(subject: Subject, protocol: dict[str, Any]) -> Regime:
    """The rates themselves go with the layers, as `times`."""
    crop = tuple(protocol["crop_scale"])
    return Regime(
        epochs=protocol["epochs"],
        batch_size=protocol["batch_size"],
        optimizer={
            "name": protocol["optimizer"],
            "learning_rate": 1.0,
            "scale_with_batch": protocol["scale_with_batch"],
            "momentum": protocol["momentum"],
            "nesterov": protocol["nesterov"],
            "weight_decay": protocol["weight_decay"],
            "exclude_bias_and_norm": False,
        },
        schedule={
            "kind": protocol["schedule"],
            "warmup_epochs": 0.0,
            "final_fraction": 0.0,
            "milestones": protocol["milestones"],
            "gamma": protocol["gamma"],
            "every": protocol["every"],
        },
        views=tuple(
            ViewConfig(crop_scale=crop, channels=channels, same_draws=number > 0)  # type: ignore[arg-type]
            for number, channels in enumerate(subject.channels)
        ),
        precision=protocol["precision"],
        seed=subject.seed,
    )


def _fast(seen: FrozenFeatures, num_classes: int) -> tuple[float, float]:
    """(top1, l2) of the `linear` protocol on the same features: not augmented, and fitted to convergence."""
    train_x, train_y = seen.of("train")
    dtype = torch.float64 if train_x.device.type == "cpu" else torch.float32
    fitted = fit_linear(train_x, train_y, *seen.of("held_out"), num_classes, _FAST_L2, dtype, seen.subject.patience())
    x, y = seen.of("test")
    return top1(fitted.scores(x), y), fitted.l2
