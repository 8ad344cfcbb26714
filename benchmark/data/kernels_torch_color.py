"""What happens to the colours of pixels, batched: jitter, thresholds, histograms, noise, colour spaces. See `kernels_torch`.

Every operation takes images f4 (n, 3, S, S), which it may overwrite, and one row of arguments f4 (n, m) for each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from benchmark.data import keys

# sRGB to XYZ (IEC 61966-2-1), each row divided by the white point D65.
_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)


def luma(image: Tensor) -> Tensor:
    """Grey (n, 1, S, S), ITU-R 601-2 with torchvision's digits."""
    red, green, blue = image.split(1, dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _wide(numbers: Tensor) -> Tensor:
    """One argument per sample (n, 1), ready to meet images."""
    return numbers[:, :, None, None]


def brightness(image: Tensor, factor: Tensor) -> Tensor:
    return image.mul_(_wide(factor)).clamp_(0, 1)


def contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey of the whole image."""
    mean = luma(image).mean((-2, -1), keepdim=True)
    return image.mul_(_wide(factor)).add_(mean.mul_(_wide(1 - factor))).clamp_(0, 1)


def saturation(image: Tensor, factor: Tensor) -> Tensor:
    """Blend each pixel with its own grey."""
    level = luma(image)
    return image.mul_(_wide(factor)).add_(level.mul_(_wide(1 - factor))).clamp_(0, 1)


def grey(image: Tensor, _: Tensor) -> Tensor:
    return luma(image).repeat(1, 3, 1, 1)


def hue(image: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a fraction of the circle: RGB -> HSV -> RGB without branches.

    A channel of an HSV colour is v - v s clamp(min(k, 4 - k), 0, 1) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for red, green
    and blue, and v s is the range of the channels.
    """
    red, green, blue = image.split(1, dim=1)
    low, high = torch.aminmax(image, dim=1, keepdim=True)
    spread = high - low
    inverse = 1 / torch.where(spread > 0, spread, 1)
    on_green = ((blue - red) * inverse).add_(2)
    on_blue = ((red - green) * inverse).add_(4)
    angle = torch.where(high == red, (green - blue) * inverse, torch.where(high == green, on_green, on_blue))
    angle.add_(_wide(6 * turn))
    first = torch.arange(5, 0, -2, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    k = (angle + first).remainder_(6)
    return torch.minimum(k, 4 - k).clamp_(0, 1).mul_(spread).neg_().add_(high)


def solarized(image: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(image >= _wide(threshold), 1 - image, image)


def inverted(image: Tensor, _: Tensor) -> Tensor:
    return image.neg_().add_(1)


def posterized(image: Tensor, bits: Tensor) -> Tensor:
    levels = _wide(torch.exp2(bits))
    return torch.minimum(image.mul_(levels).floor_().clamp_(min=0), levels - 1).div_(levels)


def solarize_added(image: Tensor, addend: Tensor) -> Tensor:
    return torch.where(image < 128 / 255, (image + _wide(addend)).clamp_(max=1), image)


def autocontrast(image: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; one without any contrast stays as it is."""
    low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
    flat = high == low
    return image.sub_(low.masked_fill(flat, 0)).div_((high - low).masked_fill_(flat, 1)).clamp_(0, 1)


def equalized(image: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram of 256 grey levels: torchvision's, which takes batches and never asks the device."""
    equal: Tensor = F.equalize(image)
    return equal


def noisy(image: Tensor, numbers: Tensor) -> Tensor:
    """Add Gaussian noise. numbers: its standard deviation and the two columns of the noise key (n, 3)."""
    size = image[0].numel()
    first, second = numbers[:, 1:].to(torch.int64).split(1, dim=1)
    key = stream(keys.stream(keys.NOISE), first, second)
    places = torch.arange(1, size + 1, device=image.device)
    random = mix(places * _signed(keys.GOLDEN) + key)  # output 0, 1, ... of the SplitMix64 that starts at key
    radius = ((_shifted(random, 32) + 1).to(torch.float64) * 2.0**-32).log_().mul_(-2).sqrt_()
    turn = (random & 0xFFFFFFFF).to(torch.float64).mul_(2.0**-32 * 2 * math.pi).cos_()
    normal = radius.mul_(turn).to(torch.float32).view(image.shape)  # Box and Muller
    return image.add_(normal.mul_(_wide(numbers[:, :1]))).clamp_(0, 1)


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def _shifted(values: Tensor, places: int) -> Tensor:
    """Shifted right, as unsigned numbers are: the sign is not copied down."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def mix(values: Tensor) -> Tensor:
    """`keys.mix` on i8 of any shape: the same 64 bits, since products and sums wrap."""
    values = (values ^ _shifted(values, 30)) * _signed(keys.MULTIPLIERS[0])
    values = (values ^ _shifted(values, 27)) * _signed(keys.MULTIPLIERS[1])
    return values ^ _shifted(values, 31)


def stream(start: int, *parts: Tensor) -> Tensor:
    """`keys.stream` with `start`, itself a stream's key, followed by parts i8 of any one shape."""
    golden = _signed(keys.GOLDEN)
    key = torch.full_like(parts[0], _signed(start))
    for part in parts:
        key = mix(key + golden + mix(part + golden))
    return key


def rgb(image: Tensor, numbers: Tensor) -> Tensor:
    """Normalized. numbers: mean and standard deviation of the three channels (1, 6), here and below."""
    return image.sub_(_wide(numbers[:, :3])).div_(_wide(numbers[:, 3:]))


def lab(image: Tensor, _: Tensor) -> Tensor:
    """CIE L*a*b*, normalized with CMC's (1906.05849) released constants."""
    linear = torch.where(image > 0.04045, ((image + 0.055) / 1.055).clamp_(min=0).pow_(2.4), image / 12.92)
    red, green, blue = linear.split(1, dim=1)
    bent = []
    for from_red, from_green, from_blue in _XYZ:
        ratio = (red * from_red).add_(green, alpha=from_green).add_(blue, alpha=from_blue)
        bent.append(torch.where(ratio > 0.008856, ratio.clamp(min=0).pow_(1 / 3), 7.787 * ratio + 16 / 116))
    x, y, z = bent
    lightness = (116 * y - 66) / 50
    return torch.cat([lightness, (500 * (x - y) - 6.025) / 92.208, (200 * (y - z) + 6.6895) / 101.1675], dim=1)


def sobel(image: Tensor, numbers: Tensor) -> Tensor:
    """The two gradients (n, 2, S, S) of the normalized grey image, zero around it: DeepCluster's (1807.05520) input."""
    padded = torch.nn.functional.pad(rgb(image, numbers).mean(1, keepdim=True), (1, 1, 1, 1))
    across = padded[..., :-2] - padded[..., 2:]
    down = padded[..., :-2, :] - padded[..., 2:, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat([across, down], dim=1)


CHANNELS = {"rgb": rgb, "lab": lab, "sobel": sobel}
