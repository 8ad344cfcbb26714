"""DeepCluster-v2: DeepCluster with SwAV's parts (Caron et al., 2020, arXiv 2006.09882, section 4 and appendix).

A memory holds the last projection of each image, z = g(f(v)) / |g(f(v))|, of each of the two full-size views. At the
beginning of each epoch, H times, with different starts and views in turn:

    C_h, a_h = spherical k-means of the memory into K clusters       a_h(i): the cluster of image i
    L = mean over h, over all views v of image i, of -log softmax(z_v . C_h / t) at a_h(i)
    memory(i) <- z_v, after the step

The centroids themselves are the classifier, so none has to be learned anew after each clustering, and assignments cost
no further pass over the images.

Protocol (released code): as SwAV's: ResNet-50, LARS 4.8 to 0.0048 by a cosine after 10 epochs of warm-up from 0.3, weight
decay 1e-6, batch 4096, 400-800 epochs; recipe `swav`, 2 x 224 + 6 x 96.

Should reach, ImageNet linear top-1, ResNet-50 (authors' README, model zoo): 75.2 at 800 epochs with 2 x 224 + 6 x 96; 74.3 at
400 with 2 x 160 + 4 x 96; 70.2 at 400 with 2 x 224. solo-learn prints 88.85 for CIFAR-10, ResNet-18, 1000 epochs.
Switches, and where their rows are printed:
    the number and size of crops       SwAV figure 3 left (the views' business): 2 x 224 70.2, 2 x 160 + 4 x 96 74.3
    prototypes, temperature, kmeans_iterations    the released code's arguments; no table
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.draws import generator
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim
from methods.kmeans import entropy, kmeans, mutual_information
from methods.losses import full_precision
from methods.norms import average_running_statistics
from methods.swav import project_crops, prototype_scores
from methods.telemetry import health

_PROJECTOR = HeadConfig(layers=2, hidden=2048, out=128, norm="batch")


@dataclass(frozen=True)
class DeepClusterV2Config:
    """projector: the head g. temperature: t.
    prototypes: K of each of the H clusterings; clustering h clusters the projections of full-size view h mod 2.
    kmeans_iterations: of Lloyd's steps at each epoch.
    """

    projector: HeadConfig = _PROJECTOR
    prototypes: tuple[int, ...] = (3000, 3000, 3000)
    temperature: float = 0.1
    kmeans_iterations: int = 10

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], least={"kmeans_iterations": 1})
        if not self.prototypes or min(self.prototypes) < 2:
            raise ValueError(f"prototypes must be one or more numbers of at least 2, not {list(self.prototypes)}")


@full_precision
def cluster_prediction(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:  # V x B x K, B -> scalar
    """Cross-entropy of every view with its image's cluster."""
    return F.cross_entropy((scores / temperature).flatten(0, 1), targets.repeat(len(scores)))


# NOTE(departs): The memory is filled before the first epoch from one central view of each image, in eval mode; the released
# code fills it from two augmented crops, in train mode, which moves the batch norms' running statistics.
# NOTE(departs): Every image has its row in the memory, at its index, on every rank. The released code's memory holds, on
# each rank, what that rank saw in the last epoch, and the images of an incomplete last batch have no cluster in the next
# epoch; here they keep their older projection.
# NOTE(departs): k-means starts from images of the whole training set; the released code's from those of the first rank.
# NOTE(departs): The centroids are constants of an epoch. The released code has them as parameters whose gradients it cancels
# for more steps than any of its runs has (its option freeze_prototypes_niters), which is the same.
# NOTE(departs): An empty cluster keeps its centroid, as in the released code; DeepCluster itself splits another one.
# NOTE(departs): The projector's hidden layer has no bias before its batch norm, which would subtract it; the released
# code's has one.
class DeepClusterV2(Method):
    NAME = "deepclusterv2"
    VERSION = 1
    PAPER = "caron2020swav arXiv:2006.09882"
    NUM_VIEWS = 2
    RECIPE = "swav"
    MULTI_CROP = True
    EPOCH_PASS = True  # but only the first pass is looked at
    Config = DeepClusterV2Config

    memory: Tensor
    assignments: Tensor
    nmi: Tensor
    evenness: Tensor

    def __init__(self, config: DeepClusterV2Config, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        images = setting.num_images
        if images < 1:
            raise ValueError("deepclusterv2 remembers every image and needs to know how many there are: num_images is 0")
        if max(config.prototypes) > images:
            raise ValueError(f"prototypes is {max(config.prototypes)}, but there are only {images} images to cluster")
        if setting.num_views and setting.num_views < self.NUM_VIEWS:
            raise ValueError(f"deepclusterv2 remembers {self.NUM_VIEWS} full-size views, but gets {setting.num_views}")
        if setting.batch_size == 1 and has_batch_norm(config.projector):
            raise ValueError("deepclusterv2 with a batch norm in its head cannot train with a batch of one")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.register_buffer("memory", torch.zeros(self.NUM_VIEWS, images, width))  # 2 x n x d
        self.register_buffer("assignments", torch.full((len(config.prototypes), images), -1))  # H x n; -1: not yet
        for h, k in enumerate(config.prototypes):
            self.register_buffer(f"centroids_{h}", torch.zeros(k, width))  # K x d
        self.register_buffer("nmi", torch.zeros(()))
        self.register_buffer("evenness", torch.zeros(()))
        self._fresh: list[tuple[Tensor, Tensor]] = []  # index and projections of this step, not yet remembered

    @torch.no_grad()
    def begin_epoch(self, epoch: int, images: Iterable[tuple[Tensor, Tensor]]) -> None:
        before = self.assignments[0].clone()
        if (before < 0).any():
            self._remember_all(images)
        for h, k in enumerate(self.config.prototypes):
            draws = generator(self.setting.seed, f"centroids {h}", epoch)
            memory = self.memory[h % self.NUM_VIEWS]
            centroids, self.assignments[h] = kmeans(memory, k, self.config.kmeans_iterations, draws, spherical=True)
            self.get_buffer(f"centroids_{h}").copy_(centroids)
        if (before >= 0).all():
            self.nmi.copy_(mutual_information(before, self.assignments[0]))
        self.evenness.copy_(entropy(self.assignments[0]) / math.log(self.config.prototypes[0]))

    def _remember_all(self, images: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.eval()
        average_running_statistics(self)
        seen = torch.zeros_like(self.assignments[0], dtype=torch.bool)
        for batch, index in images:
            self.memory[:, index] = F.normalize(self.project(batch).to(self.memory.dtype), dim=1)
            seen[index] = True
        if not seen.all():
            raise ValueError(f"begin_epoch saw {int(seen.sum())} of {len(seen)} images; it must see the whole training set")

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = project_crops(self.encoder, self.projector, views)  # V x B x d
        targets = self.assignments[:, index]  # H x B
        if step.step == 0 and (targets < 0).any():
            raise ValueError("begin_epoch has not been called: there are no clusters to predict")
        scores = [prototype_scores(z, self.get_buffer(f"centroids_{h}")) for h in range(len(targets))]  # H of V x B x K
        losses = [cluster_prediction(s, t, self.config.temperature) for s, t in zip(scores, targets, strict=True)]
        unit = F.normalize(z[: self.NUM_VIEWS].detach().to(self.memory.dtype), dim=2)
        self._fresh = [(index, unit.transpose(0, 1))]  # B, B x 2 x d
        return torch.stack(losses).mean(), {
            **health(step, z[0], z[1]),
            "accuracy": (scores[0][0].detach().argmax(dim=1) == targets[0]).float().mean(),
            # Of the epoch's first clustering: agreement with the one before, and entropy of the sizes over log K.
            "nmi_previous": self.nmi.clone(),
            "cluster_evenness": self.evenness.clone(),
        }

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        for index, unit in self._fresh:
            self.memory[:, gathered(index)] = gathered(unit).transpose(0, 1)
        self._fresh.clear()

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))
