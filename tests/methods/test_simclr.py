"""SimCLR and SimCLR v2 against slow transcriptions of their equations; every switch does what its row says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.memory import KeyQueue
from methods.norms import BatchNorm1d
from methods.simclr import SimCLR, SimCLRConfig, contrast_top1, margin_triplet, nt_logistic
from methods.simclrv2 import SimCLRv2, SimCLRv2Config
from tests.methods.small import HEALTH_OF_PAIRS
from tests.methods.test_losses import random64, slow_nt_xent

HEAD = HeadConfig(hidden=12, out=6, final_norm=True)
DEEP = replace(HEAD, layers=3)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
N = 6
NOBODY = torch.zeros(N, dtype=torch.long)
SETTING = Setting(batch_size=N, num_views=2)


def views(*sides: int, seed: int = 0) -> list[Tensor]:
    return [random64(N, 3, side, side, seed=seed + i) for i, side in enumerate(sides or (16, 16))]


def simclr(setting: Setting = SETTING, **config: Any) -> SimCLR:
    torch.manual_seed(0)
    config.setdefault("projector", HEAD)
    return SimCLR(SimCLRConfig(**config), ENCODER, setting).double().train()


def simclrv2(setting: Setting = SETTING, **config: Any) -> SimCLRv2:
    torch.manual_seed(0)
    config.setdefault("projector", DEEP)
    config.setdefault("queue", 10)
    method = SimCLRv2(SimCLRv2Config(**config), ENCODER, setting).double().train()
    if method.target is not None:  # away from the online network, or the two would be the same
        with torch.no_grad():
            for p in method.target.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method


def gradients(method: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad]))


def assert_loss_is(method: SimCLR | SimCLRv2, batch: list[Tensor], expected: Tensor) -> None:
    loss = method.loss(batch, NOBODY, NOBODY, STEP)[0]
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for a, b in zip(gradients(method, loss), gradients(method, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def projected(method: SimCLR | SimCLRv2, batch: list[Tensor]) -> Tensor:
    return torch.stack([method.projector(method.encoder(view)) for view in batch])


@pytest.mark.parametrize("sides", [(16, 16), (16, 16, 8, 12)])
def test_loss_and_gradients_are_the_papers(sides: tuple[int, ...]) -> None:
    """With two views, and with small crops of several sizes behind them."""
    method = simclr()
    assert_loss_is(method, views(*sides), slow_nt_xent(projected(method, views(*sides)), 0.1))


@pytest.mark.parametrize(
    ("config", "slow"),
    [
        ({"temperature": 0.5}, {"tau": 0.5}),
        ({"normalize": False, "temperature": 10.0}, {"tau": 10.0, "normalize": False}),
        ({"negatives": "other"}, {"tau": 0.1, "both": False}),
    ],
)
def test_switches_of_nt_xent(config: dict[str, Any], slow: dict[str, Any]) -> None:
    method = simclr(**config)
    assert_loss_is(method, views(), slow_nt_xent(projected(method, views()), **slow))


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize("predict", [False, True])
def test_predictor_and_stop_gradient_are_those_of_simsiams_comparison(predict: bool, stop_gradient: bool) -> None:
    method = simclr(predict=predict, predictor=HeadConfig(hidden=7, out=6), stop_gradient=stop_gradient)
    z = projected(method, views())
    q = z if method.predictor is None else torch.stack([method.predictor(z_v) for z_v in z])
    assert_loss_is(method, views(), slow_nt_xent(q, 0.1, keys=z.detach() if stop_gradient else z))
    image = views()[0]
    assert predict == any(key.startswith("predictor") for key in method.state_dict())
    method.eval()
    assert torch.equal(method.outputs(image), method.project(image)) != predict
    triplets = simclr(predict=predict, predictor=HeadConfig(hidden=7, out=6), stop_gradient=stop_gradient, loss="margin")
    z = projected(triplets, views())
    q = z if triplets.predictor is None else torch.stack([triplets.predictor(z_v) for z_v in z])
    expected = margin_of(q, z.detach() if stop_gradient else z)
    assert_loss_is(triplets, views(), expected)


def margin_of(q: Tensor, z: Tensor) -> Tensor:
    """max(s- - s+ + 0.4, 0), the mean over all triplets of an anchor, its image and another in the other view."""
    cosine = torch.cosine_similarity
    triplets = [(v, n, m) for v in range(2) for n in range(N) for m in range(N) if m != n]
    terms = [
        torch.clamp(cosine(q[v, n], z[1 - v, m], dim=0) - cosine(q[v, n], z[1 - v, n], dim=0) + 0.4, min=0)
        for v, n, m in triplets
    ]
    return torch.stack(terms).mean()


def slow_triplets(z: Tensor, loss: str, tau: float, margin: float, semi_hard: bool, normalize: bool = True) -> Tensor:
    """Table 2's two losses, triplet by triplet, with the negatives of the positive's view; semi-hard as in section 5.1."""
    if normalize:
        z = torch.stack([torch.stack([row / torch.sqrt((row * row).sum()) for row in view]) for view in z])
    terms = []
    for v in range(len(z)):
        for i in range(len(z)):
            if i == v:
                continue
            for n in range(z.shape[1]):
                positive = (z[v, n] * z[i, n]).sum()
                negatives = [(z[v, n] * z[i, m]).sum() for m in range(z.shape[1]) if m != n]
                if semi_hard:
                    reach = margin if loss == "margin" else math.inf
                    farther = [s for s in negatives if s < positive and s > positive - reach]
                    negatives = [max(farther, key=lambda s: s.item())] if farther else []
                term = z.new_zeros(())
                for s in negatives:
                    if loss == "margin":
                        term = term + torch.clamp(s - positive + margin, min=0) / len(negatives)
                    else:
                        term = term - torch.log(1 / (1 + torch.exp(s / tau))) / len(negatives)
                if loss == "nt_logistic":
                    term = term - torch.log(1 / (1 + torch.exp(-positive / tau)))
                terms.append(term)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("loss", ["nt_logistic", "margin"])
@pytest.mark.parametrize("semi_hard", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_losses_of_table_4_are_the_papers(loss: Any, semi_hard: bool, normalize: bool) -> None:
    settings: dict[str, Any] = {"loss": loss, "semi_hard": semi_hard, "normalize": normalize, "margin": 0.4}
    method = simclr(temperature=0.5, **settings)
    for batch in (views(16, 16, 8), views()):
        expected = slow_triplets(projected(method, batch), tau=0.5, **settings)
        assert_loss_is(method, batch, expected)
    assert expected.item() != pytest.approx(slow_nt_xent(projected(method, views()), 0.5).item())


def test_semi_hard_picks_the_nearest_negative_that_is_farther_than_the_positive() -> None:
    scores = torch.tensor([[0.5, 0.7, 0.4, 0.1], [0.9, 0.8, 0.95, 0.99], [0.0, 0.1, 0.9, 0.3], [0.2, 0.2, 0.2, 0.2]]).double()
    # Row 0: 0.4, not the harder 0.7. Row 1: none is farther. Row 2: 0.3, out of a margin of 0.4. Row 3: none is farther.
    assert margin_triplet(scores, 0.4, True).item() == pytest.approx((0.4 - 0.5 + 0.4) / 4)
    assert margin_triplet(scores, 0.7, True).item() == pytest.approx((0.4 - 0.5 + 0.7 + 0.3 - 0.9 + 0.7) / 4)
    positive = sum(math.log1p(math.exp(-s)) for s in (0.5, 0.8, 0.9, 0.2))
    negative = math.log1p(math.exp(0.4)) + math.log1p(math.exp(0.3))
    assert nt_logistic(scores, 1.0, True).item() == pytest.approx((positive + negative) / 4)


def test_triplet_losses_at_their_extremes() -> None:
    same, eye = torch.ones(5, 5).double(), torch.eye(5).double()
    assert margin_triplet(same, 0.4, False).item() == pytest.approx(0.4)  # identical features
    assert margin_triplet(same, 0.4, True).item() == 0.0  # none is farther than the positive
    assert margin_triplet(eye, 0.4, False).item() == 0.0  # perfect ones: no negative within the margin
    assert nt_logistic(same, 0.1, False).item() == pytest.approx(math.log1p(math.exp(-10)) + math.log1p(math.exp(10)))
    assert nt_logistic(eye, 0.1, False).item() == pytest.approx(math.log1p(math.exp(-10)) + math.log(2))
    assert margin_triplet(eye[:1, :1], 0.4, False).item() == 0.0  # one sample has no negative


def test_heads_are_none_linear_and_nonlinear_and_features_are_h_or_z() -> None:
    default = SimCLR(SimCLRConfig(), ENCODER, SETTING)
    assert [type(m) for m in default.projector] == [nn.Linear, BatchNorm1d, nn.ReLU, nn.Linear, BatchNorm1d]
    assert default.projector[0].out_features == 2048 and default.projector[3].out_features == 128
    image = views()[0]
    for layers, width in ((0, 16), (1, 6), (2, 6)):
        head = replace(HEAD, layers=layers)
        h, z = simclr(projector=head).eval(), simclr(projector=head, evaluate="z").eval()
        assert h.dim == 16 and z.dim == width
        assert torch.equal(h.features(image), h.encoder(image)) and torch.equal(z.features(image), z.project(image))
        assert z.features(image).shape == (N, width)
        assert sum(isinstance(m, nn.Linear) for m in h.projector) == layers


def test_small_crops_are_anchors_positives_and_negatives_as_in_swavs_equation_7() -> None:
    """2006.09882, appendix A.8: N = B x M crops in one list; all other crops of an image are positives, each in turn."""
    method, batch = simclr(), views(16, 16, 8, 12)
    crops = [row / row.norm() for view in projected(method, batch) for row in view]
    image = [number % N for number in range(len(crops))]
    total = crops[0].new_zeros(())
    for i, z in enumerate(crops):
        negatives = torch.stack([torch.exp(z @ v / 0.1) for v, of in zip(crops, image, strict=True) if of != image[i]]).sum()
        for j, v in enumerate(crops):
            if j != i and image[j] == image[i]:
                total = total + torch.log(torch.exp(z @ v / 0.1) / (torch.exp(z @ v / 0.1) + negatives))
    assert_loss_is(method, batch, -total / len(crops) / (4 - 1))


def test_contrast_top1_counts_images_that_are_found() -> None:
    eye = torch.eye(4).double()
    assert contrast_top1(torch.stack([eye, eye])).item() == 1.0
    assert contrast_top1(torch.stack([eye, eye.roll(1, 0)])).item() == 0.0
    assert contrast_top1(torch.stack([eye, eye[[0, 1, 3, 2]]])).item() == 0.5
    long = torch.stack([eye, torch.diag(torch.tensor([1.0, 1.0, 1.0, 9.0])).double() + eye[3]])
    assert contrast_top1(long, normalize=True).item() == 1.0 and contrast_top1(10 * long, normalize=False).item() == 1.0
    swamped = torch.stack([eye + 0.2, eye + 9 * eye[:1].T])  # the longest row wins without normalization only
    assert contrast_top1(swamped).item() == 1.0 and contrast_top1(swamped, normalize=False).item() == 0.25


@pytest.mark.parametrize("build", [simclr, simclrv2])
def test_log_has_the_collapse_telemetry(build: Any) -> None:
    method = build()
    loss, log = method.loss(views(), NOBODY, NOBODY, STEP)
    assert loss.requires_grad and loss.ndim == 0
    assert set(log) - {"queue_age"} == HEALTH_OF_PAIRS | {"contrast_top1"} and not any(v.requires_grad for v in log.values())


def test_v2_loss_and_gradients_are_the_papers() -> None:
    method = simclrv2()
    assert method.memory is not None
    assert_loss_is(method, views(), slow_nt_xent(projected(method, views()), 0.1, queue=method.memory.keys.clone()))
    plain = simclrv2(memory=False, temperature=0.3)
    assert plain.target is None and not any(key.startswith(("target", "memory")) for key in plain.state_dict())
    assert_loss_is(plain, views(), slow_nt_xent(projected(plain, views()), 0.3))
    plain.after_step(STEP)


def test_v2_memory_moves_and_keeps_the_second_views_keys() -> None:
    method = simclrv2(queue=10, memory_ema=0.9)
    assert method.target is not None and method.memory is not None
    before = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    keys = method.memory.keys.clone()
    stored = []
    for k in range(3):
        batch = views(seed=10 * k)
        with torch.no_grad():
            out = method.target[1](method.target[0](batch[1]))
        stored += [row / row.norm() for row in out]
        method.loss(batch, NOBODY, NOBODY, STEP)
        assert torch.equal(method.memory.keys, keys)  # not before the step: a key must not be its own negative
        method.after_step(STEP)
        keys = method.memory.keys.clone()
        before = [0.9 * slow + 0.1 * fast for slow, fast in zip(before, online, strict=True)]
        for found, expected in zip(method.target.parameters(), before, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    # 18 keys have entered a queue of 10, at places 0 .. 7 those of the second round.
    expected = torch.stack(stored[10:18] + stored[8:10])
    torch.testing.assert_close(keys, expected, rtol=1e-12, atol=1e-12)
    assert not any(p.requires_grad for p in method.target.parameters())


def test_v2_prepare_aligns_the_memory_network() -> None:
    method = simclrv2()
    assert method.target is not None
    method.prepare(views())
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))


@pytest.mark.parametrize("final_norm", [False, True])
def test_v2_head_features_are_those_of_each_layer(final_norm: bool) -> None:
    head = replace(DEEP, final_norm=final_norm)
    method, image = simclrv2(projector=head).eval(), views()[0]
    h = method.encoder(image)
    assert torch.equal(method.head_features(image, 0), h)
    p = method.projector
    first = torch.relu(p[1](p[0](h)))
    second = torch.relu(p[4](p[3](first)))
    torch.testing.assert_close(method.head_features(image, 1), first)
    torch.testing.assert_close(method.head_features(image, 2), second)
    torch.testing.assert_close(method.head_features(image, 3), method.project(image))
    torch.testing.assert_close(method.finetune_network()(image), first)  # the paper's: from the head's first layer
    assert torch.equal(method.features(image), h)
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=r"layers 0 \(the encoder\) to 3"):
            method.head_features(image, layer)


@pytest.mark.parametrize(("layer", "width"), [(0, 16), (1, 12), (2, 12), (3, 6)])
def test_v2_evaluates_and_fine_tunes_from_any_layer(layer: int, width: int) -> None:
    method, image = simclrv2(evaluate_from=layer, finetune_from=layer).eval(), views()[0]
    assert method.dim == width and method.features(image).shape == (N, width)
    assert torch.equal(method.features(image), method.head_features(image, layer))
    tuned = method.finetune_network()
    assert torch.equal(tuned(image), method.features(image))
    assert {id(p) for p in method.encoder.parameters()} < {id(p) for p in tuned.parameters()} or layer == 0


def test_v2_defaults_are_the_papers() -> None:
    method = SimCLRv2(SimCLRv2Config(queue=8), ENCODER, SETTING)
    norm = [nn.Linear, BatchNorm1d]
    assert [type(m) for m in method.projector] == [*norm, nn.ReLU, *norm, nn.ReLU, *norm]
    config = SimCLRv2Config()
    assert (config.queue, config.memory_ema, config.temperature, config.finetune_from) == (65536, 0.999, 0.1, 1)
    assert isinstance(method.memory, KeyQueue)
    torch.testing.assert_close(method.memory.keys.norm(dim=1), torch.ones(8))


def test_bad_input_is_refused() -> None:
    for config, sentence in [
        ({"evaluate": "g"}, "evaluate must be h or z, not 'g'"),
        ({"loss": "triplet"}, "nt_xent, nt_logistic or margin, not 'triplet'"),
        ({"negatives": "one"}, "both or other, not 'one'"),
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"margin": -0.1}, "at least 0, not -0.1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            SimCLRConfig(**config)
    for config, sentence in [
        ({"temperature": -1.0}, "temperature must be positive, not -1.0"),
        ({"memory_ema": 1.5}, r"memory_ema must be in \[0, 1\], not 1.5"),
        ({"finetune_from": 4}, r"finetune_from is 4, but projector has layers 0 \(the encoder\) to 3"),
        ({"evaluate_from": -1}, "evaluate_from is -1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            SimCLRv2Config(**config)
    for build in (simclr, simclrv2):
        with pytest.raises(ValueError, match="a batch of one image has no negatives"):
            build(Setting(batch_size=1))
    with pytest.raises(ValueError, match=r"predictor\.out is 5, but the projector's output has 6"):
        simclr(predict=True, predictor=HeadConfig(out=5))
    with pytest.raises(ValueError, match="compares two views"):
        simclr(Setting(num_views=1))
    with pytest.raises(ValueError, match="queue is 5, it must hold at least a batch of 6"):
        simclrv2(queue=5)
    assert simclrv2(queue=5, memory=False).memory is None
