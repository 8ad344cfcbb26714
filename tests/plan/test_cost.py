"""Prices: what records say of the same work on the same kind of machine, else a guess that grows with the work."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.plan.cell import canonical
from benchmark.plan.cost import Prices, images_of, kept_images
from benchmark.plan.cost_evaluations import EvaluationPrices, effort, uses_features
from benchmark.plan.evaluations import on_cell, read_protocols
from benchmark.plan.protocols import PROTOCOLS

CONFIG: dict[str, Any] = {
    "method": "byol",
    "version": 1,
    "epochs": 1,
    "batch_size": 10,
    "precision": "fp32",
    "data": {"name": "shapes", "train_images": 1000, "test_images": 200, "held_out": 0.1, "image_size": 32},
    "encoder": {"name": "resnet10", "stem": "stride2", "width": 1.0, "norm": "batch"},
    "views": [{"size": 0}, {"size": 0}],
}
WHOLE = CONFIG | {"data": CONFIG["data"] | {"name": "dogs", "train_images": 0, "test_images": 0}}


def protocol(name: str, **settings: Any) -> dict[str, Any]:
    (made,) = on_cell(read_protocols({name: settings}, " > ".join), CONFIG)
    return made


def training(device: str = "cpu") -> Prices:
    record = {"config": CONFIG, "timing": {"images_per_second": 300.0}, "provenance": {"hardware": {"device": device}}}
    return Prices.from_records([record], device)


def evaluated(name: str, wall: float, features: float = 0.0, **more: Any) -> dict[str, Any]:
    timing = {"wall_seconds": wall, "features_seconds": features} | more.pop("timing", {})
    hardware = {"hardware": {"device": more.pop("device", "cpu")}}
    return {"status": "done", "protocol": protocol(name), "timing": timing, "provenance": hardware} | more


def prices(*records: dict[str, Any]) -> EvaluationPrices:
    return EvaluationPrices.from_records([(CONFIG, record) for record in records], training())


def test_images_are_those_at_hand_or_published() -> None:
    assert (kept_images(CONFIG), images_of(CONFIG, None, "test")) == (900, 200)
    at_hand = {"dogs": {"train": 200, "test": 50}}
    assert (kept_images(WHOLE, at_hand), images_of(WHOLE, at_hand, "test")) == (180, 50)
    assert (kept_images(WHOLE), images_of(WHOLE, None, "test")) == (0, 0)  # nobody knows
    imagenet = {"data": CONFIG["data"] | {"name": "imagenet", "train_images": 0, "test_images": 0, "held_out": 0.0}}
    assert (kept_images(imagenet), images_of(imagenet, None, "test")) == (1_281_167, 50_000)


def test_training_is_measured_on_the_same_kind_of_device() -> None:
    assert training().seconds(CONFIG) == (1800 / 600.0, True)
    assert Prices.from_records([], "cpu").seconds(CONFIG)[1] is False
    record = {"config": CONFIG, "timing": {"images_per_second": 300.0}, "provenance": {"hardware": {"device": "cpu"}}}
    assert Prices.from_records([record], "cuda").measured == {}


def test_a_rate_of_several_ranks_is_that_of_each() -> None:
    timing = {"images_per_second": 300.0, "ranks": 2}
    record = {"config": CONFIG, "timing": timing, "provenance": {"hardware": {"device": "cpu"}}}
    assert Prices.from_records([record], "cpu").seconds(CONFIG) == (1800 / 300.0, True)


def test_what_is_measured_replaces_the_guess() -> None:
    seconds, guessed = prices().seconds([protocol("knn")], CONFIG)
    assert guessed == seconds > 0
    assert prices(evaluated("knn", 7.0, 2.0)).seconds([protocol("knn")], CONFIG) == (pytest.approx(7.0), 0.0)


def test_the_features_are_taken_once_for_all() -> None:
    known = prices(evaluated("knn", 7.0, 2.0), evaluated("linear", 3.0))
    both = [protocol("knn"), protocol("linear"), protocol("knn", k=5)]
    assert known.seconds(both, CONFIG) == (pytest.approx(2.0 + 5.0 + 3.0 + 5.0), 0.0)


def test_a_probe_is_guessed_from_the_speed_of_the_training() -> None:
    one, two = (protocol("linear_swav", epochs=epochs, gap=False) for epochs in (10, 20))
    assert effort(two, CONFIG, {}) - effort(one, CONFIG, {}) == pytest.approx(10 * 900 / 3)  # forward alone
    seconds, guessed = prices().seconds([one], CONFIG)
    assert seconds == guessed == pytest.approx(1 + (10 * 900 + 200) / 3 / 600)
    several = protocol("linear_swav", epochs=10, gap=False, learning_rates=[0.1, 0.2])
    assert effort(several, CONFIG, {}) - effort(one, CONFIG, {}) == pytest.approx(10 * 900 / 3)  # and then the best alone


def test_a_measured_probe_tells_of_longer_ones() -> None:
    record = evaluated("linear_swav", 50.0) | {"protocol": protocol("linear_swav", epochs=10, gap=False)}
    found, guessed = prices(record).seconds([protocol("linear_swav", epochs=100, gap=False)], CONFIG)
    assert guessed == 0 and found == pytest.approx(50 * (100 * 900 + 200) / (10 * 900 + 200))


@pytest.mark.parametrize(
    "more", [{"timing": {"resumed": True}}, {"status": "diverged"}, {"device": "cuda"}, {"timing": {"features_seconds": None}}]
)
def test_what_was_not_measured_whole_and_here_tells_nothing(more: dict[str, Any]) -> None:
    record = evaluated("knn", 7.0, 2.0, **more)
    if record["timing"]["features_seconds"] is None:  # of an older version
        del record["timing"]["features_seconds"]
    assert prices(record).own == {} == prices(record).passes


def test_a_detector_costs_its_iterations_and_trials() -> None:
    one = effort(protocol("detection_voc07", trials=1), CONFIG, {})
    assert effort(protocol("detection_voc07", trials=5), CONFIG, {}) == pytest.approx(5 * one)
    longer = protocol("detection_voc07", trials=1, iterations=2 * protocol("detection_voc07")["iterations"])
    assert 1.8 < effort(longer, CONFIG, {}) / one < 2.0  # the test is not repeated
    assert not uses_features(protocol("detection_voc07"))


def test_maps_of_attention_need_no_features() -> None:
    seconds, _ = prices().seconds([protocol("attention")], CONFIG)
    both, _ = prices().seconds([protocol("attention"), protocol("embedding_map")], CONFIG)
    assert not uses_features(protocol("attention")) and uses_features(protocol("embedding_map"))
    assert both > 2 * seconds + 1200 / 3 / 600 - 1e-9  # as much once more, and the pass over all images


def test_part_of_the_labels_is_part_of_the_price() -> None:
    test = 200 / 3
    whole, tenth = (effort(protocol("finetune", epochs=10, labels=labels), CONFIG, {}) for labels in ("100%", "10%"))
    assert whole == pytest.approx(10 * 1000 + test) and tenth == pytest.approx(10 * 100 + test)
    chosen = protocol("finetune", epochs=10, labels="10%", learning_rates=[0.1, 0.2])  # two rates, then the best again
    assert effort(chosen, CONFIG, {}) == pytest.approx(30 * 100 + test)


def test_a_student_costs_its_teacher_too() -> None:
    found = effort(protocol("distill", epochs=10, teacher={"labels": "10%", "epochs": 5}), CONFIG, {})
    assert found == pytest.approx(5 * 100 + 10 * 1000 * 4 / 3 + 200 / 3)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_protocol_has_a_price(name: str, device: str) -> None:
    seconds, _ = EvaluationPrices(Prices(device)).seconds([canonical(protocol(name))], CONFIG)
    assert 0 < seconds < 3e9
