"""Checkpoints: everything a bit-exact continuation needs, in one file replaced in one step.

A plain torch file of tensors and plain values: it loads with `torch.load(path, weights_only=True)`, here and anywhere, and a
checkpoint from elsewhere cannot run code. Damage shows in the CRC that the zip container keeps of every entry.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from benchmark.errors import InputError
from benchmark.store.record import write_bytes

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: a reader sees the old checkpoint or the new one, never a part."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """The state as it was saved, on the CPU. Raises InputError for a file that is damaged or not a Retable checkpoint."""
    advice = "delete this file to begin its training anew"
    try:
        with zipfile.ZipFile(path) as container:
            damaged = container.testzip()
        if damaged is not None:
            raise InputError(f"{path}: is damaged (entry {damaged}); {advice}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is damaged or not a checkpoint ({reason}); {advice}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of this version's format {FORMAT}; {advice}")
    return state
