"""SimCLR v2's distillation: its settings, what the student is and learns from, interruptions in both stages, bad input."""

import copy
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from benchmark.data import open_loader, split_labels
from benchmark.errors import InputError
from benchmark.evaluate import distill as distill_module
from benchmark.evaluate.distill import NAMES, distill, only, student, student_encoder
from benchmark.evaluate.finetune import accuracies, fine_tune, finetune, labelled_images
from benchmark.evaluate.protocols import PROTOCOLS
from benchmark.evaluate.subject import Place
from benchmark.plan.protocols.finetune import DISTILLATIONS, Student
from benchmark.train import checkpoint
from benchmark.train.loop import Diverged
from methods import load
from methods.base import Setting
from methods.encoders import EncoderConfig
from methods.encoders.config import EncoderName
from methods.views import ViewConfig
from tests.evaluate.subjects import drawn_subject
from tests.evaluate.test_finetune import interrupted, permuted, same_weights, settings

SMALL = {"epochs": 3, "batch_size": 50, "teacher": {"epochs": 2, "batch_size": 16, "head": "pytorch"}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def subject(cache):
    return drawn_subject(cache)


def test_the_settings_are_the_papers():
    student = {
        "epochs": 400, "batch_size": 4096, "optimizer": "lars", "learning_rate": 0.1, "scale_with_batch": True,
        "scale_rule": "sqrt", "weight_decay": 1e-4, "warmup": 0.05, "schedule": "cosine", "alpha": 1.0,
    }  # fmt: skip
    for name, said, teacher in [
        ("distill_self_1", {"student": "self", "temperature": 0.1}, "finetune_simclrv2_1"),
        ("distill_self_10", {"student": "self", "temperature": 0.1}, "finetune_simclrv2_10"),
        ("distill_small_1", {"student": "resnet50", "temperature": 1.0}, "finetune_simclrv2_1"),
        ("distill_small_10", {"student": "resnet50", "temperature": 1.0}, "finetune_simclrv2_10"),
    ]:
        found, expected = settings(name), settings(teacher)
        assert {key: found[key] for key in student | said} == student | said
        assert found["teacher"] == {key: value for key, value in expected.items() if key not in ("name", "version")}
    assert get_args(Student) == ("self", *get_args(EncoderName))
    assert set(NAMES) == set(DISTILLATIONS) and all(PROTOCOLS[name] is distill for name in NAMES)


def test_what_a_sweep_cannot_say():
    for said, words in [
        ({"alpha": 1.5}, r"alpha is 1\.5, the teacher's weight lies between 0 and 1"),
        ({"student_width": 2.0}, "student 'self' is as the teacher; leave student_width and student_sk"),
        ({"student": "resnet5"}, "student: unknown value 'resnet5'.*did you mean"),
        ({"temperature": 0.0}, "temperature: must be above 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"teacher": {"labels": "ten"}}, r"teacher > labels: expected a name of a share of the labels"),
        ({"teacher": {"warmup": 2.0}}, "warmup is 2"),
    ]:
        with pytest.raises(InputError, match=words):
            settings("distill", **said)


def test_the_teacher_is_the_fine_tuned_network_and_the_numbers_are_of_both(subject, tmp_path):
    protocol = settings("distill", **SMALL)
    found = distill(subject, protocol, Place(tmp_path, "x"))
    alone = finetune(subject, protocol["teacher"] | {"name": "finetune"}, Place(tmp_path, "y"))
    assert {key.removeprefix("teacher_"): v for key, v in found.metrics.items() if key.startswith("teacher_")} == alone.metrics
    assert {"top1", "top5", "agreement"} <= set(found.metrics)
    assert found.chosen == alone.chosen | {"unlabelled": 180}  # 200 images, of them 10 % with labels


def test_a_choice_of_the_teacher_is_its_own(subject, tmp_path):
    protocol = settings("distill", **SMALL | {"teacher": SMALL["teacher"] | {"learning_rates": [0.01, 0.5]}})
    found = distill(subject, protocol, Place(tmp_path, "x"))
    assert "heldout_top1" in found.metrics and len(found.chosen["grid"]) == 2


def test_the_student_starts_anew(subject):
    """As the teacher's encoder, or another with what the protocol does not say as the teacher's."""
    teacher = torch.nn.Sequential(subject.network.encoder, torch.nn.Linear(subject.network.dim, 10))
    own = student_encoder(subject, settings("distill"))
    assert own == subject.network.encoder.config
    made = student(subject, settings("distill"), own, teacher)
    assert made.encoder.state_dict().keys() == subject.network.encoder.state_dict().keys()
    assert not torch.equal(made.encoder.layers[0].weight, subject.network.encoder.layers[0].weight)
    again, other = (student(replace(subject, seed=seed), settings("distill"), own, teacher) for seed in (0, 1))
    assert torch.equal(again.classifier.weight, made.classifier.weight)
    assert not torch.equal(other.classifier.weight, made.classifier.weight)
    small = student_encoder(subject, settings("distill", student="resnet10", student_width=0.5))
    assert (small.name, small.width, small.stem) == ("resnet10", 0.5, "stride2")
    subject.network.encoder.config = EncoderConfig(name="vit_tiny", heads=3)
    assert student_encoder(subject, settings("distill", student="resnet10")) == EncoderConfig(name="resnet10")
    subject.network.encoder.config = EncoderConfig(name="resnet50", sk=True, bn_splits=8)
    assert student_encoder(subject, settings("distill", student="resnet18")) == EncoderConfig(name="resnet18")
    assert student_encoder(subject, settings("distill")) == EncoderConfig(name="resnet50", sk=True)


def test_the_students_updates_are_those_of_equation_3(subject, tmp_path):
    """A loop over the same batches with the loss written out, and plain SGD."""
    said = {"optimizer": "sgd", "scale_with_batch": False, "learning_rate": 0.05, "warmup": 0.5, "momentum": 0.0}
    protocol = settings("distill", **SMALL | said | {"alpha": 0.7, "temperature": 0.5, "weight_decay": 0.0, "epochs": 2})
    tuned = fine_tune(subject, protocol["teacher"], Place(tmp_path, "t"), "t")
    teacher = tuned.network.eval()
    made = student(subject, protocol, student_encoder(subject, protocol), copy.deepcopy(teacher))
    everything = np.union1d(subject.split.train, subject.split.held_out)
    loader = open_loader(
        subject.dataset, indices=everything, views=(ViewConfig(),), batch_size=50, seed=0, workers=0, out_size=32,
        mean=subject.dataset.mean, std=subject.dataset.std,
    )  # fmt: skip
    parameters = [*made.encoder.parameters(), *made.classifier.parameters()]
    with loader:
        for step, batch in enumerate(b for epoch in range(2) for b in loader.epoch(epoch)):
            x = batch.views[0].contiguous(memory_format=torch.channels_last)
            said_, told = made.classifier(made.encoder(x)), teacher(x).detach()
            soft = torch.exp(told / 0.5) / torch.exp(told / 0.5).sum(dim=1, keepdim=True)
            loss = 0.7 * -(soft * torch.log_softmax(said_ / 0.5, dim=1)).sum(dim=1).mean()
            known = torch.from_numpy(np.isin(batch.index.numpy(), tuned.labelled))
            if known.any():
                picked = torch.log_softmax(said_, dim=1)[torch.arange(50), batch.labels]
                loss = loss - 0.3 * picked[known].mean()
            rate = 0.05 * ((step + 1) / 4 if step < 4 else 0.5 * (1 + np.cos(np.pi * (step - 4) / 4)))
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p.data -= rate * g
    place = Place(tmp_path, "x")
    metrics = distill(subject, protocol, place).metrics
    found = checkpoint.load(place.checkpoint)["trained"]
    parts = torch.nn.ModuleList([made.encoder, made.classifier])
    for key, value in parts.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
    # What is scored is that student with its running statistics, beside that teacher.
    parts.load_state_dict(found)
    scores, labels = subject.outputs("test", subject.split.test, torch.nn.Sequential(*parts).eval())
    told, _ = subject.outputs("test", subject.split.test, teacher)
    assert accuracies(scores, labels, 0) == {key: metrics[key] for key in ("top1", "top5")}
    assert metrics["agreement"] == 100.0 * (scores.argmax(dim=1) == told.argmax(dim=1)).double().mean().item()


def test_only_the_teachers_labels_are_known(subject, tmp_path, monkeypatch):
    """With those of all other images in another order every weight of the student is the same, though it learns from labels."""
    protocol = settings("distill", **SMALL | {"alpha": 0.5})
    labels = split_labels(subject.dataset, "train")
    ids = labelled_images(subject, protocol["teacher"], "x")
    known = only(labels, ids)
    assert (known >= 0).sum() == len(ids) == 20 and np.array_equal(known[ids], labels[ids])
    other = np.random.default_rng(0).permutation(labels)
    one, two, three = (Place(tmp_path, name) for name in ("one", "two", "three"))
    distill(subject, protocol, one)
    other[ids] = labels[ids]
    monkeypatch.setattr(distill_module, "split_labels", lambda dataset, part: other)
    distill(subject, protocol, two)
    assert same_weights(one, two)
    monkeypatch.setattr(distill_module, "split_labels", lambda dataset, part: (labels + 1) % 10)
    distill(subject, protocol, three)
    assert not same_weights(one, three)


def test_test_labels_change_nothing_but_the_score(subject, tmp_path, monkeypatch):
    one, two = Place(tmp_path, "one"), Place(tmp_path, "two")
    first = distill(subject, settings("distill", **SMALL), one)
    permuted(monkeypatch, "test")
    second = distill(subject, settings("distill", **SMALL), two)
    assert first.chosen == second.chosen and first.metrics["agreement"] == second.metrics["agreement"]
    assert same_weights(one, two)


def test_a_stopped_distillation_ends_with_the_same_bits(cache, tmp_path):
    """Within the choice of the teacher, its training, and the student's."""
    protocol = settings("distill", **SMALL | {"teacher": SMALL["teacher"] | {"learning_rates": [0.01, 0.5], "labels": "20%"}})
    whole, broken = Place(tmp_path, "whole"), Place(tmp_path, "broken")
    subject, steps = drawn_subject(cache), []
    subject.report = steps.append
    expected = distill(subject, protocol, whole)
    found, taken, starts = interrupted(distill, lambda: drawn_subject(cache), protocol, broken, 3)
    assert found == expected and same_weights(whole, broken)
    assert taken == len(steps) and starts > 4


def test_a_student_comes_near_its_teacher(cache, tmp_path):
    """A teacher of all labels that knows something; a twin from scratch, and it has seen no label."""
    encoder = EncoderConfig(name="convnet", stem="stride2", width=1.0)
    subject = drawn_subject(cache, encoder, train=1000, test=300, held_out=0.0)
    common = {"epochs": 10, "batch_size": 64, "scale_with_batch": False, "crop_scale": [0.6, 1.0], "optimizer": "sgd"}
    teacher = common | {"learning_rates": [0.1], "labels": "100%"}
    protocol = settings("distill", **common, learning_rate=0.1, nesterov=True, temperature=0.5, teacher=teacher)
    found = distill(subject, protocol, Place(tmp_path, "x")).metrics
    assert found["teacher_top1"] > 40 and found["top1"] > 0.7 * found["teacher_top1"] and found["agreement"] > 50


def test_bad_input(cache, tmp_path):
    place = Place(tmp_path, "x")
    subject = drawn_subject(cache)
    kind = load("cmc")
    subject.network = kind(
        replace(kind.Config(), negatives=4), EncoderConfig(name="convnet", stem="stride2"), Setting(num_images=9, batch_size=4)
    )
    with pytest.raises(InputError, match="distill: the network is of several encoders and has no twin; name a student"):
        distill(subject, settings("distill"), place)
    subject = drawn_subject(cache)
    with pytest.raises(InputError, match=r"distill: the student cannot be made, encoder\.sk needs bottlenecks"):
        distill(subject, settings("distill", student="resnet18", student_sk=True), place)
    subject.split = replace(subject.split, test=subject.split.test[:0])
    with pytest.raises(InputError, match="distill: teacher: the test split has no labelled image"):
        distill(subject, settings("distill"), place)
    with pytest.raises(Diverged):
        distill(drawn_subject(cache), settings("distill", **SMALL | {"learning_rate": 1e30}), place)
