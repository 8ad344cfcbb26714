"""The loader on FFCV: its file reader, memory manager and prefetching epoch thread around this benchmark's kernel.

FFCV 1.0.2 compiles every pipeline anew in every process, draws its random numbers per thread, resizes with an area filter
and hands out buffers that it will overwrite. So only its machinery is used: a decoder of our own goes from the stored bytes
straight to all views (no intermediate copy, no compilation by FFCV: the kernel comes from numba's disk cache), parameters are
keyed, batches are freshly allocated, and the epoch thread is ended when the loop is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numba.typed
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.loader import Batch, Loader, Recipe, Shares
from benchmark.data.render import cpu_kernel


@contextmanager
def _threads_kept() -> Iterator[None]:
    """FFCV sets the thread counts of torch and numba: to 1 when imported, to its num_workers when a Loader is built."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


@contextmanager
def _plain_dictionary() -> Iterator[None]:
    """FFCV fills a numba dictionary of two entries when imported, only ever read from Python: 3.3 s of compilation."""
    typed, numba.typed.Dict = numba.typed.Dict, dict
    try:
        yield
    finally:
        numba.typed.Dict = typed


with _threads_kept(), _plain_dictionary():
    import ffcv.loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.pipeline import PipelineSpec
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation

_BATCHES_AHEAD = 1  # that are finished; others are in the making


class FFCVLoader(Loader):
    """Threads live as long as the epoch's loop; with 0 `workers` FFCV's epoch thread makes the batches."""

    backend = "ffcv"

    def __init__(self, recipe: Recipe, shares: Shares, workers: int) -> None:
        super().__init__(recipe, shares, workers)
        cpu_kernel()
        recipe.file.read_ahead()
        self._ffcv = _ffcv_loader(recipe.path, shares.rank_batch)
        self._running: set[_Epoch] = set()

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        batches = self.batches(epoch, start_batch)
        if not batches:
            return
        running = _Epoch(self._ffcv, np.concatenate(batches), partial(self.rendered, epoch, batches))
        self._running.add(running)
        try:
            for index in batches:
                found = next(running, None)
                if found is None:
                    raise RuntimeError("the loader was closed in the middle of this epoch")
                (views,) = found
                if isinstance(views, BaseException):
                    raise views
                yield self.recipe.batch(views, index)
        finally:
            running.end()
            self._running.discard(running)

    def close(self) -> None:
        for running in tuple(self._running):
            running.end()
        super().close()


class _Epoch(EpochIterator):
    """FFCV's epoch thread, with the views of its batches, which `render` makes out of the storage that FFCV has mapped."""

    def __init__(
        self,
        loader: ffcv.loader.Loader,
        order: NDArray[np.int64],
        render: Callable[[NDArray[np.uint8]], Generator[list[Tensor], None, None]],
    ) -> None:
        self._render = render
        self._views: Generator[list[Tensor], None, None] | None = None
        super().__init__(loader, order)  # starts the thread

    def views(self, storage: NDArray[np.uint8]) -> list[Tensor]:
        """Those of the next batch; called by the thread alone."""
        if self._views is None:
            self._views = self._render(storage)
        return next(self._views)

    def end(self) -> None:
        """Stop the thread and wait for it. It may be blocked on a full queue, so that has to be emptied."""
        self.terminate_event.set()
        self.iter_ixes = iter(())
        while self.is_alive():
            with suppress(queue.Empty):
                self.output_queue.get_nowait()
            self.join(0.001)
        if self._views is not None:
            self._views.close()
        with suppress(queue.Full):
            self.output_queue.put_nowait(None)  # whoever still waits for a batch is to wait no longer


class _Decoder(Operation):
    """FFCV's place for reading an image field: given a batch of samples and the mapped file, returns all views."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        return replace(previous_state, jit_mode=False, shape=(), dtype=torch.float32), None

    def generate_code(self) -> Callable[..., Any]:
        def decode(index: NDArray[np.int64], memory: None, metadata: Any, storage: Any) -> Any:
            try:
                running = threading.current_thread()
                assert isinstance(running, _Epoch)
                return running.views(storage[0].view(np.ndarray))
            except BaseException as error:  # FFCV's thread would die silently, its reader would wait for ever
                return error

        return decode


def _ffcv_loader(path: Path, batch_size: int) -> ffcv.loader.Loader:
    """FFCV's Loader for one file, with its compiler off: its own operations are not used."""
    # Each epoch's thread sets the thread counts again, to num_workers; so that is what torch has already.
    workers = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    with _threads_kept():
        Compiler.set_enabled(False)
        try:
            return ffcv.loader.Loader(
                str(path),
                batch_size,
                num_workers=workers,
                os_cache=True,
                seed=0,  # not used, but else taken from numpy's global random numbers
                drop_last=False,  # the order handed over is cut already
                batches_ahead=_BATCHES_AHEAD,
                pipelines={"image": PipelineSpec("image", _Decoder()), "label": None},
            )
        finally:
            Compiler.set_enabled(True)
