import importlib.util
import os
import pickle
import re

import numpy as np
import pytest
import torch

from benchmark.errors import InputError
from benchmark.evaluate.detection.convert import from_detectron2, read_pkl, to_detectron2, write_pkl
from methods.encoders import EncoderConfig, build_encoder

needs_detectron2 = pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed")


def encoder(name="resnet18", seed=0, **settings):
    """With running statistics that have moved, so that none of them can be taken for another's."""
    torch.manual_seed(seed)
    network, _ = build_encoder(EncoderConfig(name=name, **{"width": 0.125, "stem": "imagenet", **settings}), 3)
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 1.5)
    return network.eval()


def stages(network, image):
    x, found = network.maxpool(network.relu(network.bn1(network.conv1(image)))), []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        found.append(x)
    return found


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_names_are_detectron2s():
    ours = encoder("resnet50").state_dict()
    theirs = to_detectron2(ours)
    pairs = {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.conv3.weight": "res2.0.conv3.weight",
        "layer1.0.downsample.0.weight": "res2.0.shortcut.weight",
        "layer2.0.downsample.1.bias": "res3.0.shortcut.norm.bias",
        "layer3.5.bn2.weight": "res4.5.conv2.norm.weight",
        "layer4.2.bn3.num_batches_tracked": "res5.2.conv3.norm.num_batches_tracked",
    }
    assert len(theirs) == len(ours)
    for one, other in pairs.items():
        assert torch.equal(theirs[other], ours[one])


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet50", "resnet101"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_there_and_back_is_the_same_encoder(name, stem, tmp_path):
    network = encoder(name, stem=stem)
    write_pkl(tmp_path / "trunk.pkl", to_detectron2(network.state_dict()))
    back = from_detectron2(read_pkl(tmp_path / "trunk.pkl"))
    assert same(back, dict(network.state_dict()))
    other = encoder(name, seed=1, stem=stem)
    other.load_state_dict(back)
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(image), network(image))


@pytest.mark.parametrize("place", ["backbone.bottom_up.{}", "c4"])
def test_trunk_of_a_detector_is_found_and_its_heads_are_left_aside(place):
    network = encoder("resnet50")
    detector = {}
    for name, value in to_detectron2(network.state_dict()).items():
        prefix = ("roi_heads.{}" if name.startswith("res5") else "backbone.{}") if place == "c4" else place
        detector[prefix.format(name)] = value
    detector |= {
        "roi_heads.res5.norm.weight": torch.ones(256),
        "roi_heads.box_predictor.cls_score.weight": torch.zeros(21, 256),
        "proposal_generator.rpn_head.conv.weight": torch.zeros(8, 8, 3, 3),
        "backbone.fpn_lateral2.weight": torch.zeros(8, 8, 1, 1),
    }
    assert same(from_detectron2(detector), dict(network.state_dict()))


def test_frozen_norms_get_the_counters_that_they_lack():
    network = encoder()
    theirs = {name: value for name, value in to_detectron2(network.state_dict()).items() if "tracked" not in name}
    back = from_detectron2(theirs)
    assert back.keys() == network.state_dict().keys()
    assert back["layer2.0.bn1.num_batches_tracked"] == 0 and back["layer2.0.bn1.num_batches_tracked"].dtype == torch.int64
    network.load_state_dict(back)


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (lambda: encoder(norm="group").state_dict(), "res2.0.conv1.norm.running_mean"),
        (lambda: encoder(norm="none").state_dict(), "conv1.bias"),
        (lambda: encoder("resnet50", sk=True).state_dict(), "conv1.0.weight"),
        (lambda: encoder().state_dict() | {"fc.weight": torch.zeros(2, 64)}, "fc.weight"),
        (lambda: without(encoder().state_dict(), "layer3.1.bn2.running_var"), "res4.1.conv2.norm.running_var"),
        (lambda: without(encoder().state_dict(), "layer2.1.conv1.weight"), "res3.1.conv1.weight"),
        (lambda: {k: v for k, v in encoder().state_dict().items() if not k.startswith("layer4")}, "res5.0.conv1.weight"),
        (lambda: {}, "res2.0.conv1.weight"),
    ],
)
def test_what_has_no_place_in_detectron2_is_named(state, named):
    with pytest.raises(InputError, match=re.escape(named)) as error:
        to_detectron2(state())
    assert "\n" not in str(error.value)


def test_what_has_no_place_in_ours_is_named():
    theirs = to_detectron2(encoder().state_dict())
    with pytest.raises(InputError, match=r"linear\.weight"):
        from_detectron2(theirs | {"linear.weight": torch.zeros(2, 64)})
    with pytest.raises(InputError, match=r"res2_0_branch2a_w"):  # Caffe2's names, which the oldest files have
        from_detectron2({"conv1_w": torch.zeros(64, 3, 7, 7), "res2_0_branch2a_w": torch.zeros(64, 64, 1, 1)})
    with pytest.raises(InputError, match=r"res5\.0\.conv2\.weight"):
        from_detectron2(without(theirs, "res5.0.conv2.weight"))


class _Runs:
    def __reduce__(self):
        return os.system, ("echo run > $RAN",)


@pytest.mark.parametrize("content", [{"model": {"stem.conv1.weight": _Runs()}}, _Runs(), {"model": {"a": np.array([_Runs()])}}])
def test_malicious_pickle_is_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"weights\.pkl .*system") as error:
        read_pkl(path)
    assert not (tmp_path / "ran").exists() and "\n" not in str(error.value)


def test_damaged_and_foreign_files_are_one_sentence(tmp_path):
    whole = tmp_path / "whole.pkl"
    write_pkl(whole, to_detectron2(encoder().state_dict()))
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(whole.read_bytes()[:-1000])
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"weights": 1}))
    words = tmp_path / "words.pkl"
    words.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": "seven"}}))
    objects = tmp_path / "objects.pkl"
    objects.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": np.array([{}])}}))
    text = tmp_path / "text.pth"
    text.write_text("weights")
    expected = {cut: "damaged", other: "'model'", words: "stem.conv1.weight", objects: "stem.conv1.weight", text: "damaged"}
    for path, said in (expected | {tmp_path / "missing.pkl": "cannot be read"}).items():
        with pytest.raises(InputError, match=re.escape(said)) as error:
            read_pkl(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_detector_saved_by_pytorch_is_read(tmp_path):
    theirs = to_detectron2(encoder().state_dict())
    torch.save(
        {"model": {f"backbone.bottom_up.{name}": value for name, value in theirs.items()}, "iteration": 7}, tmp_path / "d.pth"
    )
    assert same(from_detectron2(read_pkl(tmp_path / "d.pth")), dict(encoder().state_dict()))


@needs_detectron2
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_same_image_gives_the_same_maps_in_detectron2s_own_backbone(depth):
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.resnet import build_resnet_backbone

    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = depth, "BN", False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    width = 1.0 if depth == 18 else 0.125  # detectron2 has one width for basic blocks
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 32
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = int(64 * width)
    network = encoder(f"resnet{depth}", width=width)
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    theirs.load_state_dict(to_detectron2(network.state_dict()))
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for one, other in zip(stages(network, image), theirs(image).values(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    other = encoder(f"resnet{depth}", seed=1, width=width)
    other.load_state_dict(from_detectron2(theirs.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image))


@needs_detectron2
def test_detectron2_loads_our_file_into_a_detector_by_itself(tmp_path):
    """The way of the papers' commands: MODEL.WEIGHTS is the file, the detector R50-C4 of MoCo's config."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = "cpu", "BN", False
    cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.ROI_HEADS.NAME = 0, "Res5ROIHeads"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    theirs = to_detectron2(encoder("resnet50").state_dict())
    write_pkl(tmp_path / "trunk.pkl", theirs)
    detector = build_model(cfg)
    DetectionCheckpointer(detector).load(str(tmp_path / "trunk.pkl"))
    loaded = detector.state_dict()
    for name, value in theirs.items():
        place = f"roi_heads.{name}" if name.startswith("res5") else f"backbone.{name}"
        assert torch.equal(loaded[place], value), name
    assert same(from_detectron2(loaded), dict(encoder("resnet50").state_dict()))
