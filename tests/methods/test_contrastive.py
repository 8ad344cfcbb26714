"""The contrastive row: its loss, its queue, its target."""

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
from methods.contrastive import Contrastive, ContrastiveConfig
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig

HEAD = HeadConfig(hidden=12, out=6, norm="none")
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
NOBODY = torch.zeros(4, dtype=torch.long)


def views(n: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, 16, 16, generator=generator) for _ in range(2)]


def build(encoder: EncoderConfig = ENCODER, **config: Any) -> Contrastive:
    torch.manual_seed(0)
    settings = {"projector": HEAD, "predictor": HEAD, "queue": 12} | config
    return Contrastive(ContrastiveConfig(**settings), encoder, Setting(num_classes=10)).train()


def slow_loss(method: Contrastive, batch: list[Tensor], queue: Tensor, tau: float) -> Tensor:
    total = torch.zeros(())
    for mine, other in ((0, 1), (1, 0)):
        q = F.normalize(method.predictor(method.projector(method.encoder(batch[mine]))), dim=1)
        k = F.normalize(method.target(batch[other]), dim=1).detach()
        for i in range(len(q)):
            logits = torch.stack([q[i] @ k[i], *(q[i] @ key for key in queue)]) / tau
            total = total - torch.log_softmax(logits, dim=0)[0] / len(q)
    return total


def test_loss_and_gradients_are_the_obvious_ones() -> None:
    method, queue = build(), build().queue.keys.clone()
    loss = method.loss(views(), NOBODY, NOBODY, STEP)[0]
    expected = slow_loss(method, views(), queue, 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    trained = [p for p in method.parameters() if p.requires_grad]
    fast, slow = torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Perfect(nn.Module):
    """Reads the image's first pixels as the feature: both views of an image agree, different images are orthogonal."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :16]


def test_perfect_features_cost_nearly_nothing_step_after_step() -> None:
    """Were the keys queued before the logits, every positive would be its own negative: log 2 a direction."""
    method = build(projector=HeadConfig(layers=0), predict=False, queue=8, temperature=0.05)
    method.encoder = Perfect()
    method.target = nn.Sequential(Perfect(), nn.Sequential())
    method.queue.keys = F.one_hot(torch.arange(8, 16), 16).float()
    for step in range(4):
        images = torch.zeros(4, 3, 16, 16)
        for i in range(4):  # each batch of new images, orthogonal to the two batches in the queue
            images[i].view(-1)[(4 * step + i) % 16] = 1.0
        loss = method.loss([images, images], NOBODY, NOBODY, STEP)[0]
        assert loss.item() < 1e-3 < math.log(2.0), step
        method.queue.enqueue(method._fresh.pop())


def test_keys_enter_the_queue_after_the_step_only() -> None:
    method = build()
    before = method.queue.keys.clone()
    with torch.no_grad():
        keys = F.normalize(copy.deepcopy(method).target(views()[1]), dim=1)  # of the second view
    method.loss(views(), NOBODY, NOBODY, STEP)
    assert torch.equal(method.queue.keys, before)
    method.after_step(STEP)
    torch.testing.assert_close(method.queue.keys[:4], keys)
    assert torch.equal(method.queue.keys[4:], before[4:])
    method.after_step(STEP)  # nothing left to queue
    assert int(method.queue.cursor) == 4


def test_target_moves_at_the_scheduled_pace() -> None:
    method = build(target_ema=0.9)
    slow = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    with torch.no_grad():
        for p in online:
            p.add_(1.0)
    step = Step(step=5, total_steps=10, epoch=1)
    method.after_step(step)
    tau = 1 - 0.1 * (math.cos(math.pi * 0.5) + 1) / 2
    for found, old, new in zip(method.target.parameters(), slow, online, strict=True):
        torch.testing.assert_close(found, tau * old + (1 - tau) * new)
        assert not found.requires_grad


def test_a_row_without_any_normalization_runs() -> None:
    method = build(replace(ENCODER, norm="none"))
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d | nn.GroupNorm) for m in method.modules())
    loss = method.loss(views(), NOBODY, NOBODY, STEP)[0]
    loss.backward()
    assert loss.isfinite() and method.encoder.layers[0].weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_defaults_are_the_blogs() -> None:
    config = ContrastiveConfig()
    assert (config.queue, config.temperature, config.target_ema) == (65536, 0.2, 0.996)
    for head in (config.projector, config.predictor):
        assert (head.layers, head.hidden, head.out, head.norm) == (2, 512, 128, "none")


def test_wrong_settings_are_refused() -> None:
    for settings, message in (
        ({"temperature": 0.0}, "temperature"),
        ({"target_ema": -0.1}, "target_ema"),
        ({"queue": 0}, "at least one key"),
        ({"predictor": replace(HEAD, out=5)}, "predictor.out is 5"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
    config = ContrastiveConfig(projector=HEAD, predictor=HEAD, queue=12)
    Contrastive(config, ENCODER, Setting(batch_size=12))
    with pytest.raises(ValueError, match="queue is 12, it must hold at least a batch of 13"):
        Contrastive(config, ENCODER, Setting(batch_size=13))
