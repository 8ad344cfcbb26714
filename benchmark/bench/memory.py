"""Whether a loader's process grows from epoch to epoch."""

from __future__ import annotations

import gc
import resource
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


def run(data: str | None, cache: Path, batch: int, announce: Announce, epochs: int = EPOCHS) -> tuple[Outcome, dict[str, str]]:
    """Each backend in a process of its own, two views of every image in every epoch."""
    dataset, words = images.small(data, cache, announce)
    view = RECIPES["simclr"][0]
    work = Work(dataset, (), (view, view), images.SMALL_SIDE, min(batch, dataset.counts["train"]), cores())
    outcome = Outcome()
    for backend in ours.BACKENDS:
        announce(f"memory of {ours.name(backend)} over {epochs} epochs")
        try:
            sizes = alone(resident_sets, work, backend, epochs)
        except Unavailable as error:
            outcome.missing.append(Missing(BENCH.format(epochs), ours.name(backend), str(error)))
        else:
            outcome.results.append(growth(ours.name(backend), sizes))
    return outcome, {"small": words}


def growth(name: str, sizes: list[float]) -> Result:
    """What MiB after each epoch say: the last beside the first after the warm-up, the ratio below 1 where it has grown."""
    rest = sizes[WARM_UP:]
    ratio, unit = rest[0] / rest[-1], "MiB"
    detail = f"{slope(rest):+.3f} MiB an epoch; after each: {', '.join(f'{size:.0f}' for size in sizes)}"
    peer = f"itself after epoch {WARM_UP + 1}"
    goal, met = f"at most {_MOST:.0%} of growth", ratio >= 1 - _MOST
    return Result(BENCH.format(len(sizes)), name, unit, rest[-1], min(rest), max(rest), peer, ratio, goal, met, detail)


def slope(sizes: list[float]) -> float:
    """Of the straight line that fits the sizes best (least squares), per epoch."""
    middle, mean = (len(sizes) - 1) / 2, sum(sizes) / len(sizes)
    spread = sum((i - middle) ** 2 for i in range(len(sizes)))
    return sum((i - middle) * (size - mean) for i, size in enumerate(sizes)) / spread


def resident_sets(work: Work, backend: str, epochs: int) -> list[float]:
    """MiB after each epoch, in this process; where the system does not say, the most there has been."""
    sizes = []
    with ours.open_ours(work, backend) as loader:
        for epoch in range(epochs):
            for _ in loader.epoch(epoch):
                pass
            gc.collect()
            sizes.append(_resident())
    return sizes


def _resident() -> float:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
