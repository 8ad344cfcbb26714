"""The CPU kernel: applies a table of augmentation parameters to stored images, one sample after the other.

Every operation is torchvision's functional one on float tensors in [0, 1] (same formulas, same order, same clamping), fused
so that a sample stays in the processor's cache from the stored bytes to the normalized output. There is no parallel loop in
here: the functions release the interpreter's lock and `apply` gives each thread its own samples. That compiles faster than
numba's parallel loops, needs none of its threading layers, which are not safe together with forks or other threads, and
makes the result independent of the number of threads by construction. The machine code is cached on disk (NUMBA_CACHE_DIR,
or beside this file): the compiler runs once per machine, not once per process.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmark.data import views as column
from benchmark.data.views import Table

_ZERO, _ONE, _SIX = np.float32(0), np.float32(1), np.float32(6)
# ITU-R 601-2 luma with torchvision's digits.
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)

# No fast-math: a result must not depend on how a loop was vectorized. Only the entry point is cached, its machine code
# contains the functions it calls.
_inner = njit(nogil=True, error_model="numpy")


def apply(
    storage: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    side: int,
    table: Table,
    blur: int,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    out: NDArray[np.float32],
    threads: ThreadPoolExecutor | None = None,
    shares: int = 1,
) -> None:
    """Write the view of each sample into out (N, 3, O, O).

    storage: any bytes; sample n is the side x side x 3 pixels that start at offsets[n]. blur: taps of the blur kernel (odd).
    The samples are cut into `shares` runs: the caller's thread takes the last, `threads` the others.
    """
    count, _, size, _ = out.shape
    storage = storage.view()
    storage.flags.writeable = False  # one type, whether it is a mapped file or an array: one compilation
    flat = out.reshape(count, 3, size * size)
    run = partial(_augment, storage, offsets, side, table, blur, mean, std, size, flat)
    shares = shares if threads else 1
    *others, own = pairwise(count * i // shares for i in range(shares + 1))
    waiting = [threads.submit(run, low, high) for low, high in others] if threads else []
    run(*own)
    for future in waiting:
        future.result()


def load() -> None:
    """Compile the kernel, or take it from numba's disk cache."""
    nothing = np.empty(0, np.uint8), np.empty(0, np.int64), 1, np.empty((0, column.COLUMNS), np.float32), 1
    apply(*nothing, np.zeros(3, np.float32), np.ones(3, np.float32), np.empty((0, 3, 1, 1), np.float32))


@njit(nogil=True, cache=True, error_model="numpy")
def _augment(storage, offsets, side, table, blur, mean, std, size, out, low, high):  # type: ignore[no-untyped-def]
    """Samples low..high of the batch. storage u1[:], offsets i8[:], table f4[N, COLUMNS], out f4[N, 3, size * size]."""
    most = 2 * int(np.ceil(max(side / size, 1.0))) + 1  # taps of the widest antialiasing filter
    rows, columns = np.empty(size, np.int64), np.empty(size, np.int64)
    row_weights, column_weights = np.empty((most, size), np.float32), np.empty((most, size), np.float32)
    line = np.zeros(3 * (side + most), np.float32)
    kernel = np.empty(blur, np.float32)
    scratch = np.empty(size * size, np.float32)
    padded = np.empty(size + blur, np.float32)
    for n in range(low, high):
        p = table[n]
        image = out[n]
        height, width = int(p[column.HEIGHT]), int(p[column.WIDTH])
        row_taps = _taps(height, size, _ZERO, rows, row_weights)
        column_taps = _taps(width, size, p[column.FLIP], columns, column_weights)
        start = offsets[n] + 3 * (int(p[column.TOP]) * side + int(p[column.LEFT]))
        _crop(
            storage, start, 3 * side, 3 * width, rows, row_weights, row_taps, columns, column_weights, column_taps, line, image
        )
        for i in range(4):
            operation = int(p[column.ORDER + i])
            if operation == 0:
                _scale(image, p[column.BRIGHTNESS])
            elif operation == 1:
                _contrast(image, p[column.CONTRAST])
            elif operation == 2:
                _saturate(image, p[column.SATURATION])
            elif operation == 3:
                _turn_hue(image, p[column.HUE])
        if p[column.GRAY] > 0:
            _saturate(image, _ZERO)
        if p[column.SIGMA] > 0:
            _blur(image, size, p[column.SIGMA], kernel, scratch, padded)
        threshold = p[column.SOLARIZE]
        for c in range(3):
            plane, shift, scale = image[c], mean[c], _ONE / std[c]
            for i in range(plane.size):
                value = plane[i]
                value = _ONE - value if value >= threshold else value
                plane[i] = (value - shift) * scale


@_inner
def _taps(length, size, mirrored, first, weights):  # type: ignore[no-untyped-def]
    """Antialiased bilinear resampling of `length` pixels to `size`: fills first i8[size] and weights f4[taps, size].

    The triangle filter of torch.nn.functional.interpolate(antialias=True): it widens with the scale when an image is
    reduced. Returns how many rows of weights are in use; shorter filters are padded with zero weights.
    """
    scale = length / size
    support = max(scale, 1.0)
    used = 0
    for i in range(size):
        place = size - 1 - i if mirrored > 0 else i
        middle = scale * (i + 0.5)
        low = max(int(middle - support + 0.5), 0)
        count = min(int(middle + support + 0.5), length) - low
        total = 0.0
        for k in range(count):
            total += max(0.0, 1.0 - abs(k + low - middle + 0.5) / support)
        for k in range(weights.shape[0]):
            weight = max(0.0, 1.0 - abs(k + low - middle + 0.5) / support) / total if k < count else 0.0
            weights[k, place] = weight
        first[place] = low
        used = max(used, count)
    return used


@_inner
def _crop(storage, start, pitch, span, rows, row_weights, row_taps, columns, column_weights, column_taps, line, image):  # type: ignore[no-untyped-def]
    """Resample a crop into image f4[3, size * size]: first down the columns into one line, then along that line.

    start: index of the crop's first byte; pitch, span: bytes of a stored row and of a crop's row.
    """
    size = rows.size
    for y in range(size):
        for k in range(row_taps):
            weight = row_weights[k, y] / np.float32(255)
            if weight == 0 and k > 0:
                continue  # padding of the filter: may lie outside of the image
            begin = start + (rows[y] + k) * pitch
            source = storage[begin : begin + span]
            if k == 0:
                for x in range(span):
                    line[x] = weight * np.float32(source[x])
            else:
                for x in range(span):
                    line[x] += weight * np.float32(source[x])
        for c in range(3):
            target = image[c, y * size : (y + 1) * size]
            for x in range(size):
                at = np.uint64(3 * columns[x] + c)
                value = column_weights[0, x] * line[at]
                for k in range(1, column_taps):
                    at += np.uint64(3)
                    value += column_weights[k, x] * line[at]
                target[x] = value


@_inner
def _clamp(value):  # type: ignore[no-untyped-def]
    return min(max(value, _ZERO), _ONE)


@_inner
def _scale(image, factor):  # type: ignore[no-untyped-def]
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = _clamp(plane[i] * factor)


@_inner
def _contrast(image, factor):  # type: ignore[no-untyped-def]
    """Blend with the mean grey of the whole image."""
    red, green, blue = image[0], image[1], image[2]
    total = 0.0
    for i in range(red.size):
        total += red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE
    grey = (_ONE - factor) * np.float32(total / red.size)
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = _clamp(factor * plane[i] + grey)


@_inner
def _saturate(image, factor):  # type: ignore[no-untyped-def]
    """Blend each pixel with its own grey; factor 0 is the grey image."""
    red, green, blue = image[0], image[1], image[2]
    for i in range(red.size):
        grey = (_ONE - factor) * (red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE)
        red[i] = _clamp(factor * red[i] + grey)
        green[i] = _clamp(factor * green[i] + grey)
        blue[i] = _clamp(factor * blue[i] + grey)


@_inner
def _turn_hue(image, turn):  # type: ignore[no-untyped-def]
    """Turn the hue by a fraction of the circle: RGB -> HSV -> RGB without branches.

    A channel of an HSV colour is v - v s clamp(min(k, 4 - k), 0, 1) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for red, green
    and blue, and v s is the range of the channels.
    """
    red, green, blue = image[0], image[1], image[2]
    shift = _SIX * turn
    for i in range(red.size):
        r, g, b = red[i], green[i], blue[i]
        high = max(r, max(g, b))
        spread = high - min(r, min(g, b))
        inverse = _ONE / (spread if spread > 0 else _ONE)
        on_blue = (r - g) * inverse + np.float32(4)
        on_green = (b - r) * inverse + np.float32(2)
        on_red = (g - b) * inverse
        hue = (on_red if high == r else (on_green if high == g else on_blue)) + shift
        hue = hue + _SIX if hue < 0 else hue
        red[i] = _channel(hue + np.float32(5), high, spread)
        green[i] = _channel(hue + np.float32(3), high, spread)
        blue[i] = _channel(hue + np.float32(1), high, spread)


@_inner
def _channel(k, high, spread):  # type: ignore[no-untyped-def]
    k = k - _SIX if k >= _SIX else k
    k = k - _SIX if k >= _SIX else k
    return high - spread * _clamp(min(k, np.float32(4) - k))


@_inner
def _blur(image, size, sigma, kernel, scratch, padded):  # type: ignore[no-untyped-def]
    """Gaussian blur with reflected borders: rows into `scratch`, then columns back into the image."""
    taps = kernel.size
    radius = taps // 2
    total = 0.0
    for k in range(taps):
        kernel[k] = np.exp(-0.5 * ((k - radius) / sigma) ** 2)
        total += kernel[k]
    for k in range(taps):
        kernel[k] /= np.float32(total)
    for c in range(3):
        plane = image[c]
        for y in range(size):
            row = plane[y * size : (y + 1) * size]
            for x in range(size):
                padded[radius + x] = row[x]
            for k in range(1, radius + 1):
                padded[radius - k] = row[k]
                padded[radius + size - 1 + k] = row[size - 1 - k]
            target = scratch[y * size : (y + 1) * size]
            for x in range(size):
                target[x] = kernel[0] * padded[x]
            for k in range(1, taps):
                weight = kernel[k]
                for x in range(size):
                    target[x] += weight * padded[x + k]
        for y in range(size):
            target = plane[y * size : (y + 1) * size]
            for k in range(taps):
                at = abs(y + k - radius)
                at = 2 * (size - 1) - at if at >= size else at
                row = scratch[at * size : (at + 1) * size]
                weight = kernel[k]
                if k == 0:
                    for x in range(size):
                        target[x] = weight * row[x]
                else:
                    for x in range(size):
                        target[x] += weight * row[x]
