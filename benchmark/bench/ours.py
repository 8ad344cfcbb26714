"""This benchmark's loaders as contenders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count, islice

from benchmark.bench.contender import Way
from benchmark.bench.images import Work
from benchmark.data.loader import Batch, Loader

BACKENDS = ("ffcv", "torch", "resident")


def ffcv_loader(work: Work) -> Mapping[str, Way]:
    return _ways(work, "ffcv")


def torch_loader(work: Work) -> Mapping[str, Way]:
    return _ways(work, "torch")


def resident_loader(work: Work) -> Mapping[str, Way]:
    return _ways(work, "resident")


BUILD = {"ffcv": ffcv_loader, "torch": torch_loader, "resident": resident_loader}


def name(backend: str) -> str:
    return f"Retable, {backend} loader{' on the CPU' if backend == 'resident' else ''}"


def open_ours(work: Work, backend: str) -> Loader:
    """A loader of all training images of the work. Its epochs end and begin anew within a measurement, as in a training."""
    import numpy as np
    import torch

    from benchmark.data import open_loader

    torch.set_num_threads(work.cores)
    dataset = work.dataset
    return open_loader(
        dataset,
        indices=np.arange(dataset.counts["train"]),
        views=work.views,
        batch_size=work.batch,
        seed=0,
        workers=work.cores,
        out_size=work.size,
        mean=dataset.mean,
        std=dataset.std,
        backend=backend,  # type: ignore[arg-type]
        **({"device": "cpu"} if backend == "resident" else {}),  # type: ignore[arg-type]
    )


def _ways(work: Work, backend: str) -> Mapping[str, Way]:
    return {f"{work.cores} threads": partial(_batches, open_ours(work, backend))}


def _batches(loader: Loader, number: int) -> Iterator[Batch]:
    def stream() -> Iterator[Batch]:
        for epoch in count():
            yield from loader.epoch(epoch)

    endless = stream()
    try:
        yield from islice(endless, number)
    finally:
        endless.close()  # type: ignore[attr-defined]
