"""DINO: Emerging properties in self-supervised vision transformers (Caron et al., 2021, arXiv 2104.14294).

Crops V of an image, of which the first two are large; student g_s, teacher g_t, both encoder + head with K outputs:

    P_s(x) = softmax(g_s(x) / tau_s)         P_t(x) = softmax((g_t(x) - c) / tau_t)        sharpening and centring
    L = mean over x in {x_1, x_2}, x' in V, x' != x, of  H(P_t(x), P_s(x'))                 equation 3, H(a, b) = - a . log b
    c <- m c + (1 - m) mean over the batch of g_t(x)                                        equation 4
    theta_t <- l theta_t + (1 - l) theta_s,   l = 1 - (1 - l_0) (cos(pi k / K) + 1) / 2      after step k of K

The head: linear layers with GELU to a bottleneck, its outputs made unit vectors, then K prototypes, unit vectors too.

Default protocol: ViT-S/16 with drop-path 0.1, AdamW, lr 5e-4 x batch / 256, warm-up 10 epochs, cosine to 1e-6, weight decay
0.04 -> 0.4 by a cosine, gradients clipped at 3, batch 1024, 300 epochs, recipe `dino` with 2 x 224 and 10 x 96 crops.
Should reach on ImageNet with ViT-S/16, 300 epochs: kNN 72.8, linear 76.1 (table 7, row 1); 100 epochs of the released code's
default run: 69.3 and 74.0 (its README).
Switches, and where their rows are printed (ViT-S/16, 300 epochs, kNN and linear):
    teacher                    table 7: student 0.1, 0.1. Figure 6, kNN: student 0.1, previous_iteration 0.1,
                               previous_epoch 66.6, momentum 72.8
    balance: sinkhorn          table 7: 72.2, 76.0
    similarity: mse            table 7: 52.6, 62.4
    predict                    table 7: 71.8, 75.6
    local crops (the views)    table 7: without them 67.9, 72.5. Table 8, linear: 2 local 74.5, 6 75.9, 10 76.1
    balance: none, or a teacher temperature as high as the student's      figure 7: collapse, to one output or to all alike
    layers, bottleneck, head_norm, activation, centre_momentum            appendices C and D
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
from methods.gather import summed, world_size
from methods.losses import cosine_regression, full_precision
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy
from methods.norms import norm_1d
from methods.sinkhorn import sinkhorn
from methods.telemetry import health, relative_entropy

_NO_EMA = ["teacher_ema"]


@dataclass(frozen=True)
class DINOConfig:
    """layers, hidden, bottleneck: the head's linear layers, the width between them and at their end. bottleneck 0 has neither
        that layer nor unit vectors: the last of `layers` gives the K outputs.
    prototypes: K. head_norm: after the hidden layers. activation: there too.
    norm_last_layer: the prototypes' lengths stay 1; false trains them.
    freeze_last_layer: epochs, from the start, in which the prototypes are not trained.
    student_temperature: tau_s. teacher_temperature: tau_t, reached from warmup_temperature over warmup_epochs, linearly.
    balance: against one output for all: `centre` as above, `sinkhorn` shares the batch out evenly instead (with
        sinkhorn_iterations; 1 is appendix B's "softmax over the batch").
    centre_momentum: m.
    similarity: `mse` is BYOL's 2 - 2 cos between outputs, centred and not sharpened (appendix B).
    teacher: `momentum`, with teacher_ema = l_0; `student` itself; the student before the last step, or at the end of the
        last epoch.
    predict: two more layers on the student's bottleneck alone.
    evaluate: whose encoder gives the features.
    """

    layers: int = 3
    hidden: int = 2048
    bottleneck: int = field(default=256, metadata={"governs": {"0": ["norm_last_layer"]}})
    prototypes: int = 65536
    head_norm: Literal["none", "batch"] = "none"
    activation: Literal["gelu", "relu"] = "gelu"
    norm_last_layer: bool = True
    freeze_last_layer: int = 1
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    warmup_temperature: float = 0.04
    warmup_epochs: int = 30
    balance: Literal["centre", "sinkhorn", "none"] = field(
        default="centre",
        metadata={
            "governs": {
                "centre": ["sinkhorn_iterations"],
                "sinkhorn": ["centre_momentum"],
                "none": ["centre_momentum", "sinkhorn_iterations"],
            }
        },
    )
    centre_momentum: float = 0.9
    sinkhorn_iterations: int = 3
    similarity: Literal["cross_entropy", "mse"] = field(
        default="cross_entropy",
        metadata={"governs": {"mse": ["student_temperature", "teacher_temperature", "warmup_temperature", "warmup_epochs"]}},
    )
    teacher: Literal["momentum", "student", "previous_iteration", "previous_epoch"] = field(
        default="momentum",
        metadata={"governs": {"student": _NO_EMA, "previous_iteration": _NO_EMA, "previous_epoch": _NO_EMA}},
    )
    teacher_ema: float = 0.996
    predict: bool = False
    evaluate: Literal["teacher", "student"] = "teacher"

    def __post_init__(self) -> None:
        check(
            self,
            positive=["student_temperature", "teacher_temperature", "warmup_temperature"],
            unit=["centre_momentum", "teacher_ema"],
            least={
                "layers": 1, "hidden": 1, "prototypes": 2, "bottleneck": 0, "freeze_last_layer": 0, "warmup_epochs": 0,
                "sinkhorn_iterations": 1,
            },
        )  # fmt: skip
        if self.similarity == "mse" and self.balance == "sinkhorn":
            raise ValueError(
                "similarity: mse compares outputs, not the codes of balance: sinkhorn; say balance: centre or none"
            )


# NOTE(departs): The teacher's temperature rises from 0.04 to 0.07 over 30 epochs, as in the paper; the released code's default
# is 0.04 throughout.
# NOTE(departs): Equation 3 is a sum over the pairs of crops, the released code takes their mean, and so do we.
# NOTE(departs): norm_last_layer is true by default, as in the released code's defaults; its README turns it off for ViT-S.
# NOTE(departs): Crops pass the network one by one; the released code concatenates those of one size, and all of them before the
# head, which is the same unless there is a batch norm.
# NOTE(departs): The last layer is computed in full precision, because its outputs are divided by a temperature of 0.04; the
# released code computes it in half.
# NOTE(departs): Unless encoder.positions is learned, the encoder's positions are fixed sines and cosines for any grid; the
# paper's are learned and interpolated bicubically for the small crops.
# NOTE(departs): The released code clips the gradient of each parameter by itself, which the training loop calls clip_by:
# parameter; its default, all, clips the norm of all of them together.
# NOTE(departs): The paper has no regularization strength for its row with Sinkhorn; ours is the teacher's temperature, and
# each of the two crops is shared out by itself.
# NOTE(departs): The paper does not print the predictor of its row 6; ours is hidden wide, with the head's activation, and acts
# on the bottleneck before it is made a unit vector.
# NOTE(departs): With teacher: student the targets are the student's own outputs for the large crops, detached, drop-path
# included; the paper says a copy.
class DINO(Method):
    NAME = "dino"
    VERSION = 1
    PAPER = "caron2021dino arXiv:2104.14294"
    NUM_VIEWS = 2
    RECIPE = "dino"
    MULTI_CROP = True
    Config = DINOConfig

    centre: Tensor
    teacher_epoch: Tensor

    def __init__(self, config: DINOConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.num_views == 1:
            raise ValueError("the teacher sees two large crops: num_views must be at least 2, not 1")
        if setting.batch_size == 1 and config.head_norm == "batch":
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take head_norm: none")
        if config.balance == "sinkhorn" and 0 < setting.num_images < config.prototypes:
            more = f"{config.prototypes} prototypes cannot share out {setting.num_images} images evenly"
            raise ValueError(f"{more}: lower prototypes, or take balance: centre")
        self.head, width = head(self.dim, config)
        self.predictor = _predictor(width, config) if config.predict else nn.Identity()
        self.prototypes = (
            Prototypes(width, config.prototypes, trained_lengths=not config.norm_last_layer)
            if config.bottleneck
            else PlainPrototypes(width, config.prototypes)
        )
        self.teacher = None if config.teacher == "student" else frozen_copy(*self._student())
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.register_buffer("teacher_epoch", torch.zeros((), dtype=torch.long))
        self._fresh: list[Tensor] = []  # mean output of the teacher in this step, not yet in the centre

    def _student(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.encoder, self.head, self.prototypes

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.teacher is not None:
            copy_into(self.teacher, *self._student())

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = [self.project(view) for view in views]  # of each crop, B x bottleneck
        s = [self.prototypes(self.predictor(z_i)) for z_i in z]  # B x K
        t = self._teacher_outputs(views[:2], z, step)  # of the two large crops, B x K
        log = health(step, z[0], z[1])
        if self.config.similarity == "mse":
            pairs = [cosine_regression(s[v], t[i] - self.centre) for i in range(2) for v in range(len(s)) if v != i]
            return torch.stack(pairs).mean(), log
        q = self._targets(t, step)
        # H is linear in its first argument: the small crops answer to both targets at once.
        targets = [q[1], q[0]] + [q[0] + q[1]] * (len(s) - 2)
        entropies = [cross_entropy(s_v, q_v, self.config.student_temperature) for s_v, q_v in zip(s, targets, strict=True)]
        loss = torch.stack(entropies).sum() / (2 * (len(s) - 1))
        own = torch.stack([-torch.special.xlogy(q_i, q_i).sum(dim=1).mean() for q_i in q]).mean()
        # Equation 5: no divergence is a collapse, of entropy 0 to one output, of entropy log K to all alike.
        # 1 where all prototypes are wanted equally often, 0 where one is wanted always.
        log["prototype_use"] = relative_entropy(torch.stack(q).mean(dim=(0, 1)))
        return loss, log | {"teacher_entropy": own, "divergence": loss.detach() - own}

    @torch.no_grad()
    def _teacher_outputs(self, views: list[Tensor], z: list[Tensor], step: Step) -> list[Tensor]:
        if self.teacher is None:
            t = [self.prototypes(z_i) for z_i in z[:2]]
        else:
            if self.config.teacher == "previous_epoch" and int(self.teacher_epoch) != step.epoch:
                copy_into(self.teacher, *self._student())
                self.teacher_epoch.fill_(step.epoch)
            t = [self.teacher(view) for view in views]
        if self.config.balance == "centre":
            self._fresh.append(summed(torch.stack(t).mean(dim=(0, 1))) / world_size())
        return t

    @torch.no_grad()
    def _targets(self, t: list[Tensor], step: Step) -> list[Tensor]:
        tau = teacher_temperature(self.config, step.epoch)
        if self.config.balance == "sinkhorn":
            return [sinkhorn(t_i, tau, self.config.sinkhorn_iterations) for t_i in t]
        return [F.softmax((t_i - self.centre) / tau, dim=1) for t_i in t]  # the centre stays 0 without balance: centre

    def after_backward(self, step: Step) -> dict[str, Tensor]:
        if step.epoch < self.config.freeze_last_layer:
            for p in self.prototypes.parameters():
                p.grad = None
        if self.teacher is not None and self.config.teacher == "previous_iteration":
            copy_into(self.teacher, *self._student())  # before the optimizer moves the student
        return {}

    def after_step(self, step: Step) -> None:
        if self.teacher is not None and self.config.teacher == "momentum":
            momentum = cosine_to_one(self.config.teacher_ema, step.fraction)
            ema_update(self.teacher, *self._student(), momentum=momentum)
        for mean in self._fresh:
            self.centre.lerp_(mean.to(self.centre.dtype), 1.0 - self.config.centre_momentum)
        self._fresh.clear()

    def features(self, images: Tensor) -> Tensor:
        return self.backbone()(images)

    def backbone(self) -> nn.Module:
        if self.teacher is not None and self.config.evaluate == "teacher":
            return self.teacher[0]
        return self.encoder

    def project(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.prototypes(self.predictor(self.project(images)))


def teacher_temperature(config: DINOConfig, epoch: int) -> float:
    """Linear in epochs: `warmup_temperature` in the first, `teacher_temperature` in the last of `warmup_epochs`."""
    if epoch >= config.warmup_epochs:
        return config.teacher_temperature
    done = epoch / max(1, config.warmup_epochs - 1)
    return config.warmup_temperature + (config.teacher_temperature - config.warmup_temperature) * done


@full_precision
def cross_entropy(s: Tensor, q: Tensor, temperature: float) -> Tensor:  # B x K, B x K -> scalar
    """H(q, softmax(s / temperature)), mean over the batch."""
    return -(q * F.log_softmax(s / temperature, dim=1)).sum(dim=1).mean()


@full_precision
def prototype_scores(x: Tensor, directions: Tensor, lengths: Tensor) -> Tensor:  # B x d, K x d, K x 1 -> B x K
    return F.normalize(x, dim=1) @ (lengths * F.normalize(directions, dim=1)).T


class Prototypes(nn.Module):
    """A weight-normalized linear layer (1602.07868) without bias, on unit vectors: K lengths and K directions."""

    def __init__(self, dim: int, count: int, trained_lengths: bool) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(count, dim))
        nn.init.uniform_(self.directions, -(dim**-0.5), dim**-0.5)
        self.lengths = nn.Parameter(torch.ones(count, 1), requires_grad=trained_lengths)

    def forward(self, x: Tensor) -> Tensor:
        return prototype_scores(x, self.directions, self.lengths)


class PlainPrototypes(nn.Linear):
    """A linear layer with a bias, in the place of `Prototypes` where there is no bottleneck."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__(dim, count)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return full_precision(F.linear)(x, self.weight, self.bias)


def head(in_dim: int, config: DINOConfig) -> tuple[nn.Sequential, int]:
    """All of the head before its prototypes, and the width it ends in."""
    layers: list[nn.Module] = []
    for _ in range(config.layers - 1):
        layers.append(_linear(in_dim, config.hidden))
        layers.append(norm_1d(config.head_norm, config.hidden, 1))
        layers.append(_activation(config))
        in_dim = config.hidden
    if config.bottleneck:
        layers.append(_linear(in_dim, config.bottleneck))
        in_dim = config.bottleneck
    return nn.Sequential(*layers), in_dim


def _predictor(width: int, config: DINOConfig) -> nn.Sequential:
    return nn.Sequential(_linear(width, config.hidden), _activation(config), _linear(config.hidden, width))


def _activation(config: DINOConfig) -> nn.Module:
    return nn.GELU() if config.activation == "gelu" else nn.ReLU()


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    _initialize(layer)
    return layer


def _initialize(layer: nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
