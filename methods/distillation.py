"""Self-training after SimCLR v2 (Chen et al., 2020, arXiv 2006.10029): a student learns the teacher's labels.

The teacher is a pretrained and fine-tuned network, frozen; the student f^S starts anew. For all images x of D, labelled and
not, and the labelled ones D_L:

    P(y | x; t) = exp(f(x)[y] / t) / sum over y' of exp(f(x)[y'] / t)
    L_distill = -sum over x in D, sum over y of P^T(y | x; t) log P^S(y | x; t)                                equation 2
    L = -(1 - a) sum over (x, y) in D_L of log P^S(y | x)  -  a sum over x in D, y of P^T(y | x; t) log P^S(y | x; t)   (3)

    teacher = simclrv2.finetune_network() with a classifier on it, fine-tuned: any module from images to class logits
    method = Distillation(DistillationConfig(), encoder, Setting(num_classes=1000));   method.set_teacher(teacher)

Self-distillation is an encoder as large as the teacher's, "big to small" a smaller one.

Protocol: LARS as in SimCLR v2's pretraining, batch 4096 (quoted from memory), 400 epochs; crops and flips alone (recipe
supervised); t 1 for a smaller student, 0.1 for self-distillation (secondary), with little between them (from memory).
Should reach, ImageNet top-1, a ResNet-50 taught by ResNet-152 (3x + SK): 73.9 with 1 % of the labels, 77.5 with 10 %
(abstract); ResNet-152 (3x + SK) taught by itself 76.6 and 80.9 (table 3, quoted from memory).
Switches, and where their rows are printed:
    alpha, which labels are given      table 2: labels alone, labels and teacher, teacher alone
    temperature                        section 3, in words
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.losses import full_precision
from methods.telemetry import health


@dataclass(frozen=True)
class DistillationConfig:
    """temperature: t, of teacher and student; the labelled term has none.
    alpha: a, the weight of the teacher; 1 is equation 2, which needs no labels, 0 trains with labels alone.
    """

    temperature: float = 1.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["alpha"])


# NOTE(departs): Both terms of equation 3 are means, over the labelled images of a batch and over all of them; the paper
# writes sums over the two sets, whose weights would depend on how many labels there are.
# NOTE(departs): Teacher and student see the same augmented view, which is our reading of equation 2.
# NOTE(departs): The student starts from a random initialization unless its encoder is given weights first.
class Distillation(Method):
    NAME = "distillation"
    VERSION = 1
    PAPER = "chen2020simclrv2 arXiv:2006.10029"
    NUM_VIEWS = 1
    RECIPE = "supervised"
    Config = DistillationConfig

    teacher: nn.Module | None

    def __init__(self, config: DistillationConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.num_classes < 2:
            raise ValueError(f"num_classes is {setting.num_classes}, but a teacher's labels are of at least 2 classes")
        self.classifier = nn.Linear(self.dim, setting.num_classes)
        self.teacher = None

    def set_teacher(self, teacher: nn.Module) -> None:
        """B x C x H x W -> B x num_classes logits. Kept inside (and in the state dict), frozen and in eval mode.

        The module itself is taken, not a copy. Set it before the parameters go to an optimizer.
        """
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Distillation:
        """The teacher stays in eval mode: its labels must not depend on the batch."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """labels: negative where an image has none."""
        if self.teacher is None:
            raise ValueError("distillation has no teacher; call set_teacher(module from images to logits) before training")
        y = self.encoder(views[0])  # B x D
        student = gathered(self.classifier(y))  # B x classes, of all ranks
        with torch.no_grad():
            teacher = gathered(self.teacher(views[0]))
        if teacher.shape != student.shape:
            raise ValueError(f"the teacher tells {teacher.shape[1]} classes apart, but num_classes is {student.shape[1]}")
        loss = distillation_loss(student, teacher, gathered(labels), self.config.temperature, self.config.alpha)
        agree = (student.detach().argmax(dim=1) == teacher.argmax(dim=1)).float().mean()
        return loss, health(step, y) | {"agreement": agree}


@full_precision
def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, tau: float, alpha: float) -> Tensor:
    """Equation 3: B x C logits, B x C logits, B labels (negative where there is none) -> scalar."""
    soft = torch.softmax(teacher / tau, dim=1)
    distill = -(soft * torch.log_softmax(student / tau, dim=1)).sum(dim=1).mean()
    # The sum over none is zero, where a mean would be no number.
    labelled = F.cross_entropy(student, labels.clamp(min=-1), ignore_index=-1, reduction="sum")
    labelled = labelled / (labels >= 0).sum().clamp(min=1)
    return (1.0 - alpha) * labelled + alpha * distill
