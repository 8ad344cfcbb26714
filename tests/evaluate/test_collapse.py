"""Effective rank on features whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

import methods.telemetry
from benchmark.evaluate import collapse
from benchmark.evaluate.collapse import collapse_metrics, effective_rank


def orthogonal(n: int, d: int) -> torch.Tensor:
    """n x d with orthonormal columns of mean zero."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(x - x.mean(dim=0)).Q


def test_equal_directions_count_each_as_one() -> None:
    assert effective_rank(orthogonal(50, 8)) == pytest.approx(8.0)
    assert effective_rank(3.0 * orthogonal(50, 8) + 100.0) == pytest.approx(8.0)  # neither scale nor offset count


def test_unequal_directions_count_by_their_entropy() -> None:
    s = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    p = [0.5, 0.25, 0.125, 0.125]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    assert effective_rank(orthogonal(30, 4) * s) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_it_is_the_definition_by_singular_values(shape: tuple[int, int]) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1.0
    s = torch.linalg.svdvals(z - z.mean(dim=0))
    p = s / s.sum()
    p = p[p > 1e-12]
    assert effective_rank(z) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_rows_have_rank_zero_and_a_line_has_one(dtype: torch.dtype) -> None:
    row = torch.randn(16, generator=torch.Generator().manual_seed(2))
    assert effective_rank(row.expand(30, 16).to(dtype)) == 0.0
    assert effective_rank(torch.zeros(30, 16, dtype=dtype)) == 0.0
    line = torch.arange(-8.0, 8.0)[:, None] * torch.ones(16)
    assert effective_rank(line.to(dtype)) == pytest.approx(1.0, abs=1e-4)


def test_metrics_of_a_collapsed_projection_and_spread_features() -> None:
    z = torch.ones(64, 8)
    features = torch.eye(16).repeat(4, 1)
    found = collapse_metrics(z, features)
    assert found["std"] == 0.0 and found["effective_rank"] == 0.0
    assert found["pair_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found["feature_std"] == pytest.approx(math.sqrt(1 - 1 / 16), abs=1e-6)
    assert found["feature_effective_rank"] == pytest.approx(15.0, abs=1e-3)  # centring takes one direction


def test_training_and_evaluation_share_one_definition() -> None:
    assert collapse.std_ratio is methods.telemetry.std_ratio
    assert collapse.pair_cosine is methods.telemetry.pair_cosine
