"""The encoder as it was initialized: what no learning at all scores. Every sweep has this row.

Its encoder is, seed by seed, the one that the trained rows start from. The batch-norm blog prints 28.8 for it (STL-10,
row "Random"), level with its collapsed rows: without this row nobody can tell learning from no learning.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.base import Method, Step


@dataclass(frozen=True)
class RandomConfig:
    """Nothing to choose."""


# NOTE(departs): Batch norms are evaluated with their initial statistics, mean 0 and variance 1: no data was seen.
class RandomInit(Method):
    NAME = "random"
    VERSION = 1
    PAPER = "none"
    NUM_VIEWS = 0
    RECIPE = "identity"
    TRAINS = False
    Config = RandomConfig

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        raise ValueError("the random-initialization row is not trained: it has no loss")
