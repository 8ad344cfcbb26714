"""What the protocols on frozen features can be told. Torch-free: planning reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnnConfig:
    """Weighted kNN as InstDisc (1805.01978, section 3.4): cosine similarity, votes weighted by exp(similarity / T)."""

    k: int = 200
    temperature: float = 0.07


@dataclass(frozen=True)
class LinearConfig:
    """Multinomial logistic regression on frozen, standardized features, fitted to convergence; the L2 strength is the best of
    10^low ... 10^high (one value a decade step of `step`) on held-out training images, then refitted with them."""

    l2_low: float = -5.0
    l2_high: float = 0.0
    l2_step: float = 1.0


@dataclass(frozen=True)
class BlogLogisticConfig:
    """The batch-norm blog's measure: logistic regression on half of the test embeddings, scored on the other half."""


@dataclass(frozen=True)
class CollapseConfig:
    """std of z/|z| x sqrt(d) (SimSiam, 2011.10566, figure 2), effective rank and mean pair cosine on test images."""
