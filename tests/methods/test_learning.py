"""Every method that should learn does, at smoke scale; every switch that should break one is seen to, in the telemetry.

Bands from several random seeds, never one lucky one: kNN before and after, the mean of all seeds and the worst of them; the
spread of a broken switch lies apart from the whole method's on every seed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from methods import METHODS, load
from tests.methods import learning
from tests.methods.learning import LESSONS, Outcome, learn

SEEDS = (0, 1, 2)
# Points of kNN top-1 over the untrained encoder: the mean of the seeds, and each of them.
MEAN_GAIN, EACH_GAIN = 4.0, 2.0


@pytest.fixture(autouse=True, scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()  # with pytest-xdist, beside those of the other processes
    learning.CACHE[:] = [(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shapes"]
    torch.set_num_threads(1)


def test_every_method_that_is_trained_has_a_lesson() -> None:
    assert set(LESSONS) == {name for name in METHODS if load(name).TRAINS}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LESSONS))
def test_it_learns(name: str) -> None:
    outcomes = [learn(name, seed) for seed in SEEDS]
    gains = [outcome.after - outcome.before for outcome in outcomes]
    said = ", ".join(f"{outcome.before:.1f} -> {outcome.after:.1f}" for outcome in outcomes)
    assert sum(gains) / len(gains) > MEAN_GAIN and min(gains) > EACH_GAIN, f"{name}: {said}"
    assert all(outcome.std > 0.3 for outcome in outcomes), f"{name} has collapsed"


# A batch norm at a projector's end keeps its outputs apart for longer than these runs last: without it a collapse is quick.
BESIDE: dict[str, dict[str, Any]] = {"simsiam": {"projector": learning.HEAD}}


@functools.cache
def whole(name: str, seed: int) -> Outcome:
    return _briefly(name, seed, {})


def _briefly(name: str, seed: int, changed: dict[str, Any]) -> Outcome:
    return learn(name, seed, epochs=4, evaluate=False, **(BESIDE.get(name, {}) | changed))


Sees = Callable[[Outcome, Outcome], bool]


def one_point(broken: Outcome, healthy: Outcome) -> bool:
    """All projections point one way, and did not with the switch on."""
    return broken.std < 0.5 * healthy.std and broken.cosine > 0.85 and broken.cosine > healthy.cosine + 0.1


def one_prototype(broken: Outcome, healthy: Outcome) -> bool:
    """The targets' entropy falls to nothing: always the same output."""
    return broken.logs["teacher_entropy"][-1] < 0.2 < 1.0 < healthy.logs["teacher_entropy"][-1] and broken.std < 0.2


def all_prototypes_alike(broken: Outcome, healthy: Outcome) -> bool:
    """The targets say nothing: their entropy is log K, K = 256, and the student has nothing to learn from them."""
    return broken.logs["teacher_entropy"][-1] > 5.53 and healthy.logs["teacher_entropy"][-1] < 5.2


def one_cluster(broken: Outcome, healthy: Outcome) -> bool:
    """All samples have the same code, and predict it."""
    use = broken.logs["prototype_use"][-1], healthy.logs["prototype_use"][-1]
    return use[0] < 0.2 < 0.8 < use[1] and broken.logs["loss"][-1] < 0.1


def redundant(broken: Outcome, healthy: Outcome) -> bool:
    """Channels repeat each other, with the same spread."""
    return broken.logs["redundancy"][-1] > 2.0 * healthy.logs["redundancy"][-1]


BREAKS: list[tuple[str, dict[str, Any], Sees]] = [
    ("byol", {"predict": False}, one_point),
    ("byol", {"target": "online", "predict": False}, one_point),
    ("byol", {"target": "online", "predict": False, "stop_gradient": False}, one_point),
    ("simsiam", {"stop_gradient": False}, one_point),
    ("simsiam", {"predict": "none"}, one_point),
    ("vicreg", {"variance": 0.0}, one_point),
    ("barlow", {"terms": "invariance"}, redundant),
    ("dino", {"balance": "none"}, one_prototype),
    ("dino", {"teacher_temperature": 0.2, "warmup_temperature": 0.2}, all_prototypes_alike),
    ("swav", {"sinkhorn_iterations": 0}, one_cluster),
]


@pytest.mark.parametrize(
    ("name", "changed", "sees"),
    [pytest.param(*b, id=f"{b[0]}, {', '.join(f'{k}: {v}' for k, v in b[1].items())}") for b in BREAKS],
)
def test_a_broken_switch_is_seen_in_the_telemetry(name: str, changed: dict[str, Any], sees: Sees) -> None:
    for seed in SEEDS[:2]:
        healthy, broken = whole(name, seed), _briefly(name, seed, changed)
        last = {key: (values[-1], healthy.logs[key][-1]) for key, values in broken.logs.items()}
        assert sees(broken, healthy), f"seed {seed}: std {broken.std}, {healthy.std}; cosine {broken.cosine}; {last}"
