"""BYOL: Bootstrap your own latent (Grill et al., 2020, arXiv 2006.07733), with every switch of its norm debate.

For two views v, v' of an image, online weights theta, target weights xi:

    y = f_theta(v)      z = g_theta(y)      q = q_theta(z)            encoder, projector, predictor
    z'_xi = g_xi(f_xi(v'))                                            target, no gradient
    L = |q/|q| - z'_xi/|z'_xi||^2 = 2 - 2 cos(q, z'_xi)               equation 2
    minimize L(v, v') + L(v', v) in theta                             both directions, summed
    xi <- tau xi + (1 - tau) theta                                    after the step
    tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2                  at step k of K

Default protocol: ResNet-50, LARS 0.2 x batch / 256 after 10 epochs of warm-up, cosine to 0, weight decay 1.5e-6 (biases and
norms have neither LARS nor decay), batch 4096, 1000 epochs, recipe `byol`. The ablations: 300 epochs, 0.3, 1e-6, tau_base 0.99.
Should reach, ImageNet linear top-1, ResNet-50: 74.3 at 1000 epochs (table 1a), 72.5 at 300 (table 5a, tau_base 0.99).
Switches, and where their rows are printed:
    encoder/projector/predictor norm   Richemond et al. (2010.10241), table 1; GN + WS 73.9 (abstract), affine 65.7
                                       (section 3.3, seen only in a summary)
                                       Fetterman & Albrecht's blog: STL-10, BN/BN 57.7, no norm in the heads 28.3
    target: ema | online | frozen      BYOL table 5a: tau_base 0.99 72.5, tau = 0 0.3, tau = 1 (constant, random) 18.8
    predict, stop_gradient             BYOL section 5 and SimSiam (2011.10566), table 1 and figure 2
    negatives, with target, predict    BYOL table 5b: 1 70.9, without predictor 70.7, with target: online 69.1, without both
                                       and with stop_gradient: false, which is SimCLR, 69.4; 0 72.5, without target 0.3,
                                       without predictor 0.2, without both 0.1
    projector, predictor               BYOL table 14: depths and widths, 72.5 at 2 layers each and 128 or 256 outputs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.encoders.config import LATER
from methods.gather import gathered
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim, predictor_mlp
from methods.losses import cosine_regression, full_precision
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy
from methods.telemetry import health

_HEAD = HeadConfig(layers=2, hidden=4096, out=256, norm="batch", final_bias=False)


@dataclass(frozen=True)
class BYOLConfig:
    """projector, predictor: the heads g and q; they must end in the same width.
    predict: without it q is the identity.
    target: `ema` as the paper; `online` is tau = 0, the online network itself; `frozen` is tau = 1, it never moves.
    stop_gradient: false lets the gradient through the target branch too; only target `online` has one to let through.
    target_ema: tau_base.
    loss_scale: multiplies the loss; 0.5 is the blog's "1 - cos" in each direction.
    negatives: beta, how much the outputs of other images repel (equation 6), with `temperature` alpha; SimCLR has 1.
    """

    projector: HeadConfig = _HEAD
    predictor: HeadConfig = field(default=_HEAD, metadata={"matches": {"out": "projector"}})
    predict: bool = field(default=True, metadata={"governs": {"false": ["predictor"]}})
    target: Literal["ema", "online", "frozen"] = field(
        default="ema", metadata={"governs": {"online": ["target_ema"], "frozen": ["target_ema"]}}
    )
    stop_gradient: bool = field(default=True, metadata={"needs": {"false": {"target": "online"}}})
    target_ema: float = 0.996
    loss_scale: float = 1.0
    negatives: float = field(default=0.0, metadata=LATER | {"governs": {"0.0": ["temperature"]}})
    temperature: float = field(default=0.1, metadata=LATER)

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["target_ema"], least={"negatives": 0})
        if not self.stop_gradient and self.target != "online":
            raise ValueError(f"stop_gradient: false needs target: online; a target '{self.target}' is not trained")


# NOTE(departs): The target starts as a copy of the online network, as the batch-norm blog's does; BYOL's released code
# draws its weights separately and notes no significant difference.
# NOTE(departs): The encoder is torchvision's ResNet with its He initialization; BYOL's is Haiku's, initialized otherwise.
# NOTE(departs): The heads' hidden layers have no bias before a batch norm, which would subtract it; BYOL's released code
# has one.
# NOTE(departs): The target moves after the optimizer, by a schedule in steps, as in the paper; the batch-norm blog's
# script moves it before the optimizer and changes tau once an epoch.
# NOTE(departs): The variants with negatives (table 5b) are the paper's equation 6 in both directions, with the temperature of
# SimCLR; the paper prints no temperature beside the table.
class BYOL(Method):
    NAME = "byol"
    VERSION = 1
    PAPER = "grill2020byol arXiv:2006.07733"
    NUM_VIEWS = 2
    RECIPE = "byol"
    Config = BYOLConfig

    def __init__(self, config: BYOLConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        heads = [config.projector, config.predictor] if config.predict else [config.projector]
        if setting.batch_size == 1 and (config.negatives > 0 or any(map(has_batch_norm, heads))):
            raise ValueError("a batch of one image has no batch statistics and no negatives: raise batch_size")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Identity()
        self.target = None if config.target == "online" else frozen_copy(self.encoder, self.projector)

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.target is not None:
            copy_into(self.target, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        # View by view, never concatenated: a batch norm must see the statistics of one view at a time.
        z = [self.project(view) for view in views]  # 2 of B x d
        q = [self.predictor(z_i) for z_i in z]
        t = self._targets(views, z)
        loss = cosine_regression(q[0], t[1]) + cosine_regression(q[1], t[0])
        if self.config.negatives > 0:
            repulsion = [negatives(q[i], t[i], t[1 - i], self.config.temperature) for i in range(2)]
            loss = loss + self.config.negatives * (repulsion[0] + repulsion[1])
        loss = self.config.loss_scale * loss
        return loss, health(step, z[0], z[1])

    def _targets(self, views: list[Tensor], z: list[Tensor]) -> list[Tensor]:
        if self.target is None:
            return [z_i.detach() for z_i in z] if self.config.stop_gradient else z
        with torch.no_grad():
            return [self.target(view) for view in views]

    def after_step(self, step: Step) -> None:
        if self.target is not None and self.config.target == "ema":
            tau = cosine_to_one(self.config.target_ema, step.fraction)
            ema_update(self.target, self.encoder, self.projector, momentum=tau)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))


def negatives(q: Tensor, same: Tensor, other: Tensor, alpha: float) -> Tensor:  # 3 of B/N x d -> scalar
    """What equation 6 subtracts, for beta 1: 2 alpha ln of the sum of exp(cos / alpha) between an image's prediction and the
    targets of all images in the `other` view, its own included, and of all but itself in the `same` view."""
    return _negatives(gathered(q), gathered(same), gathered(other), alpha)


@full_precision
def _negatives(q: Tensor, same: Tensor, other: Tensor, alpha: float) -> Tensor:  # 3 of B x d -> scalar
    q, same, other = F.normalize(q, dim=1), F.normalize(same, dim=1), F.normalize(other, dim=1)
    itself = torch.eye(len(q), dtype=torch.bool, device=q.device)
    logits = torch.cat([(q @ same.T).masked_fill(itself, -torch.inf), q @ other.T], dim=1) / alpha  # B x 2B
    return 2.0 * alpha * torch.logsumexp(logits, dim=1).mean()
