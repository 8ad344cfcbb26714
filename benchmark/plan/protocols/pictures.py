"""What the protocols that draw can be told: attention maps and embedding maps. Torch-free: planning reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AttentionConfig:
    """Where the class token of a ViT's last block looks, as DINO draws it (2104.14294, figures 1 and 4).

    dataset: photographs whose objects the maps are compared with (a detection data set); `none` draws the test images.
    mass: a mask is the fewest patches that hold this share of a head's attention, 0.6 in DINO.
    images: how many of the train photographs the head is chosen on, and how many test photographs it is measured on; 0 all.
    drawn: how many test images are in the picture. side: of the shorter side in pixels, 0 the cell's image_size.
    """

    dataset: Literal["none", "shapes", "voc07", "voc0712", "coco"] = "none"
    mass: float = 0.6
    images: int = 500
    drawn: int = 8
    side: int = 0

    def __post_init__(self) -> None:
        """ValueError says what no map can be."""
        if not 0 < self.mass <= 1:
            raise ValueError(f"mass is {self.mass}, a mask holds a share of the attention above 0 and at most 1")
        if self.drawn < 1:
            raise ValueError(f"drawn is {self.drawn}, the picture is of at least 1 image")


@dataclass(frozen=True)
class EmbeddingMapConfig:
    """Test features in the plane, a point an image, coloured by class: two principal components, and t-SNE (van der Maaten &
    Hinton, 2008) of the first 50.

    images: the first of the test images in a fixed random order, the same number of each class up to rounding; 0 all.
    classes: the first so many are drawn. perplexity: t-SNE's.
    """

    images: int = 2000
    classes: int = 10
    perplexity: float = 30.0

    def __post_init__(self) -> None:
        """ValueError says what no map can be."""
        if self.classes < 1:
            raise ValueError(f"classes is {self.classes}, at least 1 must be drawn")
        if self.perplexity <= 0:
            raise ValueError(f"perplexity is {self.perplexity}, it must be above 0")
