"""What a row of the table means, written down with torchvision's functional transforms: the definition of the kernels.

One sample at a time on float32 tensors in [0, 1], as slow and as plain as it can be; nothing that trains calls it. Tests and
`benchmark.data.fidelity` compare the kernels with it. Where torchvision has no such transform the formula stands here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from benchmark.data import keys, randaugment
from benchmark.data import views as column
from benchmark.data.keys import GOLDEN, mix_array, stream
from benchmark.data.views import CHANNELS, Patches, Program

# IEC 61966-2-1: linear sRGB to XYZ, and its white point D65.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
# Mean and half range of L, a and b, as CMC (1906.05849) released them.
_LAB_MEAN, _LAB_STD = (50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)


def apply_row(
    pixels: NDArray[np.uint8] | Tensor, row: NDArray[np.float32], program: Program, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """One sample after one row of the table, f4 (C, S, S), normalized.

    pixels: the stored image u1 (H, W, 3); where program.in_place, the view so far f4 (3, S, S) in [0, 1]. mean, std: of
    RGB, in [0, 1]; with mean 0 and std 1 the result is the view itself.
    """
    image = pixels if isinstance(pixels, Tensor) else torch.tensor(pixels)
    if not program.in_place:
        image = image.permute(2, 0, 1).float() / 255
    if program.base:
        image = _crop(image, row, column.BASE, program)
    for operation in program.operations:
        image = _apply(operation, image, row, program, mean)
        if operation == column.CROP and program.mirrored and row[column.FLIP]:
            image = F.horizontal_flip(image)
    return in_channels(image, CHANNELS[program.channels], mean, std) if program.normalized else image


def apply_patches(
    pixels: NDArray[np.uint8],
    row: NDArray[np.float32],
    whole: Program,
    cuts: Patches,
    patch: Program,
    kept: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """One sample cut into patches, f4 (K, C, P, P): the view after `row` and `whole`, then each patch after its own row.

    cuts: of this sample alone. kept: side of the square that is left of a patch, in a frame of zeros; 0 keeps all.
    """
    view = apply_row(pixels, row, replace(whole, normalized=False), mean, std)
    side, done = patch.size, []
    for (top, left), (y, x), patch_row in zip(cuts.corners[0].tolist(), cuts.inner[0].tolist(), cuts.table, strict=True):
        piece = apply_row(view[:, top : top + side, left : left + side], patch_row, patch, mean, std)
        if kept:
            first = (side - kept) // 2
            frame = torch.zeros_like(piece)
            frame[:, first : first + kept, first : first + kept] = piece[:, y : y + kept, x : x + kept]
            piece = frame
        done.append(piece)
    return torch.stack(done)


def in_channels(image: Tensor, channels: str, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """f4 (3, S, S) in [0, 1] -> what an encoder sees, f4 (C, S, S): normalized `rgb`, `lab` or the two gradients `sobel`."""
    if channels == "lab":
        shift, scale = (torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1) for numbers in (_LAB_MEAN, _LAB_STD))
        return ((lab(image) - shift) / scale).float()
    normalized = F.normalize(image, list(mean), list(std))
    if channels == "rgb":
        return normalized
    grey = normalized.mean(0)[None, None]
    filters = torch.tensor([[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]])
    return torch.nn.functional.conv2d(grey, filters[:, None], padding=1)[0]


def lab(image: Tensor) -> Tensor:
    """sRGB in [0, 1] (3, S, S) -> CIE L*a*b* f8 (3, S, S): L from 0 to 100, a and b about -110 to 110."""
    rgb = image.double()
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,jyx->iyx", torch.tensor(_XYZ, dtype=torch.float64), linear)
    ratio = xyz / torch.tensor(_WHITE, dtype=torch.float64).view(3, 1, 1)
    bent = torch.where(ratio > 0.008856, ratio.clamp(min=0) ** (1 / 3), 7.787 * ratio + 16 / 116)
    x, y, z = bent
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _apply(operation: int, image: Tensor, row: NDArray[np.float32], program: Program, mean: Sequence[float]) -> Tensor:
    if operation == column.CROP:
        return _crop(image, row, column.TOP, program)
    if operation == column.FLIPPING:
        return F.horizontal_flip(image) if row[column.FLIP] else image
    if operation == column.ROTATING:
        degrees = float(row[column.ROTATE])
        return F.rotate(image, degrees, InterpolationMode.BILINEAR) if degrees else image
    if operation == column.JITTER:
        return _jitter(image, row)
    if operation == column.GRAYSCALE:
        return F.rgb_to_grayscale(image, num_output_channels=3) if row[column.GRAY] else image
    if operation == column.BLUR:
        sigma = float(row[column.SIGMA])
        return F.gaussian_blur(image, [program.taps, program.taps], [sigma, sigma]) if sigma > 0 else image
    if operation == column.SOLARIZING:
        threshold = float(row[column.SOLARIZE])
        return F.solarize(image, threshold) if threshold <= 1 else image  # torchvision refuses what can change nothing
    if operation == column.GRADIENT:
        return _gradient(image) if row[column.SOBEL] else image
    if operation == column.RANDAUGMENTING:
        pairs = row[column.RANDAUGMENT : column.COLUMNS].reshape(-1, 2).tolist()
        for number, argument in pairs:
            image = _randaugment(image, int(number), argument, mean)
        return image
    if operation == column.CUTTING:
        top, left, height, width = (int(row[column.CUTOUT + i]) for i in range(4))
        return F.erase(image, top, left, height, width, _colour(mean))
    assert operation == column.NOISING
    deviation = row[column.NOISE]
    if deviation == 0:
        return image
    return (image + float(deviation) * normal(row, tuple(image.shape))).clamp(0, 1)


def _colour(mean: Sequence[float]) -> Tensor:
    return torch.tensor([float(value) for value in mean]).view(3, 1, 1)


def _crop(image: Tensor, row: NDArray[np.float32], at: int, program: Program) -> Tensor:
    """The rectangle in the columns at..at+3, resized."""
    top, left, height, width = (int(row[at + i]) for i in range(4))
    mode = InterpolationMode.BICUBIC if program.bicubic else InterpolationMode.BILINEAR
    image = F.resized_crop(image, top, left, height, width, [program.size, program.size], mode, antialias=True)
    return image.clamp(0, 1) if program.bicubic else image  # bicubic overshoots at edges


def _jitter(image: Tensor, row: NDArray[np.float32]) -> Tensor:
    adjustments = (
        (F.adjust_brightness, column.BRIGHTNESS),
        (F.adjust_contrast, column.CONTRAST),
        (F.adjust_saturation, column.SATURATION),
        (F.adjust_hue, column.HUE),
    )
    for place in row[column.ORDER : column.ORDER + 4].astype(int):
        if place >= 0:
            adjust, at = adjustments[place]
            image = adjust(image, float(row[at]))
    return image


def _gradient(image: Tensor) -> Tensor:
    grey = F.rgb_to_grayscale(image)[None]
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    gradients = torch.nn.functional.conv2d(padded, torch.stack([across, across.T])[:, None])[0]
    return gradients.square().sum(0).sqrt().clamp(max=1).expand(3, -1, -1)


def _randaugment(image: Tensor, number: int, argument: float, mean: Sequence[float]) -> Tensor:
    fill = [float(value) for value in mean]
    if number == randaugment.IDENTITY:
        return image
    if number == randaugment.AUTOCONTRAST:
        return F.autocontrast(image)
    if number == randaugment.EQUALIZE:
        return F.equalize(image)
    if number == randaugment.INVERT:
        return F.invert(image)
    if number == randaugment.ROTATE:
        return F.rotate(image, argument, InterpolationMode.BILINEAR, fill=fill)
    if number == randaugment.POSTERIZE:
        return F.posterize(image, int(argument))
    if number == randaugment.SOLARIZE:
        return F.solarize(image, argument) if argument <= 1 else image
    if number == randaugment.SOLARIZE_ADD:
        return torch.where(image < 128 / 255, (image + argument).clamp(max=1), image)
    adjustments = {
        randaugment.SATURATION: F.adjust_saturation,
        randaugment.CONTRAST: F.adjust_contrast,
        randaugment.BRIGHTNESS: F.adjust_brightness,
        randaugment.SHARPNESS: F.adjust_sharpness,
    }
    if number in adjustments:
        return adjustments[number](image, argument)
    # With its centre in the corner, `affine` takes a pixel from x + tan(shear) * y; what it moves right comes from the left.
    shear, translate = [0.0, 0.0], [0.0, 0.0]
    if number in (randaugment.SHEAR_X, randaugment.SHEAR_Y):
        shear[number - randaugment.SHEAR_X] = math.degrees(math.atan(argument))
    else:
        translate[number - randaugment.TRANSLATE_X] = -argument * image.shape[-1]
    return F.affine(image, 0.0, translate, 1.0, shear, InterpolationMode.BILINEAR, fill, center=[0.0, 0.0])


def normal(row: NDArray[np.float32], shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers f4 (C, S, S) of the row's NOISE_KEY (Box and Muller's cosine half)."""
    key = stream(keys.NOISE, int(row[column.NOISE_KEY]), int(row[column.NOISE_KEY + 1]))
    positions = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    random = mix_array(np.uint64(key) + positions * np.uint64(GOLDEN))  # draws 0, 1, ... of the sequence that starts at key
    first = ((random >> np.uint64(32)).astype(np.float64) + 1) / 2**32  # in (0, 1]
    second = (random & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2**32
    numbers = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))
