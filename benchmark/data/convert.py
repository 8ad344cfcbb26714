"""Reading a source's images, whatever they are, and writing them as two .beton files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles
from benchmark.data import shapes as procedural
from benchmark.data.beton import BetonWriter
from benchmark.errors import InputError

Progress = Callable[[str, int, int], None]  # what is being done, how many of how many images

# Data sets that torchvision can download -> its class for them, the folder their files lie in.
ORIGINAL_FILES = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
}
_DOWNLOAD_TIMEOUT = 20  # seconds without an answer
_CHUNK = 256  # images a thread decodes at a time
_SMALL_FILE = 16_384  # bytes

_Images = NDArray[np.uint8]
_Integers = NDArray[np.int64]


class DownloadFailed(Exception):
    """The message says why."""


@dataclass(frozen=True)
class Split:
    """`make(low, high)` gives images u1 (n, side, side, 3) and labels i8 (n,) of a range; called by `threads` threads."""

    count: int
    make: Callable[[int, int], tuple[_Images, _Integers]]
    threads: int


@dataclass(frozen=True)
class Opened:
    note: str
    classes: tuple[str, ...]
    train: Split
    test: Split


@dataclass(frozen=True)
class Converted:
    """content: see `datasets.Dataset`. mean, std: per channel of the training pixels in [0, 1]."""

    content: str
    counts: dict[str, int]
    train: Path
    test: Path
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def open_source(name: str, kind: str, path: Path | None, cache: Path, scratch: Path, side: int) -> Opened:
    """List the images of a source; downloads where `path` is None, unpacks into `scratch` where that is needed."""
    if kind == "procedural":
        return Opened("procedural images", procedural.CLASSES, _drawn("train", side), _drawn("test", side))
    if kind == "torchvision":
        return _open_torchvision(name, path, cache, side)
    assert path is not None
    found = imagefiles.open_folder(path) if kind == "folder" else imagefiles.open_tar(path, scratch)
    suffix = Path(found.train[0].name).suffix[1:].upper().replace("JPG", "JPEG")
    note = f"{'image folder' if kind == 'folder' else 'tar archive'}, {suffix} files"
    return Opened(note, found.classes, _decoded(found.train, side), _decoded(found.test, side))


def _drawn(split: Literal["train", "test"], side: int) -> Split:
    def make(low: int, high: int) -> tuple[_Images, _Integers]:
        part = procedural.shapes(split, high, side=side, first=low)
        return part.images, part.labels

    return Split(procedural.COUNTS[split], make, _cores())


def _decoded(files: list[imagefiles.ImageFile], side: int) -> Split:
    def make(low: int, high: int) -> tuple[_Images, _Integers]:
        part = files[low:high]
        images = np.empty((len(part), side, side, 3), np.uint8)
        for row, file in zip(images, part, strict=True):
            row[:] = imagefiles.decode(file.name, file.read, side)
        return images, np.array([file.label for file in part], np.int64)

    # Pillow releases the interpreter's lock around the decoder alone: on small files threads only pass it around
    # (32 x 32 JPEG on two cores: 95 microseconds an image with one thread, 165 with two).
    return Split(len(files), make, _cores() if len(files[0].read()) > _SMALL_FILE else 1)


def _open_torchvision(name: str, path: Path | None, cache: Path, side: int) -> Opened:
    """The original files through torchvision, which checks their digests; downloaded where no path was given.

    STL-10's training images are the labelled ones, then the unlabelled ones with the label -1.
    """
    import torchvision.datasets

    factory, folder = ORIGINAL_FILES[name]
    root = path or cache / "torchvision"
    keys = {"split": ("train+unlabeled", "test")} if name == "stl10" else {"train": (True, False)}
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)  # a silent network must end in an answer, not in waiting
    try:
        train, test = (
            getattr(torchvision.datasets, factory)(root, **{key: value}, download=path is None)
            for key, values in keys.items()
            for value in values
        )
    except Exception as error:  # whatever the network or the archive did: it cannot be used
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if path is None:
            raise DownloadFailed(f"{type(error).__name__}: {error}") from error
        raise InputError(f"{root / folder} is damaged or incomplete ({error}); fetch it again") from None
    finally:
        socket.setdefaulttimeout(timeout)
    return Opened("original files", tuple(train.classes), _stored(train, side), _stored(test, side))


def _stored(part: Any, side: int) -> Split:
    """A torchvision data set that holds its images in one array: (N, H, W, 3), or (N, 3, H, W) for STL-10."""
    images = part.data.transpose(0, 2, 3, 1) if part.data.shape[1] == 3 else part.data
    labels = np.asarray(part.labels if hasattr(part, "labels") else part.targets, np.int64)

    def make(low: int, high: int) -> tuple[_Images, _Integers]:
        return np.stack([imagefiles.fit(pixels, side) for pixels in images[low:high]]), labels[low:high]

    return Split(len(labels), make, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def convert(name: str, opened: Opened, folder: Path, side: int, progress: Progress | None) -> Converted:
    """Write train.beton and test.beton into `folder`. OSError (ENOSPC) where the disk cannot hold them."""
    counts = {"train": opened.train.count, "test": opened.test.count}
    needed, free = sum(counts.values()) * side * side * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
    digest = hashlib.sha256()
    moments = np.zeros((2, 3), np.int64)  # of the training pixels: sums and sums of squares
    done = 0
    for split, part in (("train", opened.train), ("test", opened.test)):
        all_labels = []
        with BetonWriter(folder / f"{split}.beton", part.count, side) as writer:
            for images, labels, sums in _in_order(part):
                writer.write(images, labels)
                digest.update(images.data)
                all_labels.append(labels)
                moments += sums if split == "train" else 0
                done += len(labels)
                if progress:
                    progress(f"converting {name}", done, sum(counts.values()))
        digest.update(np.concatenate(all_labels).astype("<i8").tobytes())
    mean, square = moments / (counts["train"] * side * side) / np.array([[255.0], [255.0**2]])
    return Converted(
        content=digest.hexdigest()[:12],
        counts=counts,
        train=folder / "train.beton",
        test=folder / "test.beton",
        mean=tuple(mean.round(4).tolist()),
        std=tuple(np.sqrt(square - mean**2).round(4).tolist()),
    )


def _in_order(split: Split) -> Iterator[tuple[_Images, _Integers, _Integers]]:
    """All batches of a split, made by threads a few ahead of the writer: images, labels, sums per channel (2, 3)."""

    def work(low: int) -> tuple[_Images, _Integers, _Integers]:
        images, labels = split.make(low, min(low + _CHUNK, split.count))
        pixels = images.reshape(-1, 3)
        squares = np.square(pixels, dtype=np.uint16)
        return images, labels, np.stack([pixels.sum(0, dtype=np.int64), squares.sum(0, dtype=np.int64)])

    pool, ahead = ThreadPoolExecutor(split.threads), deque[Future[tuple[_Images, _Integers, _Integers]]]()
    try:
        for low in range(0, split.count, _CHUNK):
            ahead.append(pool.submit(work, low))
            if len(ahead) > 2 * split.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
