"""COCO's and VOC's measures a second time, from their definitions and without pycocotools: slow, plain, box by box.

Masks are compared as bitmaps. Used as an oracle for `benchmark.evaluate.detection.score`, here and for trained detectors.
"""

import numpy as np

IOUS = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95]
SIZES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def slow_score(boxes, predictions, masked=False):
    """{"AP", "AP50", ..., "ARl"} as `score` names them, without those that have no object."""
    tables = _overlaps(boxes, predictions, masked)
    found = {}
    for size, limits in SIZES.items():
        for most in (1, 10, 100) if not size else (100,):
            by_class = [_class(boxes, predictions, tables, label, limits, most) for label in range(len(boxes.classes))]
            by_class = [pair for pair in by_class if pair is not None]
            if not by_class:
                continue
            precisions = np.array([precision for precision, _ in by_class])  # classes x thresholds
            recalls = np.array([recall for _, recall in by_class])
            found["AR" + (size or str(most))] = 100 * recalls.mean()
            if most == 100:
                found["AP" + size] = 100 * precisions.mean()
                if not size:
                    found["AP50"], found["AP75"] = 100 * precisions[:, 0].mean(), 100 * precisions[:, 5].mean()
    return found


def _overlaps(boxes, predictions, masked):
    """For each photo (m x n) overlaps, and the areas of the m predictions."""
    tables = []
    for photo, prediction in zip(boxes.test, predictions, strict=True):
        if masked:
            from pycocotools import mask

            theirs = [mask.decode(code).astype(bool) for code in prediction.masks]
            ours = photo.masks()
            areas = [one.sum() for one in theirs]
            table = [[_of_masks(one, other, crowd) for other, crowd in zip(ours, photo.crowd, strict=True)] for one in theirs]
        else:
            areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in np.asarray(prediction.boxes, np.float64)]
            table = [
                [_of_boxes(one, other, crowd) for other, crowd in zip(photo.boxes, photo.crowd, strict=True)]
                for one in np.asarray(prediction.boxes, np.float64)
            ]
        tables.append((table, areas))
    return tables


def _of_masks(one, other, crowd):
    shared = (one & other).sum()
    return shared / (one.sum() if crowd else (one | other).sum()) if shared else 0.0


def _of_boxes(one, other, crowd=False):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared, area = width * height, (one[2] - one[0]) * (one[3] - one[1])
    return shared / (area if crowd else area + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def _class(boxes, predictions, tables, label, limits, most):
    """(AP, recall) at each threshold, or None without an object to find."""
    wanted = 0
    rows = []  # per detection: score, and per threshold "right", "wrong" or "ignored"
    for photo, prediction, (table, areas) in zip(boxes.test, predictions, tables, strict=True):
        objects = [n for n in range(len(photo.labels)) if photo.labels[n] == label]
        ignored = {
            n: bool(photo.crowd[n] or photo.difficult[n]) or not limits[0] <= photo.areas[n] <= limits[1] for n in objects
        }
        wanted += sum(not ignored[n] for n in objects)
        mine = [m for m in range(len(prediction.labels)) if prediction.labels[m] == label]
        mine = sorted(mine, key=lambda m: -float(prediction.scores[m]))[:most]
        verdicts = {m: [] for m in mine}
        for threshold in IOUS:
            taken = set()
            for m in mine:
                best = None
                for wish in (False, True):  # objects that count come first
                    for n in objects:
                        often = photo.crowd[n] or photo.difficult[n]
                        if ignored[n] != wish or (n in taken and not often) or table[m][n] < threshold:
                            continue
                        if best is None or table[m][n] >= table[m][best]:
                            best = n
                    if best is not None:
                        break
                if best is not None:
                    taken.add(best)
                    verdicts[m].append("ignored" if ignored[best] else "right")
                else:
                    verdicts[m].append("wrong" if limits[0] <= areas[m] <= limits[1] else "ignored")
        rows += [(float(prediction.scores[m]), verdicts[m]) for m in mine]
    if not wanted:
        return None
    rows.sort(key=lambda row: -row[0])
    precisions, recalls = [], []
    for number in range(len(IOUS)):
        right = tried = 0
        curve = []  # (recall, precision)
        for _, verdicts in rows:
            if verdicts[number] != "ignored":
                tried += 1
                right += verdicts[number] == "right"
            curve.append((right / wanted, right / max(tried, 1)))
        points = [max([p for r, p in curve if r >= level], default=0.0) for level in np.linspace(0, 1, 101)]
        precisions.append(sum(points) / len(points))
        recalls.append(right / wanted)
    return precisions, recalls


def slow_devkit(boxes, predictions):
    """{"AP", "AP50", "AP75"} of VOC2007's 11 points."""
    by_class = []
    for label in range(len(boxes.classes)):
        entries = sorted(
            (
                (-float(s), number, m)
                for number, p in enumerate(predictions)
                for m, (s, c) in enumerate(zip(p.scores, p.labels, strict=True))
                if c == label
            )
        )
        wanted = sum(int(((photo.labels == label) & ~photo.difficult).sum()) for photo in boxes.test)
        if not wanted:
            continue
        of_thresholds = []
        for threshold in IOUS:
            taken, right, tried, curve = set(), 0, 0, []
            for _, number, m in entries:
                photo = boxes.test[number]
                best, overlap = None, threshold
                for n in range(len(photo.labels)):
                    if (
                        photo.labels[n] == label
                        and (found := _of_boxes(predictions[number].boxes[m], photo.boxes[n])) > overlap
                    ):
                        best, overlap = n, found
                if best is None or not photo.difficult[best]:
                    tried += 1
                    if best is not None and (number, best) not in taken:
                        taken.add((number, best))
                        right += 1
                curve.append((right / wanted, right / max(tried, 1)))
            levels = [i / 10 for i in range(11)]
            of_thresholds.append(sum(max([p for r, p in curve if r >= level], default=0.0) for level in levels) / 11)
        by_class.append(of_thresholds)
    means = 100 * np.mean(by_class, axis=0)
    return {"AP": means.mean(), "AP50": means[0], "AP75": means[5]}
