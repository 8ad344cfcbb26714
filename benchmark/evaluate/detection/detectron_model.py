"""detectron2's Faster and Mask R-CNN on our residual encoders, as MoCo builds them (1911.05722, section 4.2; released code,
detection/train_net.py and detection/configs).

    c4    stem, res2 ... res4 -> RPN, RoIAlign 14 x 14 -> res5, an extra batch norm -> boxes, and masks from the same maps
    fpn   res2 ... res5 -> feature pyramid -> RPN on five levels,
          RoIAlign 7 x 7 -> two linear layers -> boxes; RoIAlign 14 x 14 -> four convolutions -> masks

Blocks, heads, losses, matching and sampling are detectron2's; how many and how wide is told by the encoder and the protocol.
The weights are converted in memory, and the same image must give the same maps of all four stages.

This module needs detectron2, so `detectron` imports it late.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import GeneralizedRCNN, build_box_head, build_mask_head, build_proposal_generator
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads, ROIHeads, StandardROIHeads
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate.detection.convert import to_detectron2
from methods.encoders.resnet import Bottleneck
from methods.encoders.resnet import ResNet as Encoder

_STAGES = ("res2", "res3", "res4", "res5")
_CLOSE = 1e-4  # of the largest value of a map: float32 sums in another order


def build_detector(
    backbone: nn.Module, protocol: dict[str, Any], classes: int, mean: Sequence[float], std: Sequence[float]
) -> GeneralizedRCNN:
    """A detector with a copy of `backbone`'s weights; the caller seeds the new layers. mean, std: of RGB in [0, 1].

    In training: detectron2's batches -> losses by name. InputError where `backbone` is no ResNet that detectron2 can build.
    """
    name, cfg = protocol["name"], settings(protocol, classes)
    encoder, norm = _checked(backbone, name), cfg.MODEL.RESNETS.NORM
    stem, stages = _stem(encoder, norm), [_stage(getattr(encoder, f"layer{number}"), norm) for number in range(1, 5)]
    _load(encoder, stem, stages, name)
    check_maps(encoder, stem, stages, name)
    if protocol["architecture"] == "c4":
        trunk = maps = ResNet(stem, stages[:3], out_features=["res4"])
        heads: nn.Module = _c4_heads(cfg, trunk.output_shape()["res4"].stride, stages[3], protocol)
    else:
        trunk = ResNet(stem, stages, out_features=list(_STAGES))
        maps = _pyramid(cfg, trunk, protocol)
        heads = _pyramid_heads(cfg, maps.output_shape())
    for part in (stem, *stages)[: protocol["freeze_at"]]:
        for block in part if isinstance(part, list) else [part]:
            block.freeze()
    cfg.MODEL.RPN.IN_FEATURES = list(maps.output_shape())
    return GeneralizedRCNN(
        backbone=maps,
        proposal_generator=build_proposal_generator(cfg, maps.output_shape()),
        roi_heads=heads,
        pixel_mean=[255.0 * float(value) for value in mean],
        pixel_std=[255.0 * float(value) for value in std],
        input_format="RGB",
    )


def settings(protocol: dict[str, Any], classes: int) -> CfgNode:
    """The protocol as detectron2's config, as far as its parts read it."""
    cfg = get_cfg()
    model, rpn, heads, solver = cfg.MODEL, cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS, cfg.SOLVER
    # MoCo's released configs have naiveSyncBN, which weighs every process alike; in one process it is batch norm.
    model.RESNETS.NORM = "naiveSyncBN" if protocol["sync_bn"] else "BN"
    extra = model.RESNETS.NORM if protocol["extra_norm"] else ""
    sides = [float(side) for side in protocol["anchor_sides"]]
    model.ANCHOR_GENERATOR.SIZES = [sides]
    rpn.PRE_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TRAIN = protocol["rpn_pre_nms_train"], protocol["rpn_post_nms_train"]
    rpn.PRE_NMS_TOPK_TEST, rpn.POST_NMS_TOPK_TEST = protocol["rpn_pre_nms_test"], protocol["rpn_post_nms_test"]
    rpn.BATCH_SIZE_PER_IMAGE = protocol["rpn_batch"]
    heads.NUM_CLASSES, cfg.TEST.DETECTIONS_PER_IMAGE = classes, protocol["detections"]
    heads.BATCH_SIZE_PER_IMAGE, heads.POSITIVE_FRACTION = protocol["roi_batch"], protocol["roi_positive"]
    heads.SCORE_THRESH_TEST, heads.NMS_THRESH_TEST = protocol["score_threshold"], protocol["nms_threshold"]
    model.MASK_ON, model.ROI_MASK_HEAD.NAME = protocol["masks"], "MaskRCNNConvUpsampleHead"
    if protocol["architecture"] == "fpn":
        model.ANCHOR_GENERATOR.SIZES = [[side] for side in sides]
        model.FPN.OUT_CHANNELS, model.FPN.NORM = protocol["fpn_width"], extra
        box, mask = model.ROI_BOX_HEAD, model.ROI_MASK_HEAD
        box.NAME, box.NUM_FC, box.FC_DIM, box.POOLER_RESOLUTION = "FastRCNNConvFCHead", 2, protocol["head_width"], 7
        mask.NUM_CONV, mask.CONV_DIM, mask.NORM, mask.POOLER_RESOLUTION = 4, protocol["fpn_width"], extra, 14
    solver.MAX_ITER, solver.STEPS, solver.GAMMA = protocol["iterations"], tuple(protocol["milestones"]), protocol["gamma"]
    solver.WARMUP_ITERS, solver.WARMUP_FACTOR = protocol["warmup_iterations"], protocol["warmup_factor"]
    solver.BASE_LR, solver.MOMENTUM = protocol["learning_rate"], protocol["momentum"]
    solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM = protocol["weight_decay"], 0.0
    return cfg


class Results(nn.Module):
    """A detectron2 detector with the interface of the built-in one in evaluation: images (list of 3 x H x W u1) -> for each,
    boxes n x 4 in its pixels, scores n, labels n (from 1) and masks n x side x side, of probabilities inside the box."""

    def __init__(self, detector: GeneralizedRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        found = self.detector.inference([{"image": image} for image in images], do_postprocess=False)
        results = []
        for one in found:
            result = {"boxes": one.pred_boxes.tensor.float(), "scores": one.scores.float(), "labels": one.pred_classes + 1}
            if one.has("pred_masks"):
                result["masks"] = one.pred_masks[:, 0].float()
            results.append(result)
        return results


@torch.no_grad()
def check_maps(encoder: Encoder, stem: nn.Module, stages: Sequence[Sequence[nn.Module]], name: str) -> None:
    """Raise InputError unless an image gives the same maps of all stages, in evaluation mode on the CPU."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = nn.ModuleList([stem, *(nn.Sequential(*stage) for stage in stages)]).eval()
    ours, theirs = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(image)))), network[0](image)
    for number in range(1, 5):
        ours, theirs = getattr(encoder, f"layer{number}")(ours), network[number](theirs)
        gap = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else math.inf
        if not gap <= _CLOSE * float(ours.abs().max()):
            raise InputError(
                f"{name}: the same image gives other maps in detectron2 than in our encoder (res{number + 1} is off by "
                f"{gap:.2g}); its weights are not finite, or this detectron2 builds another network"
            )


class _SmallStem(CNNBlockBase):
    """Our stems for small images: a 3x3 convolution of stride 1 or 2, without a pool."""

    def __init__(self, channels: int, stride: int, norm: str) -> None:
        super().__init__(3, channels, stride)
        self.conv1 = Conv2d(3, channels, kernel_size=3, stride=stride, padding=1, bias=False, norm=get_norm(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv1(x))


def _checked(backbone: nn.Module, name: str) -> Encoder:
    """A copy of the encoder on the CPU, in evaluation mode."""
    if not isinstance(backbone, Encoder):
        raise InputError(
            f"{name}: the detector's trunk is a ResNet, and this encoder is a {type(backbone).__name__}; take an encoder named "
            "resnet..."
        )
    inputs = next(layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)).in_channels
    if inputs != 3:
        raise InputError(f"{name}: this encoder takes images of {inputs} channels, and the detector's are RGB")
    return copy.deepcopy(backbone).cpu().float().eval()


def _stem(encoder: Encoder, norm: str) -> CNNBlockBase:
    first = next(layer for layer in encoder.conv1.modules() if isinstance(layer, nn.Conv2d))
    if isinstance(encoder.maxpool, nn.MaxPool2d):
        return BasicStem(3, first.out_channels, norm)
    return _SmallStem(first.out_channels, first.stride[0], norm)


def _stage(ours: nn.Sequential, norm: str) -> list[CNNBlockBase]:
    """detectron2's blocks in the shape of one of our stages."""
    first: Any = ours[0]
    wide = isinstance(first, Bottleneck)
    stride = max(layer.stride[0] for layer in first.modules() if isinstance(layer, nn.Conv2d))
    more = {"bottleneck_channels": first.conv1.out_channels, "stride_in_1x1": False} if wide else {}
    blocks: list[CNNBlockBase] = ResNet.make_stage(
        BottleneckBlock if wide else BasicBlock,
        len(ours),
        in_channels=first.conv1.in_channels,
        out_channels=(first.conv3 if wide else first.conv2).out_channels,
        stride_per_block=[stride] + [1] * (len(ours) - 1),
        norm=norm,
        **more,
    )
    return blocks


def _load(encoder: Encoder, stem: nn.Module, stages: Sequence[Sequence[nn.Module]], name: str) -> None:
    try:
        weights = to_detectron2(encoder.state_dict())
    except InputError as error:
        raise InputError(f"{name}: {error}; engine builtin takes this encoder too") from None
    parts = nn.ModuleDict({"stem": stem} | {at: nn.Sequential(*stage) for at, stage in zip(_STAGES, stages, strict=True)})
    parts.load_state_dict(weights)


def _c4_heads(cfg: CfgNode, stride: int, last: list[CNNBlockBase], protocol: dict[str, Any]) -> nn.Module:
    """res5 and what reads its maps; with extra_norm MoCo's batch norm after it (`Res5ROIHeadsExtraNorm` in its code)."""
    width = last[-1].out_channels
    res5 = nn.Sequential(*last)
    if protocol["extra_norm"]:
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, width))
    masks = build_mask_head(cfg, ShapeSpec(channels=width, height=14, width=14)) if protocol["masks"] else None
    return Res5ROIHeads(
        **ROIHeads.from_config(cfg),
        in_features=["res4"],
        pooler=ROIPooler(14, [1 / stride], sampling_ratio=0, pooler_type="ROIAlignV2"),
        res5=res5,
        box_predictor=FastRCNNOutputLayers(cfg, ShapeSpec(channels=width, height=1, width=1)),
        mask_head=masks,
    )


def _pyramid(cfg: CfgNode, trunk: ResNet, protocol: dict[str, Any]) -> FPN:
    top = LastLevelMaxPool()
    last = int(math.log2(trunk.output_shape()["res5"].stride))
    top.in_feature = f"p{last}"  # p5 with the stem of ImageNet; a smaller stem begins lower
    return FPN(trunk, list(_STAGES), protocol["fpn_width"], norm=cfg.MODEL.FPN.NORM, top_block=top)


def _pyramid_heads(cfg: CfgNode, shapes: dict[str, ShapeSpec]) -> nn.Module:
    """A box of 56 strides of the finest map, 224 pixels with the stem of ImageNet, is read from the third map."""
    names = list(shapes)[: len(_STAGES)]
    strides = [shapes[name].stride for name in names]

    def pooler(side: int) -> ROIPooler:
        level = int(math.log2(strides[2]))
        scales = [1 / stride for stride in strides]
        return ROIPooler(side, scales, 0, "ROIAlignV2", canonical_box_size=56 * strides[0], canonical_level=level)

    width = cfg.MODEL.FPN.OUT_CHANNELS
    box_head = build_box_head(cfg, ShapeSpec(channels=width, height=7, width=7))
    parts = {
        "box_in_features": names,
        "box_pooler": pooler(7),
        "box_head": box_head,
        "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),
    }
    if cfg.MODEL.MASK_ON:
        mask_head = build_mask_head(cfg, ShapeSpec(channels=width, height=14, width=14))
        parts |= {"mask_in_features": names, "mask_pooler": pooler(14), "mask_head": mask_head}
    return StandardROIHeads(**ROIHeads.from_config(cfg), **parts)
