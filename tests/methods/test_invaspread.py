"""InvaSpread against slow transcriptions of the paper's equation 6 and of the released form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.invaspread import InvaSpread, InvaSpreadConfig, code_form, log_rest, paper_form
from methods.norms import BatchNorm2d
from tests.methods.small import HEALTH_OF_PAIRS

ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
NOBODY = torch.zeros(5, dtype=torch.long)
FORMS = {"paper": paper_form, "code": code_form}


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> list[Tensor]:
    return [row / torch.sqrt((row * row).sum()) for row in x]


def kept(similarities: dict[int, float], negatives: str) -> list[int]:
    """The indices in the second sum: all, or the more or the less similar half of them, rounded up."""
    ranked = sorted(similarities, key=lambda j: similarities[j], reverse=negatives != "easy")
    return ranked if negatives == "all" else ranked[: math.ceil(len(ranked) / 2)]


def slow_paper(f_: Tensor, other_: Tensor, tau: float, negatives: str = "all") -> Tensor:
    """Equation 6 over B, image by image."""
    f, other, total = unit(f_), unit(other_), f_.new_zeros(())
    for i in range(len(f)):
        partition = sum(torch.exp(f_k @ other[i] / tau) for f_k in f)
        total = total - torch.log(torch.exp(f[i] @ other[i] / tau) / partition)
        for j in kept({j: float((f[i] @ f[j]).detach()) for j in range(len(f)) if j != i}, negatives):
            p = torch.exp(f[i] @ f[j] / tau) / sum(torch.exp(f_k @ f[j] / tau) for f_k in f)
            total = total - torch.log(1 - p)
    return total / len(f)


def slow_code(f_: Tensor, other_: Tensor, tau: float, negatives: str = "all") -> Tensor:
    """The released form over 2B anchors, candidate by candidate; candidates carry no gradient."""
    x, total = unit(torch.cat([f_, other_])), f_.new_zeros(())
    for a in range(len(x)):
        partner = (a + len(f_)) % len(x)
        e = {k: torch.exp(x[a] @ x[k].detach() / tau) for k in range(len(x)) if k != a}
        partition = sum(e.values())
        total = total - torch.log(e[partner] / partition)
        for k in kept({k: float(v.detach()) for k, v in e.items() if k != partner}, negatives):
            total = total - torch.log(1 - e[k] / partition)
    return total / len(x)


SLOW = {"paper": slow_paper, "code": slow_code}


def assert_same(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    for x in inputs:
        x.requires_grad_(True)
    a, b = fast(*inputs), slow(*inputs)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for p, q in zip(torch.autograd.grad(a, inputs), torch.autograd.grad(b, inputs), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("negatives", ["all", "hard", "easy"])
def test_loss_and_gradients_are_the_obvious_ones(form: str, tau: float, negatives: str) -> None:
    f, other = random64(6, 7), 2.0 * random64(6, 7, seed=1)
    assert_same(lambda a, b: FORMS[form](a, b, tau, negatives), lambda a, b: SLOW[form](a, b, tau, negatives), f, other)


@pytest.mark.parametrize("form", FORMS)
def test_two_images_are_enough(form: str) -> None:
    assert_same(lambda a, b: FORMS[form](a, b, 0.1), lambda a, b: SLOW[form](a, b, 0.1), random64(2, 3), random64(2, 3, seed=1))


def test_log_rest_is_the_obvious_one_and_finite_where_a_probability_is_one() -> None:
    logits = 3.0 * random64(5, 6)
    weights = random64(5, 6, seed=1)
    assert_same(
        lambda x: (weights * log_rest(x)).sum(),
        lambda x: (weights * torch.log(1 - torch.softmax(x, dim=1))).sum(),
        logits,
    )
    sure = torch.tensor([[0.0, 80.0, -20.0]], requires_grad=True)  # float32: the probability rounds to 1
    rest = log_rest(sure)
    assert rest[0].tolist() == pytest.approx([-math.exp(-80), -80.0, -math.exp(-100)], rel=1e-6)
    rest.sum().backward()
    assert sure.grad is not None and sure.grad[0].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_perfect_features_cost_nearly_nothing(form: str) -> None:
    eye = torch.eye(6, dtype=torch.float64)
    assert 0.0 <= FORMS[form](eye, eye, 0.05).item() < 1e-6


def test_identical_features_have_the_loss_of_chance() -> None:
    same = torch.ones(5, 4, dtype=torch.float64)
    assert paper_form(same, same, 0.1).item() == pytest.approx(math.log(5) - 4 * math.log(4 / 5))
    assert code_form(same, same, 0.1).item() == pytest.approx(math.log(9) - 8 * math.log(8 / 9))


def test_orthogonal_views_have_a_loss_known_by_hand() -> None:
    """Views with nothing in common: the positive is one of B, and an image is confused with none but itself."""
    eye, e = torch.eye(6, dtype=torch.float64), math.exp(1 / 0.5)
    expected = math.log(3) - 2 * math.log(1 - 1 / (e + 2))
    assert paper_form(eye[:3], eye[3:], 0.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_and_zero_features_stay_finite_in_single_precision(form: str) -> None:
    f = torch.tensor([[1.0, 0.0], [1.0, 1e-4], [-1.0, 0.0]], requires_grad=True)
    loss = FORMS[form](f, -f.detach(), 0.005)  # a negative's probability is 1, the positive's exp(-400)
    loss.backward()
    assert loss.isfinite() and loss > 100 and f.grad is not None and f.grad.isfinite().all()
    zero = torch.zeros(3, 2, requires_grad=True)
    FORMS[form](zero, zero, 0.1).backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_half_precision_is_widened() -> None:
    f, other = random64(8, 16).bfloat16(), random64(8, 16, seed=1).bfloat16()
    for form, function in FORMS.items():
        with torch.autocast("cpu", torch.bfloat16):
            found = function(f, other, 0.1)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(SLOW[form](f.double(), other.double(), 0.1).item(), rel=1e-5)


def test_only_the_code_form_stops_the_gradient_of_the_candidates() -> None:
    f, other = random64(4, 5).requires_grad_(True), random64(4, 5, seed=1)
    stopped = torch.autograd.grad(code_form(f, other, 0.5), f)[0]
    h, direction = 1e-6, random64(4, 5, seed=2)

    def slope(form: Callable[..., Tensor]) -> float:
        with torch.no_grad():
            return float((form(f + h * direction, other, 0.5) - form(f - h * direction, other, 0.5)) / (2 * h))

    assert abs(float((stopped * direction).sum()) - slope(code_form)) > 1e-3 * abs(slope(code_form))
    whole = torch.autograd.grad(paper_form(f, other, 0.5), f)[0]
    assert float((whole * direction).sum()) == pytest.approx(slope(paper_form), rel=1e-6)


def views(n: int = 5) -> list[Tensor]:
    return [random64(n, 3, 16, 16, seed=seed) for seed in (0, 1)]


def build(setting: Setting | None = None, **config: Any) -> InvaSpread:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": HeadConfig(layers=1, out=6)} | config
    return InvaSpread(InvaSpreadConfig(**settings), ENCODER, setting or Setting(batch_size=5)).double().train()


@pytest.mark.parametrize("form", FORMS)
def test_the_methods_loss_is_that_of_its_projections(form: str) -> None:
    method = build(form=form, temperature=0.3, negatives="hard")
    loss, log = method.loss(views(), NOBODY, NOBODY, STEP)
    z = [method.project(view) for view in views()]
    expected = SLOW[form](z[0], z[1], 0.3, "hard")
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    trained = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert set(log) == HEALTH_OF_PAIRS and not any(v.requires_grad for v in log.values())
    assert log["positive_cosine"].item() == pytest.approx(F.cosine_similarity(z[0], z[1]).mean().item())


def test_same_positives_do_not_ask_for_invariance() -> None:
    """The second view is without effect on the loss; with equal views the switch changes nothing."""
    method = build(positives="same")
    z = method.project(views()[0])
    torch.testing.assert_close(method.loss(views(), NOBODY, NOBODY, STEP)[0], slow_paper(z, z, 0.1), rtol=1e-9, atol=1e-9)
    equal = [views()[0]] * 2
    assert torch.equal(method.loss(equal, NOBODY, NOBODY, STEP)[0], build().loss(equal, NOBODY, NOBODY, STEP)[0])


def test_views_are_forwarded_one_by_one() -> None:
    method = build()
    method.loss(views(), NOBODY, NOBODY, STEP)
    norms = [m for m in method.modules() if isinstance(m, BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked) == 2 for m in norms)


def test_evaluate_chooses_what_features_returns() -> None:
    h, z = build().eval(), build(evaluate="z").eval()
    images = views()[0]
    assert torch.equal(h.features(images), h.encoder(images)) and h.dim == 16
    torch.testing.assert_close(z.features(images), F.normalize(h.project(images), dim=1))
    assert z.dim == 6 and isinstance(z.projector[0], nn.Linear)


def test_defaults_are_the_released_scripts() -> None:
    config = InvaSpreadConfig()
    assert (config.temperature, config.form, config.negatives, config.positives) == (0.1, "paper", "all", "augmented")
    assert (config.projector.layers, config.projector.out) == (1, 128)


def test_wrong_settings_are_refused() -> None:
    for settings, message in (
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"form": "papers"}, "form must be paper or code, not 'papers'"),
        ({"positives": "none"}, "positives must be augmented or same, not 'none'"),
        ({"negatives": "half"}, "negatives must be all, hard or easy, not 'half'"),
        ({"evaluate": "f"}, "evaluate must be h or z, not 'f'"),
        ({"setting": Setting(batch_size=1)}, "batch_size must be at least 2, not 1"),
        ({"setting": Setting(num_views=1)}, "two views of an image, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
