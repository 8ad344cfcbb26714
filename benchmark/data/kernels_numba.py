"""The CPU kernel: applies a table of augmentation parameters to stored images, one sample after the other.

Every operation is torchvision's functional one on float tensors in [0, 1] (same formulas, same order, same clamping), fused
so that a sample stays in the processor's cache from the stored bytes to the normalized output. There is no parallel loop in
here: the functions release the interpreter's lock and the caller gives each of its threads other samples. That compiles
faster than numba's parallel loops, needs none of its threading layers, which are not safe together with forks or other
threads, and makes the result independent of the number of threads by construction. The machine code is cached on disk
(NUMBA_CACHE_DIR, or beside this file): the compiler runs once per machine, not once per process.
"""

from __future__ import annotations

import functools
import pickle
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

import methods.views
from benchmark.data import keys, randaugment
from benchmark.data import numba_colour as colour
from benchmark.data import numba_geometry as geometry
from benchmark.data import views as column
from benchmark.data.views import CHANNELS, Program, Table
from methods.views import RANDAUGMENT_MOST

_ZERO, _ONE = np.float32(0), np.float32(1)
_LAB, _SOBEL, _NONE = CHANNELS.index("lab"), CHANNELS.index("sobel"), -1
# What numba raises where its cache cannot be used: no folder to write to, no room in it, files damaged.
_CACHE_ERRORS = (RuntimeError, OSError, EOFError, pickle.UnpicklingError)


def apply(
    storage: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    table: Table,
    made: Program,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the view of each sample into out (N, C, S, S), C-contiguous.

    storage: any bytes; sample n is the heights[n] x widths[n] x 3 pixels that start at offsets[n]. A program that works in
    place takes none of these and finds its images (N, 3, S, S) in [0, 1] in `out`.
    """
    count, channels, size, _ = out.shape
    storage = storage.view()
    storage.flags.writeable = False  # one type, whether it is a mapped file or an array: one compilation
    numbers = np.array(made.operations, np.int64)
    switches = made.base, made.mirrored, made.taps, made.bicubic, made.channels if made.normalized else _NONE, made.in_place
    flat = out.reshape(count, channels, size * size)
    _augment()(storage, offsets, heights, widths, table, numbers, *switches, mean, std, size, flat)


def load() -> None:
    """Compile the kernel, or take it from numba's disk cache."""
    _augment()


@njit(nogil=True, error_model="numpy")
def _randaugment(image, size, number, argument, mean, scratch):  # type: ignore[no-untyped-def]
    """One operation of the module `randaugment`."""
    if number == randaugment.AUTOCONTRAST:
        colour.autocontrast(image)
    elif number == randaugment.EQUALIZE:
        colour.equalize(image)
    elif number == randaugment.INVERT:
        colour.solarize(image, np.float32(-1))
    elif number == randaugment.POSTERIZE:
        colour.posterize(image, np.float32(1 << int(argument)))
    elif number == randaugment.SOLARIZE:
        colour.solarize(image, argument)
    elif number == randaugment.SOLARIZE_ADD:
        colour.solarize_add(image, argument)
    elif number == randaugment.SATURATION:
        colour.adjust_saturation(image, argument)
    elif number == randaugment.CONTRAST:
        colour.adjust_contrast(image, argument)
    elif number == randaugment.BRIGHTNESS:
        colour.adjust_brightness(image, argument)
    elif number == randaugment.SHARPNESS:
        colour.sharpen(image, size, argument, scratch)
    elif number == randaugment.ROTATE:
        geometry.rotate(image, size, argument, mean, True, scratch)
    else:
        across, down, shift_x, shift_y = 0.0, 0.0, 0.0, 0.0
        if number == randaugment.SHEAR_X:  # about the corner, half a pixel from the first pixel's middle
            across, shift_x = float(argument), 0.5 * argument
        elif number == randaugment.SHEAR_Y:
            down, shift_y = float(argument), 0.5 * argument
        elif number == randaugment.TRANSLATE_X:
            shift_x = float(argument) * size
        elif number == randaugment.TRANSLATE_Y:
            shift_y = float(argument) * size
        geometry.move(image, size, 1.0, across, shift_x, down, 1.0, shift_y, mean, True, scratch)


@functools.cache
def _augment() -> Callable[..., None]:
    """The compiled loop over samples. numba looks at the date of this file alone to see whether what it has in its cache is
    stale; so the version of the files whose code or numbers the loop takes in is made a part of the key."""
    modules = (colour, geometry, keys, column, randaugment, methods.views)
    files = (Path(__file__), *(Path(str(module.__file__)) for module in modules))
    version = zlib.crc32(b"".join(file.read_bytes() for file in files))
    try:
        return _ready(_compiled(version, cache=True))
    except _CACHE_ERRORS as error:
        warnings.warn(
            f"numba's cache cannot be used ({error}): every process compiles the augmentation anew, which takes seconds; "
            f"set NUMBA_CACHE_DIR to a folder that can be written, or empty the one it has",
            stacklevel=2,
        )
        return _ready(_compiled(version, cache=False))


def _ready(augment: Callable[..., None]) -> Callable[..., None]:
    """The function after one call, with no samples, of the types that it will be called with."""
    none, nothing = np.empty(0, np.int64), np.empty(0, np.uint8)
    nothing.flags.writeable = False
    table, three = np.empty((0, column.COLUMNS), np.float32), np.ones(3, np.float32)
    out = np.empty((0, 3, 1), np.float32)
    augment(nothing, none, none, none, table, none, False, False, 1, False, 0, False, three, three, 1, out)
    return augment


def _compiled(version: int, cache: bool) -> Any:
    @njit(nogil=True, cache=cache, error_model="numpy")
    def augment(  # type: ignore[no-untyped-def]
        storage, offsets, heights, widths, table, operations,
        base, mirrored, taps, bicubic, channels, in_place, mean, std, size, out,
    ):  # fmt: skip
        """table f4[N, COLUMNS], operations i8[:], out f4[N, channels, size * size]."""
        _ = version  # as a part of the closure it is a part of the cache's key
        longest = size
        if not in_place:
            for n in range(len(table)):
                longest = max(longest, heights[n], widths[n])
        reach = 2.0 if bicubic else 1.0
        most = 2 * int(np.ceil(reach * longest / size)) + 1  # taps of the widest antialiasing filter
        rows, columns = np.empty(size, np.int64), np.empty(size, np.int64)
        row_weights, column_weights = np.empty((most, size), np.float32), np.empty((most, size), np.float32)
        line = np.zeros(3 * (longest + most), np.float32)
        kernel, padded = np.empty(taps, np.float32), np.empty(size + taps, np.float32)
        scratch = np.empty(size * size, np.float32)
        spare = np.empty((3, size * size if channels == _SOBEL else 0), np.float32)
        for n in range(len(table)):
            p = table[n]
            image = spare if channels == _SOBEL else out[n]
            if not in_place:
                first = column.BASE if base else column.TOP
                height, width = int(p[first + 2]), int(p[first + 3])
                flip = p[column.FLIP] if mirrored else _ZERO
                row_taps = geometry.filter_taps(height, size, _ZERO, bicubic, rows, row_weights)
                column_taps = geometry.filter_taps(width, size, flip, bicubic, columns, column_weights)
                pitch = 3 * widths[n]
                start = offsets[n] + int(p[first]) * pitch + 3 * int(p[first + 1])
                geometry.crop(
                    storage, start, pitch, 3 * width, rows, row_weights, row_taps,
                    columns, column_weights, column_taps, line, image,
                )  # fmt: skip
                if bicubic:
                    colour.clamp(image)
            for at in range(operations.size):
                operation = operations[at]
                if operation == column.CROP:
                    if base or at > 0:
                        height, width = int(p[column.HEIGHT]), int(p[column.WIDTH])
                        row_taps = geometry.filter_taps(height, size, _ZERO, bicubic, rows, row_weights)
                        column_taps = geometry.filter_taps(width, size, _ZERO, bicubic, columns, column_weights)
                        geometry.recrop(
                            image, size, int(p[column.TOP]), int(p[column.LEFT]), width, rows, row_weights, row_taps,
                            columns, column_weights, column_taps, line, scratch,
                        )  # fmt: skip
                        if bicubic:
                            colour.clamp(image)
                elif operation == column.FLIPPING:
                    if p[column.FLIP] > 0:
                        geometry.mirror(image, size)
                elif operation == column.ROTATING:
                    if p[column.ROTATE] != 0:
                        geometry.rotate(image, size, p[column.ROTATE], mean, False, scratch)
                elif operation == column.JITTER:
                    colour.jitter(image, p)
                elif operation == column.GRAYSCALE:
                    if p[column.GRAY] > 0:
                        colour.adjust_saturation(image, _ZERO)
                elif operation == column.BLUR:
                    if p[column.SIGMA] > 0:
                        colour.blur(image, size, p[column.SIGMA], kernel, scratch, padded)
                elif operation == column.SOLARIZING:
                    colour.solarize(image, p[column.SOLARIZE])
                elif operation == column.GRADIENT:
                    if p[column.SOBEL] > 0:
                        colour.gradient(image, size, scratch)
                elif operation == column.RANDAUGMENTING:
                    for slot in range(RANDAUGMENT_MOST):
                        number = int(p[column.RANDAUGMENT + 2 * slot])
                        if number != randaugment.IDENTITY:
                            _randaugment(image, size, number, p[column.RANDAUGMENT + 2 * slot + 1], mean, scratch)
                elif operation == column.CUTTING:
                    geometry.cut_out(image, size, p, mean)
                elif operation == column.NOISING and p[column.NOISE] > 0:
                    colour.add_noise(image, p[column.NOISE], p[column.NOISE_KEY], p[column.NOISE_KEY + 1])
            if channels == _LAB:
                colour.to_lab(image)
            elif channels != _NONE:
                for c in range(3):
                    plane, shift, scale = image[c], mean[c], _ONE / std[c]
                    for i in range(plane.size):
                        plane[i] = (plane[i] - shift) * scale
                if channels == _SOBEL:
                    colour.to_gradients(image, size, scratch, out[n])

    return augment
