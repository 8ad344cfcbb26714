"""Random numbers inside a method: keyed by where training is, so that they need no state.

A resumed run, and every rank of a distributed one, draws the same numbers: draw for the whole batch, then take your rows
(`gather.own_rows`). Drawn on the CPU, so that a GPU sees the same ones.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator for one purpose ("negatives", "shuffle", ...) at one step or epoch of the run with this seed."""
    key = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
