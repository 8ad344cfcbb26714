"""The minimal loops that our steps are timed against: the same mathematics, and so, from the same weights, the same loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmark.bench import step_minimal, steps
from methods import METHODS, load
from methods.base import Step
from methods.encoders import EncoderConfig, build_encoder

ENCODER = EncoderConfig(name="resnet18", width=0.125)
# Their negatives, clusters or the order of their puzzles are drawn, by us from a generator of our own.
DRAWN = {"cmc", "deepclusterv2", "infomin", "instdisc"}


@pytest.fixture
def plain_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight a function of its shape, so that it does not matter in which order a network was built."""

    def fill(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        with torch.no_grad():
            if tensor.ndim == 1:
                return tensor.zero_()
            waves = torch.sin(1.7 * torch.arange(1.0, tensor.numel() + 1.0) ** 1.1)
            return tensor.copy_(waves.view(tensor.shape) / math.sqrt(max(1, tensor.numel() // len(tensor))))

    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "trunc_normal_", "normal_"):
        monkeypatch.setattr(torch.nn.init, name, fill)


def test_every_trained_method_has_a_minimal_loop() -> None:
    assert set(steps.MINIMAL) == {name for name in METHODS if load(name).TRAINS} == set(steps.CONFIGS)


@pytest.mark.usefixtures("plain_weights")
@pytest.mark.parametrize("name", sorted(set(steps.MINIMAL) - DRAWN))
def test_the_minimal_loop_has_our_loss_and_gradient(name: str) -> None:
    views, index, labels = steps.images(name, 128)
    torch.manual_seed(0)
    method = steps.built(name, ENCODER, 128).train()
    torch.manual_seed(0)
    loop = steps.MINIMAL[name](*build_encoder(ENCODER, steps.shapes(name)[0][-3]))
    for module in loop.modules:
        module.train()
    ours, _ = method.loss(views, index, labels, Step(1, 1000, 1))
    theirs = loop.loss(views, index, labels)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    ours.backward()
    theirs.backward()
    encoder = next(module for module in loop.modules)
    first = next(p for p in encoder.parameters() if p.ndim == 4)
    mine = next(p for p in method.encoder.parameters() if p.ndim == 4)
    assert mine.grad is not None and first.grad is not None
    torch.testing.assert_close(mine.grad, first.grad, rtol=2e-2, atol=1e-3 * float(first.grad.abs().max()))


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_loops_that_draw_train_too(name: str) -> None:
    result = steps.one(name, steps.Effort(turns=1, warm=0, width=0.125))
    assert {line.peer for line in result.results if line.ratio} == {steps.LEAST}
    assert all(math.isfinite(line.median) for line in result.results)


def test_a_queue_holds_what_the_loops_put_in() -> None:
    loop = step_minimal.moco(*build_encoder(ENCODER))
    views, index, labels = steps.images("mocov1", 8)
    first = loop.loss(views, index, labels)
    loop.after()
    assert math.isfinite(first.item())
