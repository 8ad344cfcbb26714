"""VICReg against a slow transcription of its equations; every switch does what its row says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.norms import BatchNorm1d
from methods.vicreg import VICReg, VICRegConfig, covariance, mean_square, normalized, variance
from tests.methods.small import HEALTH_OF_PAIRS

PROJECTOR = HeadConfig(layers=3, hidden=8, out=5, final_bias=False)
PREDICTOR = HeadConfig(layers=2, hidden=8, out=5)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
NOBODY = torch.zeros(6, dtype=torch.long)


def at(step: int) -> Step:
    return Step(step=step, total_steps=8, epoch=0)


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views() -> list[Tensor]:
    return [random64(6, 3, 16, 16, seed=seed) for seed in range(2)]


def build(**config: Any) -> VICReg:
    torch.manual_seed(0)
    config = {"projector": PROJECTOR, "predictor": PREDICTOR} | config
    method = VICReg(VICRegConfig(**config), ENCODER, Setting(batch_size=6)).double().train()
    if method.target is not None:
        with torch.no_grad():
            for p in method.target.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method


def value(method: VICReg, batch: list[Tensor]) -> Tensor:
    return method.loss(batch, NOBODY, NOBODY, at(0))[0]


def gradients(method: VICReg, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad]))


def total(terms: Iterable[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for term in terms:
        result = result + term
    return result


def slow_variance(z: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Equations 1 and 2."""
    n, d = z.shape
    found = []
    for j in range(d):
        mean = total(z[i, j] for i in range(n)) / n
        var = total((z[i, j] - mean) ** 2 for i in range(n)) / (n - 1)
        found.append(torch.clamp(gamma - (var + epsilon) ** 0.5, min=0.0))
    return total(found) / d


def slow_covariance(z: Tensor) -> Tensor:
    """Equations 3 and 4."""
    n, d = z.shape
    mean = [total(z[i, j] for i in range(n)) / n for j in range(d)]
    found = []
    for j in range(d):
        for k in range(d):
            c = total((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1)
            if j != k:
                found.append(c**2)
    return total(found) / d


def slow_normalized(z: Tensor, how: str) -> Tensor:
    n, d = z.shape
    if how == "l2":
        return torch.stack([z[i] / total(z[i, j] ** 2 for j in range(d)) ** 0.5 for i in range(n)])
    if how == "standardize":
        columns = []
        for j in range(d):
            mean = total(z[i, j] for i in range(n)) / n
            var = total((z[i, j] - mean) ** 2 for i in range(n)) / (n - 1)
            columns.append((z[:, j] - mean) / (var + 1e-5) ** 0.5)
        return torch.stack(columns, dim=1)
    return z


def slow_invariance(p: Tensor, z: Tensor, config: VICRegConfig) -> Tensor:
    n, d = p.shape
    if config.similarity == "cosine":
        p, z = slow_normalized(p, "l2"), slow_normalized(z, "l2")
        return total((p[i, j] - z[i, j]) ** 2 for i in range(n) for j in range(d)) / n
    p, z = slow_normalized(p, config.normalize), slow_normalized(z, config.normalize)
    return total((p[i, j] - z[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)


def slow_loss(method: VICReg, batch: list[Tensor]) -> Tensor:
    config = method.config
    z = [method.projector(method.encoder(view)) for view in batch]
    p = [method.predictor(z_i) for z_i in z] if config.predict else z
    if method.target is not None:
        t = [method.target[1](method.target[0](view)).detach() for view in batch]
    else:
        t = [z_i.detach() for z_i in z] if config.stop_gradient else z
    s = (slow_invariance(p[0], t[1], config) + slow_invariance(p[1], t[0], config)) / 2
    gamma = config.gamma / math.sqrt(z[0].shape[1]) if config.normalize == "l2" else config.gamma
    whole = [slow_normalized(z_i, config.normalize) for z_i in z]
    v = total(slow_variance(z_i, gamma, config.epsilon) for z_i in whole) / (2 if config.halve_variance else 1)
    c = total(slow_covariance(z_i) for z_i in whole)
    return config.invariance * s + config.variance * v + config.covariance * c


LIKE_BYOL: dict[str, Any] = {"similarity": "cosine", "normalize": "l2", "invariance": 1.0, "variance": 1.0, "covariance": 0.01}
SWITCHES: list[dict[str, Any]] = [
    {},
    {"invariance": 1.0, "variance": 0.0, "covariance": 0.0},
    {"covariance": 0.0},
    {"gamma": 0.4},
    {"epsilon": 0.1},
    {"halve_variance": False},
    {"normalize": "standardize"},
    {"normalize": "l2"},
    {"similarity": "cosine"},
    {"stop_gradient": True},
    {"predict": True},
    {"predict": True, "projector": replace(PROJECTOR, norm="none"), "predictor": replace(PREDICTOR, norm="none")},
    {"predict": True, "stop_gradient": True, "normalize": "standardize"},
    {"predict": True, "stop_gradient": True, **LIKE_BYOL},
    {"predict": True, "stop_gradient": True, "target": "ema", **LIKE_BYOL},
    {"stop_gradient": True, "projector": replace(PROJECTOR, norm="none"), **LIKE_BYOL},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s) or "default")
def test_loss_and_gradients_are_the_papers(switches: dict[str, Any]) -> None:
    method = build(**switches)
    loss, expected = value(method, views()), slow_loss(method, views())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    for a, b in zip(gradients(method, loss), gradients(method, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_every_switch_changes_the_gradient() -> None:
    """So that no row of SWITCHES agrees with its transcription by doing nothing."""
    methods = [build(**switches) for switches in SWITCHES]
    default, *others = [gradients(method, value(method, views())) for method in methods]
    for switches, found in zip(SWITCHES[1:], others, strict=True):
        alike = [a.shape == b.shape and torch.allclose(a, b, rtol=1e-6) for a, b in zip(found, default, strict=False)]
        assert not all(alike), switches


def test_terms_are_the_slow_ones_on_any_numbers() -> None:
    for seed, scale in ((0, 0.1), (1, 1.0), (2, 30.0)):
        z, other = scale * random64(7, 4, seed=seed), random64(7, 4, seed=seed + 10)
        torch.testing.assert_close(variance(z, 1.0, 1e-4), slow_variance(z, 1.0, 1e-4), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(covariance(z), slow_covariance(z), rtol=1e-9, atol=1e-12)
        expected = ((z - other) ** 2).sum() / (7 * 4)
        torch.testing.assert_close(mean_square(z, other), expected, rtol=1e-9, atol=1e-12)


def test_perfect_embeddings_cost_nothing() -> None:
    """Views alike, channels uncorrelated, of deviation gamma and more."""
    signs = 2.0 * torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    terms = [variance(signs, 1.0, 1e-4), covariance(signs), mean_square(signs, signs)]
    assert [t.item() for t in terms] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_identical_samples_cost_gamma_and_their_gradient_is_finite() -> None:
    """Collapse: only the variance term sees it, and epsilon keeps the root's derivative finite."""
    z = torch.ones(6, 3, dtype=torch.float64, requires_grad=True)
    v, c = variance(z, 1.0, 1e-4), covariance(z)
    (v + c).backward()
    assert v.item() == pytest.approx(1.0 - 0.01) and c.item() == 0.0
    assert z.grad is not None and z.grad.isfinite().all()
    for how in ("standardize", "l2"):
        assert normalized(torch.zeros(6, 3), how).isfinite().all()


def test_repeated_channels_and_orthogonal_samples() -> None:
    one = random64(50, 1).expand(50, 3)
    var = one[:, 0].var()
    torch.testing.assert_close(covariance(one), 6 * var**2 / 3)
    eye = torch.eye(3, dtype=torch.float64)  # covariances -1 / 6: means are a third each
    assert covariance(eye).item() == pytest.approx(6 * (1 / 6) ** 2 / 3)


def test_normalized_embeddings_are_what_they_say() -> None:
    z = 5.0 * random64(40, 6) + 3.0
    standard, unit = normalized(z, "standardize"), normalized(z, "l2")
    torch.testing.assert_close(standard.std(dim=0), torch.ones(6, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert normalized(z, "none") is z
    # Spread evenly over the sphere, the deviation of a channel is 1 / sqrt(d): nothing is missing from gamma.
    even = normalized(random64(20000, 6), "l2")
    assert variance(even, 1 / math.sqrt(6), 1e-4).item() < 2e-3


def test_halving_halves_the_variance_term_alone() -> None:
    sums, means = build(halve_variance=False, variance=10.0), build(halve_variance=True, variance=20.0)
    torch.testing.assert_close(value(sums, views()), value(means, views()))
    log = sums.loss(views(), NOBODY, NOBODY, at(0))[1]
    torch.testing.assert_close(log["variance"], 2 * means.loss(views(), NOBODY, NOBODY, at(0))[1]["variance"])


def test_the_moving_target() -> None:
    """Row BYOL of table 4: no gradient reaches the slow network, which moves by BYOL's schedule."""
    method = build(target="ema", stop_gradient=True, predict=True, target_ema=0.9)
    value(method, views()).backward()
    assert method.target is not None and all(p.grad is None for p in method.target.parameters())
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    assert all(p.grad is not None for p in online)
    slow = [p.clone() for p in method.target.parameters()]
    for k in range(4):
        with torch.no_grad():
            for p in online:
                p.add_(0.01 * torch.randn_like(p))
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * k / 8) + 1) / 2
        slow = [tau * s + (1 - tau) * p for s, p in zip(slow, online, strict=True)]
        method.after_step(at(k))
        for found, expected in zip(method.target.parameters(), slow, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    method.prepare(views())
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))
    assert build().target is None


def test_the_regularizers_act_on_the_embeddings_not_the_predictions() -> None:
    method = build(predict=True, invariance=0.0)
    found = torch.autograd.grad(value(method, views()), list(method.predictor.parameters()))
    assert all(not g.any() for g in found)


def test_defaults_are_the_papers() -> None:
    config = VICRegConfig()
    assert (config.invariance, config.variance, config.covariance, config.gamma, config.epsilon) == (25, 25, 1, 1, 1e-4)
    with torch.device("meta"):
        method = VICReg(config, ENCODER, Setting())
    linear, norm, relu = nn.Linear, BatchNorm1d, nn.ReLU
    assert [type(m) for m in method.projector] == [linear, norm, relu, linear, norm, relu, linear]
    assert [m.out_features for m in method.projector if isinstance(m, linear)] == [8192] * 3
    assert isinstance(method.predictor, nn.Identity)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    """300 samples of 300 would overflow a half-precision sum of squares."""
    z = (300.0 * random64(300, 8)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = [covariance(z), variance(z, 500.0, 1e-4), mean_square(z, -z)]
    expected = [covariance(z.double()), variance(z.double(), 500.0, 1e-4), mean_square(z.double(), -z.double())]
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32 and a.item() == pytest.approx(b.item(), rel=1e-4)


def test_log_tells_the_three_terms_and_the_collapse() -> None:
    method = build()
    loss, log = method.loss(views(), NOBODY, NOBODY, at(0))
    assert set(log) == HEALTH_OF_PAIRS | {"invariance", "variance", "covariance"}
    assert not any(v.requires_grad for v in log.values())
    torch.testing.assert_close(25 * log["invariance"] + 25 * log["variance"] + log["covariance"], loss.detach())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"normalize": "batch"}, "normalize must be none, standardize or l2, not 'batch'"),
        ({"similarity": "l1"}, "similarity must be mse or cosine, not 'l1'"),
        ({"target": "frozen"}, "target must be online or ema, not 'frozen'"),
        ({"variance": -1.0}, "variance must be at least 0, not -1.0"),
        ({"gamma": 0.0}, "gamma must be positive, not 0.0"),
        ({"epsilon": 0.0}, "epsilon must be positive, not 0.0"),
        ({"target": "ema"}, "say stop_gradient: true with it"),
        ({"target_ema": 1.5}, r"must be in \[0, 1\], not 1.5"),
        ({"predict": True, "predictor": replace(PREDICTOR, out=4)}, "predictor.out is 4, but the projector's output has 5"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**config)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 1 has none"):
        VICReg(VICRegConfig(projector=PROJECTOR), ENCODER, Setting(batch_size=1))
