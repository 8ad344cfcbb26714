"""SimSiam against a slow transcription of its equations; every switch does what its row says."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.norms import BatchNorm1d
from methods.simsiam import SimSiam, SimSiamConfig, negative_cosine, softmax_cross_entropy
from tests.methods.small import HEALTH_OF_PAIRS

PROJECTOR = HeadConfig(layers=3, hidden=10, out=6, final_norm=True)
PREDICTOR = HeadConfig(layers=2, hidden=4, out=6)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
IMAGES, B = 12, 5
INDEX = torch.tensor([7, 0, 3, 11, 4])


def at(step: int, epoch: int = 0) -> Step:
    return Step(step=step, total_steps=20, epoch=epoch)


def views(count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(count)]


def build(**config: Any) -> SimSiam:
    torch.manual_seed(0)
    config = {"projector": PROJECTOR, "predictor": PREDICTOR} | config
    return SimSiam(SimSiamConfig(**config), ENCODER, Setting(num_images=IMAGES, batch_size=B)).double().train()


def value(method: SimSiam, batch: list[Tensor], step: Step | None = None, index: Tensor = INDEX) -> Tensor:
    return method.loss(batch, index, index, step or at(0))[0]


def gradients(method: SimSiam, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad]))


def same(fast: list[Tensor], slow: list[Tensor]) -> None:
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def move(method: nn.Module, seed: int = 0) -> None:
    """What an optimizer does, roughly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in method.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def slow_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Equation 1, sample by sample and channel by channel."""
    total = p.new_zeros(())
    for i in range(len(p)):
        length_p = sum(p[i, k] ** 2 for k in range(p.shape[1])) ** 0.5
        length_z = sum(z[i, k] ** 2 for k in range(p.shape[1])) ** 0.5
        for k in range(p.shape[1]):
            total = total - p[i, k] / length_p * z[i, k] / length_z / len(p)
    return total


def slow_entropy(p: Tensor, z: Tensor) -> Tensor:
    """Section 4.5."""
    total = p.new_zeros(())
    for i in range(len(p)):
        of_p, of_z = sum(p[i, k].exp() for k in range(p.shape[1])), sum(z[i, k].exp() for k in range(p.shape[1]))
        for k in range(p.shape[1]):
            total = total - z[i, k].exp() / of_z * (p[i, k].exp() / of_p).log() / len(p)
    return total


def slow_loss(method: SimSiam, batch: list[Tensor]) -> Tensor:
    config = method.config
    z = [method.projector(method.encoder(view)) for view in batch]
    p = [z_i if config.predict == "none" else method.predictor(z_i) for z_i in z]
    t = [z_i.detach() for z_i in z] if config.stop_gradient else z
    d = slow_cosine if config.similarity == "cosine" else slow_entropy
    if config.symmetrization == "symmetric":
        return d(p[0], t[1]) / 2 + d(p[1], t[0]) / 2  # equation 4
    if config.symmetrization == "asymmetric":
        return d(p[0], t[1])  # equation 3
    return d(p[0], t[1]) / 2 + d(p[2], t[3]) / 2


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("predict", ["mlp", "fixed", "none"])
@pytest.mark.parametrize("similarity", ["cosine", "cross_entropy"])
@pytest.mark.parametrize("symmetrization", ["symmetric", "asymmetric", "asymmetric_2x"])
def test_loss_and_gradients_are_the_papers(symmetrization: str, similarity: str, predict: str, stop_gradient: bool) -> None:
    batch = views(4 if symmetrization == "asymmetric_2x" else 2)
    method = build(symmetrization=symmetrization, similarity=similarity, predict=predict, stop_gradient=stop_gradient)
    loss, expected = value(method, batch), slow_loss(method, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    same(gradients(method, loss), gradients(method, expected))


def test_the_similarities_at_their_extremes() -> None:
    z = torch.randn(4, 8, dtype=torch.float64)
    assert negative_cosine(3.0 * z, z).item() == pytest.approx(-1.0)
    assert negative_cosine(-z, z).item() == pytest.approx(1.0)
    eye = torch.eye(4, dtype=torch.float64)
    assert negative_cosine(eye, eye.roll(1, dims=0)).item() == pytest.approx(0.0, abs=1e-12)
    assert negative_cosine(z[:1], z[:1]).item() == pytest.approx(-1.0)
    flat = torch.ones(4, 8, dtype=torch.float64)
    assert softmax_cross_entropy(flat, flat).item() == pytest.approx(math.log(8))  # identical, and as uncertain as can be
    assert softmax_cross_entropy(100 * eye, 100 * eye).item() == pytest.approx(0.0, abs=1e-9)
    zero = torch.zeros(3, 4, requires_grad=True)
    loss = negative_cosine(zero, torch.ones(3, 4))
    loss.backward()
    assert loss.item() == 0.0 and zero.grad is not None and zero.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_similarities_widen_half_precision(dtype: torch.dtype) -> None:
    p, z = torch.randn(16, 32).to(dtype), torch.randn(16, 32).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = [negative_cosine(p, z), softmax_cross_entropy(p, z)]
    for loss, slow in zip(found, (slow_cosine, slow_entropy), strict=True):
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(slow(p.double(), z.double()).item(), rel=1e-4)


def test_without_a_predictor_the_stop_gradient_only_halves_the_gradient() -> None:
    """Section 4.2: why table 1a must fail where the loss is symmetric."""
    stopped, through = build(predict="none"), build(predict="none", stop_gradient=False)
    halves = [g / 2 for g in gradients(through, value(through, views()))]
    same(gradients(stopped, value(stopped, views())), halves)
    stopped, through = build(), build(stop_gradient=False)
    a, b = gradients(stopped, value(stopped, views())), gradients(through, value(through, views()))
    assert any(not torch.allclose(x, y / 2, rtol=1e-3) for x, y in zip(a, b, strict=True))


def test_defaults_are_the_papers_heads() -> None:
    method = SimSiam(SimSiamConfig(), ENCODER, Setting())
    assert isinstance(method.predictor, nn.Sequential)
    linear, norm, relu = nn.Linear, BatchNorm1d, nn.ReLU
    assert [type(m) for m in method.projector] == [linear, norm, relu, linear, norm, relu, linear, norm]
    assert [type(m) for m in method.predictor] == [linear, norm, relu, linear]
    assert [m.out_features for m in method.projector if isinstance(m, linear)] == [2048] * 3
    assert [m.out_features for m in method.predictor if isinstance(m, linear)] == [512, 2048]
    assert [m.bias is None for m in (*method.projector, *method.predictor) if isinstance(m, linear)] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("projector", "predictor", "norms"),
    [
        ({"norm": "none", "final_norm": False}, {"norm": "none"}, (0, 0)),
        ({"final_norm": False}, {}, (2, 1)),
        ({}, {}, (3, 1)),
        ({}, {"final_norm": True}, (3, 2)),
    ],
)
def test_the_rows_of_table_3(projector: dict[str, Any], predictor: dict[str, Any], norms: tuple[int, int]) -> None:
    method = build(projector=replace(PROJECTOR, **projector), predictor=replace(PREDICTOR, **predictor))
    found = [sum(isinstance(m, BatchNorm1d) for m in part.modules()) for part in (method.projector, method.predictor)]
    assert tuple(found) == norms and value(method, views()).isfinite()


def test_a_fixed_predictor_keeps_its_random_weights() -> None:
    method = build(predict="fixed")
    value(method, views()).backward()
    assert all(not p.requires_grad and p.grad is None for p in method.predictor.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.projector.parameters() if p.ndim > 1)
    trained = {id(p) for group in method.param_groups() for p in group["params"]}
    assert not trained & {id(p) for p in method.predictor.parameters()}
    assert isinstance(build(predict="none").predictor, nn.Identity)


def test_only_an_undecayed_predictor_has_a_fixed_rate() -> None:
    method = build()
    fixed = {id(p) for group in method.param_groups() if group.get("fixed_rate") for p in group["params"]}
    assert fixed == {id(p) for p in method.predictor.parameters()}
    for changed in ({"predictor_decay": True}, {"predict": "fixed"}, {"predict": "none"}):
        assert not any(group.get("fixed_rate") for group in build(**changed).param_groups())


def test_the_last_norm_may_have_no_scale_and_offset_of_its_own() -> None:
    method = build(output_affine=False)
    norm = method.projector[-1]
    assert isinstance(norm, BatchNorm1d) and not any(p.requires_grad for p in norm.parameters())
    z = method.project(views()[0])
    torch.testing.assert_close(z.mean(dim=0), torch.zeros_like(z[0]), atol=1e-9, rtol=0)
    value(method, views()).backward()
    assert norm.weight.grad is None and torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert sum(p.numel() for p in build().parameters() if p.requires_grad) == sum(
        p.numel() for p in method.parameters() if p.requires_grad
    ) + 2 * len(z[0])


@pytest.mark.parametrize(("every", "taken"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 0, 2, 2, 4, 4]), (4, [0, 0, 0, 0, 4, 4])])
def test_targets_come_from_the_network_of_the_last_refresh(every: int, taken: list[int]) -> None:
    method, past = build(refresh_every=every), []
    for k in range(6):
        past.append(copy.deepcopy(method))
        with torch.no_grad():
            z = [method.predictor(method.project(view)) for view in views(seed=k)]
            t = [past[taken[k]].project(view) for view in views(seed=k)]
            expected = slow_cosine(z[0], t[1]) / 2 + slow_cosine(z[1], t[0]) / 2
        torch.testing.assert_close(value(method, views(seed=k), at(k)), expected, rtol=1e-9, atol=1e-12)
        move(method, seed=k)
        method.after_step(at(k))


def test_a_refresh_every_epoch() -> None:
    method = build(refresh_every=0)
    starts: dict[int, SimSiam] = {}
    for k, epoch in enumerate([0, 0, 1, 1, 1, 2]):
        starts.setdefault(epoch, copy.deepcopy(method))
        with torch.no_grad():
            z = [method.predictor(method.project(view)) for view in views(seed=k)]
            t = [starts[epoch].project(view) for view in views(seed=k)]
            expected = slow_cosine(z[0], t[1]) / 2 + slow_cosine(z[1], t[0]) / 2
        torch.testing.assert_close(value(method, views(seed=k), at(k, epoch)), expected, rtol=1e-9, atol=1e-12)
        move(method, seed=k)
        if k == 3:  # within an epoch: a resumed run keeps the snapshot
            resumed = build(refresh_every=0)
            resumed.load_state_dict(method.state_dict())
            method = resumed


def test_no_gradient_reaches_a_snapshot() -> None:
    method = build(refresh_every=10)
    value(method, views()).backward()
    assert method.snapshot is not None and all(p.grad is None for p in method.snapshot.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert build().snapshot is None


def test_prepare_copies_to_the_snapshot() -> None:
    method = build(refresh_every=10)
    move(method)
    method.prepare(views())
    assert method.snapshot is not None
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.snapshot.parameters(), online, strict=True))


@pytest.mark.parametrize("predict", ["mlp", "none"])
def test_the_moving_average_over_several_visits(predict: str) -> None:
    """eta_x <- m eta_x + (1 - m) F(T'(x)), written out image by image."""
    method, m = build(moving_average=True, predict=predict, bank_momentum=0.8), 0.8
    assert method.bank is not None
    rows = [row.clone() for row in method.bank.rows]
    for k, index in enumerate([INDEX, INDEX.flip(0), torch.tensor([1, 0, 2, 3, 9])]):
        batch = views(seed=k)
        z = [method.project(view) for view in batch]
        p = [method.predictor(z_i) for z_i in z]
        unit = [[row.detach() / row.detach().norm() for row in z_i] for z_i in z]
        targets = [torch.stack([m * rows[x] + (1 - m) * unit[v][i] for i, x in enumerate(index.tolist())]) for v in (0, 1)]
        expected = slow_cosine(p[0], targets[1]) / 2 + slow_cosine(p[1], targets[0]) / 2
        loss = value(method, batch, at(k), index)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        same(gradients(method, loss), gradients(method, expected))
        assert all(torch.equal(a, b) for a, b in zip(method.bank.rows, rows, strict=True))  # not before the step is done
        method.after_step(at(k))
        for i, x in enumerate(index.tolist()):
            mean = unit[0][i] + unit[1][i]
            rows[x] = F.normalize(m * rows[x] + (1 - m) * mean / mean.norm(), dim=0)
        for found, row in zip(method.bank.rows, rows, strict=True):
            torch.testing.assert_close(found, row, rtol=1e-9, atol=1e-9)
        rows = [row.clone() for row in method.bank.rows]
        move(method, seed=k)


def test_log_has_the_collapse_telemetry_of_the_projection() -> None:
    method = build()
    _, log = method.loss(views(), INDEX, INDEX, at(0))
    assert set(log) == HEALTH_OF_PAIRS and not any(v.requires_grad for v in log.values())
    norm = method.projector[-1]
    assert isinstance(norm, BatchNorm1d)
    norm.weight.data.zero_()
    norm.bias.data.fill_(1.0)
    log = method.loss(views(), INDEX, INDEX, at(0))[1]
    assert log["std"].item() == pytest.approx(0.0, abs=1e-9) and log["pair_cosine"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"predict": "off"}, "predict must be mlp, fixed or none, not 'off'"),
        ({"symmetrization": "half"}, "symmetrization must be symmetric, asymmetric or asymmetric_2x"),
        ({"similarity": "mse"}, "similarity must be cosine or cross_entropy, not 'mse'"),
        ({"refresh_every": -1}, "0 for once an epoch, not -1"),
        ({"moving_average": True, "refresh_every": 5}, "needs refresh_every: 1"),
        ({"stop_gradient": False, "refresh_every": 5}, "other targets are not trained"),
        ({"stop_gradient": False, "moving_average": True}, "other targets are not trained"),
        ({"bank_momentum": 1.0}, r"must be in \[0, 1\), not 1.0"),
        ({"output_affine": False, "projector": replace(PROJECTOR, final_norm=False)}, "ends in a batch norm"),
        ({"output_affine": False, "projector": replace(PROJECTOR, norm="layer")}, "ends in a batch norm"),
        ({"predictor": replace(PREDICTOR, out=5)}, "predictor.out is 5, but the projector's output has 6"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**config)


def test_settings_that_would_fail_later_are_refused() -> None:
    def made(setting: Setting, **config: Any) -> SimSiam:
        return SimSiam(SimSiamConfig(**({"projector": PROJECTOR, "predictor": PREDICTOR} | config)), ENCODER, setting)

    with pytest.raises(ValueError, match="no batch statistics"):
        made(Setting(batch_size=1))
    plain = {"projector": replace(PROJECTOR, norm="none"), "predictor": replace(PREDICTOR, norm="none")}
    made(Setting(batch_size=1), **plain)
    made(Setting(batch_size=1), predict="none", projector=plain["projector"])  # the predictor's norms are not there
    with pytest.raises(ValueError, match="needs 4, not 2"):
        made(Setting(num_views=2), symmetrization="asymmetric_2x")
    with pytest.raises(ValueError, match="num_images must be at least 1, not 0"):
        made(Setting(), moving_average=True)
