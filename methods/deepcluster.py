"""DeepCluster: Deep Clustering for Unsupervised Learning of Visual Features (Caron et al., 2018, arXiv 1807.05520).

The network learns to classify its own clusters. At the beginning of each epoch, over the whole training set:

    x_n = f(image n), central view, eval mode;   PCA to 256, whitened, |x_n| = 1
    min over C of  sum over n of  min over k of |x_n - c_k|^2        equation 2, k-means; y_n is the nearest cluster of n
    W <- fresh, since the clusters' numbers mean nothing from one clustering to the next

and then, with random crops v_n of the images,

    L = mean over n of  w_n (-log softmax(W f(v_n)))_{y_n}           equation 1; w_n ~ 1 / size of cluster y_n

Two guards against trivial solutions: an empty cluster takes over half of another one, and the weights w_n keep a few
large clusters from being all there is to predict (section 3.3).

Protocol (paper and released code): AlexNet with batch norm on Sobel gradients, K = 10000, SGD 0.05 constant, momentum 0.9,
weight decay 1e-5, batch 256, 500 epochs (the code's default is 200); recipe `deepcluster`: crops and flips.

Should reach, ImageNet linear top-1 on AlexNet's conv3: 41.0 (table 1 of the conference version, from memory; a later arXiv
revision prints other values). With k-means of 1000 clusters InvaSpread (1904.03436, table 1, from memory) reports 67.6 kNN
on CIFAR-10 with ResNet-18.
Switches, and where their rows are printed:
    clusters                           figure 2c: 10000 is best, no numbers printed in the text
    balance, empty clusters            section 3.3: what avoids trivial solutions; no row
    reassign_every, pca, kmeans_iterations    the released code's arguments and constants
    nmi_previous (log)                 figure 2b: agreement of a clustering with the one before rises over training
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.draws import generator
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig, mlp, out_dim
from methods.kmeans import entropy, kmeans, mutual_information, whitened
from methods.losses import full_precision
from methods.norms import average_running_statistics
from methods.telemetry import health

_PROJECTOR = HeadConfig(layers=0, hidden=4096, out=4096, norm="none")


@dataclass(frozen=True)
class DeepClusterConfig:
    """projector: what lies between the encoder and the classifier, trained and clustered with it; none by default. A ReLU
        follows it before the classifier. AlexNet's is layers 2, hidden and out 4096, norm none.
    clusters: K. pca: dimensions kept of the features, whitened, before k-means; 0 only normalizes their length.
    kmeans_iterations: of Lloyd's steps.
    balance: weigh images by the inverse size of their cluster; false is the plain mean.
    reassign_every: epochs from one clustering to the next.
    """

    projector: HeadConfig = _PROJECTOR
    clusters: int = 10000
    pca: int = 256
    kmeans_iterations: int = 20
    balance: bool = True
    reassign_every: int = 1

    def __post_init__(self) -> None:
        check(self, least={"clusters": 2, "pca": 0, "kmeans_iterations": 1, "reassign_every": 1})


@full_precision
def weighted_classification(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # B x K, B, B -> scalar
    """Mean over the batch of each sample's cross-entropy times its weight."""
    return (weights * F.cross_entropy(logits, targets, reduction="none")).mean()


# NOTE(departs): The released code draws an epoch's images so that every cluster is as frequent; here each image comes once
# and its loss is weighed by n / (clusters in use x size of its cluster), of which the paper says that it is equivalent. The
# weights' mean over the training set is 1.
# NOTE(departs): The released code gives the new classifier a new optimizer without momentum at each clustering; here it is one
# of the parameters of the run's optimizer, whose momentum outlives the clustering.
# NOTE(departs): An empty cluster takes over half of the largest cluster; the paper says a random non-empty one, and faiss,
# which the released code calls, one drawn in proportion to its size.
# NOTE(departs): The released code's k-means starts from the state of a global random generator; here from one that is keyed
# by seed and epoch, so that a resumed run clusters alike.
# NOTE(departs): Principal components without variance stay zero; faiss divides by their variance as it is.
# NOTE(departs): The paper's networks, AlexNet and VGG-16 with batch norm, are not among our encoders: its rows are compared
# in direction only.
# NOTE(departs): The network has no dropout; the released AlexNet has it before each of its two hidden linear layers.
# NOTE(departs): What is clustered is the pooled output of the encoder where no projector is set: residual networks have no
# fully-connected layers. The paper clusters AlexNet's second one.
class DeepCluster(Method):
    NAME = "deepcluster"
    VERSION = 1
    PAPER = "caron2018deepcluster arXiv:1807.05520"
    NUM_VIEWS = 1
    RECIPE = "deepcluster"
    EPOCH_PASS = True
    Config = DeepClusterConfig

    assignment: Tensor
    weights: Tensor
    nmi: Tensor
    evenness: Tensor

    def __init__(self, config: DeepClusterConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        images, width = setting.num_images, out_dim(self.dim, config.projector)
        if images < 1:
            raise ValueError("deepcluster clusters every image and needs to know how many there are: num_images is 0")
        if config.clusters > images:
            raise ValueError(f"clusters is {config.clusters}, but there are only {images} images to cluster")
        if config.pca > min(width, images):
            raise ValueError(f"pca is {config.pca}, but {images} images with features of {width} have fewer components")
        self.projector = mlp(self.dim, config.projector)
        self.classifier = nn.Linear(width, config.clusters)
        self.register_buffer("assignment", torch.full((images,), -1))  # n; -1: not yet
        self.register_buffer("weights", torch.ones(config.clusters))  # K, of an image in each cluster
        self.register_buffer("nmi", torch.zeros(()))
        self.register_buffer("evenness", torch.zeros(()))

    @torch.no_grad()
    def begin_epoch(self, epoch: int, images: Iterable[tuple[Tensor, Tensor]]) -> None:
        before, clusters = self.assignment.clone(), self.config.clusters
        if (before >= 0).all() and epoch % self.config.reassign_every:
            return
        x = whitened(self._features_of_all(images), self.config.pca)  # n x pca
        draws = generator(self.setting.seed, "centroids", epoch)
        self.assignment.copy_(kmeans(x, clusters, self.config.kmeans_iterations, draws)[1])
        if self.config.balance:
            sizes = torch.bincount(self.assignment, minlength=clusters)
            self.weights.copy_(len(x) / ((sizes > 0).sum() * sizes.clamp(min=1)).to(self.weights.dtype))
        if (before >= 0).all():
            self.nmi.copy_(mutual_information(before, self.assignment))
        self.evenness.copy_(entropy(self.assignment) / math.log(clusters))
        fresh = torch.randn(self.classifier.weight.shape, generator=generator(self.setting.seed, "classifier", epoch))
        self.classifier.weight.copy_(0.01 * fresh)
        self.classifier.bias.zero_()

    def _features_of_all(self, images: Iterable[tuple[Tensor, Tensor]]) -> Tensor:  # -> n x D, in the order of index
        self.eval()
        average_running_statistics(self)
        seen = torch.zeros_like(self.assignment, dtype=torch.bool)
        features = self.weights.new_zeros(len(seen), self.classifier.in_features)
        for batch, index in images:
            features[index] = self.project(batch).to(features.dtype)
            seen[index] = True
        if not seen.all():
            raise ValueError(f"begin_epoch saw {int(seen.sum())} of {len(seen)} images; it must see the whole training set")
        return features

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        targets = self.assignment[index]  # B
        if step.step == 0 and (targets < 0).any():
            raise ValueError("begin_epoch has not been called: there are no clusters to classify")
        z = self.project(views[0])  # B x D
        logits = self.classifier(self._hidden(z))  # B x K
        loss = weighted_classification(logits, targets, self.weights[targets])
        return loss, {
            **health(step, z),
            "accuracy": (logits.detach().argmax(dim=1) == targets).float().mean(),
            # Agreement of this epoch's clusters with the ones before; entropy of their sizes over log K.
            "nmi_previous": self.nmi.clone(),
            "cluster_evenness": self.evenness.clone(),
        }

    def _hidden(self, z: Tensor) -> Tensor:
        return F.relu(z) if self.config.projector.layers else z

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.classifier(self._hidden(self.project(images)))
