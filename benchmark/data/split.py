"""Which images a cell trains on, which it keeps aside for choices, and which it is tested on: the same for every seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_RULE = 20_260_101  # the fixed seed of the split; a split must not vary with the random seed of a cell


@dataclass(frozen=True)
class Split:
    """Sample ids, int64, ascending. train and held_out are disjoint parts of the training file; test is of the test file."""

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray


def stratified(labels: np.ndarray, count: int, stream: int) -> np.ndarray:
    """`count` sample ids with class shares as equal as rounding allows, chosen by a fixed rule.

    labels: N class numbers; an id of an unlabelled image (-1) forms a class of its own. count of 0 means all.
    """
    if not count or count >= len(labels):
        return np.arange(len(labels))
    generator = np.random.default_rng([_RULE, stream])
    order = generator.permutation(len(labels))
    # rank of each image within its class, then all first-ranked images before all second-ranked ones, and so on
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    starts = np.searchsorted(sorted_labels, sorted_labels)
    rank = np.arange(len(labels)) - starts
    return np.sort(by_class[np.argsort(rank, kind="stable")[:count]])


def split(train_labels: np.ndarray, test_labels: np.ndarray, train_images: int, test_images: int, held_out: float) -> Split:
    """The split of a data config. held_out is a share of the chosen labelled images, at least one when it is above 0."""
    chosen = stratified(train_labels, train_images, stream=0)
    labelled = chosen[train_labels[chosen] >= 0]
    aside = max(1, round(len(labelled) * held_out)) if held_out else 0
    picked = labelled[stratified(train_labels[labelled], aside, stream=1)] if aside else labelled[:0]
    return Split(np.setdiff1d(chosen, picked), picked, stratified(test_labels, test_images, stream=2))
