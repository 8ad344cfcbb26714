"""On features whose answer is known every protocol on frozen features gives it, and says in one sentence what it cannot use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate import subject as subjects_module
from benchmark.evaluate.collapse import alignment_metrics, uniformity
from benchmark.evaluate.protocols import PROTOCOLS
from benchmark.evaluate.subject import Features, Found, Place, Subject
from benchmark.plan.evaluations import read_protocols
from benchmark.train.stop import Stopped, StopRequest
from methods import telemetry
from tests.evaluate.subjects import drawn_subject

CLASSES, DIM = 4, 12
CLASSIFIERS = ("knn", "knn_dino", "linear", "blog_logistic")
COUNTS = (240, 80, 400)  # train, held out, test


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return drawn_subject(tmp_path_factory.mktemp("cache"), train=40, test=40, held_out=0.25)


@pytest.fixture
def evaluate(drawn: Subject, tmp_path: Path) -> Callable[..., Found]:
    """A protocol on given features."""

    def found(name: str, features: Features, **said: Any) -> Found:
        subject = replace(drawn)
        subject.__dict__["features"] = features
        [protocol] = read_protocols({name: said}, lambda path: name)
        return PROTOCOLS[name](subject, protocol, Place(tmp_path, name))

    return found


def cycled(count: int, classes: int = CLASSES) -> Tensor:
    return torch.arange(count) % classes


def drawn_labels(count: int, weights: tuple[float, ...], seed: int) -> Tensor:
    return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=torch.Generator().manual_seed(seed))


def noise(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def corners(labels: Tensor, seed: int) -> Tensor:
    """Every class around a corner of its own."""
    return 5.0 * nn.functional.one_hot(labels, DIM).float() + 0.05 * noise(len(labels), seed)


def put(make: Callable[[Tensor, int], Tensor], labels: tuple[Tensor, Tensor, Tensor]) -> Features:
    x = [make(y, seed) for seed, y in enumerate(labels)]
    return Features(x[0], labels[0], x[1], labels[1], x[2], labels[2], x[2], CLASSES)


def share(y: Tensor, *classes: int) -> float:
    return 100.0 * sum((y == c).double().mean().item() for c in classes)


@dataclass(frozen=True)
class Case:
    features: Features
    expected: Callable[[str, Features], float]
    within: float = 0.0


def most_frequent(name: str, features: Features) -> float:
    """Of what the protocol learns from, in the test images that it is scored on."""
    seen, scored = features.train_y, features.test_y
    if name == "linear":
        seen = torch.cat([seen, features.held_out_y])
    if name == "blog_logistic":
        seen, scored = scored[: len(scored) // 2], scored[len(scored) // 2 :]
    return share(scored, int(seen.bincount(minlength=CLASSES).argmax()))


def scored(name: str, features: Features) -> Tensor:
    return features.test_y[len(features.test_y) // 2 :] if name == "blog_logistic" else features.test_y


BALANCED = (cycled(COUNTS[0]), cycled(COUNTS[1]), cycled(COUNTS[2]))
UNEVEN = tuple(drawn_labels(n, (0.2, 0.15, 0.45, 0.2), n) for n in COUNTS)
THREE = (BALANCED[0], BALANCED[1], cycled(COUNTS[2], 3))
# Class 3 is in test alone; in both halves of it, so that the blog's protocol, which learns from the first, knows the class.
UNKNOWN = (cycled(COUNTS[0], 3), cycled(COUNTS[1], 3), BALANCED[2])


def twins(labels: Tensor, seed: int) -> Tensor:
    """Classes 0 and 1 are the same points, in equal numbers."""
    return 5.0 * nn.functional.one_hot(labels.clamp_min(1), DIM).float()


CASES = {
    "separable": Case(put(corners, BALANCED), lambda name, f: 100.0),
    "separable, uneven": Case(put(corners, UNEVEN), lambda name, f: 100.0),
    # 400 draws of one in four (200 for the blog's half): three deviations are 6.5 (9.2) points
    "random": Case(put(lambda y, seed: noise(len(y), seed), BALANCED), lambda name, f: 25.0, within=9.2),
    "collapsed to a point": Case(put(lambda y, seed: torch.full((len(y), DIM), 0.3), UNEVEN), most_frequent),
    "collapsed to zero": Case(put(lambda y, seed: torch.zeros(len(y), DIM), UNEVEN), most_frequent),
    "a class is missing from test": Case(put(corners, THREE), lambda name, f: 100.0),
    "a class is missing from train": Case(
        put(corners, UNKNOWN), lambda name, f: 100.0 if name == "blog_logistic" else share(f.test_y, 0, 1, 2)
    ),
    "two classes are the same": Case(put(twins, BALANCED), lambda name, f: share(scored(name, f), 0, 2, 3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_known_answers(name: str, case: str, evaluate: Callable[..., Found]) -> None:
    features, expected = CASES[case].features, CASES[case].expected(name, CASES[case].features)
    # All of the training set, where all are equally near: of a few, the first would be asked alone.
    k = len(features.train_x) if "collapsed" in case else 40
    said = {"k": k} if name.startswith("knn") else {"l2_low": -3.0} if name == "linear" else {}
    found = evaluate(name, features, **said).metrics["top1"]
    assert found == pytest.approx(expected, abs=CASES[case].within or 1e-9)


@pytest.mark.parametrize("name", ["knn", "knn_dino"])
def test_of_equally_near_neighbours_the_first_are_asked(name: str, evaluate: Callable[..., Found]) -> None:
    """Collapsed features and few neighbours: the first rows of the training set decide, whoever is the most frequent."""
    features = put(lambda y, seed: torch.ones(len(y), DIM), BALANCED)
    features = replace(features, train_y=features.train_y.sort(descending=True).values)  # the first 60 are of class 3
    assert evaluate(name, features, k=20).metrics["top1"] == share(features.test_y, 3)


def test_knn_chooses_on_held_out_images(evaluate: Callable[..., Found]) -> None:
    """The nearest are wrong and the next ones right in the held-out part, the reverse in the test part: it must fail there."""
    point = torch.eye(DIM)
    near, far = point[0] + 0.1 * point[1], point[0] + 0.3 * point[1]
    train_x, train_y = torch.stack([near] * 3 + [far] * 8), torch.tensor([0] * 3 + [1] * 8)
    ask, said = point[:1].repeat(10, 1), {"ks": [1, 11, 9], "temperatures": [1.0]}
    features = Features(train_x, train_y, ask, torch.ones(10).long(), ask, torch.zeros(10).long(), ask, CLASSES)
    found = evaluate("knn", features, **said)
    assert found.metrics == {"top1": 0.0, "heldout_top1": 100.0}
    assert found.chosen == {"k": 11, "temperature": 1.0, "grid": [[1, 1.0, 0.0], [11, 1.0, 100.0], [9, 1.0, 100.0]]}
    swapped = replace(features, held_out_y=features.test_y, test_y=features.held_out_y)
    assert evaluate("knn", swapped, **said).chosen["k"] == 1
    # the temperature too: at a low one three near neighbours outweigh eight far ones
    found = evaluate("knn", swapped, k=11, temperatures=[1.0, 0.01])
    assert found.chosen["temperature"] == 0.01 and found.metrics == {"top1": 0.0, "heldout_top1": 100.0}


def test_a_grid_of_one_is_no_choice(evaluate: Callable[..., Found]) -> None:
    features = put(lambda y, seed: noise(len(y), seed), BALANCED)
    alone = evaluate("knn", features, k=7, temperature=0.2)
    assert alone.chosen == {} and set(alone.metrics) == {"top1"}
    assert evaluate("knn", features, ks=[7], temperatures=[0.2]) == alone
    assert evaluate("knn", features, ks=[7, 7], temperatures=[0.2]) == alone
    chosen = evaluate("knn", features, ks=[7, 30], temperatures=[0.2, 0.05])
    fixed = evaluate("knn", features, k=chosen.chosen["k"], temperature=chosen.chosen["temperature"])
    assert chosen.metrics["top1"] == fixed.metrics["top1"] and len(chosen.chosen["grid"]) == 4


# ------------------------------------------------------------------------------------------------------- collapse


class Known(nn.Module):
    """A network that is told what to make of images."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make

    def features(self, images: Tensor) -> Tensor:
        return self.make(images)

    project = features


def test_collapse_of_a_point_and_of_axes(evaluate: Callable[..., Found]) -> None:
    point = evaluate("collapse", put(lambda y, seed: torch.full((len(y), DIM), 0.3), BALANCED)).metrics
    assert point["std"] == pytest.approx(0.0, abs=1e-6) and point["effective_rank"] == 0.0
    assert point["pair_cosine"] == pytest.approx(1.0, abs=1e-5) and point["uniformity"] == pytest.approx(0.0, abs=1e-5)
    axes = 3.0 * torch.cat([torch.eye(DIM), -torch.eye(DIM)])  # every one has an antipode, and a right angle to the rest
    features = replace(put(corners, BALANCED), test_x=axes, test_z=axes, test_y=cycled(2 * DIM))
    spread = evaluate("collapse", features).metrics
    assert spread["std"] == pytest.approx(1.0) and spread["effective_rank"] == pytest.approx(DIM)
    assert spread["pair_cosine"] == pytest.approx(-1 / (2 * DIM - 1))
    expected = math.log((math.exp(-8) + (2 * DIM - 2) * math.exp(-4)) / (2 * DIM - 1))
    assert spread["uniformity"] == spread["feature_uniformity"] == pytest.approx(expected, rel=1e-5)


def test_uniformity_in_pieces_is_that_of_the_training_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.evaluate.collapse._ROWS", 7)
    z = noise(50, 3) + 0.5
    assert uniformity(z) == pytest.approx(float(telemetry.uniformity(z)), rel=1e-5)
    unit = z / z.norm(dim=1, keepdim=True)
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(50) for j in range(50) if i != j]
    assert uniformity(z) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    assert math.isnan(uniformity(z[:1]))


def test_alignment_is_of_two_views_of_held_out_images(drawn: Subject) -> None:
    seen: list[Tensor] = []

    def colours(images: Tensor) -> Tensor:
        seen.append(images)
        return images.mean(dim=(2, 3))

    found = alignment_metrics(replace(drawn, network=Known(colours)))
    assert len(drawn.split.held_out) == len(seen[0]) == 10 and len(seen) == 4  # project and features of either view
    assert not torch.equal(seen[0], seen[2])
    one, two = (views.double().mean(dim=(2, 3)) for views in (seen[0], seen[2]))
    gap = one / one.norm(dim=1, keepdim=True) - two / two.norm(dim=1, keepdim=True)
    expected = float(gap.square().sum(dim=1).mean())
    assert 0.0 < expected == pytest.approx(found["alignment"], rel=1e-4) == pytest.approx(found["feature_alignment"], rel=1e-4)
    again = replace(drawn, network=Known(lambda images: images.mean(dim=(2, 3))), seed=7)
    assert alignment_metrics(again) == found  # the same views for every network, whatever its seed
    still = replace(drawn, network=Known(lambda images: torch.ones(len(images), 3)))
    assert alignment_metrics(still)["alignment"] == pytest.approx(0.0, abs=1e-6)


def test_alignment_of_modalities_and_without_held_out_images(drawn: Subject) -> None:
    shapes = set()

    def keep(images: Tensor) -> Tensor:
        shapes.add(tuple(images.shape))
        return images.flatten(1)

    split = replace(drawn.split, held_out=drawn.split.held_out[:0])
    found = alignment_metrics(replace(drawn, network=Known(keep), channels=["lab", "sobel"], split=split))
    assert shapes == {(30, 5, 32, 32)} and 0.0 < found["alignment"] < 4.0


# ------------------------------------------------------------------------------------------------------ bad input

EVERY = (*CLASSIFIERS, "collapse")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"test_y": torch.full((400,), CLASSES)},
            r"the test images of shapes have labels from 4 to 4; its classes are 0 to 3$",
        ),
        ({"train_y": cycled(240) - 1}, r"the training images of shapes have labels from -1 to 2; its classes are 0 to 3$"),
        ({"train_x": torch.full((240, DIM), math.nan)}, "features of training images are not finite"),
        ({"held_out_x": torch.full((80, DIM), math.inf)}, "features of held-out images are not finite"),
        ({"test_x": torch.full((400, DIM), -math.inf)}, "features of test images are not finite"),
        ({"test_z": torch.full((400, DIM), math.nan)}, "projections of test images are not finite"),
    ],
)
def test_what_no_protocol_can_use(name: str, change: dict[str, Tensor], words: str, evaluate: Callable[..., Found]) -> None:
    with pytest.raises(InputError, match=f"^{name}: .*{words}"):
        evaluate(name, replace(put(corners, BALANCED), **change))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("part", "words"), [("train", "training"), ("test", "test")])
def test_an_empty_part_is_told(name: str, part: str, words: str, drawn: Subject, tmp_path: Path) -> None:
    subject = replace(drawn, split=replace(drawn.split, **{part: np.arange(0)}))
    [protocol] = read_protocols({name: {}}, lambda path: name)
    with pytest.raises(InputError, match=f"^{name}: shapes has no labelled {words} image here; see data.{part}_images"):
        PROTOCOLS[name](subject, protocol, Place(tmp_path, name))


def test_a_choice_needs_held_out_images(evaluate: Callable[..., Found]) -> None:
    features = put(corners, BALANCED)
    none = replace(features, held_out_x=features.held_out_x[:0], held_out_y=features.held_out_y[:0])
    for name, said in (("knn", {"ks": [1, 2]}), ("knn_dino", {"temperatures": [0.1, 1.0]}), ("linear", {})):
        with pytest.raises(InputError, match=rf"^{name}: data\.held_out is 0"):
            evaluate(name, none, **said)
    assert evaluate("knn", none, k=3).metrics == {"top1": 100.0}


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_a_stop_waits_for_a_short_end_alone(name: str, drawn: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = replace(drawn, stop=StopRequest())
    subject.__dict__["features"] = put(corners, BALANCED)
    subject.stop.ask("the test wants it")
    [protocol] = read_protocols([name], lambda path: name)
    assert PROTOCOLS[name](subject, protocol | {"k": 3}, Place(tmp_path, name)).metrics["top1"] == 100.0
    monkeypatch.setattr(subjects_module, "_PATIENCE", -1.0)  # it has taken long
    with pytest.raises(Stopped, match="the test wants it"):
        PROTOCOLS[name](subject, protocol | {"k": 3}, Place(tmp_path, name))


def test_too_few_images_are_told(evaluate: Callable[..., Found]) -> None:
    features = put(corners, BALANCED)
    with pytest.raises(InputError, match="k is 241, but there are 240 training features"):
        evaluate("knn", features, ks=[1, 241])
    with pytest.raises(InputError, match="one test image has no two halves"):
        one = {"test_x": features.test_x[:1], "test_y": features.test_y[:1], "test_z": features.test_z[:1]}
        evaluate("blog_logistic", replace(features, **one))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"k": 0}, "knn > k: must be above 0, found 0"),
        ({"ks": [5, 0]}, "knn: ks has 0; at least 1 neighbour"),
        ({"temperature": 0.0}, "knn > temperature: must be above 0"),
        ({"temperatures": [0.1, 0.0]}, "knn: temperatures has 0; a temperature is above 0"),
    ],
)
def test_settings_that_no_knn_can_have(said: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_protocols({"knn": said}, lambda path: " > ".join(path))


def test_the_presets_are_the_papers() -> None:
    def settings(name: str) -> dict[str, Any]:
        return read_protocols([name], lambda path: name)[0]

    assert settings("knn") == {"name": "knn", "version": 1, "k": 200, "temperature": 0.07}  # as it was published
    assert settings("knn_dino") == {"name": "knn_dino", "version": 1, "k": 20, "temperature": 0.07}
