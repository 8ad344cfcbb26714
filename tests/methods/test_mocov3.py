"""MoCo v3 against a slow transcription of its algorithm 1; every switch; the gradients that it watches."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.mocov3 import MoCoV3, MoCoV3Config, batch_logits
from methods.momentum import cosine_to_one
from methods.norms import BatchNorm1d

PREDICTOR = HeadConfig(layers=2, hidden=12, out=6, final_norm=True)
PROJECTOR = replace(PREDICTOR, layers=3)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
VIT = EncoderConfig(name="vit_tiny", width=0.0834, heads=2, patch_size=8)
STEP = Step(step=3, total_steps=10, epoch=0)
N = 6
NOBODY = torch.zeros(N, dtype=torch.long)


def views(n: int = N, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2)]


def build(encoder: EncoderConfig = ENCODER, **config: Any) -> MoCoV3:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": PROJECTOR, "predictor": PREDICTOR} | config
    method = MoCoV3(MoCoV3Config(**settings), encoder, Setting(batch_size=N)).double().train()
    with torch.no_grad():  # away from the query network, or both would be the same
        for p in method.target.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return method


def value(method: MoCoV3, batch: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return method.loss(batch, NOBODY, NOBODY, STEP)


def slow_contrast(q: Tensor, k: Tensor, tau: float) -> Tensor:
    """Equation 1, query by query, without its factor."""
    total = q.new_zeros(())
    for i in range(len(q)):
        a = q[i] / torch.sqrt((q[i] * q[i]).sum())
        weights = []
        for j in range(len(k)):
            b = k[j] / torch.sqrt((k[j] * k[j]).sum())
            weights.append(torch.exp((a * b).sum() / tau))
        total = total - torch.log(weights[i] / torch.stack(weights).sum())
    return total / len(q)


def slow_loss(method: MoCoV3, batch: list[Tensor]) -> Tensor:
    """Algorithm 1."""
    q1, q2 = (method.predictor(method.projector(method.encoder(view))) for view in batch)
    k1, k2 = (method.target[1](method.target[0](view)).detach() for view in batch)
    t = method.config.temperature
    return 2 * t * slow_contrast(q1, k2, t) + 2 * t * slow_contrast(q2, k1, t)


@pytest.mark.parametrize(
    ("encoder", "config"),
    [
        (ENCODER, {}),
        (ENCODER, {"temperature": 1.0, "projector": replace(PROJECTOR, layers=2), "output_affine": True}),
        (ENCODER, {"projector": replace(PROJECTOR, norm="none"), "predictor": replace(PREDICTOR, norm="none")}),
        (ENCODER, {"predict": False}),
        (VIT, {}),
        (replace(VIT, patch_projection="frozen"), {}),
    ],
)
def test_loss_and_gradients_are_the_papers(encoder: EncoderConfig, config: dict[str, Any]) -> None:
    method = build(encoder, **config)
    loss, expected = value(method, views())[0], slow_loss(method, views())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    fast, slow = torch.autograd.grad(loss, list(trained.values())), torch.autograd.grad(expected, list(trained.values()))
    for name, a, b in zip(trained, fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_the_factor_is_twice_the_temperature() -> None:
    scaled, plain = build(temperature=0.3), build(temperature=0.3, two_tau=False)
    torch.testing.assert_close(value(scaled, views())[0], 0.6 * value(plain, views())[0])


def test_no_gradient_passes_through_the_keys() -> None:
    method, batch = build(), views()
    for view in batch:
        view.requires_grad_(True)
    z = [method.project(view) for view in batch]
    k = [method.target(view).detach() for view in batch]
    q = [method.predictor(z_i) for z_i in z]
    expected = 2 * 0.2 * (slow_contrast(q[0], k[1], 0.2) + slow_contrast(q[1], k[0], 0.2))
    slow = torch.autograd.grad(expected, batch)
    for a, b in zip(torch.autograd.grad(value(method, batch)[0], batch), slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)
    assert not any(p.requires_grad for p in method.target.parameters())


@pytest.mark.parametrize("ramp", [True, False])
def test_the_key_network_moves_by_a_cosine_or_at_one_pace(ramp: bool) -> None:
    method, total = build(target_ema=0.9, ramp=ramp), 6
    slow = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    for k in range(total):
        with torch.no_grad():
            for p in online:
                p.add_(0.1 * torch.randn_like(p))
        m = 1 - (1 - 0.9) * (math.cos(math.pi * k / total) + 1) / 2 if ramp else 0.9
        slow = [m * s + (1 - m) * p for s, p in zip(slow, online, strict=True)]
        method.after_step(Step(k, total, 0))
        for found, expected in zip(method.target.parameters(), slow, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_momentum_of_zero_is_the_query_network_of_the_step_before() -> None:
    method = build(target_ema=0.0, ramp=False)
    method.after_step(STEP)
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))
    assert cosine_to_one(0.0, 0.5) == 0.5  # with a ramp it would not stay zero


def test_defaults_are_the_papers_heads() -> None:
    config = MoCoV3Config()
    assert (config.temperature, config.target_ema, config.two_tau, config.predict) == (0.2, 0.99, True, True)
    method = MoCoV3(config, ENCODER, Setting())
    block = [nn.Linear, BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in method.projector] == [*block, *block, nn.Linear, BatchNorm1d]
    assert [type(layer) for layer in method.predictor] == [*block, nn.Linear, BatchNorm1d]
    widths = [layer.out_features for head in (method.projector, method.predictor) for layer in head[::3]]
    assert widths == [4096, 4096, 256, 4096, 256]
    assert all(layer.bias is None for head in (method.projector, method.predictor) for layer in head[::3])


def test_the_last_norms_have_no_scale_unless_it_is_wanted() -> None:
    plain, affine = build(), build(output_affine=True)
    for name in ("projector", "predictor"):
        last, wanted = getattr(plain, name)[-1], getattr(affine, name)[-1]
        assert not any(p.requires_grad for p in last.parameters()) and all(p.requires_grad for p in wanted.parameters())
        assert torch.equal(last.weight, torch.ones(6).double()) and torch.equal(last.bias, torch.zeros(6).double())
        assert all(p.requires_grad for p in getattr(plain, name)[1].parameters())
    z = plain.project(views()[0])
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(6).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.square().mean(dim=0), torch.ones(6).double(), atol=0.05, rtol=0)
    open_end = build(predictor=replace(PREDICTOR, final_norm=False))
    assert isinstance(open_end.predictor[-1], nn.Linear) and open_end.predictor[-1].weight.requires_grad


def test_without_a_predictor_the_queries_are_the_projections() -> None:
    method = build(predict=False)
    assert not list(method.predictor.parameters())
    assert torch.equal(method.outputs(views()[0]), method.project(views()[0]))


@pytest.mark.parametrize(
    ("encoder", "first", "last"),
    [
        (ENCODER, "layers.0.weight", "layers.10.weight"),
        (VIT, "patch_embed.proj.weight", "blocks.11.mlp.fc2.weight"),
        (replace(VIT, patch_projection="frozen"), "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight"),
        (replace(ENCODER, name="resnet10"), "conv1.weight", "layer4.0.downsample.0.weight"),
    ],
)
def test_gradients_of_the_first_and_the_last_layer_are_logged(encoder: EncoderConfig, first: str, last: str) -> None:
    method = build(encoder)
    assert method.after_backward(STEP) == {}
    value(method, views())[0].backward()
    log = method.after_backward(STEP)
    weights = dict(method.encoder.named_parameters())
    for name, key in ((first, "gradient_first"), (last, "gradient_last")):
        gradient = weights[name].grad
        assert gradient is not None
        assert log[key].item() == pytest.approx(math.sqrt(sum(float(g) ** 2 for g in gradient.flatten()))) and log[key] > 0


def test_a_frozen_patch_projection_stays_as_it_was_drawn_in_both_networks() -> None:
    method = build(replace(VIT, patch_projection="frozen"))
    assert not any(p.requires_grad for p in method.encoder.patch_embed.parameters())  # type: ignore[union-attr]
    trained = {id(p) for group in method.param_groups() for p in group["params"]}
    assert not trained & {id(p) for p in method.encoder.patch_embed.parameters()}  # type: ignore[union-attr]
    fresh = MoCoV3(MoCoV3Config(projector=PROJECTOR, predictor=PREDICTOR), replace(VIT, patch_projection="frozen"), Setting())
    before = copy.deepcopy(dict(fresh.target[0].patch_embed.named_parameters()))  # type: ignore[union-attr]
    fresh.after_step(STEP)
    for name, p in fresh.target[0].patch_embed.named_parameters():  # type: ignore[union-attr]
        torch.testing.assert_close(p, before[name], rtol=1e-6, atol=0)


# Degenerate features. --------------------------------------------------------------------------------------------------


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :8]


def bare(tau: float = 0.05) -> MoCoV3:
    """The first 8 pixels are the features."""
    method = build(projector=HeadConfig(layers=0), predict=False, temperature=tau)
    method.encoder, method.target = Pixels(), nn.Sequential(Pixels(), nn.Sequential())
    return method


def one_hot(which: list[int]) -> Tensor:
    images = torch.zeros(len(which), 3, 16, 16, dtype=torch.float64)
    for i, channel in enumerate(which):
        images[i].view(-1)[channel] = 3.0
    return images


def test_features_at_their_extremes() -> None:
    perfect = one_hot(list(range(N)))
    loss, log = value(bare(), [perfect, perfect])
    assert loss.item() == pytest.approx(0.0, abs=1e-7) and log["pretext_top1"].item() == 1.0
    assert log["mutual_information"].item() == pytest.approx(math.log(N), abs=1e-6)

    same = one_hot([2] * N)
    loss, log = value(bare(), [same, same])
    assert loss.item() == pytest.approx(4 * 0.05 * math.log(N)) and log["pretext_top1"].item() == 0.0
    assert log["mutual_information"].item() == pytest.approx(0.0, abs=1e-9)
    assert log["std"].item() == pytest.approx(0.0, abs=1e-9) and log["pair_cosine"].item() == pytest.approx(1.0)

    orthogonal = [one_hot([0, 1, 2] * 2), one_hot([3, 4, 5] * 2)]
    loss, log = value(bare(), orthogonal)
    assert loss.item() == pytest.approx(4 * 0.05 * math.log(N)) and log["pretext_top1"].item() == 0.0

    nothing = torch.zeros_like(same).requires_grad_(True)
    loss, _ = value(bare(), [nothing, nothing])
    loss.backward()
    assert loss.item() == pytest.approx(4 * 0.05 * math.log(N))
    assert nothing.grad is not None and nothing.grad.isfinite().all()


def test_logits_widen_half_precision_and_leave_autocast() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(5, 16).bfloat16(), torch.randn(5, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = batch_logits(q, k, 0.2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), batch_logits(q.double(), k.double(), 0.2), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature must be positive, not 0\.0"):
        MoCoV3Config(temperature=0.0)
    with pytest.raises(ValueError, match=r"target_ema must be in \[0, 1\], not -0.1"):
        MoCoV3Config(target_ema=-0.1)
    with pytest.raises(ValueError, match="a batch of 1 has none"):
        MoCoV3(MoCoV3Config(projector=PROJECTOR, predictor=PREDICTOR), ENCODER, Setting(batch_size=1))
    with pytest.raises(ValueError, match=r"predictor\.out is 5, but the projector's output has 6"):
        build(predictor=replace(PREDICTOR, out=5))
    with pytest.raises(ValueError, match="batch of 6 has no 4 equal parts"):
        build(replace(ENCODER, bn_splits=4))
