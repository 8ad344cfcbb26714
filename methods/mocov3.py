"""MoCo v3: An empirical study of training self-supervised vision transformers (Chen, Xie & He, 2021, arXiv 2104.02057).

For two views x1, x2 of an image, query weights theta_q, key weights theta_k:

    q_i = p(g(f(x_i; theta_q)))      k_i = g(f(x_i; theta_k))           encoder, projector, predictor; normalized
    c(q, k) = -log exp(q.k+ / t) / sum_j exp(q.k_j / t)                 over the keys of the batch, of all ranks; equation 1
    L = 2 t c(q_1, k_2) + 2 t c(q_2, k_1)                               algorithm 1; no gradient through the keys
    theta_k <- m theta_k + (1 - m) theta_q                              after the step; m = 1 - (1 - m_0)(cos(pi k / K) + 1) / 2

The trick of the paper, a frozen random patch projection, is the encoder's: encoder.patch_projection. What it is against
can be seen in the log: gradient_first spikes tens of steps before gradient_last, then accuracy dips.

Protocol, ViT: AdamW 1.5e-4 x B / 256, weight decay 0.1, warm-up 40 epochs, cosine, batch 4096, 300 epochs (studies: 100),
t = 0.2, m_0 = 0.99, recipe "mocov3". ResNet-50, released code: LARS 0.3 x B / 256, weight decay 1e-6, warm-up 10, t = 1, m_0
= 0.99, projector.layers: 2, predictor.final_norm: false; but a rate of 0.6 for 100 epochs, and weight decay 1.5e-6 and m_0 =
0.996 for 1000.
Should reach, ImageNet linear top-1: ViT-S/16 72.5, ViT-B/16 76.5 at 300 epochs, ResNet-50 73.8 at 800 (table of frameworks);
released code: ViT-S/16 with 12 heads 73.2, ViT-B/16 76.7, ResNet-50 68.9 / 72.8 / 74.6 at 100 / 300 / 1000 (README).
Switches, and where their rows are printed (section 6.2, ViT-B/16, 300 epochs: 76.5):
    predict                          without the predictor 75.5
    projector, predictor             norm: none in both heads 74.4
    target_ema (ramp: false)         m = 0 74.3, 0.9 75.6, 0.99 76.5, 0.999 75.0
    encoder.patch_projection         frozen against learned, 100 epochs: 72.8 / 72.2 at lr 1e-4, 73.4 / 71.7 at 1.5e-4
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered, own_rows
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import full_precision
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy
from methods.telemetry import health

_PREDICTOR = HeadConfig(layers=2, hidden=4096, out=256, norm="batch", final_norm=True)
_PROJECTOR = replace(_PREDICTOR, layers=3)


@dataclass(frozen=True)
class MoCoV3Config:
    """projector, predictor: the heads g and p, with a batch norm after every layer, the last included.
    predict: without it p is the identity.
    output_affine: whether a batch norm that ends a head has a scale and an offset.
    temperature: t. two_tau: whether each direction is multiplied by 2 t.
    target_ema: m_0. ramp: whether m goes to 1 by a cosine; m = m_0 throughout otherwise.
    """

    projector: HeadConfig = _PROJECTOR
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})
    predict: bool = field(default=True, metadata={"governs": {"false": ["predictor"]}})
    output_affine: bool = False
    temperature: float = 0.2
    two_tau: bool = True
    target_ema: float = 0.99
    ramp: bool = True

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["target_ema"])


@full_precision
def batch_logits(q: Tensor, k: Tensor, tau: float) -> Tensor:  # B/N x d, B x d -> B/N x B
    """Cosines over tau of this rank's queries with the keys of all ranks."""
    return (F.normalize(q, dim=1) / tau) @ F.normalize(k, dim=1).T


def without_scale(head: nn.Sequential) -> nn.Sequential:
    """The head whose last layer, if it is a batch norm, keeps the scale 1 and the offset 0."""
    if len(head) and isinstance(head[-1], nn.BatchNorm1d):
        head[-1].requires_grad_(False)
    return head


# NOTE(departs): The paper has a batch norm after every layer of both heads and does not say that the last has no scale and
# no offset; the released code's have none, which output_affine: false (default) follows.
# NOTE(departs): For ResNets the released code has a projector of two layers and no batch norm at the end of the predictor,
# which the paper does not say; the defaults are the ViT's, which are the paper's.
# NOTE(departs): The paper's text and its ablation give one m; all runs of the released code let it rise to 1 by a cosine,
# which ramp: true (default) follows.
# NOTE(departs): The target moves after the optimizer, as in algorithm 1, with the m of that step; the released code moves it
# at the start of the next step, with the next step's m.
# NOTE(departs): The released code decays all parameters under AdamW, biases and norms included; here a sweep decides.
# NOTE(departs): The paper draws gradient magnitudes relative to each other and its code has none; gradient_first and
# gradient_last are the Euclidean norms of the gradients of the encoder's first and last trained weight matrix. With a
# frozen patch projection the first is the one after it.
# NOTE(departs): The released code crops from an area of 0.08 on for ViTs and of 0.2 on for ResNets; recipe "mocov3" has 0.2.
class MoCoV3(Method):
    NAME = "mocov3"
    VERSION = 1
    PAPER = "chen2021mocov3 arXiv:2104.02057"
    NUM_VIEWS = 2
    RECIPE = "mocov3"
    Config = MoCoV3Config

    def __init__(self, config: MoCoV3Config, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("mocov3 takes its negatives from the batch; a batch of 1 has none")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Sequential()
        if not config.output_affine:
            without_scale(self.projector)
            without_scale(self.predictor)
        self.target = frozen_copy(self.encoder, self.projector)

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        copy_into(self.target, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        # View by view, never concatenated: a batch norm must see the statistics of one view at a time.
        z = [self.project(view) for view in views]  # 2 of B/N x d
        q = [self.predictor(z_i) for z_i in z]
        with torch.no_grad():
            k = [gathered(self.target(view)) for view in views]  # 2 of B x d
        loss_1, log_1 = self.contrast(q[0], k[1])
        loss_2, log_2 = self.contrast(q[1], k[0])
        log = {name: (log_1[name] + log_2[name]) / 2 for name in log_1}
        return loss_1 + loss_2, health(step, z[0], z[1]) | log

    def contrast(self, q: Tensor, k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """2 t c(q, k), and how well the positives are found."""
        t = self.config.temperature
        logits = batch_logits(q, k, t)  # B/N x B
        positive = own_rows(torch.arange(len(k), device=k.device))
        loss = F.cross_entropy(logits, positive)
        with torch.no_grad():
            # A tie is not found: of equal features, none is.
            reach = (logits >= logits.gather(1, positive[:, None])).sum(dim=1)
            top1 = (reach == 1).to(loss.dtype).mean()
        log = {"pretext_top1": top1, "mutual_information": math.log(len(k)) - loss.detach()}
        return (2.0 * t * loss if self.config.two_tau else loss), log

    def after_backward(self, step: Step) -> dict[str, Tensor]:
        layers = (m for m in self.encoder.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        gradients = [m.weight.grad for m in layers if m.weight.grad is not None]
        return {"gradient_first": gradients[0].norm(), "gradient_last": gradients[-1].norm()} if gradients else {}

    def after_step(self, step: Step) -> None:
        m = self.config.target_ema
        if self.config.ramp:
            m = cosine_to_one(m, step.fraction)
        ema_update(self.target, self.encoder, self.projector, momentum=m)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))
