"""Faster and Mask R-CNN with our residual encoder as the trunk, from torchvision's parts: C4 as MoCo transfers (1911.05722,
section 4.2), and a feature pyramid.

    c4    conv1 ... layer3 -> proposals, RoIAlign 14 x 14 -> layer4, an extra batch norm -> boxes, and masks from the same maps
    fpn   layer1 ... layer4 -> feature pyramid -> proposals on five levels,
          RoIAlign 7 x 7 -> two linear layers -> boxes; RoIAlign 14 x 14 -> four convolutions -> masks

Everything is trained, batch norms included, whose statistics are those of the whole batch over all processes. Maps have the
strides that the trunk's stem gives them: with that of ImageNet 4 to 64 pixels, as detectron2's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from benchmark.errors import InputError
from benchmark.evaluate.detection.parts import Anchors, C4Heads, Maps, Proposals, PyramidHeads, RoIPool, Targets
from methods.encoders.resnet import ResNet
from methods.norms import BatchNorm1d, BatchNorm2d, Conv2d

_LEVELS = ("c2", "c3", "c4", "c5")


def build_detector(
    backbone: nn.Module, protocol: dict[str, Any], classes: int, mean: Sequence[float], std: Sequence[float]
) -> GeneralizedRCNN:
    """A detector on a copy of `backbone`'s weights; the caller seeds the new layers.

    In training: images (list of 3 x H x W u1), targets -> losses by name. In evaluation: images -> for each, boxes n x 4,
    scores n, labels n (from 1) and masks n x side x side. InputError where `backbone` is no ResNet.
    """
    trunk = _copy(backbone, protocol["name"])
    _freeze(trunk, protocol["freeze_at"])
    widths = [_outputs(stage) for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)]
    strides = [_stem_stride(trunk) * 2**number for number in range(5)]
    norm = BatchNorm2d if protocol["extra_norm"] else None
    sides = protocol["anchor_sides"]
    if protocol["architecture"] == "c4":
        maps: nn.Module = Trunk(trunk, ("c4",))
        proposals = Proposals(Anchors(strides[2:3], [sides]), widths[2], protocol)
        last = nn.Sequential(*trunk.layer4, *([norm(widths[3])] if norm else []))
        heads: nn.Module = C4Heads(RoIPool(("c4",), strides[2:3], 14), last, widths[3], classes, protocol)
        multiple = 1
    else:
        width = protocol["fpn_width"]
        maps = Pyramid(Trunk(trunk, _LEVELS), widths, width, norm)
        proposals = Proposals(Anchors(strides, [[side] for side in sides]), width, protocol)
        pool, mask_pool = (RoIPool(_LEVELS, strides[:4], side) for side in (7, 14))
        mask_head = MaskRCNNHeads(width, (width,) * 4, 1, norm_layer=norm) if protocol["masks"] else None
        heads = PyramidHeads(pool, mask_pool, classes, mask_head, protocol)
        multiple = strides[3]
    detector = GeneralizedRCNN(maps, proposals, heads, Canvas(mean, std, multiple))
    for layer in detector.modules():
        if type(layer) is nn.Conv2d:  # torchvision's own layers, of maps that can be one pixel: see methods.norms.Conv2d
            layer.__class__ = Conv2d
    return detector


def batch_norms(module: nn.Module) -> list[BatchNorm1d | BatchNorm2d]:
    """Those that are trained, in the order of the network."""
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm1d | BatchNorm2d) and layer.weight.requires_grad]


class Trunk(nn.Module):
    """Images -> the maps of the named stages. A stage after the last one named is not a part of it."""

    def __init__(self, encoder: ResNet, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.stem = nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu, encoder.maxpool)
        stages = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
        self.stages = nn.ModuleList(stages[: _LEVELS.index(names[-1]) + 1])

    def train(self, mode: bool = True) -> Trunk:
        """Frozen layers keep their running statistics."""
        super().train(mode)
        for part in (self.stem, *self.stages):
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def forward(self, images: Tensor) -> Maps:
        found, x = {}, self.stem(images)
        for name, stage in zip(_LEVELS, self.stages, strict=False):
            x = stage(x)
            if name in self.names:
                found[name] = x
        return found


class Pyramid(nn.Module):
    """The trunk's four maps -> five of `width` channels (1612.03144), each with half the side of the one before.

    MoCo has batch norm in it (1911.05722, section 4.2: "in the newly initialized layers").
    """

    def __init__(self, trunk: Trunk, inputs: list[int], width: int, norm: type[BatchNorm2d] | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = FeaturePyramidNetwork(inputs, width, LastLevelMaxPool(), norm)

    def forward(self, images: Tensor) -> Maps:
        found: Maps = self.pyramid(self.trunk(images))
        return found


class Canvas(nn.Module):
    """What GeneralizedRCNN calls its transform: images of bytes, already resized, normalized and put on one canvas.

    The canvas is as large as the largest image, in multiples of `multiple`; around an image it is 0, the mean colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], multiple: int) -> None:
        """mean, std: of RGB in [0, 1]."""
        super().__init__()
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([float(value) for value in std]).view(3, 1, 1), persistent=False)
        self.multiple = multiple

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> tuple[ImageList, Targets | None]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (-(-max(sides) // self.multiple) * self.multiple for sides in zip(*sizes, strict=True))
        normalized = [(image.float() / 255 - self.mean) / self.std for image in images]
        padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in normalized]
        return ImageList(torch.stack(padded).contiguous(memory_format=torch.channels_last), sizes), targets

    def postprocess(self, result: list[dict[str, Tensor]], shapes: object, original: object) -> list[dict[str, Tensor]]:
        """Boxes stay in pixels of the resized image: whoever resized it knows its size."""
        return result


def _copy(backbone: nn.Module, protocol: str) -> ResNet:
    if not isinstance(backbone, ResNet):
        raise InputError(
            f"{protocol}: the detector's trunk is a ResNet, and this encoder is a {type(backbone).__name__}; take an encoder "
            "named resnet..."
        )
    trunk = copy.deepcopy(backbone).requires_grad_(True)
    for layer in batch_norms(trunk):
        layer.splits = 1  # MoCo's shuffled parts belong to its pretraining; detectors have synchronized batch norm
    return trunk


def _outputs(stage: nn.Module) -> int:
    """Channels of a stage's maps."""
    block: Any = list(stage.children())[-1]
    last: nn.Conv2d = block.conv3 if hasattr(block, "conv3") else block.conv2
    return last.out_channels


def _stem_stride(trunk: ResNet) -> int:
    """Of layer1's maps: 4 with the stem of ImageNet, 2 and 1 with the smaller ones."""
    stride = 1
    for layer in (*trunk.conv1.modules(), trunk.maxpool):
        if isinstance(layer, nn.Conv2d):
            stride *= layer.stride[0]
        elif isinstance(layer, nn.MaxPool2d):
            assert isinstance(layer.stride, int)
            stride *= layer.stride
    return stride


def _freeze(trunk: ResNet, until: int) -> None:
    """detectron2's FREEZE_AT: 0 nothing, 1 the stem, 2 also layer1, and so on."""
    parts = [nn.ModuleList([trunk.conv1, trunk.bn1]), trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    for part in parts[:until]:
        part.requires_grad_(False)
