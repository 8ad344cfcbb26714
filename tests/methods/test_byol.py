"""BYOL against a slow transcription of its equations; every switch does what its row says."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.byol import BYOL, BYOLConfig, negatives
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.norms import Affine, BatchNorm1d
from tests.methods.small import HEALTH_OF_PAIRS

HEAD = HeadConfig(hidden=12, out=6)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
NOBODY = torch.zeros(6, dtype=torch.long)


def views(n: int = 6, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2)]


def build(encoder: EncoderConfig = ENCODER, **config: Any) -> BYOL:
    torch.manual_seed(0)
    config.setdefault("projector", HEAD)
    config.setdefault("predictor", HEAD)
    method = BYOL(BYOLConfig(**config), encoder, Setting(num_classes=10)).double().train()
    if method.target is not None:  # away from the online network, or both branches would be the same
        with torch.no_grad():
            for p in method.target.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method


def value(method: BYOL, batch: list[Tensor]) -> Tensor:
    return method.loss(batch, NOBODY, NOBODY, STEP)[0]


def gradients(method: BYOL, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, p in method.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad])
    return dict(zip(names, found, strict=True))


def slow_loss(method: BYOL, batch: list[Tensor]) -> Tensor:
    """Equation 2 in both directions, sample by sample."""
    total = torch.zeros((), dtype=torch.float64)
    for mine, other in ((0, 1), (1, 0)):
        q = method.predictor(method.projector(method.encoder(batch[mine])))
        assert method.target is not None
        z = method.target[1](method.target[0](batch[other])).detach()
        for i in range(len(q)):
            difference = q[i] / q[i].norm() - z[i] / z[i].norm()
            total = total + (difference * difference).sum() / len(q)
    return total


@pytest.mark.parametrize("norm", ["batch", "group_ws", "none"])
def test_loss_and_gradients_are_the_papers(norm: str) -> None:
    head = replace(HEAD, norm=norm, groups=4)  # type: ignore[arg-type]
    method = build(replace(ENCODER, norm=norm, groups=4), projector=head, predictor=head)  # type: ignore[arg-type]
    loss, expected = value(method, views()), slow_loss(method, views())
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    fast, slow = gradients(method, loss), gradients(method, expected)
    for name in fast:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-6, atol=1e-9)


def test_loss_is_the_sum_over_both_directions() -> None:
    """Between 0 and 8: half of it, the mean, is the error that costs other code ten points."""
    method = build(target="online", predict=False)
    one_way = 2 - 2 * torch.cosine_similarity(method.project(views()[0]), method.project(views()[1])).mean()
    torch.testing.assert_close(value(method, views()), 2 * one_way)
    same = [views()[0]] * 2
    assert value(method, same).item() == pytest.approx(0.0, abs=1e-12)


def test_loss_scale_scales() -> None:
    whole, half = build(), build(loss_scale=0.5)
    torch.testing.assert_close(0.5 * value(whole, views()), value(half, views()))


def test_defaults_are_the_papers_heads() -> None:
    config = BYOLConfig()
    method = BYOL(config, ENCODER, Setting(num_classes=10))
    for head in (method.projector, method.predictor):
        assert [type(m) for m in head] == [nn.Linear, BatchNorm1d, nn.ReLU, nn.Linear]
        assert head[0].out_features == 4096 and head[3].out_features == 256 and head[3].bias is None
    assert (config.target, config.target_ema, config.stop_gradient, config.predict) == ("ema", 0.996, True, True)


def test_target_moves_by_the_schedule_in_steps() -> None:
    method, total = build(target_ema=0.9), 8
    assert method.target is not None
    slow = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    for k in range(total):
        with torch.no_grad():
            for p in online:
                p.add_(0.01 * torch.randn_like(p))
        tau = 1 - (1 - 0.9) * (math.cos(math.pi * k / total) + 1) / 2
        slow = [tau * s + (1 - tau) * p for s, p in zip(slow, online, strict=True)]
        method.after_step(Step(step=k, total_steps=total, epoch=0))
        for found, expected in zip(method.target.parameters(), slow, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_frozen_target_never_moves_and_online_target_is_the_online_network() -> None:
    frozen = build(target="frozen")
    assert frozen.target is not None
    before = copy.deepcopy(dict(frozen.target.named_parameters()))
    with torch.no_grad():
        for p in frozen.encoder.parameters():
            p.add_(1.0)
    frozen.after_step(STEP)
    assert all(torch.equal(p, before[name]) for name, p in frozen.target.named_parameters())

    online = build(target="online")
    assert online.target is None
    assert not any(name.startswith("target") for name in online.state_dict())
    z = [online.project(v) for v in views()]
    q = [online.predictor(z_i) for z_i in z]
    cosine = torch.cosine_similarity
    expected = 4 - 2 * cosine(q[0], z[1]).mean() - 2 * cosine(q[1], z[0]).mean()
    torch.testing.assert_close(value(online, views()), expected)
    online.after_step(STEP)


def directional(method: BYOL, loss: Tensor, direction: dict[str, Tensor]) -> float:
    found = gradients(method, loss)
    return sum(float((found[name] * direction[name]).sum()) for name in found)


def test_stop_gradient_changes_the_gradient_and_not_the_value() -> None:
    """Without it the gradient is the true derivative of the loss; with it, that of the loss with constant targets."""
    stopped = build(target="online", projector=replace(HEAD, norm="none"), predictor=replace(HEAD, norm="none"))
    through = copy.deepcopy(stopped)
    through.config = replace(stopped.config, stop_gradient=False)
    batch = views()
    direction = {n: torch.randn_like(p) for n, p in stopped.named_parameters()}
    a, b = value(stopped, batch), value(through, batch)
    assert torch.equal(a, b)
    with_stop, without = directional(stopped, a, direction), directional(through, b, direction)

    with torch.no_grad():
        constant = [stopped.project(v) for v in batch]

    def moved(distance: float, fixed_targets: bool) -> float:
        other = copy.deepcopy(through)
        with torch.no_grad():
            for name, p in other.named_parameters():
                p.add_(distance * direction[name])
            z = [other.project(v) for v in batch]
            q = [other.predictor(z_i) for z_i in z]
            t = constant if fixed_targets else z
            cosine = torch.cosine_similarity
            return float(4 - 2 * cosine(q[0], t[1]).mean() - 2 * cosine(q[1], t[0]).mean())

    h = 1e-6
    assert without == pytest.approx((moved(h, False) - moved(-h, False)) / (2 * h), rel=1e-5)
    assert with_stop == pytest.approx((moved(h, True) - moved(-h, True)) / (2 * h), rel=1e-5)
    assert abs(without - with_stop) > 1e-3 * abs(with_stop)


def test_no_gradient_reaches_the_target() -> None:
    method = build()
    value(method, views()).backward()
    assert method.target is not None
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_predictor_off_is_the_identity() -> None:
    method = build(predict=False)
    assert isinstance(method.predictor, nn.Identity)
    assert not any(name.startswith("predictor") for name in method.state_dict())


def test_target_uses_batch_statistics_and_keeps_its_own_running_ones() -> None:
    method = build()
    assert method.target is not None
    online = [m for m in method.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    slow = [m for m in method.target[0].modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in slow:
            norm.running_mean.fill_(1e3)  # type: ignore[union-attr]
    reference = copy.deepcopy(method)
    reference.target[0].apply(  # type: ignore[index]
        lambda m: m.reset_running_stats() if isinstance(m, nn.BatchNorm2d) else None
    )
    assert torch.equal(value(method, views()), value(reference, views()))  # outputs do not read them
    # View by view: two forwards each, not one of both views together.
    assert all(int(n.num_batches_tracked) == 2 for n in online + slow)  # type: ignore[arg-type]
    kept = [n.running_mean.clone() for n in slow]  # type: ignore[union-attr]
    method.after_step(STEP)
    assert all(torch.equal(n.running_mean, k) for n, k in zip(slow, kept, strict=True))  # type: ignore[arg-type]


def test_prepare_sets_affine_norms_and_copies_them_to_the_target() -> None:
    head = replace(HEAD, norm="affine")
    affine, batch = replace(ENCODER, norm="affine"), replace(ENCODER, norm="batch")
    method, twin = build(affine, projector=head, predictor=head), build(batch)
    method.prepare(views())
    assert method.target is not None
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))
    fitted = [m for part in (method.encoder, method.projector, method.predictor) for m in part.modules()]
    norms = [m for m in fitted if isinstance(m, Affine)]
    assert len(norms) == 4 + 1 + 1 and all((m.weight != 1).any() for m in norms)
    for part in ("encoder", "projector", "predictor"):  # same weights, norms apart
        mine = {k: v for k, v in getattr(method, part).state_dict().items() if v.ndim > 1}
        getattr(twin, part).load_state_dict(mine, strict=False)
    image = views()[0]
    torch.testing.assert_close(method.outputs(image), twin.outputs(image), rtol=1e-4, atol=1e-4)


def test_prepare_changes_nothing_without_affine_norms_but_aligns_the_target() -> None:
    method = build()
    before = {k: v.clone() for k, v in method.state_dict().items() if not k.startswith("target.")}
    method.prepare(views())
    assert all(torch.equal(method.state_dict()[k], v) for k, v in before.items())


def test_log_has_the_collapse_telemetry_of_the_projection() -> None:
    method = build()
    loss, log = method.loss(views(), NOBODY, NOBODY, STEP)
    assert loss.requires_grad and loss.ndim == 0
    assert set(log) == HEALTH_OF_PAIRS and not any(v.requires_grad for v in log.values())
    method.projector[-1].weight.data.zero_()
    method.projector[-1].bias.data.fill_(1.0)
    assert method.loss(views(), NOBODY, NOBODY, STEP)[1]["std"].item() == pytest.approx(0.0, abs=1e-9)


def slow_repulsion(method: BYOL, batch: list[Tensor], alpha: float) -> Tensor:
    """What equation 6 subtracts for beta = 1, in both directions, pair by pair."""
    z = [method.projector(method.encoder(view)) for view in batch]
    phi = [method.predictor(z_i) for z_i in z]
    if method.target is not None:
        psi = [method.target[1](method.target[0](view)).detach() for view in batch]
    else:
        psi = [z_i.detach() for z_i in z] if method.config.stop_gradient else z
    total, n = torch.zeros((), dtype=torch.float64), len(batch[0])

    def s(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum() / (a.norm() * b.norm())

    for mine, other in ((0, 1), (1, 0)):
        for i in range(n):
            powers = torch.zeros((), dtype=torch.float64)
            for j in range(n):
                if j != i:
                    powers = powers + torch.exp(s(phi[mine][i], psi[mine][j]) / alpha)
                powers = powers + torch.exp(s(phi[mine][i], psi[other][j]) / alpha)
            total = total + 2 * alpha / n * torch.log(powers)
    return total


@pytest.mark.parametrize(
    "row", [{}, {"predict": False}, {"target": "online", "stop_gradient": False}, {"target": "online", "predict": False}]
)
def test_negatives_are_those_of_table_5b(row: dict[str, Any]) -> None:
    """Equation 6 is minus the loss up to the constant of |a - b|^2 = 2 - 2 cos; beta 0 is BYOL as it was."""
    plain, method = build(**row), build(**row, negatives=0.7, temperature=0.3)
    loss = value(method, views())
    expected = value(plain, views()) + 0.7 * slow_repulsion(method, views(), 0.3)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    both = gradients(method, loss)
    attraction, repulsion = gradients(plain, value(plain, views())), gradients(method, slow_repulsion(method, views(), 0.3))
    for name in both:
        torch.testing.assert_close(both[name], attraction[name] + 0.7 * repulsion[name], rtol=1e-7, atol=1e-9)


def test_negatives_at_known_similarities() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    # Orthogonal images, views alike: 2 alpha ln of one exp(1 / alpha) and six exp(0).
    assert negatives(eye, eye, eye, 0.5).item() == pytest.approx(math.log(math.exp(2.0) + 6))
    same = torch.ones(4, 3, dtype=torch.float64)
    assert negatives(same, same, same, 0.5).item() == pytest.approx(2.0 + math.log(7))  # 2 (1 + alpha ln 7)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 0, not -1"):
        BYOLConfig(negatives=-1.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        BYOLConfig(temperature=0.0)
    with pytest.raises(ValueError, match="raise batch_size"):
        BYOL(BYOLConfig(projector=HEAD, predictor=HEAD), ENCODER, Setting(batch_size=1))
    ending = replace(HEAD, layers=1, final_norm=True)
    with pytest.raises(ValueError, match="raise batch_size"):
        BYOL(BYOLConfig(projector=ending, predictor=replace(HEAD, norm="none")), ENCODER, Setting(batch_size=1))
    plain = replace(HEAD, norm="none")
    BYOL(BYOLConfig(projector=plain, predictor=plain), ENCODER, Setting(batch_size=1))
    with pytest.raises(ValueError, match="raise batch_size"):
        BYOL(BYOLConfig(projector=plain, predictor=plain, negatives=1.0), ENCODER, Setting(batch_size=1))
    with pytest.raises(ValueError, match="needs target: online"):
        BYOLConfig(stop_gradient=False)
    with pytest.raises(ValueError, match="ema, online or frozen"):
        BYOLConfig(target="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        BYOLConfig(target_ema=1.5)
    with pytest.raises(ValueError, match="has 6"):
        build(predictor=replace(HEAD, out=5))
