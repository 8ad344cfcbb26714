"""A file of weights from anywhere, opened without running anything that is in it.

    torch.save, zip or older    read with weights_only=True: tensors, plain values, and the few kinds of SAFE
    .safetensors                tensors only
    .npz                        arrays only (allow_pickle=False)
    .pkl                        as torch.save, or detectron2's: arrays and plain values under "model"

Whatever else a pickle names is refused by name. DeepMind's releases of BYOL are pickles of JAX and Haiku objects, which
nothing but unrestricted unpickling opens: they come as arrays, or converted (see benchmark.evaluate.names).
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import InputError, nearest
from benchmark.evaluate.detection.convert import read_pkl

_NUMBERS = (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)
_SCALAR = np.float64(0).__reduce__()[0]  # what numpy's numbers are built by
# What checkpoints hold besides tensors: the settings of a run (DINO, timm) and numbers of numpy's, under the names of its
# versions 1 and 2. None of them runs code when it is built.
SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(number)) for number in _NUMBERS),
]
_READ = 1 << 24  # bytes


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds, as nested dicts with tensors on the CPU, and the SHA-256 of its bytes."""

    path: Path
    contents: dict[str, Any]
    sha256: str


def read_weights(path: Path) -> WeightsFile:
    """InputError, in one sentence, for what is missing, cut off, not a file of weights, or more than weights."""
    if not path.exists():
        others = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file{nearest(path.name, others)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the file of weights in it")
    try:
        sha256 = _sha256(path)
        contents = _READERS.get(path.suffix.lower(), _torch)(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(contents, dict):
        raise InputError(f"{path}: holds a {type(contents).__name__}; expected a dict of tensors by name")
    for key, value in _tensors(contents):
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(
                f"{path}: {key} says it is {list(value.shape)}, but the file does not hold that many numbers for it"
            )
    return WeightsFile(path, dict(contents), sha256)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            found.update(block)
    return found.hexdigest()


def _tensors(contents: dict[Any, Any]) -> Iterator[tuple[Any, Tensor]]:
    """Those of the dict and of the dicts in it."""
    for key, value in contents.items():
        if isinstance(value, Tensor):
            yield key, value
        elif isinstance(value, dict):
            yield from _tensors(value)


def _torch(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{path}: is empty")
    try:
        if start == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path}: is damaged (entry {damaged}); copy or download it again")
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE):
            warnings.simplefilter("ignore")  # of pickles of another protocol, which are refused in our words
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_refused(str(error))}") from None
    except zipfile.BadZipFile:
        raise InputError(f"{path}: is cut off or damaged; copy or download it again") from None
    except OSError:
        raise
    except Exception as error:  # of a file of any bytes: torch's readers raise whatever they stumble over
        told = isinstance(error, RuntimeError) and str(error)  # others name a byte they tripped over: "KeyError: 101"
        words = f" ({str(error).splitlines()[0]})" if told else ""
        raise InputError(f"{path}: is cut off, damaged or no file of weights{words}; copy or download it again") from None


def _refused(words: str) -> str:
    """What torch's restricted unpickler said, as the end of a sentence."""
    named = re.search(r"(?:GLOBAL|class|function|global:?) `?([A-Za-z_][\w]*(?:\.[\w]+)+)", words)
    if named:
        return (
            f"names {named[1]}, which only unrestricted unpickling would build and which could run any code, so it is not "
            "opened; save its tensors alone, by name, and give that file"
        )
    return (
        "is a pickle of something else than tensors, or cut off, and is not opened, because unpickling could run any code; "
        "save its tensors alone, by name, and give that file"
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(
            f"{path}: reading it needs the package safetensors; install it, or save the tensors with torch"
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: is cut off, damaged or no safetensors file ({str(error).splitlines()[0]})") from None


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except OSError:
        raise
    except Exception as error:  # of a file of any bytes: zipfile, zlib and numpy's reader of headers each raise their own
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is cut off, damaged or holds more than arrays of numbers ({words})") from None


def _pkl(path: Path) -> Any:
    """torch.save's under this ending, else what detectron2 calls a .pkl; refused in the words for the former."""
    try:
        return _torch(path)
    except InputError as refused:
        try:
            return {"model": read_pkl(path)}
        except InputError:
            raise refused from None


_READERS = {".safetensors": _safetensors, ".npz": _npz, ".pkl": _pkl}
