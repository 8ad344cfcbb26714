"""What a detector puts on its trunk: anchors, proposals, RoIAlign, box and mask heads.

torchvision's RegionProposalNetwork and RoIHeads do the matching, the sampling, the box code and the non-maximum suppression.
What they do otherwise than detectron2, which the papers ran, is done here: anchors lie on the trunk's true stride and are not
rounded, boxes are regressed with L1 and not smooth L1, RoIAlign is aligned, masks are learned as bits. All of it is computed
in float32, also where the trunk runs in bfloat16: eight bits do not hold a coordinate.

Boxes are N x 4, as x0 y0 x1 y1 in pixels of the resized image. Labels count from 1; 0 is the background.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

Maps = dict[str, Tensor]
# boxes: N x 4; labels: N; where masks are learned, masks: N x H x W bool in pixels of the photo as it is stored, and
# mask_scale: 4, what boxes are multiplied by to be in those pixels.
Targets = list[dict[str, Tensor]]

_RATIOS = (0.5, 1.0, 2.0)  # height over width
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Anchors(nn.Module):
    """A x 4 per image, for maps of the given strides. sizes: of each map, in pixels (square roots of areas).

    The first anchor of a map is centred on the image's corner (detectron2's OFFSET 0).
    """

    def __init__(self, strides: Sequence[int], sizes: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.strides, self.sizes = tuple(strides), tuple(tuple(level) for level in sizes)

    def num_anchors_per_location(self) -> list[int]:
        return [len(level) * len(_RATIOS) for level in self.sizes]

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        levels = [self._level(*level) for level in zip(maps, self.strides, self.sizes, strict=True)]
        return [torch.cat(levels)] * len(images.image_sizes)

    def _level(self, at: Tensor, stride: int, sizes: Sequence[float]) -> Tensor:
        """Row by row, all shapes of a place together: the order of the head's outputs."""
        shapes = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for size in sizes for ratio in _RATIOS]
        cell = torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in shapes], device=at.device)
        y = torch.arange(at.shape[-2], device=at.device, dtype=torch.float32) * stride
        x = torch.arange(at.shape[-1], device=at.device, dtype=torch.float32) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        places = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        return (places + cell).reshape(-1, 4)


class _ProposalHead(RPNHead):
    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, deltas = super().forward(x)
        return [level.float() for level in scores], [level.float() for level in deltas]


class Proposals(RegionProposalNetwork):
    """The region proposal network of Faster R-CNN (1506.01497, section 3.1), with L1 on the boxes."""

    def __init__(self, anchors: Anchors, channels: int, protocol: dict[str, Any]) -> None:
        head = _ProposalHead(channels, anchors.num_anchors_per_location()[0])
        before = {"training": protocol["rpn_pre_nms_train"], "testing": protocol["rpn_pre_nms_test"]}
        after = {"training": protocol["rpn_post_nms_train"], "testing": protocol["rpn_post_nms_test"]}
        super().__init__(anchors, head, 0.7, 0.3, protocol["rpn_batch"], 0.5, before, after, 0.7)

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        positive, negative = (torch.cat(chosen) > 0 for chosen in self.fg_bg_sampler(labels))
        sampled = positive | negative
        count = sampled.sum().clamp_min(1)
        scores = F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum")
        boxes = F.l1_loss(pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], reduction="sum")
        return scores / count, boxes / count


class RoIPool(nn.Module):
    """RoIAlign (1703.06870, section 3) of every box from the map that fits its size, R x C x side x side.

    The map: equation 1 of the feature pyramids (1612.03144), with a box of 56 strides of the finest map (224 pixels on a
    ResNet) on the third.
    """

    def __init__(self, names: Sequence[str], strides: Sequence[int], side: int) -> None:
        super().__init__()
        self.names, self.strides, self.side = tuple(names), tuple(strides), side

    def forward(self, maps: Maps, boxes: list[Tensor]) -> Tensor:
        image = torch.cat([torch.full_like(some[:, :1], number) for number, some in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(boxes)], dim=1)  # R x 5
        if len(self.names) == 1:
            return self._pooled(maps, 0, rois)
        level = self._levels(rois)
        out = rois.new_zeros(len(rois), maps[self.names[0]].shape[1], self.side, self.side)
        for number in range(len(self.names)):
            chosen = (level == number).nonzero()[:, 0]
            out = out.index_copy(0, chosen, self._pooled(maps, number, rois[chosen]))
        return out

    def _pooled(self, maps: Maps, level: int, rois: Tensor) -> Tensor:
        return roi_align(maps[self.names[level]].float(), rois, self.side, 1 / self.strides[level], 0, aligned=True)

    def _levels(self, rois: Tensor) -> Tensor:
        size = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp_min(0).sqrt()
        level = 2 + torch.log2(size / (56 * self.strides[0]) + 1e-8).floor()
        return level.clamp(0, len(self.names) - 1)


class _Predictor(FastRCNNPredictor):
    """R x D -> R x (1 + classes) logits, R x 4 (1 + classes) deltas."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, 1 + classes)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class _MaskPredictor(MaskRCNNPredictor):
    """P x C x s x s -> P x (1 + classes) x 2s x 2s logits; that of the background is never used."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, 256, 1 + classes)
        nn.init.zeros_(self.conv5_mask.bias)
        nn.init.normal_(self.mask_fcn_logits.weight, std=0.001)
        nn.init.zeros_(self.mask_fcn_logits.bias)


class Heads(RoIHeads, ABC):
    """Of Faster R-CNN, and of Mask R-CNN with `masks`. What is made of the regions' maps is its subclasses'."""

    def __init__(self, pool: RoIPool, width: int, classes: int, protocol: dict[str, Any]) -> None:
        """width: of the vectors that classes and boxes are read from."""
        super().__init__(
            pool, None, _Predictor(width, classes), 0.5, 0.5, protocol["roi_batch"], protocol["roi_positive"], _BOX_WEIGHTS,
            protocol["score_threshold"], protocol["nms_threshold"], protocol["detections"],
        )  # fmt: skip
        self.masks = False

    @abstractmethod
    def regions(self, maps: Maps, boxes: list[Tensor]) -> Tensor:
        """R x C x s x s for all boxes together."""

    @abstractmethod
    def vectors(self, regions: Tensor) -> Tensor:
        """R x width."""

    @abstractmethod
    def mask_maps(self, maps: Maps, boxes: list[Tensor], regions: Tensor | None) -> Tensor:
        """P x C x s x s for boxes with an object; regions: theirs, where they are known."""

    def forward(
        self, features: Maps, proposals: list[Tensor], image_shapes: list[tuple[int, int]], targets: Targets | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if self.training:
            return [], self._losses(features, proposals, targets)
        scores, deltas = self.box_predictor(self.vectors(self.regions(features, proposals)))
        found = zip(*self.postprocess_detections(scores, deltas, proposals, image_shapes), strict=True)
        results = [{"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in found]
        if self.masks:
            logits = self.mask_predictor(self.mask_maps(features, [result["boxes"] for result in results], None)).float()
            for result, masks in zip(results, maskrcnn_inference(logits, [r["labels"] for r in results]), strict=True):
                result["masks"] = masks[:, 0]  # n x side x side, probabilities inside the box
        return results, {}

    def _losses(self, features: Maps, proposals: list[Tensor], targets: Targets | None) -> dict[str, Tensor]:
        boxes, matched, labels, wanted = self.select_training_samples(proposals, targets)
        regions = self.regions(features, boxes)
        scores, deltas = self.box_predictor(self.vectors(regions))
        label = torch.cat(labels)
        positive = (label > 0).nonzero()[:, 0]
        own = deltas.view(len(deltas), -1, 4)[positive, label[positive]]
        box = F.l1_loss(own, torch.cat(wanted)[positive], reduction="sum") / len(label)
        losses = {"loss_classifier": F.cross_entropy(scores, label), "loss_box_reg": box}
        if self.masks and len(positive) == 0:  # nothing to learn from, and batch norms need something
            losses["loss_mask"] = deltas.sum() * 0
        elif self.masks:
            assert targets is not None
            some = [each[label > 0] for each, label in zip(boxes, labels, strict=True)]
            logits = self.mask_predictor(self.mask_maps(features, some, regions[positive])).float()
            bits = [
                _bits(target["masks"], each * target["mask_scale"], index[label > 0], logits.shape[-1])
                for target, each, index, label in zip(targets, some, matched, labels, strict=True)
            ]
            chosen = logits[torch.arange(len(positive), device=logits.device), label[positive]]
            loss = F.binary_cross_entropy_with_logits(chosen, torch.cat(bits), reduction="sum")
            losses["loss_mask"] = loss / chosen.numel()
        return losses


class C4Heads(Heads):
    """layer4 and what follows it, run on every region; boxes read the mean of its map, masks the map itself."""

    def __init__(self, pool: RoIPool, stage: nn.Module, width: int, classes: int, protocol: dict[str, Any]) -> None:
        super().__init__(pool, width, classes, protocol)
        self.stage, self.masks = stage, protocol["masks"]
        if self.masks:
            self.mask_predictor = _MaskPredictor(width, classes)

    def regions(self, maps: Maps, boxes: list[Tensor]) -> Tensor:
        out: Tensor = self.stage(self.box_roi_pool(maps, boxes).contiguous(memory_format=torch.channels_last))
        return out

    def vectors(self, regions: Tensor) -> Tensor:
        return regions.mean(dim=(2, 3))

    def mask_maps(self, maps: Maps, boxes: list[Tensor], regions: Tensor | None) -> Tensor:
        return self.regions(maps, boxes) if regions is None else regions


class PyramidHeads(Heads):
    """Two linear layers for boxes; for masks, maps of their own through `mask_head` (None: no masks)."""

    def __init__(
        self, pool: RoIPool, mask_pool: RoIPool, classes: int, mask_head: nn.Module | None, protocol: dict[str, Any]
    ) -> None:
        channels, width = protocol["fpn_width"], protocol["head_width"]
        super().__init__(pool, width, classes, protocol)
        self.box_head = TwoMLPHead(channels * pool.side**2, width)
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        self.masks = mask_head is not None
        if mask_head is not None:
            self.mask_roi_pool, self.mask_head = mask_pool, mask_head
            self.mask_predictor = _MaskPredictor(channels, classes)

    def regions(self, maps: Maps, boxes: list[Tensor]) -> Tensor:
        out: Tensor = self.box_roi_pool(maps, boxes)
        return out

    def vectors(self, regions: Tensor) -> Tensor:
        out: Tensor = self.box_head(regions)
        return out

    def mask_maps(self, maps: Maps, boxes: list[Tensor], regions: Tensor | None) -> Tensor:
        out: Tensor = self.mask_head(self.mask_roi_pool(maps, boxes))
        return out


def _bits(masks: Tensor, boxes: Tensor, index: Tensor, side: int) -> Tensor:
    """P x side x side of 0 and 1: the part of mask `index` inside each box, 1 where more than half of a cell is covered."""
    rois = torch.cat([index[:, None].to(boxes), boxes], dim=1)
    if len(masks) == 0:
        return boxes.new_zeros(0, side, side)
    return (roi_align(masks[:, None].float(), rois, side, 1.0, 0, aligned=True)[:, 0] >= 0.5).float()
