"""Image files sorted into class folders, in a folder or in a tar archive of one: listing and decoding.

Both give the same samples in the same order (by class, then by file name), so their converted files have the same content.
Layout: train/<class>/... and test/<class>/... (also val or validation), possibly under one top folder. Tiny-ImageNet's own
layout is known too: val/images/<files>, whose classes are in val/val_annotations.txt.
"""

from __future__ import annotations

import gzip
import hashlib
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

from benchmark.data.classlist import ClassList
from benchmark.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
TRAIN, TEST = ("train",), ("test", "val", "valid", "validation")
UNDECODABLE = "{} cannot be decoded ({}); replace the image or remove it"
ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet: <file> <class> <four numbers of a box>, tab-separated
LAYOUT = "train/<class>/<image files> and test/<class>/<image files>"


@dataclass(frozen=True)
class ImageFile:
    """One image: its class, the name that errors show, its place <class>/<file> below the split, how to get its bytes."""

    label: int
    name: str
    entry: str
    read: Callable[[], bytes]

    def load(self) -> bytes:
        """The bytes of the file; InputError where the disk does not give them."""
        try:
            return self.read()
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({error.strerror}); make it readable or remove it") from None


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
        train, test = _first(top, TRAIN), _test_folder(top)
        if train and test:
            return train, test
    return None


def folder_state(root: Path) -> str:
    """A text that changes when an image is added to, removed from or renamed in a class folder or a folder directly below one.

    It is made of the folders' times alone, in milliseconds for ImageNet. So an image that is overwritten in place does not
    change it, nor does anything still deeper; `listing_of` sees both, by looking at every file.
    """
    looked = []
    for split in split_folders(root) or ():
        classes = _subfolders(split)
        # Tiny-ImageNet has its files one level deeper, and the classes of its test images in a file.
        looked += [split, split / ANNOTATIONS, *classes]
        looked += [inner for folder in classes for inner in _folders_in_class(folder)]
    stamps = ((path.name, _modified(path)) for path in looked)
    return " ".join(f"{name}:{stamp}" for name, stamp in stamps if stamp is not None)


def first_image(path: Path) -> str | None:
    """The name of some image, found without listing everything: quick on a huge folder or a compressed archive."""
    if path.is_dir():
        return next((file for split in split_folders(path) or () for file in _images_below(split)), None)
    try:
        with tarfile.open(path, "r|*") as archive:
            return next((m.name for m in archive if m.isfile() and _is_image(m.name)), None)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a tar archive ({error}); fetch or pack it again") from None


def open_folder(root: Path, classes: ClassList | None = None) -> ImageSet:
    """List a folder of images, or the images of `classes` alone."""
    splits = split_folders(root)
    if splits is None:
        raise InputError(f"{root} does not hold {LAYOUT}")
    annotations = splits[1] / ANNOTATIONS
    wanted = classes.choose(folder.name for folder in _subfolders(splits[0])) if classes else None
    listed: list[list[_Listed]] = []
    for split in splits:
        skip = len(str(split)) + 1
        apart = None if split == splits[1] and annotations.exists() else wanted
        listed.append([(file[skip:], file, partial(_read_file, file)) for file in _images_below(split, apart)])
    if annotations.exists():
        listed[1] = _annotated(listed[1], annotations.read_text(errors="replace"), str(annotations))
    folders = [folder for split in splits for folder in _subfolders(split) if wanted is None or folder.name in wanted]
    empty = next((folder for folder in folders if next(_images_below(folder), None) is None), None)
    if empty:
        raise InputError(f"{empty} holds no image files; remove the empty class or fill it")
    return _sorted_set(root, listed, wanted)


def listing_of(images: ImageSet) -> str:
    """A digest of the place, size and time of change of every image of a folder: many seconds for a million of them."""
    digest = hashlib.sha256()
    for split in (images.train, images.test):
        for file in split:
            try:
                status = os.stat(file.name)  # noqa: PTH116 - pathlib would cost as much again, a million times
            except OSError as error:
                raise InputError(f"{file.name} cannot be read ({error.strerror}); make it readable or remove it") from None
            digest.update(os.fsencode(f"{file.entry}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        digest.update(b"\n")
    return digest.hexdigest()


def open_tar(path: Path, scratch: Path, classes: ClassList | None = None) -> ImageSet:
    """List an archive; a compressed one is first unpacked into a plain tar in `scratch`, to read images in any order."""
    try:
        plain = path
        if path.name.endswith("gz"):
            plain = scratch / "unpacked.tar"
            with gzip.open(path) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        with tarfile.open(plain, "r:") as archive:
            files = [m for m in archive if m.isfile() and (_is_image(m.name) or m.name.endswith(f"/{ANNOTATIONS}"))]
            members = [(m.name, m.offset_data, m.size) for m in files]
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} cannot be read as a tar archive ({error}); fetch or pack it again") from None
    file = plain.open("rb")
    found: dict[str, list[_Listed]] = {}
    annotations: dict[str, Callable[[], bytes]] = {}
    for name, offset, size in members:
        parts, read = PurePosixPath(name).parts, partial(_read_part, file, offset, size)
        if parts[-1] == ANNOTATIONS:
            annotations[parts[-2]] = read
            continue
        depth = next((depth for depth in (0, 1) if parts[depth] in TRAIN + TEST), None) if len(parts) > 2 else None
        if depth is not None:
            found.setdefault(parts[depth], []).append(("/".join(parts[depth + 1 :]), f"{path}:{name}", read))
    train, test = found.get(TRAIN[0], []), next((name for name in TEST if name in annotations and name in found), None)
    test = test or next((name for name in TEST if any("/" in entry for entry, *_ in found.get(name, []))), None)
    if not train or test is None:
        raise InputError(f"{path} does not hold {LAYOUT}")
    tested = found[test]
    if test in annotations:
        tested = _annotated(tested, annotations[test]().decode(errors="replace"), f"{path}:{test}/{ANNOTATIONS}")
    wanted = classes.choose(entry.split("/")[0] for entry, *_ in train) if classes else None
    return _sorted_set(path, [train, tested], wanted)


def pixels(name: str, data: bytes) -> NDArray[np.uint8]:
    """RGB pixels u1 (height, width, 3) of an image file of any kind; InputError names the file that cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.mode != "RGB":
            image = image.convert("RGB")
        return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)
    except Exception as error:  # Pillow's decoders raise a dozen types; each means that this one file is bad
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(UNDECODABLE.format(name, reason)) from None


def fit(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(height, width, 3) to (side, side, 3): the shorter side resized (antialiased bilinear), then the centre cut out."""
    if pixels.shape[:2] == (side, side):
        return pixels
    scale = side / min(pixels.shape[:2])
    height, width = (max(side, round(length * scale)) for length in pixels.shape[:2])
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels, height, width)[top : top + side, left : left + side]


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels u1 (H, W, 3) resized with Pillow: bilinear, antialiased."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _annotated(files: list[_Listed], text: str, shown: str) -> list[_Listed]:
    """Files under the classes that Tiny-ImageNet's annotations give them: images/val_0.JPEG becomes <class>/val_0.JPEG."""
    rows = (line.split("\t") for line in text.splitlines() if line.strip())
    classes = {row[0]: row[1].strip() for row in rows if len(row) > 1}
    moved = []
    for entry, name, read in files:
        base = entry.split("/")[-1]
        if base not in classes:
            raise InputError(f"{shown} has no class for {base}; fetch the data set again or remove the image")
        moved.append((f"{classes[base]}/{base}", name, read))
    return moved


def _sorted_set(path: Path, splits: list[list[_Listed]], wanted: set[str] | None) -> ImageSet:
    """Number the classes by the train split and sort both splits by (class, file); `wanted` classes alone, if given."""
    if wanted is not None:
        splits = [[entry for entry in files if entry[0].split("/")[0] in wanted] for files in splits]
    for files in splits:
        files.sort(key=lambda entry: entry[0].split("/"))
        loose = next((shown for name, shown, _ in files if "/" not in name), None)
        if loose:
            raise InputError(f"{loose} lies outside of any class folder; the layout is {LAYOUT}")
    classes = tuple(sorted({name.split("/")[0] for name, _, _ in splits[0]}))
    for files, names in zip(splits, (TRAIN, TEST), strict=True):
        if not files:
            of = " of the classes listed" if wanted is not None else ""
            raise InputError(f"{path} holds no image files{of} under {names[0]}/; the layout is {LAYOUT}")
    number = {name: i for i, name in enumerate(classes)}
    for name, shown, _ in splits[1]:
        if name.split("/")[0] not in number:
            raise InputError(f"{shown} is of a class that train/ does not have; use the same class folders in both")
    train, test = (
        [ImageFile(number[entry.split("/")[0]], shown, entry, read) for entry, shown, read in files] for files in splits
    )
    return ImageSet(classes, train, test)


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would cost as much as the reading, sixty thousand times
        return file.read()


def _read_part(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)  # no position to share, so any thread may read


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in PurePosixPath(name).parts)


def _images_below(folder: Path, only: set[str] | None = None) -> Iterator[str]:
    """Paths of the images in `folder`, or in its subfolders `only`."""
    for parent, folders, files in os.walk(folder, followlinks=True):  # subsets are often made of links to class folders
        top = only is not None and parent == str(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (top and name not in (only or ())))
        yield from (f"{parent}/{name}" for name in sorted(files) if _is_image(name))


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in sorted(entries, key=lambda e: e.name) if entry.is_dir() and entry.name[0] != "."]


def _folders_in_class(folder: Path) -> list[Path]:
    try:
        # A folder with two links has no folders in it; elsewhere (some file systems always say 1) it must be listed.
        return _subfolders(folder) if folder.stat().st_nlink != 2 else []
    except OSError:  # listing the images says what is wrong with it
        return []


def _first(top: Path, names: tuple[str, ...]) -> Path | None:
    return next((top / name for name in names if (top / name).is_dir()), None)


def _test_folder(top: Path) -> Path | None:
    """The folder to test on: the annotated one, or the first with class folders (a `test` without labels often lies beside)."""
    there = [top / name for name in TEST if (top / name).is_dir()]
    annotated = [folder for folder in there if (folder / ANNOTATIONS).exists()]
    return next(iter(annotated or [folder for folder in there if _subfolders(folder)] or there), None)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
