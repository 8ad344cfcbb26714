"""From "cifar10" and an optional path to a converted data set: two .beton files and a manifest, in the cache or in a folder.

`find` says in milliseconds what would be used, `prepared` whether it is already converted, `prepare` converts it. A
conversion is a folder of its own in the cache, named after what it was made from and how, and appears there complete or not
at all; it is never changed afterwards, only replaced as a whole. `convert_into` makes the same folder at a place of the
user's, and whoever is given a converted folder uses it as it is. The content number is the identity of the data: folders,
archives and the original files that are stored as the same pixels, or as the same JPEG files, have the same one.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.data import imagefiles, manifest
from benchmark.data import shapes as procedural
from benchmark.data.classlist import ClassList, read_class_list
from benchmark.data.convert import Progress, convert
from benchmark.data.folders import alone_in, disk_errors, locked, sweep
from benchmark.data.manifest import Dataset, Kind, Manifest, Storage, read_manifest, write_manifest
from benchmark.data.sources import ORIGINAL_FILES, DownloadFailed, Settings, open_source
from benchmark.errors import InputError, nearest

# Side of raw images; on the larger ones a training crop and a centre crop are taken.
SIDES = {"cifar10": 32, "cifar100": 32, "shapes": 32, "tinyimagenet": 64, "stl10": 96, "imagenet100": 256, "imagenet": 256}
_PHOTOGRAPHS = ("imagenet100", "imagenet")  # stored as JPEG files unless raw squares are asked for
QUALITY = 95  # of JPEG files that have to be encoded
_OTHER_ARCHIVES = (".zip", ".7z", ".rar", ".bz2", ".xz", ".zst")
_RETRY_DOWNLOAD_AFTER = 3600  # seconds for which a failed download is remembered


@dataclass(frozen=True)
class Source:
    """Where the images come from. `notice` is something the user must be told: a stand-in, re-encoded pixels.

    classes: the only ones to take, all by default. kind "converted": `path` is a converted folder, used as it is.
    """

    name: str
    kind: Kind
    path: Path | None
    notice: str | None = None
    classes: ClassList | None = None


def find(name: str, data: Path | None, cache: Path, classes: Path | None = None) -> Source:
    """What would be used for `name`: `data` if given (folder or tar of images, folder of the original files, converted folder).

    A name is made of letters (a to z), digits, - and _. classes: a file with the class folders to take, one a line. `shapes`
    is drawn and takes no images. InputError where `data` is not what it should be or the name is unknown.
    """
    if not manifest.NAMES.fullmatch(name):
        raise InputError(f"{name!r} is no name for a data set; use letters (a to z), digits, - and _")
    data = data.expanduser() if data else None
    if data and is_converted(data):
        if classes:
            raise InputError(
                f"--data {data} is converted already; --classes needs the image folder or archive it was made from"
            )
        return _find_converted(name, data)
    found = _find(name, data, cache)
    if classes is None:
        return found
    if found.kind not in ("folder", "tar"):
        raise InputError(f"--classes {classes} needs --data with an image folder or archive to choose the classes from")
    return replace(found, classes=read_class_list(classes))


def _find(name: str, data: Path | None, cache: Path) -> Source:
    if name == "shapes":
        return Source(name, "procedural", None)
    if data is not None:
        return _find_given(name, data)
    if name not in ORIGINAL_FILES:
        hint = "" if name in SIDES else nearest(name.lower(), SIDES)
        raise InputError(f"data set {name!r} cannot be downloaded{hint}; give its images with --data ({imagefiles.LAYOUT})")
    failed = _failed_download(cache, name)
    if failed:
        return Source("shapes", "procedural", None, _stand_in(name, failed))
    return Source(name, "torchvision", None)


def is_converted(folder: Path) -> bool:
    """Whether a folder is a conversion: it has a manifest and no image folders."""
    return (folder / manifest.NAME).exists() and imagefiles.split_folders(folder) is None


def settings_of(
    name: str, resolution: int | None = None, storage: Storage | None = None, quality: int = QUALITY, limit: int = 0
) -> Settings:
    """How a data set is stored, with what is not said filled in; InputError where the wishes contradict each other.

    Raw squares where a resolution is given or the name has a usual small one, else JPEG files.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"a JPEG quality of {quality} does not exist; choose 1 to 100")
    if limit < 0 or (resolution is not None and resolution < 1):
        raise InputError("a resolution or a limit is a number of pixels above 0")
    if storage is None:
        storage = "raw" if resolution or (name in SIDES and name not in _PHOTOGRAPHS) else "jpeg"
    if storage == "jpeg":
        if resolution:
            raise InputError(f"resolution {resolution} is the side of raw squares; JPEG storage takes a limit instead")
        return Settings("jpeg", limit=limit, quality=quality)
    if limit:
        raise InputError(f"a limit of {limit} is for JPEG storage; the side of raw squares is the resolution")
    side = resolution or SIDES.get(name)
    if side is None:
        raise InputError(f"data set {name!r} has no usual size; set data.resolution to the side in pixels")
    return Settings("raw", side=side)


def prepared(
    source: Source,
    cache: Path,
    resolution: int | None = None,
    *,
    storage: Storage | None = None,
    quality: int = QUALITY,
    limit: int = 0,
    closely: bool = False,
) -> Dataset | None:
    """The conversion of this source with these settings, if the cache has it; a converted folder is one itself.

    A source is known by its path and its state: an archive's size and time, a folder's as `imagefiles.folder_state` has it,
    which does not show that an image was overwritten in place. closely: also compare every file of an image folder with what
    it was at the conversion.
    """
    if source.kind == "converted":
        return _used_as_it_is(source, resolution, storage, limit)
    found = read_manifest(_conversion(source, cache, settings_of(source.name, resolution, storage, quality, limit)))
    if found is None or (closely and changed(found, source.path, source.classes)):
        return None
    # A stand-in carries its reason along, so that a record made from it says so.
    stands_in = source.notice and source.kind == "procedural"
    return replace(found.dataset, note=source.notice or "") if stands_in else found.dataset


def prepare(
    source: Source,
    cache: Path,
    resolution: int | None = None,
    progress: Progress | None = None,
    *,
    storage: Storage | None = None,
    quality: int = QUALITY,
    limit: int = 0,
    closely: bool = False,
) -> Dataset:
    """Convert, unless it is done already. One process converts, others that want the same wait for it.

    storage "raw": squares of `resolution` pixels; "jpeg": JPEG files, those of the source byte by byte where their shorter
    side is at most `limit` (0: whatever it is), the rest resized and encoded with `quality`; default: see `settings_of`.
    CIFAR-10 that nobody gave and that cannot be downloaded is replaced by the procedural set `shapes`; the returned
    data set's name and note say so. InputError names the file that is damaged, or what is missing. closely: see `prepared`;
    a conversion of images that have changed since is replaced.
    """
    if source.kind != "converted":
        settings = settings_of(source.name, resolution, storage, quality, limit)
        folder = _conversion(source, cache, settings)
        prefix = f".converting-{folder.name}-"
        with disk_errors(cache, "data cache"), locked(cache, folder.name) as alone:
            old = read_manifest(folder)
            if old is None or (closely and changed(old, source.path, source.classes)):
                if alone:
                    sweep(cache, prefix)
                with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as scratch:
                    try:
                        result = _make(source, Path(scratch), cache, settings, progress)
                    except DownloadFailed as failed:
                        instead = _replaced(source.name, cache, str(failed))
                        wishes = {"storage": storage, "quality": quality, "limit": limit}
                        return prepare(instead, cache, resolution, progress, **wishes)  # type: ignore[arg-type]
                    try:
                        if old:  # open files of it stay readable
                            folder.rename(Path(scratch) / "old")
                        result.rename(folder)
                    except OSError:  # without locks another process may have made the same conversion meanwhile
                        if read_manifest(folder) is None:
                            raise
    converted = prepared(source, cache, resolution, storage=storage, quality=quality, limit=limit)
    assert converted is not None
    return converted


def convert_into(source: Source, out: Path, cache: Path, settings: Settings, progress: Progress | None = None) -> Dataset:
    """Convert into the folder `out`, new or empty, which `find` then takes as it is; downloads go to `cache`.

    The manifest comes last, so an interrupted conversion leaves a folder that does not count as one.
    """
    if source.kind == "converted":
        raise InputError(f"{source.path} is converted already; copy the folder instead")
    if source.path and source.path.is_dir() and out.resolve().is_relative_to(source.path.resolve()):
        raise InputError(f"--out {out} lies inside of {source.path}, the folder to be converted; choose another")
    with disk_errors(out, "folder"), alone_in(out):
        sweep(out, ".converting-")
        inside = sorted(path.name for path in out.iterdir())
        if inside:
            raise InputError(f"--out {out} is not empty (it holds {', '.join(inside[:3])}); choose a new folder or empty it")
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=out) as scratch:
            try:
                result = _make(source, Path(scratch), cache, settings, progress)
            except DownloadFailed as failed:
                raise InputError(f"{source.name} could not be downloaded ({failed}); give it with --data") from None
            for path in sorted(result.iterdir(), key=lambda path: path.name == manifest.NAME):
                path.rename(out / path.name)
    converted = read_manifest(out)
    assert converted is not None
    return converted.dataset


def changed(made: Manifest, folder: Path | None, classes: ClassList | None) -> bool:
    """Whether a file of the image folder has another name, size or time than at the conversion; looks at every file."""
    if not made.listing or folder is None:
        return False
    return imagefiles.listing_of(imagefiles.open_folder(folder, classes)) != made.listing


def _make(source: Source, scratch: Path, cache: Path, settings: Settings, progress: Progress | None) -> Path:
    """A whole conversion in a folder of `scratch`."""
    result = scratch / "result"
    result.mkdir()
    opened = open_source(source.name, source.kind, source.path, source.classes, cache, scratch, settings)
    done = convert(source.name, opened, result, settings, progress)
    images = sum(done.counts.values())

    def told(share: float) -> None:
        if progress:
            progress(f"reading back {source.name}", round(share * images), images)

    dataset = Dataset(
        name=source.name,
        content=done.content,
        kind=source.kind,
        note=opened.note,
        classes=opened.classes,
        size=settings.side,
        train=result / "train.beton",
        test=result / "test.beton",
        counts=done.counts,
        mean=done.mean,
        std=done.std,
        storage=settings.storage,
    )
    made = Manifest(
        dataset=dataset,
        source=str(source.path.resolve()) if source.path else None,
        limit=settings.limit,
        quality=settings.quality,
        reencoded=done.reencoded,
        listing=opened.listing,
        chosen=source.classes is not None,
        files=manifest.describe_files(result, told),
        created=manifest.now(),
    )
    write_manifest(result, made)
    return result


def _find_given(name: str, data: Path) -> Source:
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
        remedy = "; unpack it first and give the folder" if data.suffix.lower() in _OTHER_ARCHIVES else ""
        raise InputError(f"--data {data} is neither a folder nor a .tar, .tar.gz or .tgz archive of images{remedy}")
    image = imagefiles.first_image(data)
    if image is None:
        raise InputError(f"--data {data} holds no image files ({', '.join(imagefiles.SUFFIXES)})")
    notice = None
    if name in ("cifar10", "cifar100") and image.lower().endswith((".jpg", ".jpeg")):
        notice = f"{name} from JPEG files: re-encoded pixels, slightly different from the original ones"
    return Source(name, kind, data, notice)


def _find_converted(name: str, data: Path) -> Source:
    found = read_manifest(data)
    assert found is not None
    if found.dataset.name != name:
        raise InputError(f"--data {data} holds {found.dataset.name} converted, not {name}; give the folder of {name}")
    return Source(name, "converted", data)


def _used_as_it_is(source: Source, resolution: int | None, storage: Storage | None, limit: int) -> Dataset:
    assert source.path is not None
    found = read_manifest(source.path)
    if found is None:
        raise InputError(f"--data {source.path} has no {manifest.NAME} any more; convert the data set again")
    has = {"resolution": found.dataset.size, "storage": found.dataset.storage, "limit": found.limit}
    for key, wanted in {"resolution": resolution, "storage": storage, "limit": limit}.items():
        if wanted and wanted != has[key]:
            raise InputError(f"--data {source.path} is converted with {key} {has[key]}, not {wanted}; convert its source again")
    return found.dataset


def _conversion(source: Source, cache: Path, settings: Settings) -> Path:
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
    classes = source.classes.state if source.classes else ""
    key = f"{manifest.FORMAT} {source.kind} {where} {state} {settings.quality} {classes}"
    form = str(settings.side) if settings.storage == "raw" else f"jpeg{settings.limit or ''}"
    return cache / f"{source.name}-{form}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


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
