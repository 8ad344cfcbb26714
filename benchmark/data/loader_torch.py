"""The loader that needs no native build: threads that make whole batches, a few ahead of the training.

Not a torch DataLoader: its worker processes exist to get around the interpreter's lock, which the kernel does not hold.
Threads need no forking of a process that has threads of its own, inherit no signal handlers of a job scheduler, use no
shared memory to run out of, and are faster here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from benchmark.data.loader import Batch, Loader


class TorchLoader(Loader):
    """`workers` threads make one batch each; with 0 the caller's thread does. They live as long as the epoch's loop."""

    backend = "torch"

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        order, pin = self.order(epoch), torch.cuda.is_available()
        indices = (order[i : i + self.batch_size] for i in range(start_batch * self.batch_size, len(order), self.batch_size))
        if not self.workers:
            yield from (self.recipe.batch(epoch, index, pin) for index in indices)
            return
        threads, ahead = ThreadPoolExecutor(self.workers), deque[Future[Batch]]()
        try:
            for index in indices:
                ahead.append(threads.submit(self.recipe.batch, epoch, index, pin))
                if len(ahead) > self.workers + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
