"""Health telemetry beside slow definitions, at the values where something is wrong, and where nobody watches."""

import math

import pytest
import torch
from torch import Tensor

from methods.base import Step
from methods.memory import KeyQueue
from methods.telemetry import SAMPLES, alignment, effective_rank, health, pair_cosine, relative_entropy, std_ratio, uniformity
from tests.methods.small import HEALTH, HEALTH_OF_PAIRS
from tests.methods.test_losses import random64

AT = Step(3, 10, 0)


def unit(z: Tensor) -> list[list[float]]:
    return [[float(x) / math.sqrt(sum(float(y) ** 2 for y in row)) for x in row] for row in z]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_health_is_the_obvious_one() -> None:
    z, other = random64(7, 5, seed=1), random64(7, 5, seed=2)
    a, b = unit(z), unit(other)
    log = health(AT, z, other)
    assert set(log) == HEALTH_OF_PAIRS
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    assert log["positive_cosine"].item() == pytest.approx(sum(dot(a[i], b[i]) for i in range(7)) / 7, rel=1e-9)
    assert log["negative_cosine"].item() == pytest.approx(sum(dot(a[i], b[j]) for i, j in pairs) / 42, rel=1e-9)
    distances = [sum((x - y) ** 2 for x, y in zip(a[i], b[i], strict=True)) for i in range(7)]
    assert log["alignment"].item() == pytest.approx(sum(distances) / 7, rel=1e-9)
    potential = [math.exp(-2 * sum((x - y) ** 2 for x, y in zip(a[i], a[j], strict=True))) for i, j in pairs]
    assert log["uniformity"].item() == pytest.approx(math.log(sum(potential) / 42), rel=1e-9)
    assert log["std"].item() == std_ratio(z).item() and log["pair_cosine"].item() == pair_cosine(z).item()
    singular = torch.linalg.svdvals(torch.tensor(a, dtype=torch.float64) - torch.tensor(a, dtype=torch.float64).mean(dim=0))
    p = singular / singular.sum()
    p = p[p > 1e-12]
    assert log["effective_rank"].item() == pytest.approx(math.exp(-float((p * p.log()).sum())), rel=1e-6)
    assert not any(value.requires_grad for value in log.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_collapse_is_seen(dtype: torch.dtype) -> None:
    z = torch.ones(6, 4, dtype=dtype, requires_grad=True)
    log = health(AT, z, 2 * z)
    collapsed = {"std": 0, "effective_rank": 0, "pair_cosine": 1, "uniformity": 0}
    collapsed |= {"positive_cosine": 1, "negative_cosine": 1, "alignment": 0}
    for name, value in collapsed.items():
        assert log[name].item() == pytest.approx(value, abs=1e-5), name


def test_rounding_to_half_precision_is_no_direction() -> None:
    """Outputs along one line; what bfloat16 rounds off in the other directions must not count."""
    line = torch.randn(32, generator=torch.Generator().manual_seed(0))
    z = torch.linspace(-2.0, 2.0, 64)[:, None] * line
    for outputs in (z, z.bfloat16()):
        assert health(AT, outputs)["effective_rank"].item() == pytest.approx(1.0, abs=1e-6)


def test_autocast_changes_nothing() -> None:
    """In bfloat16 near a collapse, negatives would be as near as positives, and uniformity 0."""
    noise = torch.Generator().manual_seed(0)
    z = torch.randn(1, 64, generator=noise) + 0.01 * torch.randn(64, 64, generator=noise)
    other = z + 0.001 * torch.randn(64, 64, generator=noise)
    exact = health(AT, z, other)
    with torch.autocast("cpu", torch.bfloat16):
        found = health(AT, z, other)
    assert {name: value.item() for name, value in found.items()} == {name: value.item() for name, value in exact.items()}
    assert found["negative_cosine"] < found["positive_cosine"] and found["uniformity"] < 0


def test_the_effective_rank_counts_directions() -> None:
    assert effective_rank(torch.cat([torch.eye(8), -torch.eye(8)])).item() == pytest.approx(8.0, rel=1e-6)
    line = torch.outer(torch.arange(9.0) - 4, torch.ones(5)) + 3.0
    assert effective_rank(line).item() == pytest.approx(1.0, abs=1e-4)
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf], [0.0, 1.0]])).item())


def test_one_sample_has_no_pairs() -> None:
    log = health(AT, torch.randn(1, 4), torch.randn(1, 4))
    assert math.isnan(log["pair_cosine"].item()) and math.isnan(log["uniformity"].item())
    assert math.isnan(log["negative_cosine"].item()) and log["effective_rank"].item() == 0.0


def test_nothing_is_computed_for_nobody() -> None:
    assert health(Step(3, 10, 0, watched=False), torch.randn(4, 2)) == {}
    assert set(health(AT, torch.randn(4, 2))) == HEALTH


def test_the_costly_numbers_do_not_grow_with_the_batch() -> None:
    z = random64(SAMPLES + 50, 3, seed=4)
    assert health(AT, z)["uniformity"].item() == uniformity(z[:SAMPLES]).item()
    assert health(AT, z)["std"].item() == std_ratio(z).item()


def test_alignment_and_uniformity_have_their_known_values() -> None:
    eye = torch.eye(4)
    assert alignment(eye, -eye).item() == pytest.approx(4.0) and alignment(eye, 3 * eye).item() == 0.0
    assert uniformity(eye).item() == pytest.approx(-4.0, rel=1e-6)  # all pairs at a right angle: squared distance 2


def test_relative_entropy_lies_between_one_and_all() -> None:
    assert relative_entropy(torch.tensor([1.0, 0.0, 0.0])).item() == 0.0
    assert relative_entropy(torch.full((5,), 0.2)).item() == pytest.approx(1.0, rel=1e-6)


def test_the_oldest_key_is_as_old_as_the_queue_is_long() -> None:
    queue = KeyQueue(10, 2)
    ages = [queue.age(Step(step, 10, 0), 4).item() for step in range(6)]
    assert ages == [0, 1, 2, 3, 3, 3]  # of ten keys, four a step: a key is overwritten in the third step after its own
