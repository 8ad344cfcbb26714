"""Sinkhorn-Knopp against a loop over its two normalizations, values and gradients; what it balances, and what it survives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.sinkhorn import sinkhorn


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_sinkhorn(scores: Tensor, eps: float, iterations: int) -> Tensor:
    """Q from exp(scores / eps): each prototype's row to 1 / K, then each sample's column to 1 / B; in the end times B."""
    samples, prototypes = scores.shape
    q = [[torch.exp(scores[b, k] / eps) for b in range(samples)] for k in range(prototypes)]  # K x B
    for _ in range(iterations):
        for k in range(prototypes):
            total = sum(q[k])
            q[k] = [value / total / prototypes for value in q[k]]
        for b in range(samples):
            total = sum(q[k][b] for k in range(prototypes))
            for k in range(prototypes):
                q[k][b] = q[k][b] / total / samples
    rows = []
    for b in range(samples):
        total = sum(q[k][b] for k in range(prototypes))
        rows.append(torch.stack([q[k][b] / total for k in range(prototypes)]))
    return torch.stack(rows)


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
@pytest.mark.parametrize("shape", [(7, 4), (3, 5), (1, 3)])
def test_codes_and_gradients_are_the_papers(shape: tuple[int, int], iterations: int) -> None:
    scores = random64(*shape).requires_grad_()
    weights = random64(*shape, seed=1)
    fast, slow = sinkhorn(scores, 0.3, iterations), slow_sinkhorn(scores, 0.3, iterations)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    (a,) = torch.autograd.grad((fast * weights).sum(), scores)
    (b,) = torch.autograd.grad((slow * weights).sum(), scores)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_rows_sum_to_one_and_in_the_end_prototypes_have_equal_shares() -> None:
    scores = random64(12, 4) + torch.tensor([3.0, 0.0, 0.0, -3.0], dtype=torch.float64)  # a favourite and an outcast
    few, many = sinkhorn(scores, 1.0, 3), sinkhorn(scores, 1.0, 200)
    for codes in (few, many):
        torch.testing.assert_close(codes.sum(dim=1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(many.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64), rtol=1e-9, atol=0)
    unbalanced = sinkhorn(scores, 1.0, 0)
    torch.testing.assert_close(unbalanced, torch.softmax(scores, dim=1))
    spread = [codes.sum(dim=0).std() for codes in (unbalanced, few, many)]
    assert spread[0] > 10 * spread[1] > 10 * spread[2]


def test_identical_rows_get_the_uniform_code() -> None:
    codes = sinkhorn(random64(1, 5).expand(6, 5), 0.05, 3)
    torch.testing.assert_close(codes, torch.full((6, 5), 0.2, dtype=torch.float64))


def test_perfect_scores_get_hard_codes_and_orthogonal_ones_uniform_codes() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(eye, 0.01, 3), eye)
    torch.testing.assert_close(sinkhorn(torch.zeros_like(eye), 0.05, 3), torch.full_like(eye, 0.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_scores_and_lost_prototypes_neither_overflow_nor_vanish(dtype: torch.dtype) -> None:
    scores = torch.tensor([[100.0, -100.0, 0.0], [100.0, -100.0, 50.0], [99.0, -100.0, 0.0]], dtype=dtype)
    assert math.isinf(torch.exp(scores.float() / 0.05).max().item())  # the plain form is lost here
    codes = sinkhorn(scores, 0.05, 3)
    assert codes.dtype == torch.float32 and codes.isfinite().all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(codes, slow_in_logs(scores.double(), 0.05, 3).float(), rtol=1e-4, atol=1e-6)


def slow_in_logs(scores: Tensor, eps: float, iterations: int) -> Tensor:
    log_q = scores / eps
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(dim=0, keepdim=True)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    return log_q.exp()


def test_eps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="eps must be positive, not 0"):
        sinkhorn(random64(3, 2), 0.0, 3)
