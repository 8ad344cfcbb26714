"""Every optimizer against a slow transcription of its paper's update in Python floats, over steps of changing rates."""

import math

import pytest
import torch
from torch import nn

from benchmark.train.lars import Lars
from benchmark.train.optim import build_optimizer, clip_gradients

STEPS = 6
RATES = [0.1, 0.3, 0.5, 0.4, 0.2, 0.1]


def config(**changes):
    base = {
        "name": "sgd", "learning_rate": 0.1, "scale_with_batch": False, "momentum": 0.9, "nesterov": False,
        "weight_decay": 0.05, "exclude_bias_and_norm": False,
    }  # fmt: skip
    return base | changes


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64)) for shape in ((3, 4), (2, 3), (5,))]


def gradients():
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(*p.shape, generator=generator, dtype=torch.float64) for p in parameters()] for _ in range(STEPS)]


def ours(section, rates=RATES, foreach=None):
    """The parameters after STEPS steps; two weights, then one vector. foreach: which of the library's two ways, where it has
    two; on a GPU it takes the first by itself."""
    params = parameters()
    groups = [{"params": params[:2], "decay": True}, {"params": params[2:], "decay": False}]
    optimizer = build_optimizer(groups, section, 256)
    for rate, grads in zip(rates, gradients(), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
            group["foreach"] = foreach
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.clone()
        optimizer.step()
    return [p.detach() for p in params]


def norm(values):
    return math.sqrt(sum(value * value for value in values))


def theirs(update, excluded=(), rates=RATES):
    """update(w, g, state, rate, step, adapted) -> new w, all as lists of floats, parameter by parameter."""
    found = []
    for number, p in enumerate(parameters()):
        w, state = p.detach().flatten().tolist(), {}
        for step, (rate, grads) in enumerate(zip(rates, gradients(), strict=True), start=1):
            w = update(w, grads[number].flatten().tolist(), state, rate, step, number not in excluded)
        found.append(torch.tensor(w, dtype=torch.float64).view(p.shape))
    return found


def agree(a, b, tolerance=1e-9):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_sgd(nesterov, exclude):
    """v = m v + (g + b w); w = w - r v, or with Nesterov w - r (g + b w + m v)."""

    def update(w, g, state, rate, step, adapted):
        full = [gi + (0.05 * wi if adapted else 0.0) for gi, wi in zip(g, w, strict=True)]
        v = state["v"] = [0.9 * vi + fi for vi, fi in zip(state.get("v", [0.0] * len(w)), full, strict=True)]
        moved = [fi + 0.9 * vi for fi, vi in zip(full, v, strict=True)] if nesterov else v
        return [wi - rate * mi for wi, mi in zip(w, moved, strict=True)]

    section = config(nesterov=nesterov, exclude_bias_and_norm=exclude)
    agree(ours(section), theirs(update, excluded=(2,) if exclude else ()))


def test_adamw():
    """1711.05101, algorithm 2: the decay is r b w, beside the adapted gradient."""

    def update(w, g, state, rate, step, adapted):
        m = state["m"] = [0.8 * a + 0.2 * b for a, b in zip(state.get("m", [0.0] * len(w)), g, strict=True)]
        v = state["v"] = [0.99 * a + 0.01 * b * b for a, b in zip(state.get("v", [0.0] * len(w)), g, strict=True)]
        moved = []
        for wi, mi, vi in zip(w, m, v, strict=True):
            direction = (mi / (1 - 0.8**step)) / (math.sqrt(vi / (1 - 0.99**step)) + 1e-8)
            moved.append(wi - rate * (direction + 0.05 * wi))
        return moved

    agree(ours(config(name="adamw", betas=[0.8, 0.99])), theirs(update))


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("decay", [0.05, 0.0])
@pytest.mark.parametrize("exclude", [False, True])
def test_lamb(decay, exclude, foreach):
    """1904.00962, algorithm 2 with phi the identity: w = w - r |w| / |u + b w| (u + b w), no clipping of gradients."""

    def update(w, g, state, rate, step, adapted):
        m = state["m"] = [0.9 * a + 0.1 * b for a, b in zip(state.get("m", [0.0] * len(w)), g, strict=True)]
        v = state["v"] = [0.999 * a + 0.001 * b * b for a, b in zip(state.get("v", [0.0] * len(w)), g, strict=True)]
        u = [
            (mi / (1 - 0.9**step)) / (math.sqrt(vi / (1 - 0.999**step)) + 1e-6) + (decay * wi if adapted else 0.0)
            for wi, mi, vi in zip(w, m, v, strict=True)
        ]
        ratio = norm(w) / norm(u) if adapted else 1.0
        return [wi - rate * ratio * ui for wi, ui in zip(w, u, strict=True)]

    section = config(name="lamb", weight_decay=decay, exclude_bias_and_norm=exclude)
    agree(ours(section, foreach=foreach), theirs(update, excluded=(2,) if exclude else ()))


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("variant", ["apex", "paper", "google", "facebook"])
def test_lars(variant, exclude, nesterov, clip, foreach):
    """The table in benchmark/train/lars.py, line by line; the rate changes, which tells apart where it stands."""
    trust = 0.02

    def update(w, g, state, rate, step, adapted):
        decay = 0.05 if adapted else 0.0
        full = [gi + decay * wi for gi, wi in zip(g, w, strict=True)]
        local = 1.0
        if adapted and variant in ("apex", "paper"):
            local = trust * norm(w) / (norm(g) + decay * norm(w))
        elif adapted:
            local = trust * norm(w) / norm(full)
        if adapted and clip:
            local = min(local / rate, 1.0)
        full = [local * fi for fi in full]
        inside = variant in ("paper", "google")
        if inside:
            full = [rate * fi for fi in full]
        v = state["v"] = [0.9 * vi + fi for vi, fi in zip(state.get("v", [0.0] * len(w)), full, strict=True)]
        moved = [fi + 0.9 * vi for fi, vi in zip(full, v, strict=True)] if nesterov else v
        return [wi - (1.0 if inside else rate) * mi for wi, mi in zip(w, moved, strict=True)]

    section = config(name="lars", lars=variant, trust=trust, trust_clip=clip, nesterov=nesterov, exclude_bias_and_norm=exclude)
    # timm's adds 1e-8 to the norms below the line, as apex does
    agree(ours(section, foreach=foreach), theirs(update, excluded=(2,) if exclude else ()), 1e-7 if variant == "apex" else 1e-9)


def test_the_variants_of_lars_are_different():
    ends = [torch.cat([p.flatten() for p in ours(config(name="lars", lars=name))]) for name in
            ("apex", "paper", "google", "facebook")]  # fmt: skip
    for i, a in enumerate(ends):
        for b in ends[i + 1 :]:
            assert (a - b).abs().max() > 1e-6


@pytest.mark.parametrize("variant", ["paper", "google", "facebook"])
def test_zero_weights_and_zero_gradients_move_as_plain_momentum(variant):
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([{"params": [zero, still]}], 0.5, variant, trust=0.001)
    zero.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(zero.detach(), torch.full((2, 2), -0.5)) and torch.equal(still.detach(), torch.ones(2, 2))
    zero.grad = still.grad = None
    optimizer.step()  # nothing has a gradient: nothing moves
    assert torch.equal(zero.detach(), torch.full((2, 2), -0.5))


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant must be paper, google or facebook, not 'nvidia'"):
        Lars([{"params": [nn.Parameter(torch.ones(1))]}], 0.1, "nvidia")


@pytest.mark.parametrize("name", ["apex", "google"])
def test_lars_goes_on_from_its_state(name):
    """Half of the steps, state_dict through a copy, the other half: the same weights."""
    section = config(name="lars", lars=name)

    def run(cut):
        params = parameters()
        groups = [{"params": params[:2], "decay": True}, {"params": params[2:], "decay": False}]
        optimizer = build_optimizer(groups, section, 256)
        for number, grads in enumerate(gradients()):
            if number == cut:
                state = optimizer.state_dict()
                optimizer = build_optimizer(groups, section, 256)
                optimizer.load_state_dict(state)
            for p, grad in zip(params, grads, strict=True):
                p.grad = grad.clone()
            optimizer.step()
        return [p.detach() for p in params]

    assert all(torch.equal(a, b) for a, b in zip(run(3), run(-1), strict=True))


def test_biases_may_have_a_rate_of_their_own():
    groups = [
        {"params": [nn.Parameter(torch.ones(2, 2))], "decay": True},
        {"params": [nn.Parameter(torch.ones(2))], "decay": False},
    ]
    section = config(learning_rate=0.2, bias_learning_rate=0.0048, scale_with_batch=True)
    assert [group["peak"] for group in build_optimizer(groups, section, 2048).param_groups] == pytest.approx([1.6, 0.0384])
    section = config(learning_rate=0.2, scale_with_batch=True)
    assert [group["peak"] for group in build_optimizer(groups, section, 2048).param_groups] == pytest.approx([1.6, 1.6])


def test_empty_groups_are_dropped_and_a_fixed_rate_is_kept():
    groups = [{"params": [], "decay": True}, {"params": [nn.Parameter(torch.ones(2))], "decay": False, "fixed_rate": True}]
    (group,) = build_optimizer(groups, config(), 256).param_groups
    assert group["fixed_rate"] is True and group["decayed"] is True


def clipped(norm_, by):
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    params[0].grad, params[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    found = clip_gradients(params, norm_, by)
    return float(found), params[0].grad.tolist(), params[1].grad.tolist()


def test_clipping_over_all_parameters_or_each():
    assert clipped(13.0, "all")[0] == pytest.approx(13.0)
    assert clipped(100.0, "all")[1:] == ([3.0, 4.0], [12.0])
    assert clipped(6.5, "all")[1] == pytest.approx([1.5, 2.0]) and clipped(6.5, "all")[2] == pytest.approx([6.0])
    assert clipped(6.0, "parameter")[1] == [3.0, 4.0] and clipped(6.0, "parameter")[2] == pytest.approx([6.0])


def test_clipping_agrees_with_torch():
    params, others = parameters(), parameters()
    for p, q, grad in zip(params, others, gradients()[0], strict=True):
        p.grad, q.grad = grad.clone(), grad.clone()
    total = clip_gradients(params, 0.7, "all")
    assert total == pytest.approx(float(torch.nn.utils.clip_grad_norm_(others, 0.7)))
    agree([p.grad for p in params], [q.grad for q in others])
