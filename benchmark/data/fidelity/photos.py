"""The images that kernels are compared on: photographs of the user's, or drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles
from benchmark.data.beton import open_beton
from benchmark.data.shapes import shapes
from benchmark.errors import InputError

Photos = list[NDArray[np.uint8]]  # u1 (H, W, 3) each

_SIDE, _CUT = 320, 40  # drawn images: the longer side, and what is cut off at both ends of the shorter


class Loaded(NamedTuple):
    """photos: to compare on. pictures: those of them that are worth looking at. words: what they are."""

    photos: Photos
    pictures: Photos
    words: str


def load(where: Path | None, count: int) -> Loaded:
    """`count` images, or as many as there are, evenly taken from what `where` holds.

    where: a .beton file, a converted data set, or a folder with image files somewhere below it; None draws them.
    InputError where there are none, or one cannot be decoded.
    """
    if where is None:
        return _drawn(count)
    where = where.expanduser()
    converted = where / "train.beton" if (where / "train.beton").exists() else where
    if converted.suffix == ".beton" and converted.is_file():
        file = open_beton(converted)
        photos = [file.decode(index) for index in _spread(len(file), count)]
        name = f"{converted.resolve().parent.name}/{converted.name}"
        return Loaded(photos, photos, f"{len(photos)} of the {len(file):,} images in {name}")
    if not where.is_dir():
        raise InputError(f"--images {where} is neither a folder nor a .beton file; give a folder of images or a data set")
    files = sorted(path for path in where.rglob("*") if path.suffix.lower() in imagefiles.SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"--images {where} holds no image files ({', '.join(imagefiles.SUFFIXES)}); name another folder")
    chosen = [files[index] for index in _spread(len(files), count)]
    photos = [imagefiles.pixels(str(path), path.read_bytes()).copy() for path in chosen]  # writable, as torch wants it
    return Loaded(photos, photos, f"{len(photos)} of the {len(files):,} images in {where.resolve().name}")


def squares(photos: Photos, side: int) -> Photos:
    """The central square of each, resized to side x side pixels."""
    return [np.array(imagefiles.fit(pixels, side)) for pixels in photos]  # copies: torch wants writable ones


def _spread(available: int, count: int) -> list[int]:
    count = min(available, count)
    return [available * i // count for i in range(count)]


def _drawn(count: int) -> Loaded:
    """Shapes as squares, lying and standing rectangles; the last sixth is noise, which no error can hide in."""
    images, noise = shapes("test", count, side=_SIDE).images, count // 6
    images[count - noise :] = np.random.default_rng(0).integers(0, 256, (noise, _SIDE, _SIDE, 3), dtype=np.uint8)
    cuts = (np.s_[:, :], np.s_[_CUT:-_CUT, :], np.s_[:, _CUT:-_CUT])
    photos = [np.ascontiguousarray(image[cuts[number % 3]]) for number, image in enumerate(images)]
    words = f"{count} drawn images, {noise} of them noise, longer side {_SIDE} pixels"
    return Loaded(photos, photos[: count - noise], words)
