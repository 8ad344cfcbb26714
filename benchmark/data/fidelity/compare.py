"""Every operation and the recipes, run by each kernel and by torchvision with the same parameters: the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from benchmark.data import randaugment
from benchmark.data import views as column
from benchmark.data.fidelity.kernels import Kernel, define, render
from benchmark.data.fidelity.photos import Photos, squares
from benchmark.data.render import View, plan
from benchmark.data.views import parameters, program
from methods.views import RECIPES, ViewConfig, composition, multi_crop

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # what fills empty corners; taken off every view, without a scale
_ONE = np.ones(3, np.float32)
_SEED = 2020
_VISIBLE = 0.5  # grey levels
_CROPS_OF_FFCV = ("crop, bilinear", "reduce 256 to 96", "enlarge 32 to 96")
# Draws of RandAugment from which the rows with one certain operation are taken: each has one chance in thirty.
_RANDAUGMENT_DRAWS = 300

STILL = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_prob=0.0)  # the whole of a square image
_CROP = ViewConfig(flip_prob=0.0)
_ONE_OF_ALL = replace(STILL, randaugment_n=1, randaugment_magnitude=5.0, randaugment_std=3.0)
_STRENGTHS = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}


@dataclass(frozen=True)
class Case:
    """One line of the report. size: of the view, pixels. stored: side of the images, squares; 0 takes them as they are.

    number: of the RandAugment operation that every row must have. levels: what a difference of 1 is in grey levels.
    exact: compare with torchvision in float64, of a crop alone.
    """

    group: str
    name: str
    cfg: ViewConfig
    size: int
    stored: int
    number: int | None = None
    levels: float = 255.0
    exact: bool = False


class Difference(NamedTuple):
    """Absolute differences in grey levels of 255; visible: the share of values that differ by more than half a level."""

    group: str
    operation: str
    kernel: str
    mean: float
    max: float
    visible: float


def cases() -> list[Case]:
    """All there are, in the order of the report."""

    def one(group: str, name: str, size: int = 96, /, **settings: Any) -> Case:
        return Case(group, name, replace(STILL, **settings), size, size)

    operations = [
        Case("crop and turn", "crop, bilinear", _CROP, 224, 0),
        Case("crop and turn", "crop, bilinear, to float64", _CROP, 224, 0, exact=True),
        Case("crop and turn", "crop, bicubic", replace(_CROP, interpolation="bicubic"), 224, 0),
        Case("crop and turn", "reduce 256 to 96", STILL, 96, 256),
        Case("crop and turn", "enlarge 32 to 96", STILL, 96, 32),
        one("crop and turn", "flip", flip_prob=0.5),
        one("crop and turn", "rotate, right angles", rotate_prob=1.0),
        one("crop and turn", "rotate, any angle", rotate_prob=1.0, rotate_degrees=180.0),
        *(one("colours", name, jitter_prob=1.0, **{name: strength}) for name, strength in _STRENGTHS.items()),
        one("colours", "jitter, random order", jitter_prob=1.0, **_STRENGTHS),
        one("colours", "grayscale", grayscale_prob=1.0),
        one("colours", "solarize", solarize_prob=1.0),
        one("filters", "blur, 32 px", 32, blur_prob=1.0),
        one("filters", "blur, 224 px", 224, blur_prob=1.0),
        one("filters", "blur, 224 px, never cut off", 224, blur_prob=1.0, blur_kernel=0.0),
        one("filters", "Sobel", sobel_prob=1.0),
        one("filters", "cutout", cutout_prob=1.0),
        one("filters", "noise", noise_prob=1.0),
    ]
    augments = [
        Case("RandAugment", f"RandAugment {name}", _ONE_OF_ALL, 96, 96, getattr(randaugment, name.upper().replace(" ", "_")))
        for name in (
            "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize add", "saturation", "contrast",
            "brightness", "sharpness", "shear x", "shear y", "translate x", "translate y",
        )
    ]  # fmt: skip
    channels = [
        # Lab is scaled to [-1, 1]
        Case("channels", "Lab", replace(STILL, channels="lab"), 96, 96, levels=127.5),
        Case("channels", "Sobel gradients", replace(STILL, channels="sobel"), 96, 96),
    ]
    small_dino = multi_crop(RECIPES["dino"], [(2, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4))])[-1]
    recipes = [
        Case("recipes", "SimCLR, 32 px", RECIPES["simclr"][0], 32, 32),
        Case("recipes", "SimCLR", RECIPES["simclr"][0], 224, 0),
        Case("recipes", "BYOL, first view", RECIPES["byol"][0], 224, 0),
        Case("recipes", "BYOL, second view", RECIPES["byol"][1], 224, 0),
        Case("recipes", "MoCo v2", RECIPES["mocov2"][0], 224, 0),
        Case("recipes", "InfoMin", RECIPES["infomin"][0], 224, 0),
        Case("recipes", "DINO, small crop", small_dino, 96, 0),
        Case("recipes", "cutout after crop (figure 5)", composition("crop", "cutout")[0], 224, 0),
        Case("recipes", "Sobel, then noise (figure 5)", composition("sobel", "noise")[0], 224, 0),
        Case("recipes", "CMC", RECIPES["cmc"][0], 224, 0, levels=127.5),
        Case("recipes", "Jigsaw patches", RECIPES["jigsaw"][0], 255, 0),
        Case("recipes", "CPC patches", RECIPES["cpc"][0], 256, 0),
        Case("recipes", "CPC v2 patches", RECIPES["cpcv2"][0], 260, 0),
    ]
    return operations + augments + channels + recipes


def compare(case: Case, photos: Photos, kernels: dict[str, Kernel]) -> list[Difference]:
    """One difference a kernel."""
    images = squares(photos, case.stored) if case.stored else photos
    view = planned(case, images)
    expected = _exactly(images, view) if case.exact else define(images, view, MEAN, _ONE)
    return [
        _difference(case, name, render(kernel, images, view, MEAN, _ONE), expected, case.levels)
        for name, kernel in kernels.items()
    ]


def planned(case: Case, images: Photos) -> View:
    """What the case does to each image."""
    heights, widths = (np.array([image.shape[axis] for image in images]) for axis in (0, 1))
    if case.number is None:
        (view,) = plan([case.cfg], _SEED, 0, np.arange(len(images)), heights, widths, case.size)
        return view
    draws = np.arange(_RANDAUGMENT_DRAWS * len(images))
    table = parameters(_SEED, 0, draws, 0, case.cfg, case.stored, case.stored, case.size)
    chosen = np.flatnonzero(table[:, column.RANDAUGMENT] == case.number)[: len(images)]
    return View(program(case.cfg, case.size), table[chosen])


def _exactly(images: Photos, view: View) -> Tensor:
    """torchvision's bilinear crops in float64, where the rounding of its sampling positions plays no part: f8 (N, 3, S, S)."""
    size = [view.program.size] * 2
    crops = []
    for pixels, row in zip(images, view.table, strict=True):
        rectangle = [int(row[column.TOP + i]) for i in range(4)]
        crops.append(F.resized_crop(torch.tensor(pixels).permute(2, 0, 1).double() / 255, *rectangle, size, antialias=True))
    return torch.stack(crops) - torch.from_numpy(MEAN).double().view(3, 1, 1)


def versions() -> str:
    return f"torch {torch.__version__}, torchvision {version('torchvision')}"


def compare_ffcv(chosen: Sequence[Case], photos: Photos) -> tuple[list[Difference], str]:
    """FFCV's own RandomResizedCrop on the rectangles of the crop cases among `chosen`; what that is, or why it is left out."""
    if not any(case.name in _CROPS_OF_FFCV for case in chosen):
        return [], ""
    try:
        from ffcv.libffcv import resize_crop
    except (ImportError, OSError) as error:  # OSError: one of the C libraries it loads by name is missing
        return [], f"FFCV's own crop is left out: it cannot be imported ({error})."
    found = []
    for case in chosen:
        if case.name not in _CROPS_OF_FFCV:
            continue
        images = squares(photos, case.stored) if case.stored else photos
        view = planned(case, images)
        expected = define(images, view, np.zeros(3, np.float32), _ONE)
        resized = np.empty((len(images), case.size, case.size, 3), np.uint8)
        for image, row, out in zip(images, view.table, resized, strict=True):
            top, left, height, width = (int(row[column.TOP + i]) for i in range(4))
            resize_crop(image, top, top + height, left, left + width, out)
        found.append(_difference(case, "FFCV", torch.from_numpy(resized).permute(0, 3, 1, 2) / 255, expected, 255.0))
    return found, f"FFCV {version('ffcv')}, RandomResizedCropRGBImageDecoder, on the same rectangles"


def _difference(case: Case, kernel: str, found: Tensor, expected: Tensor, levels: float) -> Difference:
    apart = (found.double() - expected.double()).abs() * levels
    visible = (apart > _VISIBLE).double().mean()
    return Difference(case.group, case.name, kernel, float(apart.mean()), float(apart.max()), float(visible))
