"""FFCV's .beton files for what this benchmark stores: RGB images, raw squares of one size or JPEG files, and a label.

Written and read with numpy alone, so a machine without FFCV prepares and reads the same files; FFCV's own Loader reads what
is written here, and files written by FFCV's DatasetWriter (modes "raw" and "jpg") are read here. The layout (FFCV 1.0.2, file
version 2): header, one description per field, one metadata row per sample (mode, width, height, pointer; label), zeros up to
a page, the pages of pixels or JPEG files, and last the allocation table (sample, pointer, size). A sample never straddles two
pages. What the format has no room for lies beside it, one entry a sample: `train.names` the names of the source files, one a
line, and `train.crc32` the CRC-32 of the stored bytes, little-endian u4.

A file appears under its name only when it is complete: it is written under a temporary name, flushed to the disk and renamed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from benchmark.data.jpegs import decode_jpeg
from benchmark.errors import InputError

_VERSION, _INT_FIELD, _IMAGE_FIELD, _JPEG, _RAW = 2, 1, 2, 0, 1
_PAGE = 1 << 23  # bytes; FFCV's default
_READ_AHEAD = 1 << 31  # bytes
_HEADER = np.dtype([("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True)
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "u1", 1024)])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8")], align=True)
_ALLOCATION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])
_NEWLINE = ord("\n")


class BetonWriter:
    """Writes `count` samples in order, raw images of one side or, with side 0, JPEG files; use as a context manager.

        with BetonWriter(path, count=2, side=32) as writer:
            writer.write(images, labels)          # as often as needed
        with BetonWriter(path, count=2) as writer:
            writer.write_jpegs(files, heights, widths, labels)

    Leaving the block completes the file; leaving it by an exception, or with samples missing (ValueError), removes it.
    """

    def __init__(self, path: Path, count: int, side: int = 0) -> None:
        self.path, self.count, self.side = path, count, side
        self._samples = np.zeros(count, _SAMPLE)
        self._samples["image"]["mode"] = _RAW if side else _JPEG
        self._sizes = np.zeros(count, np.uint64)
        head = _HEADER.itemsize + 2 * _FIELD.itemsize + self._samples.nbytes
        self._page = _page_for(side * side * 3)
        self._at = -(-head // self._page) * self._page  # where the next sample may begin
        self._done = 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> BetonWriter:
        self._file = self._partial.open("wb")
        return self

    def write(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> None:
        """Append images u1 (n, side, side, 3) with labels (n,)."""
        if not self.side or images.shape != (len(labels), self.side, self.side, 3):
            raise ValueError(f"{images.shape} images and {len(labels)} labels do not fit the file declared")
        each = np.full(len(labels), self.side)
        pointers = self._place(np.full(len(labels), self.side * self.side * 3), each, each, labels)
        breaks = np.flatnonzero(np.diff(pointers) != self.side * self.side * 3) + 1  # a new page begins
        runs = np.split(np.ascontiguousarray(images), breaks)
        for run, pointer in zip(runs, pointers[[0, *breaks]] if len(labels) else (), strict=len(labels) > 0):
            self._file.seek(int(pointer))  # what is left out at the end of a page reads as zeros
            self._file.write(run.data)

    def write_jpegs(
        self, files: Sequence[bytes], heights: Sequence[int], widths: Sequence[int], labels: NDArray[np.integer]
    ) -> None:
        """Append JPEG files with their sizes in pixels and labels, n of each."""
        if self.side or not len(files) == len(heights) == len(widths) == len(labels):
            raise ValueError(f"{len(files)} JPEG files and {len(labels)} labels do not fit the file declared")
        sizes = np.array([len(file) for file in files], np.int64)
        for file, pointer in zip(files, self._place(sizes, heights, widths, labels), strict=True):
            self._file.seek(int(pointer))
            self._file.write(file)

    def _place(
        self,
        sizes: NDArray[np.integer],
        heights: Sequence[int] | NDArray[np.integer],
        widths: Sequence[int] | NDArray[np.integer],
        labels: NDArray[np.integer],
    ) -> NDArray[np.int64]:
        """Enter the next n samples into the tables and find their places (n,)."""
        if self._done + len(labels) > self.count:
            raise ValueError(f"{len(labels)} more samples do not fit the {self.count} declared")
        pointers = np.empty(len(labels), np.int64)
        for i, size in enumerate(sizes.tolist()):
            # A sample larger than a page makes all pages larger: what lies within a page lies within one of twice its size.
            self._page = max(self._page, _page_for(size))
            if self._at // self._page != (self._at + max(size, 1) - 1) // self._page:
                self._at = -(-self._at // self._page) * self._page
            pointers[i] = self._at
            self._at += size
        part = slice(self._done, self._done + len(labels))
        rows = self._samples[part]
        rows["label"], rows["image"]["pointer"], self._sizes[part] = labels, pointers, sizes
        rows["image"]["height"], rows["image"]["width"] = heights, widths
        self._done += len(labels)
        return pointers

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
        table = np.zeros(self.count, _ALLOCATION)
        table["sample"], table["pointer"], table["size"] = np.arange(self.count), self._samples["image"]["pointer"], self._sizes
        self._file.seek(self._at)
        self._file.write(table.tobytes())
        header = np.array([(_VERSION, 2, self._page, self.count, self._at)], _HEADER)
        fields = np.zeros(2, _FIELD)
        fields["type"], fields["name"] = (_IMAGE_FIELD, _INT_FIELD), (b"image", b"label")
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + self._samples.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)


def names_file(path: Path) -> Path:
    """Where the source file names of a .beton file lie."""
    return path.with_suffix(".names")


def checksums_file(path: Path) -> Path:
    """Where the CRC-32 numbers of a .beton file's samples lie."""
    return path.with_suffix(".crc32")


@dataclass(frozen=True)
class Beton:
    """An open file: sample n is storage[offsets[n] : offsets[n] + sizes[n]], an image of heights[n] x widths[n] pixels.

    storage: u1, a read-only memory map of the whole file. offsets, sizes (bytes), heights, widths, labels: i8 (N,).
    jpeg: whether a sample is a JPEG file; else it is H * W * 3 bytes of RGB, and side is the side of all images (0 for JPEG).
    """

    path: Path
    storage: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    labels: NDArray[np.int64]
    jpeg: bool
    side: int

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return open_beton, (self.path,)  # another process maps the file itself

    def read_ahead(self) -> None:
        """Ask the system to read the file in one sweep, if it is small: a cold disk takes seconds for random pages."""
        if self.storage.size <= _READ_AHEAD and hasattr(os, "posix_fadvise"):
            with self.path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def stored(self, index: int) -> NDArray[np.uint8]:
        """The bytes u1 (size,) of one sample as they are stored, without copying them."""
        begin = int(self.offsets[index])
        return self.storage[begin : begin + int(self.sizes[index])]

    def decode(self, index: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """One image, u1 (H, W, 3), of a JPEG file in the memory `into` u1 (H * W * 3,) if that is given and possible.

        InputError names the file, the index and the source file where it cannot be decoded.
        """
        shape = int(self.heights[index]), int(self.widths[index]), 3
        if not self.jpeg:
            return self.stored(index).reshape(shape).copy()
        try:
            pixels = decode_jpeg(self.stored(index), into, lambda: self._intact(index))
            if pixels.shape != shape:
                raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, not {shape[1]} x {shape[0]}")
        except ValueError as error:
            name = self.name(index)
            source = f" ({name})" if name else ""
            raise InputError(
                f"{self.path}: image {index}{source} cannot be decoded ({error}); convert the data set again"
            ) from None
        return pixels

    def _intact(self, index: int) -> bool:
        """Whether the stored bytes are those of the conversion, as far as that left checksums."""
        return self.checksums is None or zlib.crc32(self.stored(index).data) == int(self.checksums[index])

    def images(self, indices: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
        """A copy of the raw images at `indices`, all by default: u1 (n, side, side, 3). ValueError for JPEG storage."""
        if self.jpeg:
            raise ValueError(f"{self.path} holds JPEG files of many sizes; use decode")
        offsets = self.offsets if indices is None else self.offsets[indices]
        size = self.side * self.side * 3
        out = np.empty((len(offsets), self.side, self.side, 3), np.uint8)
        flat, starts = out.reshape(-1), [0, *(np.flatnonzero(np.diff(offsets) != size) + 1).tolist(), len(offsets)]
        for low, high in pairwise(starts):  # runs of samples that lie next to each other
            if low < high:
                begin = int(offsets[low])
                flat[low * size : high * size] = self.storage[begin : begin + (high - low) * size]
        return out

    def name(self, index: int) -> str:
        """The name of the source file below its split, such as "dog/003.jpg"; "" where it is unknown."""
        text, ends = self._names
        if not len(ends):
            return ""
        index = range(len(self))[index]
        return os.fsdecode(text[ends[index - 1] + 1 if index else 0 : ends[index]])

    def names(self) -> list[str]:
        """The source file names of all samples (N,), an empty list where they are unknown."""
        text, ends = self._names
        return os.fsdecode(text).split("\n")[:-1] if len(ends) else []

    @cached_property
    def _names(self) -> tuple[bytes, NDArray[np.int64]]:
        """The text of the names and where each line of it ends, read when first asked for."""
        path = names_file(self.path)
        if not path.exists():
            return b"", np.empty(0, np.int64)
        text = path.read_bytes()
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE)
        if len(ends) != len(self) or not text.endswith(b"\n"):
            raise InputError(f"{path} has {len(ends)} lines for {len(self)} images; convert the data set again")
        return text, ends

    @cached_property
    def checksums(self) -> NDArray[np.uint32] | None:
        """The CRC-32 u4 (N,) of every sample's stored bytes at conversion, None where there are none."""
        path = checksums_file(self.path)
        if not path.exists():
            return None
        found = np.frombuffer(path.read_bytes(), np.uint8)
        if len(found) != 4 * len(self):
            raise InputError(f"{path} has {len(found)} bytes for {len(self)} images; convert the data set again")
        return found.view("<u4").astype(np.uint32)


def open_beton(path: Path) -> Beton:
    """Map a .beton file of raw squares of one size or of JPEG files, with an integer label; InputError for anything else."""
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
        heights, widths, offsets = (image[key].astype(np.int64) for key in ("height", "width", "pointer"))
        sizes = _sizes(storage[int(header["table"]) :].copy().view(_ALLOCATION), offsets)
        modes, sides = np.unique(image["mode"]).tolist(), np.unique(np.concatenate([heights, widths]))
        jpeg = modes == [_JPEG]
        if not jpeg and (modes != [_RAW] or len(sides) != 1):
            raise ValueError(f"its images are neither JPEG files nor raw squares of one size: sides {sides[:5].tolist()}")
        if not jpeg and (sizes != heights * widths * 3).any():
            raise ValueError("an image has another size than its pixels take")
        if offsets.min() < described or sizes.min() < 0 or (offsets + sizes).max() > storage.size:
            raise ValueError("an image lies outside of the file")
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path} is not a whole .beton file of this benchmark ({error}); remove it, so that it is converted again"
        ) from None
    side = 0 if jpeg else int(sides[0])
    return Beton(path, storage, offsets, sizes, heights, widths, samples["label"].astype(np.int64), jpeg, side)


def _sizes(table: NDArray[np.void], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of each sample (N,), from an allocation table that may be in any order (FFCV's writers are several processes)."""
    if not np.array_equal(table["sample"], np.arange(len(table))):
        table = table[np.argsort(table["sample"], kind="stable")]
    if not np.array_equal(table["pointer"].astype(np.int64), offsets):
        raise ValueError("its table of samples contradicts itself")
    return table["size"].astype(np.int64)


def _page_for(size: int) -> int:
    """Bytes of a page that holds a sample of `size` bytes: a power of two."""
    return max(_PAGE, 1 << max(size - 1, 0).bit_length())
