"""A few seconds of training on the procedural shapes, for every method: does it learn, and what breaks when a switch is off?

Four convolutions, 2,000 images of 24 x 24, batches of 64. The scale at which numbers of papers mean nothing, but at which
learning and collapse are told apart on one core in seconds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data import central_views, open_loader, split_labels
from benchmark.data.datasets import Dataset, find, prepare
from benchmark.evaluate.knn import weighted_knn
from methods import load
from methods.base import Method, Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.telemetry import pair_cosine, std_ratio
from methods.views import ViewConfig

TRAIN, TEST, BATCH, SIDE, CLASSES = 2000, 2000, 64, 24, 10
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.5)
HEAD = HeadConfig(layers=2, hidden=128, out=64)
LINEAR = HeadConfig(layers=1, out=64)
CACHE: list[Path] = []  # where the drawn images are kept; the tests set it
VIEW = ViewConfig(
    crop_scale=(0.6, 1.0), jitter_prob=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4, grayscale_prob=0.3
)
MILD = replace(VIEW, crop_scale=(0.4, 1.0), jitter_prob=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
LAB = replace(VIEW, channels="lab", brightness=0.4, contrast=0.4, hue=0.5, grayscale_prob=0.0)
# The colours of a patch are its own: those of the image would tell which patches belong together.
PATCHES = replace(
    VIEW, order=("crop", "flip"), patch_order=("jitter", "grayscale"), patch_grid=3, patch_size=12, patch_stride=6
)


@dataclass(frozen=True)
class Lesson:
    """How a method is trained here. config: fields that are not the paper's, which widths, lengths and temperatures of a
    few hundred steps on four convolutions demand. sgd: with momentum 0.9; AdamW otherwise."""

    config: dict[str, Any] = field(default_factory=dict)
    views: tuple[ViewConfig, ...] = (VIEW, VIEW)
    epochs: int = 8
    lr: float = 3e-3
    sgd: bool = False


_THREE = replace(HEAD, layers=3)
_NORMED = replace(HEAD, final_norm=True)
_PATCHED = {"grid": 3, "overlap": 0.5, "steps": 2, "context_blocks": 2, "context_width": 64}
LESSONS: dict[str, Lesson] = {
    "barlow": Lesson({"projector": _THREE}, (MILD, MILD)),
    "byol": Lesson({"projector": HEAD, "predictor": HEAD, "target_ema": 0.9}, lr=0.2, sgd=True),
    # The colours of an image drawn anew each time: as they are, they and the place tell images apart, which is not the class.
    "cmc": Lesson(
        {
            "projector": replace(LINEAR, norm="batch", final_norm=True), "loss": "softmax", "negatives": 512,
            "temperature": 0.1, "evaluate": "first",
        },
        (LAB,), epochs=30,
    ),
    "contrastive": Lesson({"projector": HEAD, "predictor": HEAD, "queue": 512, "target_ema": 0.9}, lr=1e-3),
    "cpc": Lesson(_PATCHED, (PATCHES,), lr=2e-3),
    "cpcv2": Lesson({**_PATCHED, "skip": 0, "target": 64}, (PATCHES,), lr=2e-3, epochs=4),
    # In colour: on gradients of these images the untrained network is nearly as good as any of these is trained.
    "deepcluster": Lesson({"clusters": 30, "pca": 32, "reassign_every": 4}, (VIEW,), epochs=16),
    "deepclusterv2": Lesson({"projector": HEAD, "prototypes": (64, 64, 64)}),
    "dino": Lesson(
        {
            "layers": 2, "hidden": 128, "bottleneck": 64, "prototypes": 256, "head_norm": "batch", "teacher_ema": 0.9,
            "teacher_temperature": 0.04, "warmup_epochs": 0,
        }
    ),
    "infomin": Lesson(
        {"head": HEAD, "patch_head": HEAD, "queue": 512, "target_ema": 0.9, "temperature": 0.1}, (VIEW, VIEW, PATCHES), 5, 1e-3
    ),
    # Z from two epochs: estimated from one batch, it is that of a memory of noise, and wrong for the rest of so short a run.
    "instdisc": Lesson(
        {"projector": LINEAR, "negatives": 512, "temperature": 0.1, "z_batches": 62}, (VIEW,), epochs=16, lr=1e-3
    ),
    "invaspread": Lesson({"projector": LINEAR}),
    "mocov1": Lesson({"head": HEAD, "queue": 512, "target_ema": 0.9}, lr=1e-3),
    "mocov2": Lesson({"head": HEAD, "queue": 512, "target_ema": 0.9, "temperature": 0.1}, lr=1e-3),
    "mocov3": Lesson(
        {"projector": replace(_NORMED, layers=3), "predictor": _NORMED, "temperature": 1.0, "target_ema": 0.9}, lr=2e-3
    ),
    "simclr": Lesson({"projector": _NORMED}),
    "simclrv2": Lesson({"projector": replace(_NORMED, layers=3), "queue": 512}),
    "simsiam": Lesson({"projector": replace(_NORMED, layers=3), "predictor": replace(HEAD, hidden=32)}, lr=0.1, sgd=True),
    "supervised": Lesson({}, (VIEW,), epochs=6),
    # The plateau of equal codes, of which the released code warns, is left for certain with a sharper epsilon.
    "swav": Lesson({"projector": HEAD, "prototypes": 32, "freeze_steps": 10, "epsilon": 0.02}, epochs=12),
    "vicreg": Lesson({"projector": _THREE}, (MILD, MILD)),
}  # fmt: skip


@functools.cache
def dataset() -> Dataset:
    return prepare(find("shapes", None, CACHE[0]), CACHE[0])


@functools.cache
def central(split: str, channels: str) -> tuple[Tensor, Tensor]:
    """Images as evaluation sees them, and their labels."""
    rows = np.arange(TRAIN if split == "train" else TEST)
    images = central_views(dataset(), split, rows, SIDE, channels)  # type: ignore[arg-type]
    return images, torch.from_numpy(split_labels(dataset(), split)[rows])  # type: ignore[arg-type]


@torch.no_grad()
def features(method: Method, split: str, channels: str, project: bool = False) -> Tensor:
    method.eval()
    run = method.project if project else method.features
    found = torch.cat([run(part) for part in central(split, channels)[0].split(250)])
    method.train()
    return found


def knn(method: Method, channels: str) -> float:
    """Top-1 in percent."""
    (_, labels), (_, wanted) = central("train", channels), central("test", channels)
    scores = weighted_knn(features(method, "train", channels), labels, features(method, "test", channels), CLASSES, k=20)
    return 100.0 * float((scores.argmax(dim=1) == wanted).float().mean())


@dataclass(frozen=True)
class Outcome:
    """before: of the same network without training, its batch norms' statistics those of the data (else they would
    stand for a part of what was learned). logs: at every step. std, cosine: of the projection, of test images."""

    before: float
    after: float
    logs: dict[str, list[float]]
    std: float
    cosine: float


def learn(name: str, seed: int, epochs: int | None = None, evaluate: bool = True, **changed: Any) -> Outcome:
    """changed: config fields that differ from LESSONS."""
    lesson, kind = LESSONS[name], load(name)
    torch.manual_seed(seed)
    setting = Setting(TRAIN, CLASSES, BATCH, len(lesson.views), lesson.views[0].channel_count, seed)
    method = kind(kind.Config(**(lesson.config | changed)), ENCODER, setting).train()
    method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels = lesson.views[0].channels
    before = 0.0
    if evaluate:
        looks = name if kind.PATCHES or kind.MODALITIES else ""  # all others have one encoder, seed by seed
        before = _UNTRAINED.get((channels, looks, seed)) or _untrained(method, channels)
        _UNTRAINED[channels, looks, seed] = before
    optimizer: torch.optim.Optimizer
    if lesson.sgd:
        optimizer = torch.optim.SGD(method.param_groups(), lr=lesson.lr, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(method.param_groups(), lr=lesson.lr, weight_decay=1e-4)
    loader = open_loader(
        dataset(), indices=np.arange(TRAIN), views=lesson.views, batch_size=BATCH, seed=seed, workers=0,
        out_size=SIDE, mean=dataset().mean, std=dataset().std, backend="torch",
    )  # fmt: skip
    total = (epochs or lesson.epochs) * loader.batches_per_epoch
    logs: dict[str, list[float]] = {"loss": []}
    for k in range(total):
        epoch, number = divmod(k, loader.batches_per_epoch)
        if number == 0:
            batches = loader.epoch(epoch)
            if method.EPOCH_PASS:
                images = central("train", channels)[0]
                method.begin_epoch(epoch, zip(images.split(250), torch.arange(TRAIN).split(250), strict=True))
                method.train()
        batch = next(batches)
        views = [view if view.ndim > 4 else view.contiguous(memory_format=torch.channels_last) for view in batch.views]
        step = Step(k, total, epoch)
        if k == 0:
            method.prepare(views)
        loss, said = method.loss(views, batch.index, batch.labels, step)
        optimizer.zero_grad()
        loss.backward()
        said |= method.after_backward(step)
        optimizer.step()
        method.after_step(step)
        for key, value in (said | {"loss": loss.detach()}).items():
            logs.setdefault(key, []).append(float(value))
    z = features(method, "test", channels, project=True)
    after = knn(method, channels) if evaluate else 0.0
    return Outcome(before, after, logs, float(std_ratio(z)), float(pair_cosine(z)))


_UNTRAINED: dict[tuple[str, str, int], float] = {}


def _untrained(method: Method, channels: str) -> float:
    """kNN on the network as it was initialized, with the data's statistics in its batch norms; leaves no trace."""
    state = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        for part in central("train", channels)[0].split(250):
            method.features(part)
    found = knn(method, channels)
    method.load_state_dict(state)
    return found
