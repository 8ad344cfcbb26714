"""Self-training by distillation against equations 2 and 3 of SimCLR v2, written out."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.distillation import Distillation, DistillationConfig, distillation_loss
from methods.encoders import EncoderConfig, build_encoder
from methods.gather import own_rows, summed, world_size
from methods.norms import BatchNorm2d
from methods.simclrv2 import SimCLRv2, SimCLRv2Config
from tests.methods.small import HEALTH
from tests.methods.test_losses import assert_same, random64

ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
N, CLASSES = 6, 4
NOBODY = torch.zeros(N, dtype=torch.long)
SOME = torch.tensor([2, -1, 0, -1, -1, 3])  # three of six have a label


def slow_loss(student: Tensor, teacher: Tensor, labels: Tensor, tau: float, alpha: float) -> Tensor:
    distill, labelled = [], []
    for s, t, label in zip(student, teacher, labels, strict=True):
        student_p = torch.exp(s / tau) / torch.exp(s / tau).sum()
        teacher_p = torch.exp(t / tau) / torch.exp(t / tau).sum()
        terms = [-teacher_p[y] * torch.log(student_p[y]) for y in range(len(s))]
        distill.append(torch.stack(terms).sum())
        if label >= 0:
            labelled.append(-torch.log(torch.exp(s[label]) / torch.exp(s).sum()))
    with_labels = torch.stack(labelled).mean() if labelled else student.new_zeros(())
    return (1 - alpha) * with_labels + alpha * torch.stack(distill).mean()


@pytest.mark.parametrize("tau", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("labels", [SOME, torch.full((N,), -1), torch.arange(N) % CLASSES])
def test_loss_is_equation_3(tau: float, alpha: float, labels: Tensor) -> None:
    teacher = random64(N, CLASSES, seed=1)
    assert_same(
        lambda s: distillation_loss(s, teacher, labels, tau, alpha) + 0 * s.sum(),
        lambda s: slow_loss(s, teacher, labels, tau, alpha) + 0 * s.sum(),
        random64(N, CLASSES),
    )


def test_loss_at_its_extremes() -> None:
    logits = 2.0 * random64(N, CLASSES)
    p = torch.softmax(logits, dim=1)
    entropy = -(p * torch.log(p)).sum(dim=1).mean()
    logits.requires_grad_(True)
    loss = distillation_loss(logits, logits.detach(), NOBODY, 1.0, 1.0)  # a perfect student pays the teacher's entropy
    assert loss.item() == pytest.approx(entropy.item())
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12
    same = torch.zeros(N, CLASSES, dtype=torch.float64)
    assert distillation_loss(same, logits.detach(), NOBODY, 1.0, 1.0).item() == pytest.approx(torch.tensor(4.0).log().item())
    sure = 1e4 * torch.eye(CLASSES, dtype=torch.float64)
    assert distillation_loss(sure, sure, NOBODY[:4], 0.1, 1.0).item() == 0.0


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    encoder, dim = build_encoder(ENCODER)
    return nn.Sequential(encoder, nn.Linear(dim, CLASSES))


def build(teacher: nn.Module | None = None, **config: Any) -> Distillation:
    torch.manual_seed(0)
    method = Distillation(DistillationConfig(**config), ENCODER, Setting(num_classes=CLASSES))
    method.set_teacher(network(1) if teacher is None else teacher)
    return method.double().train()


@pytest.mark.parametrize("config", [{}, {"temperature": 0.1}, {"alpha": 0.4}, {"alpha": 0.0}])
def test_student_learns_the_teachers_labels(config: dict[str, float]) -> None:
    method, images = build(**config), random64(N, 3, 16, 16)
    loss, log = method.loss([images], NOBODY, SOME, STEP)
    teacher = network(1).double().eval()
    expected = slow_loss(
        method.classifier(method.encoder(images)),
        teacher(images).detach(),
        SOME,
        config.get("temperature", 1.0),
        config.get("alpha", 1.0),
    )
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    student = [p for p in method.parameters() if p.requires_grad]
    found, wanted = torch.autograd.grad(loss, student), torch.autograd.grad(expected, student)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert set(log) == HEALTH | {"agreement"} and 0.0 <= log["agreement"].item() <= 1.0


def test_teacher_is_frozen_in_eval_mode_and_in_the_state_dict() -> None:
    method = build()
    assert method.teacher is not None and method.training and not method.teacher.training
    assert not any(p.requires_grad for p in method.teacher.parameters())
    trained = {id(p) for group in method.param_groups() for p in group["params"]}
    assert trained == {id(p) for part in (method.encoder, method.classifier) for p in part.parameters()}
    before = {key: value.clone() for key, value in method.teacher.state_dict().items()}
    method.loss([random64(N, 3, 16, 16)], NOBODY, SOME, STEP)[0].backward()
    norms = [m for m in method.encoder.modules() if isinstance(m, BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked) == 1 for m in norms)
    assert all(torch.equal(value, before[key]) for key, value in method.teacher.state_dict().items())

    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    again = build(teacher=network(5))
    again.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(method).train()
    images = random64(N, 3, 16, 16, seed=3)
    expected = method.loss([images], NOBODY, SOME, STEP)[0]
    for other in (again, copied):
        assert torch.equal(other.loss([images], NOBODY, SOME, STEP)[0], expected)


def test_a_student_catches_up_with_its_teacher() -> None:
    """Self-distillation: the same architecture, and a smaller one, agree with the teacher after a few steps."""
    for small in (ENCODER, EncoderConfig(name="convnet", stem="stride2", width=0.0625)):
        torch.manual_seed(0)
        method = Distillation(DistillationConfig(temperature=0.5), small, Setting(num_classes=CLASSES))
        teacher = network(1)
        with torch.no_grad():
            teacher[1].weight.mul_(30.0)  # type: ignore[operator, union-attr]
        method.set_teacher(teacher)
        method.train()
        images = random64(24, 3, 16, 16).float()
        optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.01)
        losses = []
        for _ in range(40):
            loss, log = method.loss([images], torch.arange(24), torch.full((24,), -1), STEP)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            target = torch.softmax(teacher(images) / 0.5, dim=1)
        floor = -(target * target.clamp(min=1e-30).log()).sum(dim=1).mean().item()
        assert losses[-1] - floor < 0.5 * (losses[0] - floor)
        assert log["agreement"].item() > 0.75


def test_the_teacher_may_be_a_fine_tuned_simclr_v2() -> None:
    pretrained = SimCLRv2(SimCLRv2Config(queue=8), ENCODER, Setting(batch_size=N))
    teacher = nn.Sequential(pretrained.finetune_network(), nn.Linear(2048, CLASSES))
    method = build(teacher=teacher)
    assert method.loss([random64(N, 3, 16, 16)], NOBODY, NOBODY, STEP)[0].isfinite()


def test_features_are_the_encoders() -> None:
    method, images = build().eval(), random64(N, 3, 16, 16)
    assert torch.equal(method.features(images), method.encoder(images)) and method.dim == 16


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature must be positive, not 0\.0"):
        DistillationConfig(temperature=0.0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], not 1.1"):
        DistillationConfig(alpha=1.1)
    with pytest.raises(ValueError, match="num_classes is 0"):
        Distillation(DistillationConfig(), ENCODER, Setting())
    bare = Distillation(DistillationConfig(), ENCODER, Setting(num_classes=CLASSES))
    with pytest.raises(ValueError, match=r"no teacher; call set_teacher\(module from images to logits\)"):
        bare.loss([torch.zeros(N, 3, 16, 16)], NOBODY, NOBODY, STEP)
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 7))
    with pytest.raises(ValueError, match="the teacher tells 7 classes apart, but num_classes is 4"):
        build(teacher=other).loss([random64(N, 3, 16, 16)], NOBODY, NOBODY, STEP)


def _gradient_and_loss(method: Distillation) -> list[Tensor]:
    """Of the whole batch of ten images, on however many ranks: each takes its rows, means over the ranks are returned."""
    labels = torch.tensor([2, -1, 0, -1, -1, 3, -1, -1, 1, -1])
    loss = method.loss([own_rows(random64(10, 3, 16, 16))], own_rows(torch.arange(10)), own_rows(labels), STEP)[0]
    found = [loss, *torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad])]
    return [summed(x.detach()) / world_size() for x in found]


def _rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save(_gradient_and_loss(build(temperature=0.5, alpha=0.4)), f"{folder}/{number}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one(tmp_path: Path) -> None:
    """Labels are spread unevenly over the ranks: the mean over those of each rank would be another loss."""
    alone = _gradient_and_loss(build(temperature=0.5, alpha=0.4))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_rank, args=(number, str(tmp_path))) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for number in range(2):
        for found, expected in zip(torch.load(tmp_path / f"{number}.pt", weights_only=True), alone, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
