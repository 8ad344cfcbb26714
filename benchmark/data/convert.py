"""Writing a source's images as two .beton files with their names and checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark.data.beton import BetonWriter, checksums_file, names_file
from benchmark.data.manifest import Storage
from benchmark.data.sources import Chunk, Opened, Settings, Split
from benchmark.errors import InputError

Progress = Callable[[str, int, int], None]  # what is being done, how many of how many images


@dataclass(frozen=True)
class Converted:
    """content: see `manifest.Dataset`. mean, std: per channel of the training pixels in [0, 1]. reencoded: images a split."""

    content: str
    counts: dict[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    reencoded: dict[str, int]


class Content:
    """The content number of a conversion: `stored` for every sample of a split, then `split`; train first.

    It is taken over what is stored: raw pixels, so that sources that decode to the same pixels share it, or JPEG files, whose
    pixels their bytes determine.
    """

    def __init__(self, storage: Storage) -> None:
        self._jpeg = storage == "jpeg"
        self._digest = hashlib.sha256(b"jpeg" if self._jpeg else b"")
        self.stored: Callable[[bytes | memoryview], None] = self._digest.update

    def split(self, sizes: NDArray[np.integer], labels: NDArray[np.integer]) -> None:
        """The bytes and labels of all samples of a split, which ends with this."""
        if self._jpeg:
            self._digest.update(sizes.astype("<i8").tobytes())
        self._digest.update(labels.astype("<i8").tobytes())

    def number(self) -> str:
        return self._digest.hexdigest()[:12]


def convert(name: str, opened: Opened, folder: Path, settings: Settings, progress: Progress | None) -> Converted:
    """Write the files of train and test into `folder`. OSError (ENOSPC) where the disk cannot hold them.

    InputError where a channel of the training images is the same everywhere: views are divided by its standard deviation.
    """
    counts = {"train": opened.train.count, "test": opened.test.count}
    needed, free = sum(counts.values()) * settings.side**2 * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
    content = Content(settings.storage)
    moments = np.zeros((2, 3), np.float64 if settings.storage == "jpeg" else np.int64)  # of the training pixels
    reencoded, done = {}, 0
    for split, part in (("train", opened.train), ("test", opened.test)):
        chunks = []  # without the images
        with BetonWriter(folder / f"{split}.beton", part.count, settings.side) as writer:
            for chunk in _in_order(part):
                _write(writer, chunk, content.stored)
                moments += chunk.moments if split == "train" else 0
                sizes = np.array([len(file) for file in chunk.files], np.int64)
                chunks.append((chunk.labels, chunk.checksums, chunk.names, sizes, chunk.reencoded))
                done += len(chunk.labels)
                if progress:
                    progress(f"converting {name}", done, sum(counts.values()))
        labels, checksums, names, all_sizes, encoded = zip(*chunks, strict=True)
        content.split(np.concatenate(all_sizes), np.concatenate(labels))
        reencoded[split] = sum(encoded)
        _write_beside(folder / f"{split}.beton", np.concatenate(checksums), [name for part in names for name in part])
    weight = counts["train"] * (settings.side**2 or 1)
    mean, square = moments / weight / np.array([[255.0], [255.0**2]])
    std = np.sqrt(np.maximum(square - mean**2, 0)).round(4)
    if not std.all():
        flat = " and ".join(colour for colour, value in zip(("red", "green", "blue"), std, strict=True) if not value)
        raise InputError(f"{name}: {flat} is the same in all pixels of the training images (std 0); give images with contrast")
    return Converted(
        content=content.number(),
        counts=counts,
        mean=tuple(mean.round(4).tolist()),
        std=tuple(std.tolist()),
        reencoded=reencoded,
    )


def _write(writer: BetonWriter, chunk: Chunk, digest: Callable[[bytes | memoryview], None]) -> None:
    if chunk.images is not None:
        writer.write(chunk.images, chunk.labels)
        digest(chunk.images.data)
        return
    writer.write_jpegs(chunk.files, chunk.heights, chunk.widths, chunk.labels)
    for file in chunk.files:
        digest(file)


def _write_beside(beton: Path, checksums: NDArray[np.uint32], names: list[str]) -> None:
    checksums_file(beton).write_bytes(checksums.astype("<u4").tobytes())
    if any(names):
        lines = (name.replace("\n", "\\n") for name in names)  # a file's name may hold anything but / and zero bytes
        names_file(beton).write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))


def _in_order(split: Split) -> Iterator[Chunk]:
    """All chunks of a split, made by threads a few ahead of the writer."""
    pool, ahead = ThreadPoolExecutor(split.threads), deque[Future[Chunk]]()
    try:
        for low in range(0, split.count, split.chunk):
            ahead.append(pool.submit(split.make, low, min(low + split.chunk, split.count)))
            if len(ahead) > 2 * split.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
