"""Every method at a size at which a step takes milliseconds, for the tests that ask the same of all of them.

A new method adds a line to CONFIGS, and one to VIEWS where its views are not NUM_VIEWS images of 3 x 16 x 16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from methods import load
from methods.base import Method, Setting
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig

HEAD = HeadConfig(hidden=16, out=8)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.25)
IMAGES, CLASSES, BATCH = 64, 4, 8

CONFIGS: dict[str, dict[str, Any]] = {
    "byol": {"projector": HEAD, "predictor": HEAD},
    "contrastive": {"projector": HEAD, "predictor": HEAD, "queue": 32},
    "random": {},
    "supervised": {},
}
# Of one sample, without the batch dimension.
VIEWS: dict[str, list[tuple[int, ...]]] = {}


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
