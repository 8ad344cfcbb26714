"""InstDisc: Unsupervised feature learning via non-parametric instance discrimination (Wu et al., 2018, arXiv 1805.01978).

Every image is a class of its own. v_j is the memory of image j, f the normalized 128-d feature of an augmented image i:

    P(i|f) = exp(v_i.f / t) / Z      Z = sum over all n of exp(v_j.f / t)                   equations 2, 4, 5
    L = -log P(i|f)                                                                        3, softmax `full`
    h(i, f) = P(i|f) / (P(i|f) + m / n)      the noise is uniform, m times as frequent      6
    L = -log h(i, f) - sum over m drawn j of log(1 - h(j, f))                               7, softmax `nce`
    Z = n mean over drawn j of exp(v_j.f / t), from the first batch, constant since         8
    L + lambda |f - v_i|^2                                                                 9 and 10, proximal
    v_i <- T v_i + (1 - T) f, normalized                                                   after the step

Protocol, ImageNet: ResNet-50, SGD 0.03, x0.1 at epochs 120 and 160 of 200, decay 1e-4, batch 256, m 4096, t 0.07; recipe
instdisc. CIFAR-10, released script: ResNet-18, full softmax, t 0.1, batch 128, decay 5e-4, the rest as on ImageNet.
Should reach, ImageNet, ResNet-50: kNN 42.5 (arXiv text, table 2), 46.5 (later version, from memory), 46.8 (authors' README);
linear 54.0 (secondary: MoCo, 1911.05722, table 1). CIFAR-10, ResNet-18, kNN: 80.8 (table 1).
Switches, and where their rows are printed:
    softmax: parametric | full | nce, negatives    table 1, CIFAR-10 kNN: 63.0 | 80.8 | m = 1: 42.5, m = 10: 63.4 (from
                                                   memory), m = 512: 78.4 (from memory), m = 4096: 80.4 (secondary)
    softmax: sampled                               CMC's README, ResNet-50, linear: nce 56.5, sampled 57.1, and with
                                                   m = 16384 58.5
    proximal                                       section 3.3 and its figure (curves of the objective, no table)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import draws
from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered, own_rows, world_size
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim
from methods.losses import classification, cosine_regression, full_precision
from methods.memory import MemoryBank
from methods.telemetry import health

_HEAD = HeadConfig(layers=1, out=128)
_WHOLE = 32  # times the drawn rows: up to this size a memory is scored as a whole
_NO_NOISE = ["negatives", "z_batches"]
_NO_BANK = [*_NO_NOISE, "momentum", "temperature", "proximal"]


@dataclass(frozen=True)
class InstDiscConfig:
    """projector: from the encoder's features to f; the paper's is one linear layer.
    softmax: `nce` and `full` as above; `sampled` is the cross-entropy of i among itself and m drawn images, as in CPC and
        MoCo (the authors' later release); `parametric` a trained weight vector per image instead of a memory, equation 1.
    negatives: m. z_batches: how many first batches Z is estimated from. temperature: t. momentum: T.
    proximal: lambda. The paper's own update is momentum 0 with lambda above 0.
    evaluate: what `features` returns: `h` the encoder's output, `z` the normalized f, which the paper's kNN reads.
    """

    projector: HeadConfig = _HEAD
    softmax: Literal["nce", "full", "sampled", "parametric"] = field(
        default="nce", metadata={"governs": {"full": _NO_NOISE, "sampled": ["z_batches"], "parametric": _NO_BANK}}
    )
    negatives: int = 4096
    z_batches: int = 1
    temperature: float = 0.07
    momentum: float = 0.5
    proximal: float = 0.0
    evaluate: Literal["h", "z"] = "h"

    def __post_init__(self) -> None:
        # A memory of momentum 1 would never move.
        check(self, positive=["temperature"], below_one=["momentum"], least={"negatives": 1, "z_batches": 1, "proximal": 0})


def drawn_negatives(index: Tensor, images: int, count: int, seed: int, step: Step) -> Tensor:  # B/N -> B/N x m
    """`count` training images for each sample, uniform and with repetition, the sample's own image not excluded."""
    generator = draws.generator(seed, "negatives", step.step)
    whole = torch.randint(images, (len(index) * world_size(), count), generator=generator)
    return own_rows(whole).to(index.device)


@full_precision
def bank_scores(z: Tensor, rows: Tensor, places: Tensor, tau: float) -> Tensor:  # B x d, n x d, B x k -> B x k
    """v.f / tau, z being f before normalization, of the rows of a memory at `places`.

    Scoring the whole memory is one product of matrices, and several times faster than moving B k rows of it about, as long
    as it is not very much larger than what is drawn.
    """
    f = F.normalize(z, dim=1)
    if len(rows) <= _WHOLE * places.shape[1]:
        return (f @ rows.T).gather(1, places) / tau
    return (rows[places] @ f.unsqueeze(2)).squeeze(2) / tau


@full_precision
def nce(scores: Tensor, log_z: Tensor, images: int) -> Tensor:  # B x (1 + m) -> scalar
    """Equation 7, mean over the batch; the positive's score stands first.

    With u = log P - log(m / n), log h = -log(1 + exp(-u)) and log(1 - h) = -log(1 + exp(u)): nothing can overflow.
    """
    m = scores.shape[1] - 1
    u = scores - log_z - math.log(m / images)
    return F.softplus(-u[:, 0]).mean() + F.softplus(u[:, 1:]).sum(dim=1).mean()


@full_precision
def first_of(scores: Tensor) -> Tensor:  # B x (1 + m) -> scalar
    """Cross-entropy of the positive, whose score stands first, among all."""
    return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))


@full_precision
def full_softmax(z: Tensor, rows: Tensor, index: Tensor, tau: float) -> Tensor:  # B x d, n x d, B -> scalar
    """Equation 3, mean over the batch, with all n images in the denominator."""
    return F.cross_entropy(F.normalize(z, dim=1) @ rows.T / tau, index)


@full_precision
def proximity(z: Tensor, old: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """The mean over the batch of |f - v_i|^2, equation 9."""
    return (F.normalize(z, dim=1) - old).square().sum(dim=1).mean()


class Partition(nn.Module):
    """The constant Z of equation 8, as its logarithm; what it was estimated from is in the state dict with it."""

    log: Tensor
    seen: Tensor

    def __init__(self, images: int, batches: int) -> None:
        super().__init__()
        self.images, self.batches = images, batches
        self.register_buffer("log", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # batches it was estimated from

    @torch.no_grad()
    def forward(self, negatives: Tensor) -> tuple[Tensor, Tensor]:  # scores, B/N x m
        """(log Z, this batch's own estimate of it). The first `batches` calls set Z to the mean of their estimates."""
        negatives = negatives.detach().to(self.log.dtype)
        own = negatives.logsumexp(dim=(0, 1)) - math.log(negatives.numel() / self.images)
        now = gathered(own.view(1)).logsumexp(dim=0) - math.log(world_size())
        # Without asking the device how many batches there were: a step must not wait for it.
        seen = self.seen.to(now.dtype)
        mean = torch.logaddexp(self.log + seen.log(), now) - (seen + 1.0).log()
        first = self.seen < self.batches
        self.log.copy_(torch.where(first, mean, self.log))
        self.seen += first
        # A copy: the backward pass keeps it, and a later call may move the buffer.
        return self.log.clone(), now


# NOTE(departs): The default is the released code's: no proximal term (lambda 0) but a memory that moves by a momentum of
# 0.5; the authors call the two equivalent in the repository's issue 11. The paper's equations 9 and 10 are momentum 0 with
# a lambda above 0, whose value is not verified here.
# NOTE(departs): Z is estimated from the drawn negatives alone, so that its expectation is the full sum; the released code
# averages over the positive too, which makes Z larger by about (exp(v_i.f/t) - mean) n / (m + 1).
# NOTE(departs): The released code adds 1e-7 to both denominators of h; here h is computed from logarithms and needs none.
# NOTE(departs): The memory starts with random unit vectors, as in the paper; the released code's are uniform in a cube and
# of unit length in the mean only.
# NOTE(departs): The paper's kNN and SVM read the normalized 128-d f; here `features` is by default what the encoder returns,
# as for every other method, and evaluate: z is the paper's.
# NOTE(departs): The paper does not say whether its parametric softmax normalizes the features; ours follows equation 1,
# without normalization and without a temperature.
# NOTE(departs): The residual blocks of the released ImageNet code do not start as the identity; encoder.zero_init, true by
# default, must be set to false for the same.
# NOTE(departs): The released CIFAR-10 script does not flip images and takes the colour jitter before the grey; recipe
# instdisc is the ImageNet script's for both.
class InstDisc(Method):
    NAME = "instdisc"
    VERSION = 1
    PAPER = "wu2018instdisc arXiv:1805.01978"
    NUM_VIEWS = 1
    RECIPE = "instdisc"
    Config = InstDiscConfig

    def __init__(self, config: InstDiscConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.num_images < 1:
            raise ValueError("instdisc makes every training image a class: it needs num_images, the size of the training set")
        if setting.batch_size == 1 and has_batch_norm(config.projector):
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take norm: none in projector")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        if config.softmax == "parametric":
            self.classifier = nn.Linear(width, setting.num_images, bias=False)
        else:
            self.bank = MemoryBank(setting.num_images, width)
            self.partition = Partition(setting.num_images, config.z_batches)
        if config.evaluate == "z":
            self.dim = width
        self._fresh: list[tuple[Tensor, Tensor]] = []  # of this step, not yet in the bank

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.project(views[0])  # B x d
        log = health(step, z)
        if self.config.softmax == "parametric":
            return classification(self.classifier(z), index), log
        old = self.bank.rows[index]  # B x d
        loss = self._discriminate(z, index, step, log)
        if self.config.proximal > 0.0:
            loss = loss + self.config.proximal * proximity(z, old)
        log["memory_cosine"] = 1.0 - cosine_regression(z.detach(), old) / 2.0
        self._fresh.append((index, z.detach()))
        return loss, log

    def _discriminate(self, z: Tensor, index: Tensor, step: Step, log: dict[str, Tensor]) -> Tensor:
        config, n = self.config, self.setting.num_images
        if config.softmax == "full":
            return full_softmax(z, self.bank.rows, index, config.temperature)
        negatives = drawn_negatives(index, n, config.negatives, self.setting.seed, step)
        places = torch.cat([index.unsqueeze(1), negatives], dim=1)  # B x (1 + m)
        scores = bank_scores(z, self.bank.rows, places, config.temperature)
        if config.softmax == "sampled":
            return first_of(scores)
        log_z, now = self.partition(scores[:, 1:])
        log["z_ratio"] = (now - log_z).exp()  # far from 1, the constant is no longer this network's Z
        return nce(scores, log_z, n)

    def after_step(self, step: Step) -> None:
        for index, z in self._fresh:
            self.bank.update(index, z, self.config.momentum)
        self._fresh.clear()

    def features(self, images: Tensor) -> Tensor:
        return F.normalize(self.project(images), dim=1) if self.config.evaluate == "z" else self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        z = self.project(images)
        return self.classifier(z) if self.config.softmax == "parametric" else z
