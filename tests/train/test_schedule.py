"""Learning-rate schedules against values worked out by hand."""

import math

import pytest
import torch

from benchmark.train.optim import build_optimizer
from benchmark.train.schedule import learning_rate, peak_learning_rate


def test_warm_up_is_linear_and_the_cosine_ends_at_its_floor():
    rates = [learning_rate(step, 110, 10, 2.0, "cosine", 0.0) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0)
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(1.0 * (1 + math.cos(math.pi * 0.99)))
    assert learning_rate(110, 110, 10, 2.0, "cosine", 0.1) == pytest.approx(0.2)


def test_without_warm_up_and_constant():
    assert learning_rate(0, 100, 0, 3.0, "cosine", 0.0) == pytest.approx(3.0)
    assert {learning_rate(step, 100, 0, 3.0, "constant", 0.0) for step in range(100)} == {3.0}


def test_the_rate_scales_with_the_batch_only_where_the_paper_says_so():
    assert peak_learning_rate({"learning_rate": 0.3, "scale_with_batch": True}, 4096) == pytest.approx(4.8)
    assert peak_learning_rate({"learning_rate": 0.8, "scale_with_batch": False}, 256) == pytest.approx(0.8)


def optimizer_config(**changes):
    base = {"learning_rate": 0.1, "scale_with_batch": False, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01}
    return base | {"exclude_bias_and_norm": True, "name": "sgd"} | changes


def test_biases_and_norms_escape_weight_decay_when_asked():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2, 2))], "decay": True},
              {"params": [torch.nn.Parameter(torch.ones(2))], "decay": False}]  # fmt: skip
    decays = [group["weight_decay"] for group in build_optimizer(groups, optimizer_config(), 256).param_groups]
    assert decays == [0.01, 0.0]
    everywhere = build_optimizer(groups, optimizer_config(exclude_bias_and_norm=False), 256)
    assert [group["weight_decay"] for group in everywhere.param_groups] == [0.01, 0.01]


def test_lars_is_the_papers():
    """v <- 0.9 v + lr eta |w| / (|g| + wd |w|) (g + wd w); biases move by plain momentum SGD without weight decay."""
    torch.manual_seed(0)
    weight, bias = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))
    groups = [{"params": [weight], "decay": True}, {"params": [bias], "decay": False}]
    optimizer = build_optimizer(groups, optimizer_config(name="lars"), 256)
    w, b = weight.detach().double().clone(), bias.detach().double().clone()
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    for _ in range(5):
        gw, gb = torch.randn(4, 3), torch.randn(3)
        weight.grad, bias.grad = gw.clone(), gb.clone()
        optimizer.step()
        full = gw.double() + 0.01 * w
        trust = 0.001 * w.norm() / (gw.double().norm() + 0.01 * w.norm())
        vw = 0.9 * vw + trust * full
        vb = 0.9 * vb + gb.double()
        w, b = w - 0.1 * vw, b - 0.1 * vb
    torch.testing.assert_close(weight.detach().double(), w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bias.detach().double(), b, rtol=1e-5, atol=1e-6)
