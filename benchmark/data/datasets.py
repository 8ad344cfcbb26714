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
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data import imagefiles
from benchmark.data import shapes as procedural
from benchmark.data.beton import BetonWriter
from benchmark.errors import InputError, nearest

Kind = Literal["torchvision", "folder", "tar", "procedural"]
Progress = Callable[[str, int, int], None]  # what is being done, how many of how many images

# Side of the stored images; on the larger ones a training crop and a centre crop are taken.
SIDES = {"cifar10": 32, "cifar100": 32, "shapes": 32, "tinyimagenet": 64, "stl10": 96, "imagenet100": 256, "imagenet": 256}
# name -> (class in torchvision.datasets, the folder its files lie in)
_TORCHVISION = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
}
_FORMAT = 1  # of the manifest and of the conversion's pixels
_RETRY_DOWNLOAD_AFTER = 3600  # seconds for which a failed download is remembered
_DOWNLOAD_TIMEOUT = 20  # seconds without an answer
_CHUNK = 256  # images a thread decodes at a time
_SMALL_FILE = 16_384  # bytes
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


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
    """What would be used for `name`: `data` if given (folder or tar of images, or a folder of the original files)."""
    if name == "shapes":
        return Source(name, "procedural", None)
    if data is not None:
        return _find_given(name, data)
    if name not in _TORCHVISION:
        hint = "" if name in SIDES else nearest(name, SIDES)
        raise InputError(f"data set {name!r} cannot be downloaded{hint}; give its images with --data ({imagefiles.LAYOUT})")
    failed = _failed_download(cache, name)
    if failed:
        return Source("shapes", "procedural", None, _stand_in(name, failed))
    return Source(name, "torchvision", None)


def prepared(source: Source, cache: Path, resolution: int | None = None) -> Dataset | None:
    """The conversion of exactly this source at this resolution, if the cache has it."""
    return read_manifest(_conversion(source, cache, _side(source, resolution)))


def prepare(
    source: Source, cache: Path, resolution: int | None = None, progress: Progress | None = None
) -> Dataset:
    """Convert, unless it is done already. One process converts, others that want the same wait for it.

    CIFAR-10 that nobody gave and that cannot be downloaded is replaced by the procedural set `shapes`; the returned
    data set's name and note say so. InputError names the file that is damaged, or what is missing.
    """
    side = _side(source, resolution)
    folder = _conversion(source, cache, side)
    with _disk_errors(cache), _locked(cache, folder.name):
        done = prepared(source, cache, side)
        if done:
            return done
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as scratch:
            try:
                opened = _open(source, cache, Path(scratch), side)
            except _DownloadFailed as failed:
                if source.name != "cifar10":
                    raise InputError(f"{source.name} cannot be downloaded ({failed}); give it with --data") from None
                _failure_file(cache, source.name).write_text(str(failed))
                stand_in = Source("shapes", "procedural", None, _stand_in(source.name, str(failed)))
                return prepare(stand_in, cache, resolution, progress)
            result = Path(scratch) / "result"
            result.mkdir()
            _convert(source, opened, result, side, progress)
            result.rename(folder)
    done = prepared(source, cache, side)
    assert done is not None
    return done


def read_manifest(folder: Path) -> Dataset | None:
    """The data set converted into `folder`, None if there is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for key in ("train", "test"):
            manifest[key] = folder / manifest[key]
        for key in ("classes", "mean", "std"):
            manifest[key] = tuple(manifest[key])
        return Dataset(**manifest)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{folder / 'manifest.json'} is damaged; remove its folder, so that it is made again") from None


class _DownloadFailed(Exception):
    pass


@dataclass(frozen=True)
class _Split:
    """`make(low, high)` gives images u1 (n, side, side, 3) and labels i8 (n,) of a range; called by `threads` threads."""

    count: int
    make: Callable[[int, int], Batch]
    threads: int


@dataclass(frozen=True)
class _Opened:
    note: str
    classes: tuple[str, ...]
    train: _Split
    test: _Split


def _find_given(name: str, data: Path) -> Source:
    data = data.expanduser()
    if not data.exists():
        raise InputError(f"--data {data} does not exist; give a folder or a tar archive with {imagefiles.LAYOUT}")
    if data.is_dir():
        for folder in (data, data.parent):
            if name in _TORCHVISION and (folder / _TORCHVISION[name][1]).is_dir() and folder / _TORCHVISION[name][1] in (
                data, data / _TORCHVISION[name][1]
            ):
                return Source(name, "torchvision", folder)
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


def _open(source: Source, cache: Path, scratch: Path, side: int) -> _Opened:
    if source.kind == "procedural":

        def drawn(split: Literal["train", "test"]) -> _Split:
            def make(low: int, high: int) -> Batch:
                part = procedural.shapes(split, high, side=side, first=low)
                return part.images, part.labels

            return _Split(procedural.COUNTS[split], make, _cores())

        return _Opened("procedural images", procedural.CLASSES, drawn("train"), drawn("test"))
    if source.kind == "torchvision":
        return _open_torchvision(source, cache, side)
    assert source.path is not None
    is_folder = source.kind == "folder"
    found = imagefiles.open_folder(source.path) if is_folder else imagefiles.open_tar(source.path, scratch)

    def decoded(files: list[imagefiles.ImageFile]) -> _Split:
        def make(low: int, high: int) -> Batch:
            part = files[low:high]
            images = np.empty((len(part), side, side, 3), np.uint8)
            for row, file in zip(images, part, strict=True):
                row[:] = imagefiles.decode(file.name, file.read, side)
            return images, np.array([file.label for file in part], np.int64)

        # Pillow releases the interpreter's lock around the decoder alone: on small files threads only pass it around
        # (32 x 32 JPEG on two cores: 95 microseconds an image with one thread, 165 with two).
        return _Split(len(files), make, _cores() if len(files[0].read()) > _SMALL_FILE else 1)

    suffix = found.train[0].name.rsplit(".", 1)[-1].upper().replace("JPG", "JPEG")
    note = f"{'image folder' if is_folder else 'tar archive'}, {suffix} files"
    return _Opened(note, found.classes, decoded(found.train), decoded(found.test))


def _open_torchvision(source: Source, cache: Path, side: int) -> _Opened:
    """The original files through torchvision, which checks their digests; downloaded where no path was given."""
    import torchvision.datasets

    factory = getattr(torchvision.datasets, _TORCHVISION[source.name][0])
    root = source.path or cache / "torchvision"
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)  # a silent network must end in the stand-in, not in waiting
    try:
        key = "split" if source.name == "stl10" else "train"
        names = ("train", "test") if source.name == "stl10" else (True, False)
        parts = [factory(root, **{key: name}, download=source.path is None) for name in names]
    except Exception as error:  # whatever the network or the archive did: it cannot be used
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise
        if source.path is None:
            raise _DownloadFailed(f"{type(error).__name__}: {error}") from error
        raise InputError(f"{root / _TORCHVISION[source.name][1]} is damaged or incomplete ({error})") from None
    finally:
        socket.setdefaulttimeout(timeout)

    def stored(part: Any) -> _Split:
        images = part.data.transpose(0, 2, 3, 1) if part.data.shape[1] == 3 else part.data
        labels = np.asarray(part.labels if source.name == "stl10" else part.targets, np.int64)

        def make(low: int, high: int) -> Batch:
            rows = [imagefiles.fit(pixels, side) for pixels in images[low:high]]
            return np.stack(rows), labels[low:high]

        return _Split(len(labels), make, _cores())

    labelled = " (labelled images only)" if source.name == "stl10" else ""
    return _Opened(f"original files{labelled}", tuple(parts[0].classes), stored(parts[0]), stored(parts[1]))


def _convert(source: Source, opened: _Opened, folder: Path, side: int, progress: Progress | None) -> None:
    """Write train.beton, test.beton and manifest.json into `folder`."""
    counts = {"train": opened.train.count, "test": opened.test.count}
    needed, free = sum(counts.values()) * side * side * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
    digest = hashlib.sha256()
    moments = np.zeros((2, 3), np.int64)  # of the training pixels: sums and sums of squares
    done = 0
    for split, part in (("train", opened.train), ("test", opened.test)):
        all_labels = []
        with BetonWriter(folder / f"{split}.beton", part.count, side) as writer:
            for images, labels, sums in _in_order(part):
                writer.write(images, labels)
                digest.update(images)
                all_labels.append(labels)
                moments += sums if split == "train" else 0
                done += len(labels)
                if progress:
                    progress(f"converting {source.name}", done, sum(counts.values()))
        digest.update(np.concatenate(all_labels).astype("<i8"))
    mean, square = moments / (opened.train.count * side * side) / np.array([[255.0], [255.0**2]])
    dataset = Dataset(
        name=source.name,
        content=digest.hexdigest()[:12],
        kind=source.kind,
        note=opened.note,
        classes=opened.classes,
        size=side,
        train=Path("train.beton"),
        test=Path("test.beton"),
        counts=counts,
        mean=tuple(mean.round(4).tolist()),
        std=tuple(np.sqrt(square - mean**2).round(4).tolist()),
    )
    with (folder / "manifest.json").open("w") as file:
        json.dump(asdict(dataset), file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())


def _in_order(split: _Split) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]:
    """All batches of a split, made by threads a few ahead of the writer: images, labels, sums per channel (2, 3)."""

    def work(low: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        images, labels = split.make(low, min(low + _CHUNK, split.count))
        pixels = images.reshape(-1, 3)
        squares = np.square(pixels, dtype=np.uint16)
        return images, labels, np.stack([pixels.sum(0, dtype=np.int64), squares.sum(0, dtype=np.int64)])

    pool, ahead = ThreadPoolExecutor(split.threads), deque[Future]()
    try:
        for low in range(0, split.count, _CHUNK):
            ahead.append(pool.submit(work, low))
            if len(ahead) > 2 * split.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stand_in(name: str, reason: str) -> str:
    return (
        f"{name} could not be downloaded ({reason}); the procedural set 'shapes' stands in for it: these numbers say "
        f"nothing about {name}. Give the real images with --data"
    )


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
        raise


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """One converter at a time; the lock falls with its process. Where a file system has no locks, both just work."""
    with (cache / f".{name}.lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
