import copy
import dataclasses
import importlib.util
import itertools

import numpy as np
import pytest
import torch

from benchmark.data.boxes import BoxSet, Photo, find_boxes
from benchmark.errors import InputError
from benchmark.evaluate.detection import Trial, detection, detectron, inputs
from benchmark.evaluate.detection.builtin import prediction
from benchmark.evaluate.detection.score import Prediction, encode, score
from benchmark.evaluate.detection.train import rate
from benchmark.evaluate.subject import Place
from benchmark.plan.protocols.detection import DetectionSmoke
from benchmark.train.stop import Stopped, StopRequest
from methods.encoders import EncoderConfig, build_encoder
from tests.evaluate.subjects import drawn_subject

installed = importlib.util.find_spec("detectron2") is not None
needs_detectron2 = pytest.mark.skipif(not installed, reason="detectron2 is not installed")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def said(kind=DetectionSmoke, **settings):
    """A protocol as an evaluation gets it, small unless it is said."""
    small = {"engine": "detectron2", "dataset": "shapes", "batch_size": 2, "train_sides": (64, 80), "max_side": 96,
             "test_side": 64, "rpn_post_nms_train": 50, "rpn_post_nms_test": 20, "roi_batch": 16, "fpn_width": 16,
             "head_width": 32, "precise_bn": 2}  # fmt: skip
    return dataclasses.asdict(kind(**{**small, **settings})) | {"name": "detection_smoke", "version": 1}


def encoder(name="resnet10", **settings):
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(name=name, **{"width": 0.25, "stem": "imagenet", "zero_init": False, **settings}), 3)[0]


def build(protocol, backbone=None, classes=10):
    from benchmark.evaluate.detection.detectron_model import build_detector

    torch.manual_seed(1)
    return build_detector(backbone or encoder(), protocol, classes, MEAN, STD)


@pytest.fixture(scope="module")
def drawn():
    return find_boxes("shapes", None).open().take(24, 6)


@pytest.mark.skipif(installed, reason="detectron2 is installed")
def test_engine_that_is_not_installed_is_one_sentence(tmp_path, drawn):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    subject.boxes = lambda name: drawn
    with pytest.raises(
        InputError, match=r"detection_smoke\.engine is 'detectron2', which is not installed here; install"
    ) as error:
        detection(subject, said(), Place(tmp_path, "detection"))
    assert "\n" not in str(error.value)


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
    ("backbone", "settings", "message"),
    [
        (lambda: encoder("vit_tiny"), {}, "the detector's trunk is a ResNet, and this encoder is a ViT"),
        (lambda: encoder("resnet18", norm="group"), {}, "engine builtin takes this encoder too"),
        (lambda: build_encoder(EncoderConfig(name="resnet10", width=0.25), 1)[0], {}, "images of 1 channels"),
        (lambda: encoder(), {"anchor_sides": (32, 64)}, "detection_smoke.anchor_sides has 2 sides; fpn takes one for each"),
    ],
)
def test_what_detectron2_cannot_build_is_one_sentence(backbone, settings, message):
    with pytest.raises(InputError, match=message) as error:
        build(said(**settings), backbone())
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
def test_batches_show_the_photos_of_the_built_in_engine(drawn):
    protocol = said(batch_size=3)
    ours = inputs.training_batches(drawn.learnable, protocol, 5, 0, 2)
    theirs = detectron.training_batches(drawn.learnable, protocol, 5, 0, 2)
    flipped = 0
    for one, other in itertools.islice(zip(ours, theirs, strict=True), 6):
        for (image, target), entry in zip(one, other, strict=True):
            instances = entry["instances"]
            assert entry["image"].shape == image.shape and entry["image"].dtype == torch.uint8
            assert (entry["image"].int() - image.int()).abs().max() <= 1  # flipped before or after resizing
            torch.testing.assert_close(instances.gt_boxes.tensor, target["boxes"], rtol=0, atol=1e-3)
            assert torch.equal(instances.gt_classes + 1, target["labels"])
            assert instances.gt_masks.tensor.shape == (len(target["boxes"]), *image.shape[1:])
            flipped += 1
    assert flipped == 18


@needs_detectron2
def test_sizes_are_detectron2s():
    from detectron2.data.transforms import ResizeShortestEdge

    draws = np.random.default_rng(0).integers(20, 700, (300, 4))
    for height, width, side, longest in draws.tolist():
        assert inputs.resized_shape(height, width, side, longest) == ResizeShortestEdge.get_output_shape(
            height, width, side, longest
        )


@needs_detectron2
def test_regions_are_drawn_anew_at_every_step_and_alike_at_the_same(drawn):
    protocol = said(roi_batch=4, rpn_batch=4)
    detector, trial = build(protocol).train(), Trial(0, 1, 3)
    batch = next(detectron.training_batches(drawn.learnable, protocol, 0, 0))
    losses = [float(detectron.losses_of(detector, batch, protocol, of, step)) for of, step in
              ((trial, 0), (trial, 0), (trial, 1), (Trial(1, 2, 4), 0))]  # fmt: skip
    assert losses[0] == losses[1] and len(set(losses)) == 3


def photo(outlines=None, crowd=(False, True), number=0):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[10.0, 5.0, 30.0, 25.0], [0.0, 0.0, 60.0, 40.0]])
    labels, areas, difficult = np.array([1, 0]), np.array([400.0, 2400.0]), np.zeros(2, bool)
    name = f"photo {number}"
    return Photo(number, name, "", 40, 60, boxes, labels, areas, np.array(crowd), difficult, outlines, pixels.copy)


@needs_detectron2
def test_polygons_stay_polygons_and_crowds_are_left_out():
    square = np.array([10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0])
    whole = {"size": [40, 60], "counts": [0, 2400]}  # not compressed, as COCO's crowds
    entry = detectron.example(photo((((square),), whole)), 80, 1000, True, True)
    assert entry["image"].shape == (3, 80, 120)
    np.testing.assert_allclose(entry["instances"].gt_boxes.tensor.numpy(), [[60.0, 10.0, 100.0, 50.0]])
    np.testing.assert_allclose(entry["instances"].gt_masks.polygons[0][0], [100, 10, 60, 10, 60, 50, 100, 50])
    assert entry["instances"].gt_classes.tolist() == [1]
    both = detectron.example(photo((((square),), whole), crowd=(False, False)), 40, 1000, False, True, "bitmask")
    assert both["instances"].gt_masks.tensor.sum((1, 2)).tolist() == [400, 2400]


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


def trained(subject, protocol, place, photos, stop_at=None):
    """The detector after `train`, which is told to stop after so many reports; then again until it is done."""
    detector = build(protocol, subject.network.backbone())
    subject.stop, seen = StopRequest(), []

    def report(progress):
        seen.append(progress.step)
        if stop_at is not None and len(seen) == stop_at:
            subject.stop.ask("the test says so")

    subject.report = report
    detectron.train(subject, protocol, place, photos, Trial(0, 1, 3), detector)
    return detector, seen


@needs_detectron2
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_training_ends_with_the_same_bits(tmp_path, drawn, workers):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    subject.workers = workers
    protocol = said(iterations=4, milestones=(2,), warmup_iterations=2)
    whole, seen = trained(subject, protocol, Place(tmp_path, "whole"), drawn.learnable)
    assert seen == [1, 2, 3, 4] and not whole.training
    place = Place(tmp_path, "parts")
    with pytest.raises(Stopped):
        trained(subject, protocol, place, drawn.learnable, stop_at=2)
    with pytest.raises(Stopped):  # before the population statistics
        trained(subject, protocol, place, drawn.learnable, stop_at=2)
    parts, seen = trained(subject, protocol, place, drawn.learnable)
    assert seen == []
    one, other = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    again, _ = trained(subject, protocol, place, drawn.learnable)  # the statistics are not taken twice
    assert all(torch.equal(one[name], value) for name, value in again.state_dict().items())


@needs_detectron2
def test_population_statistics_replace_the_running_ones(tmp_path, drawn):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    found = {}
    for number in (0, 2):
        protocol = said(iterations=2, milestones=(1,), precise_bn=number)
        found[number] = trained(subject, protocol, Place(tmp_path, f"{number}"), drawn.learnable)[0]
    plain, precise = found[0].state_dict(), found[2].state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], precise[name])}
    assert changed and all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    images = [
        entry["image"]
        for batch in itertools.islice(detectron.training_batches(drawn.learnable, protocol, 3, 0, 2), 2)
        for entry in batch
    ]
    stem, sums = found[2].backbone.bottom_up.stem.conv1, []
    for pair in (images[:2], images[2:]):  # each batch on a canvas of its own
        canvas = found[2].preprocess_image([{"image": image} for image in pair]).tensor
        sums.append(torch.nn.functional.conv2d(canvas, stem.weight, stride=2, padding=3))
    values = torch.cat([x.transpose(0, 1).flatten(1) for x in sums], dim=1)
    torch.testing.assert_close(stem.norm.running_mean, values.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stem.norm.running_var, values.var(1, correction=0), rtol=1e-3, atol=1e-4)


@needs_detectron2
def test_diverged_training_says_at_which_step(tmp_path, drawn):
    from benchmark.train.loop import Diverged

    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    protocol = said(iterations=8, milestones=(7,), warmup_iterations=0, learning_rate=1e12)
    with pytest.raises(Diverged):
        trained(subject, protocol, Place(tmp_path, "diverged"), drawn.learnable)


@needs_detectron2
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_protocol_on_drawn_shapes(tmp_path, drawn, precision):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="stride2", width=0.25))
    subject.boxes = lambda name: drawn
    place = Place(tmp_path, "detection")
    found = detection(subject, said(iterations=2, milestones=(1,), trials=2, precision=precision), place)
    assert {"AP", "AP50", "AP75", "mask_AP", "AP_std"} <= found.metrics.keys()
    assert len(found.chosen["trials"]) == 2
    assert sorted(path.name for path in tmp_path.glob("detection*")) == []


def guesses(boxes: BoxSet, seed: int) -> list[Prediction]:
    """Near the truth, with wrong ones among them; no two scores alike."""
    draw = np.random.default_rng(seed)
    found = []
    for one in boxes.test:
        near = np.repeat(one.boxes, 2, axis=0)
        near = near + draw.normal(0, 3, near.shape)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:] - 1), near[:, 2:]], axis=1)
        labels = np.where(
            draw.random(len(near)) < 0.8, np.repeat(one.labels, 2), draw.integers(0, len(boxes.classes), len(near))
        )
        truth = one.masks()[np.repeat(np.arange(len(one.boxes)), 2)]
        masks = np.stack([np.roll(mask, int(draw.integers(-3, 4)), axis=1) for mask in truth]) if len(truth) else truth
        found.append(Prediction(near.astype(np.float32).astype(float), draw.random(len(near)), labels, encode(masks)))
    return found


@needs_detectron2
def test_score_equals_detectron2s_coco_evaluator(tmp_path):
    import contextlib
    import io

    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances
    from pycocotools import mask

    boxes = find_boxes("shapes", None).open().take(1, 40)
    name = f"drawn_of_the_tests_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: [detectron.described(one, True) for one in boxes.test])
    MetadataCatalog.get(name).set(thing_classes=list(boxes.classes))
    found = guesses(boxes, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOEvaluator(name, ("bbox", "segm"), False, str(tmp_path), use_fast_impl=False)
        evaluator.reset()
        for one, guess in zip(boxes.test, found, strict=True):
            instances = Instances((one.height, one.width))
            instances.pred_boxes = Boxes(torch.from_numpy(guess.boxes))
            instances.scores, instances.pred_classes = torch.from_numpy(guess.scores), torch.from_numpy(guess.labels)
            instances.pred_masks = torch.from_numpy(np.stack([mask.decode(code) for code in guess.masks]).astype(bool))
            evaluator.process([{"image_id": one.id}], [{"instances": instances}])
        theirs = evaluator.evaluate()
    DatasetCatalog.remove(name)
    ours = score(boxes, found)
    for metric in ("AP", "AP50", "AP75", "APs", "APm"):
        assert 0 < ours[metric] < 100
        assert ours[metric] == pytest.approx(theirs["bbox"][metric], abs=1e-6)
        assert ours[f"mask_{metric}"] == pytest.approx(theirs["segm"][metric], abs=1e-6)
