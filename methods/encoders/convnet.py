"""Four plain convolutions: the encoder of smoke tests, where a step must cost milliseconds on one core."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from methods.encoders.config import EncoderConfig
from methods.encoders.resnet import conv, norm, scaled, stem

_CHANNELS = (32, 64, 128, 128)


class ConvNet(nn.Module):
    """B x C x H x W -> B x out_dim: the stem, then three 3x3 convolutions of stride 2, each with norm and ReLU."""

    def __init__(self, config: EncoderConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        widths = [scaled(c, config.width) for c in _CHANNELS]
        first, pool = stem(config, channels, widths[0])
        layers: list[nn.Module] = [first, norm(config, widths[0]), nn.ReLU(inplace=True), pool]
        for inputs, outputs in itertools.pairwise(widths):
            layers.append(conv(config, inputs, outputs, 3, 2))
            layers.append(norm(config, outputs))
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)
        self.out_dim = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        return torch.mean(self.layers(images), dim=(2, 3))  # B x D
