import copy
import dataclasses

import numpy as np
import pytest
import torch

from benchmark.data.boxes import find_boxes
from benchmark.errors import InputError
from benchmark.evaluate.detection import Trial, detectron, inputs
from benchmark.evaluate.detection.builtin import prediction
from benchmark.evaluate.detection.parts import RoIPool
from benchmark.evaluate.detection.train import rate
from methods.encoders import EncoderConfig, build_encoder
from tests.evaluate.detection.detectrons import build, encoder, needs_detectron2, said


@pytest.fixture(scope="module")
def drawn():
    return find_boxes("shapes", None).open().take(24, 6)


@needs_detectron2
@pytest.mark.parametrize("architecture", ["c4", "fpn"])
@pytest.mark.parametrize(
    ("name", "stem", "stride"), [("resnet18", "imagenet", 4), ("resnet50", "stride2", 2), ("resnet10", "cifar", 1)]
)
def test_maps_of_the_detector_are_the_encoders(architecture, name, stem, stride):
    backbone = encoder(name, stem=stem, width=0.125).eval()
    detector = build(said(architecture=architecture), backbone).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = backbone.layer3(
            backbone.layer2(backbone.layer1(backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(image))))))
        )
        if architecture == "c4":
            maps = detector.backbone(image)
            assert list(maps) == ["res4"]
            torch.testing.assert_close(maps["res4"], x, rtol=1e-4, atol=1e-4)
            regions = detector.roi_heads.res5[:-1](x)  # the last one is the extra norm
            torch.testing.assert_close(regions, backbone.layer4(x), rtol=1e-4, atol=1e-4)
        else:
            maps = detector.backbone.bottom_up(image)
            torch.testing.assert_close(maps["res5"], backbone.layer4(x), rtol=1e-4, atol=1e-4)
            assert [shape.stride for shape in detector.backbone.output_shape().values()] == [stride * 2**n for n in range(5)]


@needs_detectron2
def test_encoder_that_gives_other_maps_is_refused():
    from benchmark.evaluate.detection.detectron_model import _load, _stage, _stem, check_maps

    network = encoder("resnet50", width=0.125).eval()
    stem, stages = _stem(network, "BN"), [_stage(getattr(network, f"layer{n}"), "BN") for n in range(1, 5)]
    _load(network, stem, stages, "d")
    check_maps(network, stem, stages, "d")
    with torch.no_grad():
        stages[2][1].conv2.weight *= 1.01
    with pytest.raises(InputError, match=r"d: the same image gives other maps .*\(res4 is off by"):
        check_maps(network, stem, stages, "d")
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"res2 is off by nan.*weights are not finite"):
        build(said(), network)


@needs_detectron2
@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda: encoder("vit_tiny"), "the detector's trunk is a ResNet, and this encoder is a ViT"),
        (lambda: encoder("resnet18", norm="group"), "engine builtin takes this encoder too"),
        (lambda: build_encoder(EncoderConfig(name="resnet10", width=0.25), 1)[0], "images of 1 channels"),
    ],
)
def test_what_detectron2_cannot_build_is_one_sentence(backbone, message):
    with pytest.raises(InputError, match=message) as error:
        build(said(), backbone())
    assert "\n" not in str(error.value)


def mocos(protocol, fpn):
    """The detector that detectron2 builds from MoCo's released config, with its widths divided by 8."""
    from detectron2.config import get_cfg
    from detectron2.layers import get_norm
    from detectron2.modeling import build_model
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads

    if "_ExtraNormOfTheTests" not in ROI_HEADS_REGISTRY:

        class _ExtraNormOfTheTests(Res5ROIHeads):
            @classmethod
            def _build_res5_block(cls, cfg):
                blocks, width = super()._build_res5_block(cfg)
                blocks.add_module("norm", get_norm("naiveSyncBN", width))
                return blocks, width

        ROI_HEADS_REGISTRY.register(_ExtraNormOfTheTests)
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.MASK_ON, model.BACKBONE.FREEZE_AT = "cpu", protocol["masks"], 0
    model.RESNETS.NORM, model.RESNETS.STRIDE_IN_1X1, cfg.INPUT.FORMAT = "naiveSyncBN", False, "RGB"
    model.PIXEL_MEAN, model.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = 6000, 1000
    model.ROI_HEADS.NAME, model.ROI_HEADS.NUM_CLASSES = "_ExtraNormOfTheTests", 10
    model.RESNETS.RES2_OUT_CHANNELS, model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.WIDTH_PER_GROUP = 32, 8, 8
    if fpn:  # detectron2's Base-RCNN-FPN.yaml, with norms as MoCo says
        model.BACKBONE.NAME, model.RESNETS.OUT_FEATURES = "build_resnet_fpn_backbone", ["res2", "res3", "res4", "res5"]
        model.FPN.IN_FEATURES, model.FPN.NORM = ["res2", "res3", "res4", "res5"], "naiveSyncBN"
        model.ANCHOR_GENERATOR.SIZES, model.RPN.IN_FEATURES = [[32], [64], [128], [256], [512]], ["p2", "p3", "p4", "p5", "p6"]
        model.RPN.PRE_NMS_TOPK_TRAIN, model.RPN.POST_NMS_TOPK_TRAIN = 2000, 1000
        model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = 1000, 1000
        model.ROI_HEADS.NAME, model.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2", "p3", "p4", "p5"]
        model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.NUM_FC, model.ROI_BOX_HEAD.POOLER_RESOLUTION = "FastRCNNConvFCHead", 2, 7
        model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.NUM_CONV = "MaskRCNNConvUpsampleHead", 4
        model.ROI_MASK_HEAD.POOLER_RESOLUTION, model.ROI_MASK_HEAD.NORM = 14, "naiveSyncBN"
    return build_model(cfg)


@needs_detectron2
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "masks"), [("detection_voc0712", False), ("detection_coco", True), ("detection_coco_fpn", True)]
)
def test_detector_is_the_one_of_mocos_config(kind, masks, drawn):
    """Same names and shapes, and with the same weights the same losses and the same detections."""
    from benchmark.plan.protocols.detection import DETECTIONS

    protocol = dataclasses.asdict(DETECTIONS[kind]()) | {"name": kind}
    ours, theirs = build(protocol, encoder("resnet50", width=0.125)), mocos(protocol, kind.endswith("fpn"))
    theirs.load_state_dict(ours.state_dict())
    small = said(batch_size=2, masks=masks)
    batch = next(detectron.training_batches(drawn.learnable, small, 0, 0))
    trial, found = Trial(0, 1, 0), []
    for detector in (ours, theirs):
        detector.train()
        loss = detectron.losses_of(detector, batch, protocol, trial, 0)
        loss.backward()
        gradient = detector.backbone.state_dict(keep_vars=True)[next(n for n, _ in detector.backbone.named_parameters())].grad
        detector.eval()
        with torch.no_grad():
            (result,) = detector([{"image": batch[0]["image"]}])
        found.append((loss.detach(), gradient, result["instances"].pred_boxes.tensor, result["instances"].scores))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@needs_detectron2
def test_c4_has_mocos_extra_norm_where_it_is_asked_for():
    names = [set(build(said(architecture="c4", extra_norm=extra)).state_dict()) for extra in (True, False)]
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names[0] - names[1] == {f"roi_heads.res5.norm.{leaf}" for leaf in leaves} and names[1] < names[0]


@needs_detectron2
@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_freezing_counts_from_the_stem(freeze_at, drawn):
    protocol = said(freeze_at=freeze_at)
    detector = build(protocol).train()
    parts = dict(detector.backbone.bottom_up.named_children())
    frozen = [name for name, part in parts.items() if not any(p.requires_grad for p in part.parameters())]
    assert frozen == list(parts)[:freeze_at]
    before = copy.deepcopy(detector.state_dict())
    detectron.losses_of(
        detector, next(detectron.training_batches(drawn.learnable, protocol, 0, 0)), protocol, Trial(0, 1, 0), 0
    )
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[2] for name in moved if "bottom_up" in name} == set(list(parts)[freeze_at:])


@needs_detectron2
def test_weight_decay_spares_norms_and_the_rate_is_the_built_in_engines(drawn):
    from detectron2.solver import build_lr_scheduler, build_optimizer

    from benchmark.evaluate.detection.detectron_model import settings

    protocol = said(iterations=40, milestones=(20, 30), warmup_iterations=7, warmup_factor=0.01, learning_rate=0.3)
    detector = build(protocol)
    optimizer = build_optimizer(settings(protocol, 1), detector)
    schedule = build_lr_scheduler(settings(protocol, 1), optimizer)
    norms = {id(p) for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()}
    for group in optimizer.param_groups:
        assert all(group["weight_decay"] == (0.0 if id(p) in norms else protocol["weight_decay"]) for p in group["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(detector.parameters()))
    for step in range(40):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate(step, protocol), rel=1e-9), step
        optimizer.step()
        schedule.step()


@needs_detectron2
def test_detectron2_is_told_what_the_protocol_says():
    from benchmark.evaluate.detection.detectron_model import settings

    protocol = said(rpn_pre_nms_train=11, rpn_post_nms_train=12, rpn_pre_nms_test=13, rpn_post_nms_test=14, rpn_batch=15,
                    roi_batch=16, roi_positive=0.17, score_threshold=0.18, nms_threshold=0.19, detections=20, head_width=21,
                    fpn_width=22, momentum=0.23, sync_bn=False)  # fmt: skip
    cfg = settings(protocol, 7)
    rpn, heads, model = cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS, cfg.MODEL
    assert [rpn.PRE_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST, rpn.POST_NMS_TOPK_TEST] == [11, 12, 13, 14]
    assert [rpn.BATCH_SIZE_PER_IMAGE, heads.BATCH_SIZE_PER_IMAGE, heads.POSITIVE_FRACTION] == [15, 16, 0.17]
    assert [heads.SCORE_THRESH_TEST, heads.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE] == [0.18, 0.19, 20]
    assert [model.ROI_BOX_HEAD.FC_DIM, model.FPN.OUT_CHANNELS, model.ROI_MASK_HEAD.CONV_DIM] == [21, 22, 22]
    assert [cfg.SOLVER.MOMENTUM, heads.NUM_CLASSES, model.RESNETS.NORM, model.FPN.NORM] == [0.23, 7, "BN", "BN"]


@needs_detectron2
@pytest.mark.parametrize("stem", ["imagenet", "stride2", "cifar"])
def test_boxes_are_read_from_the_maps_of_the_built_in_engine(stem):
    from detectron2.modeling.poolers import assign_boxes_to_levels
    from detectron2.structures import Boxes

    heads = build(said(), encoder(stem=stem)).roi_heads
    stride = {"imagenet": 4, "stride2": 2, "cifar": 1}[stem]
    sides = torch.tensor([3.0, 20.0, 27.0, 29.0, 50.0, 100.0, 115.0, 220.0, 226.0, 450.0, 900.0])
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], dim=1)
    ours = RoIPool(("c2", "c3", "c4", "c5"), [stride * 2**n for n in range(4)], 7)
    expected = ours._levels(torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1))
    for pool in (heads.box_pooler, heads.mask_pooler):
        args = (pool.min_level, pool.max_level, pool.canonical_box_size, pool.canonical_level)
        assert assign_boxes_to_levels([Boxes(boxes)], *args).tolist() == expected.tolist()
    assert stride < 4 or args == (2, 5, 224, 4)  # as the feature pyramids' paper has it
    assert len(set(expected.tolist())) == 4


@needs_detectron2
@pytest.mark.parametrize("architecture", ["c4", "fpn"])
def test_results_are_those_that_detectron2_makes_itself(architecture, drawn):
    """Scaled back and pasted by our code and by detectron2's."""
    from benchmark.evaluate.detection.detectron_model import Results

    protocol = said(architecture=architecture, test_side=50, score_threshold=0.0, detections=12)
    detector = build(protocol).eval()
    for one in drawn.test[:2]:
        image = inputs.resized(one.pixels(), *inputs.resized_shape(one.height, one.width, 50, 96))
        with torch.no_grad():
            (result,) = Results(detector)([image])
            (theirs,) = detector([{"image": image, "height": one.height, "width": one.width}])
        ours, theirs = prediction(one, result, image.shape[1], image.shape[2]), theirs["instances"]
        assert len(ours.scores) == len(theirs) == 12
        np.testing.assert_allclose(ours.boxes, theirs.pred_boxes.tensor.numpy(), atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores.numpy(), atol=1e-6)
        assert ours.labels.tolist() == theirs.pred_classes.tolist()
        from pycocotools import mask

        pasted = np.stack([mask.decode(code) for code in ours.masks]).astype(bool)
        assert (pasted != theirs.pred_masks.numpy()).mean() < 1e-3
