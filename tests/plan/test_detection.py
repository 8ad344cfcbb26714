"""The detection protocols' settings are the papers'."""

import pytest

from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.protocols.detection import DETECTIONS
from methods.catalogue import describe

VOC_SIDES = tuple(range(480, 801, 32))
COCO_SIDES = tuple(range(640, 801, 32))
C4 = {"architecture": "c4", "batch_size": 16, "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 1e-4, "test_side": 800,
      "max_side": 1333, "freeze_at": 0, "extra_norm": True, "sync_bn": True, "precise_bn": 200, "rpn_pre_nms_train": 12_000,
      "rpn_post_nms_train": 2000, "rpn_pre_nms_test": 6000, "rpn_post_nms_test": 1000}  # fmt: skip
FPN = C4 | {"architecture": "fpn", "rpn_pre_nms_train": 2000, "rpn_post_nms_train": 1000, "rpn_pre_nms_test": 1000}
VOC = C4 | {"masks": False, "warmup_iterations": 100, "warmup_factor": 0.001, "trials": 5, "train_sides": VOC_SIDES}
COCO = {"dataset": "coco", "masks": True, "warmup_iterations": 1000, "trials": 1, "train_sides": COCO_SIDES}
ONCE = {"iterations": 90_000, "milestones": (60_000, 80_000)}
TWICE = {"iterations": 180_000, "milestones": (120_000, 160_000)}
LONG = VOC | {"dataset": "voc0712", "iterations": 24_000, "milestones": (18_000, 22_000)}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("detection_voc0712", LONG),
        ("detection_voc0712_swav", LONG | {"learning_rate": 0.1, "warmup_iterations": 1000, "warmup_factor": 0.333}),
        ("detection_voc07", VOC | {"dataset": "voc07", "iterations": 9000}),
        ("detection_coco", C4 | COCO | ONCE),
        ("detection_coco_2x", C4 | COCO | TWICE),
        ("detection_coco_fpn", FPN | COCO | ONCE),
        ("detection_coco_fpn_2x", FPN | COCO | TWICE),
    ],
)
def test_presets_are_the_papers(name, settings):
    config = DETECTIONS[name]()
    assert {key: getattr(config, key) for key in settings} == settings


@pytest.mark.parametrize("name", DETECTIONS)
def test_every_preset_can_be_planned_and_falls_within_its_iterations(name):
    version, config = PROTOCOLS[name]
    assert version == 1 and config is DETECTIONS[name]
    fields = describe(config)["fields"]
    assert fields["dataset"]["choices"] == ["coco", "voc07", "voc0712", "shapes"]
    rising = [fields["warmup_iterations"]["default"], *fields["milestones"]["default"], fields["iterations"]["default"]]
    assert rising == sorted(set(rising))
