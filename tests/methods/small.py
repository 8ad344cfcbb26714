"""Every method at a size at which a step takes milliseconds, for the tests that ask the same of all of them.

A new method adds a line to CONFIGS, and one to VIEWS where its views are not NUM_VIEWS images of 3 x 16 x 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from methods import load
from methods.base import Method, Setting
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig

HEAD = HeadConfig(hidden=16, out=8)
PLAIN = HeadConfig(hidden=16, out=8, norm="none")
LINEAR = HeadConfig(layers=1, out=8)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.25)
IMAGES, CLASSES, BATCH = 64, 4, 8

CONFIGS: dict[str, dict[str, Any]] = {
    "barlow": {"projector": replace(HEAD, layers=3), "predictor": HEAD},
    "byol": {"projector": HEAD, "predictor": HEAD},
    "cmc": {"projector": LINEAR, "negatives": 16},
    "contrastive": {"projector": HEAD, "predictor": HEAD, "queue": 32},
    "cpc": {"grid": 3, "steps": 2, "context_blocks": 2, "context_width": 8},
    "cpcv2": {"grid": 3, "steps": 2, "skip": 1, "context_blocks": 2, "context_width": 8, "target": 8},
    "deepcluster": {"clusters": 4, "pca": 8},
    "deepclusterv2": {"projector": HEAD, "prototypes": (4, 6)},
    "dino": {"layers": 2, "hidden": 128, "bottleneck": 8, "prototypes": 16},
    "infomin": {"head": PLAIN, "patch_head": PLAIN, "queue": 32},
    "instdisc": {"projector": LINEAR, "negatives": 16},
    "invaspread": {"projector": LINEAR},
    "mocov1": {"head": replace(PLAIN, layers=1), "queue": 32},
    "mocov2": {"head": PLAIN, "queue": 32},
    "mocov3": {"projector": replace(HEAD, layers=3, final_norm=True), "predictor": replace(HEAD, final_norm=True)},
    "random": {},
    "simclr": {"projector": replace(HEAD, final_norm=True)},
    "simclrv2": {"projector": replace(HEAD, layers=3, final_norm=True), "queue": 32},
    "simsiam": {"projector": replace(HEAD, layers=3, final_norm=True), "predictor": HEAD},
    "supervised": {},
    "swav": {"projector": HEAD, "prototypes": 6, "freeze_steps": 1},
    "vicreg": {"projector": replace(HEAD, layers=3), "predictor": HEAD, "invariance": 1.0, "variance": 1.0, "covariance": 0.04},
}
# Of one sample, without the batch dimension.
VIEWS: dict[str, list[tuple[int, ...]]] = {
    "cpc": [(9, 3, 16, 16)],
    "cpcv2": [(9, 3, 16, 16)],
    "deepcluster": [(2, 16, 16)],
    "deepclusterv2": [(3, 16, 16)] * 2 + [(3, 12, 12)] * 2,
    "dino": [(3, 16, 16)] * 2 + [(3, 12, 12)] * 2,
    "infomin": [(3, 16, 16), (3, 16, 16), (9, 3, 16, 16)],
    "swav": [(3, 16, 16)] * 2 + [(3, 12, 12)] * 2,
}

# What methods log of their outputs (methods.telemetry.health): for one view; for an image's two.
HEALTH = {"std", "pair_cosine", "effective_rank", "uniformity"}
HEALTH_OF_PAIRS = HEALTH | {"positive_cosine", "negative_cosine", "alignment"}


def shapes(name: str) -> list[tuple[int, ...]]:
    return VIEWS.get(name, [(3, 16, 16)] * load(name).NUM_VIEWS)


def setting(name: str, batch_size: int = BATCH, images: int = IMAGES) -> Setting:
    views = shapes(name)
    channels = views[0][-3] if views else 3
    return Setting(images, CLASSES, batch_size, num_views=len(views), channels=channels)


def build(name: str, encoder: EncoderConfig = ENCODER, seed: int = 0, batch_size: int = BATCH, **changed: Any) -> Method:
    """changed: config fields that differ from CONFIGS."""
    method = load(name)
    torch.manual_seed(seed)
    return method(method.Config(**(CONFIGS[name] | changed)), encoder, setting(name, batch_size))


def batch(name: str, n: int = BATCH, seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Views, index and labels of n samples of noise."""
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(n, *shape, generator=generator) for shape in shapes(name)]
    return views, torch.randperm(IMAGES, generator=generator)[:n], torch.arange(n) % CLASSES


def training_set(name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """All IMAGES with their index, out of order and in batches, for methods that want to see them at an epoch's start."""
    generator = torch.Generator().manual_seed(99)
    order = torch.randperm(IMAGES, generator=generator)
    return iter([(torch.randn(len(index), *shapes(name)[0], generator=generator), index) for index in order.split(24)])
