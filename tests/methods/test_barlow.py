"""Barlow Twins against a slow transcription of its equations; every switch does what its row says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.barlow import BarlowConfig, BarlowTwins, cross_correlation, cross_entropy, off_diagonal, squares
from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.norms import BatchNorm1d
from tests.methods.small import HEALTH_OF_PAIRS

PROJECTOR = HeadConfig(layers=3, hidden=8, out=5, final_bias=False)
PREDICTOR = HeadConfig(layers=2, hidden=8, out=5)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
NOBODY = torch.zeros(6, dtype=torch.long)
EPS = 1e-5


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(n: int = 6) -> list[Tensor]:
    return [random64(n, 3, 16, 16, seed=seed) for seed in range(2)]


def build(**config: Any) -> BarlowTwins:
    torch.manual_seed(0)
    config = {"projector": PROJECTOR, "predictor": PREDICTOR} | config
    return BarlowTwins(BarlowConfig(**config), ENCODER, Setting(batch_size=6)).double().train()


def value(method: BarlowTwins, batch: list[Tensor]) -> Tensor:
    return method.loss(batch, NOBODY, NOBODY, STEP)[0]


def gradients(method: BarlowTwins, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad]))


def total(terms: Iterable[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for term in terms:
        result = result + term
    return result


def column(z: Tensor, j: int) -> list[Tensor]:
    return [z[b, j] for b in range(len(z))]


def slow_correlation(a: Tensor, b: Tensor, normalize: str = "batch", centre: bool = True) -> list[list[Tensor]]:
    """Equation 2, entry by entry; the embeddings are first mean-centred, as the paper assumes."""
    n, d = a.shape
    z = []
    for x in (a, b):
        columns = []
        for j in range(d):
            entries = column(x, j)
            if centre:
                mean = total(entries) / n
                entries = [v - mean for v in entries]
            if normalize != "none":
                scale = (total(v**2 for v in entries) / n + EPS) ** 0.5
                entries = [v / scale for v in entries]
            columns.append(entries)
        if normalize == "features":  # every sample on the unit sphere
            lengths = [total(columns[j][i] ** 2 for j in range(d)) ** 0.5 for i in range(n)]
            columns = [[columns[j][i] / lengths[i] for i in range(n)] for j in range(d)]
        z.append(columns)
    return [[total(z[0][i][k] * z[1][j][k] for k in range(n)) / n for j in range(d)] for i in range(d)]


def slow_terms(c: list[list[Tensor]], form: str, temperature: float) -> tuple[Tensor, Tensor]:
    d = len(c)
    pairs = [(i, j) for i in range(d) for j in range(d) if i != j]
    if form == "squares":  # equation 1
        return total((1 - c[i][i]) ** 2 for i in range(d)), total(c[i][j] ** 2 for i, j in pairs)
    on = -torch.log(total(torch.exp(c[i][i] / temperature) for i in range(d)))
    return on, torch.log(total(torch.exp(torch.clamp(c[i][j], min=0.0) / temperature) for i, j in pairs))


def slow_loss(method: BarlowTwins, batch: list[Tensor]) -> Tensor:
    config = method.config
    a, b = (method.projector(method.encoder(view)) for view in batch)
    a = method.predictor(a) if config.predict else a
    b = b.detach() if config.stop_gradient else b
    on, off = slow_terms(slow_correlation(a, b, config.normalize, config.centre), config.form, config.temperature)
    return {"both": on + config.redundancy * off, "invariance": on, "redundancy": config.redundancy * off}[config.terms]


SWITCHES: list[dict[str, Any]] = [
    {},
    {"redundancy": 0.3},
    {"terms": "invariance"},
    {"terms": "redundancy"},
    {"normalize": "features"},
    {"normalize": "none"},
    {"centre": False},
    {"normalize": "none", "centre": False, "projector": replace(PROJECTOR, norm="none")},
    {"projector": replace(PROJECTOR, norm="none")},
    {"form": "cross_entropy", "temperature": 0.2, "redundancy": 0.7},
    {"form": "cross_entropy", "terms": "invariance"},
    {"stop_gradient": True},
    {"predict": True},
    {"stop_gradient": True, "predict": True},
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
        same = len(found) == len(default) and all(
            a.shape == b.shape and torch.allclose(a, b, rtol=1e-6) for a, b in zip(found, default, strict=True)
        )
        assert not same, switches


def test_correlations_are_in_minus_one_to_one_and_scale_free() -> None:
    a, b = 1e3 * random64(50, 4), 1e3 * random64(50, 4, seed=1)
    c = cross_correlation(a, b, "batch", True)
    assert c.abs().max() <= 1.0
    torch.testing.assert_close(cross_correlation(7.0 * a + 3.0, b, "batch", True), c, rtol=0, atol=1e-9)
    torch.testing.assert_close(cross_correlation(b, a, "batch", True), c.T)
    expected = torch.corrcoef(torch.cat([a, b], dim=1).T)[:4, 4:]
    torch.testing.assert_close(c, expected, rtol=0, atol=1e-9)


def test_perfect_embeddings_cost_nothing() -> None:
    """Both views alike, channels uncorrelated: C is the identity."""
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    terms = squares(cross_correlation(100 * signs, 100 * signs, "batch", True))
    assert terms.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_degenerate_embeddings() -> None:
    """Identical samples, and one sample, correlate with nothing: the invariance term is then D, the other 0, both finite."""
    for z in (torch.ones(6, 3, dtype=torch.float64), random64(1, 3), torch.zeros(6, 3, dtype=torch.float64)):
        z.requires_grad_(True)
        terms = squares(cross_correlation(z, z, "batch", True))
        assert terms.tolist() == pytest.approx([3.0, 0.0])
        terms.sum().backward()
        assert z.grad is not None and z.grad.isfinite().all()
    one = random64(50, 1).expand(50, 3)  # every channel repeats the first
    assert squares(cross_correlation(one, one, "batch", True)).tolist() == pytest.approx([0.0, 6.0], abs=1e-3)
    eye = torch.eye(3, dtype=torch.float64)  # orthogonal samples: channels are as correlated as means allow, -1 / 2
    assert squares(cross_correlation(eye, eye, "batch", True)).tolist() == pytest.approx([0.0, 6 * 0.25], abs=1e-3)


def test_cross_entropy_at_known_correlations() -> None:
    """No correlation at all: -log D and log D (D - 1); what is anticorrelated counts as none."""
    for off in (0.0, -0.9):
        c = torch.full((4, 4), off, dtype=torch.float64).fill_diagonal_(0.0)
        assert cross_entropy(c, 0.1).tolist() == pytest.approx([-math.log(4), math.log(12)])
    assert cross_entropy(torch.eye(4, dtype=torch.float64), 0.01)[0].item() == pytest.approx(-100 - math.log(4))


def test_off_diagonal_leaves_out_the_diagonal_alone() -> None:
    c = torch.arange(16.0).view(4, 4)
    expected = sorted(c[i, j].item() for i in range(4) for j in range(4) if i != j)
    assert sorted(off_diagonal(c).flatten().tolist()) == expected
    assert off_diagonal(torch.ones(1, 1)).numel() == 0


def test_loss_scale_scales() -> None:
    torch.testing.assert_close(0.024 * value(build(), views()), value(build(loss_scale=0.024), views()))


def test_the_stop_gradient_is_on_the_second_view_alone() -> None:
    """The value stays; the gradient is that of the first branch."""
    method, stopped = build(), build(stop_gradient=True)
    assert torch.equal(value(method, views()), value(stopped, views()))
    z = [stopped.project(view).detach() for view in views()]
    a, b = (z_i.clone().requires_grad_(True) for z_i in z)
    squares(cross_correlation(a, b.detach(), "batch", True)).sum().backward()
    assert a.grad is not None and b.grad is None


def test_a_predictor_acts_on_the_first_view() -> None:
    method = build(predict=True)
    seen: list[Tensor] = []
    method.predictor.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    value(method, views())
    assert len(seen) == 1 and torch.equal(seen[0], method.project(views()[0]))
    assert isinstance(build().predictor, nn.Identity)


def test_defaults_are_the_papers() -> None:
    config = BarlowConfig()
    assert (config.redundancy, config.terms, config.normalize, config.centre) == (0.005, "both", "batch", True)
    with torch.device("meta"):
        method = BarlowTwins(config, ENCODER, Setting())
    linear, norm, relu = nn.Linear, BatchNorm1d, nn.ReLU
    assert [type(m) for m in method.projector] == [linear, norm, relu, linear, norm, relu, linear]
    layers = [m for m in method.projector if isinstance(m, linear)]
    assert all(m.out_features == 8192 and m.bias is None for m in layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    """300 samples of 300 would overflow a half-precision sum of squares."""
    a, b = (300.0 * random64(300, 8, seed=seed).to(dtype) for seed in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        c = cross_correlation(a, b, "batch", True)
        found = squares(c)
    assert c.dtype == found.dtype == torch.float32
    expected = squares(cross_correlation(a.double(), b.double(), "batch", True))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_log_tells_the_two_terms_and_the_collapse() -> None:
    method = build()
    loss, log = method.loss(views(), NOBODY, NOBODY, STEP)
    assert set(log) == HEALTH_OF_PAIRS | {"invariance", "redundancy"} and not any(v.requires_grad for v in log.values())
    torch.testing.assert_close(log["invariance"] + 0.005 * log["redundancy"], loss.detach())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"terms": "none"}, "terms must be both, invariance or redundancy, not 'none'"),
        ({"normalize": "l2"}, "normalize must be batch, features or none, not 'l2'"),
        ({"form": "hinge"}, "form must be squares or cross_entropy, not 'hinge'"),
        ({"redundancy": -1.0}, "redundancy must be at least 0, not -1.0"),
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"projector": replace(PROJECTOR, out=1)}, "needs at least two, the projector ends in 1"),
        ({"predict": True, "predictor": replace(PREDICTOR, out=4)}, "predictor.out is 4, but the projector's output has 5"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**config)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 1 has none"):
        BarlowTwins(BarlowConfig(projector=PROJECTOR), ENCODER, Setting(batch_size=1))
