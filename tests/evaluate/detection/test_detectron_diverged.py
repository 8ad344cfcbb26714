"""A training that diverged under detectron2 says so; no detectron2 is needed to see it, its parts are played here."""

import contextlib
import sys
import types

import pytest
import torch

from benchmark.data.boxes import find_boxes
from benchmark.evaluate.detection import Trial, detectron
from benchmark.evaluate.subject import Place
from benchmark.train.loop import Diverged
from methods.encoders import EncoderConfig
from tests.evaluate.detection.detectrons import said
from tests.evaluate.subjects import drawn_subject

TRIAL = Trial(0, 1, 0)


class Detector(torch.nn.Linear):
    device = torch.device("cpu")

    def forward(self, batch):
        if self.training and not self.weight.isfinite().all():
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        return {"loss": self.weight.sum()}


def played(monkeypatch, name, **parts):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**parts))


def test_proposals_that_are_not_finite_are_a_divergence_at_that_step(monkeypatch):
    played(monkeypatch, "detectron2.utils.events", EventStorage=lambda step: contextlib.nullcontext())
    detector = Detector(2, 2)
    assert detectron.losses_of(detector, [], said(), TRIAL, 3) == detector.weight.sum()
    torch.nn.init.constant_(detector.weight, torch.nan)
    with pytest.raises(Diverged) as error:
        detectron.losses_of(detector, [], said(), TRIAL, 7)
    assert error.value.step == 7 and error.value.what == "loss"


def test_weights_that_are_not_finite_after_the_last_step_are_no_score(monkeypatch, tmp_path):
    def train(subject, protocol, place, photos, trial, detector):
        torch.nn.init.constant_(detector.weight, torch.nan)

    made = {"Results": lambda detector: detector, "build_detector": lambda *_: Detector(2, 2)}
    played(monkeypatch, "benchmark.evaluate.detection.detectron_model", **made)
    monkeypatch.setattr(detectron, "require", lambda name: None)
    monkeypatch.setattr(detectron, "train", train)
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    boxes = find_boxes("shapes", None).open().take(2, 2)
    with pytest.raises(Diverged) as error:
        detectron.measure(subject, said(), Place(tmp_path, "d"), boxes, TRIAL)
    assert error.value.step == said()["iterations"]
