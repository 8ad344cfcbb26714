"""A linear classifier on frozen, cached features, solved to the optimum: no learning rate, epochs or seed to choose.

    minimize over W, b:   mean over samples of cross-entropy(W x + b, label)  +  l2 / 2 |W|^2        x standardized

The problem is convex, so L-BFGS reaches the one answer that the papers' long SGD schedules approximate. l2 is chosen on
held-out training images; the classifier is then refitted on train and held-out together. The test set is not an
argument. It is not the papers' protocol: they augment the training images of the probe, which cached features cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.accuracy import top1

# The weakest penalties cost the most iterations; a choice at the grid's edge is reported, so the grid can stay short.
L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_TOLERANCE = 1e-5  # largest entry of the gradient at which a fit counts as converged
_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier on raw features; the standardization is folded into it.

    weight: C x D, bias: C. l2: the chosen one, `heldout_top1` its accuracy (percent) before the refit, `grid` all pairs
    (l2, held-out accuracy) tried. at_edge: the choice is the grid's smallest or largest, a wider grid might be better.
    converged: every fit reached the tolerance.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    heldout_top1: float
    grid: tuple[tuple[float, float], ...]
    at_edge: bool
    converged: bool

    def scores(self, x: Tensor) -> Tensor:  # N x D -> N x C
        """Class scores (logits) of raw features."""
        return x.to(self.weight) @ self.weight.T + self.bias

    def predict(self, x: Tensor) -> Tensor:  # N x D -> N
        """The most likely class of each row."""
        return self.scores(x).argmax(dim=1)


def fit_linear(
    train_x: Tensor,  # N x D
    train_y: Tensor,  # N, in [0, num_classes)
    heldout_x: Tensor,  # H x D
    heldout_y: Tensor,  # H
    num_classes: int,
    l2_grid: Sequence[float] = L2_GRID,
    dtype: torch.dtype = torch.float64,
    heed: Callable[[], None] = lambda: None,
) -> LinearProbe:
    """Choose l2 on the held-out part, then refit on everything. Among equals the strongest l2 wins.

    heed: called between iterations; may raise, to give up.
    Runs where `train_x` is. float64 costs twice float32 and always converges; use float32 for a GPU's sake.
    Raises InputError for an empty or non-positive grid, ValueError for features that are not finite.
    """
    if not l2_grid or min(l2_grid) <= 0.0:
        raise InputError(f"linear: l2_grid is {list(l2_grid)}, but it must hold positive numbers")
    if not (train_x.isfinite().all() and heldout_x.isfinite().all()):
        raise ValueError("linear: some features are not finite")
    device = train_x.device
    heldout_x, heldout_y, train_y = heldout_x.to(device), heldout_y.to(device), train_y.to(device)
    start: tuple[Tensor, Tensor] | None = None
    tried: dict[float, float] = {}
    all_converged = True
    standardized, mean, scale = _standardize(train_x.to(dtype))
    for l2 in sorted(set(l2_grid), reverse=True):  # strong to weak: each fit starts from its easier neighbour
        weight, bias, converged = _fit(standardized, train_y, num_classes, l2, start, heed)
        start = (weight, bias)
        all_converged &= converged
        raw_weight, raw_bias = _fold(weight, bias, mean, scale)
        tried[l2] = top1(heldout_x.to(dtype) @ raw_weight.T + raw_bias, heldout_y)
    best = max(tried, key=lambda l2: (tried[l2], l2))
    everything, mean, scale = _standardize(torch.cat([train_x, heldout_x]).to(dtype))
    weight, bias, converged = _fit(everything, torch.cat([train_y, heldout_y]), num_classes, best, None, heed)
    raw_weight, raw_bias = _fold(weight, bias, mean, scale)
    return LinearProbe(
        weight=raw_weight,
        bias=raw_bias,
        l2=best,
        heldout_top1=tried[best],
        grid=tuple(sorted(tried.items())),
        at_edge=len(tried) > 1 and best in (min(tried), max(tried)),
        converged=all_converged and converged,
    )


def _standardize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and deviation 1 in every column, the mean and the deviation. Constant columns are only centred."""
    deviation, mean = torch.std_mean(x, dim=0, correction=0)
    # Rounding leaves a constant column a deviation of about eps |mean|: dividing by that would blow up noise.
    constant = deviation <= 1e-6 * mean.abs()
    scale = torch.where(constant | (deviation == 0), torch.ones_like(deviation), deviation)
    return (x - mean) / scale, mean, scale


def _fold(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same classifier on raw features."""
    raw = weight / scale
    return raw, bias - raw @ mean


def _fit(
    x: Tensor,  # N x D
    y: Tensor,
    num_classes: int,
    l2: float,
    start: tuple[Tensor, Tensor] | None,
    heed: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor, bool]:
    """The minimizing W (C x D) and b (C), and whether the gradient there is small. Bias is not penalized."""
    weight = x.new_zeros(num_classes, x.shape[1]) if start is None else start[0].clone()
    bias = x.new_zeros(num_classes) if start is None else start[1].clone()

    def objective() -> Tensor:
        heed()
        return F.cross_entropy(x @ weight.T + bias, y) + 0.5 * l2 * weight.square().sum()

    converged = minimize(objective, [weight, bias], _TOLERANCE)
    return weight, bias, converged


def minimize(objective: Callable[[], Tensor], parameters: list[Tensor], tolerance: float) -> bool:
    """L-BFGS in place on a smooth convex function until no gradient entry exceeds `tolerance`; whether it got there."""
    for p in parameters:
        p.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
        closure()
    largest = max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None
    return largest <= tolerance
