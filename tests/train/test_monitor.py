"""The kNN curve of a training: what it shows is what the definition says, and watching changes no bit of the training."""

import json
import math

import pytest
import torch

from benchmark import monitor
from benchmark.data import split_labels
from benchmark.data.datasets import find, prepare
from benchmark.plan.cell import canonical
from benchmark.plan.sweep import DataIdentity, load_sweep
from benchmark.pretrain import Machine, Pretraining
from benchmark.train.stop import StopRequest
from tests.e2e.conftest import SWEEP, cache  # noqa: F401


@pytest.fixture
def pretraining(cache, tmp_path):  # noqa: F811
    """Makes a fresh training of ten steps an epoch with 40 held-out images, in a folder of its own."""
    shapes = prepare(find("shapes", None, cache), cache)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    identity = {"shapes": DataIdentity("shapes", shapes.content, shapes.counts["train"])}
    (row,) = (row for row in load_sweep(path).expand("smoke", identity) if row.name == "byol")
    config = json.loads(json.dumps(row.cells[0].config))

    def make(name, **data):
        (tmp_path / name).mkdir()
        changed = canonical(config | {"data": config["data"] | data})
        return Pretraining(changed, shapes, Machine("cpu", 1, 0, "torch"), tmp_path / name)

    return make


def train(found):
    (found.folder / "metrics.jsonl").touch()
    outcome = found.train(StopRequest(), lambda progress: None, 1, lambda: None)
    return outcome, torch.load(found.folder / "checkpoint.pt", weights_only=True)["method"]


def test_watching_changes_no_bit(pretraining, monkeypatch):
    plain, alone = train(pretraining("alone"))
    monkeypatch.setattr(monitor, "FEWEST_STEPS", 1)
    watched, seen = train(pretraining("watched"))
    assert "knn" not in plain.curves and "knn" in watched.curves
    assert plain.curves["loss"] == watched.curves["loss"]
    assert alone.keys() == seen.keys() and all(torch.equal(alone[name], seen[name]) for name in alone)


def test_the_curve_is_knn_of_held_out_images_by_a_tenth_of_the_training_images(pretraining, monkeypatch):
    monkeypatch.setattr(monitor, "FEWEST_STEPS", 1)
    found = pretraining("watched")
    asked = []
    original = monitor.KnnMonitor._features
    monkeypatch.setattr(monitor.KnnMonitor, "_features", staticmethod(lambda m, i: asked.append(i.indices) or original(m, i)))
    outcome, _ = train(found)
    values = outcome.curves["knn"]
    points = [step for step, value in zip(outcome.curves["step"], values, strict=True) if not math.isnan(value)]
    assert points == [step for step in outcome.curves["step"] if step % 5 == 0 or step == outcome.steps]
    assert outcome.metrics["knn"] == values[-1]
    bank, held_out = asked[-2:]
    assert set(bank) <= set(found.split.train) and len(bank) == len(found.split.train) // 10
    assert set(held_out) == set(found.split.held_out)
    # the last value, by the definition: cosine similarities to every image of the bank, all that there are counted
    method = found.build()
    method.load_state_dict(torch.load(found.folder / "checkpoint.pt", weights_only=True)["method"])
    method.eval()
    with torch.no_grad():
        x, y = (torch.cat([method.features(some) for some, _ in found._images(part)]).double() for part in (bank, held_out))
    labels = split_labels(found.dataset, "train")
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    right = 0
    for feature, label in zip(y, labels[held_out], strict=True):
        similarity = x @ feature
        near = similarity.argsort(descending=True)[:20]
        votes = torch.zeros(len(found.dataset.classes), dtype=torch.float64)
        for place in near:
            votes[labels[bank][place]] += math.exp((similarity[place] - 1) / 0.07)
        right += int(votes.argmax()) == label
    assert values[-1] == pytest.approx(100 * right / len(held_out), abs=100 / len(held_out) + 1e-9)


def test_without_held_out_images_or_with_few_steps_there_is_no_curve(pretraining, monkeypatch):
    outcome, _ = train(pretraining("short"))
    assert outcome.steps < monitor.FEWEST_STEPS and "knn" not in outcome.curves
    monkeypatch.setattr(monitor, "FEWEST_STEPS", 1)
    outcome, _ = train(pretraining("all", held_out=0.0))
    assert "knn" not in outcome.curves


def test_features_that_are_not_finite_leave_a_gap(pretraining, monkeypatch):
    monkeypatch.setattr(monitor, "FEWEST_STEPS", 1)
    found = pretraining("broken")
    method = found.build()
    watching = monitor.knn_monitor(found.dataset, found.split, found._images, 10, 1)
    with torch.no_grad():
        next(method.encoder.parameters()).fill_(math.nan)
    assert watching is not None and watching(method, 10) is None and watching(method, 3) is None
    assert method.training  # as it was
