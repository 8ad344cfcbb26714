"""Learning-rate schedules against values worked out by hand."""

import math

import pytest
import torch

from benchmark.train.optim import build_optimizer
from benchmark.train.schedule import Schedule, cosine_between, learning_rate, peak_learning_rate


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


def test_the_square_root_rule_is_simclrs():
    """2002.05709, appendix B.1: 0.075 sqrt(B), which at 4096 is the linear rule's 0.3 B / 256."""
    root = {"learning_rate": 0.075, "scale_with_batch": True, "scale_rule": "sqrt"}
    assert peak_learning_rate(root, 4096) == pytest.approx(4.8)
    assert peak_learning_rate(root, 1024) == pytest.approx(2.4)
    assert peak_learning_rate(root | {"scale_with_batch": False}, 4096) == 0.075


def test_steps_fall_at_their_milestones():
    """MoCo v1: 0.03, a tenth of it from epoch 120 on, a hundredth from 160 on."""
    section = {"kind": "step", "warmup_epochs": 0.0, "final_fraction": 0.0, "milestones": [120, 160]}
    schedule = Schedule(section, 200, 10, 1e-4)
    found = {epoch: schedule.rate(epoch * 10 + step, 0.03) for epoch in (0, 119, 120, 159, 160, 199) for step in (0, 9)}
    assert found == pytest.approx({0: 0.03, 119: 0.03, 120: 0.003, 159: 0.003, 160: 0.0003, 199: 0.0003})
    assert Schedule(section | {"gamma": 0.5}, 200, 10, 0.0).rate(1999, 1.0) == pytest.approx(0.25)


def test_a_warm_up_may_start_above_zero():
    """SwAV's code: numpy.linspace(0.3, 4.8, 10 epochs of steps), then the cosine to 0.0048."""
    section = {"kind": "cosine", "warmup_epochs": 10.0, "final_fraction": 0.001, "warmup_start": 0.3 / 4.8}
    schedule = Schedule(section, 100, 4, 1e-6)
    expected = [0.3 + (4.8 - 0.3) * step / 39 for step in range(40)]
    assert [schedule.rate(step, 4.8) for step in range(40)] == pytest.approx(expected)
    for step in range(40, 400):
        cosine = 0.0048 + 0.5 * (4.8 - 0.0048) * (1 + math.cos(math.pi * (step - 40) / 360))
        assert schedule.rate(step, 4.8) == pytest.approx(cosine)


def test_once_an_epoch_is_mocos_cosine():
    """MoCo v2's and SimSiam's code: lr 0.5 (1 + cos(pi epoch / epochs)), set at the beginning of each epoch."""
    section = {"kind": "cosine", "warmup_epochs": 0.0, "final_fraction": 0.0, "every": "epoch"}
    schedule = Schedule(section, 20, 7, 1e-4)
    for step in range(140):
        assert schedule.rate(step, 0.05) == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi * (step // 7) / 20)))
    warm = Schedule(section | {"warmup_epochs": 2.0}, 20, 7, 1e-4)
    assert len({warm.rate(step, 1.0) for step in range(14)}) == 14  # a warm-up goes by steps
    assert len({warm.rate(step, 1.0) for step in range(14, 140)}) == 18


def test_weight_decay_may_follow_a_cosine():
    """DINO: from 0.04 to 0.4 by half a cosine over the whole training, warm-up included."""
    section = {
        "kind": "cosine",
        "warmup_epochs": 3.0,
        "final_fraction": 0.0,
        "weight_decay": "cosine",
        "final_weight_decay": 0.4,
    }
    schedule = Schedule(section, 10, 5, 0.04)
    for step in range(50):
        expected = 0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * step / 50))
        assert schedule.decay(step) == pytest.approx(expected) == pytest.approx(cosine_between(step, 50, 0.04, 0.4))
    constant = Schedule(section | {"weight_decay": "constant"}, 10, 5, 0.04)
    assert {constant.decay(step) for step in range(50)} == {0.04}


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
