"""Data: find and convert a data set, then load augmented batches of it.

    source = find("cifar10", path, cache)                    # benchmark.data.datasets: no torch, no decoding
    dataset = prepare(source, cache)
    loader = open_loader(dataset, indices=..., views=RECIPES["byol"], batch_size=256, seed=0, workers=2,
                         out_size=32, mean=dataset.mean, std=dataset.std)
    for batch in loader.epoch(0): ...                        # batch.views, batch.index, batch.labels

Importing this package loads neither torch nor numba: planning reads `benchmark.data.datasets` on a login node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from benchmark.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmark.data.datasets import Dataset
    from benchmark.data.loader import Loader
    from methods.views import ViewConfig

Backend = Literal["auto", "ffcv", "torch"]


def open_loader(
    dataset: Dataset,
    *,
    indices: NDArray[np.integer],
    views: tuple[ViewConfig, ...],
    batch_size: int,
    seed: int,
    workers: int,
    out_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    drop_last: bool = True,
    backend: Backend = "auto",
) -> Loader:
    """A loader of the training images `indices`, each seen once an epoch in an order of its own, as len(views) views.

    The images depend on (seed, epoch, index, view) and nothing else: not on the backend, on workers (threads; with 0 the
    caller's own makes the batches) or on where an epoch was resumed. "auto" takes FFCV where it can be imported.
    InputError where a batch is larger than the training set, or FFCV is asked for and cannot be imported.
    """
    from benchmark.data.loader import Recipe

    recipe = Recipe(dataset.train, views, seed, out_size, tuple(mean), tuple(std))
    kind = _loader_class(backend)
    return kind(recipe, indices, batch_size, workers, drop_last)


def _loader_class(backend: Backend) -> type[Loader]:
    if backend != "torch":
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
    """The stored images u1 (N, side, side, 3) and labels i8 (N,) of a split, or of its samples `indices`, in memory."""
    from benchmark.data.beton import open_beton

    file = open_beton(dataset.train if split == "train" else dataset.test)
    return file.images(indices), file.labels if indices is None else file.labels[indices]


def split_labels(dataset: Dataset, split: Literal["train", "test"]) -> NDArray[np.int64]:
    """The labels i8 (N,) of a split alone, without touching its pixels; -1 marks an unlabelled image."""
    from benchmark.data.beton import open_beton

    return open_beton(dataset.train if split == "train" else dataset.test).labels


def normalize_batch(
    images: NDArray[np.uint8], out_size: int, mean: Sequence[float], std: Sequence[float], crop: float = 1.0
) -> Tensor:
    """What evaluation shows an encoder: the central `crop` of the side, resized, normalized; f4 (N, 3, O, O).

    images: u1 (N, side, side, 3). ImageNet's protocol is crop 0.875 of images stored at 256, for an output of 224.
    """
    from benchmark.data.loader import render

    return render(images, out_size, mean, std, crop)
