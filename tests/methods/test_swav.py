"""SwAV against a slow transcription of its equations; codes, queue, prototypes and crops do what their switches say."""

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
from methods.norms import BatchNorm1d
from methods.swav import SwAV, SwAVConfig, project_crops, prototype_scores, swapped_prediction
from methods.telemetry import relative_entropy
from tests.methods.small import HEALTH_OF_PAIRS

HEAD = HeadConfig(hidden=12, out=6)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
NOBODY = torch.zeros(6, dtype=torch.long)
PROTOTYPES = 5


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crops(large: int = 2, small: int = 2, n: int = 6, seed: int = 0) -> list[Tensor]:
    sides = [16] * large + [12] * small
    return [random64(n, 3, side, side, seed=100 * seed + v) for v, side in enumerate(sides)]


def build(encoder: EncoderConfig = ENCODER, setting: Setting | None = None, **config: Any) -> SwAV:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": HEAD, "prototypes": PROTOTYPES} | config
    return SwAV(SwAVConfig(**settings), encoder, setting or Setting()).double().train()


def value(method: SwAV, views: list[Tensor], epoch: int = 0) -> Tensor:
    return method.loss(views, NOBODY, NOBODY, Step(step=0, total_steps=10, epoch=epoch))[0]


def gradients(method: SwAV, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def slow_codes(z: list[Tensor], prototypes: Tensor, eps: float, iterations: int) -> list[list[Tensor]]:
    """Of unit vectors: K numbers for each."""
    q = [[torch.exp((c * z_b).sum() / eps) for z_b in z] for c in prototypes]  # K x B
    for _ in range(iterations):
        for k, row in enumerate(q):
            total = sum(row)
            q[k] = [x / (total * len(q)) for x in row]
        for b in range(len(z)):
            total = sum(row[b] for row in q)
            for row in q:
                row[b] = row[b] / (total * len(z))
    totals = [sum(row[b] for row in q) for b in range(len(z))]
    return [[row[b] / totals[b] for row in q] for b in range(len(z))]


def slow_loss(method: SwAV, views: list[Tensor], queued: Tensor | None = None) -> Tensor:
    """Equation 6 as a mean, pair by pair. queued: 2 x L x d, rows that come before the batch's."""
    config, unit = method.config, lambda v: v / v.norm()
    if config.projector.norm == "batch":  # statistics are of all crops of a size
        z = list(project_crops(method.encoder, method.projector, views))
    else:
        z = [method.projector(method.encoder(view)) for view in views]
    p = [method.predictor(z_v) for z_v in z]
    total, pairs = torch.zeros((), dtype=torch.float64), 0
    for w in (0, 1):
        rows = [unit(z_b) for z_b in z[w]]
        before = [] if queued is None else list(queued[w])
        prototypes: Tensor = method.prototypes
        if config.stop_gradient:
            rows, prototypes = [r.detach() for r in rows], prototypes.detach()
        codes = slow_codes(before + rows, prototypes, config.epsilon, config.sinkhorn_iterations)[len(before) :]
        for v in range(len(views)):
            if v == w:
                continue
            pairs += 1
            for b in range(len(rows)):
                scores = [torch.exp((unit(p[v][b]) * c).sum() / config.temperature) for c in method.prototypes]
                for k, code in enumerate(codes[b]):
                    total = total - code * torch.log(scores[k] / sum(scores)) / len(rows)
    return total / pairs


def assert_same(method: SwAV, fast: Tensor, slow: Tensor) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    a, b = gradients(method, fast), gradients(method, slow)
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=1e-7, atol=1e-9), name


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("small", [0, 3])
def test_loss_and_gradients_are_the_papers(norm: Any, small: int) -> None:
    method = build(replace(ENCODER, norm=norm), projector=replace(HEAD, norm=norm))
    views = crops(small=small)
    assert_same(method, value(method, views), slow_loss(method, views))


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0.3, "epsilon": 0.2},
        {"sinkhorn_iterations": 0},
        {"sinkhorn_iterations": 7},
        {"stop_gradient": False, "epsilon": 0.3},
        {"predict": True, "predictor": replace(HEAD, norm="none")},
    ],
)
def test_every_switch_is_its_equation(changed: dict[str, Any]) -> None:
    method = build(replace(ENCODER, norm="none"), projector=replace(HEAD, norm="none"), **changed)
    assert_same(method, value(method, crops()), slow_loss(method, crops()))
    plain = build(replace(ENCODER, norm="none"), projector=replace(HEAD, norm="none"))
    plain.load_state_dict(method.state_dict(), strict=False)
    if "stop_gradient" in changed:
        plain.config = replace(plain.config, epsilon=0.3)
        assert torch.equal(value(method, crops()), value(plain, crops()))  # only the gradient differs
        a, b = (gradients(m, value(m, crops())) for m in (method, plain))
        assert (a["prototypes"] - b["prototypes"]).norm() > 1e-3 * b["prototypes"].norm()
    else:
        assert abs(value(method, crops()) - value(plain, crops())) > 1e-6


def test_swapped_prediction_never_meets_its_own_code() -> None:
    """Two views: each is predicted from the other alone, and both directions count the same."""
    scores, codes = random64(2, 4, 3), torch.softmax(random64(2, 4, 3, seed=1), dim=2)
    cross = [-(codes[w] * torch.log_softmax(scores[1 - w] / 0.5, dim=1)).sum(dim=1).mean() for w in (0, 1)]
    torch.testing.assert_close(swapped_prediction(scores, codes, 0.5), (cross[0] + cross[1]) / 2)
    more = torch.cat([scores, random64(1, 4, 3, seed=2)])
    assert swapped_prediction(more, codes, 0.5) != swapped_prediction(scores, codes, 0.5)


def test_degenerate_values() -> None:
    eye = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    assert swapped_prediction(eye, eye, 0.01).item() == pytest.approx(0.0, abs=1e-9)  # perfect
    torch.testing.assert_close(  # every prototype as near: orthogonal to all of them, or identical ones
        swapped_prediction(0 * eye, eye, 0.1), torch.tensor(math.log(4), dtype=torch.float64)
    )
    one = swapped_prediction(eye[:, :1], eye[:, :1], 0.5)  # one sample
    assert one.item() == pytest.approx(math.log(math.exp(2) + 3) - 2)
    assert (prototype_scores(torch.zeros(2, 3), torch.eye(3)) == 0).all()  # a zero vector has no direction


def test_identical_images_are_shared_out_evenly() -> None:
    method = build(replace(ENCODER, norm="none"), projector=replace(HEAD, norm="none"))
    views = [view[:1].expand(6, -1, -1, -1) for view in crops(small=0)]
    loss, log = method.loss(views, NOBODY, NOBODY, STEP)
    assert loss.isfinite() and log["code_entropy"].item() == pytest.approx(1.0)
    assert log["std"].item() == pytest.approx(0.0, abs=1e-9)


def test_hard_codes_are_the_largest_entries() -> None:
    soft, hard = build(), build(codes="hard")
    scores = random64(2, 6, PROTOTYPES)
    q, rounded = soft._codes(scores, STEP), hard._codes(scores, STEP)
    assert torch.equal(rounded.argmax(dim=2), q.argmax(dim=2))
    assert set(rounded.flatten().tolist()) == {0.0, 1.0} and (rounded.sum(dim=2) == 1).all()


def test_only_full_size_views_get_codes() -> None:
    """A change of a small crop changes predictions, not codes."""
    method = build(replace(ENCODER, norm="none"), projector=replace(HEAD, norm="none"))
    seen = []
    inner = method._codes
    method._codes = lambda scores, step: seen.append(inner(scores, step)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    views, other = crops(), crops()
    other[2] = other[2] + 1.0
    assert value(method, views) != value(method, other)
    assert seen[0].shape == (2, 6, PROTOTYPES) and torch.equal(seen[0], seen[1])


def test_the_queue_joins_at_its_epoch_and_holds_the_last_projections() -> None:
    method = build(queue=9, queue_epoch=2, freeze_steps=0)
    assert method.queue is not None
    history: list[Tensor] = []
    for k in range(3):
        views = crops(seed=k)
        with torch.no_grad():
            z = project_crops(method.encoder, method.projector, views)[:2]
            history.append(z / z.norm(dim=2, keepdim=True))
        queued = torch.cat(history[:-1], dim=1)[:, -9:] if k == 2 else None  # 2 x 9 x d, the order does not matter
        loss = value(method, views, epoch=k)
        assert_same(method, loss, slow_loss(method, views, queued))
        method.after_step(Step(k, 10, k))
        rows = {tuple(row.tolist()) for row in method.queue.keys}
        newest = {tuple(row.tolist()) for row in torch.cat(list(history[-1]), dim=1)}
        assert newest <= rows and len(rows) == 9
    assert value(method, crops(), epoch=2) != value(method, crops(), epoch=1)
    assert method._fresh and not any(rows.requires_grad for rows in method._fresh)
    assert build().queue is None


def test_prototypes_are_unit_vectors_and_frozen_at_first() -> None:
    method = build(freeze_steps=2)
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    before = method.prototypes.detach().clone()
    for k in range(4):
        torch.testing.assert_close(
            method.prototypes.norm(dim=1), torch.ones(PROTOTYPES, dtype=torch.float64), rtol=0, atol=1e-6
        )
        step = Step(k, 10, 0)
        optimizer.zero_grad()
        method.loss(crops(), NOBODY, NOBODY, step)[0].backward()
        assert method.prototypes.grad is not None
        assert method.after_backward(step) == {}
        assert (method.prototypes.grad is None) == (k < 2)
        optimizer.step()
        method.after_step(step)
        assert torch.allclose(method.prototypes, before, rtol=0, atol=1e-6) == (k < 2)
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(PROTOTYPES, dtype=torch.float64), rtol=0, atol=1e-6)


def test_crops_of_one_size_share_their_batch_statistics() -> None:
    method = build()
    views = crops(large=2, small=3)
    norms = [m for m in method.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    heads = [m for m in method.projector.modules() if isinstance(m, BatchNorm1d)]
    rows: list[int] = []
    norms[0].register_forward_hook(lambda _, inputs, out: rows.append(len(inputs[0])))
    z = project_crops(method.encoder, method.projector, views)
    assert z.shape == (5, 6, 6) and rows == [12, 18]
    assert int(norms[0].num_batches_tracked) == 2 and int(heads[0].num_batches_tracked) == 1  # type: ignore[arg-type]
    y = [method.encoder(torch.cat(views[:2])), method.encoder(torch.cat(views[2:]))]
    expected = method.projector(torch.cat(y)).view(5, 6, 6)
    torch.testing.assert_close(z, expected, rtol=1e-9, atol=1e-12)


def test_logs_tell_collapse_and_the_use_of_prototypes() -> None:
    method = build()
    loss, log = method.loss(crops(), NOBODY, NOBODY, STEP)
    assert loss.ndim == 0 and set(log) == HEALTH_OF_PAIRS | {"code_entropy", "prototype_use"}
    assert not any(v.requires_grad for v in log.values())
    assert relative_entropy(torch.tensor([0.25] * 4)).item() == pytest.approx(1.0)
    assert relative_entropy(torch.tensor([0.0, 1.0, 0.0])).item() == 0.0
    last = method.projector[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():  # all projections on one prototype
        last.weight.zero_()
        last.bias.copy_(method.prototypes[2])
        method.config = replace(method.config, temperature=0.001)
    log = method.loss(crops(), NOBODY, NOBODY, STEP)[1]
    assert log["prototype_use"].item() == pytest.approx(0.0, abs=1e-6)
    assert log["pair_cosine"].item() == pytest.approx(1.0)


def test_defaults_are_the_papers() -> None:
    config = SwAVConfig()
    assert (config.prototypes, config.temperature, config.epsilon, config.sinkhorn_iterations) == (3000, 0.1, 0.05, 3)
    assert (config.queue, config.queue_epoch, config.freeze_steps, config.codes) == (0, 15, 313, "soft")
    method = SwAV(config, ENCODER, Setting(num_images=50000, batch_size=4096, num_views=8))
    assert [type(m) for m in method.projector] == [nn.Linear, BatchNorm1d, nn.ReLU, nn.Linear]
    assert method.projector[0].out_features == 2048 and method.prototypes.shape == (3000, 128)
    SwAV(replace(config, queue=3840), ENCODER, Setting(num_images=1281167, batch_size=256, num_views=8))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, not 0"),
        ({"epsilon": -1.0}, "epsilon must be positive, not -1"),
        ({"sinkhorn_iterations": -1}, "sinkhorn_iterations must be at least 0, not -1"),
        ({"queue": -5}, "queue must be at least 0, not -5"),
        ({"freeze_steps": -1}, "freeze_steps must be at least 0"),
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"codes": "round"}, "codes must be soft or hard, not 'round'"),
        ({"queue": 64, "queue_epoch": 0}, "queue_epoch must be at least 1, not 0"),
        ({"stop_gradient": False, "codes": "hard"}, "stop_gradient: false needs codes: soft"),
        ({"predict": True, "predictor": replace(HEAD, out=5)}, "predictor.out is 5"),
    ],
)
def test_contradictions_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changed)


@pytest.mark.parametrize(
    ("setting", "changed", "message"),
    [
        (Setting(num_views=1), {}, "between at least 2 views, not 1"),
        (Setting(batch_size=1), {}, "batch of one"),
        (Setting(batch_size=4), {}, "batch of 4 and a queue of 0 have only 4 samples"),
        (Setting(batch_size=8), {"queue": 4}, "at least one batch of 8"),
        (Setting(batch_size=8), {"queue": 8, "prototypes": 17}, "have only 16 samples"),
        (Setting(batch_size=8, num_images=20), {"queue": 33, "queue_epoch": 2}, "only 32 images are seen before epoch 2"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(setting: Setting, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(setting=setting, **changed)
