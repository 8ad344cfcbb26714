"""Small protocols, encoders and detectors for the tests of the engine detectron2."""

import dataclasses
import importlib.util

import pytest
import torch

from benchmark.plan.protocols.detection import DetectionSmoke
from methods.encoders import EncoderConfig, build_encoder

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
