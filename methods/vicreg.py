"""VICReg: Variance-invariance-covariance regularization for self-supervised learning (Bardes et al., 2021, arXiv 2105.04906).

For the embeddings Z, Z' of two views, n samples of d channels, of all ranks together:

    s(Z, Z') = the mean squared difference of z_i and z'_i                                    invariance, equation 5
    v(Z) = 1/d sum_j max(0, gamma - sqrt(Var(z^j) + epsilon))                                 variance, equations 1 and 2
    c(Z) = 1/d sum_{i != j} C(Z)_ij^2,   C(Z) = 1/(n-1) sum_i (z_i - mean)(z_i - mean)^T      covariance, equations 3 and 4
    L = lambda s(Z, Z') + mu [v(Z) + v(Z')] + nu [c(Z) + c(Z')]                               equation 6

Default protocol: ResNet-50, LARS, lr 0.2 x batch / 256, warm-up 10 epochs, cosine to 0.002, weight decay 1e-6, batch 2048,
1000 epochs, recipe `byol`; 100 epochs with lr 0.3 for all ablations.
Should reach, ImageNet linear top-1: 73.2 at 1000 epochs (table 1), 68.6 at 100 (tables 4 and 7).
Switches, and where their rows are printed (all at 100 epochs, batch 2048, baseline 68.6):
    invariance, variance, covariance      table 7 (lambda, mu, nu): 1 0 0 and 25 0 1 and 1 1 1 collapse, 1 1 0 57.5,
                                          5 5 1 68.1, 10 10 1 68.2, 25 25 1 68.6, 50 50 1 68.3
    projector.norm: none                  table 4, row VICReg [-]: 67.4; without covariance 56.5, without both collapse
    predict                               table 4, VICReg [PR BN]: 68.7; without norms 67.3
    target, stop_gradient, predict        table 4 with `similarity: cosine, normalize: l2, invariance: 1, variance: 1,
                                          covariance: 0.01` (appendix C.4): BYOL 69.3 without regularization, 70.2 with
                                          variance, 69.5 with both; SimSiam 67.9, 68.1, 67.6; SimSiam without norms 35.1, 67.3,
                                          67.1; without norms and predictor collapse, 56.8, 66.1
    normalize: standardize | l2           table 8 (our transcription of its text): 68.4; without norms 67.4 and 65.1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.barlow import off_diagonal
from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import cosine_regression, full_precision
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy
from methods.telemetry import health

_EXPANDER = HeadConfig(layers=3, hidden=8192, out=8192, norm="batch", final_bias=False)
_PREDICTOR = HeadConfig(layers=2, hidden=8192, out=8192, norm="batch")


@dataclass(frozen=True)
class VICRegConfig:
    """projector: the expander, whose outputs are the embeddings.
    invariance, variance, covariance: lambda, mu and nu.
    gamma: the standard deviation that every channel is to reach. epsilon: added to the variance under its root.
    halve_variance: mu weighs the mean of v(Z) and v(Z') instead of their sum.
    normalize: of the embeddings before all three terms: `standardize` gives every channel mean 0 and deviation 1 over the
        batch, `l2` every sample length 1, with gamma / sqrt(d) for gamma.
    similarity: `mse` is the mean over samples and channels, `cosine` BYOL's 2 - 2 cos.
    predict: a predictor before the invariance term, in both directions; the regularizers act on the embeddings.
    stop_gradient: none through the side that is compared to. target: `ema` has that side come from a slow copy of the
        network (target_ema, by a cosine to 1), which has no gradient in any case.
    """

    projector: HeadConfig = _EXPANDER
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    gamma: float = 1.0
    epsilon: float = 1e-4
    halve_variance: bool = True
    normalize: Literal["none", "standardize", "l2"] = "none"
    similarity: Literal["mse", "cosine"] = "mse"
    predict: bool = field(default=False, metadata={"governs": {"false": ["predictor"]}})
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})
    stop_gradient: bool = False
    target: Literal["online", "ema"] = field(
        default="online", metadata={"governs": {"online": ["target_ema"]}, "needs": {"ema": {"stop_gradient": True}}}
    )
    target_ema: float = 0.99

    def __post_init__(self) -> None:
        check(
            self,
            positive=["gamma", "epsilon"],
            unit=["target_ema"],
            least={"invariance": 0, "variance": 0, "covariance": 0},
        )
        if self.target == "ema" and not self.stop_gradient:
            raise ValueError("target: ema is not trained; say stop_gradient: true with it")


# NOTE(departs): Equation 6 adds v(Z) + v(Z'); the released code takes their mean, so that its mu of 25 is the paper's 12.5.
# The default is the released code's; halve_variance: false is the equation.
# NOTE(departs): Equation 5 sums the squared differences over the channels; the released code takes their mean, and so do we:
# lambda 25 belongs to the mean. The covariance term is a sum over both views, in the paper and the code alike.
# NOTE(departs): The linear layers before a batch norm have no bias, which the norm would subtract; the released code's have
# one.
# NOTE(departs): The paper gives both views blur with probability 0.5 and solarization with 0.1; the released code has BYOL's
# two laws, 1.0 and 0.1, 0.0 and 0.2, which are the recipe `byol` and ours.
# NOTE(departs): The rows of table 4 named BYOL and SimSiam were trained by those methods' own protocols; their loss here is
# the mean of both directions, half of BYOL's. Whether their regularizers saw normalized embeddings is not printed; figure 4
# of the paper, where the deviation reaches 1 / sqrt(d), suggests it, and normalize: l2 does so.
# NOTE(departs): Where the paper's table 4 adds a predictor to VICReg it does not say on which side; ours is on both in turn.
class VICReg(Method):
    NAME = "vicreg"
    VERSION = 1
    PAPER = "bardes2021vicreg arXiv:2105.04906"
    NUM_VIEWS = 2
    RECIPE = "byol"
    Config = VICRegConfig

    def __init__(self, config: VICRegConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("variance and covariance are over the batch: batch_size 1 has none, take more")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Identity()
        self.target = frozen_copy(self.encoder, self.projector) if config.target == "ema" else None

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.target is not None:
            copy_into(self.target, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        z = [self.project(view) for view in views]  # 2 of B/N x d
        p = [self.predictor(z_i) for z_i in z]
        t = self._targets(views, z)
        if config.predict or config.stop_gradient:
            s = 0.5 * (self._invariance(p[0], t[1]) + self._invariance(p[1], t[0]))
        else:
            s = self._invariance(z[0], z[1])
        gamma = config.gamma / z[0].shape[1] ** 0.5 if config.normalize == "l2" else config.gamma
        whole = [normalized(gathered(z_i), config.normalize) for z_i in z]  # 2 of B x d
        v = variance(whole[0], gamma, config.epsilon) + variance(whole[1], gamma, config.epsilon)
        c = covariance(whole[0]) + covariance(whole[1])
        v = 0.5 * v if config.halve_variance else v
        loss = config.invariance * s + config.variance * v + config.covariance * c
        return loss, {
            **health(step, z[0], z[1]),
            "invariance": s.detach(),
            "variance": v.detach(),
            "covariance": c.detach(),
        }

    def _targets(self, views: list[Tensor], z: list[Tensor]) -> list[Tensor]:
        if self.target is None:
            return [z_i.detach() for z_i in z] if self.config.stop_gradient else z
        with torch.no_grad():
            return [self.target(view) for view in views]

    def _invariance(self, p: Tensor, t: Tensor) -> Tensor:
        if self.config.similarity == "cosine":
            return cosine_regression(p, t)
        if self.config.normalize == "standardize":  # over the batch of all ranks
            p, t = gathered(p), gathered(t)
        return mean_square(normalized(p, self.config.normalize), normalized(t, self.config.normalize))

    def after_step(self, step: Step) -> None:
        if self.target is not None:
            tau = cosine_to_one(self.config.target_ema, step.fraction)
            ema_update(self.target, self.encoder, self.projector, momentum=tau)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))


@full_precision
def mean_square(p: Tensor, z: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """Equation 5, divided by d."""
    return F.mse_loss(p, z)


@full_precision
def variance(z: Tensor, gamma: float, epsilon: float) -> Tensor:  # B x d -> scalar
    """Equations 1 and 2: how far the channels' standard deviations (of n - 1) fall short of gamma, mean over channels."""
    return F.relu(gamma - torch.sqrt(z.var(dim=0) + epsilon)).mean()


@full_precision
def covariance(z: Tensor) -> Tensor:  # B x d -> scalar
    """Equations 3 and 4."""
    n, d = z.shape
    z = z - z.mean(dim=0)
    return off_diagonal(z.T @ z / (n - 1)).square().sum() / d


@full_precision
def normalized(z: Tensor, how: str) -> Tensor:  # B x d -> B x d
    """Table 8: the embeddings as they are, standardized over the batch, or on the unit sphere."""
    if how == "standardize":
        return (z - z.mean(dim=0)) * torch.rsqrt(z.var(dim=0) + 1e-5)
    return F.normalize(z, dim=1) if how == "l2" else z
