"""What a detector's predictions are worth: COCO's average precision for every data set, and Pascal VOC's own for VOC.

    AP       mean over classes and the IoU thresholds 0.50, 0.55 ... 0.95 of the mean precision at 101 recalls
    AP50 AP75                     at one threshold;   APs APm APl   of objects under 32^2, to 96^2, over 96^2 square pixels
    AR1 AR10 AR100                recall over the thresholds, at most so many boxes of a class a photo;   ARs ARm ARl   by area
    mask_AP ... mask_ARl          the same of masks, where photos and predictions have them
    voc07_AP voc07_AP50 voc07_AP75   the VOC2007 devkit's 11-point measure (`benchmark.evaluate.detection.devkit`)

All in percent. COCO's are pycocotools' (Lin et al., 1405.0312; cocodataset.org, detection evaluation): at most 100 boxes of a
class a photo, crowd regions ignored. VOC's papers print detectron2's Pascal evaluator, which is the devkit's: voc07_* is what
compares with them. A class without an object in the test split does not count; a size that no object has is left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data.boxes import BoxSet, Photo
from benchmark.errors import InputError, nearest
from benchmark.evaluate.detection.devkit import devkit_scores

_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")  # pycocotools' order


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a detector finds on one photo.

    boxes: (m, 4), x0 y0 x1 y1 in pixels of the photo as it is stored, scaled back to it. scores: (m,), any order. labels:
    (m,), the numbers of the data set's classes. masks: m run-length codes (`encode`) of the photo's size, or None without
    masks.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    masks: Sequence[dict[str, Any]] | None = None


def encode(masks: NDArray[Any]) -> list[dict[str, Any]]:
    """Run-length codes of masks (m, height, width), bool or 0 and 1."""
    from pycocotools import mask

    return [mask.encode(np.asfortranarray(one, np.uint8)) for one in masks]


def score(boxes: BoxSet, predictions: Sequence[Prediction], classes: Sequence[str] | None = None) -> dict[str, float]:
    """Metrics of the predictions for boxes.test, one a photo and in its order.

    classes: those that the detector's labels stand for, where it can have been made for others. InputError where they are
    not the data set's, the split has no photo or no object, or a prediction makes no sense.
    """
    _check(boxes, predictions, classes)
    masked = boxes.has_masks and all(prediction.masks is not None for prediction in predictions)
    metrics = _coco_scores(boxes, predictions, "bbox")
    if masked:
        metrics |= {f"mask_{name}": value for name, value in _coco_scores(boxes, predictions, "segm").items()}
    if boxes.style == "voc":
        metrics |= {f"voc07_{name}": value for name, value in devkit_scores(boxes, predictions).items()}
    return metrics


def _check(boxes: BoxSet, predictions: Sequence[Prediction], classes: Sequence[str] | None) -> None:
    known = len(boxes.classes)
    if classes is not None and tuple(classes) != boxes.classes:
        raise InputError(f"the detector's classes are not those of {boxes.name}: {_first_difference(classes, boxes.classes)}")
    if len(predictions) != len(boxes.test):
        raise InputError(f"there are predictions for {len(predictions)} photos, but {boxes.name} has {len(boxes.test)} to test")
    if not any((~(photo.crowd | photo.difficult)).any() for photo in boxes.test):
        raise InputError(
            f"the test split of {boxes.name} has no object to find in {len(boxes.test)} photos; nothing can be scored"
        )
    for photo, found in zip(boxes.test, predictions, strict=True):
        m = len(found.scores)
        if np.shape(found.boxes) != (m, 4) or np.shape(found.labels) != (m,) or np.shape(found.scores) != (m,):
            shapes = f"{np.shape(found.boxes)}, {np.shape(found.scores)}, {np.shape(found.labels)}"
            raise InputError(
                f"{photo.name}: boxes, scores and labels have the shapes {shapes}; they must be (m, 4), (m,) and (m,)"
            )
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            raise InputError(f"{photo.name}: a predicted box or score is not finite; the detector has diverged")
        if m and not (np.min(found.labels) >= 0 and np.max(found.labels) < known):
            wrong = next(label for label in np.asarray(found.labels) if not 0 <= label < known)
            raise InputError(f"{photo.name}: a predicted label is {wrong}, but {boxes.name} has the classes 0 to {known - 1}")
        if found.masks is not None:
            _check_masks(photo, found.masks, m)


def _check_masks(photo: Photo, masks: Sequence[dict[str, Any]], m: int) -> None:
    if len(masks) != m:
        raise InputError(f"{photo.name}: there are {len(masks)} masks for {m} boxes")
    size = next((code["size"] for code in masks if list(code["size"]) != [photo.height, photo.width]), None)
    if size:
        raise InputError(
            f"{photo.name}: a predicted mask is {size[1]} x {size[0]} pixels, the photo {photo.width} x {photo.height}"
        )


def _first_difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} classes for {len(wanted)}"
    number, one, other = next((i, a, b) for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
    return f"class {number} is {one!r} there and {other!r} here{nearest(one, wanted)}"


def _coco_scores(boxes: BoxSet, predictions: Sequence[Prediction], kind: Literal["bbox", "segm"]) -> dict[str, float]:
    """pycocotools' twelve numbers, in percent, without those that are of no object."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Evaluation(COCOeval):
        # A detection on a difficult object of VOC's counts neither way, however many there are: so it is with COCO's crowd
        # regions. But the overlap with those is taken over the detection's area alone, and a difficult object is one object.
        def computeIoU(self, imgId: int, catId: int) -> Any:
            marked = self._gts[imgId, catId]
            ignored = [entry["iscrowd"] for entry in marked]
            for entry in marked:
                entry["iscrowd"] = entry["region"]
            try:
                return super().computeIoU(imgId, catId)
            finally:
                for entry, was in zip(marked, ignored, strict=True):
                    entry["iscrowd"] = was

    images = [{"id": photo.id, "height": photo.height, "width": photo.width} for photo in boxes.test]
    categories = [{"id": label, "name": name} for label, name in enumerate(boxes.classes)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its tables
        sides = []
        for entries in (_objects(boxes.test, kind), _found(boxes.test, predictions, kind)):
            side = COCO()
            side.dataset = {"images": images, "categories": categories, "annotations": entries}
            side.createIndex()
            sides.append(side)
        evaluation = Evaluation(*sides, iouType=kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100.0 * float(value) for name, value in zip(_STATS, evaluation.stats, strict=True) if value > -1}


def _objects(photos: Sequence[Photo], kind: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for photo in photos:
        for row, (x0, y0, x1, y1) in enumerate(photo.boxes.tolist()):
            entry = {
                "id": len(entries) + 1,  # pycocotools takes a match with object 0 for none
                "image_id": photo.id,
                "category_id": int(photo.labels[row]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(photo.areas[row]),
                "iscrowd": int(photo.crowd[row] or photo.difficult[row]),
                "region": int(photo.crowd[row]),
            }
            if kind == "segm":
                entry["segmentation"] = photo.code(row)
            entries.append(entry)
    return entries


def _found(photos: Sequence[Photo], predictions: Sequence[Prediction], kind: str) -> list[dict[str, Any]]:
    from pycocotools import mask

    entries: list[dict[str, Any]] = []
    for photo, prediction in zip(photos, predictions, strict=True):
        corners = np.asarray(prediction.boxes, np.float64)
        sizes = corners[:, 2:] - corners[:, :2]
        for row, (value, label) in enumerate(zip(prediction.scores, prediction.labels, strict=True)):
            entry = {
                "id": len(entries) + 1,
                "image_id": photo.id,
                "category_id": int(label),
                "score": float(value),
                "bbox": [*corners[row, :2].tolist(), *sizes[row].tolist()],
                "area": float(sizes[row].prod()),
            }
            if kind == "segm":
                assert prediction.masks is not None
                entry["segmentation"] = prediction.masks[row]
                entry["area"] = float(mask.area(prediction.masks[row]))
            entries.append(entry)
    return entries
