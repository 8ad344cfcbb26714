"""View recipes: what each view of an image goes through, as the papers state it.

Plain numbers only (no torch): planning reads them, the kernels of `benchmark.data` apply them. The order of operations
is fixed and is that of the papers' released code:

    crop -> flip -> colour jitter -> grayscale -> blur -> solarize -> normalize
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ViewConfig:
    """One view's augmentation law; every random choice is drawn per sample.

    crop_scale, crop_ratio: area fraction and aspect ratio of torchvision's RandomResizedCrop; (1, 1) with ratio (1, 1)
    keeps the whole image. Jitter strengths are torchvision's ColorJitter (joint probability, random order). blur_kernel
    is a fraction of the image side, rounded to the nearest odd size of at least 3 pixels; blur_sigma in pixels.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    jitter_prob: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale_prob: float = 0.0
    blur_prob: float = 0.0
    blur_kernel: float = 0.1
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_prob: float = 0.0
    solarize_threshold: float = 0.5


# BYOL (2006.07733), appendix B, tables of T and T'.
_BYOL = ViewConfig(jitter_prob=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grayscale_prob=0.2)
_BYOL_FIRST = replace(_BYOL, blur_prob=1.0)
_BYOL_SECOND = replace(_BYOL, blur_prob=0.1, solarize_prob=0.2)
# SimCLR (2002.05709), appendix A, strength s = 1.
_SIMCLR = ViewConfig(jitter_prob=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale_prob=0.2, blur_prob=0.5)
# MoCo v2 (2003.04297), "aug+"; also what the BYOL batch-norm blog ran.
_MOCOV2 = ViewConfig(
    crop_scale=(0.2, 1.0),
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_prob=0.2,
    blur_prob=0.5,
)
_SUPERVISED = ViewConfig()
_IDENTITY = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_prob=0.0)

# name -> (first view, second view)
RECIPES: dict[str, tuple[ViewConfig, ViewConfig]] = {
    "byol": (_BYOL_FIRST, _BYOL_SECOND),
    "simclr": (_SIMCLR, _SIMCLR),
    "mocov2": (_MOCOV2, _MOCOV2),
    "supervised": (_SUPERVISED, _SUPERVISED),
    "identity": (_IDENTITY, _IDENTITY),
}
