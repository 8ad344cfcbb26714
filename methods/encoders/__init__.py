"""Encoders: `build_encoder(EncoderConfig(...))`. Importing this package does not import torch; building does."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from methods.encoders.config import VITS, EncoderConfig, EncoderName

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EncoderConfig", "build_encoder"]


def build_encoder(config: EncoderConfig, channels: int = 3) -> tuple[nn.Module, int]:
    """The encoder of images of `channels` and its output dimension D. ValueError for a name or norm that does not exist."""
    from methods.encoders.convnet import ConvNet
    from methods.encoders.resnet import BLOCKS, ResNet
    from methods.encoders.vit import ViT

    if config.name == "convnet":
        encoder: ConvNet | ResNet | ViT = ConvNet(config, channels)
    elif config.name in BLOCKS:
        encoder = ResNet(config, channels)
    elif config.name in VITS:
        encoder = ViT(config, channels)
    else:
        raise ValueError(f"unknown encoder '{config.name}'; the encoders are {', '.join(get_args(EncoderName))}")
    return encoder, encoder.out_dim
