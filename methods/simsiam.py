"""SimSiam: Exploring simple Siamese representation learning (Chen & He, 2020, arXiv 2011.10566).

For two views x1, x2 of an image, encoder and projector f, predictor h:

    z = f(x)      p = h(z)      D(p, z) = - p/|p| . z/|z|                        equation 1
    L = 1/2 D(p1, stopgrad(z2)) + 1/2 D(p2, stopgrad(z1))                        equation 4, in [-1, 1]

Section 5 reads this as an alternation: theta <- argmin of |F_theta(T(x)) - eta_x|^2 in the network, then eta_x <- the mean
of F_theta(T(x)) over augmentations. `refresh_every` and `moving_average` are its two proofs of concept.

Default protocol: ResNet-50 with zero-initialized block ends, SGD, momentum 0.9, lr 0.05 x batch / 256, cosine, weight decay
1e-4 on all parameters, batch 512, 100 epochs, no warm-up, recipe `mocov2`.
Should reach, ImageNet linear top-1: 68.1 at 100 epochs (tables 1c, 2 and 3c), 71.3 at 800 (table 4).
Switches, and where their rows are printed (all at 100 epochs, batch 512 unless said):
    stop_gradient: false                  figure 2: 67.7 with, 0.1 without
    predict: none | fixed                 table 1: 0.1, 1.5; predictor_decay: true 67.7, false 68.1
    projector and predictor norms         table 3: none 34.6, hidden only 67.4, default 68.1, all: unstable
    output_affine: false                  section 4.4: 68.2
    similarity: cross_entropy             section 4.5: 63.2
    symmetrization                        section 4.6: symmetric 68.1, asymmetric 64.8, asymmetric_2x 67.3
    projector.out                         appendix B: 256 65.3, 512 67.2, 1024 67.5, 2048 68.1 (predictor.hidden: a quarter)
    refresh_every: 1, 10, 100, an epoch   section 5.2: 68.1, 68.7, 68.9, 67.0
    moving_average with predict: none     section 5.2: 55.0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step, grouped
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim, predictor_mlp
from methods.losses import full_precision
from methods.memory import MemoryBank
from methods.momentum import copy_into, frozen_copy
from methods.telemetry import health

_PROJECTOR = HeadConfig(layers=3, hidden=2048, out=2048, norm="batch", final_norm=True)
_PREDICTOR = HeadConfig(layers=2, hidden=512, out=2048, norm="batch")


@dataclass(frozen=True)
class SimSiamConfig:
    """projector: of f, three layers with a batch norm on each, the output included. predictor: h, as wide as the projector.
    predict: `mlp` is trained, `fixed` keeps its random weights, `none` is the identity.
    predictor_decay: the predictor's learning rate follows the schedule; false keeps it at its peak.
    stop_gradient: false lets the gradient through the targets too.
    symmetrization: `asymmetric` is D(p1, z2) alone, `asymmetric_2x` its mean over two pairs, of four views.
    similarity: `cross_entropy` is - softmax(z) . log softmax(p) over the channels.
    output_affine: scale and offset of the batch norm that ends the projector are trained.
    refresh_every: the targets' network is a snapshot, taken every so many steps: 1 is SimSiam itself, 0 is once an epoch.
    moving_average: the targets are a moving average of each image's outputs, kept over epochs; bank_momentum is its weight.
    """

    projector: HeadConfig = _PROJECTOR
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})
    predict: Literal["mlp", "fixed", "none"] = field(
        default="mlp", metadata={"governs": {"none": ["predictor", "predictor_decay"], "fixed": ["predictor_decay"]}}
    )
    predictor_decay: bool = False
    stop_gradient: bool = field(default=True, metadata={"needs": {"false": {"refresh_every": 1, "moving_average": False}}})
    symmetrization: Literal["symmetric", "asymmetric", "asymmetric_2x"] = field(
        default="symmetric", metadata={"adds": {"asymmetric_2x": ["mocov2", "mocov2"]}}
    )
    similarity: Literal["cosine", "cross_entropy"] = "cosine"
    output_affine: bool = True
    refresh_every: int = 1
    moving_average: bool = field(
        default=False, metadata={"governs": {"false": ["bank_momentum"]}, "needs": {"true": {"refresh_every": 1}}}
    )
    bank_momentum: float = 0.8

    def __post_init__(self) -> None:
        check(self, below_one=["bank_momentum"])
        if self.refresh_every < 0:
            raise ValueError(f"refresh_every must be a number of steps, or 0 for once an epoch, not {self.refresh_every}")
        if self.moving_average and self.refresh_every != 1:
            raise ValueError("moving_average: true has no snapshot to refresh; it needs refresh_every: 1")
        if not self.stop_gradient and (self.moving_average or self.refresh_every != 1):
            raise ValueError("stop_gradient: false needs refresh_every: 1 and no moving_average; other targets are not trained")
        if not self.output_affine and not (self.projector.final_norm and self.projector.norm == "batch"):
            raise ValueError("output_affine: false needs a projector that ends in a batch norm (norm: batch, final_norm: true)")


# NOTE(departs): The predictor's learning rate is constant by default, as in all of the paper's ablations after table 1 and
# in the released code's recommended command (--fix-pred-lr); table 1's baseline, 67.7, lets it decay.
# NOTE(departs): The batch norm at the projector's end has a trained scale and offset by default, as in the paper (68.1); the
# released code has none there (the paper prints 68.2 for that; output_affine: false).
# NOTE(departs): The projector's hidden widths are a setting; the released code takes the width of the encoder's features,
# which is the same 2048 for ResNet-50.
# NOTE(departs): The learning rate is the training loop's and moves at every step; the released code sets its cosine once an
# epoch.
# NOTE(departs): With refresh_every the targets come from a snapshot of the network when they are needed; the paper computes
# those of all k steps in advance and stores them, which gives the same numbers.
# NOTE(departs): The moving average follows instance discrimination's memory bank, to which the paper likens it: random unit
# vectors at the start, outputs and rows normalized; a row moves once a step, towards the mean of both views. The paper
# prints only m = 0.8.
class SimSiam(Method):
    NAME = "simsiam"
    VERSION = 1
    PAPER = "chen2020simsiam arXiv:2011.10566"
    NUM_VIEWS = 2
    RECIPE = "mocov2"
    Config = SimSiamConfig

    snapshot_epoch: Tensor

    def __init__(self, config: SimSiamConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        heads = [config.projector] if config.predict == "none" else [config.projector, config.predictor]
        if setting.batch_size == 1 and any(map(has_batch_norm, heads)):
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take norm: none in the heads")
        if config.symmetrization == "asymmetric_2x" and 0 < setting.num_views < 4:
            raise ValueError(f"symmetrization: asymmetric_2x compares two pairs of views: it needs 4, not {setting.num_views}")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        if not config.output_affine:
            self.projector[-1].requires_grad_(False)  # scale 1 and offset 0, as they start
        self.predictor = predictor_mlp(width, config.predictor) if config.predict != "none" else nn.Identity()
        if config.predict == "fixed":
            self.predictor.requires_grad_(False)
        self.snapshot = frozen_copy(self.encoder, self.projector) if config.refresh_every != 1 else None
        self.register_buffer("snapshot_epoch", torch.zeros((), dtype=torch.long))
        self.bank = MemoryBank(setting.num_images, width) if config.moving_average else None
        self._fresh: list[tuple[Tensor, Tensor]] = []  # images and their outputs, not yet in the bank

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.snapshot is not None:
            copy_into(self.snapshot, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        # View by view, never concatenated: a batch norm must see the statistics of one view at a time.
        z = [self.project(view) for view in views]  # 2 (or 4) of B x d
        t = self._targets(views, z, index, step)
        pairs = {"symmetric": [(0, 1), (1, 0)], "asymmetric": [(0, 1)], "asymmetric_2x": [(0, 1), (2, 3)]}
        distance = negative_cosine if self.config.similarity == "cosine" else softmax_cross_entropy
        losses = [distance(self.predictor(z[i]), t[j]) for i, j in pairs[self.config.symmetrization]]
        return torch.stack(losses).mean(), health(step, z[0], z[1])

    def _targets(self, views: list[Tensor], z: list[Tensor], index: Tensor, step: Step) -> list[Tensor]:
        if self.snapshot is not None:
            self._refresh(self.snapshot, step)
            with torch.no_grad():
                return [self.snapshot(view) for view in views]
        if self.bank is not None:
            with torch.no_grad():
                rows, m = self.bank.rows[index], self.config.bank_momentum
                outputs = [F.normalize(z_i.to(rows.dtype), dim=1) for z_i in z]
                self._fresh.append((index, torch.stack(outputs).mean(dim=0)))
                return [m * rows + (1.0 - m) * output for output in outputs]
        return [z_i.detach() for z_i in z] if self.config.stop_gradient else z

    def _refresh(self, snapshot: nn.Sequential, step: Step) -> None:
        every = self.config.refresh_every
        if every > 0 and step.step % every:
            return
        if every == 0 and int(self.snapshot_epoch) == step.epoch:
            return
        copy_into(snapshot, self.encoder, self.projector)
        self.snapshot_epoch.fill_(step.epoch)

    def after_step(self, step: Step) -> None:
        for index, outputs in self._fresh:
            assert self.bank is not None
            self.bank.update(index, outputs, self.config.bank_momentum)
        self._fresh.clear()

    def param_groups(self) -> list[dict[str, Any]]:
        if self.config.predict != "mlp" or self.config.predictor_decay:
            return super().param_groups()
        scheduled = [p for part in (self.encoder, self.projector) for p in part.parameters() if p.requires_grad]
        return grouped(scheduled) + grouped(self.predictor.parameters(), fixed_rate=True)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """Equation 1, mean over the batch. In [-1, 1]."""
    return -F.cosine_similarity(p, z, dim=1).mean()


@full_precision
def softmax_cross_entropy(p: Tensor, z: Tensor) -> Tensor:  # B x d, B x d -> scalar
    """Section 4.5, mean over the batch: channels as the probabilities of d pseudo-categories."""
    return -(F.softmax(z, dim=1) * F.log_softmax(p, dim=1)).sum(dim=1).mean()
