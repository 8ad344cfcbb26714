"""The loader that holds the data set on the device and augments there: nothing but numbers crosses the bus.

The raw images live as one byte tensor on the device; a batch is gathered from it and rendered by `kernels_torch` on the
current stream, so a training loop on the same stream needs no synchronization and never waits for a transfer. The tables of
parameters are drawn on the CPU by one thread, a few batches ahead. Images are equal to those of the other loaders up to the
rounding of float32; a value that lies on a threshold (of solarize, posterize, equalize) may rarely fall on its other side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import kernels_torch
from benchmark.data.datasets import Dataset
from benchmark.data.kernels_torch import to_device
from benchmark.data.loader import Batch, Loader, Recipe, Shares
from benchmark.data.render import View, cut, framed
from benchmark.errors import InputError

_AHEAD = 4  # batches whose tables are drawn before the training asks
_COPIED_AT_ONCE = 1 << 26  # bytes
_SHARE = 0.5  # of the free memory that "auto" gives to images; training needs the rest
_MEMORY = Path("/proc/meminfo")


class ResidentLoader(Loader):
    """Batches on `device` ("cuda" by default where there is one, else "cpu"), index and labels too.

    Only the training images `indices` are held. With `workers` 0 the caller's thread draws the tables. InputError where the
    data set is stored as JPEG files or does not fit.
    """

    backend = "resident"

    def __init__(self, recipe: Recipe, shares: Shares, workers: int, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"the resident loader is to use {self.device}, but there is no CUDA device; choose ffcv or torch")
        if recipe.file.jpeg:
            raise InputError(
                f"{recipe.path} holds photographs of many sizes, which cannot be resident on a device; "
                f"convert with --storage raw --resolution N, or use --loader ffcv or torch"
            )
        super().__init__(recipe, shares, workers)
        self._held = np.unique(shares.indices)
        self._pixels: Tensor | None = None
        self._check_room()

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        pixels = self._resident()
        batches = self.batches(epoch, start_batch)
        if not self.workers:
            yield from (self._batch(pixels, index, self.recipe.plan(epoch, index)) for index in batches)
            return
        thread, ahead = ThreadPoolExecutor(1), deque[tuple[NDArray[np.int64], Future[list[View]]]]()
        try:
            for index in batches:
                ahead.append((index, thread.submit(self.recipe.plan, epoch, index)))
                if len(ahead) > _AHEAD:
                    first, planned = ahead.popleft()
                    yield self._batch(pixels, first, planned.result())
            while ahead:
                first, planned = ahead.popleft()
                yield self._batch(pixels, first, planned.result())
        finally:
            thread.shutdown(cancel_futures=True)

    def close(self) -> None:
        super().close()
        self._pixels = None

    def _batch(self, pixels: Tensor, index: NDArray[np.int64], planned: list[View]) -> Batch:
        places = np.searchsorted(self._held, index)
        where, samples, labels = to_device([places, index, self.recipe.file.labels[index]], self.device)
        # Slices of one upload: the caller's batch is not to share memory with anything.
        views = render(pixels.index_select(0, where), planned, self.recipe.mean, self.recipe.std)
        return Batch(views, samples.clone(), labels.clone())

    def _resident(self) -> Tensor:
        """The images held, u1 (N, side, side, 3), on the device; copied there when first asked for."""
        if self._pixels is None:
            self._check_room()
            file, count = self.recipe.file, len(self._held)
            file.read_ahead()
            try:
                pixels = torch.empty((count, file.side, file.side, 3), dtype=torch.uint8, device=self.device)
            except torch.OutOfMemoryError:
                raise self._no_room(_free(self.device)) from None
            step = max(1, _COPIED_AT_ONCE // (file.side**2 * 3))
            for low in range(0, count, step):
                some = torch.from_numpy(file.images(self._held[low : low + step]))
                if self.device.type == "cuda":
                    some = some.pin_memory()  # the next are read from the disk while these are on their way
                pixels[low : low + step].copy_(some, non_blocking=True)
            self._pixels = pixels
        return self._pixels

    def _bytes(self) -> int:
        return len(self._held) * self.recipe.file.side**2 * 3

    def _check_room(self) -> None:
        free = _free(self.device)
        if free is not None and self._bytes() > free:
            raise self._no_room(free)

    def _no_room(self, free: int | None) -> InputError:
        found = "" if free is None else f", which has {free / 2**30:.2f} GiB free"
        return InputError(
            f"the images of {self.recipe.path} take {self._bytes() / 2**30:.2f} GiB on {self.device}{found}; "
            f"use --loader ffcv or torch"
        )


def has_room(dataset: Dataset, device: str | torch.device) -> bool:
    """Whether a data set can well be resident: raw, on a CUDA device, in at most half of its free memory."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available() or dataset.storage != "raw":
        return False
    free = _free(torch.device(device))
    return free is not None and dataset.counts["train"] * dataset.size**2 * 3 <= _SHARE * free


def render(images: Tensor, planned: list[View], mean: tuple[float, ...], std: tuple[float, ...]) -> list[Tensor]:
    """Every planned view of raw images u1 (N, side, side, 3), on their device: f4 (N, *view.shape) each."""
    return [_make(view, images, mean, std) for view in planned]


def _make(view: View, images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    if view.patch is None or view.cuts is None:
        return kernels_torch.apply(images, view.table, view.program, mean, std)
    whole = kernels_torch.apply(images, view.table, view.program, mean, std)
    corners, inner = to_device([view.cuts.corners, view.cuts.inner], images.device)
    patches = cut(whole, corners, view.patch.size).flatten(0, 1)
    patches = kernels_torch.apply(patches, view.cuts.table, view.patch, mean, std)
    if view.inner:
        patches = framed(patches, inner.flatten(0, 1), view.inner)
    return patches.view(len(images), *view.shape)


def _free(device: torch.device) -> int | None:
    """Bytes of memory that can still be taken on a device, None where that is not known."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, to be used again
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "cpu" and _MEMORY.exists():
        lines = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    return None
