"""Whether a converted folder is still what was written: its manifest, sizes, digests, content, every sample, every image."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from benchmark.data import manifest
from benchmark.data.beton import Beton, open_beton
from benchmark.data.classlist import ClassList
from benchmark.data.convert import Content, Progress
from benchmark.data.datasets import changed
from benchmark.data.manifest import SPLITS, File, Manifest
from benchmark.data.sources import cores
from benchmark.errors import InputError

_BUFFER = 1 << 22  # bytes read at once
_TOLD = 512  # images between two reports


def damage(folder: Path, decode: bool = False, progress: Progress | None = None) -> Iterator[str]:
    """A sentence for everything that is wrong with the conversion in `folder`, which has a manifest; none if it is whole.

    Reads every byte. decode: also decodes every image, which shows nothing more unless the conversion itself was wrong.
    """
    try:
        made = manifest.read_manifest(folder, complete=False)
    except InputError as error:
        yield str(error)
        return
    if made is None:
        yield f"{folder} has no {manifest.NAME}"
        return
    for name, expected in made.files.items():
        found = manifest.fault(folder, name, expected)
        if found:
            yield found
        elif Path(name).suffix != ".beton" and _digest(folder / name) != expected.sha256:
            yield f"{folder / name} was changed: its digest is another than at conversion"
    content, damaged = Content(made.dataset.storage), False
    for split, path in zip(SPLITS, (made.dataset.train, made.dataset.test), strict=True):
        for sentence in _damage_of_split(path, split, made, content, decode, progress):
            damaged = True
            yield sentence
    if not damaged and content.number() != made.dataset.content:
        yield f"{folder / manifest.NAME} says content {made.dataset.content}, the files have {content.number()}"


def notes(folder: Path) -> Iterator[str]:
    """What is no damage but good to know about the conversion in `folder`: that its source has changed since."""
    try:
        made = manifest.read_manifest(folder)
    except InputError:  # `damage` says so
        return
    source = Path(made.source) if made and made.source else None
    if made is None or source is None or not source.is_dir():
        return
    classes = ClassList(folder / manifest.NAME, tuple(enumerate(made.dataset.classes, 1))) if made.chosen else None
    try:
        differs = changed(made, source, classes)
    except InputError:  # it is no image folder any more, or lacks a class
        differs = True
    if differs:
        yield f"the images in {source} have changed since they were converted in {folder}; convert them again to use them"


def _damage_of_split(
    path: Path, split: str, made: Manifest, content: Content, decode: bool, progress: Progress | None
) -> Iterator[str]:
    if not path.is_file():  # said already
        return
    try:
        file = open_beton(path)
        names = file.names()
        if file.checksums is None:
            yield f"{path.with_suffix('.crc32')} is missing: single images cannot be checked"
    except InputError as error:
        yield str(error)
        return
    except OSError as error:
        yield f"what lies beside {path} cannot be read ({error})"
        return
    if len(file) != made.dataset.counts[split]:
        yield f"{path} has {len(file)} images, its manifest says {made.dataset.counts[split]}"
    if file.side != made.dataset.size:
        yield f"{path} has images of side {file.side or 'any'}, its manifest says {made.dataset.size or 'any'}"
    if file.labels.max() >= len(made.dataset.classes) or file.labels.min() < -1:
        yield f"{path} has labels outside of its {len(made.dataset.classes)} classes"
    yield from _damaged_bytes(file, names, made.files[path.name], content, progress)
    content.split(file.sizes, file.labels)
    if decode:
        yield from _damaged_images(file, progress)


def _damaged_bytes(file: Beton, names: list[str], expected: File, content: Content, progress: Progress | None) -> Iterator[str]:
    """Every sample against its checksum and the whole file against its digest, in one reading from start to end.

    A conversion has its samples in order, so they reach `content` as they did when it was made.
    """
    digest, damaged, at = hashlib.sha256(), 0, 0
    order = np.argsort(file.offsets, kind="stable").tolist()
    offsets, sizes = file.offsets.tolist(), file.sizes.tolist()
    checksums = file.checksums.tolist() if file.checksums is not None else None
    index = -1
    try:
        with file.path.open("rb", buffering=_BUFFER) as bytes_:
            for done, index in enumerate(order, 1):
                if offsets[index] < at:
                    yield f"{file.path}: image {index}{_named(names, index)} overlaps another; its tables are damaged"
                    return
                digest.update(bytes_.read(offsets[index] - at))
                data = bytes_.read(sizes[index])
                digest.update(data)
                content.stored(data)
                at = offsets[index] + sizes[index]
                if checksums is not None and zlib.crc32(data) != checksums[index]:
                    damaged += 1
                    yield (
                        f"{file.path}: image {index}{_named(names, index)} is damaged: its CRC-32 is {zlib.crc32(data):08x}, "
                        f"it was {checksums[index]:08x} at conversion"
                    )
                if progress and (done % _TOLD == 0 or done == len(order)):
                    progress(f"checking {file.path.name}", done, len(order))
            while data := bytes_.read(_BUFFER):
                digest.update(data)
    except OSError as error:
        yield f"{file.path} cannot be read around image {index}{_named(names, index)} ({error.strerror})"
        return
    if digest.hexdigest() != expected.sha256 and not damaged:
        yield f"{file.path} was changed outside of its images: its digest is another than at conversion"


def _damaged_images(file: Beton, progress: Progress | None) -> Iterator[str]:
    def decode(index: int) -> str | None:
        try:
            file.decode(index)
        except InputError as error:
            return str(error)
        return None

    done, numbers = 0, iter(range(len(file)))
    with ThreadPoolExecutor(cores()) as threads:
        while part := list(islice(numbers, _TOLD)):  # a part at a time: a million waiting tasks are slow and large
            yield from filter(None, threads.map(decode, part))
            done += len(part)
            if progress:
                progress(f"decoding {file.path.name}", done, len(file))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _named(names: list[str], index: int) -> str:
    return f" ({names[index]})" if names and index >= 0 else ""
