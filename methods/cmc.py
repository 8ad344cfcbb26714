"""CMC: Contrastive multiview coding (Tian et al., 2019, arXiv 1906.05849).

Two modalities of an image, its lightness L and its colours ab, each with an encoder and a 128-d normalized feature z of its
own. Anchored in modality a, against the memory v^b of modality b, which has a unit vector for each of the n images:

    L(a -> b) = -log exp(z^a_i.v^b_i / t) / sum over i and m drawn j of exp(z^a_i.v^b_j / t)          loss `softmax`
    h(j) = P(j) / (P(j) + m / n),   P(j) = exp(z^a_i.v^b_j / t) / Z^ab                                loss `nce`, of InstDisc
    L(a -> b) = -log h(i) - sum over m drawn j of log(1 - h(j));     L(a, b) = L(a -> b) + L(b -> a)
    core:  sum over b > 1 of L(1, b)          full:  sum over all pairs a < b of L(a, b)
    v^a_i <- T v^a_i + (1 - T) z^a_i, normalized                                                      after the step

The representation is the features of all encoders side by side. Any modalities do, as further views of the same crop:
channels (1, 2, 1, 3) are L, ab, a depth and surface normals, (1, 2, 2) are L, ab and Sobel gradients.

Protocol, ImageNet, released code: SGD 0.03, x0.1 at epochs 120, 160, 200 of 240, decay 1e-4, batch 128, m 4096, t 0.07;
recipe cmc, or cmc_randaugment for the numbers with RandAugment. encoder.width 0.5 is the half-width pair of the tables.
Should reach, ImageNet linear top-1: 60.0 with a pair of half-width ResNet-50 (secondary: InfoMin, 2005.10243), 58.6 at 200
epochs in the authors' re-run (PyContrast README); 66.2 with ResNet-50 and RandAugment (secondary: BYOL, 2006.07733, table 1).
Switches, and where their rows are printed:
    loss, negatives     no table; the released weights are nce with m = 4096, and the README of the released code says that
                        softmax with 65536 is likely to be better
    graph, channels     the paper's experiments on NYU depth (figures and tables of segmentation; not among our claims)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig, build_encoder
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim
from methods.instdisc import Partition, bank_scores, drawn_negatives, first_of, nce
from methods.losses import cosine_regression
from methods.memory import MemoryBank
from methods.telemetry import health

_HEAD = HeadConfig(layers=1, out=128)


@dataclass(frozen=True)
class CMCConfig:
    """channels: of each modality; all views of an image, one after the other on their channels, are split into them.
    projector: from an encoder's features to z, one for each modality; the paper's is one linear layer.
    graph: which pairs are contrasted; `core` is the first modality with each other, `full` all pairs. With two, the same.
    loss: `nce` or `softmax`. negatives: m. z_batches: how many first batches each Z is estimated from.
    temperature: t, 0.1 in the released code's README for STL-10. momentum: T.
    evaluate: what `features` returns: of all encoders, or of the first alone, which then learned from the others.
    """

    channels: tuple[int, ...] = (1, 2)
    projector: HeadConfig = _HEAD
    graph: Literal["full", "core"] = "full"
    loss: Literal["nce", "softmax"] = field(default="nce", metadata={"governs": {"softmax": ["z_batches"]}})
    negatives: int = 4096
    z_batches: int = 1
    temperature: float = 0.07
    momentum: float = 0.5
    evaluate: Literal["all", "first"] = "all"

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], below_one=["momentum"], least={"negatives": 1, "z_batches": 1})
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError(f"channels must be those of two modalities or more, each at least 1, not {list(self.channels)}")


class Modalities(nn.Module):
    """An encoder for each modality: B x C x H x W is split on its channels, the features come side by side."""

    def __init__(self, encoder: EncoderConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        built = [build_encoder(encoder, count) for count in channels]
        self.channels = list(channels)
        self.each = nn.ModuleList(module for module, _ in built)
        self.dims = [dim for _, dim in built]

    def one_by_one(self, images: Tensor) -> list[Tensor]:  # B x C x H x W -> M of B x D
        return [encoder(part) for encoder, part in zip(self.each, images.split(self.channels, dim=1), strict=True)]

    def first(self, images: Tensor) -> Tensor:
        features: Tensor = self.each[0](images[:, : self.channels[0]])
        return features

    def forward(self, images: Tensor) -> Tensor:  # B x C x H x W -> B x (M D)
        return torch.cat(self.one_by_one(images), dim=1)


def directions(modalities: int, graph: str) -> list[tuple[int, int]]:
    """The pairs (anchor, memory), both ways round."""
    pairs = [(a, b) for b in range(modalities) for a in range(b) if graph == "full" or a == 0]
    return [way for a, b in pairs for way in ((a, b), (b, a))]


# NOTE(departs): The encoders are torchvision's ResNets of any width on 1, 2, ... channels; for AlexNet the released code splits
# one network's channels into two halves, which we do not have.
# NOTE(departs): The released script draws 16384 negatives by default, its README says 4096, with which the released weights
# were trained: 4096 is ours.
# NOTE(departs): Z is estimated from the drawn negatives alone, so that its expectation is the full sum; the released code
# averages over the positive too. Both have a constant for each direction.
# NOTE(departs): The released code adds 1e-7 to both denominators of h; here h is computed from logarithms and needs none.
# NOTE(departs): The memories start with random unit vectors; the released code's are uniform in a cube and of unit length in
# the mean only.
# NOTE(departs): The released script crops from an area of 0.2 on, but for ResNets on ImageNet from 0.08 on; recipe cmc has
# 0.08 everywhere.
# NOTE(departs): The residual blocks of the released code do not start as the identity; encoder.zero_init, true by default,
# must be set to false for the same.
class CMC(Method):
    NAME = "cmc"
    VERSION = 1
    PAPER = "tian2019cmc arXiv:1906.05849"
    NUM_VIEWS = 1
    RECIPE = "cmc"
    MODALITIES = True
    Config = CMCConfig
    encoder: Modalities
    banks: Sequence[MemoryBank]

    def __init__(self, config: CMCConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.num_images < 1:
            raise ValueError("cmc has a memory of every training image: it needs num_images, the size of the training set")
        if setting.batch_size == 1 and has_batch_norm(config.projector):
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take norm: none in projector")
        self.projectors = nn.ModuleList(mlp(dim, config.projector) for dim in self.encoder.dims)
        widths = [out_dim(dim, config.projector) for dim in self.encoder.dims]
        self.banks = nn.ModuleList(MemoryBank(setting.num_images, width) for width in widths)  # type: ignore[assignment]
        self.directions = directions(len(config.channels), config.graph)
        self.partitions = nn.ModuleList(Partition(setting.num_images, config.z_batches) for _ in self.directions)
        if config.evaluate == "first":
            self.dim = self.encoder.dims[0]
        self._fresh: list[tuple[Tensor, list[Tensor]]] = []  # of this step, not yet in the banks

    def make_encoder(self, encoder: EncoderConfig) -> tuple[nn.Module, int]:
        channels, found = self.config.channels, self.setting.channels
        if sum(channels) != found:
            raise ValueError(f"channels {list(channels)} are {sum(channels)} in all, but the views of an image have {found}")
        modalities = Modalities(encoder, channels)
        return modalities, sum(modalities.dims)

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare([torch.cat(views, dim=1)])

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        config, n = self.config, self.setting.num_images
        z = self._projections(torch.cat(views, dim=1))  # M of B x d
        negatives = drawn_negatives(index, n, config.negatives, self.setting.seed, step)
        places = torch.cat([index.unsqueeze(1), negatives], dim=1)  # B x (1 + m), the same for all directions
        losses, ratios = [], []
        for (a, b), partition in zip(self.directions, self.partitions, strict=True):
            scores = bank_scores(z[a], self.banks[b].rows, places, config.temperature)
            if config.loss == "softmax":
                losses.append(first_of(scores))
                continue
            log_z, now = partition(scores[:, 1:])
            ratios.append((now - log_z).exp())
            losses.append(nce(scores, log_z, n))
        self._fresh.append((index, [z_m.detach() for z_m in z]))
        return torch.stack(losses).sum(), self._log(step, z, ratios)

    def _log(self, step: Step, z: list[Tensor], ratios: list[Tensor]) -> dict[str, Tensor]:
        """z_ratio: far from 1, the constants are no longer these networks' Z. view_cosine: of the first two modalities."""
        side_by_side = torch.cat([F.normalize(z_m.detach(), dim=1) for z_m in z], dim=1)
        log = health(step, side_by_side)
        log["view_cosine"] = 1.0 - cosine_regression(z[0].detach(), z[1].detach()) / 2.0
        return log | ({"z_ratio": torch.stack(ratios).mean()} if ratios else {})

    def after_step(self, step: Step) -> None:
        for index, z in self._fresh:
            for bank, z_m in zip(self.banks, z, strict=True):
                bank.update(index, z_m, self.config.momentum)
        self._fresh.clear()

    def features(self, images: Tensor) -> Tensor:
        return self.encoder.first(images) if self.config.evaluate == "first" else self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        """The normalized features of all modalities, side by side."""
        return torch.cat([F.normalize(z, dim=1) for z in self._projections(images)], dim=1)

    def _projections(self, images: Tensor) -> list[Tensor]:
        parts = self.encoder.one_by_one(images)
        return [projector(h) for projector, h in zip(self.projectors, parts, strict=True)]
