"""View recipes: what each view of an image goes through, as the papers state it.

Plain numbers only (no torch): planning reads them, the kernels of `benchmark.data` apply them. A view is a list of
operations in an order of its own; unless a recipe says otherwise it is that of the papers' released code:

    crop -> flip -> rotate -> colour jitter -> grayscale -> blur -> solarize -> Sobel -> RandAugment -> cutout -> noise
    -> colour space and normalization -> patches

An operation with probability 0 is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

Operation = Literal[
    "crop", "flip", "rotate", "jitter", "grayscale", "blur", "solarize", "sobel", "randaugment", "cutout", "noise"
]
Interpolation = Literal["bilinear", "bicubic"]
Channels = Literal["rgb", "lab", "sobel"]
RandAugmentSet = Literal["all", "geometric"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
RANDAUGMENT_MOST = 4
_ALLOWED = {
    "order": OPERATIONS,
    "patch_order": OPERATIONS,
    "interpolation": get_args(Interpolation),
    "channels": get_args(Channels),
    "randaugment_set": get_args(RandAugmentSet),
}
_AT_LEAST = {
    "size": 0, "brightness": 0, "contrast": 0, "saturation": 0, "blur_kernel": 0, "rotate_degrees": 0, "randaugment_n": 0,
    "randaugment_magnitude": 0, "randaugment_std": 0, "patch_grid": 0, "patch_size": 1, "patch_stride": 1, "patch_slack": 0,
    "patch_inner": 0,
}  # fmt: skip


# Of settings that came after records were published: at its default such a setting is left out of a cell's config, so that
# a cell that does not use it keeps the id it had.
_LATER = {"later": True}


@dataclass(frozen=True)
class ViewConfig:
    """One view's augmentation law; every random choice is drawn per sample.

    size: side of the view in pixels; 0 is the experiment's image_size.
    order: the operations, in their order; where the first is not a crop they start from the whole image, made square.
    crop_scale, crop_ratio: area fraction and aspect ratio of torchvision's RandomResizedCrop; (1, 1) with ratio (1, 1)
        keeps the whole of a square image. interpolation is always antialiased; bicubic clamps to the range of pixels.
    central_square: crop out of the middle square of the image.
    shared_crop: first a crop of shared_crop_scale, resized to `size`, that is the same for all views of an image; the
        operations start from it. SimCLR's asymmetric setting (figure 5): one view has the operations, the other none.
    jitter: torchvision's ColorJitter (random order) with one joint probability.
    blur_kernel: a fraction of the view's side, rounded down to an odd size of at least 3 pixels; 0 never cuts the Gaussian
        off, as Pillow's blur. blur_sigma: pixels, uniform.
    rotate_degrees: uniform between -x and x, empty corners black; 0 means one of 0, 90, 180, 270 degrees.
    sobel: the magnitude of the gradient of the grey image, in all three channels.
    cutout_side: of a square of the mean colour (zero after normalization), as a fraction of the view's side.
    noise_std: of Gaussian pixel noise, uniform; values stay in [0, 1].
    randaugment_n: how many operations, each applied with probability 0.5 at magnitude randaugment_magnitude (of 10) plus
        Gaussian noise of randaugment_std; the set `geometric` is CMC's, without what changes colours.
    channels: `rgb`; `lab`, normalized as CMC's; `sobel`, the two gradients of the normalized grey image, as DeepCluster's.
    same_draws: the random numbers are those of the view before it: with other `channels`, the same crop as another modality.
    patch_grid: cut the view into patch_grid x patch_grid squares of patch_size pixels whose corners are patch_stride
        apart; each is moved right and down by 0..patch_slack pixels (Jigsaw). patch_inner > 0 keeps a random square of
        that side and sets the frame around it to zero (CPC). patch_order: operations that follow, drawn per patch.
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
    size: int = field(default=0, metadata=_LATER)
    order: tuple[Operation, ...] = field(default=OPERATIONS, metadata=_LATER)
    interpolation: Interpolation = field(default="bilinear", metadata=_LATER)
    central_square: bool = field(default=False, metadata=_LATER)
    shared_crop: bool = field(default=False, metadata=_LATER)
    shared_crop_scale: tuple[float, float] = field(default=(0.08, 1.0), metadata=_LATER)
    rotate_prob: float = field(default=0.0, metadata=_LATER)
    rotate_degrees: float = field(default=0.0, metadata=_LATER)
    sobel_prob: float = field(default=0.0, metadata=_LATER)
    cutout_prob: float = field(default=0.0, metadata=_LATER)
    cutout_side: float = field(default=0.5, metadata=_LATER)
    noise_prob: float = field(default=0.0, metadata=_LATER)
    noise_std: tuple[float, float] = field(default=(0.05, 0.2), metadata=_LATER)
    randaugment_n: int = field(default=0, metadata=_LATER)
    randaugment_magnitude: float = field(default=10.0, metadata=_LATER)
    randaugment_std: float = field(default=0.5, metadata=_LATER)
    randaugment_set: RandAugmentSet = field(default="all", metadata=_LATER)
    channels: Channels = field(default="rgb", metadata=_LATER)
    patch_grid: int = field(default=0, metadata=_LATER)
    patch_size: int = field(default=64, metadata=_LATER)
    patch_stride: int = field(default=32, metadata=_LATER)
    patch_slack: int = field(default=0, metadata=_LATER)
    patch_inner: int = field(default=0, metadata=_LATER)
    patch_order: tuple[Operation, ...] = field(default=(), metadata=_LATER)
    same_draws: bool = field(default=False, metadata=_LATER)

    def __post_init__(self) -> None:
        """ValueError says what no view can be."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name.endswith("_prob") and not 0 <= value <= 1:
                raise ValueError(f"{f.name} is {value}, a probability lies between 0 and 1")
            if f.name.endswith("_scale") and not 0 < value[0] <= value[1] <= 1:
                raise ValueError(f"{f.name} is {list(value)}, areas are fractions of the image: 0 < low <= high <= 1")
            if f.name in _AT_LEAST and value < _AT_LEAST[f.name]:
                raise ValueError(f"{f.name} is {value}, it is at least {_AT_LEAST[f.name]}")
        for name, allowed in _ALLOWED.items():
            said = getattr(self, name)
            for word in said if isinstance(said, tuple) else (said,):
                if word not in allowed:
                    raise ValueError(f"{name} has {word!r}, allowed are {', '.join(allowed)}")
            if isinstance(said, tuple) and len(set(said)) != len(said):
                raise ValueError(f"{name} names an operation twice: {', '.join(said)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}, a turn of the colours lies between 0 and 0.5")
        if not 0 < self.cutout_side <= 1:
            raise ValueError(f"cutout_side is {self.cutout_side}, a fraction of the view's side")
        if "crop" in self.patch_order:
            raise ValueError("patch_order cannot hold 'crop'; patch_inner crops a patch")
        if self.patch_grid and self.channels == "sobel":
            raise ValueError("patches are rgb or lab, not sobel")
        if self.patch_inner > self.patch_size:
            raise ValueError(f"patch_inner is {self.patch_inner}, more than the patch_size of {self.patch_size}; lower it")
        if self.randaugment_n > RANDAUGMENT_MOST:
            raise ValueError(f"randaugment_n is {self.randaugment_n}, at most {RANDAUGMENT_MOST} operations can be chosen")

    def misfit(self, image_size: int) -> str | None:
        """Why a view of this kind cannot be made where image_size is the side of views that state none; None if it can."""
        size = self.size or image_size
        if self.blur_prob > 0 and self.blur_kernel * size / 2 >= size:
            return f"a blur_kernel of {self.blur_kernel} is too wide for images of {size} pixels; lower it"
        reach = (self.patch_grid - 1) * self.patch_stride + self.patch_slack + self.patch_size
        if self.patch_grid and reach > size:
            return (
                f"patches of {self.patch_size} pixels, {self.patch_stride} apart, reach to pixel {reach} of a view of {size}; "
                f"lower patch_grid, patch_size, patch_stride or patch_slack, or raise the view's size"
            )
        return None

    @property
    def channel_count(self) -> int:
        return 2 if self.channels == "sobel" else 3


def multi_crop(recipe: Sequence[ViewConfig], crops: Sequence[tuple[int, int, tuple[float, float]]]) -> tuple[ViewConfig, ...]:
    """Views of several sizes: `crops` lists (count, side in pixels, area scale). SwAV's 2 x 224 + 6 x 96 is

        multi_crop(RECIPES["swav"], [(2, 224, (0.14, 1.0)), (6, 96, (0.05, 0.14))])

    The crops of the first group take the recipe's views in turn, those of later groups its last view.
    """
    views: list[ViewConfig] = []
    for group, (count, size, scale) in enumerate(crops):
        for number in range(count):
            colours = recipe[-1] if group else recipe[number % len(recipe)]
            views.append(replace(colours, size=size, crop_scale=scale))
    return tuple(views)


def composition(first: Operation, second: Operation, base: ViewConfig | None = None) -> tuple[ViewConfig, ViewConfig]:
    """SimCLR's figure 5: (the view that goes through `first`, then `second`; its identity branch).

    Both start from one random crop of the image. base: the strengths; by default SimCLR's colour distortion, blur, a
    right-angled rotation and middling cutout and noise (the paper states none for these).
    """
    strong = base or replace(
        _SIMCLR, flip_prob=0.0, jitter_prob=1.0, grayscale_prob=0.0, blur_prob=1.0, rotate_prob=1.0, sobel_prob=1.0,
        cutout_prob=1.0, noise_prob=1.0,
    )  # fmt: skip
    order = (first,) if first == second else (first, second)
    return replace(strong, order=order, shared_crop=True), replace(strong, order=(), shared_crop=True)


# SimCLR (2002.05709), appendix A, strength s = 1. NOTE(departs): SimCLR's released code resizes its crops bicubically and
# without antialiasing, which the paper does not say; recipe simclr resizes bilinearly and antialiased.
_SIMCLR = ViewConfig(jitter_prob=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale_prob=0.2, blur_prob=0.5)
# BYOL (2006.07733), appendix B, tables of T and T'; also Barlow Twins and VICReg.
_BYOL = ViewConfig(
    jitter_prob=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grayscale_prob=0.2, interpolation="bicubic"
)
_BYOL_FIRST = replace(_BYOL, blur_prob=1.0)
_BYOL_SECOND = replace(_BYOL, blur_prob=0.1, solarize_prob=0.2)
# MoCo v3 (2104.02057), released code: BYOL's colours, bilinear crops from 0.2 on (for ViT from 0.08), Pillow's blur.
_MOCOV3 = replace(_BYOL, crop_scale=(0.2, 1.0), interpolation="bilinear", blur_kernel=0.0)
# MoCo v2 (2003.04297), "aug+"; also SimSiam, and what the BYOL batch-norm blog ran.
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
# InstDisc (1805.01978), InvaSpread (1904.03436) and MoCo v1 (1911.05722): grey before the jitter, which is always on.
_INSTDISC = ViewConfig(
    crop_scale=(0.2, 1.0),
    jitter_prob=1.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.4,
    grayscale_prob=0.2,
    order=("crop", "grayscale", "jitter", "flip"),
)
# SwAV (2006.09882), appendix: SimCLR's colours; Pillow's blur on every crop. Sizes and scales come with multi_crop.
_SWAV = replace(_SIMCLR, blur_kernel=0.0)
# DINO (2104.14294): BYOL's two views for the large crops, a third law for the small ones.
_DINO = replace(_BYOL, blur_kernel=0.0, crop_scale=(0.4, 1.0))
_DINO_LOCAL = replace(_DINO, blur_prob=0.5, crop_scale=(0.05, 0.4))
# InfoMin (2005.10243), its released augmentation "D": SimCLR's colours, blur, RandAugment(2, 10), then grey.
_INFOMIN = replace(
    _SIMCLR,
    crop_scale=(0.2, 1.0),
    randaugment_n=2,
    order=("crop", "flip", "jitter", "blur", "randaugment", "grayscale"),
)
# The Jigsaw branch of PIRL (1912.01991) and InfoMin: nine patches of 64 pixels out of 3 x 3 cells of 85.
_JIGSAW = ViewConfig(crop_scale=(0.6, 1.0), size=255, patch_grid=3, patch_size=64, patch_stride=85, patch_slack=21)
# CMC (1906.05849): crop and flip in Lab; with RandAugment, only what leaves the colours alone.
_CMC = ViewConfig(channels="lab")
_CMC_RANDAUGMENT = replace(
    _CMC,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    blur_prob=0.5,
    randaugment_n=2,
    randaugment_set="geometric",
    order=("crop", "flip", "jitter", "blur", "randaugment"),
)
# CPC (1807.03748), section 3.2: 256 of 300 pixels, flip, grey; 7 x 7 patches of 64 that overlap by half, 60 of each kept.
_CPC = ViewConfig(
    crop_scale=(0.728, 0.728),
    crop_ratio=(1.0, 1.0),
    central_square=True,
    grayscale_prob=1.0,
    size=256,
    patch_grid=7,
    patch_inner=60,
)
# CPC v2 (1905.09272), section 4.1: 260 pixels, 6 x 6 patches of 80 with stride 36, colours drawn per patch.
_CPCV2 = ViewConfig(
    crop_scale=(0.3, 1.0),
    size=260,
    patch_grid=6,
    patch_size=80,
    patch_stride=36,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_prob=0.25,
    order=("crop", "flip"),
    patch_order=("jitter", "grayscale"),
)
_SUPERVISED = ViewConfig()
# DeepCluster (1807.05520): crops and flips; the network sees gradients.
_DEEPCLUSTER = ViewConfig(channels="sobel")
_IDENTITY = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_prob=0.0)

# name -> the views, of which a method takes as many as it has; DINO's third is for multi_crop
RECIPES: dict[str, tuple[ViewConfig, ...]] = {
    "instdisc": (_INSTDISC, _INSTDISC),
    "cpc": (_CPC, _CPC),
    "cpcv2": (_CPCV2, _CPCV2),
    "cmc": (_CMC, _CMC),
    "cmc_randaugment": (_CMC_RANDAUGMENT, _CMC_RANDAUGMENT),
    "deepcluster": (_DEEPCLUSTER, _DEEPCLUSTER),
    "mocov1": (_INSTDISC, _INSTDISC),
    "mocov2": (_MOCOV2, _MOCOV2),
    "mocov3": (replace(_MOCOV3, blur_prob=1.0), replace(_MOCOV3, blur_prob=0.1, solarize_prob=0.2)),
    "simclr": (_SIMCLR, _SIMCLR),
    "swav": (_SWAV, _SWAV),
    "infomin": (_INFOMIN, _INFOMIN),
    "jigsaw": (_JIGSAW, _JIGSAW),
    "byol": (_BYOL_FIRST, _BYOL_SECOND),
    "dino": (replace(_DINO, blur_prob=1.0), replace(_DINO, blur_prob=0.1, solarize_prob=0.2), _DINO_LOCAL),
    "supervised": (_SUPERVISED, _SUPERVISED),
    "identity": (_IDENTITY, _IDENTITY),
}
