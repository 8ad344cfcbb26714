"""The linear probe reaches the optimum, chooses l2 honestly, and survives what collapse hands it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.blog_logistic import half_split_logistic, one_against_rest
from benchmark.evaluate.linear import _fit, _standardize, fit_linear


def problem(n: int, d: int = 8, classes: int = 3, seed: int = 0, signal: float = 0.8) -> tuple[Tensor, Tensor]:
    """Gaussian classes, columns of very different scale and offset."""
    fixed, free = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=fixed, dtype=torch.float64)
    y = torch.randint(0, classes, (n,), generator=free)
    x = signal * centres[y] + torch.randn(n, d, generator=free, dtype=torch.float64)
    return x * torch.logspace(-2, 3, d, dtype=torch.float64) + 5.0, y


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_the_fit_is_the_minimum(l2: float) -> None:
    """The gradient, written out by hand, vanishes there, and every step away costs more."""
    x, y = problem(120)
    x = _standardize(x)[0]
    weight, bias, converged = _fit(x, y, 3, l2, None)
    assert converged
    probability = torch.softmax(x @ weight.T + bias, dim=1)
    error = (probability - torch.eye(3, dtype=torch.float64)[y]) / len(x)  # N x C
    assert (error.T @ x + l2 * weight).abs().max() < 2e-5
    assert error.sum(dim=0).abs().max() < 2e-5

    def cost(w: Tensor, b: Tensor) -> float:
        logits = x @ w.T + b
        picked = torch.log_softmax(logits, dim=1)[torch.arange(len(x)), y]
        return float(-picked.mean() + 0.5 * l2 * (w * w).sum())

    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        dw = 0.05 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        db = 0.05 * torch.randn(bias.shape, generator=generator, dtype=torch.float64)
        assert cost(weight + dw, bias + db) > cost(weight, bias)


def test_the_fit_is_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, y = problem(150)
    x, l2 = _standardize(x)[0], 1e-2
    weight, bias, _ = _fit(x, y, 3, l2, None)
    theirs = sklearn.LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=5000).fit(x.numpy(), y.numpy())
    ours = torch.softmax(x @ weight.T + bias, dim=1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.predict_proba(x.numpy())), rtol=1e-3, atol=1e-3)


def test_the_probe_folds_standardization_and_refits_on_everything() -> None:
    (x, y), (hx, hy), (tx, ty) = problem(200), problem(80, seed=1), problem(300, seed=2)
    probe = fit_linear(x, y, hx, hy, 3)
    assert probe.converged
    standardized, mean, scale = _standardize(torch.cat([x, hx]))
    weight, bias, _ = _fit(standardized, torch.cat([y, hy]), 3, probe.l2, None)
    torch.testing.assert_close(probe.scores(tx), (tx - mean) / scale @ weight.T + bias, rtol=1e-6, atol=1e-6)
    assert torch.equal(probe.predict(tx), probe.scores(tx).argmax(dim=1))
    assert top1(probe.scores(tx), ty) > 60.0
    assert dict(probe.grid)[probe.l2] == probe.heldout_top1 == max(a for _, a in probe.grid)


def test_l2_is_chosen_on_the_held_out_part() -> None:
    """Few samples, wrong labels, many columns: a weak penalty memorizes, and only the held-out part can tell."""
    x, y = problem(60, d=60, signal=0.3)
    hx, hy = problem(400, d=60, seed=1, signal=0.3)
    noisy = torch.where(torch.arange(60) % 4 == 0, (y + 1) % 3, y)
    probe = fit_linear(x, noisy, hx, hy, 3, l2_grid=(1e-6, 0.3))
    assert probe.l2 == 0.3 and probe.at_edge
    memorized = fit_linear(x, noisy, x, noisy, 3, l2_grid=(1e-6, 0.3))
    assert memorized.l2 == 1e-6 and memorized.heldout_top1 == 100.0


def test_among_equals_the_strongest_penalty_wins() -> None:
    x = torch.eye(3, dtype=torch.float64).repeat(10, 1)
    y = torch.arange(3).repeat(10)
    probe = fit_linear(x, y, x, y, 3, l2_grid=(1e-3, 1e-1, 1e-2))
    assert probe.heldout_top1 == 100.0 and probe.l2 == 1e-1
    assert [l2 for l2, _ in probe.grid] == [1e-3, 1e-2, 1e-1]
    assert not fit_linear(x, y, x, y, 3, l2_grid=(1e-2,)).at_edge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_collapsed_features_score_the_most_frequent_class(dtype: torch.dtype) -> None:
    y = torch.tensor([0] * 10 + [1] * 25 + [2] * 15)
    x = (torch.full((50, 4), 0.1) * torch.tensor([1.0, 100.0, -3.0, 0.0])).to(dtype)
    probe = fit_linear(x, y, x, y, 3)
    assert top1(probe.scores(x), y) == 50.0
    assert probe.weight.abs().max() < 1e-3


def test_a_class_without_training_samples_is_allowed() -> None:
    x, y = problem(60)
    probe = fit_linear(x, y, x, y, 5)
    assert probe.weight.shape == (5, 8) and int(probe.predict(x).max()) <= 2


def test_float32_gives_the_same_answer() -> None:
    (x, y), (hx, hy), (tx, ty) = problem(200), problem(80, seed=1), problem(300, seed=2)
    wide, narrow = fit_linear(x, y, hx, hy, 3), fit_linear(x, y, hx, hy, 3, dtype=torch.float32)
    assert narrow.weight.dtype == torch.float32 and narrow.l2 == wide.l2
    assert top1(narrow.scores(tx), ty) == pytest.approx(top1(wide.scores(tx), ty), abs=0.7)


def test_what_cannot_be_fitted() -> None:
    x, y = problem(20)
    for grid in ((), (0.0, 1.0)):
        with pytest.raises(InputError, match="l2_grid"):
            fit_linear(x, y, x, y, 3, l2_grid=grid)
    with pytest.raises(ValueError, match="not finite"):
        fit_linear(x * float("inf"), y, x, y, 3)


def test_the_blogs_logistic_regression_is_liblinears() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = problem(200, d=5)
    x = (x - 5.0) / torch.logspace(-2, 3, 5, dtype=torch.float64)
    extended = torch.cat([x, torch.ones(200, 1, dtype=torch.float64)], dim=1)
    ours = one_against_rest(extended, y, 3)
    for c in range(3):
        theirs = linear_model.LogisticRegression(solver="liblinear", max_iter=1000, tol=1e-10)
        theirs.fit(x.numpy(), (y == c).numpy())
        expected = torch.cat([torch.from_numpy(theirs.coef_[0]), torch.from_numpy(theirs.intercept_)])
        torch.testing.assert_close(ours[c], expected, rtol=1e-3, atol=1e-4)


def test_the_blogs_score_is_of_the_second_half() -> None:
    x, y = problem(100, d=4)
    x = (x - 5.0) / torch.logspace(-2, 3, 4, dtype=torch.float64)
    wrong = y.clone()
    wrong[50:] = (wrong[50:] + 1) % 3
    right = half_split_logistic(x, y, 3)
    assert right["fit_top1"] == half_split_logistic(x, wrong, 3)["fit_top1"]
    assert half_split_logistic(x, wrong, 3)["top1"] <= 100.0 - right["top1"]
    with pytest.raises(ValueError, match="nothing to fit"):
        half_split_logistic(x[:1], y[:1], 3)


def test_it_gives_up_when_asked_to():
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    asked = []

    def heed():
        asked.append(1)
        if len(asked) == 4:
            raise KeyError("a stop")

    with pytest.raises(KeyError, match="a stop"):
        fit_linear(x, y, x, y, 3, heed=heed)
    assert len(asked) == 4
