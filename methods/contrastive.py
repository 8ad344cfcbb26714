"""The explicit contrast of the batch-norm blog (Fetterman & Albrecht, 2020): BYOL's network with MoCo's loss.

The row that collapse is measured against: same encoder, heads and moving target as BYOL, but the loss names negatives.

    q = q_theta(g_theta(f_theta(v)))      k = g_xi(f_xi(v'))      both normalized; no gradient through k
    L = -log exp(q.k / t) / (exp(q.k / t) + sum over K queued keys of exp(q.k_i / t))
    minimize L(v, v') + L(v', v);   then xi <- tau xi + (1 - tau) theta, and the keys enter the queue

Default protocol: STL-10, ResNet-18, SGD 0.02, momentum 0.9, weight decay 1e-4, cosine, batch 256, 10 epochs; recipe mocov2.
Should reach 44.1 (blog, table "Performance for each variation", row "Contrastive Loss": STL-10, ResNet-18, 10 epochs).
With norm `none` in encoder and heads it is the contrastive row without any normalization, which a claim about Richemond
et al. (2010.10241) needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import world_size
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import info_nce
from methods.memory import KeyQueue
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy
from methods.telemetry import health

_HEAD = HeadConfig(layers=2, hidden=512, out=128, norm="none")


@dataclass(frozen=True)
class ContrastiveConfig:
    """projector, predictor: the heads g and q. predict: without it q is the identity, as in MoCo.
    queue: K, the number of queued keys. temperature: t. target_ema: tau at the first step, 1 at the end by a cosine.
    """

    projector: HeadConfig = _HEAD
    predictor: HeadConfig = field(default=_HEAD, metadata={"matches": {"out": "projector"}})
    predict: bool = field(default=True, metadata={"governs": {"false": ["predictor"]}})
    queue: int = field(default=65536, metadata={"at_least": "batch_size"})
    temperature: float = 0.2
    target_ema: float = 0.996

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["target_ema"])


# NOTE(departs): The queries pass a predictor, as in the blog's released script; MoCo, whose loss this is, has none
# (predict: false removes it).
# NOTE(departs): Only the keys of the second view enter the queue, as in the released script.
# NOTE(departs): The target moves by a schedule in steps and after the optimizer; the released script moves it before the
# optimizer and changes tau once an epoch.
# NOTE(departs): No shuffling of batch-norm statistics: the blog ran on one GPU without it.
class Contrastive(Method):
    NAME = "contrastive"
    VERSION = 1
    PAPER = "fetterman2020byolbn blog"
    NUM_VIEWS = 2
    RECIPE = "mocov2"
    Config = ContrastiveConfig

    def __init__(self, config: ContrastiveConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if config.queue < setting.batch_size:
            raise ValueError(f"queue is {config.queue}, it must hold at least a batch of {setting.batch_size}")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Identity()
        self.target = frozen_copy(self.encoder, self.projector)
        self.queue = KeyQueue(config.queue, width)
        self._fresh: list[Tensor] = []  # keys of this step, not yet queued

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        copy_into(self.target, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = [self.project(view) for view in views]  # 2 of B x d
        q = [self.predictor(z_i) for z_i in z]
        with torch.no_grad():
            k = [F.normalize(self.target(view).float(), dim=1) for view in views]
        queue, t = self.queue.keys, self.config.temperature
        loss = info_nce(q[0], k[1], queue, t) + info_nce(q[1], k[0], queue, t)
        self._fresh.append(k[1])
        age = self.queue.age(step, self.setting.batch_size or len(k[1]) * world_size())
        return loss, health(step, z[0], z[1]) | {"queue_age": age}

    def after_step(self, step: Step) -> None:
        tau = cosine_to_one(self.config.target_ema, step.fraction)
        ema_update(self.target, self.encoder, self.projector, momentum=tau)
        # Only now: the logits of this step must not have met their own positives as negatives.
        for keys in self._fresh:
            self.queue.enqueue(keys)
        self._fresh.clear()

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))
