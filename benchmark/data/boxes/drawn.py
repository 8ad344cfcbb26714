"""Photos of drawn shapes with their boxes and masks: a detection data set for machines that have no data and no network.

Each has one to five of `benchmark.data.shapes`' ten shapes, of varied size, place, rotation and colour, on one of its
backgrounds; no shape touches another. A pure function of (split, seed, index), computed in float64.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmark.data import keys
from benchmark.data import shapes as drawing
from benchmark.data.boxes.boxset import Bools, BoxSet, Floats, Photo
from benchmark.data.keys import counters, stream, uniform

VERSION = 1  # changes whenever a pixel or a box changes
COUNTS = {"train": 400, "test": 100}
CONTENT = hashlib.sha256(f"drawn boxes {VERSION} {drawing.VERSION} {COUNTS}".encode()).hexdigest()[:12]
_SIDES = (96, 160)  # pixels: the shortest and the longest
_RADII = (8.0, 34.0)  # pixels
_MOST = 5  # shapes a photo
_TRIES = 8  # draws of shapes; those that would touch an earlier one are left out
_OBJECTS = 50  # the draws of shape number j are _OBJECTS + 20 j and the following


@functools.cache
def open_drawn(content: str = CONTENT, train: int = COUNTS["train"], test: int = COUNTS["test"], seed: int = 0) -> BoxSet:
    """The data set, drawn once a process."""
    numbers = tuple(range(len(drawing.CLASSES)))
    drawn = [tuple(_photo(split, index, seed) for index in range(count)) for split, count in enumerate((train, test))]
    return BoxSet("shapes", content, drawing.CLASSES, numbers, True, "coco", train=drawn[0], test=drawn[1])


def _photo(split: int, index: int, seed: int) -> Photo:
    from pycocotools import mask

    key = stream(keys.SHAPES, VERSION, split, seed, _OBJECTS)  # five parts, where those of `drawing.shapes` have four
    pixels, labels, masks = _drawn(counters(key, np.array([index])))
    height, width = pixels.shape[:2]
    return Photo(
        id=index,
        name=f"drawn {('train', 'test')[split]} photo {index}",
        key=str(index),
        height=height,
        width=width,
        boxes=np.array([_box(one) for one in masks], np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        areas=np.array([one.sum() for one in masks], np.float64),
        crowd=np.zeros(len(labels), bool),
        difficult=np.zeros(len(labels), bool),
        outlines=tuple(mask.encode(np.asfortranarray(one, np.uint8)) for one in masks),
        load=pixels.copy,
    )


def _drawn(start: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], list[int], list[Bools]]:
    """One photo, the labels of its shapes and their masks."""

    def draw(number: int, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(uniform(start, number)[0])

    height, width = (int(draw(number, _SIDES[0], _SIDES[1] + 1)) for number in (0, 1))
    image = _background(start, draw)[:height, :width]
    brightness = 0.2 if draw(40) < 0.5 else 0.85  # opposite to the background's, as `drawing.colours` has it
    taken = np.zeros((height, width), bool)
    labels: list[int] = []
    masks: list[Bools] = []
    wanted = 1 + int(draw(2) * _MOST)
    for at in range(_OBJECTS, _OBJECTS + 20 * _TRIES, 20):
        label = int(draw(at) * len(drawing.CLASSES))
        radius = _RADII[0] * (_RADII[1] / _RADII[0]) ** draw(at + 1)  # as many small ones as large ones
        middle_x, middle_y = draw(at + 2, radius, width - radius), draw(at + 3, radius, height - radius)
        soft = _shape(label, radius, middle_x, middle_y, draw(at + 4, -0.6, 0.6), height, width)
        mask = soft > 0.5
        if (taken & (soft > 0)).any() or not mask.any():
            continue
        rgb = np.array([draw(at + 5 + channel) for channel in range(3)])
        ink = np.clip(brightness + 0.55 * (rgb - rgb.mean()), 0, 1)
        image += soft[..., None] * (ink - image)
        taken |= soft > 0
        labels.append(label)
        masks.append(mask)
        if len(labels) == wanted:
            break
    image = image + (drawing.noise(start, _SIDES[1])[0, :height, :width, None] - 0.5) * 0.08
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), labels, masks


def _background(start: NDArray[np.uint64], draw: Callable[..., float]) -> Floats:
    """Of a square photo of the longest side, f8 (side, side, 3) in [0, 1]."""
    side = _SIDES[1]
    axis = ((np.arange(side) + 0.5) / side * 2 - 1)[None]
    kind = np.array([int(draw(3) * len(drawing.BACKGROUNDS))])
    angle, waves, phase = (np.full((1, 1, 1), value) for value in (draw(4, 0, math.pi), draw(5, 3, 9), draw(6, 0, 6)))
    canvas = drawing.textures(kind, angle, waves, phase, axis[:, None, :], axis[:, :, None], start, side)
    _, first, second = drawing.colours(start)
    return (first + (second - first) * canvas[..., None])[0]


def _shape(label: int, radius: float, x: float, y: float, turn: float, height: int, width: int) -> Floats:
    """How much of each pixel a shape covers, f8 (height, width) in [0, 1]; computed near it alone."""
    left, top = max(0, math.floor(x - 1.2 * radius)), max(0, math.floor(y - 1.2 * radius))
    right, bottom = min(width, math.ceil(x + 1.2 * radius)), min(height, math.ceil(y + 1.2 * radius))
    across: Floats = (np.arange(left, right, dtype=np.float64)[None, :] + 0.5 - x) / radius
    down: Floats = (np.arange(top, bottom, dtype=np.float64)[:, None] + 0.5 - y) / radius
    u, v = across * math.cos(turn) + down * math.sin(turn), down * math.cos(turn) - across * math.sin(turn)
    covered = np.zeros((height, width))
    covered[top:bottom, left:right] = drawing.step(drawing.distance(label, u, v) * radius)
    return covered


def _box(mask: Bools) -> tuple[int, int, int, int]:
    """The tight box of a mask, its right and lower edges exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
