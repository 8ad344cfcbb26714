"""What fine-tuning with few labels and SimCLR v2's distillation can be told, each paper's protocol by its name.

The papers choose epochs and rates by the share of labels, so each share has a name of its own and both can stand in one sweep:

    evaluate: [finetune_simclr_1, finetune_simclr_10]

A preset takes its own share or, in its place, a list of images (`labels: 1percent.txt`, as SimCLR publishes them for
ImageNet). Whatever a paper chooses among several values is chosen on held-out training images. Torch-free: planning reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_SHARE = r"(100|(?!0*\.?0*%)\d{1,2}(\.\d+)?)%"  # above 0
_FILE = r".+\.txt"
Student = Literal[  # the teacher's own, or one of the encoders
    "self", "convnet", "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vit_tiny", "vit_small",
    "vit_base",
]  # fmt: skip


def _labels(share: str = "") -> Any:
    """The field `labels` of a preset, which takes that share alone, or of the generic protocol, which takes any."""
    if not share:
        made_of = "a share of the labels (1%, 10%, 100%) or of a .txt file with image names"
        return field(default="100%", metadata={"pattern": f"{_SHARE}|{_FILE}", "made_of": made_of})
    made_of = f"{share} or of a .txt file with image names; `finetune` takes any share"
    return field(default=share, metadata={"pattern": f"{share}|{_FILE}", "made_of": made_of})


@dataclass(frozen=True)
class TrainingConfig:
    """What fine-tuning and distillation share: an optimizer, a schedule without restarts, views of one crop and a flip.

    With scale_with_batch, rates are those of a batch of 256 (scale_rule linear: rate x B / 256) or of one image (sqrt: rate x
    sqrt(B)); a training set smaller than batch_size is one batch, and rates go by its size.
    optimizer: lars is SimCLR's update, without adaptation and weight decay of biases and norm scales. nesterov: of sgd.
    warmup: of the training, from 0 to 1, the rate rises linearly; then half a cosine to 0, a constant, or `step`: times
    gamma at each epoch of milestones. every: stepped at every optimizer step or once an epoch.
    """

    batch_size: int = 256
    optimizer: Literal["sgd", "lars", "adamw"] = "sgd"
    scale_with_batch: bool = True
    scale_rule: Literal["linear", "sqrt"] = "linear"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    every: Literal["step", "epoch"] = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        """ValueError says what cannot be trained."""
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; it is a share of the training, at least 0 and below 1")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov is of optimizer 'sgd' with a momentum above 0; set nesterov to false")
        if self.schedule == "step" and not self.milestones:
            raise ValueError("schedule 'step' has no milestones; give the epochs at which the rate drops")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}, areas are fractions of the image: 0 < low <= high <= 1")
        if self.batch_size < 2:
            raise ValueError("batch_size is 1, but batch norms need at least two images")

    def check_milestones(self, epochs: int) -> None:
        """ValueError where a rate would drop after the end."""
        if self.schedule == "step" and max(self.milestones) >= epochs:
            found = f"milestones {list(self.milestones)} do not all lie within {epochs} epochs"
            raise ValueError(f"{found}; give earlier ones with fewer epochs")


# NOTE(departs): The released fine-tunings of SwAV, Barlow Twins and VICReg test after every epoch and print the best of the
# test accuracies; here the last epoch is the only one that is tested.
# NOTE(departs): An epoch leaves out its last incomplete batch, and another part of the images in every epoch; the released
# fine-tunings of SwAV, Barlow Twins and VICReg train on it. Training sets smaller than a batch are one batch.
# NOTE(departs): SimCLR's and BYOL's codes resize crops bicubically; here those of every protocol are bilinear and antialiased.
# NOTE(departs): Fine-tuning has batch norms of the whole batch, also of networks that were pretrained in bn_splits.
@dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """The pretrained network and a new linear layer on it, trained together with cross-entropy on the labelled images.

    labels: the share that has labels, equal numbers of every class drawn from label_seed (the same for all cells), or a .txt
        file with image names; both within the images that a cell has, those that it holds out among them. None is chosen
        by the random seed of the cell.
    learning_rates: of the network; several are chosen among. head_learning_rate: of the new layer, 0 is the network's.
    epochs; shorter: fewer epochs to choose from as well, of which those below `epochs` count.
        A choice trains on the labelled images that are not held out and takes the best on all that are; what is tested is
        trained on all the labelled images.
    head: how the new layer begins: at zero; `normal` with deviation 0.01 and no bias; or as PyTorch's linear layers.
    keep_head: go on from what the method leaves on its encoder for fine-tuning (SimCLR v2: the first layer of its head);
        without it from the encoder.
    """

    labels: str = _labels()
    label_seed: int = 0
    epochs: int = 30
    shorter: tuple[int, ...] = ()
    learning_rates: tuple[float, ...] = (0.05,)
    head_learning_rate: float = 0.0
    nesterov: bool = True
    head: Literal["zero", "normal", "pytorch"] = "zero"
    keep_head: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates is {list(self.learning_rates)}; give one rate above 0, or several to choose from")
        if self.shorter and min(self.shorter) < 1:
            raise ValueError(f"shorter is {list(self.shorter)}; give numbers of epochs, at least 1")
        self.check_milestones(self.epochs)


# NOTE(departs): SimCLR's paper fine-tunes with Nesterov's momentum and 0.05 x B / 256; the command of its README, which is
# for SimCLR v2, has LARS and 0.005 x sqrt(B). finetune_simclr_* are the paper's, with the code's cosine and its new layer that
# begins at zero; whether the paper states these is not in our notes of it.
@dataclass(frozen=True)
class FinetuneSimclr1(FinetuneConfig):
    """SimCLR (2002.05709, appendix B.5), 1 % of the labels: Nesterov, 0.05 x B / 256, 60 epochs, no regularization, no
    warm-up; the batch of 4096 is quoted from memory.

    ResNet-50: 48.3 top-1, 75.5 top-5 (table B.4 and 7).
    """

    labels: str = _labels("1%")
    epochs: int = 60
    batch_size: int = 4096


@dataclass(frozen=True)
class FinetuneSimclr10(FinetuneSimclr1):
    """SimCLR, 10 % of the labels: 30 epochs. ResNet-50: 65.6 top-1, 87.8 top-5."""

    labels: str = _labels("10%")
    epochs: int = 30


# NOTE(departs): SimCLR v2's paper has, from memory, the smaller rate 0.002 x sqrt(B) for networks wider than 1 or with
# selective kernels; finetune_simclrv2_* have 0.005 whatever the network, so state learning_rates for those.
@dataclass(frozen=True)
class FinetuneSimclrV2At1(FinetuneConfig):
    """SimCLR v2 (2006.10029), 1 % of the labels, as its README's command: LARS, 0.005 x sqrt(B), batch 1024, 60 epochs, cosine,
    no weight decay, no warm-up, the new layer from zero and without adaptation; from the first layer of the head.

    ResNet-50: 57.9, with selective kernels 64.5 (table 1).
    """

    labels: str = _labels("1%")
    epochs: int = 60
    batch_size: int = 1024
    optimizer: Literal["sgd", "lars", "adamw"] = "lars"
    nesterov: bool = False
    learning_rates: tuple[float, ...] = (0.005,)
    scale_rule: Literal["linear", "sqrt"] = "sqrt"


@dataclass(frozen=True)
class FinetuneSimclrV2At10(FinetuneSimclrV2At1):
    """SimCLR v2, 10 % of the labels: 30 epochs. ResNet-50: 68.4, with selective kernels 72.1 (table 1)."""

    labels: str = _labels("10%")
    epochs: int = 30


@dataclass(frozen=True)
class FinetuneSimclrV2At100(FinetuneSimclrV2At10):
    """SimCLR v2, all labels: 30 epochs, from the encoder alone. ResNet-50: 76.3 (table 1)."""

    labels: str = _labels("100%")
    keep_head: bool = False


# NOTE(departs): BYOL's settings of fine-tuning are quoted from memory; its schedule and how its new layer begins are not among
# them, and finetune_byol_* have a cosine and zeros.
# NOTE(departs): BYOL chooses rate and epochs on images of its own that are not fine-tuned on; finetune_byol_* on the held-out
# ones, and then fine-tune once more on all the labelled images, so that their number is the protocol's.
@dataclass(frozen=True)
class FinetuneByol1(FinetuneConfig):
    """BYOL (2006.07733, appendix), 1 % of the labels: Nesterov, batch 1024, no regularization; the rate among {0.005, 0.01,
    0.02, 0.05, 0.1} and 30 or 50 epochs are chosen (all from memory).

    ResNet-50: 53.2 top-1, 78.4 top-5 (table 2a).
    """

    labels: str = _labels("1%")
    epochs: int = 50
    shorter: tuple[int, ...] = (30,)
    batch_size: int = 1024
    scale_with_batch: bool = False
    learning_rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class FinetuneByol10(FinetuneByol1):
    """BYOL, 10 % of the labels, chosen alike. ResNet-50: 68.8 top-1, 89.0 top-5 (table 2a)."""

    labels: str = _labels("10%")


@dataclass(frozen=True)
class FinetuneSwav1(FinetuneConfig):
    """SwAV (2006.09882), README's command, 1 % of the labels: SGD, batch 256, 0.02 and for the new layer 5, times 0.2 at epochs
    12 and 16 of 20, no weight decay.

    ResNet-50 of 800 epochs: 53.9 top-1, 78.5 top-5 (quoted from memory).
    """

    labels: str = _labels("1%")
    epochs: int = 20
    learning_rates: tuple[float, ...] = (0.02,)
    head_learning_rate: float = 5.0
    scale_with_batch: bool = False
    nesterov: bool = False
    schedule: Literal["cosine", "step", "constant"] = "step"
    milestones: tuple[int, ...] = (12, 16)
    gamma: float = 0.2
    head: Literal["zero", "normal", "pytorch"] = "pytorch"


@dataclass(frozen=True)
class FinetuneSwav10(FinetuneSwav1):
    """SwAV, 10 % of the labels: 0.01 and 0.2. ResNet-50 of 800 epochs: 70.2 top-1, 89.9 top-5 (quoted from memory)."""

    labels: str = _labels("10%")
    learning_rates: tuple[float, ...] = (0.01,)
    head_learning_rate: float = 0.2


# NOTE(departs): Barlow Twins' paper states, from memory, 0.002 for the network and steps of 0.2 at epochs 12 and 16; its
# released command has 0.005 and the code a cosine, and finetune_barlow_* are the code's. Its README has a command for 1 %
# alone.
@dataclass(frozen=True)
class FinetuneBarlow1(FinetuneConfig):
    """Barlow Twins (2103.03230), README's command, 1 % of the labels: SGD, batch 256, 0.005 and for the new layer 0.5, a cosine
    once an epoch over 20, no weight decay.

    ResNet-50: 55.0 top-1, 79.2 top-5 (table 2).
    """

    labels: str = _labels("1%")
    epochs: int = 20
    learning_rates: tuple[float, ...] = (0.005,)
    head_learning_rate: float = 0.5
    scale_with_batch: bool = False
    nesterov: bool = False
    every: Literal["step", "epoch"] = "epoch"
    head: Literal["zero", "normal", "pytorch"] = "normal"


@dataclass(frozen=True)
class FinetuneBarlow10(FinetuneBarlow1):
    """Barlow Twins, 10 % of the labels, trained alike. ResNet-50: 69.7 top-1, 89.3 top-5 (table 2)."""

    labels: str = _labels("10%")


@dataclass(frozen=True)
class FinetuneVicreg1(FinetuneBarlow1):
    """VICReg (2105.04906), README's command, 1 % of the labels: as Barlow Twins' with 0.03 and for the new layer 0.08.

    ResNet-50: 54.8 top-1, 79.4 top-5 (table 1, quoted from memory).
    """

    learning_rates: tuple[float, ...] = (0.03,)
    head_learning_rate: float = 0.08


@dataclass(frozen=True)
class FinetuneVicreg10(FinetuneVicreg1):
    """VICReg, README's command, 10 % of the labels: 0.01 and 0.1. ResNet-50: 69.5 top-1, 89.5 top-5 (from memory)."""

    labels: str = _labels("10%")
    learning_rates: tuple[float, ...] = (0.01,)
    head_learning_rate: float = 0.1


# NOTE(departs): SimCLR v2's colab multiplies the distillation loss by the temperature's square, its paper (equation 2) does
# not; distill_* are the paper's.
@dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """SimCLR v2 (2006.10029), section 2 and equations 2 and 3: the fine-tuned network teaches a fresh student on all training
    images of the cell, held-out ones too, without their labels (methods.distillation).

    teacher: how it is fine-tuned; its `labels` are the only ones used. student: `self` is the teacher's encoder, initialized
    anew; another name is that encoder with student_width and student_sk, else made as the teacher's. temperature: of both.
    alpha: the teacher's weight, 1 uses no label; below it the labelled images' own labels take the rest (equation 3).

    LARS, 0.1 x sqrt(B), batch 4096, weight decay 1e-4, warm-up over 5 % and a cosine, as its pretraining (from memory), over
    400 epochs; crops and flips alone.
    """

    teacher: FinetuneConfig = FinetuneConfig(labels="10%")
    student: Student = "self"
    student_width: float = 1.0
    student_sk: bool = False
    temperature: float = 0.1
    alpha: float = 1.0
    epochs: int = 400
    batch_size: int = 4096
    optimizer: Literal["sgd", "lars", "adamw"] = "lars"
    learning_rate: float = 0.1
    scale_rule: Literal["linear", "sqrt"] = "sqrt"
    weight_decay: float = 1e-4
    warmup: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_milestones(self.epochs)
        if self.learning_rate <= 0:
            raise ValueError("learning_rate is 0; a student needs one above 0")
        if self.student_width <= 0:
            raise ValueError(f"student_width is {self.student_width:g}; a student needs one above 0")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}, the teacher's weight lies between 0 and 1")
        if self.student == "self" and (self.student_width != 1.0 or self.student_sk):
            raise ValueError(
                "student 'self' is as the teacher; leave student_width and student_sk, or name the student's encoder"
            )


@dataclass(frozen=True)
class DistillSelf1(DistillConfig):
    """Self-distillation of what finetune_simclrv2_1 makes, temperature 0.1. ResNet-152 (3x + SK): 74.9 -> 76.6 (memory)."""

    teacher: FinetuneConfig = FinetuneSimclrV2At1()


@dataclass(frozen=True)
class DistillSelf10(DistillConfig):
    """Self-distillation of what finetune_simclrv2_10 makes. ResNet-152 (3x + SK): 80.1 -> 80.9 (memory)."""

    teacher: FinetuneConfig = FinetuneSimclrV2At10()


@dataclass(frozen=True)
class DistillSmall1(DistillSelf1):
    """A ResNet-50 taught by what finetune_simclrv2_1 makes of a larger network, temperature 1: 73.9 (abstract)."""

    student: Student = "resnet50"
    temperature: float = 1.0


@dataclass(frozen=True)
class DistillSmall10(DistillSmall1):
    """A ResNet-50 taught by what finetune_simclrv2_10 makes of a larger network: 77.5 (abstract)."""

    teacher: FinetuneConfig = FinetuneSimclrV2At10()


FINETUNINGS: dict[str, type[FinetuneConfig]] = {
    "finetune": FinetuneConfig,
    "finetune_simclr_1": FinetuneSimclr1,
    "finetune_simclr_10": FinetuneSimclr10,
    "finetune_simclrv2_1": FinetuneSimclrV2At1,
    "finetune_simclrv2_10": FinetuneSimclrV2At10,
    "finetune_simclrv2_100": FinetuneSimclrV2At100,
    "finetune_byol_1": FinetuneByol1,
    "finetune_byol_10": FinetuneByol10,
    "finetune_swav_1": FinetuneSwav1,
    "finetune_swav_10": FinetuneSwav10,
    "finetune_barlow_1": FinetuneBarlow1,
    "finetune_barlow_10": FinetuneBarlow10,
    "finetune_vicreg_1": FinetuneVicreg1,
    "finetune_vicreg_10": FinetuneVicreg10,
}
DISTILLATIONS: dict[str, type[DistillConfig]] = {
    "distill": DistillConfig,
    "distill_self_1": DistillSelf1,
    "distill_self_10": DistillSelf10,
    "distill_small_1": DistillSmall1,
    "distill_small_10": DistillSmall10,
}


def epochs_trained(protocol: Mapping[str, Any]) -> int:
    """Epochs over the labelled images that a fine-tuning takes, what it chooses among included. protocol: its settings.

    At most: where it chooses, held-out images are left out until the last training.
    """
    lengths = {epochs for epochs in protocol["shorter"] if epochs < protocol["epochs"]} | {protocol["epochs"]}
    rates = set(protocol["learning_rates"])
    tried = sum(lengths) * len(rates) if len(lengths) * len(rates) > 1 else 0
    return tried + int(protocol["epochs"])
