"""One random seed -> named, independent streams; and the state of every generator, for a bit-exact continuation."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def stream(seed: int, name: str) -> int:
    """A 63-bit seed for one purpose ("init", "train", ...); streams of one seed never overlap by construction."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


def seed_everything(seed: int, name: str) -> None:
    """Seed torch (all devices), numpy and random. Views and order do not depend on these: they are keyed by the seed."""
    value = stream(seed, name)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def random_state() -> dict[str, Any]:
    """Generator states as tensors and plain values, loadable with weights_only=True."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the one device that is trained on
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])  # older checkpoints have one of every device there was
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
