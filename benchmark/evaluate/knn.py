"""Weighted k-nearest-neighbour classification, as Wu et al. (InstDisc, 1805.01978, section 3.4) define it.

    s_i = cos(x, x_i)        score of class c = sum over the k largest s_i with label c of exp(s_i / T)

InstDisc takes k = 200 and T = 0.07, DINO k = 20. No training, no choice made on the test set: the classes are those of
the training labels, and the test labels are not an argument. Of equally near rows the first counts, of equal scores the first
class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.evaluate.neighbours import nearest

_ROWS = 4096  # whose scores are held at a time


def weighted_knn(
    train_x: Tensor,  # N x D
    train_y: Tensor,  # N, in [0, num_classes)
    test_x: Tensor,  # M x D
    num_classes: int,
    k: int = 200,
    temperature: float = 0.07,
) -> Tensor:  # M x num_classes
    """Class scores of the test features, float32, on the device of `train_x`.

    Each row is divided by exp(s_1 / T), its nearest neighbour's weight, which changes no ranking within the row and
    keeps small temperatures finite. Raises InputError when k is larger than the training set, ValueError for labels or
    features that make no sense.
    """
    found = Neighbours.of(train_x, train_y, test_x, num_classes, [k], [temperature])
    return found.scores(k, temperature)


@dataclass(frozen=True)
class Neighbours:
    """Of each of M rows the training rows that are nearest, best first: similarity M x K and labels M x K."""

    similarity: Tensor
    labels: Tensor
    num_classes: int

    @classmethod
    def of(
        cls, train_x: Tensor, train_y: Tensor, x: Tensor, num_classes: int, ks: Sequence[int], temperatures: Sequence[float],
        heed: Callable[[], None] = lambda: None,
    ) -> Neighbours:  # fmt: skip
        """As many as the largest of `ks`; raises as weighted_knn, also for what any of `temperatures` cannot be. heed: called
        between pieces of the work; may raise, to give up."""
        for k in ks:
            if not 1 <= k <= len(train_x):
                raise InputError(f"knn: k is {k}, but there are {len(train_x)} training features; set k between 1 and that")
        for temperature in temperatures:
            if temperature <= 0.0:
                raise InputError(f"knn: temperature is {temperature}, but it must be positive")
        if len(train_x) != len(train_y) or train_y.min() < 0 or train_y.max() >= num_classes:
            raise ValueError(f"the training labels do not fit {len(train_x)} features of {num_classes} classes")
        similarity, index = nearest(x, train_x, max(ks), heed=heed)
        return cls(similarity, train_y.to(index.device)[index], num_classes)

    def scores(self, k: int, temperature: float, rows: slice = slice(None)) -> Tensor:  # -> M x num_classes
        """The votes of the k nearest, in units of the nearest one's."""
        similarity, labels = self.similarity[rows, :k], self.labels[rows, :k]
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        return weight.new_zeros(len(weight), self.num_classes).scatter_add_(1, labels, weight)

    def predict(self, k: int, temperature: float) -> Tensor:  # -> M
        """The class with the largest score."""
        parts = [slice(first, first + _ROWS) for first in range(0, len(self.labels), _ROWS)]
        return torch.cat([self.scores(k, temperature, part).argmax(dim=1) for part in parts])
