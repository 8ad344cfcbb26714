"""What an encoder is, in plain words: read by planning, so this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

EncoderName = Literal[
    "convnet",
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vit_tiny",
    "vit_small",
    "vit_base",
]
Stem = Literal["imagenet", "cifar", "stride2"]
EncoderNorm = Literal["batch", "group", "group_ws", "layer", "none", "affine"]
PatchProjection = Literal["learned", "frozen"]
Positions = Literal["sincos", "learned"]

BOTTLENECKS = ("resnet50", "resnet101", "resnet152")
VITS = ("vit_tiny", "vit_small", "vit_base")

# Switches that an encoder of the other kind would silently ignore: there they must be at their default. Settings of size
# (stem, groups, patch_size, zero_init) may be said for all rows of a sweep at once and are left unused where they mean nothing.
_OF_CONVOLUTIONS = ("norm", "bn_splits", "sk")
_OF_VITS = ("heads", "drop_path", "patch_projection", "positions")

# Of settings that came after records were published: at its default such a setting is left out of a cell's config, so that
# a cell that does not use it keeps the id it had.
LATER = {"later": True}


@dataclass(frozen=True)
class EncoderConfig:
    """An image encoder, B x C x H x W -> B x D: a convolutional one pooled over space, or a ViT's class token.

    name: `resnet18`, `34`, `50`, `101` and `152` are torchvision's (same parameter names); `resnet10` has one basic block a
        stage; `convnet` is four plain convolutions of 32-64-128-128 channels, for smoke tests. `vit_tiny`, `vit_small` and
        `vit_base` have twelve blocks of 192, 384 and 768 channels.
    width: multiplies every channel count, a ViT's too.

    Of convolutional encoders (a ViT has layer norms, and refuses another norm, bn_splits or sk):
    stem: `imagenet` is 7x7 stride 2 and a max-pool, `cifar` 3x3 stride 1, `stride2` 3x3 stride 2 without a pool.
    norm: what follows every convolution.
        `batch` batch norm; `group` group norm; `group_ws` group norm with weight-standardized convolutions;
        `layer` group norm with one group, that is over channels and space together;
        `affine` no statistics: a scale and an offset per channel, set from the first batch so that the network starts
        as its batch-norm twin would, then trained (Richemond et al., 2010.10241, section 3.3); `none` a bias only.
    groups: of the group norms; where it does not divide a channel count, the largest smaller divisor is taken.
    zero_init: the last norm's scale of each residual block starts at zero, so that a block starts as the identity
        (BYOL's and SimSiam's code; torchvision's default, which the batch-norm blog ran, is false). It does nothing
        where there is no such scale: norm `none`, `convnet`, a ViT.
    bn_splits: of norm `batch`: how many parts of the batch have statistics of their own. 8 is MoCo on eight GPUs, on any
        number of them; 1 is the whole batch, synchronized over all ranks.
    sk: selective kernels (1903.06586) in the place of each bottleneck's 3x3 convolution, with the stem and the shortcuts
        of ResNet-D (1812.01187), which SimCLR v2's code switches on together; of resnet50, resnet101 and resnet152.

    Of ViTs (a convolutional encoder has no patch_size and no grid, and refuses the others):
    patch_size: side of the square patches; it must divide the sides of every view.
    heads: of the attention; 0 is one for every 64 channels. MoCo v3's ViT-Small has 12.
    drop_path: stochastic depth (1603.09382): the rate at which a sample skips a branch of the last block; the first
        block's is 0, those between rise evenly. Only where gradients are taken: targets and evaluation run whole.
    patch_projection: `frozen` leaves the patch projection as it was drawn, MoCo v3's trick against instability.
    positions: `sincos` adds fixed sines and cosines of a patch's row and column, as MoCo v3; `learned` a trained vector for
        each patch of a square of `grid` x `grid` and for the class token, as DINO and DeiT, stretched over other views.
        224 pixels in patches of 16 are a grid of 14.
    """

    name: EncoderName = "resnet18"
    stem: Stem = "imagenet"
    norm: EncoderNorm = "batch"
    width: float = 1.0
    groups: int = 16
    zero_init: bool = True
    bn_splits: int = field(default=1, metadata=LATER)
    sk: bool = field(default=False, metadata=LATER)
    patch_size: int = field(default=16, metadata=LATER)
    heads: int = field(default=0, metadata=LATER)
    drop_path: float = field(default=0.0, metadata=LATER)
    patch_projection: PatchProjection = field(default="learned", metadata=LATER)
    positions: Positions = field(default="sincos", metadata=LATER | {"governs": {"sincos": ["grid"]}})
    grid: int = field(default=14, metadata=LATER)

    def __post_init__(self) -> None:
        if self.width <= 0.0:
            raise ValueError(f"encoder.width must be positive, not {self.width}")
        if self.bn_splits < 1:
            raise ValueError(f"encoder.bn_splits must be at least 1, not {self.bn_splits}")
        if self.patch_size < 1:
            raise ValueError(f"encoder.patch_size must be at least 1, not {self.patch_size}")
        if self.heads < 0:
            raise ValueError(f"encoder.heads must be at least 0, not {self.heads}")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"encoder.drop_path must be in [0, 1), not {self.drop_path}")
        if self.patch_projection not in ("learned", "frozen"):
            raise ValueError(f"encoder.patch_projection must be learned or frozen, not '{self.patch_projection}'")
        if self.positions not in ("sincos", "learned"):
            raise ValueError(f"encoder.positions must be sincos or learned, not '{self.positions}'")
        if self.grid < 1:
            raise ValueError(f"encoder.grid must be at least 1, not {self.grid}")
        for setting in fields(self):
            said = getattr(self, setting.name)
            if setting.name in (_OF_CONVOLUTIONS if self.name in VITS else _OF_VITS) and said != setting.default:
                raise ValueError(f"encoder '{self.name}' has no {setting.name}; leave it at {setting.default}, not {said}")
        if self.sk and self.name not in BOTTLENECKS:
            raise ValueError(f"encoder.sk needs bottlenecks, that is one of {', '.join(BOTTLENECKS)}, not '{self.name}'")
