"""manifest.json: what a conversion is, where it came from, and what its files must look like.

A folder with a manifest is a converted data set wherever it lies: paths in it are relative to it. The manifest is written last.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmark.errors import InputError

FORMAT = 2  # of the manifest and of the conversion's files
NAME = "manifest.json"
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
_BLOCK = 1 << 22  # bytes
_LARGE = 1 << 30  # bytes: a second or more to read

Kind = Literal["torchvision", "folder", "tar", "procedural", "converted"]
Storage = Literal["raw", "jpeg"]


@dataclass(frozen=True)
class Dataset:
    """A converted data set; `content` is 12 hex digits over what is stored of train, then test, and the labels.

    mean, std: of the training pixels per channel, in [0, 1]. counts: images per split ("train", "test"). size: the side of
    raw images in pixels, 0 for the storage "jpeg". kind: of the source it was made from.
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
    storage: Storage = "raw"


@dataclass(frozen=True)
class File:
    """What a file of the conversion is at its making."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A data set with its origin. source: path it was made from, None for what was downloaded or drawn.

    limit: largest shorter side in pixels, 0 for none; quality: of JPEG files that had to be encoded, 0 where none can be;
    reencoded: how many of a split were. files: by name, all but the manifest itself. created: UTC, ISO 8601.
    """

    dataset: Dataset
    source: str | None
    limit: int
    quality: int
    reencoded: dict[str, int]
    files: dict[str, File]
    created: str


def describe_files(folder: Path, told: Callable[[float], None] = lambda share: None) -> dict[str, File]:
    """Size and digest of every file in `folder`, each flushed to the disk. Large ones take a while: `told` hears the share."""
    paths = sorted(folder.iterdir())
    total, done, described = sum(path.stat().st_size for path in paths), 0, {}
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            os.fsync(file.fileno())
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                if total > _LARGE:
                    told(done / total)
        described[path.name] = File(path.stat().st_size, digest.hexdigest())
    return described


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete a conversion: after this its folder counts as one."""
    entries: dict[str, Any] = {"format": FORMAT} | asdict(manifest.dataset) | asdict(manifest)
    del entries["dataset"]
    for split in SPLITS:
        entries[split] = entries[split].name
    partial = folder / f".{NAME}.partial"
    with partial.open("w") as file:
        json.dump(entries, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)


def read_manifest(folder: Path, complete: bool = True) -> Manifest | None:
    """The manifest of the conversion in `folder`, None if there is none; InputError where it is damaged or of another format.

    complete: also InputError where one of its files is missing or has another size than it was converted with; their content
    is not read (`python -m benchmark.data check` does).
    """
    path = folder / NAME
    try:
        entries = json.loads(path.read_text())
        if entries["format"] != FORMAT:
            raise InputError(
                f"{path} is of format {entries['format']}, this version reads {FORMAT}; convert the data set again"
            )
        paths = {split: folder / entries[split] for split in SPLITS}
        tuples = {key: tuple(entries[key]) for key in ("classes", "mean", "std")}
        keys = Dataset.__dataclass_fields__.keys()
        dataset = Dataset(**({key: entries[key] for key in keys} | paths | tuples))
        files = {name: File(**values) for name, values in entries["files"].items()}
        others = {key: entries[key] for key in Manifest.__dataclass_fields__ if key not in ("dataset", "files")}
        manifest = Manifest(dataset=dataset, files=files, **others)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path} is damaged; remove its folder, so that it is made again") from None
    faults = (fault(folder, name, expected) for name, expected in files.items())
    found = next(filter(None, faults), None) if complete else None
    if found:
        raise InputError(f"{found}; remove {folder} and convert the data set again")
    return manifest


def fault(folder: Path, name: str, expected: File) -> str | None:
    """What is wrong with a file of a conversion, as its size shows it."""
    try:
        found = (folder / name).stat().st_size
    except OSError as error:
        return f"{folder / name} is missing ({error.strerror})"
    if found != expected.bytes:
        return f"{folder / name} has {found:,} bytes, it was converted with {expected.bytes:,}: it was cut or changed"
    return None


def now() -> str:
    """The time of a conversion."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
