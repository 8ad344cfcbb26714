"""From stored samples to views: each image is decoded once, whatever the number of its views, then every view is made of it.

The work of a batch is cut into shares of samples for threads; within a share, photographs are decoded a few at a time, so
that their pixels are still in the processor's cache when the views are cut out of them. The pixels are made by one of two
kernels with one meaning: numba's where numba can be imported, else torch's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.beton import Beton, open_beton
from benchmark.data.buffers import Buffers
from benchmark.data.datasets import Dataset
from benchmark.data.views import Patches, Program, Table, centre, parameters, patch_program, patches, plain, program
from benchmark.errors import InputError
from methods.views import ViewConfig

_PHOTOGRAPH = 128  # pixels: raw images of at least this side count as photographs
_CENTRE = 224 / 256  # the part of the shorter side that the ImageNet protocol shows
_AT_A_TIME = 8  # photographs that are decoded, or views that are cut up, before the next are

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Source = tuple[NDArray[np.uint8], Integers, Integers, Integers]  # storage, offsets, heights, widths
# storage u1, offsets, heights, widths i8 (N,), table, program, mean, std f4 (3,), out f4 (N, C, S, S)
Kernel = Callable[[NDArray[np.uint8], Integers, Integers, Integers, Table, Program, Floats, Floats, Floats], None]


@functools.cache
def cpu_kernel() -> Kernel:
    """The kernel for this machine's processor, compiled and ready."""
    try:
        from benchmark.data import kernels_numba
    except ImportError:
        return _torch_kernel
    kernels_numba.load()
    return kernels_numba.apply


def _torch_kernel(
    storage: NDArray[np.uint8], offsets: Integers, heights: Integers, widths: Integers,
    table: Table, made: Program, mean: Floats, std: Floats, out: Floats,
) -> None:  # fmt: skip
    from benchmark.data import kernels_torch

    if made.in_place:
        images: Tensor | list[Tensor] = torch.from_numpy(out)
    else:
        rows = zip(offsets.tolist(), heights.tolist(), widths.tolist(), strict=True)
        images = [torch.from_numpy(storage[at : at + h * w * 3].reshape(h, w, 3).copy()) for at, h, w in rows]
        if len({image.shape for image in images}) == 1:
            images = torch.stack(images)
    out[:] = kernels_torch.apply(images, table, made, mean, std).numpy()


@dataclass(frozen=True)
class View:
    """One view of every sample of a batch: how it is made. `cuts` and `patch` where it is cut into patches."""

    program: Program
    table: Table
    cuts: Patches | None = None
    patch: Program | None = None
    grid: int = 0
    inner: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (C, S, S), or (G * G, C, P, P) for patches."""
        whole = self.patch or self.program
        image = whole.channel_count, whole.size, whole.size
        return (self.grid**2, *image) if self.patch else image

    def part(self, low: int, high: int) -> View:
        """The view of samples low..high of the batch."""
        cuts, count = self.cuts, self.grid**2
        if cuts is not None:
            cuts = Patches(cuts.corners[low:high], cuts.inner[low:high], cuts.table[low * count : high * count])
        return replace(self, table=self.table[low:high], cuts=cuts)


def plan(
    views: Sequence[ViewConfig], seed: int, epoch: int, index: Integers, heights: Integers, widths: Integers, out_size: int
) -> list[View]:
    """What happens to the samples `index` of the given stored sizes, for each view."""
    planned: list[View] = []
    number = 0
    for place, cfg in enumerate(views):
        number = number if place and cfg.same_draws else place
        size = cfg.size or out_size
        table = parameters(seed, epoch, index, number, cfg, heights, widths, size)
        view = View(program(cfg, size), table)
        if cfg.patch_grid:
            cuts = patches(seed, epoch, index, number, cfg)
            view = replace(view, cuts=cuts, patch=patch_program(cfg), grid=cfg.patch_grid, inner=cfg.patch_inner)
        planned.append(view)
    return planned


def render(
    file: Beton,
    storage: NDArray[np.uint8],
    index: Integers,
    planned: Sequence[View],
    mean: Floats,
    std: Floats,
    pin: bool = False,
    threads: ThreadPoolExecutor | None = None,
    shares: int = 1,
    buffers: Buffers | None = None,
) -> list[Tensor]:
    """Every planned view of the samples `index` of a file: f4 (N, *view.shape) each, memory of the caller's own.

    storage: the bytes of the file. pin: into page-locked memory, for a GPU; else the memory is taken from `buffers`, if
    given. InputError where an image cannot be decoded, or the memory does not suffice.
    """
    count, kernel, shapes = len(index), cpu_kernel(), [(len(index), *view.shape) for view in planned]
    try:
        outs = _memory(shapes, pin, buffers or Buffers())
    except MemoryError:
        size = 4 * sum(math.prod(shape) for shape in shapes) / 2**30
        raise InputError(
            f"there is no memory for a batch of {count} images in {len(planned)} views ({size:.1f} GiB); lower batch_size"
        ) from None

    step = _AT_A_TIME if file.jpeg or any(view.patch for view in planned) else 0

    def run(low: int, high: int) -> None:
        for begin, end in _blocks(low, high, step or high - low):
            part = index[begin:end]
            pixels, offsets = _decoded(file, part) if file.jpeg else (storage, file.offsets[part])
            source = pixels, offsets, file.heights[part], file.widths[part]
            for view, out in zip(planned, outs, strict=True):
                _make(view.part(begin, end), source, mean, std, out[begin:end], kernel)

    spread(run, count, threads, shares)
    return outs


def _memory(shapes: list[tuple[int, ...]], pin: bool, buffers: Buffers) -> list[Tensor]:
    """A tensor for each shape. MemoryError where there is no memory."""
    if not pin:
        return [buffers.take(shape, shapes.count(shape)) for shape in shapes]
    try:
        return [torch.empty(shape, pin_memory=True) for shape in shapes]  # torch uses page-locked memory again by itself
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise MemoryError from None
        raise


def central(
    dataset: Dataset, split: Literal["train", "test"], indices: NDArray[np.integer], out_size: int, channels: str, threads: int
) -> Tensor:
    """See `benchmark.data.central_views`."""
    file, index = open_beton(dataset.train if split == "train" else dataset.test), np.asarray(indices, np.int64)
    fraction = _CENTRE if file.jpeg else _raw_fraction(file.side, out_size)
    view = View(plain(out_size, channels), centre(file.heights[index], file.widths[index], fraction))
    mean, std = np.array(dataset.mean, np.float32), np.array(dataset.std, np.float32)
    with ThreadPoolExecutor(threads) as pool:
        (made,) = render(file, file.storage, index, [view], mean, std, threads=pool, shares=threads)
    return made


def _raw_fraction(side: int, out_size: int) -> float:
    """The part of a raw image's side that evaluation shows: of photographs the ImageNet protocol's, else all."""
    return 1.0 if side <= out_size or side < _PHOTOGRAPH else max(_CENTRE, out_size / side)


def spread(run: Callable[[int, int], None], count: int, threads: ThreadPoolExecutor | None, shares: int) -> None:
    """run(low, high) over 0..count in `shares` parts: the caller's thread takes the last, `threads` the others."""
    shares = min(shares, count) if threads else 1
    *others, own = pairwise(count * i // shares for i in range(shares + 1)) if count else [(0, 0)]
    waiting = [threads.submit(run, low, high) for low, high in others] if threads else []
    try:
        run(*own)
    finally:
        for future in waiting:  # none may be left writing into memory that an error gives up
            future.exception()
    for future in waiting:
        future.result()


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares of `side` pixels: images (N, C, S, S), corners i8 (N, K, 2) of their first pixels -> (N, K, C, side, side)."""
    count, amount = corners.shape[:2]
    steps = torch.arange(side, device=images.device)
    sample = torch.arange(count, device=images.device).view(count, 1, 1, 1, 1)
    channel = torch.arange(images.shape[1], device=images.device).view(1, 1, -1, 1, 1)
    rows = (corners[..., :1] + steps).view(count, amount, 1, side, 1)
    columns = (corners[..., 1:] + steps).view(count, amount, 1, 1, side)
    return images[sample, channel, rows, columns]


def framed(patch: Tensor, inner: Tensor, side: int) -> Tensor:
    """Patches (M, C, P, P) of which only the square of `side` pixels at inner i8 (M, 2) is left, in a frame of zeros."""
    kept = cut(patch, inner.unsqueeze(1), side).squeeze(1)
    framed, first = torch.zeros_like(patch), (patch.shape[-1] - side) // 2
    framed[..., first : first + side, first : first + side] = kept
    return framed


def _make(view: View, source: Source, mean: Floats, std: Floats, out: Tensor, kernel: Kernel) -> None:
    """Fill out (n, *view.shape)."""
    if view.patch is None or view.cuts is None:
        kernel(*source, view.table, view.program, mean, std, out.numpy())
        return
    size = view.program.size
    whole = torch.empty((len(out), 3, size, size))
    kernel(*source, view.table, view.program, mean, std, whole.numpy())
    pieces = cut(whole, torch.from_numpy(view.cuts.corners), view.patch.size).flatten(0, 1).contiguous()
    nothing, none = np.empty(0, np.uint8), np.empty(0, np.int64)
    kernel(nothing, none, none, none, view.cuts.table, view.patch, mean, std, pieces.numpy())
    if view.inner:
        pieces = framed(pieces, torch.from_numpy(view.cuts.inner).flatten(0, 1), view.inner)
    out.copy_(pieces.view(out.shape))


def _blocks(low: int, high: int, step: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + step, high)) for begin in range(low, high, max(1, step))]


def _decoded(file: Beton, index: Integers) -> tuple[NDArray[np.uint8], Integers]:
    """The pixels of some photographs, one behind the other, and where each starts."""
    sizes = file.heights[index] * file.widths[index] * 3
    starts = np.cumsum(sizes) - sizes
    pixels = np.empty(int(sizes.sum()), np.uint8)
    for sample, start, size in zip(index.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        place = pixels[start : start + size]
        image = file.decode(sample, place).reshape(-1)
        if not np.may_share_memory(image, place):
            place[:] = image
    return pixels, starts
