"""What the protocols on frozen features can be told. Torch-free: planning reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

_LATER = {"later": True}


@dataclass(frozen=True)
class KnnConfig:
    """Weighted kNN as InstDisc (1805.01978, section 3.4): cosine similarity, votes weighted by exp(similarity / T).

    ks, temperatures: instead of one k or temperature, those of which the best on held-out training images is taken."""

    k: int = 200
    temperature: float = 0.07
    ks: tuple[int, ...] = field(default=(), metadata=_LATER)
    temperatures: tuple[float, ...] = field(default=(), metadata=_LATER)

    def __post_init__(self) -> None:
        """ValueError says what no kNN can be."""
        if self.ks and min(self.ks) < 1:
            raise ValueError(f"ks has {min(self.ks)}; at least 1 neighbour is needed")
        if self.temperatures and min(self.temperatures) <= 0:
            raise ValueError(f"temperatures has {min(self.temperatures):g}; a temperature is above 0")


@dataclass(frozen=True)
class KnnDino(KnnConfig):
    """DINO's kNN (2104.14294, section 3.2): the 20 nearest, with the T = 0.07 of its released eval_knn.py. The released
    ViT-S/16 gives 74.5 on ImageNet (table 2)."""

    k: int = 20


@dataclass(frozen=True)
class LinearConfig:
    """Multinomial logistic regression on frozen, standardized features, fitted to convergence; the L2 strength is the best of
    10^low ... 10^high (one value a decade step of `step`) on held-out training images, then refitted with them."""

    l2_low: float = -5.0
    l2_high: float = 0.0
    l2_step: float = 1.0

    def __post_init__(self) -> None:
        """ValueError says what no grid can be."""
        if self.l2_low > self.l2_high:
            raise ValueError("l2_low is above l2_high")


@dataclass(frozen=True)
class BlogLogisticConfig:
    """The batch-norm blog's measure: logistic regression on half of the test embeddings, scored on the other half."""


@dataclass(frozen=True)
class CollapseConfig:
    """std of z/|z| x sqrt(d) (SimSiam, 2011.10566, figure 2), effective rank, mean pair cosine and uniformity of test images,
    alignment of two views (Wang & Isola, 2005.10242)."""
