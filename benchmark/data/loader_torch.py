"""The loader that needs no native build: threads that make batches, a few ahead of the training.

Not a torch DataLoader: its worker processes exist to get around the interpreter's lock, which the kernels do not hold.
Threads need no forking of a process that has threads of its own, inherit no signal handlers of a job scheduler, use no
shared memory to run out of, and are faster here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from benchmark.data.loader import Batch, Loader
from benchmark.data.render import cpu_kernel


class TorchLoader(Loader):
    """With 0 `workers` the caller's thread makes the batches. Threads live as long as the epoch's loop."""

    backend = "torch"

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        cpu_kernel()
        self.recipe.file.read_ahead()
        batches = self.batches(epoch, start_batch)
        with closing(self.rendered(epoch, batches)) as rendered:
            for index, views in zip(batches, rendered, strict=True):
                yield self.recipe.batch(views, index)
