"""Pascal VOC's average precision as its development kit of 2007 defines it (VOCevaldet.m, VOCap.m; Everingham et al., 2010).

Detections of a class, best score first, each take the object of the class in their photo that they overlap most. Where the IoU
is above the threshold, the first to take an object is right and later ones are wrong; on a difficult object a detection counts
neither way. Elsewhere it is wrong. AP is the mean, over the recalls 0, 0.1 ... 1, of the best precision at that recall or
above.

NOTE(departs): detectron2's Pascal evaluator, which the published VOC numbers come from, writes scores with three and
coordinates with one decimal before it scores them, and compares recalls with 0.1 steps summed up in floating point; here
neither happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmark.data.boxes import BoxSet

_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
_RECALLS = tuple(tenth / 10 for tenth in range(11))

Floats = NDArray[np.float64]


class Predicted(Protocol):
    """The boxes (m, 4), scores (m,) and labels (m,) of one photo."""

    @property
    def boxes(self) -> NDArray[Any]: ...

    @property
    def scores(self) -> NDArray[Any]: ...

    @property
    def labels(self) -> NDArray[Any]: ...


def devkit_scores(boxes: BoxSet, predictions: Sequence[Predicted]) -> dict[str, float]:
    """{"AP", "AP50", "AP75"} in percent, means over the classes that have an object which is not difficult.

    AP is the mean over the IoU thresholds 0.50, 0.55 ... 0.95, which the devkit does not have: detectron2 and the papers
    print it.
    """
    found = np.array([_class_scores(boxes, predictions, label) for label in range(len(boxes.classes))])  # classes x thresholds
    means = 100.0 * found[~np.isnan(found[:, 0])].mean(axis=0)
    return {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[5])}


def _class_scores(boxes: BoxSet, predictions: Sequence[Predicted], label: int) -> Floats:
    """AP of one class at every threshold; NaN where it has no object to find."""
    objects, difficult, wanted = [], [], 0
    photos, scores, corners = [], [], []
    for number, (photo, prediction) in enumerate(zip(boxes.test, predictions, strict=True)):
        of_class = photo.labels == label
        objects.append(photo.boxes[of_class])
        difficult.append((photo.difficult | photo.crowd)[of_class])
        wanted += int((~difficult[-1]).sum())
        rows = np.flatnonzero(np.asarray(prediction.labels) == label)
        photos += [number] * len(rows)
        scores.append(np.asarray(prediction.scores, np.float64)[rows])
        corners.append(np.asarray(prediction.boxes, np.float64)[rows])
    if not wanted:
        return np.full(len(_THRESHOLDS), np.nan)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    all_corners = np.concatenate(corners)
    overlaps = [_nearest(all_corners[row], objects[photos[row]]) for row in order]  # the same at every threshold
    found = []
    for threshold in _THRESHOLDS:
        taken = [np.zeros(len(one), bool) for one in objects]
        right, counted = np.zeros(len(order), bool), np.ones(len(order), bool)
        for at, (row, (overlap, nearest)) in enumerate(zip(order, overlaps, strict=True)):
            if overlap <= threshold:
                continue
            photo_number = photos[row]
            if difficult[photo_number][nearest]:
                counted[at] = False
            elif not taken[photo_number][nearest]:
                taken[photo_number][nearest] = right[at] = True
        found.append(_eleven_points(right, counted, wanted))
    return np.array(found)


def _nearest(box: Floats, objects: Floats) -> tuple[float, int]:  # (4,), (n, 4)
    """The largest IoU with one of the objects, the first among equals, and which it is; -1 and -1 where there are none.

    VOC's inclusive boxes have sides of xmax - xmin + 1: the sides of these half-open ones.
    """
    if len(objects) == 0:
        return -1.0, -1
    shared = np.clip(np.minimum(objects[:, 2:], box[2:]) - np.maximum(objects[:, :2], box[:2]), 0, None).prod(axis=1)
    areas = (objects[:, 2:] - objects[:, :2]).prod(axis=1)
    overlaps = shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, np.finfo(np.float64).tiny)
    best = int(overlaps.argmax())
    return float(overlaps[best]), best


def _eleven_points(right: NDArray[np.bool_], counted: NDArray[np.bool_], wanted: int) -> float:
    """AP of detections in order of score: which are right, which count at all; `wanted` objects can be found."""
    hits, tried = np.cumsum(right), np.cumsum(counted)
    recall, precision = hits / wanted, hits / np.maximum(tried, 1)
    best = [precision[recall >= level].max(initial=0.0) for level in _RECALLS]
    return float(np.mean(best))
