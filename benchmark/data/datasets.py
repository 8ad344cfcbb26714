"""From "cifar10" and an optional path to a converted data set: two .beton files and a manifest in the cache.

`find` says in milliseconds what would be used, `prepared` whether it is already converted, `prepare` converts it. A
conversion is a folder of its own in the cache, named after what it was made from, and appears there complete or not at all;
it is never changed afterwards. The content number is the identity of the data: folders, archives and the original files
that decode to the same pixels have the same one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from benchmark.data import imagefiles
from benchmark.data import shapes as procedural
from benchmark.data.convert import ORIGINAL_FILES, DownloadFailed, Progress, convert, open_source
from benchmark.errors import InputError, nearest

Kind = Literal["torchvision", "folder", "tar", "procedural"]

# Side of the stored images; on the larger ones a training crop and a centre crop are taken.
SIDES = {"cifar10": 32, "cifar100": 32, "shapes": 32, "tinyimagenet": 64, "stl10": 96, "imagenet100": 256, "imagenet": 256}
_FORMAT = 1  # of the manifest and of the conversion's pixels
_RETRY_DOWNLOAD_AFTER = 3600  # seconds for which a failed download is remembered
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Source:
    """Where the images come from. `notice` is something the user must be told: a stand-in, re-encoded pixels."""

    name: str
    kind: Kind
    path: Path | None
    notice: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A converted data set; `content` is 12 hex digits over the pixels and labels of train, then test.

    mean, std: of the training pixels per channel, in [0, 1]. counts: images per split ("train", "test").
    """

    name: str
    content: str
    kind: Kind
    note: str
    classes: tuple[str, ...]
    size: int
    train: Path
    test: Path
    counts: dict[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def find(name: str, data: Path | None, cache: Path) -> Source:
    """What would be used for `name`: `data` if given (folder or tar of images, or a folder of the original files).

    `shapes` is drawn and takes no data. InputError where `data` is not what it should be or the name is unknown.
    """
    if name == "shapes":
        return Source(name, "procedural", None)
    if data is not None:
        return _find_given(name, data)
    if name not in ORIGINAL_FILES:
        hint = "" if name in SIDES else nearest(name, SIDES)
        raise InputError(f"data set {name!r} cannot be downloaded{hint}; give its images with --data ({imagefiles.LAYOUT})")
    failed = _failed_download(cache, name)
    if failed:
        return Source("shapes", "procedural", None, _stand_in(name, failed))
    return Source(name, "torchvision", None)


def prepared(source: Source, cache: Path, resolution: int | None = None) -> Dataset | None:
    """The conversion of exactly this source at this resolution, if the cache has it."""
    found = _read_manifest(_conversion(source, cache, _side(source, resolution)))
    # A stand-in carries its reason along, so that a record made from it says so.
    return replace(found, note=source.notice) if found and source.notice and source.kind == "procedural" else found


def prepare(source: Source, cache: Path, resolution: int | None = None, progress: Progress | None = None) -> Dataset:
    """Convert, unless it is done already. One process converts, others that want the same wait for it.

    CIFAR-10 that nobody gave and that cannot be downloaded is replaced by the procedural set `shapes`; the returned
    data set's name and note say so. InputError names the file that is damaged, or what is missing.
    """
    side = _side(source, resolution)
    folder = _conversion(source, cache, side)
    with _disk_errors(cache), _locked(cache, folder.name):
        if prepared(source, cache, side) is None:
            with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as scratch:
                result = Path(scratch) / "result"
                result.mkdir()
                try:
                    opened = open_source(source.name, source.kind, source.path, cache, Path(scratch), side)
                except DownloadFailed as failed:
                    return prepare(_replaced(source.name, cache, str(failed)), cache, resolution, progress)
                done = convert(source.name, opened, result, side, progress)
                dataset = Dataset(
                    name=source.name,
                    content=done.content,
                    kind=source.kind,
                    note=opened.note,
                    classes=opened.classes,
                    size=side,
                    train=done.train,
                    test=done.test,
                    counts=done.counts,
                    mean=done.mean,
                    std=done.std,
                )
                _write_manifest(result, dataset)
                result.rename(folder)
    converted = prepared(source, cache, side)
    assert converted is not None
    return converted


def _find_given(name: str, data: Path) -> Source:
    data = data.expanduser()
    if not data.exists():
        raise InputError(f"--data {data} does not exist; give a folder or a tar archive with {imagefiles.LAYOUT}")
    if data.is_dir():
        original = ORIGINAL_FILES[name][1] if name in ORIGINAL_FILES else None
        if original and (data.name == original or (data / original).is_dir()):
            return Source(name, "torchvision", data.parent if data.name == original else data)
        kind: Kind = "folder"
        if imagefiles.split_folders(data) is None:
            inside = sorted(entry.name for entry in data.iterdir())[:5]
            found = f"it holds {', '.join(inside)}" if inside else "it is empty"
            raise InputError(f"--data {data} does not hold {imagefiles.LAYOUT}: {found}")
    elif imagefiles.is_tar(data):
        kind = "tar"
    else:
        raise InputError(f"--data {data} is neither a folder nor a .tar, .tar.gz or .tgz archive of images")
    image = imagefiles.first_image(data)
    if image is None:
        raise InputError(f"--data {data} holds no image files ({', '.join(imagefiles.SUFFIXES)})")
    notice = None
    if name in ("cifar10", "cifar100") and image.lower().endswith((".jpg", ".jpeg")):
        notice = f"{name} from JPEG files: re-encoded pixels, slightly different from the original ones"
    return Source(name, kind, data, notice)


def _side(source: Source, resolution: int | None) -> int:
    side = resolution or SIDES.get(source.name)
    if side is None:
        raise InputError(f"data set {source.name!r} has no usual size; set data.resolution to the side in pixels")
    return side


def _conversion(source: Source, cache: Path, side: int) -> Path:
    """The folder of a conversion, named after the source's state: a source that changes gets another one."""
    state = ""
    if source.kind == "procedural":
        state = f"{procedural.VERSION} {procedural.COUNTS}"
    elif source.kind == "tar" and source.path:
        status = source.path.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
    elif source.kind == "folder" and source.path:
        state = imagefiles.folder_state(source.path)
    where = str(source.path.resolve()) if source.path else ""
    digest = hashlib.sha256(f"{_FORMAT} {source.kind} {where} {state}".encode()).hexdigest()[:10]
    return cache / f"{source.name}-{side}-{digest}"


def _write_manifest(folder: Path, dataset: Dataset) -> None:
    entries = asdict(dataset) | {"train": dataset.train.name, "test": dataset.test.name}
    with (folder / "manifest.json").open("w") as file:
        json.dump(entries, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _read_manifest(folder: Path) -> Dataset | None:
    """The data set converted into `folder`, None if there is none."""
    try:
        entries = json.loads((folder / "manifest.json").read_text())
        paths = {key: folder / entries[key] for key in ("train", "test")}
        tuples = {key: tuple(entries[key]) for key in ("classes", "mean", "std")}
        return Dataset(**(entries | paths | tuples))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{folder / 'manifest.json'} is damaged; remove its folder, so that it is made again") from None


def _stand_in(name: str, reason: str) -> str:
    return (
        f"{name} could not be downloaded ({reason}); the procedural set 'shapes' stands in for it: these numbers say "
        f"nothing about {name}. Give the real images with --data"
    )


def _replaced(name: str, cache: Path, reason: str) -> Source:
    """What takes the place of a data set that cannot be downloaded; only CIFAR-10 has a stand-in."""
    if name != "cifar10":
        raise InputError(f"{name} cannot be downloaded ({reason}); give it with --data")
    _failure_file(cache, name).write_text(reason)
    return Source("shapes", "procedural", None, _stand_in(name, reason))


def _failure_file(cache: Path, name: str) -> Path:
    return cache / f"{name}-download-failed.txt"


def _failed_download(cache: Path, name: str) -> str | None:
    """Why a download failed a while ago: every process of a sweep must come to the same answer without waiting again."""
    file = _failure_file(cache, name)
    try:
        if time.time() - file.stat().st_mtime < _RETRY_DOWNLOAD_AFTER:
            return file.read_text()
    except FileNotFoundError:
        pass
    return None


@contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise InputError(f"the disk of the data cache {cache} is full ({error.strerror}); free space or move it") from None
        if isinstance(error, PermissionError):
            raise InputError(f"the data cache {cache} cannot be written ({error}); choose another folder") from None
        raise InputError(
            f"the images cannot be converted in {cache} ({error}); free what is in the way and start again"
        ) from None


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """One converter at a time; the lock falls with its process. Where a file system has no locks, both just work."""
    with (cache / f".{name}.lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
