"""Image files sorted into class folders, in a folder or in a tar archive of one: listing and decoding.

Both give the same samples in the same order (by class, then by file name), so their converted files have the same content.
Layout: train/<class>/... and test/<class>/... (also val or validation), possibly under one top folder.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
TRAIN, TEST = ("train",), ("test", "val", "valid", "validation")
LAYOUT = "train/<class>/<image files> and test/<class>/<image files>"


@dataclass(frozen=True)
class ImageFile:
    """One image: its class, the name that errors show, and how to get its bytes."""

    label: int
    name: str
    read: Callable[[], bytes]


_Listed = tuple[str, str, Callable[[], bytes]]  # <class>/<file>, the name to show, its bytes


@dataclass(frozen=True)
class ImageSet:
    classes: tuple[str, ...]
    train: list[ImageFile]
    test: list[ImageFile]


def is_tar(path: Path) -> bool:
    """Whether the name says tar; whether the content is one shows when it is opened."""
    return path.name.endswith((".tar", ".tar.gz", ".tgz"))


def split_folders(root: Path) -> tuple[Path, Path] | None:
    """The train and test folders under `root`, or under the single folder in it; None where there are none."""
    for top in (root, *_subfolders(root)[:2]):
        train, test = _first(top, TRAIN), _first(top, TEST)
        if train and test:
            return train, test
    return None


def folder_state(root: Path) -> str:
    """A text that changes when an image is added to or removed from the folder; reads no image and lists no class."""
    folders = [folder for split in split_folders(root) or () for folder in (split, *_subfolders(split))]
    return " ".join(f"{folder.name}:{folder.stat().st_mtime_ns}" for folder in folders)


def first_image(path: Path) -> str | None:
    """The name of some image, found without listing everything: quick on a huge folder or a compressed archive."""
    if path.is_dir():
        return next((file for split in split_folders(path) or () for file in _images_below(split)), None)
    try:
        with tarfile.open(path, "r|*") as archive:
            return next((m.name for m in archive if m.isfile() and _is_image(m.name)), None)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a tar archive ({error}); fetch or pack it again") from None


def open_folder(root: Path) -> ImageSet:
    """List a folder of images."""
    splits = split_folders(root)
    if splits is None:
        raise InputError(f"{root} does not hold {LAYOUT}")
    listed: list[list[_Listed]] = []
    for split in splits:
        skip = len(str(split)) + 1
        listed.append([(file[skip:], file, partial(_read_file, file)) for file in _images_below(split)])
    return _sorted_set(root, listed, _empty_classes(splits))


def open_tar(path: Path, scratch: Path) -> ImageSet:
    """List an archive; a compressed one is first unpacked into a plain tar in `scratch`, to read images in any order."""
    try:
        plain = path
        if path.name.endswith("gz"):
            plain = scratch / "unpacked.tar"
            with gzip.open(path) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        with tarfile.open(plain, "r:") as archive:
            members = [(m.name, m.offset_data, m.size) for m in archive if m.isfile() and _is_image(m.name)]
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} cannot be read as a tar archive ({error}); fetch or pack it again") from None
    file = plain.open("rb")
    found: dict[str, list[_Listed]] = {}
    for name, offset, size in members:
        parts = PurePosixPath(name).parts
        depth = next((depth for depth in (0, 1) if parts[depth] in TRAIN + TEST), None) if len(parts) > 2 else None
        if depth is not None:
            entry = "/".join(parts[depth + 1 :]), f"{path}:{name}", partial(_read_part, file, offset, size)
            found.setdefault(parts[depth], []).append(entry)
    splits = [next((found[name] for name in names if name in found), []) for names in (TRAIN, TEST)]
    if not all(splits):
        raise InputError(f"{path} does not hold {LAYOUT}")
    return _sorted_set(path, splits, [])


def decode(name: str, read: Callable[[], bytes], side: int) -> NDArray[np.uint8]:
    """RGB pixels (side, side, 3) of an image file; InputError names the file that cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(io.BytesIO(read()))
        if image.mode != "RGB":
            image = image.convert("RGB")
        pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)
    except Exception as error:  # Pillow's decoders raise a dozen types; each means that this one file is bad
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{name} cannot be decoded ({reason}); replace the image or remove it") from None
    return fit(pixels, side)


def fit(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(height, width, 3) to (side, side, 3): the shorter side resized (antialiased bilinear), then the centre cut out."""
    if pixels.shape[:2] == (side, side):
        return pixels
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def _sorted_set(path: Path, splits: list[list[_Listed]], empty: list[Path]) -> ImageSet:
    """Number the classes by the train split and sort both splits by (class, file)."""
    if empty:
        raise InputError(f"{empty[0]} holds no image files; remove the empty class or fill it")
    for files in splits:
        files.sort(key=lambda entry: entry[0].split("/"))
        loose = next((shown for name, shown, _ in files if "/" not in name), None)
        if loose:
            raise InputError(f"{loose} lies outside of any class folder; the layout is {LAYOUT}")
    classes = tuple(sorted({name.split("/")[0] for name, _, _ in splits[0]}))
    if not classes:
        raise InputError(f"{path} holds no image files under train/; the layout is {LAYOUT}")
    number = {name: i for i, name in enumerate(classes)}
    for name, shown, _ in splits[1]:
        if name.split("/")[0] not in number:
            raise InputError(f"{shown} is of a class that train/ does not have; use the same class folders in both")
    train, test = ([ImageFile(number[name.split("/")[0]], shown, read) for name, shown, read in files] for files in splits)
    return ImageSet(classes, train, test)


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would cost as much as the reading, sixty thousand times
        return file.read()


def _read_part(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)  # no position to share, so any thread may read


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in PurePosixPath(name).parts)


def _images_below(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{parent}/{name}" for name in sorted(files) if _is_image(name))


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in sorted(entries, key=lambda e: e.name) if entry.is_dir() and entry.name[0] != "."]


def _first(top: Path, names: tuple[str, ...]) -> Path | None:
    return next((top / name for name in names if (top / name).is_dir()), None)


def _empty_classes(splits: tuple[Path, Path]) -> list[Path]:
    return [folder for split in splits for folder in _subfolders(split) if next(_images_below(folder), None) is None]
