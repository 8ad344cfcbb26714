"""The files of a data set by their place in it, whether they lie in a folder or in a tar archive.

A place is a path below the data set's top, with slashes. The top is the folder or archive itself, or a folder directly in it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles
from benchmark.data.folders import disk_errors, locked
from benchmark.data.jpegs import decode_jpeg
from benchmark.errors import InputError

_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Stored:
    """Bytes on the disk: `size` of them from `offset` in `path`, or the whole file where size is -1. name: what errors
    show."""

    name: str
    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.name} cannot be read ({error.strerror}); make it readable or fetch it again") from None

    def pixels(self, height: int, width: int) -> NDArray[np.uint8]:
        """RGB u1 (height, width, 3) of an image file; InputError where it is none, or one of another size."""
        data = self.read()
        pixels = _decoded(self.name, data)
        if pixels.shape[:2] != (height, width):
            turned = _upright(data)
            if turned is None or turned.shape[:2] != (height, width):
                raise InputError(
                    f"{self.name} is {pixels.shape[1]} x {pixels.shape[0]} pixels, but its annotation says {width} x {height}; "
                    "fetch both from the same place"
                )
            return turned
        return pixels


@dataclass(frozen=True)
class Tree(ABC):
    """path: the folder or archive that the user gave."""

    path: Path

    @abstractmethod
    def has(self, place: str) -> bool:
        """Whether there is such a file or folder."""

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """The names of what lies in a folder, empty where there is none."""

    @abstractmethod
    def stored(self, place: str) -> Stored:
        """A file, which need not exist until it is read."""

    @abstractmethod
    def state(self, places: Iterable[str]) -> str:
        """A text that changes when one of these files does, as far as sizes and times show."""

    def read(self, place: str) -> bytes:
        return self.stored(place).read()


@dataclass(frozen=True)
class Folder(Tree):
    top: Path

    def has(self, place: str) -> bool:
        return (self.top / place).exists()

    def names(self, folder: str) -> set[str]:
        try:
            return set(os.listdir(self.top / folder))  # noqa: PTH208 - a hundred thousand names, no paths wanted
        except OSError:
            return set()

    def stored(self, place: str) -> Stored:
        return Stored(str(self.top / place), self.top / place)

    def state(self, places: Iterable[str]) -> str:
        digest = hashlib.sha256()
        for place in places:
            try:
                status = os.stat(f"{self.top}/{place}")  # noqa: PTH116 - twenty thousand files of VOC
                digest.update(f"{place} {status.st_size} {status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{place} missing\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Archive(Tree):
    """plain: the uncompressed archive. top: the members' names begin with it, "" or ending in a slash."""

    plain: Path
    top: str
    members: dict[str, tuple[int, int]]  # place -> offset and size

    @cached_property
    def _inside(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for place in self.members:
            parts = PurePosixPath(place).parts
            for depth in range(len(parts)):
                found.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
        return found

    def has(self, place: str) -> bool:
        return place in self.members or place in self._inside

    def names(self, folder: str) -> set[str]:
        return self._inside.get(folder, set())

    def stored(self, place: str) -> Stored:
        name = f"{self.path}:{self.top}{place}"
        if place not in self.members:
            raise InputError(f"{name} is missing in the archive; fetch or pack it again")
        return Stored(name, self.plain, *self.members[place])

    def state(self, places: Iterable[str]) -> str:
        return _stamp(self.path)


def open_tree(path: Path, cache: Path, marks: tuple[str, ...]) -> Tree:
    """A folder, or an archive; a compressed one is unpacked into a plain one in `cache`, unless that was done before.

    marks: names of folders, one of which lies at the top of the data set. InputError where `path` is neither.
    """
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        tops = [path, *inside]
        return Folder(path, next((top for top in tops if any((top / mark).is_dir() for mark in marks)), path))
    if not path.exists():
        raise InputError(f"{path} does not exist; give the folder or the tar archive of the detection data set")
    if not imagefiles.is_tar(path):
        raise InputError(f"{path} is neither a folder nor a .tar, .tar.gz or .tgz archive; unpack it and give the folder")
    plain = _unpacked(path, cache) if path.name.endswith("gz") else path
    try:
        with tarfile.open(plain, "r:") as archive:
            members = {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a tar archive ({error}); fetch or pack it again") from None
    tops_in = ["", *sorted({name.split("/")[0] + "/" for name in members if "/" in name})]
    top = next((top for top in tops_in if any(n.startswith(f"{top}{mark}/") for mark in marks for n in members)), "")
    places = {name.removeprefix(top): where for name, where in members.items() if name.startswith(top)}
    return Archive(path, plain, top, places)


def _unpacked(path: Path, cache: Path) -> Path:
    """The archive without its compression; it appears in the cache complete or not at all."""
    name = f"boxes-{hashlib.sha256(f'{path.resolve()} {_stamp(path)}'.encode()).hexdigest()[:16]}.tar"
    plain = cache / name
    if plain.exists():
        return plain
    with disk_errors(cache, "data cache"), locked(cache, name):
        if not plain.exists():
            partial = plain.with_suffix(f".{os.getpid()}.partial")
            try:
                with gzip.open(path) as source, partial.open("wb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
            except (EOFError, gzip.BadGzipFile) as error:
                raise InputError(f"{path} cannot be unpacked ({error}); fetch or pack it again") from None
            else:
                partial.replace(plain)
            finally:
                partial.unlink(missing_ok=True)
    return plain


def reader(stored: Stored, height: int, width: int) -> partial[NDArray[np.uint8]]:
    """What a Photo reads its pixels with; it can be sent to another process."""
    return partial(stored.pixels, height, width)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _decoded(name: str, data: bytes) -> NDArray[np.uint8]:
    if name.lower().endswith(_JPEG):
        try:
            return decode_jpeg(np.frombuffer(data, np.uint8))
        except ValueError:  # a PNG that is called .jpg, or damage: Pillow says which
            pass
    return imagefiles.pixels(name, data)


def _upright(data: bytes) -> NDArray[np.uint8] | None:
    """The photo turned as its EXIF says: an annotation of the turned size is one of the turned photo."""
    import io

    from PIL import Image, ImageOps

    image = Image.open(io.BytesIO(data))
    turned = ImageOps.exif_transpose(image)
    return None if turned is None else np.array(turned.convert("RGB"))
