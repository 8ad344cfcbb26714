"""The numba kernel's operations that move pixels: resampling a crop, turning, shifting, covering.

An image is f4[3, S * S] in [0, 1]. `scratch` is f4[S * S] of no particular content.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmark.data import views as column

_ZERO, _ONE = np.float32(0), np.float32(1)
_inner = njit(nogil=True, error_model="numpy")


@_inner
def filter_taps(length, size, mirrored, bicubic, first, weights):  # type: ignore[no-untyped-def]
    """Antialiased resampling of `length` pixels to `size`: fills first i8[size] and weights f4[taps, size].

    The filters of torch.nn.functional.interpolate(antialias=True): a triangle, or Keys' cubic with a = -0.5; they widen with
    the scale when an image is reduced. Returns how many rows of weights are in use; shorter filters are padded with zeros.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch if bicubic else stretch
    used = 0
    for i in range(size):
        place = size - 1 - i if mirrored > 0 else i
        middle = scale * (i + 0.5)
        low = max(int(middle - support + 0.5), 0)
        count = min(int(middle + support + 0.5), length) - low
        total = 0.0
        for k in range(count):
            total += _filter(abs(k + low - middle + 0.5) / stretch, bicubic)
        for k in range(weights.shape[0]):
            weights[k, place] = _filter(abs(k + low - middle + 0.5) / stretch, bicubic) / total if k < count else 0.0
        first[place] = low
        used = max(used, count)
    return used


@_inner
def _filter(distance, bicubic):  # type: ignore[no-untyped-def]
    if not bicubic:
        return max(0.0, 1.0 - distance)
    if distance < 1.0:
        return (1.5 * distance - 2.5) * distance * distance + 1.0
    return ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0 if distance < 2.0 else 0.0


@_inner
def crop(storage, start, pitch, span, rows, row_weights, row_taps, columns, column_weights, column_taps, line, image):  # type: ignore[no-untyped-def]
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
            weights = column_weights[0]
            for x in range(size):
                target[x] = weights[x] * line[np.uint64(3 * columns[x] + c)]
            for k in range(1, column_taps):
                weights = column_weights[k]
                for x in range(size):
                    target[x] += weights[x] * line[np.uint64(3 * columns[x] + c + 3 * k)]


@_inner
def recrop(image, size, top, left, width, rows, row_weights, row_taps, columns, column_weights, column_taps, line, scratch):  # type: ignore[no-untyped-def]
    """Resample a crop of the image itself, plane by plane."""
    for c in range(3):
        plane = image[c]
        scratch[:] = plane
        for y in range(size):
            for x in range(width):
                line[x] = _ZERO
            for k in range(row_taps):
                weight = row_weights[k, y]
                if weight == 0:
                    continue  # padding of the filter: may lie outside of the image
                source = scratch[(top + rows[y] + k) * size + left :]
                for x in range(width):
                    line[x] += weight * source[x]
            target = plane[y * size : (y + 1) * size]
            for x in range(size):
                value = _ZERO
                for k in range(column_taps):
                    value += column_weights[k, x] * line[columns[x] + k]
                target[x] = value


@_inner
def mirror(image, size):  # type: ignore[no-untyped-def]
    for c in range(3):
        for y in range(size):
            row = image[c, y * size : (y + 1) * size]
            for x in range(size // 2):
                row[x], row[size - 1 - x] = row[size - 1 - x], row[x]


@_inner
def rotate(image, size, degrees, mean, filled, scratch):  # type: ignore[no-untyped-def]
    """Counter-clockwise about the middle; see _move for `filled`."""
    angle = degrees * (math.pi / 180)
    sine, cosine = math.sin(angle), math.cos(angle)
    middle = (size - 1) / 2
    x0, y0 = middle - cosine * middle + sine * middle, middle - sine * middle - cosine * middle
    move(image, size, cosine, -sine, x0, sine, cosine, y0, mean, filled, scratch)


@_inner
def move(image, size, xx, xy, x0, yx, yy, y0, mean, filled, scratch):  # type: ignore[no-untyped-def]
    """Pixel (x, y) from (xx x + xy y + x0, yx x + yy y + y0), bilinear; outside is black.

    filled: fade into the mean colour by the share of the weight that lies outside, as torchvision does with a fill.
    """
    for c in range(3):
        plane, colour = image[c], mean[c]
        scratch[:] = plane
        for y in range(size):
            for x in range(size):
                at_x, at_y = xx * x + xy * y + x0, yx * x + yy * y + y0
                column_0, row_0 = int(np.floor(at_x)), int(np.floor(at_y))
                part_x, part_y = np.float32(at_x - column_0), np.float32(at_y - row_0)
                value, inside = _ZERO, _ZERO
                for i in range(2):
                    for j in range(2):
                        row, col = row_0 + i, column_0 + j
                        if 0 <= row < size and 0 <= col < size:
                            weight = (part_y if i else _ONE - part_y) * (part_x if j else _ONE - part_x)
                            value += weight * scratch[row * size + col]
                            inside += weight
                plane[y * size + x] = inside * (value - colour) + colour if filled else value


@_inner
def cut_out(image, size, p, mean):  # type: ignore[no-untyped-def]
    top, left = int(p[column.CUTOUT]), int(p[column.CUTOUT + 1])
    height, width = int(p[column.CUTOUT + 2]), int(p[column.CUTOUT + 3])
    for c in range(3):
        for y in range(top, top + height):
            image[c, y * size + left : y * size + left + width] = mean[c]
