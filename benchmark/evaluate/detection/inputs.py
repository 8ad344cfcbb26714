"""What a detector is shown: photos resized and flipped, in batches whose order and draws are a function of the random seed.

As detectron2 does it: an endless shuffled pass over the photos, in batches of one orientation; the shorter side drawn from a
list, the longer one bounded; a flip; bytes resized by PIL. Draws are keyed by (seed, pass, photo), so that a batch is the same
whenever, and by however many threads, it is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.data import keys
from benchmark.data.boxes import Photo
from benchmark.data.keys import counters, permutation, stream, uniform

Example = tuple[Tensor, dict[str, Tensor]]  # image: 3 x h x w u1; target as benchmark.evaluate.detection.parts.Targets
_AHEAD = 2  # batches that are made before they are asked for, where there are threads for it


def resized_shape(height: int, width: int, side: int, longest: int) -> tuple[int, int]:
    """Height and width with the shorter one `side`, or less where the longer one would exceed `longest`."""
    factor = side / min(height, width)
    if factor * max(height, width) > longest:
        factor = longest / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized(pixels: np.ndarray, height: int, width: int) -> Tensor:
    """H x W x 3 u1 -> 3 x height x width u1, bilinear with antialiasing."""
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def example(photo: Photo, side: int, longest: int, flipped: bool, masks: bool) -> Example:
    """A training photo and its objects, crowds left out; labels from 1."""
    height, width = resized_shape(photo.height, photo.width, side, longest)
    scale = np.array([width / photo.width, height / photo.height] * 2)
    rows = np.flatnonzero(~photo.crowd)
    boxes = np.clip(photo.boxes[rows], 0, [photo.width, photo.height] * 2)
    # A thinner one has no side left in float32, a thousand pixels from the corner.
    filled = np.flatnonzero(((boxes[:, 2:] - boxes[:, :2]) * scale[:2] > 1e-3).all(axis=1))
    rows, boxes = rows[filled], boxes[filled]
    pixels = photo.pixels()
    if flipped:
        pixels = pixels[:, ::-1]
        boxes = np.stack([photo.width - boxes[:, 2], boxes[:, 1], photo.width - boxes[:, 0], boxes[:, 3]], axis=1)
    target = {
        "boxes": torch.from_numpy(boxes * scale).float().reshape(-1, 4),
        "labels": torch.from_numpy(photo.labels[rows].astype(np.int64) + 1),
    }
    if masks:
        bits = photo.masks(rows)
        target["masks"] = torch.from_numpy((bits[:, :, ::-1] if flipped else bits).copy())
        target["mask_scale"] = torch.from_numpy(1 / scale).float()
    return resized(np.ascontiguousarray(pixels), height, width), target


def order(upright: np.ndarray, seed: int, size: int) -> Iterator[list[tuple[int, int]]]:
    """Endless batches of (pass, photo), in each of which photos are all upright or all not. upright: bool (N,).

    Each pass has every photo once; those that have not filled a batch wait for the next.
    """
    waiting: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    everything = np.arange(len(upright))
    for number in count():
        for index in permutation(stream(keys.ORDER, seed, number), everything):
            batch = waiting[bool(upright[index])]
            batch.append((number, int(index)))
            if len(batch) == size:
                yield batch
                waiting[bool(upright[index])] = []


def training_batches(
    photos: Sequence[Photo], protocol: dict[str, Any], seed: int, workers: int, first: int = 0
) -> Generator[list[Example], None, None]:
    """Endless, from batch number `first` on."""
    upright = np.array([photo.height > photo.width for photo in photos])
    sides, longest = protocol["train_sides"], protocol["max_side"]

    def make(at: tuple[int, int]) -> Example:
        number, index = at
        start = counters(stream(keys.VIEWS, seed, number), np.array([index]))
        flipped = uniform(start, 0)[0] < protocol["flip_prob"]
        side = sides[int(uniform(start, 1)[0] * len(sides))]
        return example(photos[index], side, longest, flipped, protocol["masks"])

    yield from made(make, islice(order(upright, seed, protocol["batch_size"]), first, None), workers)


def made(make: Callable[[Any], Any], batches: Iterator[list[Any]], workers: int) -> Generator[list[Any], None, None]:
    """`make` of everything in each batch, in order; by `workers` threads that work ahead, or by the caller's with 0."""
    if not workers:
        yield from ([make(item) for item in batch] for batch in batches)
        return
    threads, ahead = ThreadPoolExecutor(workers), deque[list[Future[Any]]]()
    try:
        for batch in batches:
            ahead.append([threads.submit(make, item) for item in batch])
            if len(ahead) > _AHEAD:
                yield [item.result() for item in ahead.popleft()]
        while ahead:
            yield [item.result() for item in ahead.popleft()]
    finally:
        threads.shutdown(cancel_futures=True)
