"""Barlow Twins: Self-supervised learning via redundancy reduction (Zbontar et al., 2021, arXiv 2103.03230).

For the embeddings z^A, z^B of two views of a batch, both mean-centred along the batch:

    C_ij = sum_b z^A_bi z^B_bj / (sqrt(sum_b (z^A_bi)^2) sqrt(sum_b (z^B_bj)^2))     equation 2, D x D
    L = sum_i (1 - C_ii)^2  +  lambda sum_i sum_{j != i} C_ij^2                      equation 1
        invariance             redundancy reduction

The sums over b run over the whole batch, of all ranks.

Default protocol: ResNet-50, LARS, lr 0.2 x batch / 256 for weights and 0.0048 x batch / 256 for biases and norms (which have
no LARS and no decay), warm-up 10 epochs, cosine to a thousandth, weight decay 1.5e-6, batch 2048, 1000 epochs, recipe `byol`.
Should reach, ImageNet linear top-1: 73.2 at 1000 epochs (table 1), 71.4 at 300 (table 5).
Switches, and where their rows are printed (all at 300 epochs, baseline 71.4):
    terms: invariance | redundancy        table 5: 57.3, 0.1
    normalize: features                   table 5: 69.8
    projector.norm: none                  table 5: 71.2; with normalize: none 53.4
    form: cross_entropy                   table 5: 63.3
    stop_gradient, predict                table 6: 70.5, 70.2, both 61.3
    redundancy (lambda), projector.out    figures 5 and 4, without printed numbers
    centre                                no row: equation 2 assumes it
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
from methods.gather import gathered
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import full_precision
from methods.telemetry import health

_PROJECTOR = HeadConfig(layers=3, hidden=8192, out=8192, norm="batch", final_bias=False)
_PREDICTOR = HeadConfig(layers=2, hidden=8192, out=8192, norm="batch")
_EPSILON = 1e-5  # of the variance, as in a batch norm: a channel that is the same for all samples correlates with none


@dataclass(frozen=True)
class BarlowConfig:
    """projector: ends in the embeddings.
    redundancy: lambda, the weight of the off-diagonal term.
    terms: leave one of the two out.
    normalize: `batch` is equation 2; `features` then puts every sample on the unit sphere and takes the covariance;
        `none` takes the covariance of the embeddings as they are.
    centre: subtract the mean over the batch first.
    form: `cross_entropy` is -log sum_i exp(C_ii / t) + lambda log sum_{i != j} exp(max(C_ij, 0) / t), with t the temperature.
    stop_gradient: none through the second view's branch. predict: a predictor on the first view's branch.
    loss_scale: multiplies the loss. Under LARS it acts on biases and norms alone, which are not adapted.
    """

    projector: HeadConfig = _PROJECTOR
    redundancy: float = 5e-3
    terms: Literal["both", "invariance", "redundancy"] = field(
        default="both", metadata={"governs": {"invariance": ["redundancy"]}}
    )
    normalize: Literal["batch", "features", "none"] = "batch"
    centre: bool = True
    form: Literal["squares", "cross_entropy"] = field(default="squares", metadata={"governs": {"squares": ["temperature"]}})
    temperature: float = 0.1
    stop_gradient: bool = False
    predict: bool = field(default=False, metadata={"governs": {"false": ["predictor"]}})
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], least={"redundancy": 0})


# NOTE(departs): lambda is the paper's 0.005; the released code's default is 0.0051. The paper's weight decay is 1.5e-6, the
# released code's default 1e-6.
# NOTE(departs): The variance in the cross-correlation has 1e-5 added, as in the released code, which normalizes by a batch
# norm without scale and offset; equation 2 and the paper's pseudo-code add nothing. The pseudo-code also divides by the
# deviation of n - 1 and then by n, which equation 2 and the released code do not.
# NOTE(departs): The temperature and the lambda of the cross-entropy form are not printed; 0.1 is ours.
# NOTE(departs): For normalize: features the paper names the covariance of the normalized embeddings; ours is their product
# over the batch divided by its size, without subtracting a mean again.
# NOTE(departs): With a predictor or a stop-gradient the loss has one direction, from the first view to the second, as the
# paper words it ("to one of the networks").
class BarlowTwins(Method):
    NAME = "barlow"
    VERSION = 1
    PAPER = "zbontar2021barlow arXiv:2103.03230"
    NUM_VIEWS = 2
    RECIPE = "byol"
    Config = BarlowConfig

    def __init__(self, config: BarlowConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("the cross-correlation is over the batch: batch_size 1 has none, take more")
        width = out_dim(self.dim, config.projector)
        if width < 2:
            raise ValueError(f"redundancy is between embedding channels: it needs at least two, the projector ends in {width}")
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Identity()

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        z = [self.project(view) for view in views]  # 2 of B/N x D
        a = self.predictor(z[0])
        b = z[1].detach() if config.stop_gradient else z[1]
        c = cross_correlation(gathered(a), gathered(b), config.normalize, config.centre)  # D x D
        terms = squares(c) if config.form == "squares" else cross_entropy(c, config.temperature)
        on, off = float(config.terms != "redundancy"), float(config.terms != "invariance")
        loss = on * terms[0] + off * config.redundancy * terms[1]
        on_term, off_term = terms.detach()
        return config.loss_scale * loss, {
            **health(step, z[0], z[1]),
            "invariance": on_term,  # 0 where the views agree
            "redundancy": off_term,  # 0 where no channel repeats another; both in the form `squares`
        }

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))


@full_precision
def cross_correlation(a: Tensor, b: Tensor, normalize: str, centre: bool) -> Tensor:  # B x D, B x D -> D x D
    """Equation 2, or its variants of table 5 (see BarlowConfig.normalize)."""
    if centre:
        a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    if normalize != "none":
        a = a * torch.rsqrt(a.square().mean(dim=0) + _EPSILON)
        b = b * torch.rsqrt(b.square().mean(dim=0) + _EPSILON)
    if normalize == "features":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return a.T @ b / len(a)


@full_precision
def squares(c: Tensor) -> Tensor:  # D x D -> 2: the invariance and the redundancy term
    """The two sums of equation 1."""
    return torch.stack([(1.0 - c.diagonal()).square().sum(), off_diagonal(c).square().sum()])


@full_precision
def cross_entropy(c: Tensor, temperature: float) -> Tensor:  # D x D -> 2
    """Table 5, "cross-entropy with temp."."""
    on = -torch.logsumexp(c.diagonal() / temperature, dim=0)
    return torch.stack([on, torch.logsumexp(off_diagonal(c).clamp(min=0.0).flatten() / temperature, dim=0)])


def off_diagonal(c: Tensor) -> Tensor:  # D x D -> D - 1 x D, all entries but the diagonal's
    """Without the first entry, the diagonal's others stand D + 1 apart: the last column of rows of that length."""
    d = len(c)
    return c.flatten()[1:].view(d - 1, d + 1)[:, :-1]
