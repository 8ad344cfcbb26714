"""manifest.json: what a conversion is, where it came from, and what its files must look like.

A folder with a manifest is a converted data set wherever it lies: paths in it are relative to it. The manifest is written last.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from benchmark.errors import InputError

FORMAT = 3  # of the manifest and of the conversion's files
NAME = "manifest.json"
NAMES = re.compile(r"[A-Za-z0-9_-]+")  # of data sets: they become parts of folder names and of NAME=PATH
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
    reencoded: how many of a split were. listing: `imagefiles.listing_of` the source folder at conversion, "" for other
    sources; chosen: its classes were chosen by a list. files: by name, all but the manifest itself. created: UTC, ISO 8601.
    """

    dataset: Dataset
    source: str | None
    limit: int
    quality: int
    reencoded: dict[str, int]
    listing: str
    chosen: bool
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
    entries["digest"] = _digest(entries)
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
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); convert the data set again") from None
    except (ValueError, RecursionError):
        entries = None
    made_of = entries.get("format") if isinstance(entries, dict) else None
    if type(made_of) is int and made_of != FORMAT:
        raise InputError(f"{path} is of format {made_of}, this version reads {FORMAT}; convert the data set again")
    wrong = _wrong(entries)
    if wrong:
        raise InputError(f"{path} is damaged ({wrong}); remove its folder, so that it is made again")
    paths = {split: folder / entries[split] for split in SPLITS}
    tuples = {key: tuple(entries[key]) for key in ("classes", "mean", "std")}
    dataset = Dataset(**({key: entries[key] for key in Dataset.__dataclass_fields__} | paths | tuples))
    files = {name: File(**values) for name, values in entries["files"].items()}
    others = {key: entries[key] for key in Manifest.__dataclass_fields__ if key not in ("dataset", "files")}
    manifest = Manifest(dataset=dataset, files=files, **others)
    faults = (fault(folder, name, expected) for name, expected in files.items())
    found = next(filter(None, faults), None) if complete else None
    if found:
        raise InputError(f"{found}; remove {folder} and convert the data set again")
    return manifest


def _digest(entries: dict[str, Any]) -> str:
    """Of everything in a manifest but the digest itself."""
    said = {key: value for key, value in entries.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _hex(value: Any, digits: int) -> bool:
    return _text(value) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def _plain(value: Any) -> bool:
    """A file's name without any folder."""
    return _text(value) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def _shares(value: Any, above: float) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(type(one) in (int, float) for one in value)
    return numbers and all(above <= one <= 1 for one in value)  # not so for NaN


def _per_split(value: Any, least: int) -> bool:
    return isinstance(value, dict) and set(value) == set(SPLITS) and all(_whole(n) and n >= least for n in value.values())


def _described(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _plain(name)
        and isinstance(of, dict)
        and set(of) == {"bytes", "sha256"}
        and _whole(of["bytes"])
        and _hex(of["sha256"], 64)
        for name, of in value.items()
    )


_RULES: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == FORMAT,
    "name": lambda value: _text(value) and NAMES.fullmatch(value) is not None,
    "content": lambda value: _hex(value, 12),
    "kind": lambda value: value in get_args(Kind),
    "note": _text,
    "classes": lambda value: isinstance(value, list) and len(value) > 0 and all(map(_text, value)),
    "size": _whole,
    "train": _plain,
    "test": _plain,
    "counts": lambda value: _per_split(value, 1),
    "mean": lambda value: _shares(value, 0),
    "std": lambda value: _shares(value, 1e-4),  # rounded to four digits, and views are divided by it
    "storage": lambda value: value in get_args(Storage),
    "source": lambda value: value is None or _text(value),
    "limit": _whole,
    "quality": lambda value: _whole(value) and value <= 100,
    "reencoded": lambda value: _per_split(value, 0),
    "listing": lambda value: value == "" or _hex(value, 64),
    "chosen": lambda value: isinstance(value, bool),
    "files": _described,
    "created": _text,
    "digest": lambda value: _hex(value, 64),
}


def _wrong(entries: Any) -> str | None:
    """What a manifest's text says that none can say."""
    if not isinstance(entries, dict):
        return "it is no JSON object"
    for key, holds in _RULES.items():
        if key not in entries:
            return f"it has no '{key}'"
        if not holds(entries[key]):
            return f"its '{key}' cannot be {json.dumps(entries[key])[:40]}"
    if (entries["size"] > 0) != (entries["storage"] == "raw"):
        return f"its 'size' cannot be {entries['size']} with storage {entries['storage']}"
    unlisted = next((entries[split] for split in SPLITS if entries[split] not in entries["files"]), None)
    if unlisted:
        return f"its 'files' lack {unlisted}"
    return "it was changed: its digest is another" if _digest(entries) != entries["digest"] else None


def fault(folder: Path, name: str, expected: File) -> str | None:
    """What is wrong with a file of a conversion, as its size shows it."""
    try:
        found = (folder / name).stat()
    except OSError as error:
        return f"{folder / name} is missing ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return f"{folder / name} is not a file"
    if found.st_size != expected.bytes:
        return f"{folder / name} has {found.st_size:,} bytes, it was converted with {expected.bytes:,}: it was cut or changed"
    return None


def now() -> str:
    """The time of a conversion."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
