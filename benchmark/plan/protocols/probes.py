"""What the linear probes of the papers can be told, each by its name: a preset is its paper's protocol, every setting a field.

All of them freeze the network in evaluation mode and train one linear layer on its features of augmented images (crop and
flip); what is tested is the layer after the last epoch. Torch-free: planning reads it.

A rate is chosen only where `learning_rates` has several: the layers of all rates are trained side by side on the training
images, and the best on the held-out ones wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


# NOTE(departs): SimCLR's, BYOL's and DINO's codes resize bicubically, in the probe's training or testing; here every probe's
# crops are bilinear and antialiased.
# NOTE(departs): An epoch of a probe leaves out its last incomplete batch, and another part of the images in every epoch; the
# released probes of MoCo, SimSiam, SwAV, Barlow Twins, VICReg and DINO train on it.
# NOTE(departs): The released probes of MoCo, SimSiam, SwAV, Barlow Twins, VICReg and DINO test after every epoch and keep or
# print the best of the test accuracies; here the last epoch is the only one that is tested.
@dataclass(frozen=True)
class ProbeConfig:
    """A linear layer with cross-entropy on frozen features, by stochastic gradient descent.

    learning_rates: one, or several to choose from on held-out images. With scale_with_batch it is that of a batch of 256.
    momentum, nesterov, weight_decay: of weights and biases alike. lars: apex's, as SimSiam's code, trust 0.001.
    schedule: half a cosine to 0, or `step`, times gamma at each epoch of milestones; stepped as `every` says.
    initial_std: the weights begin normal with this deviation, the bias at 0.
    blocks: of a ViT the class tokens of so many last blocks, side by side, and with patch_mean the mean of the last block's
        patch tokens too; 0, or another encoder, means the network's own features.
    crop_scale: area fraction of the crops.
    refit: what is tested is trained on the held-out images too, after a choice once more from the start; without it they
        stay aside and tell heldout_top1.
    gap: also report what the `linear` protocol makes of the same features, as fast_top1, and top1 less it, as gap; only where
        there are held-out images.
    precision: of the frozen network; the layer is always trained in float32.
    """

    epochs: int = 100
    batch_size: int = 256
    optimizer: Literal["sgd", "lars"] = "sgd"
    learning_rates: tuple[float, ...] = (0.3,)
    scale_with_batch: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["cosine", "step"] = "cosine"
    every: Literal["step", "epoch"] = "epoch"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    initial_std: float = 0.01
    blocks: int = 0
    patch_mean: bool = False
    crop_scale: tuple[float, float] = (0.08, 1.0)
    refit: bool = True
    gap: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        """ValueError says what no probe can be."""
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates is {list(self.learning_rates)}; give one rate above 0, or several to choose from")
        if self.schedule == "step" and not self.milestones:
            raise ValueError("schedule 'step' has no milestones; give the epochs at which the rate drops")
        if self.schedule == "step" and max(self.milestones) >= self.epochs:
            found = f"milestones {list(self.milestones)} do not all lie within {self.epochs} epochs"
            raise ValueError(f"{found}; give milestones that do")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov is of optimizer 'sgd' with a momentum above 0; set nesterov to false")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}, areas are fractions of the image: 0 < low <= high <= 1")
        if self.patch_mean and not self.blocks:
            raise ValueError("patch_mean goes with the class tokens of a ViT's last blocks; set blocks to 1 or more")


@dataclass(frozen=True)
class LinearMoco(ProbeConfig):
    """MoCo (1911.05722, section 4.1; 2003.04297): SGD, rate 30 at batch 256, times 0.1 at epochs 60 and 80 of 100.

    Released ResNet-50, 200 epochs: v1 60.8 +- 0.2, v2 67.5 +- 0.1 (the authors' README); v2, 800 epochs: 71.1 (table 1).
    """

    learning_rates: tuple[float, ...] = (30.0,)
    schedule: Literal["cosine", "step"] = "step"
    milestones: tuple[int, ...] = (60, 80)


# NOTE(departs): MoCo v3's paper, from memory, trains its probes with batches of 4096 and a rate searched for each model;
# linear_mocov3 and linear_mocov3_vit have the released code's batch of 1024 and the rates of its commands.
@dataclass(frozen=True)
class LinearMocoV3(ProbeConfig):
    """MoCo v3 (2104.02057), released code, ResNet: SGD, rate 0.1 x B / 256, batch 1024, 90 epochs, cosine.

    Released ResNet-50 of 100 / 300 / 1000 epochs: 68.9 / 72.8 / 74.6 (the authors' README).
    """

    epochs: int = 90
    batch_size: int = 1024
    learning_rates: tuple[float, ...] = (0.1,)
    scale_with_batch: bool = True


@dataclass(frozen=True)
class LinearMocoV3Vit(LinearMocoV3):
    """MoCo v3 (2104.02057), released code, ViT: as LinearMocoV3 with rate 3 x B / 256, on the class token.

    Released ViT-Small 73.2, ViT-Base 76.7, both of 300 epochs (the authors' README).
    """

    learning_rates: tuple[float, ...] = (3.0,)


# NOTE(departs): SimSiam's paper states a base rate of 0.02 for its LARS probe, its released script has 0.1; linear_simsiam is
# the paper's.
@dataclass(frozen=True)
class LinearSimSiam(ProbeConfig):
    """SimSiam (2011.10566): LARS, rate 0.02 x B / 256, batch 4096, 90 epochs, cosine, no weight decay.

    A step moves the weights by about rate x 0.001 of their own size, so that it takes ImageNet's tens of thousands of steps; on
    a small set `gap` shows how far it is from done.
    Released ResNet-50 of 100 epochs: 68.1 with batch 512, 68.3 with batch 256 (the authors' README).
    """

    epochs: int = 90
    batch_size: int = 4096
    optimizer: Literal["sgd", "lars"] = "lars"
    learning_rates: tuple[float, ...] = (0.02,)
    scale_with_batch: bool = True


# NOTE(departs): SimCLR's paper, from memory, trains its linear classifier without any regularization; the README's command for
# ImageNet has weight decay 1e-6. linear_simclr is the paper's.
@dataclass(frozen=True)
class LinearSimCLR(ProbeConfig):
    """SimCLR (2002.05709, appendix B): Nesterov, rate 0.1 x B / 256 (1.6), batch 4096, 90 epochs; from the released code:
    cosine at every step, no warm-up, all weights begin at 0.

    ResNet-50 69.3 after 1000 epochs (table 6); the README's command about 64.5 after 100.
    """

    epochs: int = 90
    batch_size: int = 4096
    learning_rates: tuple[float, ...] = (0.1,)
    scale_with_batch: bool = True
    nesterov: bool = True
    every: Literal["step", "epoch"] = "step"
    initial_std: float = 0.0


# NOTE(departs): BYOL's paper chooses the rate of its probe among five on a validation set of its own; the released code has one
# rate, 0.2 x B / 256. linear_byol chooses among the five, scaled as the code scales its one; the five are from memory.
# NOTE(departs): BYOL's released code draws the probe's weights with deviation 1 / sqrt(width), 0.022 for 2048 features;
# linear_byol begins at deviation 0.01 as the others do.
@dataclass(frozen=True)
class LinearByol(ProbeConfig):
    """BYOL (2006.07733, appendix C): Nesterov, 80 epochs, batch 1024, cosine at every step, no regularization, the rate chosen
    among {0.4, 0.3, 0.2, 0.1, 0.05} x B / 256 on held-out images.

    ResNet-50 74.3 after 1000 epochs (table 1), 72.5 after 300 (the ablations).
    """

    epochs: int = 80
    batch_size: int = 1024
    learning_rates: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.05)
    scale_with_batch: bool = True
    nesterov: bool = True
    every: Literal["step", "epoch"] = "step"


@dataclass(frozen=True)
class LinearSwav(ProbeConfig):
    """SwAV (2006.09882), released code: SGD, rate 0.3, batch 256, weight decay 1e-6, 100 epochs, cosine.

    Released ResNet-50 of 800 epochs with multi-crop: 75.3 (the authors' README).
    """

    weight_decay: float = 1e-6


@dataclass(frozen=True)
class LinearBarlow(ProbeConfig):
    """Barlow Twins (2103.03230), released code: SGD, rate 0.3, batch 256, weight decay 1e-6, 100 epochs, cosine.

    ResNet-50 of 1000 epochs: 73.2 (table 1), the released one 73.5.
    """

    weight_decay: float = 1e-6


@dataclass(frozen=True)
class LinearVicreg(ProbeConfig):
    """VICReg (2105.04906), README's command: SGD, rate 0.02, batch 256, weight decay 1e-6, 100 epochs, cosine.

    ResNet-50 of 1000 epochs: 73.2 (table 1).
    """

    learning_rates: tuple[float, ...] = (0.02,)
    weight_decay: float = 1e-6


@dataclass(frozen=True)
class LinearDino(ProbeConfig):
    """DINO (2104.14294), released code: SGD, rate 0.001 x B / 256, batch 1024 (128 on each of 8 GPUs), 100 epochs, cosine; of a
    ViT-Small the class tokens of the last 4 blocks, of a ResNet its features.

    Released ViT-S/16 77.0, ResNet-50 75.3 (table 2).
    """

    batch_size: int = 1024
    learning_rates: tuple[float, ...] = (0.001,)
    scale_with_batch: bool = True
    blocks: int = 4


@dataclass(frozen=True)
class LinearDinoBase(LinearDino):
    """DINO (2104.14294), released code, ViT-Base: as LinearDino on the last class token and the mean of the patch tokens.

    Released ViT-B/16 78.2, ViT-B/8 80.1 (table 2).
    """

    blocks: int = 1
    patch_mean: bool = True


@dataclass(frozen=True)
class LinearCmc(ProbeConfig):
    """CMC (1906.05849), released code, ResNet: SGD, rate 30 at batch 256, 60 epochs, times 0.2 at epochs 30, 40 and 50, on the
    features of both encoders.

    The rate is the README's for its ResNet-50 of width 1 / 2 and 1; for twice that width it says 50.
    """

    epochs: int = 60
    learning_rates: tuple[float, ...] = (30.0,)
    schedule: Literal["cosine", "step"] = "step"
    milestones: tuple[int, ...] = (30, 40, 50)
    gamma: float = 0.2


PROBES: dict[str, type[ProbeConfig]] = {
    "linear_moco": LinearMoco,
    "linear_mocov3": LinearMocoV3,
    "linear_mocov3_vit": LinearMocoV3Vit,
    "linear_simsiam": LinearSimSiam,
    "linear_simclr": LinearSimCLR,
    "linear_byol": LinearByol,
    "linear_swav": LinearSwav,
    "linear_barlow": LinearBarlow,
    "linear_vicreg": LinearVicreg,
    "linear_dino": LinearDino,
    "linear_dino_base": LinearDinoBase,
    "linear_cmc": LinearCmc,
}
