"""Whether a loader's process grows from epoch to epoch."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import sys
from pathlib import Path

from benchmark.bench import images, ours
from benchmark.bench.contender import Announce, Unavailable, alone
from benchmark.bench.images import Work
from benchmark.bench.record import Missing, Outcome, Result
from benchmark.launch.machine import cores
from methods.views import RECIPES

BENCH = "resident set over {} epochs"
EPOCHS, WARM_UP = 20, 2  # the first epochs map the file's pages and fill the allocator's pools
_MOST = 0.02  # growth that counts as none
_SEVERAL = 3  # epochs: a heap breathes by a few batches


def run(data: str | None, cache: Path, batch: int, announce: Announce, epochs: int = EPOCHS) -> tuple[Outcome, dict[str, str]]:
    """Each backend in a process of its own, two views of every image in every epoch."""
    dataset, words = images.small(data, cache, announce)
    view = RECIPES["simclr"][0]
    work = Work(dataset, (), (view, view), images.SMALL_SIDE, min(batch, dataset.counts["train"]), cores())
    outcome = Outcome()
    for backend in ours.BACKENDS:
        announce(f"memory of {ours.name(backend)} over {epochs} epochs")
        try:
            sizes, trimmed = alone(resident_sets, work, backend, epochs)
        except Unavailable as error:
            outcome.missing.append(Missing(BENCH.format(epochs), ours.name(backend), str(error)))
        else:
            outcome.results.append(growth(ours.name(backend), sizes, trimmed))
    return outcome, {"small": words}


def growth(name: str, sizes: list[float], trimmed: float | None = None) -> Result:
    """What MiB after each epoch say: the last ones beside the first after the warm-up, a ratio below 1 where it has grown.

    trimmed: MiB in the end, once the C library had given back the free pages of its heap. What it holds on to for later grows
    in steps at first, and is no leak.
    """
    rest = sizes[WARM_UP:]
    first, last = statistics.median(rest[:_SEVERAL]), statistics.median(rest[-_SEVERAL:])
    detail = f"{slope(rest):+.2f} MiB an epoch; after each: {', '.join(f'{size:.0f}' for size in sizes)}"
    if trimmed is not None:
        detail += f"; without the heap's free pages in the end: {trimmed:.0f}"
    return Result(
        bench=BENCH.format(len(sizes)),
        subject=name,
        unit="MiB",
        median=last,
        low=min(rest),
        high=max(rest),
        peer="itself after the warm-up",
        ratio=first / last,
        goal=f"at most {_MOST:.0%} of growth",
        met=last <= first * (1 + _MOST),
        detail=detail,
    )


def slope(sizes: list[float]) -> float:
    """Of the straight line that fits the sizes best (least squares), per epoch."""
    middle, mean = (len(sizes) - 1) / 2, sum(sizes) / len(sizes)
    spread = sum((i - middle) ** 2 for i in range(len(sizes)))
    return sum((i - middle) * (size - mean) for i, size in enumerate(sizes)) / spread


def resident_sets(work: Work, backend: str, epochs: int) -> tuple[list[float], float | None]:
    """MiB after each epoch, in this process, and `growth`'s `trimmed`, None where the C library cannot be asked to."""
    sizes = []
    with ours.open_ours(work, backend) as loader:
        for epoch in range(epochs):
            for _ in loader.epoch(epoch):
                pass
            gc.collect()
            sizes.append(_resident())
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is None:
            return sizes, None
        trim(0)
        return sizes, _resident()


def _resident() -> float:
    """MiB of this process; where the system does not say, the most there has been."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
