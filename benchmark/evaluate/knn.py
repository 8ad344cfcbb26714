"""Weighted k-nearest-neighbour classification, as Wu et al. (InstDisc, 1805.01978, section 3.4) define it.

    s_i = cos(x, x_i)        score of class c = sum over the k largest s_i with label c of exp(s_i / T)

InstDisc takes k = 200 and T = 0.07, DINO k = 20. No training, no choice made on the test set: the classes are those of
the training labels, and the test labels are not an argument.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError


def weighted_knn(
    train_x: Tensor,  # N x D
    train_y: Tensor,  # N, in [0, num_classes)
    test_x: Tensor,  # M x D
    num_classes: int,
    k: int = 200,
    temperature: float = 0.07,
    chunk: int = 512,
) -> Tensor:  # M x num_classes
    """Class scores of the test features, float32, on the device of `train_x`.

    Each row is divided by exp(s_1 / T), its nearest neighbour's weight, which changes no ranking within the row and
    keeps small temperatures finite. `chunk` test rows are compared at a time: memory is chunk x N floats.
    Raises InputError when k is larger than the training set, ValueError for labels or features that make no sense.
    """
    if not 1 <= k <= len(train_x):
        raise InputError(f"knn: k is {k}, but there are {len(train_x)} training features; set k between 1 and that")
    if temperature <= 0.0:
        raise InputError(f"knn: temperature is {temperature}, but it must be positive")
    if len(train_x) != len(train_y) or train_y.min() < 0 or train_y.max() >= num_classes:
        raise ValueError(f"the training labels do not fit {len(train_x)} features of {num_classes} classes")
    train = F.normalize(train_x.float(), dim=1)
    labels = train_y.to(train.device)
    rows = []
    for part in test_x.split(chunk):
        part = F.normalize(part.to(train.device).float(), dim=1)
        similarity, nearest = (part @ train.T).topk(k, dim=1)  # m x k, best first
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        scores = weight.new_zeros(len(part), num_classes)
        rows.append(scores.scatter_add_(1, labels[nearest], weight))
    if not rows:
        return train.new_zeros(0, num_classes)
    scores = torch.cat(rows)
    if not scores.isfinite().all():
        raise ValueError("knn: some features are not finite")
    return scores
