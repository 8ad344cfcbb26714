"""FFCV's .beton files for what this benchmark stores: raw uint8 RGB images of one square size, and an integer label.

Written and read with numpy alone, so a machine without FFCV prepares and reads the same files; FFCV's own Loader reads what
is written here, and raw files written by FFCV's DatasetWriter are read here. The layout (FFCV 1.0.2, file version 2): header,
one description per field, one metadata row per sample (mode, width, height, pointer; label), zeros up to a page, the pages of
pixels, and last the allocation table (sample, pointer, size). A sample never straddles two pages.

A file appears under its name only when it is complete: it is written under a temporary name, flushed to the disk and renamed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import InputError

_VERSION, _INT_FIELD, _IMAGE_FIELD, _RAW = 2, 1, 2, 1
_PAGE = 1 << 23  # bytes; FFCV's default
_READ_AHEAD = 1 << 31  # bytes
_HEADER = np.dtype([("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True)
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "u1", 1024)])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8")], align=True)
_ALLOCATION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])


class BetonWriter:
    """Writes `count` images of side `side` in order; use as a context manager.

        with BetonWriter(path, count=2, side=32) as writer:
            writer.write(images, labels)          # as often as needed

    Leaving the block completes the file; leaving it by an exception, or with samples missing (ValueError), removes it.
    """

    def __init__(self, path: Path, count: int, side: int) -> None:
        self.path, self.count, self.side = path, count, side
        self._size = side * side * 3
        self._page = max(_PAGE, 1 << (self._size - 1).bit_length())
        self._samples = np.zeros(count, _SAMPLE)
        head = _HEADER.itemsize + 2 * _FIELD.itemsize + self._samples.nbytes
        first = -(-head // self._page) * self._page
        number = np.arange(count)
        per_page = self._page // self._size
        image = self._samples["image"]
        image["mode"], image["width"], image["height"] = _RAW, side, side
        image["pointer"] = first + (number // per_page) * self._page + (number % per_page) * self._size
        self._done = 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> BetonWriter:
        self._file = self._partial.open("wb")
        return self

    def write(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Append images (n, side, side, 3) with labels (n,)."""
        if images.shape != (len(labels), self.side, self.side, 3) or self._done + len(labels) > self.count:
            raise ValueError(f"{images.shape} images and {len(labels)} labels do not fit the file declared")
        if not len(labels):
            return
        rows = self._samples[self._done : self._done + len(labels)]
        rows["label"] = labels
        pointers = rows["image"]["pointer"].astype(np.int64)
        breaks = np.flatnonzero(np.diff(pointers) != self._size) + 1  # a new page begins; the gap reads as zeros
        for run, pointer in zip(np.split(np.ascontiguousarray(images), breaks), pointers[[0, *breaks]], strict=True):
            self._file.seek(int(pointer))
            self._file.write(run.data)
        self._done += len(labels)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._complete()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _complete(self) -> None:
        if self._done != self.count:
            raise ValueError(f"{self.path.name} was declared with {self.count} samples, {self._done} were written")
        pointers = self._samples["image"]["pointer"]
        end = int(pointers[-1]) + self._size if self.count else _HEADER.itemsize + 2 * _FIELD.itemsize
        table = np.zeros(self.count, _ALLOCATION)
        table["sample"], table["pointer"], table["size"] = np.arange(self.count), pointers, self._size
        self._file.seek(end)
        self._file.write(table.tobytes())
        header = np.array([(_VERSION, 2, self._page, self.count, end)], _HEADER)
        fields = np.zeros(2, _FIELD)
        fields["type"], fields["name"] = (_IMAGE_FIELD, _INT_FIELD), (b"image", b"label")
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + self._samples.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)


@dataclass(frozen=True)
class Beton:
    """An open file: sample n is the side * side * 3 bytes of `storage` (a read-only memory map) from offsets[n] on."""

    path: Path
    side: int
    storage: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return open_beton, (self.path,)  # another process maps the file itself

    def read_ahead(self) -> None:
        """Ask the system to read the file in one sweep, if it is small: a cold disk takes seconds for random pages."""
        if self.storage.size <= _READ_AHEAD and hasattr(os, "posix_fadvise"):
            with self.path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def images(self, indices: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
        """A copy of the images at `indices`, all by default: (n, side, side, 3)."""
        offsets = self.offsets if indices is None else self.offsets[indices]
        size = self.side * self.side * 3
        out = np.empty((len(offsets), self.side, self.side, 3), np.uint8)
        flat, starts = out.reshape(-1), [0, *(np.flatnonzero(np.diff(offsets) != size) + 1).tolist(), len(offsets)]
        for low, high in pairwise(starts):  # runs of samples that lie next to each other
            if low < high:
                begin = int(offsets[low])
                flat[low * size : high * size] = self.storage[begin : begin + (high - low) * size]
        return out


def open_beton(path: Path) -> Beton:
    """Map a .beton file of raw images of one square size and an integer label; InputError where it is anything else."""
    try:
        storage = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it, so that it is converted again") from None
    try:
        header = storage[: _HEADER.itemsize].view(_HEADER)[0]
        count, fields = int(header["samples"]), int(header["fields"])
        described = _HEADER.itemsize + fields * _FIELD.itemsize
        if header["version"] != _VERSION or fields != 2:
            raise ValueError(f"file version {header['version']} with {fields} fields")
        types = storage[_HEADER.itemsize : described].view(_FIELD)["type"].tolist()
        if types != [_IMAGE_FIELD, _INT_FIELD]:
            raise ValueError(f"its fields are of the types {types}, not an image and an integer")
        if int(header["table"]) + count * _ALLOCATION.itemsize != storage.size:
            raise ValueError(f"{storage.size} bytes do not hold {count} samples")
        samples = storage[described : described + count * _SAMPLE.itemsize].copy().view(_SAMPLE)
        image = samples["image"]
        sides = np.unique(np.concatenate([image["width"], image["height"]]))
        if len(sides) != 1 or (image["mode"] != _RAW).any():
            raise ValueError(f"its images are not raw squares of one size: sides {sides[:5].tolist()}")
        side, offsets = int(sides[0]), image["pointer"].astype(np.int64)
        if offsets.min() < described or offsets.max() + side * side * 3 > storage.size:
            raise ValueError("an image lies outside of the file")
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path} is not a whole .beton file of this benchmark ({error}); remove it, so that it is converted again"
        ) from None
    return Beton(path, side, storage, offsets, samples["label"].astype(np.int64))
