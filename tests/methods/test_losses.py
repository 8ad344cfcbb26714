"""Losses against slow, obvious versions in float64, values and gradients; degenerate inputs by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.losses import classification, cosine_regression, info_nce, nt_xent
from methods.telemetry import pair_cosine, std_ratio


def slow_cosine_regression(p: Tensor, z: Tensor) -> Tensor:
    total = p.new_zeros(())
    for i in range(len(p)):
        a = p[i] / torch.sqrt((p[i] * p[i]).sum())
        b = z[i] / torch.sqrt((z[i] * z[i]).sum())
        for j in range(p.shape[1]):
            total = total + (a[j] - b[j]) ** 2
    return total / len(p)


def slow_info_nce(q: Tensor, k: Tensor, queue: Tensor, tau: float) -> Tensor:
    total = q.new_zeros(())
    for i in range(len(q)):
        a = q[i] / torch.sqrt((q[i] * q[i]).sum())
        b = k[i] / torch.sqrt((k[i] * k[i]).sum())
        positive = torch.exp((a * b).sum() / tau)
        everything = positive
        for key in queue:
            everything = everything + torch.exp((a * key).sum() / tau)
        total = total - torch.log(positive / everything)
    return total / len(q)


def slow_nt_xent(
    z: Tensor,
    tau: float,
    normalize: bool = True,
    both: bool = True,
    queue: Tensor | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    """Equation 1 anchor by anchor, of more than two views SwAV's equation 7: every exponential written out."""
    others = z if keys is None else keys

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        inner = (a * b).sum()
        return inner / (torch.sqrt((a * a).sum()) * torch.sqrt((b * b).sum())) if normalize else inner

    def unit(a: Tensor) -> Tensor:
        return a / torch.sqrt((a * a).sum()) if normalize else a

    views, images = z.shape[:2]
    terms = []
    for v in range(views):
        for i in range(views):
            if i == v:
                continue
            for n in range(images):
                positive = torch.exp(similarity(z[v, n], others[i, n]) / tau)
                everything = positive
                for k in range(views):
                    for m in range(images):
                        if m != n and (both or k == i):
                            everything = everything + torch.exp(similarity(z[v, n], others[k, m]) / tau)
                for key in [] if queue is None else queue:
                    everything = everything + torch.exp((unit(z[v, n]) * key).sum() / tau)
                terms.append(-torch.log(positive / everything))
    return torch.stack(terms).mean()


def slow_classification(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    classes = logits.shape[1]
    total = logits.new_zeros(())
    for row, label in zip(logits, labels, strict=True):
        log_p = row - torch.log(torch.exp(row).sum())
        for c in range(classes):
            total = total - ((1 - smoothing) * float(c == label) + smoothing / classes) * log_p[c]
    return total / len(logits)


def assert_same(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    for x in inputs:
        x.requires_grad_(True)
    values, gradients = [], []
    for function in (fast, slow):
        value = function(*inputs)
        values.append(value)
        gradients.append(torch.autograd.grad(value, inputs))
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-9)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit64(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(random64(*shape, seed=seed), dim=1)


def test_cosine_regression_is_the_obvious_one() -> None:
    assert_same(cosine_regression, slow_cosine_regression, random64(5, 7), 3.0 * random64(5, 7, seed=1))


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_info_nce_is_the_obvious_one(tau: float) -> None:
    queue = unit64(11, 6, seed=2)
    assert_same(
        lambda q, k: info_nce(q, k, queue, tau),
        lambda q, k: slow_info_nce(q, k, queue, tau),
        random64(4, 6),
        2.0 * random64(4, 6, seed=1),
    )


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("views", [2, 4])
def test_nt_xent_is_the_obvious_one(tau: float, views: int) -> None:
    """Four views: each is an anchor and has three positives, and the images of all four are its negatives."""
    assert_same(lambda z: nt_xent(z, tau), lambda z: slow_nt_xent(z, tau), 2.0 * random64(views, 5, 6))


@pytest.mark.parametrize("settings", [{"normalize": False}, {"both": False}, {"normalize": False, "both": False}])
def test_nt_xent_with_each_switch_is_the_obvious_one(settings: dict[str, Any]) -> None:
    z = random64(3, 4, 6)
    assert_same(lambda z: nt_xent(z, 0.7, **settings), lambda z: slow_nt_xent(z, 0.7, **settings), z)
    assert abs(nt_xent(z, 0.7, **settings) - nt_xent(z, 0.7)) > 1e-3


def test_nt_xent_with_further_negatives_is_the_obvious_one() -> None:
    z, queue = random64(2, 4, 6), unit64(9, 6, seed=2)
    assert_same(lambda z: nt_xent(z, 0.2, queue=queue), lambda z: slow_nt_xent(z, 0.2, queue=queue), z)
    assert nt_xent(z, 0.2, queue=queue) > nt_xent(z, 0.2)


def test_nt_xent_with_keys_of_their_own_is_the_obvious_one() -> None:
    q, z = random64(3, 4, 6), random64(3, 4, 6, seed=1)
    assert_same(lambda q, z: nt_xent(q, 0.2, keys=z), lambda q, z: slow_nt_xent(q, 0.2, keys=z), q, z)
    torch.testing.assert_close(nt_xent(z, 0.2, keys=z), nt_xent(z, 0.2))


def test_nt_xent_of_two_views_is_the_papers_sum_over_2n_anchors() -> None:
    """The form of SimCLR's algorithm 1: z_(2k-1) and z_2k are a pair, the sum over k of l(2k-1, 2k) + l(2k, 2k-1) over 2N."""
    z = random64(2, 4, 6)
    row = [z[i % 2, i // 2] / z[i % 2, i // 2].norm() for i in range(8)]

    def term(i: int, j: int) -> Tensor:
        others = torch.stack([torch.exp((row[i] * row[k]).sum() / 0.3) for k in range(8) if k != i])
        return -torch.log(torch.exp((row[i] * row[j]).sum() / 0.3) / others.sum())

    expected = torch.stack([term(2 * k, 2 * k + 1) + term(2 * k + 1, 2 * k) for k in range(4)]).sum() / 8
    torch.testing.assert_close(nt_xent(z, 0.3), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classification_is_the_obvious_one(smoothing: float) -> None:
    labels = torch.tensor([0, 4, 2, 2])
    assert_same(
        lambda x: classification(x, labels, smoothing),
        lambda x: slow_classification(x, labels, smoothing),
        random64(4, 5),
    )


def test_cosine_regression_at_its_extremes() -> None:
    z = random64(6, 8)
    assert cosine_regression(5.0 * z, z).item() == pytest.approx(0.0, abs=1e-12)
    assert cosine_regression(-z, z).item() == pytest.approx(4.0)
    eye = torch.eye(4, dtype=torch.float64)
    assert cosine_regression(eye, eye.roll(1, dims=0)).item() == pytest.approx(2.0)


def test_cosine_regression_of_zero_vectors_is_finite() -> None:
    p = torch.zeros(3, 4, requires_grad=True)
    loss = cosine_regression(p, torch.ones(3, 4))
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert p.grad is not None and p.grad.isfinite().all()


def test_info_nce_of_perfect_features_costs_nearly_nothing() -> None:
    """With the positive not in the queue; MoCo's trap, queueing first, would cost log 2 here."""
    keys = torch.eye(8, dtype=torch.float64)
    perfect = info_nce(keys[:4], keys[:4], keys[4:], 0.07)
    assert perfect.item() < 1e-5
    trapped = info_nce(keys[:4], keys[:4], keys[:4], 0.07)
    assert trapped.item() == pytest.approx(math.log(2.0), abs=1e-5)


def test_info_nce_of_identical_features_is_the_log_of_the_count() -> None:
    same = torch.ones(5, 3, dtype=torch.float64)
    queue = torch.nn.functional.normalize(torch.ones(9, 3, dtype=torch.float64), dim=1)
    assert info_nce(same, same, queue, 0.2).item() == pytest.approx(math.log(10.0))


def test_nt_xent_at_its_extremes() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    perfect = torch.stack([eye, eye])  # orthogonal images, equal views: 1 against 2N - 2 = 10 cosines of 0
    assert nt_xent(perfect, 0.5).item() == pytest.approx(math.log(1 + 10 * math.exp(-2.0)))
    same = torch.ones(2, 6, 3, dtype=torch.float64)  # collapsed: one of 2N - 1
    assert nt_xent(same, 0.1).item() == pytest.approx(math.log(11.0))
    assert nt_xent(same, 0.1, both=False).item() == pytest.approx(math.log(6.0))
    orthogonal = torch.stack([torch.eye(12, dtype=torch.float64)[:6], torch.eye(12, dtype=torch.float64)[6:]])
    assert nt_xent(orthogonal, 0.1).item() == pytest.approx(math.log(11.0))
    far = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]] * 2, dtype=torch.float64)
    assert nt_xent(far, 0.01).item() == pytest.approx(0.0, abs=1e-12)


def test_nt_xent_of_one_image_and_of_zero_vectors_is_finite() -> None:
    """One image has nothing to be told from: nothing to pay and nothing to learn. Methods refuse it at construction."""
    for z, expected in ((random64(2, 1, 4), 0.0), (torch.zeros(2, 3, 4, dtype=torch.float64), math.log(5.0))):
        z.requires_grad_(True)
        loss = nt_xent(z, 0.1)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.item() == pytest.approx(expected, abs=1e-12) and gradient.isfinite().all()
        if expected == 0.0:
            assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_widen_half_precision_and_leave_autocast(dtype: torch.dtype) -> None:
    q, k = random64(16, 32).to(dtype), random64(16, 32, seed=1).to(dtype)
    queue, z = unit64(64, 32, seed=2).float(), torch.stack([q, k])
    with torch.autocast("cpu", torch.bfloat16):
        inside = [cosine_regression(q, k), info_nce(q, k, queue, 0.07), nt_xent(z, 0.1)]
    q, k, queue, z = q.double(), k.double(), queue.double(), z.double()
    slow = [slow_cosine_regression(q, k), slow_info_nce(q, k, queue, 0.07), slow_nt_xent(z, 0.1)]
    for found, expected in zip(inside, slow, strict=True):
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)  # bfloat16 logits would be off by 1e-2


def test_std_ratio_of_known_features() -> None:
    assert std_ratio(torch.ones(50, 8)).item() == 0.0
    eye = torch.eye(16, dtype=torch.float64)  # one-hot: each channel has mean 1/d and mean square 1/d
    assert std_ratio(eye).item() == pytest.approx(math.sqrt(1 - 1 / 16))
    assert std_ratio(random64(20000, 32)).item() == pytest.approx(1.0, abs=0.01)
    assert std_ratio(random64(1, 4)).item() == 0.0
    assert std_ratio(torch.zeros(3, 4)).item() == 0.0


def test_std_ratio_is_the_obvious_one() -> None:
    z = random64(9, 5) + 0.5
    unit = [[float(v) / math.sqrt(sum(float(w) ** 2 for w in row)) for v in row] for row in z]
    deviations = []
    for j in range(5):
        channel = [row[j] for row in unit]
        mean = sum(channel) / 9
        deviations.append(math.sqrt(sum((v - mean) ** 2 for v in channel) / 9))
    assert std_ratio(z).item() == pytest.approx(sum(deviations) / 5 * math.sqrt(5), rel=1e-9)


def test_pair_cosine_is_the_obvious_one() -> None:
    z = random64(7, 5) + 0.5
    cosines = [torch.cosine_similarity(z[i], z[j], dim=0).item() for i in range(7) for j in range(7) if i != j]
    assert pair_cosine(z).item() == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)
    assert pair_cosine(torch.ones(4, 3)).item() == pytest.approx(1.0, abs=1e-6)
    assert pair_cosine(torch.eye(4)).item() == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(pair_cosine(z[:1]).item())


def test_telemetry_carries_no_gradient() -> None:
    z = random64(4, 3).requires_grad_(True)
    assert not std_ratio(z).requires_grad and not pair_cosine(z).requires_grad
