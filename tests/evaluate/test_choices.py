"""Test labels never influence a choice: with other labels, and other order, of the test images every protocol chooses the
same and trains the same weights, bit for bit."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.data import read_split, split_labels
from benchmark.data.beton import BetonWriter
from benchmark.evaluate import frozen, protocols
from benchmark.evaluate.subject import Place, Subject
from benchmark.plan.evaluations import read_protocols
from benchmark.plan.protocols import PROTOCOLS
from tests.evaluate.subjects import drawn_subject

# What has no test labels to look at: pictures, and photographs with boxes, whose scores are tested with detection.
WITHOUT_LABELS = {"attention", "embedding_map"} | {name for name in PROTOCOLS if name.startswith("detection")}
# By its definition fitted to labels of the test split's first half. It chooses nothing.
FITTED_TO_TEST = {"blog_logistic"}
# Settings that make something to choose, or that make a training last a moment. The choice stays as the paper's.
SAID: dict[str, dict[str, Any]] = {
    "knn": {"ks": [1, 5, 20], "temperatures": [0.07, 0.5]},
    "knn_dino": {"ks": [2, 20]},
    "linear": {"l2_low": -3.0},
}
SHORT = {"epochs": 2, "batch_size": 30, "student": "convnet", "student_width": 0.25}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return drawn_subject(tmp_path_factory.mktemp("cache"), train=120, test=60, held_out=0.25)


@pytest.fixture(scope="module")
def other(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The same images with permuted test labels, tested in another order."""
    images, labels = read_split(subject.dataset, "test")
    path = tmp_path_factory.mktemp("permuted") / "test.beton"
    with BetonWriter(path, len(images), images.shape[1]) as writer:
        writer.write(images, np.random.default_rng(0).permutation(labels))
    dataset, split = replace(subject.dataset, test=path), subject.split
    before, after = split_labels(subject.dataset, "test")[split.test], split_labels(dataset, "test")[split.test]
    assert (before != after).mean() > 0.5
    return replace(subject, dataset=dataset, split=replace(split, test=split.test[::-1].copy()))


def asked(name: str) -> dict[str, Any]:
    [protocol] = read_protocols({name: SAID.get(name, shortened(PROTOCOLS[name][1]()))}, lambda path: " > ".join(path))
    return protocol


def shortened(config: Any) -> dict[str, Any]:
    """What to say so that this protocol is over soon."""
    said: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            said[field.name] = shortened(value)
        elif field.name in ("shorter", "milestones") and value:
            said[field.name] = [1]
        elif field.name in SHORT and not (field.name.startswith("student") and config.student == "self"):
            said[field.name] = SHORT[field.name]
    return said


def measured(name: str, subject: Subject, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, dict[str, float]]:
    """(what was chosen, all trained weights, metrics)."""
    folder.mkdir()
    probes = []
    fit_linear = frozen.fit_linear
    monkeypatch.setattr(frozen, "fit_linear", lambda *args: probes.append(fit_linear(*args)) or probes[-1])
    place = Place(folder, name)
    found = protocols.PROTOCOLS[name](subject, asked(name), place)
    monkeypatch.undo()
    saved = torch.load(place.checkpoint, weights_only=False)["finished"] if place.checkpoint.exists() else {}
    trained = torch.load(place.checkpoint, weights_only=False)["trained"] if place.checkpoint.exists() else {}
    return found.chosen, (saved, trained, [(probe.weight, probe.bias) for probe in probes]), found.metrics


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, times aside."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(key == "seconds" or same(value, two[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two or (one != one and two != two))


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in WITHOUT_LABELS | FITTED_TO_TEST])
def test_test_labels_choose_nothing(
    name: str, subject: Subject, other: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, weights, metrics = measured(name, subject, tmp_path / "one", monkeypatch)
    chosen_too, weights_too, metrics_too = measured(name, other, tmp_path / "two", monkeypatch)
    assert same(chosen, chosen_too)
    assert same(weights, weights_too)
    assert metrics.get("heldout_top1") == metrics_too.get("heldout_top1")
    if name == "collapse":  # which looks at no label at all
        assert metrics_too == pytest.approx(metrics, rel=1e-4)
    elif not name.startswith("knn"):
        assert any(len(part) for part in weights), "nothing was trained, so nothing was shown"
    if name in SAID:
        assert metrics["top1"] != metrics_too["top1"] and chosen["grid"]


@pytest.mark.parametrize(("name", "looks"), [("finetune_byol_1", 1), ("distill_self_1", 2), ("linear_moco", 1)])
def test_the_test_images_are_looked_at_when_nothing_is_left_to_choose(
    name: str, looks: int, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, or once by each of teacher and student."""
    seen, outputs = [], Subject.outputs

    def watched(self: Subject, part: Any, indices: Any, network: Any) -> Any:
        if part == "test":
            seen.append(len(indices))
        return outputs(self, part, indices, network)

    monkeypatch.setattr(Subject, "outputs", watched)
    said = asked(name) | ({"gap": False} if name.startswith("linear") else {})
    protocols.PROTOCOLS[name](replace(subject), said, Place(tmp_path, name))
    assert seen == [60] * looks


def test_every_protocol_is_here_or_its_absence_explained() -> None:
    assert set(protocols.PROTOCOLS) == set(PROTOCOLS)
    assert set(PROTOCOLS) >= WITHOUT_LABELS | FITTED_TO_TEST | set(SAID)


def test_the_comparison_sees_what_differs() -> None:
    one = {"a": [torch.ones(2), 3.0], "seconds": 1.0}
    assert same(one, {"a": [torch.ones(2), 3.0], "seconds": 2.0})
    assert not same(one, {"a": [torch.ones(2) + 1e-7, 3.0], "seconds": 1.0})
    assert not same(one, {"a": [torch.ones(2), 3.1], "seconds": 1.0}) and not same(one, {"a": [torch.ones(2)]})
