"""What an encoder is, in plain words: read by planning, so this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

EncoderName = Literal["convnet", "resnet10", "resnet18", "resnet50"]
Stem = Literal["imagenet", "cifar", "stride2"]
EncoderNorm = Literal["batch", "group", "group_ws", "layer", "none", "affine"]


# Of settings that came after records were published: at its default such a setting is left out of a cell's config, so that
# a cell that does not use it keeps the id it had.
LATER = {"later": True}


@dataclass(frozen=True)
class EncoderConfig:
    """An image encoder, B x C x H x W -> B x D, pooled over space.

    name: `resnet18` and `resnet50` are torchvision's (same parameter names); `resnet10` has one basic block a stage;
        `convnet` is four plain convolutions of 32-64-128-128 channels, for smoke tests.
    stem: `imagenet` is 7x7 stride 2 and a max-pool, `cifar` 3x3 stride 1, `stride2` 3x3 stride 2 without a pool.
    norm: what follows every convolution.
        `batch` batch norm; `group` group norm; `group_ws` group norm with weight-standardized convolutions;
        `layer` group norm with one group, that is over channels and space together;
        `affine` no statistics: a scale and an offset per channel, set from the first batch so that the network starts
        as its batch-norm twin would, then trained (Richemond et al., 2010.10241, section 3.3); `none` a bias only.
    width: multiplies every channel count.
    groups: of the group norms; where it does not divide a channel count, the largest smaller divisor is taken.
    zero_init: the last norm's scale of each residual block starts at zero, so that a block starts as the identity
        (BYOL's and SimSiam's code; torchvision's default, which the batch-norm blog ran, is false). It does nothing
        where there is no such scale: norm `none`, and `convnet`.
    bn_splits: of norm `batch`: how many parts of the batch have statistics of their own. 8 is MoCo on eight GPUs, on any
        number of them; 1 is the whole batch, synchronized over all ranks.
    """

    name: EncoderName = "resnet18"
    stem: Stem = "imagenet"
    norm: EncoderNorm = "batch"
    width: float = 1.0
    groups: int = 16
    zero_init: bool = True
    bn_splits: int = field(default=1, metadata=LATER)
