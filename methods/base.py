"""What a method must say. The training loop, the planner and the reports know methods only through this page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.encoders import EncoderConfig, build_encoder
from methods.norms import data_dependent_init


@dataclass(frozen=True)
class Step:
    """Where training is: optimizer steps done so far (0 at the first loss), their planned total, the epoch from 0.

    watched: whether somebody reads this step's log, so that methods.telemetry need not be computed where nobody does.
    """

    step: int
    total_steps: int
    epoch: int
    watched: bool = True

    @property
    def fraction(self) -> float:
        """The part of training done, in [0, 1)."""
        return self.step / self.total_steps


@dataclass(frozen=True)
class Setting:
    """What a method may know before it sees a batch. 0 where it is not known; methods that need a number say so.

    num_images: of the training set; `index` lies in [0, num_images). num_classes: of its labels.
    batch_size: images of a step, of all ranks together. num_views: how many views `loss` will get.
    channels: of those views. seed: the random seed, for draws inside a method (methods.draws).
    """

    num_images: int = 0
    num_classes: int = 0
    batch_size: int = 0
    num_views: int = 0
    channels: int = 3
    seed: int = 0


class Method(nn.Module, ABC):
    """An encoder, what is put on it for training, and a loss.

    The encoder is built first: with one random seed, every method starts from the same encoder, the row of random
    initialization included. Modes are the caller's: the loop calls `train()` before `loss`, evaluation calls `eval()`
    before `features` and `project`. Autocast is the caller's too; losses leave it by themselves. On several ranks each has
    its part of the batch, and the mean of their losses is the loss of the whole (methods.gather).

    A training step is: loss, backward, `after_backward`, optimizer, `after_step`.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]  # part of a cell's identity: raised when the meaning of a config changes
    PAPER: ClassVar[str]  # bibliography key and where to find it
    NUM_VIEWS: ClassVar[int]  # augmented views of an image that `loss` wants
    RECIPE: ClassVar[str]  # key of methods.views.RECIPES, unless a sweep says otherwise
    TRAINS: ClassVar[bool] = True
    MULTI_CROP: ClassVar[bool] = False  # takes further, smaller views after the first NUM_VIEWS
    PATCHES: ClassVar[bool] = False  # its views come as patches, B x P x C x H x W
    MODALITIES: ClassVar[bool] = False  # takes further views of the same crop in other channels
    EPOCH_PASS: ClassVar[bool] = False  # `begin_epoch` wants to see the training set
    Config: ClassVar[type]

    def __init__(self, config: Any, encoder: EncoderConfig, setting: Setting) -> None:
        """ValueError, in one sentence, for what cannot be trained: better here than as NaN at step 300."""
        super().__init__()
        batch = setting.batch_size
        parts = encoder.bn_splits if encoder.norm == "batch" else 1
        if self.TRAINS and batch and parts > 1 and (batch % parts or batch < 2 * parts):
            raise ValueError(f"a batch of {batch} has no {parts} equal parts of at least two images; change encoder.bn_splits")
        self.config, self.setting = config, setting
        self.encoder, self.dim = self.make_encoder(encoder)

    def make_encoder(self, encoder: EncoderConfig) -> tuple[nn.Module, int]:
        """The network that is evaluated and the width of its features."""
        return build_encoder(encoder, self.setting.channels)

    def prepare(self, views: list[Tensor]) -> None:
        """Called once with the first batch, in train mode, before step 0 of a fresh run (never after a resume).

        Sets the `affine` norms from the batch's statistics; without such norms nothing is run and nothing changes.
        """
        with torch.no_grad(), data_dependent_init(self) as wanted:
            if wanted:
                self.outputs(views[0])

    def outputs(self, images: Tensor) -> Tensor:
        """B x 3 x H x W -> the last thing the trained network computes; runs every trained layer once."""
        return self.project(images)

    @abstractmethod
    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimize and detached scalars to log.

        views: NUM_VIEWS tensors B x C x H x W, and as many further ones as the method takes. index: B, positions in the
        training set. labels: B, for methods that are allowed to look.
        """

    def after_backward(self, step: Step) -> dict[str, Tensor]:
        """Between backward and the optimizer: cancel gradients, or read them. Returns detached scalars to log."""
        return {}

    def after_step(self, step: Step) -> None:
        """What follows the optimizer's step: moving averages, queues. `step` is the one its loss was given."""

    def begin_epoch(self, epoch: int, images: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Called before the first step of an epoch where EPOCH_PASS is set (not again after a resume within the epoch).

        images: the whole training set once, without augmentation and on this device, as (B x C x H x W, their index B).
        The method chooses its own mode for the pass; the loop sets `train()` again after it.
        """

    def param_groups(self) -> list[dict[str, Any]]:
        """Trained parameters: weights, then biases and norm scales and offsets (all the vectors), which papers often
        exempt from weight decay and from LARS. The loop decides what `decay` means.

        A method may split them further; a group with `fixed_rate` keeps the peak learning rate where others follow a
        schedule (SimSiam's predictor).
        """
        return grouped(p for p in self.parameters() if p.requires_grad)

    def features(self, images: Tensor) -> Tensor:
        """B x 3 x H x W -> B x D: the representation that is evaluated."""
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        """B x 3 x H x W -> B x d: the projection that is watched for collapse; the features where there is none."""
        return self.features(images)

    def backbone(self) -> nn.Module:
        """The encoder that evaluation takes further: its maps for detection, its attention, its weights for an export."""
        return self.encoder

    def finetune_network(self) -> nn.Module:
        """B x C x H x W -> B x D: what is trained on, all of it, under a new linear layer when labels are few."""
        return self.backbone()


def grouped(parameters: Iterable[nn.Parameter], **settings: Any) -> list[dict[str, Any]]:
    """Parameters as two groups, weights with decay and vectors without; `settings` go to both."""
    trained = list(parameters)
    return [
        {"params": [p for p in trained if p.ndim > 1], "decay": True, **settings},
        {"params": [p for p in trained if p.ndim <= 1], "decay": False, **settings},
    ]
