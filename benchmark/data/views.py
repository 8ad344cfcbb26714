"""What happens to which sample: augmentation parameters as a pure function of (seed, epoch, sample index, view).

`parameters` is the only place where augmentation draws are made. It returns a table, one row per sample, and a kernel only
applies the table; so every loader, worker count, thread count and restart sees the same images, and a kernel for another
device needs to know nothing of random numbers. What is the same for all samples of a view is its `Program`.

The laws are torchvision's: `RandomResizedCrop` (area uniform, aspect ratio log-uniform, ten tries, then a central crop),
`ColorJitter` (factors uniform, the four operations in random order) applied jointly with one probability, `GaussianBlur`
(sigma uniform in pixels), `RandomGrayscale`, `RandomHorizontalFlip`, `RandomSolarize`. RandAugment's is in `randaugment`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.data import keys, randaugment
from benchmark.data.keys import counters, stream, uniform
from benchmark.errors import InputError
from methods.views import OPERATIONS, RANDAUGMENT_MOST, Operation, ViewConfig

Table = NDArray[np.float32]
Lengths = NDArray[np.integer] | NDArray[np.float64] | int  # pixels: one number for all samples, or one for each

# Columns of the table (float32).
TOP, LEFT, HEIGHT, WIDTH, FLIP = range(5)  # a crop, in pixels of what it is taken from
ORDER = 5  # four columns: the jitter operation to run at each place (0 brightness, 1 contrast, 2 saturation, 3 hue; -1 none)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(9, 13)
GRAY, SIGMA, SOLARIZE = 13, 14, 15  # sigma 0: no blur; solarize: the threshold, infinite where there is none
BASE = 16  # four columns: the crop that a view starts from where it does not start with its own
ROTATE = 20  # degrees, counter-clockwise; 0 none
SOBEL = 21
CUTOUT = 22  # four columns: top, left, height, width of the square, within the view; height 0: none
NOISE, NOISE_KEY = 26, 27  # std, 0 none; two columns: a key of 2 x 24 bits (whole numbers that float32 holds exactly)
RANDAUGMENT = 29  # RANDAUGMENT_MOST pairs: the number of an operation (see `randaugment`), its argument
COLUMNS = RANDAUGMENT + 2 * RANDAUGMENT_MOST

# Operations by number, as `Program.operations` holds them.
CROP, FLIPPING, ROTATING, JITTER, GRAYSCALE, BLUR, SOLARIZING, GRADIENT, RANDAUGMENTING, CUTTING, NOISING = range(
    len(OPERATIONS)
)
CHANNELS = ("rgb", "lab", "sobel")

_CROP_TRIES = 10
# Draw numbers are fixed places, so that switching one operation on or off leaves the draws of the others as they were.
_DRAW_CROP = 0  # four a try: area, ratio, top, left
_DRAW_FLIP = 4 * _CROP_TRIES
_DRAW_JITTER, _DRAW_ORDER, _DRAW_FACTOR = _DRAW_FLIP + 1, _DRAW_FLIP + 2, _DRAW_FLIP + 5
_DRAW_GRAY, _DRAW_BLUR, _DRAW_SIGMA, _DRAW_SOLARIZE = (_DRAW_FACTOR + 4 + i for i in range(4))
_DRAW_ROTATE, _DRAW_ANGLE, _DRAW_SOBEL, _DRAW_CUTOUT, _DRAW_CUTOUT_Y, _DRAW_CUTOUT_X = (
    _DRAW_SOLARIZE + 1 + i for i in range(6)
)
_DRAW_NOISE, _DRAW_STD, _DRAW_KEY = _DRAW_CUTOUT_X + 1, _DRAW_CUTOUT_X + 2, _DRAW_CUTOUT_X + 3
_DRAW_RANDAUGMENT = _DRAW_KEY + 2
_DRAW_CORNER, _DRAW_INNER = 0, 2  # of a patch's own stream, where there is no crop: two each


@dataclass(frozen=True)
class Program:
    """What a kernel does to every sample of a view, with the numbers of the sample's row.

    size: side of the result, pixels. operations: their numbers in their order, those that can happen. base: start from
    the BASE crop instead of from the stored image. mirrored: FLIP is done within the crop. taps: of the blur kernel (odd).
    channels: index into CHANNELS. in_place: there is nothing to read, the result holds the image already. normalized: without
    it the result is RGB in [0, 1], whatever the channels.
    """

    size: int
    operations: tuple[int, ...]
    base: bool = False
    mirrored: bool = False
    taps: int = 1
    bicubic: bool = False
    channels: int = 0
    in_place: bool = False
    normalized: bool = True

    @property
    def channel_count(self) -> int:
        return 2 if self.normalized and CHANNELS[self.channels] == "sobel" else 3


def program(cfg: ViewConfig, size: int) -> Program:
    """The program of a view of side `size`, before it is cut into patches. InputError where the view cannot be made."""
    misfit = cfg.misfit(size)
    if misfit:
        raise InputError(misfit)
    operations = [OPERATIONS.index(name) for name in cfg.order if _can_happen(cfg, name)]
    base = cfg.shared_crop or operations[:1] != [CROP]
    mirrored = not base and operations[1:2] == [FLIPPING]
    if mirrored:
        del operations[1]
    return Program(
        size=size,
        operations=tuple(operations),
        base=base,
        mirrored=mirrored,
        taps=blur_taps(cfg, size),
        bicubic=cfg.interpolation == "bicubic",
        channels=CHANNELS.index(cfg.channels),
        normalized=not cfg.patch_grid,
    )


def patch_program(cfg: ViewConfig) -> Program:
    """What is done to each patch after the view has been cut up."""
    operations = tuple(OPERATIONS.index(name) for name in cfg.patch_order if _can_happen(cfg, name))
    taps = blur_taps(cfg, cfg.patch_size)
    return Program(cfg.patch_size, operations, taps=taps, channels=CHANNELS.index(cfg.channels), in_place=True)


def plain(size: int, channels: str = "rgb") -> Program:
    """A crop and nothing else: evaluation."""
    return Program(size, (CROP,), channels=CHANNELS.index(channels))


def _can_happen(cfg: ViewConfig, name: Operation) -> bool:
    if name == "crop":
        return True
    if name == "randaugment":
        return cfg.randaugment_n > 0
    return bool(getattr(cfg, f"{name}_prob") > 0)


def parameters(
    seed: int,
    epoch: int,
    indices: NDArray[np.integer],
    view: int,
    cfg: ViewConfig,
    heights: Lengths,
    widths: Lengths,
    size: int,
) -> Table:
    """The table (N, COLUMNS) of view number `view`, of side `size`, of the samples `indices` (N,).

    heights, widths: of the stored images, pixels.
    """
    starts = counters(stream(keys.VIEWS, seed, epoch, view), indices)
    table = _drawn(starts, cfg, size)
    made = program(cfg, size)
    if cfg.shared_crop:
        together = counters(stream(keys.SHARED_CROP, seed, epoch), indices)
        table[:, BASE : BASE + 4] = _crops(together, cfg.shared_crop_scale, cfg.crop_ratio, heights, widths)
    elif made.base:
        table[:, BASE + 2], table[:, BASE + 3] = heights, widths
    if CROP in made.operations:
        seen = (size, size) if made.base else (heights, widths)
        table[:, TOP : WIDTH + 1] = _crops(starts, cfg.crop_scale, cfg.crop_ratio, *seen, cfg.central_square)
    return table


@dataclass(frozen=True)
class Patches:
    """Where a view is cut. corners: i8 (N, G*G, 2), row and column of each patch's first pixel; inner: i8 (N, G*G, 2), of
    the part that is kept, within the patch; table: (N*G*G, COLUMNS), for `patch_program`."""

    corners: NDArray[np.int64]
    inner: NDArray[np.int64]
    table: Table


def patches(seed: int, epoch: int, indices: NDArray[np.integer], view: int, cfg: ViewConfig) -> Patches:
    """The patches of view number `view`."""
    side, grid = cfg.patch_size, cfg.patch_grid
    count = grid * grid
    starts = np.stack([counters(stream(keys.PATCHES, seed, epoch, view, patch), indices) for patch in range(count)], axis=1)
    flat = starts.reshape(-1)
    cells = np.stack(np.divmod(np.arange(count), grid), axis=1) * cfg.patch_stride
    moved = np.stack([np.floor(uniform(flat, _DRAW_CORNER + i) * (cfg.patch_slack + 1)) for i in range(2)], axis=1)
    room = side - cfg.patch_inner if cfg.patch_inner else 0
    inner = np.stack([np.floor(uniform(flat, _DRAW_INNER + i) * (room + 1)) for i in range(2)], axis=1)
    shape = (len(indices), count, 2)
    corners = cells + moved.reshape(shape).astype(np.int64)
    return Patches(corners, inner.reshape(shape).astype(np.int64), _drawn(flat, cfg, side))


def centre(heights: NDArray[np.integer], widths: NDArray[np.integer], fraction: float = 1.0) -> Table:
    """The table (N, COLUMNS) of evaluation: the central square of `fraction` of the shorter side, nothing else.

    heights, widths: i8 (N,). ImageNet's protocol, 224 of the 256 pixels that the shorter side is resized to, is 0.875.
    """
    table = _nothing(len(heights))
    side = np.maximum(1, np.rint(np.minimum(heights, widths) * fraction))
    table[:, TOP], table[:, LEFT] = (heights - side) // 2, (widths - side) // 2
    table[:, HEIGHT], table[:, WIDTH] = side, side
    return table


def blur_taps(cfg: ViewConfig, size: int) -> int:
    """Length of the blur kernel of a view of side `size`, pixels: see `ViewConfig.blur_kernel`."""
    if cfg.blur_kernel == 0:  # the Gaussian at four standard deviations is 3e-4 of its peak
        return 2 * min(math.ceil(4 * cfg.blur_sigma[1]), size - 1) + 1
    return min(max(3, 2 * int(cfg.blur_kernel * size / 2) + 1), 2 * size - 1)


def _between(unit: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * unit


def _nothing(count: int) -> Table:
    """Rows in which nothing happens."""
    table = np.zeros((count, COLUMNS), np.float32)
    table[:, ORDER : ORDER + 4] = -1
    table[:, BRIGHTNESS : SATURATION + 1] = 1
    table[:, SOLARIZE] = np.inf
    return table


def _drawn(starts: NDArray[np.uint64], cfg: ViewConfig, size: int) -> Table:
    """Everything but the crops."""
    table = _nothing(len(starts))

    def happens(draw: int, probability: float) -> NDArray[np.bool_]:
        return uniform(starts, draw) < probability

    if cfg.flip_prob > 0:
        table[:, FLIP] = happens(_DRAW_FLIP, cfg.flip_prob)
    if cfg.jitter_prob > 0:
        _jitter(starts, cfg, table)
    if cfg.grayscale_prob > 0:
        table[:, GRAY] = happens(_DRAW_GRAY, cfg.grayscale_prob)
    if cfg.blur_prob > 0:
        sigma = _between(uniform(starts, _DRAW_SIGMA), *cfg.blur_sigma)
        table[:, SIGMA] = np.where(happens(_DRAW_BLUR, cfg.blur_prob), sigma, 0)
    if cfg.solarize_prob > 0:
        table[:, SOLARIZE] = np.where(happens(_DRAW_SOLARIZE, cfg.solarize_prob), cfg.solarize_threshold, np.inf)
    if cfg.rotate_prob > 0:
        unit, most = uniform(starts, _DRAW_ANGLE), cfg.rotate_degrees
        angle = _between(unit, -most, most) if most else 90 * np.floor(4 * unit)
        table[:, ROTATE] = np.where(happens(_DRAW_ROTATE, cfg.rotate_prob), angle, 0)
    if cfg.sobel_prob > 0:
        table[:, SOBEL] = happens(_DRAW_SOBEL, cfg.sobel_prob)
    if cfg.cutout_prob > 0:
        _cutout(starts, cfg, size, happens(_DRAW_CUTOUT, cfg.cutout_prob), table)
    if cfg.noise_prob > 0:
        std = _between(uniform(starts, _DRAW_STD), *cfg.noise_std)
        table[:, NOISE] = np.where(happens(_DRAW_NOISE, cfg.noise_prob), std, 0)
        for i in range(2):
            table[:, NOISE_KEY + i] = np.floor(uniform(starts, _DRAW_KEY + i) * (1 << 24))
    if cfg.randaugment_n > 0:
        chosen = randaugment.chosen(
            starts, _DRAW_RANDAUGMENT, cfg.randaugment_n, cfg.randaugment_magnitude, cfg.randaugment_std, cfg.randaugment_set
        )
        table[:, RANDAUGMENT : RANDAUGMENT + chosen.shape[1]] = chosen
    return table


def _crops(
    starts: NDArray[np.uint64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    heights: Lengths,
    widths: Lengths,
    central_square: bool = False,
) -> NDArray[np.float64]:
    """Top, left, height, width (N, 4) by torchvision's law on images of heights x widths."""
    high = np.broadcast_to(np.asarray(heights, np.float64), starts.shape)
    wide = np.broadcast_to(np.asarray(widths, np.float64), starts.shape)
    if central_square:
        side = np.minimum(high, wide)
        crops = _crops(starts, scale, ratio, side, side)
        crops[:, 0] += (high - side) // 2
        crops[:, 1] += (wide - side) // 2
        return crops
    crops = _fallback_crops(ratio, high, wide)
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    left_over = np.arange(len(starts))
    for draw in range(_DRAW_CROP, _DRAW_CROP + 4 * _CROP_TRIES, 4):
        some, h, w = starts[left_over], high[left_over], wide[left_over]
        area = h * w * _between(uniform(some, draw), *scale)
        aspect = np.exp(_between(uniform(some, draw + 1), *log_ratio))
        width, height = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (width > 0) & (width <= w) & (height > 0) & (height <= h)
        top = np.floor(uniform(some, draw + 2) * (h - height + 1))
        left = np.floor(uniform(some, draw + 3) * (w - width + 1))
        crops[left_over[fits]] = np.stack([top, left, height, width], axis=1)[fits]
        left_over = left_over[~fits]
        if not len(left_over):
            break
    return crops


def _fallback_crops(ratio: tuple[float, float], high: NDArray[np.float64], wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """The central crops (N, 4) that torchvision takes after ten misses: the image's ratio clipped to the allowed range."""
    aspect = wide / high
    height = np.where(aspect < min(ratio), np.rint(wide / min(ratio)), high)
    width = np.where(aspect > max(ratio), np.rint(high * max(ratio)), wide)
    return np.stack([(high - height) // 2, (wide - width) // 2, height, width], axis=1)


def _jitter(starts: NDArray[np.uint64], cfg: ViewConfig, table: Table) -> None:
    """Fill the jitter's order and factors; an operation of strength zero takes no place, as in torchvision."""
    order = np.tile(np.arange(4), (len(starts), 1))
    rows = np.arange(len(starts))
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


def _cutout(starts: NDArray[np.uint64], cfg: ViewConfig, size: int, applied: NDArray[np.bool_], table: Table) -> None:
    """A square around a uniform centre, cut off at the border (DeVries and Taylor, 1708.04552)."""
    side = round(cfg.cutout_side * size)
    for axis, draw in enumerate((_DRAW_CUTOUT_Y, _DRAW_CUTOUT_X)):
        first = np.floor(uniform(starts, draw) * size) - side // 2
        begin, end = np.clip(first, 0, size), np.clip(first + side, 0, size)
        table[:, CUTOUT + axis] = np.where(applied, begin, 0)
        table[:, CUTOUT + 2 + axis] = np.where(applied, end - begin, 0)
