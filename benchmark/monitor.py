"""kNN accuracy while a training runs: the curve on which MoCo v3 (2104.02057, section 4.1) sees that a ViT fails in parts.

It watches and changes nothing: no weight, no statistic, no draw, and so it is in no id. A bank of at most a tenth of the
training images classifies held-out ones, weighted and with k = 20, at some ten of the logged steps and at the last; the test
images stay untouched. Only rank 0 looks. Trainings of fewer than `FEWEST_STEPS` steps and those without held-out images have no
such curve.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmark.data import split_labels
from benchmark.data.datasets import Dataset
from benchmark.data.split import Split, stratified
from benchmark.evaluate.accuracy import top1
from benchmark.evaluate.knn import weighted_knn
from benchmark.train.images import TrainingImages
from methods.base import Method

# NOTE(departs): MoCo v3's monitor fills its bank with features of augmented training images as they pass; ours embeds the
# same unaugmented images each time, so that the curve shows the network alone.

FEWEST_STEPS = 200
LOGGED = 5  # every so many logged steps
_BANK, _ASKED = 4096, 1024  # images at most
_K, _TEMPERATURE = 20, 0.07
_STREAM = 3  # of the fixed rules by which images are chosen, after those of the split


class KnnMonitor:
    """Call it with the method after a logged step: kNN accuracy in percent, or None where the step is none of its points."""

    def __init__(
        self, dataset: Dataset, split: Split, images: Callable[[np.ndarray], TrainingImages], total: int, log_every: int
    ) -> None:
        labels = split_labels(dataset, "train")
        bank = split.train[labels[split.train] >= 0]
        bank = bank[stratified(labels[bank], min(_BANK, max(1, len(bank) // 10)), _STREAM)]
        asked = split.held_out[stratified(labels[split.held_out], _ASKED, _STREAM)]
        self.bank, self.asked = images(bank), images(asked)
        self.bank_labels, self.labels = torch.from_numpy(labels[bank]), torch.from_numpy(labels[asked])
        self.classes, self.every, self.total = len(dataset.classes), LOGGED * log_every, total

    def due(self, step: int) -> bool:
        """Whether this step, counted from 1, is one of its points."""
        return step % self.every == 0 or step == self.total

    @torch.no_grad()
    def __call__(self, method: Method, step: int) -> float | None:
        if not self.due(step):
            return None
        was_training = method.training
        method.eval()
        try:
            bank, asked = self._features(method, self.bank), self._features(method, self.asked)
        finally:
            method.train(was_training)
        if not (bank.isfinite().all() and asked.isfinite().all()):
            return None  # the loss will say so
        k = min(_K, len(bank))
        scores = weighted_knn(bank, self.bank_labels.to(bank.device), asked, self.classes, k, _TEMPERATURE)
        return top1(scores, self.labels)

    @staticmethod
    def _features(method: Method, images: TrainingImages) -> Tensor:  # -> N x D
        return torch.cat([method.features(some).float() for some, _ in images])


def knn_monitor(
    dataset: Dataset, split: Split, images: Callable[[np.ndarray], TrainingImages], total: int, log_every: int
) -> KnnMonitor | None:
    """The monitor of a training of so many steps, or None where there is nothing to ask or too little to see."""
    if total < FEWEST_STEPS or not len(split.held_out) or not len(dataset.classes):
        return None
    return KnnMonitor(dataset, split, images, total, log_every)
