"""The detectors: the encoder's own weights and maps in them, and every part against what it is defined to be."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from benchmark.errors import InputError
from benchmark.evaluate.detection.builtin import pasted
from benchmark.evaluate.detection.model import Canvas, Trunk, batch_norms, build_detector
from benchmark.evaluate.detection.parts import Anchors, Proposals, RoIPool, _bits
from benchmark.plan.protocols.detection import DetectionSmoke
from methods.encoders import EncoderConfig, build_encoder
from methods.norms import BatchNorm2d

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def protocol(**settings):
    return dataclasses.asdict(DetectionSmoke(**settings)) | {"name": "detection_smoke"}


def encoder(seed=0, **settings):
    torch.manual_seed(seed)
    built, _ = build_encoder(EncoderConfig(**({"name": "resnet10", "width": 0.25} | settings)))
    for layer in batch_norms(built):  # statistics that are not those of a fresh layer
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        layer.weight.data.uniform_(0.5, 2)
    return built.eval()


def photos(*sides):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 255, (3, *side), dtype=torch.uint8, generator=generator) for side in sides]


def targets(*sides):
    found = []
    for height, width in sides:
        boxes = torch.tensor([[4.0, 6.0, 0.6 * width, 0.7 * height], [0.5 * width, 0.3 * height, 0.9 * width, 0.8 * height]])
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, height // 4 : height // 2] = True
        masks[1, :, 2 * width // 3 :] = True
        found.append({"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks, "mask_scale": torch.ones(4)})
    return found


@pytest.mark.parametrize("stem", ["imagenet", "stride2", "cifar"])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_the_c4_detector_is_the_encoder_cut_in_two(name, stem):
    own = encoder(name=name, stem=stem)
    detector = build_detector(own, protocol(architecture="c4"), 5, MEAN, STD).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = detector.backbone(images)["c4"]
        stage, extra = detector.roi_heads.stage[:-1], detector.roi_heads.stage[-1]
        torch.testing.assert_close(stage(maps).mean(dim=(2, 3)), own(images))
    assert isinstance(extra, BatchNorm2d)
    assert detector.rpn.anchor_generator.strides == (64 // maps.shape[-1],)
    assert detector.roi_heads.box_roi_pool.strides == (64 // maps.shape[-1],)


def test_without_the_extra_norm_there_is_none():
    own = encoder()
    detector = build_detector(own, protocol(architecture="c4", extra_norm=False), 5, MEAN, STD)
    assert len(detector.roi_heads.stage) == len(own.layer4)
    assert len(batch_norms(detector)) == len(batch_norms(own))


@pytest.mark.parametrize("norm", [True, False])
def test_the_pyramid_stands_on_the_encoders_four_stages(norm):
    own = encoder()
    detector = build_detector(own, protocol(extra_norm=norm), 5, MEAN, STD).eval()
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        maps = detector.backbone.trunk(images)
        torch.testing.assert_close(maps["c5"].mean(dim=(2, 3)), own(images))
        pyramid = detector.backbone(images)
    assert [96 // level.shape[2] for level in maps.values()] == [4, 8, 16, 32]
    assert [level.shape[1] for level in pyramid.values()] == [64] * 5
    assert [level.shape[2] for level in pyramid.values()] == [24, 12, 6, 3, 2]
    new = len(batch_norms(detector)) - len(batch_norms(own))
    assert new == (8 + 4 if norm else 0)  # two for each of four levels, four in the mask head


@pytest.mark.parametrize("architecture", ["c4", "fpn"])
@pytest.mark.parametrize("masks", [True, False])
def test_everything_is_trained_and_the_encoder_that_was_given_is_left_alone(architecture, masks):
    own = encoder()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    settings = protocol(architecture=architecture, masks=masks)
    detector = build_detector(own, settings, 5, MEAN, STD).train()
    sides = (64, 80), (70, 64)
    losses = detector(photos(*sides), targets(*sides))
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"} | (
        {"loss_mask"} if masks else set()
    )
    sum(losses.values()).backward()
    torch.optim.SGD(detector.parameters(), 0.1).step()
    assert not [name for name, p in detector.named_parameters() if p.grad is None]
    for name, value in own.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("architecture", ["c4", "fpn"])
def test_a_photo_without_objects_trains_too(architecture):
    detector = build_detector(encoder(), protocol(architecture=architecture), 5, MEAN, STD).train()
    empty = {
        "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long),
        "masks": torch.zeros(0, 64, 64, dtype=torch.bool), "mask_scale": torch.ones(4),
    }  # fmt: skip
    losses = detector(photos((64, 64)), [empty])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == 0
    losses = detector(photos((64, 64), (64, 64)), [empty, *targets((64, 64))])
    assert losses["loss_mask"] > 0


@pytest.mark.parametrize("architecture", ["c4", "fpn"])
def test_bfloat16_leaves_coordinates_and_losses_in_float32(architecture):
    detector = build_detector(encoder(), protocol(architecture=architecture), 5, MEAN, STD).train()
    sides = (64, 80), (70, 64)
    torch.manual_seed(0)
    full = detector(photos(*sides), targets(*sides))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = detector(photos(*sides), targets(*sides))
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, full[name], atol=0.05, rtol=0.05)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = detector.eval()(photos(*sides))
        proposals, _ = detector.rpn(*_maps(detector, photos(*sides)))
    assert all(boxes.dtype == torch.float32 for boxes in proposals)
    assert all(value.dtype == torch.float32 for one in found for name, value in one.items() if name != "labels")


def _maps(detector, images):
    batch, _ = detector.transform(images)
    return batch, detector.backbone(batch.tensors)


def test_moco_s_shuffled_batch_norms_are_synchronized_here():
    detector = build_detector(encoder(bn_splits=8), protocol(), 5, MEAN, STD)
    assert {layer.splits for layer in batch_norms(detector)} == {1}


@pytest.mark.parametrize("until", [0, 1, 2, 4])
def test_frozen_stages_are_neither_trained_nor_move_their_statistics(until):
    own = encoder()
    detector = build_detector(own, protocol(freeze_at=until), 5, MEAN, STD).train()
    parts = {"conv1": 1, "bn1": 1, "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5}
    trained = [p.requires_grad for p in detector.backbone.trunk.parameters()]
    wanted = [parts[name.split(".")[0]] > until for name, _ in own.named_parameters()]
    assert trained == wanted
    detector(photos((64, 64)), targets((64, 64)))
    moved = detector.backbone.trunk.stem[1].running_mean
    assert torch.equal(moved, own.bn1.running_mean) == (until > 0)


def test_a_vision_transformer_is_refused_in_one_sentence():
    own, _ = build_encoder(EncoderConfig(name="vit_tiny"))
    with pytest.raises(InputError, match="detection_smoke: the detector's trunk is a ResNet, and this encoder is a ViT"):
        build_detector(own, protocol(), 5, MEAN, STD)


def test_anchors_lie_on_the_nominal_stride_also_where_it_does_not_divide_the_photo():
    anchors = Anchors((16, 32), [[32.0, 64.0], [100.0]])
    maps = [torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 2, 3)]
    images = ImageList(torch.zeros(2, 3, 51, 83), [(51, 83), (40, 50)])
    found = anchors(images, maps)
    wanted = []
    for stride, sides, (rows, columns) in ((16, (32, 64), (4, 6)), (32, (100,), (2, 3))):
        for row in range(rows):
            for column in range(columns):
                for side in sides:
                    for ratio in (0.5, 1.0, 2.0):
                        width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
                        x, y = column * stride, row * stride
                        wanted.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    assert len(found) == 2
    assert all(torch.allclose(one, torch.tensor(wanted), atol=1e-4) for one in found)


def test_losses_of_the_proposals_by_hand():
    """With more samples than anchors all count: mean cross-entropy of objectness, sum of |deltas| over the same number."""
    proposals = Proposals(Anchors((16,), [[32.0]]), 8, protocol(rpn_batch=1000))
    generator = torch.Generator().manual_seed(0)
    logits, deltas, wanted = (torch.randn(n, generator=generator) for n in ((30, 1), (30, 4), (30, 4)))
    labels = [torch.tensor([1.0, 0.0, -1.0, 0.0, 1.0] * 3), torch.tensor([0.0, -1.0, 0.0, 0.0, 1.0] * 3)]
    objectness, box = proposals.compute_loss(logits, deltas, labels, [wanted[:15], wanted[15:]])
    entropy, distance, count = 0.0, 0.0, 0
    for number, label in enumerate(torch.cat(labels).tolist()):
        if label < 0:
            continue
        count += 1
        p = 1 / (1 + math.exp(-float(logits[number])))
        entropy -= math.log(p if label else 1 - p)
        if label:
            distance += float((deltas[number].double() - wanted[number].double()).abs().sum())
    assert float(objectness) == pytest.approx(entropy / count, rel=1e-5)
    assert float(box) == pytest.approx(distance / count, rel=1e-5)


def test_losses_of_the_heads_by_hand():
    detector = build_detector(encoder(), protocol(architecture="c4", roi_batch=10_000), 5, MEAN, STD)
    heads = detector.roi_heads.train()
    nn.init.normal_(heads.box_predictor.bbox_pred.weight, std=0.1)
    side = (64, 80)
    truth = targets(side)
    maps = {"c4": torch.randn(1, 64, 4, 5)}
    given = torch.tensor([[5.0, 6.0, 50.0, 44.0], [0.0, 0.0, 20.0, 20.0], [41.0, 20.0, 70.0, 50.0]])
    proposals = [given]
    sampled, matched, labels, wanted = heads.select_training_samples([given], truth)
    heads.eval()  # the same maps twice
    with torch.no_grad():
        logits, deltas = heads.box_predictor(heads.vectors(heads.regions(maps, sampled)))
        masks = heads.mask_predictor(heads.regions(maps, sampled))
    heads.training = True  # of the heads alone
    losses = heads(maps, proposals, [side], truth)[1]
    entropy, distance, pixels = [], 0.0, []
    for number, label in enumerate(labels[0].tolist()):
        entropy.append(-float(torch.log_softmax(logits[number].double(), 0)[label]))
        if label:
            own = deltas[number, 4 * label : 4 * label + 4].double()
            distance += float((own - wanted[0][number].double()).abs().sum())
            bits = _bits(truth[0]["masks"], sampled[0][number : number + 1], matched[0][number : number + 1], 14)[0]
            p = torch.sigmoid(masks[number, label].double())
            pixels += (-(bits * p.log() + (1 - bits) * (1 - p).log())).flatten().tolist()
    assert sum(labels[0] > 0) >= 2
    assert float(losses["loss_classifier"].detach()) == pytest.approx(np.mean(entropy), rel=1e-4)
    assert float(losses["loss_box_reg"].detach()) == pytest.approx(distance / len(entropy), rel=1e-4)
    assert float(losses["loss_mask"].detach()) == pytest.approx(np.mean(pixels), rel=1e-4)


def test_regions_come_from_the_map_that_fits_their_size():
    """1612.03144, equation 1: k = floor(4 + log2(sqrt(w h) / 224)), between levels 2 and 5."""
    names, strides = ("c2", "c3", "c4", "c5"), (4, 8, 16, 32)
    pool = RoIPool(names, strides, 7)
    generator = torch.Generator().manual_seed(0)
    maps = {name: torch.randn(2, 3, 640 // s, 640 // s, generator=generator) for name, s in zip(names, strides, strict=True)}
    boxes = [
        torch.tensor([[3.0, 4.0, 20.0, 30.0], [10.0, 10.0, 121.0, 122.0], [10.0, 10.0, 122.0, 122.0]]),
        torch.tensor([[0.0, 0.0, 223.0, 224.0], [0.0, 0.0, 224.0, 224.0], [5.0, 5.0, 630.0, 620.0]]),
    ]
    found, row = pool(maps, boxes), 0
    for image, some in enumerate(boxes):
        for x0, y0, x1, y1 in some.tolist():
            level = min(5, max(2, math.floor(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 224))))
            roi = torch.tensor([[image, x0, y0, x1, y1]])
            wanted = roi_align(maps[f"c{level}"], roi, 7, 1 / strides[level - 2], 0, aligned=True)[0]
            torch.testing.assert_close(found[row], wanted)
            row += 1
    assert row == len(found) == 6


def test_a_region_of_a_linear_map_has_its_own_coordinates():
    """Aligned: the value at a cell is that of the map at the cell's centre, half a pixel taken into account."""
    x = torch.arange(40.0) * 16 + 8  # the map's pixel i covers 16 i to 16 i + 16
    maps = {"c4": x.expand(1, 1, 40, 40)}
    found = RoIPool(("c4",), (16,), 14)(maps, [torch.tensor([[100.0, 100.0, 380.0, 380.0]])])
    torch.testing.assert_close(found[0, 0, 0], 100 + (torch.arange(14.0) + 0.5) * 20)


def test_mask_targets_are_the_outline_inside_the_box():
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[1, 10:30, 20:40] = True
    found = _bits(masks, torch.tensor([[10.0, 10.0, 38.0, 38.0], [10.0, 10.0, 38.0, 38.0]]), torch.tensor([1, 0]), 14)
    wanted = torch.zeros(14, 14)
    wanted[:10, 5:] = 1  # cells of two pixels
    assert torch.equal(found[0], wanted)
    assert not found[1].any()


def test_the_canvas_normalizes_and_puts_images_into_the_corner():
    images = photos((30, 45), (41, 20))
    batch, _ = Canvas(MEAN, STD, 32)(images)
    assert batch.tensors.shape == (2, 3, 64, 64) and batch.image_sizes == [(30, 45), (41, 20)]
    wanted = (images[1].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(batch.tensors[1, :, :41, :20].double(), wanted, atol=1e-5, rtol=1e-5)
    assert not batch.tensors[1, :, 41:].any() and not batch.tensors[1, :, :, 20:].any()
    assert Canvas(MEAN, STD, 1)(images)[0].tensors.shape == (2, 3, 41, 45)


def test_masks_are_pasted_where_their_box_is():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 14, 14, generator=generator)
    boxes = torch.tensor([[3.3, 4.7, 31.1, 20.2], [-5.0, -2.0, 12.0, 14.0], [20.0, 20.0, 20.0, 25.0]])
    found = pasted(masks, boxes, 30, 40)
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        padded = F.pad(masks[number], (1, 1, 1, 1)).double().numpy()
        for row in range(30):
            for column in range(40):
                u = (column + 0.5 - x0) / max(x1 - x0, 1e-6) * 14 - 0.5
                v = (row + 0.5 - y0) / max(y1 - y0, 1e-6) * 14 - 0.5
                value = 0.0
                if -1 < u < 14 and -1 < v < 14:
                    i, j = math.floor(v), math.floor(u)
                    a, b = v - i, u - j
                    value = (1 - a) * ((1 - b) * padded[i + 1, j + 1] + b * padded[i + 1, j + 2])
                    value += a * ((1 - b) * padded[i + 2, j + 1] + b * padded[i + 2, j + 2])
                if abs(value - 0.5) > 1e-4:
                    assert bool(found[number, row, column]) == (value >= 0.5)
    assert found[0].any() and found[1].any()


def test_a_trunk_stops_at_the_last_stage_that_is_asked_for():
    trunk = Trunk(encoder(), ("c3",))
    assert list(trunk(torch.rand(1, 3, 32, 32))) == ["c3"] and len(trunk.stages) == 2
