"""Residual networks of any width, stem and norm, named as torchvision names its own.

He et al. (1512.03385) with the stride of a bottleneck on its 3x3 convolution, as torchvision has it. With norm `batch`,
stem `imagenet` and width 1, a torchvision state dict without its `fc` entries loads as it is (a test does so).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.encoders.config import EncoderConfig
from methods.norms import StandardizedConv2d, norm_2d

# name -> (blocks in each of the four stages, whether they are bottlenecks)
BLOCKS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet50": ((3, 4, 6, 3), True),
}
_EXPANSION = 4


def conv(config: EncoderConfig, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the side (divided by stride), with a bias only where no norm follows, He-initialized."""
    kind = StandardizedConv2d if config.norm == "group_ws" else nn.Conv2d
    layer = kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=config.norm == "none")
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def norm(config: EncoderConfig, channels: int) -> nn.Module:
    """What follows a convolution of `channels` outputs."""
    return norm_2d(config.norm, channels, config.groups, config.bn_splits)


def stem(config: EncoderConfig, inputs: int, channels: int) -> tuple[nn.Conv2d, nn.Module]:
    """The first convolution and what follows its norm and ReLU: a max-pool or nothing."""
    if config.stem == "imagenet":
        return conv(config, inputs, channels, 7, 2), nn.MaxPool2d(3, 2, padding=1)
    if config.stem not in ("cifar", "stride2"):
        raise ValueError(f"unknown stem '{config.stem}'; the stems are imagenet, cifar, stride2")
    return conv(config, inputs, channels, 3, 1 if config.stem == "cifar" else 2), nn.Identity()


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, at least one."""
    return max(1, round(channels * width))


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
        self.conv2 = conv(config, planes, planes, 3, stride)
        self.bn2 = norm(config, planes)
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
    """None where x has already the block's output shape, else a 1x1 convolution and its norm."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(config, inputs, outputs, 1, stride), norm(config, outputs))


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


class ResNet(nn.Module):
    """B x C x H x W -> B x out_dim: stem, four stages, mean over space."""

    def __init__(self, config: EncoderConfig, inputs: int = 3) -> None:
        super().__init__()
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
