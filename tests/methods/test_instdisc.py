"""InstDisc against a slow transcription of its equations: NCE, its constant Z, the full softmax, the proximal term."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.instdisc import InstDisc, InstDiscConfig, Partition, bank_scores, drawn_negatives, nce
from tests.methods.small import HEALTH

HEAD = HeadConfig(layers=1, out=6)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
IMAGES = 11
INDEX = torch.tensor([4, 9, 0, 7])
NOBODY = torch.zeros(4, dtype=torch.long)


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(seed: int = 0) -> list[Tensor]:
    return [random64(len(INDEX), 3, 16, 16, seed=seed)]


def build(images: int = IMAGES, batch: int = 0, **config: Any) -> InstDisc:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": HEAD, "negatives": 5} | config
    setting = Setting(num_images=images, batch_size=batch, seed=3)
    return InstDisc(InstDiscConfig(**settings), ENCODER, setting).double().train()


def gradients(method: InstDisc, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad]))


def assert_same(method: InstDisc, loss: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for fast, slow in zip(gradients(method, loss), gradients(method, expected), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def slow_features(method: InstDisc) -> list[Tensor]:
    z = method.projector(method.encoder(views()[0]))
    return [z_i / torch.sqrt((z_i * z_i).sum()) for z_i in z]


def slow_nce(method: InstDisc, drawn: Tensor) -> Tensor:
    """Equations 4, 6, 7 and 8, sample by sample and image by image."""
    v, tau, n = method.bank.rows.clone(), method.config.temperature, method.setting.num_images
    m = drawn.shape[1]
    f = slow_features(method)
    exponentials = [float(torch.exp(v[j] @ f[i].detach() / tau)) for i in range(len(f)) for j in drawn[i]]
    z = n * sum(exponentials) / len(exponentials)
    total = torch.zeros((), dtype=torch.float64)
    for i, f_i in enumerate(f):
        p = torch.exp(v[INDEX[i]] @ f_i / tau) / z
        total = total - torch.log(p / (p + m / n))
        for j in drawn[i]:
            p = torch.exp(v[j] @ f_i / tau) / z
            total = total - torch.log(1 - p / (p + m / n))
    return total / len(f)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_nce_and_its_gradients_are_the_papers(tau: float) -> None:
    method = build(temperature=tau)
    loss = method.loss(views(), INDEX, NOBODY, STEP)[0]
    assert_same(method, loss, slow_nce(method, drawn_negatives(INDEX, IMAGES, 5, 3, STEP)))


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_softmaxes_and_their_gradients_are_the_papers(softmax: str) -> None:
    method = build(softmax=softmax)
    loss = method.loss(views(), INDEX, NOBODY, STEP)[0]
    v, total = method.bank.rows.clone(), torch.zeros((), dtype=torch.float64)
    drawn = drawn_negatives(INDEX, IMAGES, 5, 3, STEP)
    for i, f_i in enumerate(slow_features(method)):
        places = list(range(IMAGES)) if softmax == "full" else [int(INDEX[i]), *drawn[i].tolist()]
        partition = sum((torch.exp(v[j] @ f_i / 0.07) for j in places), torch.zeros((), dtype=torch.float64))
        total = total - torch.log(torch.exp(v[INDEX[i]] @ f_i / 0.07) / partition) / 4
    assert_same(method, loss, total)


def test_parametric_softmax_is_equation_1() -> None:
    """A trained weight vector per image, no memory, no temperature, no normalization."""
    method = build(softmax="parametric")
    loss, log = method.loss(views(), INDEX, NOBODY, STEP)
    w, total = method.classifier.weight, torch.zeros((), dtype=torch.float64)
    for i, z_i in enumerate(method.projector(method.encoder(views()[0]))):
        total = total - torch.log(torch.exp(w[INDEX[i]] @ z_i) / sum(torch.exp(w_j @ z_i) for w_j in w)) / 4
    assert_same(method, loss, total)
    assert not hasattr(method, "bank") and set(log) == HEALTH
    assert method.outputs(views()[0]).shape == (4, IMAGES)


def test_proximal_term_is_added_to_either_loss() -> None:
    for softmax in ("nce", "full"):
        plain, method = build(softmax=softmax), build(softmax=softmax, proximal=3.0)
        without = plain.loss(views(), INDEX, NOBODY, STEP)[0]
        expected = method.loss(views(), INDEX, NOBODY, STEP)[0]
        old, term = method.bank.rows[INDEX].clone(), torch.zeros((), dtype=torch.float64)
        for f_i, v_i in zip(slow_features(method), old, strict=True):
            term = term + 3.0 * ((f_i - v_i) * (f_i - v_i)).sum() / 4
        torch.testing.assert_close(expected, without + term, rtol=1e-9, atol=1e-9)
        added = [a - b for a, b in zip(gradients(method, expected), gradients(plain, without), strict=True)]
        for a, b in zip(added, gradients(method, term), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_z_is_the_full_sum_in_expectation() -> None:
    """Equation 8 over every possible draw of one negative is the mean over the batch of the sum over all n, exactly."""
    v, f = F.normalize(random64(IMAGES, 6), dim=1), F.normalize(random64(4, 6, seed=1), dim=1)
    estimates = []
    for j in range(IMAGES):
        estimate, _ = Partition(IMAGES, 1).double()(bank_scores(f, v, torch.full((4, 1), j), 0.1))
        estimates.append(estimate.exp())
    full = sum(float(torch.exp(v_j @ f_i / 0.1)) for v_j in v for f_i in f) / 4
    assert torch.stack(estimates).mean().item() == pytest.approx(full, rel=1e-12)


def test_z_from_many_draws_is_close_to_the_full_sum() -> None:
    v, f = F.normalize(random64(200, 16), dim=1), F.normalize(random64(8, 16, seed=1), dim=1)
    drawn = drawn_negatives(torch.arange(8), 200, 5000, 0, STEP)
    estimate, now = Partition(200, 1).double()(bank_scores(f, v, drawn, 0.1))
    assert torch.equal(estimate, now)
    assert estimate.exp().item() == pytest.approx((f @ v.T / 0.1).exp().sum(dim=1).mean().item(), rel=0.05)


@pytest.mark.parametrize("batches", [1, 3])
def test_z_is_the_mean_over_the_first_batches_and_constant_since(batches: int) -> None:
    partition, estimates, found = Partition(50, batches).double(), [], []
    for k in range(5):
        scores = 3.0 * random64(4, 7, seed=k)
        estimates.append(50 * scores.exp().mean().item())
        log_z, now = partition(scores)
        found.append(log_z.exp().item())
        assert now.exp().item() == pytest.approx(estimates[-1], rel=1e-12)
    means = [sum(estimates[: min(k + 1, batches)]) / min(k + 1, batches) for k in range(5)]
    assert found == pytest.approx(means, rel=1e-12)
    again = Partition(50, batches).double()
    again.load_state_dict(partition.state_dict())
    assert again(torch.zeros(4, 7))[0].exp().item() == pytest.approx(means[-1], rel=1e-12)


def test_constant_z_that_is_right_makes_the_true_posterior_optimal() -> None:
    """With Z the full sum, NCE's h of the softmax itself: its loss is below that of any scaled probability."""
    scores, n, m = random64(1, 40).sort(descending=True).values, 40, 40
    log_z = scores.logsumexp(dim=1)
    p = scores.softmax(dim=1)[0]

    def expected(shift: float) -> float:  # -E_data log h - m E_noise log(1 - h), both expectations in full
        u = scores[0] + shift - log_z - math.log(m / n)
        return float((p * F.softplus(-u)).sum() + m * F.softplus(u).mean())

    assert all(expected(0.0) < expected(shift) for shift in (-0.5, -0.05, 0.05, 0.5))
    row = torch.cat([scores[:, :1], scores], dim=1)  # the same function as the loss, for a positive that is image 0
    u = scores[0] - log_z - math.log(m / n)
    assert nce(row, log_z, n).item() == pytest.approx(float(F.softplus(-u[0]) + F.softplus(u).sum()), rel=1e-12)


def test_nce_at_its_extremes() -> None:
    log_z = torch.zeros((), dtype=torch.float64)
    eye = torch.eye(8, dtype=torch.float64)
    perfect = bank_scores(eye[:1], eye, torch.arange(5)[None], 0.01)  # orthogonal negatives
    certain = nce(perfect, torch.tensor(50.0, dtype=torch.float64), 8)
    assert 0.0 <= certain.item() < 1e-12
    same = bank_scores(
        torch.ones(3, 4), F.normalize(torch.ones(6, 4), dim=1), torch.arange(6).expand(3, 6), 1e-3
    )  # exp(1000) has no float
    extreme = nce(same, log_z, 5)
    assert extreme.isfinite() and extreme.item() == pytest.approx(5 * 1000.0, rel=1e-3)
    zero = torch.zeros(2, 4, requires_grad=True)
    nce(bank_scores(zero, torch.ones(3, 4), torch.arange(3).expand(2, 3), 0.07), log_z, 5).backward()
    assert zero.grad is not None and zero.grad.isfinite().all()
    # All alike, Z right: P = 1/n everywhere, so h = 1 / (1 + m) whatever the features.
    one = nce(torch.zeros(1, 1 + 4, dtype=torch.float64), torch.log(torch.tensor(9.0, dtype=torch.float64)), 9)
    assert one.item() == pytest.approx(-math.log(1 / 5) - 4 * math.log(4 / 5), rel=1e-12)


def test_negatives_are_uniform_reproducible_and_differ_between_steps_and_seeds() -> None:
    first = drawn_negatives(INDEX, IMAGES, 20000, 3, STEP)
    counts = torch.bincount(first.flatten(), minlength=IMAGES) / first.numel()
    assert first.shape == (4, 20000) and counts.sub(1 / IMAGES).abs().max() < 0.005
    assert torch.equal(first, drawn_negatives(INDEX, IMAGES, 20000, 3, Step(0, 99, 5)))
    assert not torch.equal(first, drawn_negatives(INDEX, IMAGES, 20000, 3, Step(1, 10, 0)))
    assert not torch.equal(first, drawn_negatives(INDEX, IMAGES, 20000, 4, STEP))
    assert not torch.equal(first[0], first[1])


def test_memory_moves_after_the_step_only() -> None:
    method = build(momentum=0.25)
    before = method.bank.rows.clone()
    method.loss(views(), INDEX, NOBODY, STEP)
    assert torch.equal(method.bank.rows, before)
    with torch.no_grad():
        f = torch.stack(slow_features(method))
    method.after_step(STEP)
    torch.testing.assert_close(method.bank.rows[INDEX], F.normalize(0.25 * before[INDEX] + 0.75 * f, dim=1), atol=1e-12, rtol=0)
    moved = method.bank.rows.clone()
    method.after_step(STEP)  # nothing left to remember
    assert torch.equal(method.bank.rows, moved)


def test_z_stays_while_the_network_moves_and_the_log_says_so() -> None:
    method = build()
    first = method.loss(views(), INDEX, NOBODY, STEP)[1]
    assert set(first) == HEALTH | {"memory_cosine", "z_ratio"}
    assert first["z_ratio"].item() == pytest.approx(1.0) and not any(v.requires_grad for v in first.values())
    log_z = method.partition.log.clone()
    method.after_step(STEP)
    later = method.loss(views(), INDEX, NOBODY, Step(1, 10, 0))[1]
    assert torch.equal(method.partition.log, log_z)
    assert later["memory_cosine"] > first["memory_cosine"] and abs(later["z_ratio"].item() - 1.0) > 1e-6


def test_evaluate_chooses_what_features_returns() -> None:
    h, z = build().eval(), build(evaluate="z").eval()
    images = views()[0]
    assert torch.equal(h.features(images), h.encoder(images)) and h.dim == 16
    torch.testing.assert_close(z.features(images), F.normalize(h.project(images), dim=1))
    assert z.dim == 6


def test_without_a_head_the_memory_is_of_the_encoders_features() -> None:
    method = build(projector=HeadConfig(layers=0))
    assert method.bank.rows.shape == (IMAGES, 16) and isinstance(method.projector, nn.Sequential)
    assert method.loss(views(), INDEX, NOBODY, STEP)[0].isfinite()


def test_defaults_are_the_papers() -> None:
    config = InstDiscConfig()
    assert (config.softmax, config.negatives, config.temperature, config.momentum) == ("nce", 4096, 0.07, 0.5)
    assert (config.projector.layers, config.projector.out, config.z_batches, config.proximal) == (1, 128, 1, 0.0)


def test_wrong_settings_are_refused() -> None:
    for settings, message in (
        ({"softmax": "nec"}, "nce, full, sampled or parametric, not 'nec'"),
        ({"negatives": 0}, "negatives must be at least 1, not 0"),
        ({"z_batches": 0}, "z_batches must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
        ({"proximal": -1.0}, "proximal must be at least 0, not -1.0"),
        ({"evaluate": "f"}, "evaluate must be h or z, not 'f'"),
        ({"images": 0}, "needs num_images"),
        ({"batch": 1, "projector": HeadConfig()}, "a batch of one image has no batch statistics"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
    build(batch=1)  # one image is enough for the memory


@pytest.mark.parametrize("images", [40, 4000])
def test_scores_of_the_whole_memory_and_of_drawn_rows_are_the_same(images: int) -> None:
    """Both ways of computing them, values and gradients, with a place that is drawn twice."""
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(images, 6, dtype=torch.float64), dim=1)
    places = torch.randint(images, (3, 5))
    places[0, 1] = places[0, 0]
    weights = torch.randn(3, 5, dtype=torch.float64)
    ours, slow = (torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    ours.requires_grad_()
    slow.requires_grad_()
    found = bank_scores(ours, rows, places, 0.1)
    expected = torch.stack(
        [torch.stack([(slow[b] / slow[b].norm()).dot(rows[places[b, k]]) / 0.1 for k in range(5)]) for b in range(3)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, slow.grad, rtol=1e-10, atol=1e-12)
