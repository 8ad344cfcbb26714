"""The numba kernel's operations that change colours, where pixels stay in their places or mix with their neighbours.

An image is f4[3, S * S] in [0, 1]. `scratch` is f4[S * S] of no particular content. Formulas, their order and their clamping
are those of torchvision's functional transforms on float tensors, where it has them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from benchmark.data import keys
from benchmark.data import views as column

_ZERO, _ONE, _SIX = np.float32(0), np.float32(1), np.float32(6)
# ITU-R 601-2 luma with torchvision's digits.
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
_GOLDEN, _MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(keys.GOLDEN), np.uint64(keys.MULTIPLIERS[0]), np.uint64(keys.MULTIPLIERS[1])
_S27, _S30, _S31, _S32, _LOW = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32), np.uint64(0xFFFFFFFF)
_NOISE_STREAM = np.uint64(keys.stream(keys.NOISE))
_inner = njit(nogil=True, error_model="numpy")


@_inner
def _clamp(value):  # type: ignore[no-untyped-def]
    return min(max(value, _ZERO), _ONE)


@_inner
def clamp(image):  # type: ignore[no-untyped-def]
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = _clamp(plane[i])


@_inner
def adjust_brightness(image, factor):  # type: ignore[no-untyped-def]
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = _clamp(plane[i] * factor)


@_inner
def adjust_contrast(image, factor):  # type: ignore[no-untyped-def]
    """Blend with the mean grey of the whole image."""
    red, green, blue = image[0], image[1], image[2]
    total = 0.0
    for i in range(red.size):
        total += red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE
    grey = (_ONE - factor) * np.float32(total / red.size)
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = _clamp(factor * plane[i] + grey)


@_inner
def adjust_saturation(image, factor):  # type: ignore[no-untyped-def]
    """Blend each pixel with its own grey; factor 0 is the grey image."""
    red, green, blue = image[0], image[1], image[2]
    for i in range(red.size):
        grey = (_ONE - factor) * (red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE)
        red[i] = _clamp(factor * red[i] + grey)
        green[i] = _clamp(factor * green[i] + grey)
        blue[i] = _clamp(factor * blue[i] + grey)


@_inner
def adjust_hue(image, turn):  # type: ignore[no-untyped-def]
    """Turn the hue by a fraction of the circle: RGB -> HSV -> RGB without branches.

    A channel of an HSV colour is v - v s clamp(min(k, 4 - k), 0, 1) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for red, green
    and blue, and v s is the range of the channels.
    """
    red, green, blue = image[0], image[1], image[2]
    shift = _SIX * turn
    for i in range(red.size):
        r, g, b = red[i], green[i], blue[i]
        high = max(r, max(g, b))
        spread = high - min(r, min(g, b))
        inverse = _ONE / (spread if spread > 0 else _ONE)
        on_blue = (r - g) * inverse + np.float32(4)
        on_green = (b - r) * inverse + np.float32(2)
        on_red = (g - b) * inverse
        hue = (on_red if high == r else (on_green if high == g else on_blue)) + shift
        hue = hue + _SIX if hue < 0 else hue
        red[i] = _channel(hue + np.float32(5), high, spread)
        green[i] = _channel(hue + np.float32(3), high, spread)
        blue[i] = _channel(hue + np.float32(1), high, spread)


@_inner
def _channel(k, high, spread):  # type: ignore[no-untyped-def]
    k = k - _SIX if k >= _SIX else k
    k = k - _SIX if k >= _SIX else k
    return high - spread * _clamp(min(k, np.float32(4) - k))


@_inner
def jitter(image, p):  # type: ignore[no-untyped-def]
    """torchvision's ColorJitter, in the order that the row states."""
    for i in range(4):
        operation = int(p[column.ORDER + i])
        if operation == 0:
            adjust_brightness(image, p[column.BRIGHTNESS])
        elif operation == 1:
            adjust_contrast(image, p[column.CONTRAST])
        elif operation == 2:
            adjust_saturation(image, p[column.SATURATION])
        elif operation == 3:
            adjust_hue(image, p[column.HUE])


@_inner
def blur(image, size, sigma, kernel, scratch, padded):  # type: ignore[no-untyped-def]
    """Gaussian blur with reflected borders: rows into `scratch`, then columns back into the image.

    Taps beyond 5.5 sigma, of less than 3e-7 of the middle one, are left out.
    """
    radius = min(kernel.size // 2, int(np.ceil(np.float32(5.5) * sigma)))
    taps = 2 * radius + 1
    total = 0.0
    for k in range(taps):
        kernel[k] = np.exp(-0.5 * ((k - radius) / sigma) ** 2)
        total += kernel[k]
    for k in range(taps):
        kernel[k] /= np.float32(total)
    for c in range(3):
        plane = image[c]
        for y in range(size):
            row = plane[y * size : (y + 1) * size]
            for x in range(size):
                padded[radius + x] = row[x]
            for k in range(1, radius + 1):
                padded[radius - k] = row[k]
                padded[radius + size - 1 + k] = row[size - 1 - k]
            target = scratch[y * size : (y + 1) * size]
            for x in range(size):
                target[x] = kernel[0] * padded[x]
            for k in range(1, taps):
                weight = kernel[k]
                for x in range(size):
                    target[x] += weight * padded[x + k]
        for y in range(size):
            target = plane[y * size : (y + 1) * size]
            for k in range(taps):
                at = abs(y + k - radius)
                at = 2 * (size - 1) - at if at >= size else at
                row = scratch[at * size : (at + 1) * size]
                weight = kernel[k]
                if k == 0:
                    for x in range(size):
                        target[x] = weight * row[x]
                else:
                    for x in range(size):
                        target[x] += weight * row[x]


@_inner
def solarize(image, threshold):  # type: ignore[no-untyped-def]
    if threshold > _ONE:
        return
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            value = plane[i]
            plane[i] = _ONE - value if value >= threshold else value


@_inner
def autocontrast(image):  # type: ignore[no-untyped-def]
    """Stretch each channel to [0, 1]; one without any contrast stays as it is."""
    for c in range(3):
        plane = image[c]
        low, high = plane.min(), plane.max()
        if high > low:
            factor = _ONE / (high - low)
            for i in range(plane.size):
                plane[i] = _clamp((plane[i] - low) * factor)


@_inner
def equalize(image):  # type: ignore[no-untyped-def]
    """Flatten each channel's histogram of 256 grey levels, as Pillow does."""
    levels = np.empty(256, np.int64)
    for c in range(3):
        plane = image[c]
        levels[:] = 0
        for i in range(plane.size):
            levels[int(plane[i] * np.float32(255.999))] += 1
        last = 255
        while levels[last] == 0:
            last -= 1
        step = (plane.size - levels[last]) // 255
        below = 0
        for level in range(256):
            here = levels[level]
            levels[level] = min((below + step // 2) // step, 255) if step > 0 else level
            below += here
        for i in range(plane.size):
            plane[i] = np.float32(levels[int(plane[i] * np.float32(255.999))]) / np.float32(255)


@_inner
def posterize(image, levels):  # type: ignore[no-untyped-def]
    inverse = _ONE / levels
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = min(np.floor(plane[i] * levels), levels - _ONE) * inverse


@_inner
def solarize_add(image, addend):  # type: ignore[no-untyped-def]
    threshold = np.float32(128 / 255)
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            plane[i] = min(_ONE, plane[i] + addend) if plane[i] < threshold else plane[i]


@_inner
def sharpen(image, size, factor, scratch):  # type: ignore[no-untyped-def]
    """Blend with a 3 x 3 smoothing of 1 1 1 / 1 5 1 / 1 1 1; the border stays."""
    for c in range(3):
        plane = image[c]
        scratch[:] = plane
        for y in range(1, size - 1):
            for x in range(1, size - 1):
                total = np.float32(4) * scratch[y * size + x]
                for row in range(y - 1, y + 2):
                    for col in range(x - 1, x + 2):
                        total += scratch[row * size + col]
                smooth = total / np.float32(13)
                plane[y * size + x] = _clamp(factor * scratch[y * size + x] + (_ONE - factor) * smooth)
        for i in range(size):  # the border is blended with itself
            for at in (i, (size - 1) * size + i, i * size, i * size + size - 1):
                plane[at] = _clamp(scratch[at])


@_inner
def gradient(image, size, scratch):  # type: ignore[no-untyped-def]
    """The magnitude of Sobel's gradient of the grey image, borders repeated; a full step is 1."""
    red, green, blue = image[0], image[1], image[2]
    for i in range(red.size):
        scratch[i] = red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE
    for y in range(size):
        above, here, below = max(y - 1, 0) * size, y * size, min(y + 1, size - 1) * size
        for x in range(size):
            left, right = max(x - 1, 0), min(x + 1, size - 1)
            across = (scratch[above + right] - scratch[above + left]) + (scratch[below + right] - scratch[below + left])
            across = (across + np.float32(2) * (scratch[here + right] - scratch[here + left])) / np.float32(4)
            down = (scratch[below + left] - scratch[above + left]) + (scratch[below + right] - scratch[above + right])
            down = (down + np.float32(2) * (scratch[below + x] - scratch[above + x])) / np.float32(4)
            value = min(_ONE, np.sqrt(across * across + down * down))
            red[here + x], green[here + x], blue[here + x] = value, value, value


@_inner
def _mix(value):  # type: ignore[no-untyped-def]
    """`keys.mix`."""
    value = (value ^ (value >> _S30)) * _MULTIPLIER_1
    value = (value ^ (value >> _S27)) * _MULTIPLIER_2
    return value ^ (value >> _S31)


@_inner
def add_noise(image, std, key_0, key_1):  # type: ignore[no-untyped-def]
    """Gaussian noise by Box and Muller; the bits are output number (c, y, x) of SplitMix64 from the key's start."""
    key = _mix(_NOISE_STREAM + _GOLDEN + _mix(np.uint64(key_0) + _GOLDEN))
    key = _mix(key + _GOLDEN + _mix(np.uint64(key_1) + _GOLDEN))
    for c in range(3):
        plane = image[c]
        for i in range(plane.size):
            key += _GOLDEN
            bits = _mix(key)
            first = (float(bits >> _S32) + 1.0) * 2.0**-32
            second = float(bits & _LOW) * 2.0**-32
            normal = math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)
            plane[i] = _clamp(plane[i] + std * np.float32(normal))


@_inner
def _linear(value):  # type: ignore[no-untyped-def]
    """sRGB to linear light (IEC 61966-2-1)."""
    f4 = np.float32
    return value / f4(12.92) if value <= f4(0.04045) else ((value + f4(0.055)) / f4(1.055)) ** f4(2.4)


@_inner
def _cube_root(value):  # type: ignore[no-untyped-def]
    f4 = np.float32
    return value ** f4(1 / 3) if value > f4(0.008856) else f4(7.787) * value + f4(16 / 116)


@_inner
def to_lab(image):  # type: ignore[no-untyped-def]
    """RGB to CIE L*a*b* under D65, shifted and scaled to about [-1, 1] as CMC's released code does."""
    f4 = np.float32
    for i in range(image.shape[1]):
        r, g, b = _linear(image[0, i]), _linear(image[1, i]), _linear(image[2, i])
        x = _cube_root((f4(0.412453) * r + f4(0.357580) * g + f4(0.180423) * b) / f4(0.95047))
        y = _cube_root(f4(0.212671) * r + f4(0.715160) * g + f4(0.072169) * b)
        z = _cube_root((f4(0.019334) * r + f4(0.119193) * g + f4(0.950227) * b) / f4(1.08883))
        image[0, i] = (f4(116) * y - f4(66)) / f4(50)
        image[1, i] = (f4(500) * (x - y) - f4(6.025)) / f4(92.208)
        image[2, i] = (f4(200) * (y - z) + f4(6.6895)) / f4(101.1675)


@_inner
def to_gradients(image, size, scratch, out):  # type: ignore[no-untyped-def]
    """Sobel's two gradients of the mean of the normalized channels, borders zero: the fixed first layer of DeepCluster."""
    for i in range(scratch.size):
        scratch[i] = (image[0, i] + image[1, i] + image[2, i]) / np.float32(3)
    for y in range(size):
        for x in range(size):
            across, down = _ZERO, _ZERO
            for i in range(-1, 2):
                for j in range(-1, 2):
                    if 0 <= y + i < size and 0 <= x + j < size:
                        value = scratch[(y + i) * size + x + j]
                        across -= np.float32(j * (2 - abs(i))) * value
                        down -= np.float32(i * (2 - abs(j))) * value
            out[0, y * size + x], out[1, y * size + x] = across, down
