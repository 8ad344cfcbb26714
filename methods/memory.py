"""MoCo's dictionary as a queue of keys (1911.05722)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.gather import gathered


class KeyQueue(nn.Module):
    """The last K keys, unit vectors, first in first out. Starts filled with random ones, as MoCo's does.

    Saved with the state dict: a resumed run continues with the keys it had. Read `keys` for the logits first and call
    `enqueue` after: with the new keys already in it, every positive would be its own negative, and perfect features
    would cost log 2.
    """

    keys: Tensor
    cursor: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one key, not {size}")
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # K x d
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:  # B/N x d, unit vectors
        """Overwrite the oldest keys by those of all ranks, in their order. Of more than K, the last K are kept."""
        size = len(self.keys)
        keys = gathered(keys)
        keys = keys[-size:].to(self.keys.dtype)
        places = (self.cursor + torch.arange(len(keys), device=keys.device)) % size
        self.keys[places] = keys
        self.cursor.copy_((self.cursor + len(keys)) % size)
