"""One way to call every kernel, and torchvision's definition, so that they can stand beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import by_torchvision
from benchmark.data.render import View, cut, framed
from benchmark.data.views import Program, Table
from benchmark.errors import InputError, nearest

Floats = NDArray[np.float32]
Images = Sequence[NDArray[np.uint8]] | Tensor  # u1 (H, W, 3) each, or f4 (N, 3, S, S) in [0, 1] for a program in place
Kernel = Callable[[Images, Table, Program, Floats, Floats], Tensor]  # ..., mean, std -> f4 (N, C, S, S) on the CPU

NAMES = ("numba", "torch")
_ZERO, _ONE = np.zeros(3, np.float32), np.ones(3, np.float32)


def available(names: Sequence[str]) -> tuple[dict[str, Kernel], list[str]]:
    """The kernels by the names they are shown under, and a sentence for each that cannot run here."""
    kernels: dict[str, Kernel] = {}
    missing = []
    for name in names:
        if name not in NAMES:
            raise InputError(f"--kernels names {name!r}; there are {' and '.join(NAMES)}{nearest(name, NAMES)}")
        if name == "numba":
            try:
                kernels["numba"] = _numba()
            except ImportError as error:
                missing.append(f"The numba kernel is left out: {error}.")
        else:
            kernels["torch"] = _torch(torch.device("cpu"))
            if torch.cuda.is_available():
                kernels["CUDA"] = _torch(torch.device("cuda"))
    return kernels, missing


def render(kernel: Kernel, images: Sequence[NDArray[np.uint8]], view: View, mean: Floats, std: Floats) -> Tensor:
    """The view of every image by a kernel, f4 (N, *view.shape)."""
    if view.patch is None or view.cuts is None:
        return kernel(images, view.table, view.program, mean, std)
    whole = kernel(images, view.table, view.program, _ZERO, _ONE)
    pieces = cut(whole, torch.from_numpy(view.cuts.corners), view.patch.size).flatten(0, 1).contiguous()
    pieces = kernel(pieces, view.cuts.table, view.patch, mean, std)
    if view.inner:
        pieces = framed(pieces, torch.from_numpy(view.cuts.inner).flatten(0, 1), view.inner)
    return pieces.unflatten(0, (len(images), -1))


def define(images: Sequence[NDArray[np.uint8]], view: View, mean: Floats, std: Floats) -> Tensor:
    """The same by torchvision's functional transforms, sample by sample."""
    done = []
    for number, pixels in enumerate(images):
        row, part = view.table[number], view.part(number, number + 1)
        if view.patch is None or part.cuts is None:
            done.append(by_torchvision.apply_row(pixels, row, view.program, mean.tolist(), std.tolist()))
        else:
            given = part.cuts, view.patch, view.inner, mean.tolist(), std.tolist()
            done.append(by_torchvision.apply_patches(pixels, row, view.program, *given))
    return torch.stack(done)


def _numba() -> Kernel:
    from benchmark.data import kernels_numba

    def apply(images: Images, table: Table, made: Program, mean: Floats, std: Floats) -> Tensor:
        if isinstance(images, Tensor):
            out = images.clone()
            none = np.empty(0, np.int64)
            kernels_numba.apply(np.empty(0, np.uint8), none, none, none, table, made, mean, std, out.numpy())
            return out
        heights, widths, sizes = (np.array([f(image) for image in images]) for f in (_height, _width, np.size))
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        storage = np.concatenate([image.reshape(-1) for image in images])
        out = torch.empty((len(images), made.channel_count, made.size, made.size))
        kernels_numba.apply(storage, offsets, heights, widths, table, made, mean, std, out.numpy())
        return out

    return apply


def _torch(device: torch.device) -> Kernel:
    from benchmark.data import kernels_torch

    def apply(images: Images, table: Table, made: Program, mean: Floats, std: Floats) -> Tensor:
        if isinstance(images, Tensor):
            there: Tensor | list[Tensor] = images.to(device)
        else:
            there = [torch.from_numpy(image).to(device) for image in images]
            if len({image.shape for image in there}) == 1:
                there = torch.stack(there)
        return kernels_torch.apply(there, table, made, mean.tolist(), std.tolist()).cpu()

    return apply


def _height(image: NDArray[np.uint8]) -> int:
    return image.shape[0]


def _width(image: NDArray[np.uint8]) -> int:
    return image.shape[1]
