"""What a data set is made from: image files, archives, torchvision's originals, drawn images; as chunks ready to be stored."""

from __future__ import annotations

import errno
import os
import socket
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles, jpegs
from benchmark.data import shapes as procedural
from benchmark.data.classlist import ClassList
from benchmark.data.manifest import Kind, Storage
from benchmark.errors import InputError

# Data sets that torchvision can download -> its class for them, the folder their files lie in.
ORIGINAL_FILES = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
}
_DOWNLOAD_TIMEOUT = 20  # seconds without an answer
_SMALL_FILE = 16_384  # bytes
_DRAWN_SIDE = 32  # pixels, of procedural images that are stored as JPEG files
_CHUNK = {"raw": 256, "jpeg": 32}  # images a thread decodes at a time; JPEG storage is for the large ones

_Images = NDArray[np.uint8]
_Integers = NDArray[np.int64]


class DownloadFailed(Exception):
    """The message says why."""


@dataclass(frozen=True)
class Settings:
    """How images are stored: raw squares of `side` pixels, or JPEG files of at most `limit` on the shorter side (0: any)."""

    storage: Storage
    side: int = 0
    limit: int = 0
    quality: int = 0


@dataclass(frozen=True)
class Chunk:
    """n samples: images u1 (n, side, side, 3) for raw storage, else `files` with heights and widths in pixels.

    labels: i8 (n,). names: of the source files, "" where there are none. checksums: CRC-32 u4 (n,) of what is stored.
    moments: (2, 3), sums of the channels and of their squares. For raw images these are of all pixels, as integers; of JPEG
    files each image adds its mean, so that every image counts the same whatever its size.
    """

    labels: _Integers
    names: list[str]
    checksums: NDArray[np.uint32]
    moments: NDArray[Any]
    images: _Images | None = None
    files: Sequence[bytes] = ()
    heights: Sequence[int] = ()
    widths: Sequence[int] = ()
    reencoded: int = 0


@dataclass(frozen=True)
class Split:
    """`make(low, high)` gives a range of `count` samples, by preference `chunk` of them; called by `threads` threads."""

    count: int
    make: Callable[[int, int], Chunk]
    threads: int
    chunk: int


@dataclass(frozen=True)
class Opened:
    """listing: see `imagefiles.listing_of`; only image folders have one."""

    note: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    listing: str = ""


def open_source(
    name: str, kind: Kind, path: Path | None, classes: ClassList | None, cache: Path, scratch: Path, settings: Settings
) -> Opened:
    """List the images of a source; downloads where `path` is None, unpacks into `scratch` where that is needed."""
    if kind == "procedural":
        return Opened("procedural images", procedural.CLASSES, _drawn("train", settings), _drawn("test", settings))
    if kind == "torchvision":
        return _open_torchvision(name, path, cache, settings)
    assert path is not None
    found = imagefiles.open_folder(path, classes) if kind == "folder" else imagefiles.open_tar(path, scratch, classes)
    if name == "imagenet100" and len(found.classes) > 100:
        raise InputError(
            f"{path} has {len(found.classes)} classes, imagenet100 has 100; list them in a file and convert with "
            "python -m benchmark.data convert imagenet100 --classes FILE"
        )
    suffix = Path(found.train[0].name).suffix[1:].upper().replace("JPG", "JPEG")
    note = f"{'image folder' if kind == 'folder' else 'tar archive'}, {suffix} files"
    listing = imagefiles.listing_of(found) if kind == "folder" else ""  # before an image is read: later changes count as such
    return Opened(note, found.classes, _of_files(found.train, settings), _of_files(found.test, settings), listing)


def _of_files(files: list[imagefiles.ImageFile], settings: Settings) -> Split:
    def make(low: int, high: int) -> Chunk:
        part = files[low:high]
        labels, names = np.array([file.label for file in part], np.int64), [file.entry for file in part]
        if settings.storage == "jpeg":
            stored = (jpegs.store(file.name, file.load(), settings.limit, settings.quality) for file in part)
            return _jpeg_chunk(stored, labels, names)
        images = np.empty((len(part), settings.side, settings.side, 3), np.uint8)
        for row, file in zip(images, part, strict=True):
            row[:] = imagefiles.fit(imagefiles.pixels(file.name, file.load()), settings.side)
        return _raw_chunk(images, labels, names)

    # Pillow releases the interpreter's lock around the decoder alone: on small files threads only pass it around
    # (32 x 32 JPEG on two cores: 95 microseconds an image with one thread, 165 with two).
    threads = cores() if len(files[0].load()) > _SMALL_FILE else 1
    return Split(len(files), make, threads, _CHUNK[settings.storage])


def _of_arrays(count: int, get: Callable[[int, int], tuple[_Images, _Integers]], settings: Settings) -> Split:
    """A split whose images come as pixels u1 (n, H, W, 3), of one size, with labels (n,)."""

    def make(low: int, high: int) -> Chunk:
        images, labels = get(low, high)
        names = [""] * len(labels)
        if settings.storage == "jpeg":
            stored = (jpegs.from_pixels(pixels, settings.limit, settings.quality) for pixels in images)
            return _jpeg_chunk(stored, labels, names)
        return _raw_chunk(np.stack([imagefiles.fit(pixels, settings.side) for pixels in images]), labels, names)

    return Split(count, make, cores(), _CHUNK[settings.storage])


def _raw_chunk(images: _Images, labels: _Integers, names: list[str]) -> Chunk:
    checksums = np.array([zlib.crc32(image) for image in images], np.uint32)
    return Chunk(labels, names, checksums, _sums(images), images=images)


def _jpeg_chunk(stored: Iterable[jpegs.Stored], labels: _Integers, names: list[str]) -> Chunk:
    files, sizes, moments, reencoded = [], [], np.zeros((2, 3)), 0
    for one in stored:  # a generator, so that only one image's pixels are held at a time
        files.append(one.data)
        sizes.append(one.pixels.shape[:2])
        moments += _sums(one.pixels[None]) / (one.pixels.size // 3)
        reencoded += one.reencoded
    heights, widths = zip(*sizes, strict=True)
    checksums = np.array([zlib.crc32(file) for file in files], np.uint32)
    return Chunk(labels, names, checksums, moments, None, files, heights, widths, reencoded)


def _sums(images: _Images) -> _Integers:
    """Sums of the channels and of their squares over u1 (n, H, W, 3): (2, 3)."""
    rows = images.reshape(len(images), images.shape[1], -1)
    squares = np.square(rows, dtype=np.uint16)
    # Down the columns first: these sums fit 32 bits for up to 66,051 rows, and the processor adds many at a time.
    columns = [np.add.reduce(values, 1, dtype=np.uint32) for values in (rows, squares)]
    return np.stack([part.reshape(-1, 3).sum(0, dtype=np.int64) for part in columns])


def _drawn(split: Any, settings: Settings) -> Split:
    side = settings.side or _DRAWN_SIDE

    def get(low: int, high: int) -> tuple[_Images, _Integers]:
        part = procedural.shapes(split, high, side=side, first=low)
        return part.images, part.labels

    return _of_arrays(procedural.COUNTS[split], get, settings)


def _open_torchvision(name: str, path: Path | None, cache: Path, settings: Settings) -> Opened:
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
    return Opened("original files", tuple(train.classes), _held(train, settings), _held(test, settings))


def _held(part: Any, settings: Settings) -> Split:
    """A torchvision data set that holds its images in one array: (N, H, W, 3), or (N, 3, H, W) for STL-10."""
    images = part.data.transpose(0, 2, 3, 1) if part.data.shape[1] == 3 else part.data
    labels = np.asarray(part.labels if hasattr(part, "labels") else part.targets, np.int64)
    return _of_arrays(len(labels), lambda low, high: (images[low:high], labels[low:high]), settings)


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
