"""The loader that needs no native build: threads that share the making of a batch, a few batches ahead of the training.

Not a torch DataLoader: its worker processes exist to get around the interpreter's lock, which the kernels do not hold.
Threads need no forking of a process that has threads of its own, inherit no signal handlers of a job scheduler, use no
shared memory to run out of, and are faster here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.data.loader import Batch, Loader
from benchmark.data.render import cpu_kernel

_AT_ONCE = 2  # batches in the making: while one's last samples are rendered, the numbers of the next are drawn
_AHEAD = 3  # batches made or in the making before the training asks


class TorchLoader(Loader):
    """`workers` threads share every batch; with 0 the caller's thread makes it. They live as long as the epoch's loop."""

    backend = "torch"

    def _make(self, epoch: int, index: NDArray[np.int64], pin: bool, threads: ThreadPoolExecutor | None = None) -> Batch:
        views = self.recipe.render(epoch, index, None, pin, threads, self.workers, self.buffers)
        return self.recipe.batch(views, index)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        cpu_kernel()
        self.recipe.file.read_ahead()
        pin, batches = torch.cuda.is_available(), self.batches(epoch, start_batch)
        if not self.workers:
            yield from (self._make(epoch, index, pin) for index in batches)
            return
        threads, makers, ahead = ThreadPoolExecutor(self.workers), ThreadPoolExecutor(_AT_ONCE), deque[Future[Batch]]()
        try:
            for index in batches:
                ahead.append(makers.submit(self._make, epoch, index, pin, threads))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            makers.shutdown(cancel_futures=True)
            threads.shutdown()
