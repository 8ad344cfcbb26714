"""DINO against a slow transcription of its equations; every switch does what its row says."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from methods.base import Setting, Step
from methods.dino import DINO, DINOConfig, PlainPrototypes, Prototypes, cross_entropy, teacher_temperature
from methods.encoders import EncoderConfig
from methods.norms import BatchNorm1d
from tests.methods.small import HEALTH_OF_PAIRS

SMALL: dict[str, Any] = {"layers": 2, "hidden": 12, "bottleneck": 4, "prototypes": 6}
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
NOBODY = torch.zeros(5, dtype=torch.long)


def at(step: int, epoch: int = 0) -> Step:
    return Step(step=step, total_steps=10, epoch=epoch)


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(local: int = 2, seed: int = 0) -> list[Tensor]:
    large = [random64(5, 3, 16, 16, seed=10 * seed + i) for i in range(2)]
    return large + [random64(5, 3, 12, 12, seed=10 * seed + 2 + i) for i in range(local)]


def move(method: nn.Module, seed: int = 0, by: float = 0.1) -> None:
    """What an optimizer does, roughly; the small initial values of the head grow on the way."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in method.parameters():
            if p.requires_grad:
                p.add_(by * torch.randn(p.shape, generator=generator, dtype=p.dtype))


def build(**config: Any) -> DINO:
    torch.manual_seed(0)
    method = DINO(DINOConfig(**(SMALL | config)), ENCODER, Setting(num_images=50, batch_size=5)).double().train()
    move(method)
    if method.teacher is not None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in method.teacher.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    if method.config.balance == "centre":
        method.centre.copy_(0.1 * random64(6, seed=5))
    return method


def value(method: DINO, batch: list[Tensor], step: Step | None = None) -> Tensor:
    return method.loss(batch, NOBODY, NOBODY, step or at(0))[0]


def gradients(method: DINO, loss: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad], allow_unused=True))


def total(terms: Iterable[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for term in terms:
        result = result + term
    return result


def slow_softmax(row: Tensor, tau: float) -> list[Tensor]:
    powers = [torch.exp(v / tau) for v in row]
    return [power / total(powers) for power in powers]


def slow_outputs(x: Tensor, prototypes: nn.Module) -> Tensor:
    """Unit vectors against unit directions, one product at a time."""
    if not isinstance(prototypes, Prototypes):
        return prototypes(x)
    rows = []
    for z in x:
        unit = z / total(v * v for v in z) ** 0.5
        found = []
        for k in range(len(prototypes.directions)):
            v = prototypes.directions[k]
            found.append(
                prototypes.lengths[k, 0] * total(a * b for a, b in zip(unit, v, strict=True)) / total(a * a for a in v) ** 0.5
            )
        rows.append(torch.stack(found))
    return torch.stack(rows)


def slow_sinkhorn(scores: Tensor, eps: float, iterations: int) -> Tensor:
    q = torch.exp(scores / eps)
    for _ in range(iterations):
        q = torch.stack([q[:, k] / q[:, k].sum() for k in range(q.shape[1])], dim=1)
        q = torch.stack([row / row.sum() for row in q])
    return q


def slow_loss(method: DINO, batch: list[Tensor], tau: float) -> Tensor:
    """Equation 3 as a mean over the pairs, sample by sample."""
    config = method.config
    z = [method.head(method.encoder(view)) for view in batch]
    s = [slow_outputs(method.predictor(z_i), method.prototypes) for z_i in z]
    if method.teacher is None:
        t = [slow_outputs(z_i, method.prototypes).detach() for z_i in z[:2]]
    else:
        encoder, head, prototypes = method.teacher
        t = [slow_outputs(head(encoder(view)), prototypes).detach() for view in batch[:2]]
    centre = method.centre
    pairs = []
    for i in range(2):
        codes = slow_sinkhorn(t[i], tau, config.sinkhorn_iterations) if config.balance == "sinkhorn" else None
        for v in range(len(batch)):
            if v == i:
                continue
            samples = []
            for b in range(len(t[i])):
                if config.similarity == "mse":
                    x, y = s[v][b] / s[v][b].norm(), (t[i][b] - centre) / (t[i][b] - centre).norm()
                    samples.append(total((a - c) ** 2 for a, c in zip(x, y, strict=True)))
                    continue
                p_t = list(codes[b]) if codes is not None else slow_softmax(t[i][b] - centre, tau)
                p_s = slow_softmax(s[v][b], config.student_temperature)
                samples.append(-total(a * torch.log(c) for a, c in zip(p_t, p_s, strict=True)))
            pairs.append(total(samples) / len(samples))
    return total(pairs) / len(pairs)


SWITCHES: list[dict[str, Any]] = [
    {},
    {"student_temperature": 0.3},
    {"warmup_temperature": 0.2},
    {"balance": "none", "centre_momentum": 0.9},
    {"balance": "sinkhorn", "warmup_temperature": 0.3},
    {"balance": "sinkhorn", "sinkhorn_iterations": 1, "warmup_temperature": 0.3},
    {"similarity": "mse"},
    {"similarity": "mse", "balance": "none"},
    {"teacher": "student"},
    {"teacher": "student", "predict": True},
    {"teacher": "previous_epoch"},
    {"teacher": "previous_iteration"},
    {"predict": True},
    {"layers": 1},
    {"layers": 3, "activation": "relu"},
    {"head_norm": "batch"},
    {"bottleneck": 0},
    {"norm_last_layer": False},
]


@pytest.mark.parametrize("local", [0, 2])
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_loss_and_gradients_are_the_papers(switches: dict[str, Any], local: int) -> None:
    method = build(**switches)
    tau = method.config.warmup_temperature  # of the first epoch
    loss, expected = value(method, views(local)), slow_loss(method, views(local), tau)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    for a, b in zip(gradients(method, loss), gradients(method, expected), strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_every_switch_changes_the_loss() -> None:
    """So that no row of SWITCHES agrees with its transcription by doing nothing. (Teachers of the past are at their start.)"""
    default = value(build(), views()).item()
    for switches in SWITCHES[1:]:
        if switches not in ({"teacher": "previous_epoch"}, {"teacher": "previous_iteration"}, {"norm_last_layer": False}):
            assert value(build(**switches), views()).item() != pytest.approx(default, rel=1e-6), switches


def test_the_student_sees_all_crops_and_the_teacher_the_large_ones() -> None:
    method = build()
    seen: dict[str, list[int]] = {"student": [], "teacher": []}
    method.encoder.register_forward_hook(lambda module, inputs, output: seen["student"].append(inputs[0].shape[-1]))
    assert method.teacher is not None
    method.teacher[0].register_forward_hook(lambda module, inputs, output: seen["teacher"].append(inputs[0].shape[-1]))
    value(method, views(3))
    assert seen == {"student": [16, 16, 12, 12, 12], "teacher": [16, 16]}


def test_the_centre_is_the_moving_mean_of_the_teachers_outputs() -> None:
    """Equation 4, after the loss that still used the old one."""
    method = build(centre_momentum=0.7)
    assert method.teacher is not None
    expected = method.centre.clone()
    for k in range(3):
        batch = views(seed=k)
        outputs = [method.teacher(view) for view in batch[:2]]
        before = method.centre.clone()
        value(method, batch, at(k))
        assert torch.equal(method.centre, before)
        move(method, seed=k)
        method.after_step(at(k))
        for j in range(6):
            mean = total(output[i, j] for output in outputs for i in range(5)) / 10
            expected[j] = 0.7 * expected[j] + 0.3 * mean
        torch.testing.assert_close(method.centre, expected, rtol=1e-9, atol=1e-9)
        assert not method.centre.requires_grad


@pytest.mark.parametrize("balance", ["none", "sinkhorn"])
def test_without_centring_the_centre_stays(balance: str) -> None:
    method = DINO(DINOConfig(**SMALL, balance=balance), ENCODER, Setting()).double().train()  # type: ignore[arg-type]
    value(method, views())
    method.after_step(at(0))
    assert not method.centre.any()


def test_the_teachers_temperature_is_the_released_codes_schedule() -> None:
    for warmup in (0, 1, 2, 30):
        config = DINOConfig(warmup_temperature=0.04, teacher_temperature=0.07, warmup_epochs=warmup)
        schedule = np.concatenate([np.linspace(0.04, 0.07, warmup), np.full(100 - warmup, 0.07)])
        assert [teacher_temperature(config, epoch) for epoch in range(100)] == pytest.approx(schedule.tolist(), abs=1e-12)


def test_the_temperature_of_the_epoch_is_used() -> None:
    method = build(warmup_temperature=0.1, teacher_temperature=0.5, warmup_epochs=5)
    for epoch, tau in ((0, 0.1), (2, 0.3), (4, 0.5), (9, 0.5)):
        torch.testing.assert_close(value(method, views(), at(0, epoch)), slow_loss(method, views(), tau), rtol=1e-9, atol=1e-12)


def test_the_momentum_teacher_moves_by_the_schedule() -> None:
    method = build(teacher_ema=0.9)
    assert method.teacher is not None
    student = [*method.encoder.parameters(), *method.head.parameters(), *method.prototypes.parameters()]
    slow = [p.clone() for p in method.teacher.parameters()]
    for k in range(10):
        move(method, seed=k)
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * k / 10) + 1) / 2
        slow = [momentum * s + (1 - momentum) * p for s, p in zip(slow, student, strict=True)]
        method.after_step(at(k))
        for found, expected in zip(method.teacher.parameters(), slow, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("teacher", "taken"), [("previous_iteration", [0, 0, 1, 2, 3, 4]), ("previous_epoch", [0, 0, 2, 2, 2, 5])]
)
def test_teachers_from_the_past(teacher: str, taken: list[int]) -> None:
    """Which student each step's targets come from; epochs begin with steps 0, 2 and 5."""
    method = build(teacher=teacher)
    method.prepare(views())  # the teacher starts as the student
    past: list[DINO] = []
    for k, epoch in enumerate([0, 0, 1, 1, 1, 2]):
        step, batch = at(k, epoch), views(seed=k)
        past.append(copy.deepcopy(method))
        value(method, batch, step)
        assert method.teacher is not None
        then = past[taken[k]]
        expected = [*then.encoder.parameters(), *then.head.parameters(), *then.prototypes.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(method.teacher.parameters(), expected, strict=True)), k
        method.after_backward(step)
        move(method, seed=k)
        method.after_step(step)
        if k == 3:  # within an epoch: a resumed run keeps its teacher
            resumed = build(teacher=teacher)
            resumed.load_state_dict(method.state_dict())
            method = resumed


def test_the_student_as_its_own_teacher_has_no_second_network() -> None:
    method = build(teacher="student")
    assert method.teacher is None and not any(name.startswith("teacher.") for name in method.state_dict())
    images = views()[0]
    assert torch.equal(method.eval().features(images), method.encoder(images))


def test_no_gradient_reaches_the_teacher_and_its_features_are_evaluated() -> None:
    method = build()
    value(method, views()).backward()
    assert method.teacher is not None and all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    method.eval()
    images = views()[0]
    assert torch.equal(method.features(images), method.teacher[0](images))
    assert not torch.allclose(method.features(images), method.encoder(images))
    student = build(evaluate="student").eval()
    assert torch.equal(student.features(images), student.encoder(images))


@pytest.mark.parametrize(
    ("epochs", "frozen"), [(0, [False, False, False]), (1, [True, False, False]), (2, [True, True, False])]
)
def test_the_last_layer_is_frozen_in_the_first_epochs(epochs: int, frozen: list[bool]) -> None:
    method = build(freeze_last_layer=epochs)
    for epoch, still in enumerate(frozen):
        value(method, views(), at(0, epoch)).backward()
        assert method.after_backward(at(0, epoch)) == {}
        assert all((p.grad is None) == still for p in method.prototypes.parameters() if p.requires_grad)
        assert all(p.grad is not None for p in method.head.parameters())
        method.zero_grad()


def test_prototypes_are_pytorchs_weight_norm() -> None:
    ours = Prototypes(4, 6, trained_lengths=True).double()
    theirs = weight_norm(nn.Linear(4, 6, bias=False).double())
    ours.lengths.data.copy_(random64(6, 1, seed=3).abs())
    theirs.parametrizations.weight.original0.data.copy_(ours.lengths)
    theirs.parametrizations.weight.original1.data.copy_(ours.directions)
    x = random64(5, 4)
    a, b = ours(x), theirs(torch.nn.functional.normalize(x, dim=1))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    pull = random64(5, 6, seed=2)
    for mine, other in zip(
        torch.autograd.grad(a, [ours.lengths, ours.directions], pull),
        torch.autograd.grad(b, list(theirs.parameters()), pull),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_prototypes_start_as_a_linear_layers_weights() -> None:
    """The released code's start. Their length decides how fast the directions turn."""
    torch.manual_seed(0)
    directions = Prototypes(64, 500, trained_lengths=False).directions.detach()
    assert 0.99 / 8 < directions.abs().max() <= 1 / 8
    assert directions.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.02)


def test_lengths_are_trained_only_when_said() -> None:
    fixed, free = build().prototypes, build(norm_last_layer=False).prototypes
    assert isinstance(fixed, Prototypes) and isinstance(free, Prototypes)
    assert not fixed.lengths.requires_grad and free.lengths.requires_grad
    torch.testing.assert_close(fixed.lengths, torch.ones(6, 1, dtype=torch.float64))
    outputs = build().prototypes(random64(50, 4, seed=1))
    assert outputs.abs().max() <= 1.0


@pytest.mark.parametrize("layer", [Prototypes(64, 32, trained_lengths=False), PlainPrototypes(64, 32)])
def test_prototypes_leave_half_precision(layer: nn.Module) -> None:
    """Outputs are divided by 0.04: half-precision ones would be off by a tenth."""
    x = torch.randn(8, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        loss = cross_entropy(found.bfloat16(), torch.softmax(found, dim=1), 0.1)
    assert found.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(found.double(), copy.deepcopy(layer).double()(x.double()), rtol=1e-5, atol=1e-5)


def test_defaults_are_the_papers_head() -> None:
    with torch.device("meta"):
        method = DINO(DINOConfig(), ENCODER, Setting())
    assert [type(m) for m in method.head if not isinstance(m, nn.Identity)] == [
        nn.Linear,
        nn.GELU,
        nn.Linear,
        nn.GELU,
        nn.Linear,
    ]
    assert [m.out_features for m in method.head if isinstance(m, nn.Linear)] == [2048, 2048, 256]
    assert method.prototypes.directions.shape == (65536, 256)
    small = DINO(DINOConfig(**SMALL | {"hidden": 400}), ENCODER, Setting())
    first = small.head[0]
    assert isinstance(first, nn.Linear) and not first.bias.any()
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.05) and first.weight.abs().max().item() < 0.2
    norms = [m for m in build(head_norm="batch").head if isinstance(m, BatchNorm1d)]
    assert len(norms) == 1


def test_the_divergence_tells_both_collapses() -> None:
    """Equation 5 and figure 7: no divergence, with the teacher's entropy at 0 or at log K."""
    method = build(balance="none")
    log = method.loss(views(), NOBODY, NOBODY, at(0))[1]
    assert set(log) == HEALTH_OF_PAIRS | {"teacher_entropy", "divergence", "prototype_use"}
    assert not any(v.requires_grad for v in log.values())
    torch.testing.assert_close(log["teacher_entropy"] + log["divergence"], value(method, views()).detach())
    assert log["divergence"] > 0 and 0 < log["teacher_entropy"] < math.log(6)
    assert set(build(similarity="mse").loss(views(), NOBODY, NOBODY, at(0))[1]) == HEALTH_OF_PAIRS
    assert method.teacher is not None
    for part in (method.head, method.teacher[1]):
        last = part[-1]  # type: ignore[index]
        assert isinstance(last, nn.Linear)
        last.weight.data.zero_()
        last.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    layers = [m for m in (method.prototypes, method.teacher[2]) if isinstance(m, Prototypes)]
    assert len(layers) == 2
    for layer in layers:
        layer.directions.data.zero_()
        layer.directions.data[:, 1] = 1.0  # all outputs 0: all alike
    log = method.loss(views(), NOBODY, NOBODY, at(0))[1]
    assert log["teacher_entropy"].item() == pytest.approx(math.log(6)) and log["divergence"].item() == pytest.approx(
        0, abs=1e-9
    )
    for layer in layers:
        layer.directions.data[2] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # one output for all
        layer.lengths.data.fill_(10.0)
    log = method.loss(views(), NOBODY, NOBODY, at(0))[1]
    assert log["teacher_entropy"].item() == pytest.approx(0, abs=1e-9) and log["divergence"].item() == pytest.approx(
        0, abs=1e-9
    )
    assert log["std"].item() == pytest.approx(0, abs=1e-9)


def test_known_cross_entropies() -> None:
    q = torch.eye(4, dtype=torch.float64)
    assert cross_entropy(100 * q, q, 1.0).item() == pytest.approx(0.0, abs=1e-9)
    assert cross_entropy(torch.zeros(4, 4, dtype=torch.float64), q, 0.1).item() == pytest.approx(math.log(4))
    assert cross_entropy(100 * q[:1], q[:1].roll(1, dims=1), 1.0).item() == pytest.approx(100.0)


def test_zero_features_are_finite() -> None:
    layer = Prototypes(4, 6, trained_lengths=False)
    x = torch.zeros(3, 4, requires_grad=True)
    loss = cross_entropy(layer(x), torch.full((3, 6), 1 / 6), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(6)) and x.grad is not None and x.grad.isfinite().all()


def test_crops_pass_one_by_one() -> None:
    """A batch norm must see one view at a time."""
    method = build(head_norm="batch")
    value(method, views(2))
    norms = [m for m in method.head if isinstance(m, BatchNorm1d)]
    assert [int(norm.num_batches_tracked) for norm in norms] == [4]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"head_norm": "layer"}, "head_norm must be none or batch, not 'layer'"),
        ({"activation": "tanh"}, "activation must be gelu or relu, not 'tanh'"),
        ({"balance": "off"}, "balance must be centre, sinkhorn or none, not 'off'"),
        ({"similarity": "cosine"}, "similarity must be cross_entropy or mse, not 'cosine'"),
        ({"teacher": "ema"}, "teacher must be momentum, student, previous_iteration or previous_epoch, not 'ema'"),
        ({"evaluate": "both"}, "evaluate must be teacher or student, not 'both'"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"bottleneck": -1}, "bottleneck must be at least 0, not -1"),
        ({"freeze_last_layer": -1}, "freeze_last_layer must be at least 0, not -1"),
        ({"sinkhorn_iterations": 0}, "sinkhorn_iterations must be at least 1, not 0"),
        ({"student_temperature": 0.0}, "student_temperature must be positive, not 0.0"),
        ({"warmup_temperature": -0.1}, "warmup_temperature must be positive, not -0.1"),
        ({"teacher_ema": 1.1}, r"teacher_ema must be in \[0, 1\], not 1.1"),
        ({"centre_momentum": -0.1}, r"centre_momentum must be in \[0, 1\], not -0.1"),
        ({"similarity": "mse", "balance": "sinkhorn"}, "say balance: centre or none"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**config)


def test_settings_that_would_fail_later_are_refused() -> None:
    def made(setting: Setting, **config: Any) -> DINO:
        return DINO(DINOConfig(**(SMALL | config)), ENCODER, setting)

    with pytest.raises(ValueError, match="at least 2, not 1"):
        made(Setting(num_views=1))
    with pytest.raises(ValueError, match="no batch statistics"):
        made(Setting(batch_size=1), head_norm="batch")
    made(Setting(batch_size=1))
    with pytest.raises(ValueError, match="6 prototypes cannot share out 5 images evenly"):
        made(Setting(num_images=5), balance="sinkhorn")
    made(Setting(num_images=5))
