"""What happens to which sample: augmentation parameters as a pure function of (seed, epoch, sample index, view).

`parameters` is the only place where augmentation draws are made. It returns a table, one row per sample, and a kernel only
applies the table; so every loader, worker count, thread count and restart sees the same images, and a kernel for another
device needs to know nothing of random numbers.

The laws are torchvision's: `RandomResizedCrop` (area uniform, aspect ratio log-uniform, ten tries, then a central crop),
`ColorJitter` (factors uniform, the four operations in random order) applied jointly with one probability, `GaussianBlur`
(sigma uniform in pixels), `RandomGrayscale`, `RandomHorizontalFlip`, `RandomSolarize`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from benchmark.data import keys
from benchmark.data.keys import counters, stream, uniform
from benchmark.errors import InputError
from methods.views import ViewConfig

# Columns of the table (float32). A crop is in pixels of the stored image; ORDER is four columns, each the number of the
# jitter operation to run at that place (0 brightness, 1 contrast, 2 saturation, 3 hue) or -1 for none; SIGMA is 0 where
# there is no blur; SOLARIZE is the threshold, infinite where there is none.
TOP, LEFT, HEIGHT, WIDTH, FLIP, ORDER, BRIGHTNESS, GRAY, SIGMA, SOLARIZE, COLUMNS = 0, 1, 2, 3, 4, 5, 9, 13, 14, 15, 16
CONTRAST, SATURATION, HUE = BRIGHTNESS + 1, BRIGHTNESS + 2, BRIGHTNESS + 3

_CROP_TRIES = 10
# Draw numbers are fixed places, so that switching one operation on or off leaves the draws of the others as they were.
_DRAW_CROP = 0  # four a try: area, ratio, top, left
_DRAW_FLIP = 4 * _CROP_TRIES
_DRAW_JITTER, _DRAW_ORDER, _DRAW_FACTOR = _DRAW_FLIP + 1, _DRAW_FLIP + 2, _DRAW_FLIP + 5
_DRAW_GRAY, _DRAW_BLUR, _DRAW_SIGMA, _DRAW_SOLARIZE = (_DRAW_FACTOR + 4 + i for i in range(4))

Table = NDArray[np.float32]


def parameters(seed: int, epoch: int, indices: NDArray[np.integer], view: int, cfg: ViewConfig, size: int) -> Table:
    """The table (N, COLUMNS) of view number `view` of the samples `indices` (N,), stored as `size` x `size` pixels."""
    starts = counters(stream(keys.VIEWS, seed, epoch, view), indices)
    table = np.zeros((len(indices), COLUMNS), np.float32)
    table[:, TOP : WIDTH + 1] = _crops(starts, cfg, size)
    table[:, FLIP] = uniform(starts, _DRAW_FLIP) < cfg.flip_prob
    _jitter(starts, cfg, table)
    table[:, GRAY] = uniform(starts, _DRAW_GRAY) < cfg.grayscale_prob
    if cfg.blur_prob > 0:
        sigma = _between(uniform(starts, _DRAW_SIGMA), *cfg.blur_sigma)
        table[:, SIGMA] = np.where(uniform(starts, _DRAW_BLUR) < cfg.blur_prob, sigma, 0)
    solarized = uniform(starts, _DRAW_SOLARIZE) < cfg.solarize_prob
    table[:, SOLARIZE] = np.where(solarized, cfg.solarize_threshold, np.inf)
    return table


def centre(count: int, size: int, fraction: float = 1.0) -> Table:
    """The table (count, COLUMNS) of evaluation: the central square of `fraction` of the side, nothing else."""
    table = np.zeros((count, COLUMNS), np.float32)
    side = max(1, round(size * fraction))
    table[:, TOP : LEFT + 1] = (size - side) // 2
    table[:, HEIGHT : WIDTH + 1] = side
    table[:, ORDER : ORDER + 4] = -1
    table[:, BRIGHTNESS : SATURATION + 1] = 1
    table[:, SOLARIZE] = np.inf
    return table


def blur_taps(cfg: ViewConfig, out_size: int) -> int:
    """Length of the blur kernel in pixels: the odd number nearest to the configured fraction of the side, at least 3."""
    taps = max(3, 2 * int(cfg.blur_kernel * out_size / 2) + 1)
    if cfg.blur_prob > 0 and taps // 2 >= out_size:
        raise InputError(f"a blur_kernel of {cfg.blur_kernel} is too wide for images of {out_size} pixels; lower it")
    return taps


def _between(unit: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * unit


def _crops(starts: NDArray[np.uint64], cfg: ViewConfig, size: int) -> NDArray[np.float64]:
    """Top, left, height, width (N, 4) by torchvision's law on a square image."""
    crops = np.empty((len(starts), 4))
    crops[:] = _fallback_crop(cfg, size)
    log_ratio = (math.log(cfg.crop_ratio[0]), math.log(cfg.crop_ratio[1]))
    left_over = np.arange(len(starts))
    for draw in range(_DRAW_CROP, _DRAW_CROP + 4 * _CROP_TRIES, 4):
        keys = starts[left_over]
        area = size * size * _between(uniform(keys, draw), *cfg.crop_scale)
        ratio = np.exp(_between(uniform(keys, draw + 1), *log_ratio))
        width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
        top = np.floor(uniform(keys, draw + 2) * (size - height + 1))
        left = np.floor(uniform(keys, draw + 3) * (size - width + 1))
        crops[left_over[fits]] = np.stack([top, left, height, width], axis=1)[fits]
        left_over = left_over[~fits]
        if not len(left_over):
            break
    return crops


def _fallback_crop(cfg: ViewConfig, size: int) -> tuple[int, int, int, int]:
    """The central crop that torchvision takes after ten misses: the image's ratio clipped to the allowed range."""
    height = width = size
    if min(cfg.crop_ratio) > 1:
        height = round(size / min(cfg.crop_ratio))
    elif max(cfg.crop_ratio) < 1:
        width = round(size * max(cfg.crop_ratio))
    return (size - height) // 2, (size - width) // 2, height, width


def _jitter(starts: NDArray[np.uint64], cfg: ViewConfig, table: Table) -> None:
    """Fill the jitter's order and factors; an operation of strength zero takes no place, as in torchvision."""
    count = len(starts)
    table[:, ORDER : ORDER + 4] = -1
    table[:, BRIGHTNESS : SATURATION + 1] = 1
    if cfg.jitter_prob <= 0:
        return
    order = np.tile(np.arange(4), (count, 1))
    rows = np.arange(count)
    for i in range(3):  # Fisher-Yates: place i changes with one of the places i..3
        j = i + (uniform(starts, _DRAW_ORDER + i) * (4 - i)).astype(np.int64)
        order[:, i], order[rows, j] = order[rows, j], order[:, i].copy()
    applied = uniform(starts, _DRAW_JITTER) < cfg.jitter_prob
    strengths = (cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue)
    in_use = np.array([strength > 0 for strength in strengths])
    table[:, ORDER : ORDER + 4] = np.where(applied[:, None] & in_use[order], order, -1)
    for operation, strength in enumerate(strengths):
        middle = 0.0 if operation == 3 else 1.0
        low = -strength if operation == 3 else max(0.0, 1 - strength)
        factor = _between(uniform(starts, _DRAW_FACTOR + operation), low, middle + strength)
        table[:, BRIGHTNESS + operation] = np.where(applied & in_use[operation], factor, middle)
