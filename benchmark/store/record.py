"""Records: what a finished stage leaves, written so that a reader sees a whole file or none.

A file is written under a temporary name in its own folder, flushed to the disk and renamed over the final name. NaN and
infinity are stored as null: JSON has neither, and a diverged run must say so in its status instead.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

from benchmark.errors import InputError

try:  # three times as fast, which a store of thousands of records feels
    from orjson import loads
except ImportError:
    from json import loads  # type: ignore[assignment]

SCHEMA = 1
STATUSES = ("done", "diverged")
# What readers rely on: key path -> type.
_PRETRAIN_KINDS: dict[tuple[str, ...], type] = {
    ("id",): str,
    ("metrics",): dict,
    ("config",): dict,
    ("config", "method"): str,
    ("config", "version"): int,
    ("config", "seed"): int,
    ("config", "data"): dict,
    ("config", "encoder"): dict,
    ("timing",): dict,
    ("provenance", "hardware", "device"): str,
}
_EVALUATION_KINDS: dict[tuple[str, ...], type] = {
    ("id",): str,
    ("stage",): str,
    ("metrics",): dict,
    ("protocol", "name"): str,
}


def finite(value: Any) -> Any:
    """The value with NaN and infinities replaced by None, fit for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return value


def write_bytes(path: Path, content: bytes) -> None:
    """Replace path by content in one step. Raises InputError when the disk is full or the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(finite(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError naming the file when it is not whole or not an object."""
    try:
        value = loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete this file to have its stage run again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; delete this file to have its stage run again")
    return value


def read_record(path: Path) -> dict[str, Any]:
    """A record, checked for what every reader relies on."""
    record = read_json(path)
    if record.get("schema") != SCHEMA:
        raise InputError(f"{path}: record schema {record.get('schema')!r}, this version of Retable reads {SCHEMA}")
    missing = [key for key in ("stage", "id", "status", "metrics") if key not in record]
    if missing:
        raise InputError(f"{path}: the key '{missing[0]}' is missing; delete this file to have its stage run again")
    if record["status"] not in STATUSES:
        raise InputError(f"{path}: unknown status {record['status']!r}; allowed: {', '.join(STATUSES)}")
    for keys, kind in _PRETRAIN_KINDS.items() if record["stage"] == "pretrain" else _EVALUATION_KINDS.items():
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind) and not (value is None and keys == ("metrics",) and record["status"] == "diverged"):
            where, found = ".".join(keys), type(value).__name__
            raise InputError(f"{path}: {where} has the wrong type ({found}); delete this file to have its stage run again")
    return record


def divergence(record: dict[str, Any]) -> str:
    """What a record, or its `diverged` alone, says of numbers that were not finite; records of older versions say no more.

    A gradient's norm that was not finite either is null in a record.
    """
    found = record.get("diverged", record)
    if "step" not in found:
        return "the loss was not finite"
    words = f"the loss was not finite at step {found['step']}"
    if found.get("what") == "features":
        words = f"the features were not finite after the last step, {found['step']}"
    if found["layer"] is None:
        return words
    norm = found["gradient_norm"]
    if norm is None or not math.isfinite(norm):
        return f"{words}; the gradient of {found['layer']} was not finite"
    return f"{words}; the largest gradient, of norm {norm:.3g}, was that of {found['layer']}"


def storage_error(path: Path, error: OSError) -> InputError:
    """What failed while writing, as a sentence with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path}: the disk is full; free some space and start again, nothing finished is lost")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{path}: cannot be written ({error.strerror}); choose another folder with --store or RETABLE_STORE")
    return InputError(f"{path}: cannot be written ({error.strerror or error})")
