"""Weighted kNN against a loop over neighbours, and its edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.knn import Neighbours, weighted_knn


def features(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bank() -> tuple[Tensor, Tensor]:
    return features(60), torch.arange(60) % 5


def slow_knn(train_x: Tensor, train_y: Tensor, test_x: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    rows = []
    for x in test_x:
        similarity = [float(x @ t / (x.norm() * t.norm())) for t in train_x]
        nearest = sorted(range(len(train_x)), key=lambda i: -similarity[i])[:k]
        scores = [0.0] * classes
        for i in nearest:
            scores[int(train_y[i])] += math.exp(similarity[i] / temperature)
        rows.append(torch.tensor(scores, dtype=torch.float64) / math.exp(similarity[nearest[0]] / temperature))
    return torch.stack(rows)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (40, 0.5)])
def test_scores_are_the_obvious_ones(k: int, temperature: float) -> None:
    train_x, test_x = features(40), features(13, seed=1)
    train_y = torch.arange(40) % 3
    expected = slow_knn(train_x, train_y, test_x, 4, k, temperature)
    found = weighted_knn(train_x, train_y, test_x, 4, k, temperature)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert (found[:, 3] == 0).all()  # a class without training samples


def test_predictions_are_the_largest_scores_whatever_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Neighbours.of(*bank(), features(17, seed=1), 5, [3, 7], [0.1])
    whole = found.scores(7, 0.1)
    monkeypatch.setattr("benchmark.evaluate.knn._ROWS", 4)
    assert torch.equal(found.predict(7, 0.1), whole.argmax(dim=1))
    torch.testing.assert_close(found.scores(3, 0.1), weighted_knn(*bank(), features(17, seed=1), 5, 3, 0.1))


def test_perfect_orthogonal_features_are_all_right() -> None:
    labels = torch.arange(30) % 10
    x = torch.eye(10)[labels]
    assert top1(weighted_knn(x, labels, x, 10, k=3), labels) == 100.0


def test_identical_features_score_chance_without_breaking() -> None:
    x, labels = torch.ones(40, 4), torch.arange(40) % 4
    scores = weighted_knn(x, labels, x[:10], 4, k=40)
    torch.testing.assert_close(scores, torch.full((10, 4), 10.0))
    assert weighted_knn(torch.zeros(8, 4), labels[:8], x[:3], 4, k=8).isfinite().all()


def test_small_temperatures_stay_finite() -> None:
    scores = weighted_knn(features(20), torch.arange(20) % 2, features(5, seed=1), 2, k=20, temperature=1e-3)
    assert scores.isfinite().all() and (scores.max(dim=1).values >= 1.0 - 1e-6).all()


def test_half_precision_features_are_compared_in_float32() -> None:
    x, labels = features(30).bfloat16(), torch.arange(30) % 3
    found = weighted_knn(x, labels, x, 3, k=5)
    assert found.dtype == torch.float32
    assert torch.equal(found, weighted_knn(x.float(), labels, x.float(), 3, k=5))


def test_no_test_images_give_no_scores() -> None:
    assert weighted_knn(features(9), torch.arange(9) % 3, features(0), 3, k=2).shape == (0, 3)


def test_what_cannot_be_asked() -> None:
    x, y = features(10), torch.arange(10) % 2
    with pytest.raises(InputError, match="k is 200, but there are 10"):
        weighted_knn(x, y, x, 2)
    with pytest.raises(InputError, match="temperature is 0"):
        weighted_knn(x, y, x, 2, k=3, temperature=0.0)
    with pytest.raises(ValueError, match="labels do not fit"):
        weighted_knn(x, y + 1, x, 2, k=3)
    with pytest.raises(ValueError, match="not finite"):
        weighted_knn(x, y, x * float("nan"), 2, k=3)


def test_top1_counts_rows() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert top1(scores, torch.tensor([1, 0, 0, 0])) == 75.0
    with pytest.raises(ValueError, match="labels"):
        top1(scores, torch.tensor([0]))
