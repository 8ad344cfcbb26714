"""Memory for batches that is used again once nobody holds it.

A batch belongs to whoever received it, for as long as they keep any tensor of it. Memory that is fresh from the system has
to be cleared page by page, though, which for views of 224 pixels costs a third of the time that filling it takes. So a
tensor's memory comes back here when the last tensor that shares it is gone, and not before.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Buffers:
    """Lends float32 tensors and keeps those that come back, of `batches` batches at most. Any thread may call it."""

    def __init__(self, batches: int = 0) -> None:
        self._batches = batches
        self._returned: dict[int, deque[NDArray[np.float32]]] = {}

    def take(self, shape: tuple[int, ...], in_batch: int = 1) -> Tensor:
        """A tensor of this shape, of which a batch has `in_batch`, with no particular content.

        MemoryError where there is no memory for it.
        """
        size = math.prod(shape)
        returned = self._returned.setdefault(size, deque(maxlen=self._batches * in_batch))
        try:
            memory = returned.pop()
        except IndexError:
            memory = np.empty(size, np.float32)
        lent = memory[:]  # an object of its own: the tensors' storage holds it, and it dies with them
        weakref.finalize(lent, returned.append, memory).atexit = False
        return torch.from_numpy(lent).view(shape)

    def clear(self) -> None:
        """Give up what has come back, and keep nothing of what is lent now."""
        self._returned = {}
