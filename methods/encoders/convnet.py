"""Four plain convolutions: the encoder of smoke tests, where a step must cost milliseconds on one core."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from methods.encoders.config import EncoderConfig
from methods.encoders.resnet import conv, scaled, stem
from methods.norms import norm_2d

_CHANNELS = (32, 64, 128, 128)


class ConvNet(nn.Module):
    """B x 3 x H x W -> B x out_dim: the stem, then three 3x3 convolutions of stride 2, each with norm and ReLU."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        widths = [scaled(c, config.width) for c in _CHANNELS]
        first, pool = stem(config, widths[0])
        layers: list[nn.Module] = [first, norm_2d(config.norm, widths[0], config.groups), nn.ReLU(inplace=True), pool]
        for inputs, outputs in itertools.pairwise(widths):
            layers.append(conv(config, inputs, outputs, 3, 2))
            layers.append(norm_2d(config.norm, outputs, config.groups))
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)
        self.out_dim = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        return torch.mean(self.layers(images), dim=(2, 3))  # B x D
