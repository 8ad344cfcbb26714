"""Where pixels come from, batched: crops, flips, rotations and shears, filters. See `kernels_torch`.

Every operation takes images f4 (n, 3, S, S), which it may overwrite, and one row of arguments f4 (n, m) for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.kernels_torch_color import luma


def floats(images: Tensor) -> Tensor:
    """u1 (n, H, W, 3) -> f4 (n, 3, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def cropped(image: Tensor, rectangles: Tensor, size: int, bicubic: bool) -> Tensor:
    """Crops of f4 (n, 3, H, W), resized to (n, 3, S, S). rectangles: top, left, height, width, whether to flip (n, 5)."""
    top, left, height, width, flip = rectangles.split(1, dim=1)
    rows = _resampling(top, height, torch.zeros_like(flip), image.shape[-2], size, bicubic)
    columns = _resampling(left, width, flip, image.shape[-1], size, bicubic)
    image = _separable(rows, image, columns)
    return image.clamp_(0, 1) if bicubic else image  # bicubic overshoots at edges


def _resampling(start: Tensor, length: Tensor, flip: Tensor, stored: int, size: int, bicubic: bool) -> Tensor:
    """The matrices f4 (n, S, stored) of antialiased resampling; start, length, flip: f4 (n, 1).

    The filters of torch.nn.functional.interpolate(antialias=True), a triangle or Keys' cubic with a = -0.5, which widen with
    the scale when an image is reduced. In float32 and in its order of operations, so that positions are rounded alike.
    """
    place = torch.arange(size, device=start.device, dtype=torch.float32)
    scale = length / size
    middle = scale * (torch.where(flip > 0, size - 1 - place, place) + 0.5)
    at = torch.arange(stored, device=start.device, dtype=torch.float32) - start
    distance = at[:, None, :] - middle[:, :, None]
    distance.add_(0.5).mul_((1 / scale.clamp(min=1))[:, :, None]).abs_()
    if bicubic:
        near = ((1.5 * distance - 2.5) * distance).mul_(distance).add_(1)
        far = ((2.5 - 0.5 * distance) * distance).sub_(4).mul_(distance).add_(2)
        weights = torch.where(distance < 1, near, far.mul_(distance < 2))
    else:
        weights = distance.neg_().add_(1).clamp_(min=0)
    weights.mul_(((at >= 0) & (at < length))[:, None, :])
    return weights.div_(weights.sum(-1, keepdim=True))


def _separable(rows: Tensor, image: Tensor, columns: Tensor) -> Tensor:
    """rows (n, S, H) image (n, 3, H, W) columns^T (n, W, S) -> (n, 3, S, S)."""
    count, channels, height, width = image.shape
    narrow = torch.bmm(image.reshape(count, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], narrow.view(count, channels, height, -1))


def resized(images: Tensor | Sequence[Tensor], rectangles: NDArray[np.float32], size: int, bicubic: bool) -> Tensor:
    """Crops (top, left, height, width; N, 4) of images u1 (H_n, W_n, 3), one after the other: f4 (N, 3, S, S)."""
    mode = "bicubic" if bicubic else "bilinear"
    made = []
    for image, (top, left, height, width) in zip(images, rectangles.astype(int).tolist(), strict=True):
        crop = floats(image[None, top : top + height, left : left + width])
        made.append(torch.nn.functional.interpolate(crop, (size, size), mode=mode, antialias=True))
    whole = torch.cat(made)
    return whole.clamp_(0, 1) if bicubic else whole


def flipped(image: Tensor, _: Tensor) -> Tensor:
    return image.flip(-1)


def turned(image: Tensor, _: Tensor, quarters: int) -> Tensor:
    """Counter-clockwise by right angles."""
    return torch.rot90(image, quarters, (-2, -1))


def moved(image: Tensor, numbers: Tensor, filled: bool) -> Tensor:
    """A pixel comes from `matrix` times its position, both from the image's middle, bilinear; outside is black.

    numbers: the matrix (2 x 3) and a colour (3). filled: fade into that colour by the share of the weight that lies outside,
    as torchvision does with a fill.
    """
    count, _, size, _ = image.shape
    half = (size - 1) / 2
    line = torch.linspace(-half, half, size, device=image.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    position = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, size * size, 3)
    matrix = numbers[:, :6].view(count, 2, 3).transpose(1, 2) / (0.5 * size)  # the sampler counts in half sides
    grid = torch.bmm(position.expand(count, -1, -1), matrix).view(count, size, size, 2)
    source = torch.cat([image, torch.ones_like(image[:, :1])], dim=1) if filled else image
    made = torch.nn.functional.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if not filled:
        return made
    colour = numbers[:, 6:9, None, None]
    return made[:, :3].sub_(colour).mul_(made[:, 3:]).add_(colour)


def blurred(image: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Gaussian blur of sigma (n, 1) pixels cut off after `taps`, with reflected borders: a banded matrix per axis."""
    size, radius = image.shape[-1], taps // 2
    steps = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    kernel = torch.softmax(-0.5 * (steps / sigma).square(), dim=1)
    # by distance; radius + 1 stands for everything beyond
    halved = torch.cat([kernel[:, radius:], torch.zeros_like(kernel[:, :1])], dim=1)
    place = torch.arange(size, device=image.device)
    here, there = place[:, None], place[None, :]
    beyond = radius + 1
    direct = (here - there).abs()
    before = torch.where(there > 0, here + there, beyond)  # seen in the mirror at the first pixel, itself not repeated
    after = torch.where(there < size - 1, 2 * (size - 1) - here - there, beyond)
    band = sum(halved[:, distance.clamp(max=beyond)] for distance in (direct, before, after))
    assert isinstance(band, Tensor)
    return _separable(band, image, band)


def sharpened(image: Tensor, factor: Tensor) -> Tensor:
    """Blend with a 3 x 3 smoothing of 1 1 1 / 1 5 1 / 1 1 1, except the border."""
    if image.shape[-1] <= 2:
        return image
    inner = image[..., 1:-1, 1:-1]
    smooth = image[..., :-2, :] + image[..., 1:-1, :] + image[..., 2:, :]
    smooth = smooth[..., :-2] + smooth[..., 1:-1] + smooth[..., 2:]
    smooth.add_(inner, alpha=4).div_(13)
    inner.add_(smooth.sub_(inner).mul_((1 - factor)[:, :, None, None]))
    return image.clamp_(0, 1)


def gradient(image: Tensor, _: Tensor) -> Tensor:
    """The magnitude of Sobel's gradient of the grey image, borders repeated; a full step is 1."""
    grey = torch.nn.functional.pad(luma(image), (1, 1, 1, 1), mode="replicate")
    across = (grey[..., 2:] - grey[..., :-2]).div_(4)
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = (grey[..., 2:, :] - grey[..., :-2, :]).div_(4)
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.sqrt(across.square_().add_(down.square_())).clamp_(max=1).repeat(1, 3, 1, 1)


def cut_out(image: Tensor, numbers: Tensor) -> Tensor:
    """A rectangle (top, left, height, width) takes a colour (three more numbers)."""
    place = torch.arange(image.shape[-1], device=image.device)
    top, left, height, width = numbers[:, :4].split(1, dim=1)
    rows = (place >= top) & (place < top + height)
    columns = (place >= left) & (place < left + width)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], numbers[:, 4:7, None, None], image)
