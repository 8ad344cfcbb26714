"""Data: find and convert a data set, then load augmented batches of it.

    source = find("cifar10", path, cache)                    # benchmark.data.datasets: no torch, no decoding
    dataset = prepare(source, cache)
    loader = open_loader(dataset, indices=..., views=RECIPES["byol"], batch_size=256, seed=0, workers=2,
                         out_size=32, mean=dataset.mean, std=dataset.std)
    for batch in loader.epoch(0): ...                        # batch.views, batch.index, batch.labels

`python -m benchmark.data` converts and checks data sets; `python -m benchmark.data.fidelity` compares every operation with
torchvision's.

Importing this package loads neither torch nor numba: planning reads `benchmark.data.datasets` on a login node.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from benchmark.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.data.datasets import Dataset
    from benchmark.data.loader import Loader
    from methods.views import ViewConfig

Backend = Literal["auto", "ffcv", "torch", "resident"]


def open_loader(
    dataset: Dataset,
    *,
    indices: NDArray[np.integer],
    views: tuple[ViewConfig, ...],
    batch_size: int,
    seed: int,
    workers: int | None = None,
    out_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    drop_last: bool = True,
    backend: Backend = "auto",
    rank: int = 0,
    world_size: int = 1,
    device: str | None = None,
) -> Loader:
    """A loader of the training images `indices`, each seen once an epoch in an order of its own, as len(views) views.

    The images depend on (seed, epoch, index, view) and nothing else: not on the backend, on workers (threads; with 0 the
    caller's own makes the batches; by default one for each core that this process may use), on where an epoch was resumed,
    or on the number of ranks, each of which gets its part of every batch of `batch_size`. out_size: side in pixels of
    the views that have no size of their own.

    backend: "ffcv" and "torch" give the same bits; "resident" holds a raw data set on `device` ("cuda" by default where
    there is one, else "cpu") and augments there, equal up to float rounding and what that does at thresholds. "auto" is FFCV
    where it can be imported, else torch; without numba, whose absence makes the torch loader slow, it is resident if `device`
    is a CUDA device with room.
    InputError where a batch is larger than the training set, or a backend is asked for that cannot be had.
    """
    from benchmark.data.loader import Recipe, Shares, usable_cores

    recipe = Recipe(dataset.train, views, seed, out_size, tuple(mean), tuple(std))
    threads = usable_cores() if workers is None else workers
    shares = Shares(indices, batch_size, drop_last, rank, world_size)
    kind = _loader_class(backend)
    if backend == "resident" or (backend == "auto" and device and kind.backend == "torch" and not find_spec("numba")):
        from benchmark.data.loader_resident import ResidentLoader, has_room

        if backend == "resident" or has_room(dataset, str(device)):
            return ResidentLoader(recipe, shares, threads, device)
    return kind(recipe, shares, threads)


def _loader_class(backend: Backend) -> type[Loader]:
    if backend in ("auto", "ffcv"):
        try:
            from benchmark.data.loader_ffcv import FFCVLoader
        except (ImportError, OSError) as error:  # OSError: one of the C libraries it loads by name is missing
            if backend == "ffcv":
                raise InputError(
                    f"data.backend is 'ffcv', but FFCV cannot be imported ({error}); install it or choose 'torch'"
                ) from None
        else:
            return FFCVLoader
    from benchmark.data.loader_torch import TorchLoader

    return TorchLoader


def read_split(
    dataset: Dataset, split: Literal["train", "test"], indices: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The raw images u1 (N, side, side, 3) and labels i8 (N,) of a split, or of its samples `indices`, in memory."""
    from benchmark.data.beton import open_beton

    file = open_beton(dataset.train if split == "train" else dataset.test)
    return file.images(indices), file.labels if indices is None else file.labels[indices]


def split_labels(dataset: Dataset, split: Literal["train", "test"]) -> NDArray[np.int64]:
    """The labels i8 (N,) of a split alone, without touching its pixels; -1 marks an unlabelled image."""
    from benchmark.data.beton import open_beton

    return open_beton(dataset.train if split == "train" else dataset.test).labels


def central_views(
    dataset: Dataset,
    split: Literal["train", "test"],
    indices: NDArray[np.integer],
    out_size: int,
    channels: str | Sequence[str] = "rgb",
    threads: int = 1,
) -> Tensor:
    """What evaluation shows an encoder of the samples `indices`: their middle, normalized, f4 (N, C, out_size, out_size).

    channels: a colour space, or several whose channels are concatenated.

    Of photographs the ImageNet protocol's centre, 224 of the 256 pixels of the shorter side (of raw ones as much as
    out_size pixels, if that is more); of small images the whole.
    """
    import torch

    from benchmark.data.render import central

    spaces = [channels] if isinstance(channels, str) else list(channels)
    made = [central(dataset, split, indices, out_size, space, threads) for space in spaces]
    return made[0] if len(made) == 1 else torch.cat(made, dim=1)
