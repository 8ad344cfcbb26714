"""The loader that needs no native build: a PyTorch DataLoader whose items are whole batches."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from benchmark.data.loader import Batch, Loader, Recipe

_Key = tuple[int, NDArray[np.int64]]  # epoch, the batch's samples


class TorchLoader(Loader):
    """`workers` processes make batches; with 0 the caller's thread does. Nothing lives between two epochs."""

    backend = "torch"

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        order = self.order(epoch)
        keys = [(epoch, order[i : i + self.batch_size]) for i in range(0, len(order), self.batch_size)]
        yield from DataLoader(
            _Batches(self.recipe),
            batch_size=None,
            sampler=keys[start_batch:],
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_signals,
            # Forked workers inherit the compiled kernel; others would load it in every epoch.
            multiprocessing_context="fork" if self.workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # its base seed is not taken from the training's random numbers
        )


class _Batches(Dataset[Batch]):
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __getitem__(self, key: _Key) -> Batch:
        return self.recipe.batch(*key)


def _as_it_is(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """A scheduler signals the whole job: a worker must not run the checkpoint handler that it inherited by forking."""
    for name in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
