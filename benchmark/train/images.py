"""The training set as a method may see it between epochs: every image once, as evaluation sees it, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import central_views
from benchmark.data.datasets import Dataset

_BATCH = 256


@dataclass(frozen=True)
class TrainingImages:
    """Iterating gives (images f4 (B, C, size, size) on `device`, their positions i8 (B,)), in order, as often as asked.

    indices: of the training images in the data set's file; an image's position in them is what methods know it by.
    channels: the colour spaces of the images, concatenated where there are several.
    """

    dataset: Dataset
    indices: NDArray[np.integer]
    size: int
    device: torch.device
    channels: Sequence[str] = ("rgb",)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.indices), _BATCH):
            some = self.indices[start : start + _BATCH]
            images = central_views(self.dataset, "train", some, self.size, self.channels, torch.get_num_threads())
            where = torch.arange(start, start + len(some), device=self.device)
            yield images.to(self.device, memory_format=torch.channels_last), where

    def positions(self) -> Tensor:
        """i8: the position of each image of the file, -1 for those that are not trained on."""
        found = torch.full((int(self.indices.max()) + 1,), -1, dtype=torch.int64)
        found[torch.from_numpy(np.asarray(self.indices, np.int64))] = torch.arange(len(self.indices))
        return found
