"""Residual networks of any width, stem and norm, named as torchvision names its own.

He et al. (1512.03385) with the stride of a bottleneck on its 3x3 convolution, as torchvision has it. With norm `batch`,
stem `imagenet` and width 1, a torchvision state dict without its `fc` entries loads as it is (a test does so).

With `sk`, SimCLR v2's network. Parameters and running statistics without a head, in millions, as its README prints them
beside table 1 (2006.10029):

    width       resnet50    + sk    resnet101    + sk    resnet152    + sk
    1                 24      35           43      65           58      89
    2                 94     140          170     257          233     354
    3                                                                  795
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.encoders.config import EncoderConfig
from methods.norms import Conv2d, StandardizedConv2d, norm_2d

# name -> (blocks in each of the four stages, whether they are bottlenecks)
BLOCKS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
_EXPANSION = 4
# SimCLR v2's released code: the gate of a selective kernel is a sixteenth as wide as its streams, at least 32.
_GATE_RATIO, _GATE_LEAST = 0.0625, 32


def conv(config: EncoderConfig, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the side (divided by stride), with a bias only where no norm follows, He-initialized."""
    kind = StandardizedConv2d if config.norm == "group_ws" else Conv2d
    layer = kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=config.norm == "none")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def norm(config: EncoderConfig, channels: int) -> nn.Module:
    """What follows a convolution of `channels` outputs."""
    return norm_2d(config.norm, channels, config.groups, config.bn_splits)


def stem(config: EncoderConfig, inputs: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """The first convolution and what follows its norm and ReLU: a max-pool or nothing.

    ResNet-D's three 3x3 convolutions in the place of one of 7x7, where there are selective kernels.
    """
    if config.stem == "imagenet" and config.sk:
        half = max(1, channels // 2)
        first = [conv(config, inputs, half, 3, 2), norm(config, half), nn.ReLU(inplace=True)]
        second = [conv(config, half, half, 3), norm(config, half), nn.ReLU(inplace=True)]
        return nn.Sequential(*first, *second, conv(config, half, channels, 3)), nn.MaxPool2d(3, 2, padding=1)
    if config.stem == "imagenet":
        return conv(config, inputs, channels, 7, 2), nn.MaxPool2d(3, 2, padding=1)
    if config.stem not in ("cifar", "stride2"):
        raise ValueError(f"unknown stem '{config.stem}'; the stems are imagenet, cifar, stride2")
    return conv(config, inputs, channels, 3, 1 if config.stem == "cifar" else 2), nn.Identity()


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, at least one."""
    return max(1, round(channels * width))


# NOTE(departs): Where the paper on selective kernels (1903.06586) mixes a 3x3 and a dilated 3x3 convolution, both in groups,
# this follows SimCLR v2's released code: two plain 3x3 convolutions.
class SelectiveKernel(nn.Module):
    """Two 3x3 convolutions, each with norm and ReLU, mixed in proportions of each sample and channel:

        u_i = relu(norm(conv_i(x))) for i = 1, 2         s = mean over space of u_1 + u_2
        (a_1, a_2) = softmax over i of W_i relu(norm(V s))
        y = a_1 u_1 + a_2 u_2

    V and W are the gate, of 1x1 convolutions.
    """

    def __init__(self, config: EncoderConfig, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = conv(config, channels, 2 * channels, 3, stride)  # of u_1 and u_2 side by side
        self.bn = norm(config, 2 * channels)
        self.relu = nn.ReLU(inplace=True)
        width = max(int(channels * _GATE_RATIO), _GATE_LEAST)
        # A vector has few numbers to a group, one alone would come out as zero: over all of them.
        kind = "layer" if config.norm in ("group", "group_ws") else config.norm
        # No norm follows the last one, so its weights are not standardized: that would fix how sharp the softmax is.
        last = nn.Conv2d(width, 2 * channels, 1, bias=config.norm == "none")
        nn.init.kaiming_normal_(last.weight, mode="fan_out", nonlinearity="relu")
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        squeeze = [conv(config, channels, width, 1), norm_2d(kind, width, config.groups, config.bn_splits)]
        self.gate = nn.Sequential(*squeeze, nn.ReLU(inplace=True), last)

    def forward(self, x: Tensor) -> Tensor:
        streams = self.relu(self.bn(self.conv(x)))  # B x 2 C x h x w
        first, second = streams.chunk(2, dim=1)
        mix = self._mix(streams)
        return first * mix[:, 0] + second * mix[:, 1]

    def _mix(self, streams: Tensor) -> Tensor:  # B x 2 C x h x w -> B x 2 x C x 1 x 1
        # In full precision: the gate's norm enlarges small differences between the samples' means.
        with torch.autocast(streams.device.type, enabled=False):
            means = torch.mean(streams, dim=(2, 3), keepdim=True, dtype=self.conv.weight.dtype)
            first, second = means.chunk(2, dim=1)  # B x C x 1 x 1
            return torch.softmax(self.gate(first + second).unflatten(1, (2, -1)), dim=1).to(streams.dtype)


class BasicBlock(nn.Module):
    """x + (3x3, norm, ReLU, 3x3, norm)(x), then ReLU."""

    def __init__(self, config: EncoderConfig, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(config, inputs, planes, 3, stride)
        self.bn1 = norm(config, planes)
        self.conv2 = conv(config, planes, planes, 3)
        self.bn2 = norm(config, planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(config, inputs, planes, stride)
        if config.zero_init:
            zero_scale(self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """x + (1x1, norm, ReLU, 3x3, norm, ReLU, 1x1, norm)(x), then ReLU; the last 1x1 widens four times."""

    def __init__(self, config: EncoderConfig, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(config, inputs, planes, 1)
        self.bn1 = norm(config, planes)
        if config.sk:  # has its own norm and ReLU: another ReLU leaves the mix of two positive maps as it is
            self.conv2: nn.Module = SelectiveKernel(config, planes, stride)
            self.bn2: nn.Module = nn.Identity()
        else:
            self.conv2, self.bn2 = conv(config, planes, planes, 3, stride), norm(config, planes)
        self.conv3 = conv(config, planes, planes * _EXPANSION, 1)
        self.bn3 = norm(config, planes * _EXPANSION)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(config, inputs, planes * _EXPANSION, stride)
        if config.zero_init:
            zero_scale(self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(config: EncoderConfig, inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """None where x has already the block's output shape, else a 1x1 convolution and its norm.

    Where there are selective kernels it is ResNet-D's: the stride is an average pool's, so that no pixel is left out.
    """
    if stride == 1 and inputs == outputs:
        return None
    if config.sk:
        return nn.Sequential(AveragePool(stride), conv(config, inputs, outputs, 1), norm(config, outputs))
    return nn.Sequential(conv(config, inputs, outputs, 1, stride), norm(config, outputs))


# NOTE(departs): Where the stride is 1, ResNet-D (1812.01187) has no pool in the shortcut; SimCLR v2's released code averages
# each pixel with its right and lower neighbours there too, and so does this.
class AveragePool(nn.Module):
    """The mean over 2x2 pixels at every `stride`, 1 or 2, that keeps the side (divided by stride, rounded up).

    At stride 1 the mean is over the pixels that exist; at stride 2 an odd side is filled up with zeros.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:  # a border pixel counted twice is the mean without the missing one
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)
        return F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2, 2)


def stage(
    config: EncoderConfig,
    block: type[BasicBlock] | type[Bottleneck],
    count: int,
    inputs: int,
    planes: int,
    outputs: int,
    stride: int,
) -> nn.Sequential:
    """`count` blocks; the first one takes the stride and the change from `inputs` to `outputs` channels."""
    rest = [block(config, outputs, planes, 1) for _ in range(count - 1)]
    return nn.Sequential(block(config, inputs, planes, stride), *rest)


def zero_scale(layer: nn.Module) -> None:
    """Start a norm's scale at zero; a layer without a scale (norm `none`) is left alone."""
    scale = getattr(layer, "weight", None)
    if isinstance(scale, nn.Parameter):
        nn.init.zeros_(scale)


# NOTE(departs): Convolutions are He-initialized by their outputs, as torchvision's; SimCLR's released code draws them from a
# truncated normal of variance 1 / inputs.
# NOTE(departs): The max-pool of the stem is padded on all sides, as torchvision's; SimCLR's released code pads an even side
# on the right and below only, which shifts the grid by one pixel.
class ResNet(nn.Module):
    """B x C x H x W -> B x out_dim: stem, four stages, mean over space."""

    def __init__(self, config: EncoderConfig, inputs: int = 3) -> None:
        super().__init__()
        self.config = config
        counts, bottleneck = BLOCKS[config.name]
        channels = scaled(64, config.width)
        self.conv1, self.maxpool = stem(config, inputs, channels)
        self.bn1 = norm(config, channels)
        self.relu = nn.ReLU(inplace=True)
        block = Bottleneck if bottleneck else BasicBlock
        planes = [scaled(64 * 2**i, config.width) for i in range(4)]
        outputs = [p * (_EXPANSION if bottleneck else 1) for p in planes]
        self.layer1 = stage(config, block, counts[0], channels, planes[0], outputs[0], 1)
        self.layer2 = stage(config, block, counts[1], outputs[0], planes[1], outputs[1], 2)
        self.layer3 = stage(config, block, counts[2], outputs[1], planes[2], outputs[2], 2)
        self.layer4 = stage(config, block, counts[3], outputs[2], planes[3], outputs[3], 2)
        self.out_dim = outputs[3]

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # B x D x h x w
        return torch.mean(x, dim=(2, 3))  # B x D
