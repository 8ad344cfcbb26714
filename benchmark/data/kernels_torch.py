"""The kernel for any torch device: applies a table of augmentation parameters to a whole batch at a time.

The same operations as `kernels_numba`, torchvision's formulas on float32 in [0, 1], but batched: every step of a view is a few
tensor operations on the samples that it concerns. Which these are is read from the table on the CPU, and all that the device
has to know of it, sample numbers and arguments, goes there in two copies per chunk of samples. So nothing ever waits for the
device, and a GPU runs ahead undisturbed. No random number is drawn: noise comes from the keys in the table.

Resampling is a linear map per axis, a matrix W with a row for each pixel of the result: a crop is Wy image Wx^T, a blur the
same with banded matrices. These are batched matrix products in full float32: TF32 and autocast, which the training around may
have switched on and which would cost three of the seven digits, are off meanwhile. Large images on a CPU, and photographs of
different sizes, are resampled one by one by torch's antialiased interpolation, the definition of W.

Results agree with the definition (`by_torchvision`) to float32 rounding. The last bits may depend on the device and on the
size of the batch, as with all libraries for matrix products.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import kernels_torch_color as color
from benchmark.data import kernels_torch_space as space
from benchmark.data import randaugment
from benchmark.data import views as column
from benchmark.data.views import CHANNELS, Program, Table
from methods.views import RANDAUGMENT_MOST

# Bytes of one float32 copy of the images that are worked on at a time; all intermediate results are a few times as much. A
# processor is fastest where a chunk fits into its cache, a GPU where there is much to do at once.
_CHUNK_BYTES = {"cpu": 1 << 22}
_CHUNK_BYTES_ELSEWHERE = 1 << 26
_MATRICES_UP_TO = {"cpu": 64}  # pixels of a stored image's side; larger ones are resampled one by one there

# One operation on images f4 (n, 3, S, S), which it may overwrite, with arguments f4 (n, m), both on the device.
Change = Callable[[Tensor, Tensor], Tensor]
Colour = Sequence[float] | NDArray[np.floating]


@torch.no_grad()
def apply(images: Tensor | Sequence[Tensor], table: Table, program: Program, mean: Colour, std: Colour) -> Tensor:
    """The view of each sample, f4 (N, C, S, S), normalized, on the images' device; always a new tensor.

    images: u1 (N, H, W, 3); or a sequence of N photographs u1 (H_n, W_n, 3) on one device; or, where program.in_place,
    f4 (N, 3, S, S) in [0, 1]. table: (N, COLUMNS), on the CPU. mean, std: of RGB, in [0, 1].
    """
    size = program.size
    if len(images) != len(table):
        raise ValueError(f"{len(images)} images do not go with a table of {len(table)} rows")
    if not len(images):
        device = images.device if isinstance(images, Tensor) else None
        return torch.empty((0, program.channel_count, size, size), device=device)
    device = images[0].device
    pixels = max(size * size, images[0].numel() // 3 if isinstance(images, Tensor) else 0)
    at_once = max(1, _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE) // (12 * pixels))
    with _FullPrecision(device):
        done = [
            _chunk(images[low : low + at_once], table[low : low + at_once], program, mean, std)
            for low in range(0, len(images), at_once)
        ]
    return done[0] if len(done) == 1 else torch.cat(done)


class _FullPrecision:
    """Matrix products in float32 proper within the block, whatever the training around asks for.

    The setting is the process's: among threads the first sets it and the last puts back what was there.
    """

    _lock = threading.Lock()
    _inside = 0
    _before: tuple[str, ...] = ()

    def __init__(self, device: torch.device) -> None:
        self._cast = torch.autocast(device.type, enabled=False)

    def __enter__(self) -> None:
        settings = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        kind = _FullPrecision
        with kind._lock:
            if not kind._inside:
                kind._before = tuple(setting.fp32_precision for setting in settings)
                for setting in settings:
                    setting.fp32_precision = "ieee"
            kind._inside += 1
        self._cast.__enter__()

    def __exit__(self, *error: object) -> None:
        self._cast.__exit__(*error)
        settings = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        kind = _FullPrecision
        with kind._lock:
            kind._inside -= 1
            if not kind._inside:
                for setting, before in zip(settings, kind._before, strict=True):
                    setting.fp32_precision = before


def _chunk(images: Tensor | Sequence[Tensor], table: Table, program: Program, mean: Colour, std: Colour) -> Tensor:
    """`apply` for as many samples as are worked on at a time."""
    device = images[0].device
    cropped = False
    if program.in_place:
        assert isinstance(images, Tensor)
        image = images.clone()
    elif isinstance(images, Tensor) and max(images.shape[1:3]) <= _MATRICES_UP_TO.get(device.type, max(images.shape[1:3])):
        image = space.floats(images)
    else:
        image, cropped = space.resized(images, _rectangle(table, program), program.size, program.bicubic), True
    steps = _concerned(_plan(table, program, mean, std, cropped), len(table))
    for change, rows, numbers in _sent(steps, device):
        if rows is None:
            image = change(image, numbers)
        else:
            image.index_copy_(0, rows, change(image.index_select(0, rows), numbers))
    return image.contiguous()


@dataclass(frozen=True)
class _Step:
    """change: applied to the samples `rows` i8 (n,), None for all of them, with their arguments `numbers` f4 (n or 1, m)."""

    change: Change
    rows: NDArray[np.int64] | None
    numbers: NDArray[np.float32]


def _rectangle(table: Table, program: Program) -> Table:
    """The crop that is taken from the stored images: top, left, height, width (N, 4)."""
    first = column.BASE if program.base else column.TOP
    return table[:, first : first + 4]


_Planned = tuple[Change, NDArray[np.bool_], NDArray[np.float32]]


def _plan(table: Table, program: Program, mean: Colour, std: Colour, cropped: bool) -> Iterator[_Planned]:
    """Every operation in its order: (change, which samples it concerns (N,), the arguments of all samples (N, m))."""
    size = program.size
    everything = np.ones(len(table), np.bool_)
    colour = np.broadcast_to(np.array(mean, np.float32), (len(table), 3))
    no_numbers = table[:, :0]
    crop = partial(space.cropped, size=size, bicubic=program.bicubic)
    flips = table[:, column.FLIP, None] if program.mirrored else np.zeros((len(table), 1), np.float32)
    if not program.in_place and not cropped:
        yield crop, everything, _columns(_rectangle(table, program), flips)
    elif program.mirrored:
        yield space.flipped, flips[:, 0] > 0, no_numbers
    for at, operation in enumerate(program.operations):
        if operation == column.CROP and (at or program.base):
            again = table[:, column.TOP : column.FLIP]
            yield crop, everything, _columns(again, np.zeros(len(again)))
        elif operation == column.FLIPPING:
            yield space.flipped, table[:, column.FLIP] > 0, no_numbers
        elif operation == column.ROTATING:
            yield from _rotations(table[:, column.ROTATE], colour, filled=False)
        elif operation == column.JITTER:
            for place in range(column.ORDER, column.ORDER + 4):
                for number, change in enumerate(_JITTER):
                    factors = column.BRIGHTNESS + number
                    yield change, table[:, place] == number, table[:, factors : factors + 1]
        elif operation == column.GRAYSCALE:
            yield color.grey, table[:, column.GRAY] > 0, no_numbers
        elif operation == column.BLUR:
            sigma = table[:, column.SIGMA]
            yield partial(space.blurred, taps=program.taps), sigma > 0, sigma[:, None]
        elif operation == column.SOLARIZING:
            threshold = table[:, column.SOLARIZE]
            yield color.solarized, threshold <= 1, threshold[:, None]
        elif operation == column.GRADIENT:
            yield space.gradient, table[:, column.SOBEL] > 0, no_numbers
        elif operation == column.RANDAUGMENTING:
            for slot in range(RANDAUGMENT_MOST):
                pair = column.RANDAUGMENT + 2 * slot
                yield from _randaugment(table[:, pair].astype(np.int64), table[:, pair + 1], size, colour)
        elif operation == column.CUTTING:
            square = table[:, column.CUTOUT : column.CUTOUT + 4]
            yield space.cut_out, (square[:, 2] > 0) & (square[:, 3] > 0), _columns(square, colour)
        elif operation == column.NOISING:
            amount = table[:, [column.NOISE, column.NOISE_KEY, column.NOISE_KEY + 1]]
            yield color.noisy, amount[:, 0] > 0, amount
    if not program.normalized:
        return
    normalization = np.array([*mean, *std], np.float32)[None]
    yield color.CHANNELS[CHANNELS[program.channels]], everything, normalization


_JITTER: tuple[Change, ...] = (color.brightness, color.contrast, color.saturation, color.hue)
_RANDAUGMENT: dict[int, Change] = {
    randaugment.AUTOCONTRAST: color.autocontrast,
    randaugment.EQUALIZE: color.equalized,
    randaugment.INVERT: color.inverted,
    randaugment.POSTERIZE: color.posterized,
    randaugment.SOLARIZE: color.solarized,
    randaugment.SOLARIZE_ADD: color.solarize_added,
    randaugment.SATURATION: color.saturation,
    randaugment.CONTRAST: color.contrast,
    randaugment.BRIGHTNESS: color.brightness,
    randaugment.SHARPNESS: space.sharpened,
}


def _rotations(degrees: NDArray[np.float32], colour: NDArray[np.float32], filled: bool) -> Iterator[_Planned]:
    """Counter-clockwise; right angles move whole pixels, as in torchvision. degrees: (N,)."""
    turns = degrees % 360
    for quarters in (1, 2, 3):
        yield partial(space.turned, quarters=quarters), turns == 90 * quarters, degrees[:, None]
    angle = np.radians(degrees.astype(np.float64))
    cosine, sine, nothing = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    matrix = [cosine, -sine, nothing, sine, cosine, nothing]
    yield partial(space.moved, filled=filled), turns % 90 != 0, _columns(*matrix, colour)


def _randaugment(
    numbers: NDArray[np.int64], arguments: NDArray[np.float32], size: int, colour: NDArray[np.float32]
) -> Iterator[_Planned]:
    """One slot of RandAugment. numbers, arguments: (N,)."""
    for number, change in _RANDAUGMENT.items():
        yield change, numbers == number, arguments[:, None]
    yield from _rotations(np.where(numbers == randaugment.ROTATE, arguments, np.float32(0)), colour, filled=True)
    argument = arguments.astype(np.float64)
    one, nothing = np.ones_like(argument), np.zeros_like(argument)
    # Positions are taken from the image's middle here: a shear from its corner moves the middle, too.
    matrices = {
        randaugment.SHEAR_X: (one, argument, argument * size / 2, nothing, one, nothing),
        randaugment.SHEAR_Y: (one, nothing, nothing, argument, one, argument * size / 2),
        randaugment.TRANSLATE_X: (one, nothing, argument * size, nothing, one, nothing),
        randaugment.TRANSLATE_Y: (one, nothing, nothing, nothing, one, argument * size),
    }
    for number, matrix in matrices.items():
        yield partial(space.moved, filled=True), numbers == number, _columns(*matrix, colour)


def _columns(*parts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Columns (N,) and blocks of columns (N, m) side by side."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float32)


def _concerned(planned: Iterator[_Planned], count: int) -> list[_Step]:
    """The operations that concern any of `count` samples."""
    steps = []
    for change, concerned, numbers in planned:
        rows = np.flatnonzero(concerned)
        if len(rows) == count:
            steps.append(_Step(change, None, numbers))
        elif len(rows):
            steps.append(_Step(change, rows, numbers[rows]))
    return steps


def _sent(steps: list[_Step], device: torch.device) -> Iterator[tuple[Change, Tensor | None, Tensor]]:
    """The steps with their numbers on the device, all sent at once."""
    rows = iter(to_device([step.rows for step in steps if step.rows is not None], device))
    for step, numbers in zip(steps, to_device([step.numbers for step in steps], device), strict=True):
        yield step.change, None if step.rows is None else next(rows), numbers


def to_device(arrays: list[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Arrays of one type as tensors on a device, sent in one copy that nobody waits for; they share its memory."""
    if not arrays:
        return []
    together = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
    if device.type == "cuda" and torch.cuda.is_available():
        together = together.pin_memory()  # from other memory a copy waits for the device
    parts = together.to(device, non_blocking=True).split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
