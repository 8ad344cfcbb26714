"""The batch-norm blog's protocol (Fetterman & Albrecht, 2020): logistic regression on half of the held-out embeddings.

Its script fits scikit-learn's LogisticRegression(solver="liblinear", max_iter=100) on the first half of the embeddings
of the test split and scores the second half. liblinear solves, one class against the rest, the bias penalized too,

    minimize over w:   1/2 |w|^2 + C sum over samples of log(1 + exp(-y w.[x, 1]))        y = +1 or -1, C = 1

on raw features. The problem is convex: L-BFGS gives the same answer, and scikit-learn is not needed.
The score sees labels of the test split, so it is comparable with the blog only, never with a linear protocol.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.linear import minimize


def half_split_logistic(x: Tensor, y: Tensor, num_classes: int) -> dict[str, float]:
    """{"top1", "fit_top1"}: percent right on the second half of (x: N x D, y: N) and on the first, which is fitted."""
    half = len(x) // 2
    if half == 0:
        raise ValueError(f"half of {len(x)} embeddings is nothing to fit")
    extended = torch.cat([x.double(), x.new_ones(len(x), 1, dtype=torch.float64)], dim=1)  # N x (D + 1)
    weight = one_against_rest(extended[:half], y[:half], num_classes)
    scores = extended @ weight.T
    return {"top1": top1(scores[half:], y[half:]), "fit_top1": top1(scores[:half], y[:half])}


def one_against_rest(x: Tensor, y: Tensor, num_classes: int) -> Tensor:  # N x D, N -> C x D
    """The C minimizers, solved together: the problems share no variable."""
    sign = 2.0 * F.one_hot(y.to(x.device), num_classes).to(x) - 1.0  # N x C
    weight = x.new_zeros(num_classes, x.shape[1])

    def objective() -> Tensor:  # per sample, so that the tolerance means the same at every size
        return (0.5 * weight.square().sum() - F.logsigmoid(sign * (x @ weight.T)).sum()) / len(x)

    minimize(objective, [weight], tolerance=1e-6)
    return weight
