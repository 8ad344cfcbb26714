"""What a method must say. The training loop, the planner and the reports know methods only through this page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.encoders import EncoderConfig, build_encoder
from methods.norms import data_dependent_init


@dataclass(frozen=True)
class Step:
    """Where training is: optimizer steps done so far (0 at the first loss), their planned total, the epoch from 0."""

    step: int
    total_steps: int
    epoch: int

    @property
    def fraction(self) -> float:
        """The part of training done, in [0, 1)."""
        return self.step / self.total_steps


class Method(nn.Module, ABC):
    """An encoder, what is put on it for training, and a loss.

    The encoder is built first: with one random seed, every method starts from the same encoder, the row of random
    initialization included. Modes are the caller's: the loop calls `train()` before `loss`, evaluation calls `eval()`
    before `features` and `project`. Autocast is the caller's too; losses leave it by themselves.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]  # part of a cell's identity: raised when the meaning of a config changes
    PAPER: ClassVar[str]  # bibliography key and where to find it
    NUM_VIEWS: ClassVar[int]  # augmented views of an image that `loss` wants
    RECIPE: ClassVar[str]  # key of methods.views.RECIPES, unless a sweep says otherwise
    TRAINS: ClassVar[bool] = True
    DEPARTS: ClassVar[tuple[str, ...]] = ()  # where we choose between, or leave, paper and released code
    Config: ClassVar[type]

    def __init__(self, config: Any, encoder: EncoderConfig, *, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.dim = build_encoder(encoder)
        self.num_classes = num_classes

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

        views: NUM_VIEWS tensors B x 3 x H x W. index: B, positions in the training set. labels: B, for methods that
        are allowed to look.
        """

    def after_step(self, step: Step) -> None:
        """What follows the optimizer's step: moving averages, queues. `step` is the one its loss was given."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Trained parameters: weights, then biases and norm scales and offsets (all the vectors), which papers often
        exempt from weight decay and from LARS. The loop decides what `decay` means."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "decay": True},
            {"params": [p for p in trained if p.ndim <= 1], "decay": False},
        ]

    def features(self, images: Tensor) -> Tensor:
        """B x 3 x H x W -> B x D: the representation that is evaluated."""
        return self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        """B x 3 x H x W -> B x d: the projection that is watched for collapse; the features where there is none."""
        return self.features(images)
