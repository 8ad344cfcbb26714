"""What is remembered of past features: MoCo's queue of keys (1911.05722), InstDisc's bank of all images (1805.01978)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.gather import gathered

if TYPE_CHECKING:
    from methods.base import Step


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

    def age(self, step: Step, fresh: int) -> Tensor:
        """Steps since the oldest key was computed, that is K / fresh, the keys that all ranks together bring a step; before the
        queue has turned once, since the first step."""
        return self.keys.new_tensor(min(float(step.step), math.ceil(len(self.keys) / fresh)))


class MemoryBank(nn.Module):
    """One unit vector for every image of the training set, found by its index.

        v_i <- v / |v|,   v = t v_i + (1 - t) f_i         t the momentum; f_i a unit vector, the image's new feature

    Starts with random directions. Zeros may be written into `rows` instead: then an image's first feature is taken as it is.
    Saved with the state dict, so a resumed run remembers. Read `rows` for the logits first and call `update` after.
    """

    rows: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a memory bank has a row for each image: num_images must be at least 1, not {size}")
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))  # n x d

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor, momentum: float) -> None:  # B/N, B/N x d
        """Move the rows of all ranks' images towards their features. An image stands in a batch once."""
        index, features = gathered(index), gathered(F.normalize(features.to(self.rows.dtype), dim=1))
        self.rows[index] = F.normalize(torch.lerp(features, self.rows[index], momentum), dim=1)
