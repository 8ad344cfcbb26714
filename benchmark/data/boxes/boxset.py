"""What a detection data set is once it is open: photos with the objects in them. Torch-free.

Boxes are x0 y0 x1 y1 in pixels of the photo as it is stored, with the first pixel from 0 to 1 (0-based, half-open): a box
over a whole photo is 0 0 width height. Labels are 0 to len(classes) - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Of one object: polygons, each x0 y0 x1 y1 ... (2k,) f8; or a run-length code {"size": [height, width], "counts": ...} as
# pycocotools has it, compressed (bytes) or not (list of ints).
Outline = tuple[Floats, ...] | dict[str, Any]


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo and its n objects.

    id: unique within its split, from 0 in the split's order. name: what errors call it (its file, or a number for a drawn
    one). key: what its data set calls it: COCO's image id, VOC's file name without an ending.
    boxes: f8 (n, 4). labels: i8 (n,). areas: f8 (n,), square pixels: of the outline where the data set says so, else of the
    box; by them objects count as small, medium or large.
    crowd: bool (n,), COCO's regions of many objects: not trained on, ignored in scoring. difficult: bool (n,), VOC's
    objects that are hard to see: trained on (as detectron2 does), ignored in scoring.
    outlines: n of them, or None where the data set has no masks.
    """

    id: int
    name: str
    key: str
    height: int
    width: int
    boxes: Floats
    labels: Integers
    areas: Floats
    crowd: Bools
    difficult: Bools
    outlines: tuple[Outline, ...] | None = field(repr=False)
    load: Callable[[], NDArray[np.uint8]] = field(repr=False)

    def pixels(self) -> NDArray[np.uint8]:
        """RGB, u1 (height, width, 3), read and decoded at every call. InputError where the file is missing, cannot be
        decoded or has another size than its annotation says."""
        return self.load()

    def masks(self, rows: Sequence[int] | Integers | None = None) -> Bools:
        """The outlines filled, bool (n, height, width), or of the objects `rows` alone. ValueError where there are none."""
        from pycocotools import mask

        if self.outlines is None:
            raise ValueError(f"{self.name} has no masks")
        chosen = range(len(self.outlines)) if rows is None else rows
        made = np.zeros((len(chosen), self.height, self.width), bool)
        for at, row in enumerate(chosen):
            made[at] = mask.decode(self.code(row))
        return made

    def code(self, row: int) -> dict[str, Any]:
        """The outline of object `row` as a compressed run-length code of pycocotools."""
        from pycocotools import mask

        assert self.outlines is not None
        outline = self.outlines[row]
        if isinstance(outline, tuple):
            return mask.merge(mask.frPyObjects([polygon.tolist() for polygon in outline], self.height, self.width))
        return mask.frPyObjects(outline, self.height, self.width) if isinstance(outline["counts"], list) else outline


@dataclass(frozen=True, eq=False)
class BoxSet:
    """A detection data set. Photos without any object stay in: scoring needs them; `learnable` leaves them out for training.

    content: 12 hex digits over the annotations, the identity of the data. category_ids: the data set's own number of each
    class. style: whose scoring its published numbers are in (benchmark.evaluate.detection.score).
    """

    name: str
    content: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_masks: bool
    style: Literal["coco", "voc"]
    train: tuple[Photo, ...]
    test: tuple[Photo, ...]

    @property
    def learnable(self) -> tuple[Photo, ...]:
        """The training photos with at least one object that is no crowd region: those that detectron2 trains on."""
        return tuple(photo for photo in self.train if not photo.crowd.all())

    def take(self, train: int = 0, test: int = 0) -> BoxSet:
        """The first `train` and `test` photos alone, in the data set's order; 0 takes all."""
        return replace(self, train=self.train[: train or None], test=self.test[: test or None])
