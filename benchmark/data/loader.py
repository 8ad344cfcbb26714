"""What the loaders share: the batch, the recipe that makes one, and the order of an epoch."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import keys
from benchmark.data.beton import Beton, open_beton
from benchmark.data.buffers import Buffers
from benchmark.data.keys import permutation, stream
from benchmark.data.render import View, plan, render
from benchmark.errors import InputError
from methods.views import ViewConfig

_LARGE_BATCH = 64 << 20  # bytes of all views
_LARGE_AT_ONCE = 2  # while one's last samples are rendered, the numbers of the next are drawn


@dataclass(frozen=True)
class Batch:
    """views: one f4 (B, C, S, S) per view, normalized, or (B, G*G, C, P, P) for a view in patches; index, labels: i8 (B,).

    All memory belongs to the receiver.
    """

    views: list[Tensor]
    index: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """How the samples of a file become views."""

    path: Path
    views: tuple[ViewConfig, ...]
    seed: int
    out_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @cached_property
    def file(self) -> Beton:
        return open_beton(self.path)

    def plan(self, epoch: int, index: NDArray[np.int64]) -> list[View]:
        """What happens to the samples `index` (B,) in this epoch: numbers only, no pixels."""
        file = self.file
        return plan(self.views, self.seed, epoch, index, file.heights[index], file.widths[index], self.out_size)

    def render(
        self,
        epoch: int,
        index: NDArray[np.int64],
        storage: NDArray[np.uint8] | None = None,
        pin: bool = False,
        threads: ThreadPoolExecutor | None = None,
        shares: int = 1,
        buffers: Buffers | None = None,
    ) -> list[Tensor]:
        """Every view of the samples `index`; storage: the bytes of the file, if somebody else maps it."""
        file = self.file
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        pixels = file.storage if storage is None else storage
        return render(file, pixels, index, self.plan(epoch, index), mean, std, pin, threads, shares, buffers)

    def batch(self, views: list[Tensor], index: NDArray[np.int64]) -> Batch:
        return Batch(views, torch.from_numpy(index.copy()), torch.from_numpy(self.file.labels[index]))


class Shares:
    """How the samples `indices` of an epoch are shared out: into batches, and those among ranks.

    The order of an epoch is cut into batches of `batch_size`; with several ranks each takes its part of every one of them,
    in the order of the ranks: together they see the batches that one rank alone would see. Where the last batch is kept and
    has fewer samples than there are ranks, some ranks have no part of it.
    InputError for a batch that is larger than the training set, or that the ranks cannot share.
    """

    def __init__(
        self, indices: NDArray[np.integer], batch_size: int, drop_last: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        self.indices = np.asarray(indices, np.int64)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        count = len(self.indices)
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; at least 1 is needed")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of {world_size}")
        if batch_size % world_size:
            raise InputError(f"a batch of {batch_size} cannot be shared by {world_size} ranks; make batch_size a multiple")
        self.batches_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        if not self.batches_per_epoch:
            raise InputError(f"a batch of {batch_size} is more than the {count} training images; lower batch_size")

    @property
    def rank_batch(self) -> int:
        """Samples of a whole batch that this rank gets."""
        return self.batch_size // self.world_size

    def batches(self, order: NDArray[np.int64], start_batch: int) -> list[NDArray[np.int64]]:
        """This rank's part of each batch of an epoch of this order, from number `start_batch` on."""
        parts = []
        for begin in range(start_batch * self.batch_size, self.batches_per_epoch * self.batch_size, self.batch_size):
            batch = order[begin : begin + self.batch_size]
            low, high = (len(batch) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            if low < high:
                parts.append(batch[low:high])
        return parts


class Loader(ABC):
    """Batches of a training set, epoch by epoch; close it, or use it as a context manager.

    Without workers the caller's thread makes the batches.
    """

    backend: ClassVar[str]

    def __init__(self, recipe: Recipe, shares: Shares, workers: int) -> None:
        self.recipe, self.shares, self.workers = recipe, shares, workers
        count, stored = len(shares.indices), len(recipe.file)
        if count and (shares.indices.min() < 0 or shares.indices.max() >= stored):
            raise ValueError(f"indices reach outside of the {stored} images of {recipe.path}")
        if workers < 0:
            raise InputError(f"workers is {workers}; at least 0 are needed")
        self.batches_per_epoch = shares.batches_per_epoch
        planned = recipe.plan(0, shares.indices[:1])  # a view that cannot be made is told now, not by a thread
        size = 4 * sum(math.prod(view.shape) for view in planned) * shares.rank_batch
        self._together = size > _LARGE_BATCH
        self._at_once = _LARGE_AT_ONCE if self._together else max(1, workers)
        self._buffers = Buffers(self._at_once + 4)  # in the making, finished, in the hands of FFCV and of the caller

    def batches(self, epoch: int, start_batch: int = 0) -> list[NDArray[np.int64]]:
        """The samples of this rank's part of each batch of an epoch, from number `start_batch` on."""
        return self.shares.batches(permutation(stream(keys.ORDER, self.recipe.seed, epoch), self.shares.indices), start_batch)

    def rendered(
        self, epoch: int, batches: list[NDArray[np.int64]], storage: NDArray[np.uint8] | None = None
    ) -> Generator[list[Tensor], None, None]:
        """The views of each batch, in their order, made by `workers` threads that end with the iterator.

        A small batch is made by one thread, which needs no other; a large one by all, so that few are in the memory at once.
        """
        pin = torch.cuda.is_available()
        if not self.workers:
            yield from (self.recipe.render(epoch, index, storage, pin, buffers=self._buffers) for index in batches)
            return
        threads = ThreadPoolExecutor(self.workers) if self._together else None
        makers, ahead = ThreadPoolExecutor(self._at_once), deque[Future[list[Tensor]]]()
        try:
            for index in batches:
                how = storage, pin, threads, self.workers, self._buffers
                ahead.append(makers.submit(self.recipe.render, epoch, index, *how))
                if len(ahead) > self._at_once:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            makers.shutdown(cancel_futures=True)
            if threads:
                threads.shutdown()

    @abstractmethod
    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start_batch` on. Leaving the loop early ends all of its workers."""

    def close(self) -> None:
        """Release what is held between epochs."""
        self._buffers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def usable_cores() -> int:
    """The cores this process may run on: its affinity, which SLURM sets, not the number in the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
