"""The images of a run: a converted data set of 32 x 32 images, and JPEG files with a converted data set made from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmark.data.datasets import SIDES, Dataset, find, prepare
from benchmark.data.shapes import shapes
from benchmark.errors import InputError
from methods.views import ViewConfig

Announce = Callable[[str], None]

SMALL_SIDE = 32
_SUFFIXES = (".jpg", ".jpeg")
# Drawn photographs: as large as ImageNet's are on average, lying or standing.
_LONG, _SHORT, _QUALITY, _DRAWN = 400, 300, 90, 256


@dataclass(frozen=True)
class Work:
    """What every contender of a comparison is given; all of it travels to other processes.

    dataset: converted, its training part is what is loaded. files: the JPEG files it was made from, none for small images.
    size: side in pixels of a view that does not say its own. batch: images. cores: worker processes or threads.
    """

    dataset: Dataset
    files: tuple[str, ...]
    views: tuple[ViewConfig, ...]
    size: int
    batch: int
    cores: int


def small(data: str | None, cache: Path, announce: Announce) -> tuple[Dataset, str]:
    """CIFAR-10 where `data` ([cifar10=]PATH) names it, else procedural images; and words for the record."""
    name, path = "shapes", None
    if data is not None:
        head, equals, tail = data.partition("=")
        if equals and head in SIDES and head != "cifar10":
            raise InputError(f"--data {data}: the bench of small images takes cifar10, not {head}")
        name, path = "cifar10", Path(tail if equals and head in SIDES else data)
    announce(f"preparing {name}")

    tenths = -1

    def progress(what: str, done: int, total: int) -> None:
        nonlocal tenths
        if 10 * done // total > tenths:  # a log takes every line
            tenths = 10 * done // total
            announce(f"{what}: {done:,} of {total:,}")

    dataset = prepare(find(name, path, cache), cache, SMALL_SIDE, progress=progress)
    return dataset, f"{dataset.name} ({dataset.note}), {dataset.counts['train']:,} images of {dataset.size} x {dataset.size}"


def photographs(folder: Path | None, count: int, scratch: Path, announce: Announce) -> tuple[Dataset, tuple[str, ...], str]:
    """`count` JPEG files, those of `folder` over and over or drawn ones, and the data set of them converted in `scratch`."""
    if folder is None:
        announce("drawing images and writing them as JPEG files")
        sources = _draw(scratch / "drawn", min(count, _DRAWN))
        what = f"{len(sources)} drawn images, JPEG quality {_QUALITY}"
    else:
        sources = sorted(path for path in folder.expanduser().rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not sources:
            raise InputError(f"--images {folder}: no {' or '.join(_SUFFIXES)} files below it; name a folder of photographs")
        sources = sources[:count]
        what = f"{len(sources)} photographs"
    files = _repeat(sources, count, scratch / "files")
    announce(f"converting {count} JPEG files")
    dataset = prepare(find("photographs", scratch / "files", scratch), scratch, storage="jpeg")
    return dataset, tuple(map(str, files)), f"{what}, {_sizes(sources)}, in turn under {count:,} names"


def _draw(folder: Path, count: int) -> list[Path]:
    from PIL import Image

    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        square = shapes("train", number + 1, side=_LONG, first=number).images[0]
        cut = (_LONG - _SHORT) // 2
        pixels = square[cut : cut + _SHORT] if number % 2 else square[:, cut : cut + _SHORT]
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=_QUALITY)
    return files


def _repeat(sources: list[Path], count: int, folder: Path) -> list[Path]:
    """`count` names of the sources in the layout of a data set, and one name as the test part that no bench reads."""
    train, test = folder / "train" / "all", folder / "test" / "all"
    train.mkdir(parents=True)
    test.mkdir(parents=True)
    files = []
    for number, source in enumerate(islice(cycle(sources), count)):
        files.append(train / f"{number:06d}.jpg")
        files[-1].symlink_to(source.resolve())
    (test / "000000.jpg").symlink_to(sources[0].resolve())
    return files


def _sizes(sources: list[Path]) -> str:
    """ "640 x 480 pixels and 158 kB in the middle" """
    from PIL import Image

    shapes_of = []
    for path in sources:
        with Image.open(path) as image:
            shapes_of.append((max(image.size), min(image.size)))
    long, short = (statistics.median_low(side) for side in zip(*shapes_of, strict=True))
    kilobytes = statistics.median(path.stat().st_size for path in sources) / 1000
    return f"{long} x {short} pixels and {kilobytes:.0f} kB in the middle"
