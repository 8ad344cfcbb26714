"""What the loaders share: the batch, the recipe that makes one, and the order of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import kernels_numba, keys
from benchmark.data.beton import Beton, open_beton
from benchmark.data.keys import permutation, stream
from benchmark.data.views import blur_taps, centre, parameters
from benchmark.errors import InputError
from methods.views import ViewConfig


@dataclass(frozen=True)
class Batch:
    """views: one f4 (B, 3, O, O) per view, normalized; index, labels: i8 (B,). All memory belongs to the receiver."""

    views: list[Tensor]
    index: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """How the samples of a file become views; small, so that it travels to worker processes."""

    path: Path
    views: tuple[ViewConfig, ...]
    seed: int
    out_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @cached_property
    def file(self) -> Beton:
        return open_beton(self.path)

    def batch(self, epoch: int, index: NDArray[np.int64], pin: bool = False) -> Batch:
        """The batch of the samples `index` (B,), made by the calling thread from the memory-mapped file."""
        file = self.file
        views = self.render(epoch, index, file.storage, file.offsets[index], pin)
        return Batch(views, torch.from_numpy(index.copy()), torch.from_numpy(file.labels[index]))

    def render(
        self,
        epoch: int,
        index: NDArray[np.int64],
        storage: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        pin: bool = False,
        threads: ThreadPoolExecutor | None = None,
        shares: int = 1,
    ) -> list[Tensor]:
        """Every view of the samples `index`, whose pixels start at `offsets` in `storage`."""
        rendered = []
        for number, view in enumerate(self.views):
            table = parameters(self.seed, epoch, index, number, view, self.file.side)
            out = torch.empty((len(index), 3, self.out_size, self.out_size), pin_memory=pin)
            kernels_numba.apply(
                storage, offsets, self.file.side, table, blur_taps(view, self.out_size), _f4(self.mean), _f4(self.std),
                out.numpy(), threads, shares,
            )  # fmt: skip
            rendered.append(out)
        return rendered


class Loader(ABC):
    """Batches of a training set, epoch by epoch; close it, or use it as a context manager."""

    backend: ClassVar[str]

    def __init__(self, recipe: Recipe, indices: NDArray[np.integer], batch_size: int, workers: int, drop_last: bool) -> None:
        self.recipe, self.batch_size, self.workers = recipe, batch_size, workers
        self._indices = np.asarray(indices, np.int64)
        count, stored = len(self._indices), len(recipe.file)
        if count and (self._indices.min() < 0 or self._indices.max() >= stored):
            raise ValueError(f"indices reach outside of the {stored} images of {recipe.path}")
        self.batches_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        if not self.batches_per_epoch:
            raise InputError(f"a batch of {batch_size} is more than the {count} training images; lower batch_size")
        recipe.file.read_ahead()
        kernels_numba.load()

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch in their order, cut to whole batches where the last is dropped."""
        order = permutation(stream(keys.ORDER, self.recipe.seed, epoch), self._indices)
        return order[: self.batches_per_epoch * self.batch_size]

    @abstractmethod
    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start_batch` on. Leaving the loop early ends all of its workers."""

    def close(self) -> None:  # noqa: B027 - a loader may well hold nothing
        """Release what is held between epochs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def render(images: NDArray[np.uint8], out_size: int, mean: Sequence[float], std: Sequence[float], crop: float = 1.0) -> Tensor:
    """See `benchmark.data.normalize_batch`."""
    count, height, width, channels = images.shape
    if height != width or channels != 3:
        raise ValueError(f"images must be (N, side, side, 3), not {images.shape}")
    images = np.ascontiguousarray(images)
    offsets = np.arange(count, dtype=np.int64) * (height * width * 3)
    out = torch.empty((count, 3, out_size, out_size))
    shares = min(torch.get_num_threads(), max(1, count // 64))
    with ThreadPoolExecutor(shares) as threads:
        kernels_numba.apply(
            images.reshape(-1), offsets, height, centre(count, height, crop), 1, _f4(mean), _f4(std),
            out.numpy(), threads, shares,
        )  # fmt: skip
    return out


def _f4(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)
