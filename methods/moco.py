"""MoCo: Momentum contrast (He et al., 2019, arXiv 1911.05722), and MoCo v2 (Chen et al., 2020, arXiv 2003.04297).

For two views x_q, x_k of an image, query weights theta_q, key weights theta_k, K negatives k_i from a dictionary:

    q = g(f(x_q; theta_q))      k = g(f(x_k; theta_k))                  encoder and head, both normalized; no gradient in k
    L = -log exp(q.k / t) / (exp(q.k / t) + sum_i exp(q.k_i / t))       equation 1
    theta_k <- m theta_k + (1 - m) theta_q                              equation 2, after the optimizer's step
    enqueue the keys of this batch, dequeue the oldest                  after the step: no query meets its own key twice

The images of x_k pass the key network in a random order of the whole batch (shuffling BN, section 3.3): where the batch
norms of the encoder have statistics in parts (encoder.bn_splits), a query and its key would otherwise share theirs, and
the statistics would tell them from the queue.

Protocol: SGD 0.03 x B / 256, momentum 0.9, weight decay 1e-4, batch 256 on 8 GPUs (encoder.bn_splits: 8), 200 epochs; v1
divides the rate by 10 at epochs 120 and 160, recipe "mocov1"; v2 has a cosine without warm-up, recipe "mocov2".
Should reach, ImageNet linear top-1, ResNet-50, 200 epochs: v1 60.6, v2 67.5 (v2 paper, table 1; five runs of the authors'
code: 60.8 +- 0.2 and 67.5 +- 0.1, README); v2 at 800 epochs 71.1 (table 1).
Switches, and where their rows are printed:
    head, temperature (and recipe, schedule)   MoCo v2, table 1 (a)-(e) and the table of temperatures in section 3
    mechanism, queue                           MoCo v1, figure 3: at K = 65536 MoCo 60.6, memory bank 58.0; the labels for
                                               end-to-end (57.3 at K = 1024) are remembered, not verified
    target_ema                                 MoCo v1, section 4.1, K = 4096: 0.9 55.2, 0.99 57.8, 0.999 59.0, 0.9999 58.9
    shuffle                                    MoCo v1 draws curves only; the authors' CIFAR-10 demo: 4 % lost without, at 800
                                               epochs
    symmetric                                  SimSiam (2011.10566), table 4, "MoCo v2 (repro., +)": 67.4 at 100 epochs, 69.9
                                               at 200; the demo, kNN on CIFAR-10, 200 epochs: 82.6 without, 85.3 with
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from methods import draws
from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered, own_rows, world_size
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim
from methods.losses import full_precision
from methods.memory import KeyQueue, MemoryBank
from methods.momentum import copy_into, ema_update, frozen_copy
from methods.telemetry import health

# v1's head becomes v2's by layers: 2.
_LINEAR = HeadConfig(layers=1, hidden=2048, out=128, norm="none")
MLP = replace(_LINEAR, layers=2)
# The key of each query (B x d), the negatives (K x d), and which of them are the query's own image (B x K, None: none is).
Dictionary = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class MoCoV1Config:
    """head: g; v1's is one linear layer, v2's has a hidden layer. No norm in it.
    mechanism: where the dictionary comes from (figure 2). `moco` is the queue and the moving key network; `memory_bank`
        keeps one feature of every image, the positive is the image's own, the negatives are drawn; `end_to_end` takes the
        other images of the batch, with the gradient through the keys.
    queue: K, the keys in the queue, or the negatives drawn from the memory bank.
    temperature: t. target_ema: m, constant. bank_momentum: of the memory bank's features, InstDisc's 0.5.
    shuffle: shuffling BN. It does something where encoder.norm is batch and encoder.bn_splits above 1.
    symmetric: each view is the query once: the two losses are summed and the keys of both views enqueued.
    """

    head: HeadConfig = _LINEAR
    mechanism: Literal["moco", "memory_bank", "end_to_end"] = field(
        default="moco",
        metadata={
            "governs": {
                "moco": ["bank_momentum"],
                "memory_bank": ["target_ema", "shuffle", "symmetric"],
                "end_to_end": ["queue", "target_ema", "bank_momentum"],
            }
        },
    )
    queue: int = field(default=65536, metadata={"at_least": "batch_size"})
    temperature: float = 0.07
    target_ema: float = 0.999
    bank_momentum: float = 0.5
    shuffle: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["target_ema", "bank_momentum"], least={"queue": 1})
        if self.symmetric and self.mechanism == "memory_bank":
            raise ValueError("symmetric: true needs keys of the other view; mechanism: memory_bank has none")


@dataclass(frozen=True)
class MoCoV2Config(MoCoV1Config):
    __doc__ = MoCoV1Config.__doc__

    head: HeadConfig = MLP
    temperature: float = 0.2


@full_precision
def unit(z: Tensor) -> Tensor:  # B x d -> B x d, of length 1
    return F.normalize(z, dim=1)


@full_precision
def dictionary_logits(q: Tensor, k: Tensor, negatives: Tensor, own: Tensor | None, tau: float) -> Tensor:
    """B x d, B x d, K x d, B x K -> B x (1 + K): cosines over tau, the positive first; minus infinity where `own`.

    q is normalized here; keys and negatives are unit vectors already.
    """
    q = F.normalize(q, dim=1) / tau
    positive = (q * k).sum(dim=1, keepdim=True)  # B x 1
    negative = q @ negatives.T  # B x K
    if own is not None:
        negative = negative.masked_fill(own, -torch.inf)
    return torch.cat([positive, negative], dim=1)


# NOTE(departs): The paper's batch norms have the statistics of one GPU's 32 images; here they are the whole batch's,
# synchronized, unless encoder.bn_splits says how many parts have their own: 8 is the paper. Where it is 1, shuffle: true
# has nothing to do, and nothing is shuffled.
# NOTE(departs): MoCo's released code leaves torchvision's initialization as it is; encoder.zero_init, true by default, must
# be set to false for the same.
# NOTE(departs): The hidden layer of v2's head is 2048 wide with every encoder, as with ResNet-50; the released code takes
# the width of the encoder's features.
# NOTE(departs): The released code demands a queue that is a multiple of the batch; ours wraps around.
# NOTE(departs): The mechanism end_to_end has no released code and figure 2a leaves open whether the two encoders are one; here
# they are one, and the negatives of a query are the keys of the batch's other images, so K of figure 3 is the batch size,
# the positive included.
# NOTE(departs): The mechanism memory_bank has no released code either: as the paper says, one dictionary is drawn for a batch
# (uniformly, with replacement), where InstDisc's code draws one for each query; a query's own image is not its negative,
# which InstDisc's code does not exclude; the loss is equation 1. The second view is made and not used.
# NOTE(departs): SimSiam's symmetric "MoCo v2+" has no released code; symmetric: true sums the two directions and enqueues
# both views' keys, as MoCo's authors do in their CIFAR-10 demo.
class MoCoV1(Method):
    NAME = "mocov1"
    VERSION = 1
    PAPER = "he2019moco arXiv:1911.05722"
    NUM_VIEWS = 2
    RECIPE = "mocov1"
    Config = MoCoV1Config

    def __init__(self, config: MoCoV1Config, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self._check(config, setting)
        width = out_dim(self.dim, config.head)
        self.head = mlp(self.dim, config.head)
        moving = config.mechanism == "moco"
        self.target = frozen_copy(self.encoder, self.head) if moving else None
        self.queue = KeyQueue(config.queue, width) if moving else None
        self.bank = MemoryBank(setting.num_images, width) if config.mechanism == "memory_bank" else None
        # In one part, or without batch norms, the order of a batch changes nothing.
        self.shuffles = config.shuffle and encoder.norm == "batch" and encoder.bn_splits > 1
        self._fresh: list[tuple[Tensor, Tensor]] = []  # (index, keys) of this step, not yet remembered

    @staticmethod
    def _check(config: MoCoV1Config, setting: Setting) -> None:
        keys = setting.batch_size * (2 if config.symmetric else 1)
        if config.mechanism == "moco" and config.queue < keys:
            raise ValueError(f"a queue of {config.queue} cannot hold the {keys} keys of one step; raise queue")
        if setting.batch_size == 1 and has_batch_norm(config.head):
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take norm: none in head")
        if config.mechanism == "end_to_end" and setting.batch_size == 1:
            raise ValueError("mechanism: end_to_end takes its negatives from the batch; a batch of 1 has none")
        if config.mechanism == "memory_bank" and setting.num_images < max(config.queue, 2):
            raise ValueError(
                f"{config.queue} negatives cannot be drawn from a memory bank of {setting.num_images} images (num_images); "
                f"lower queue"
            )

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.target is not None:
            copy_into(self.target, self.encoder, self.head)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        generator = draws.generator(self.setting.seed, "moco", step.step)
        loss, log, _ = self.direction(views[0], views[1], index, generator, step)
        if self.config.symmetric:
            back, back_log, _ = self.direction(views[1], views[0], index, generator, step)
            loss, log = loss + back, {name: (log[name] + back_log[name]) / 2 for name in log}
        return loss, log

    def direction(
        self, x_q: Tensor, x_k: Tensor, index: Tensor, generator: Generator, step: Step
    ) -> tuple[Tensor, dict[str, Tensor], Dictionary]:
        """Equation 1, where x_q asks for the key of x_k in the dictionary, which is returned too."""
        z = self.project(x_q)  # B x d
        dictionary = self.dictionary(x_k, index, generator)
        if self.bank is not None:
            self._fresh.append((index, unit(z.detach())))
        loss, log = self.contrast(z, dictionary)
        log |= health(step, z, dictionary[0])
        if self.queue is not None:
            keys = (self.setting.batch_size or len(z) * world_size()) * (2 if self.config.symmetric else 1)
            log["queue_age"] = self.queue.age(step, keys)
        return loss, log, dictionary

    def dictionary(self, images: Tensor, index: Tensor, generator: Generator) -> Dictionary:
        if self.bank is not None:
            drawn = torch.randint(len(self.bank.rows), (self.config.queue,), generator=generator).to(index.device)
            return self.bank.rows[index], self.bank.rows[drawn], index[:, None] == drawn
        if self.target is None or self.queue is None:  # end to end
            k = unit(self._shuffled(self.project, images, generator))
            everyone = gathered(k)
            return k, everyone, own_rows(torch.eye(len(everyone), dtype=torch.bool, device=k.device))
        with torch.no_grad():
            k = unit(self._shuffled(self.target, images, generator))
        self._fresh.append((index, k))
        return k, self.queue.keys, None

    def _shuffled(self, network: Callable[[Tensor], Tensor], images: Tensor, generator: Generator) -> Tensor:
        """The network's outputs, B/N x d, computed in a random order of the batch of all ranks."""
        if not self.shuffles:
            return network(images)
        everyone = gathered(images)
        order = torch.randperm(len(everyone), generator=generator).to(images.device)
        z = gathered(network(own_rows(everyone[order])))
        return own_rows(z[order.argsort()])

    def contrast(self, z: Tensor, dictionary: Dictionary) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 1 of outputs z, B x d, and how well the positives are found."""
        k, negatives, own = dictionary
        logits = dictionary_logits(z, k, negatives, own, self.config.temperature)  # B x (1 + K)
        loss = F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))
        with torch.no_grad():
            # A tie is not found: of equal features, none is.
            top1 = (logits[:, 1:] < logits[:, :1]).all(dim=1).to(loss.dtype).mean()
            # CPC's and InfoMin's lower bound on the views' mutual information, in nats: log of the candidates - loss.
            if own is None:
                candidates = torch.full_like(loss, math.log(logits.shape[1]))
            else:
                candidates = (logits.shape[1] - own.sum(dim=1)).to(loss.dtype).log().mean()
        return loss, {"pretext_top1": top1, "mutual_information": candidates - loss.detach()}

    def after_step(self, step: Step) -> None:
        if self.target is not None:
            ema_update(self.target, self.encoder, self.head, momentum=self.config.target_ema)
        # Only now: the logits of this step must not have met their own positives as negatives.
        for index, keys in self._fresh:
            if self.queue is not None:
                self.queue.enqueue(keys)
            if self.bank is not None:
                self.bank.update(index, keys, self.config.bank_momentum)
        self._fresh.clear()

    def project(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


class MoCoV2(MoCoV1):
    NAME = "mocov2"
    PAPER = "chen2020mocov2 arXiv:2003.04297"
    RECIPE = "mocov2"
    Config = MoCoV2Config
