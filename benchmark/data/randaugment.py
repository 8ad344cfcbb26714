"""RandAugment as InfoMin and CMC use it: which operations at which strength, as columns of the view's table.

Source: RandAugment (1909.13719); the operations, their ranges and the noise on the magnitude are those of the augmentation
"rand-m10-n2-mstd0.5" that InfoMin (2005.10243) released, whose `geometric` set leaves out what changes colours, for CMC.
NOTE(departs): InfoMin's released RandAugment resamples with a filter, bilinear or bicubic, drawn at random; here it is always
bilinear.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data.keys import uniform

# Operations by number, as the table holds them, with the meaning of their argument.
IDENTITY, AUTOCONTRAST, EQUALIZE, INVERT = range(4)  # none
ROTATE = 4  # degrees, counter-clockwise; corners take the mean colour, as in all that move pixels
POSTERIZE = 5  # bits kept of eight
SOLARIZE = 6  # threshold on [0, 1]
SOLARIZE_ADD = 7  # what is added to values below one half
SATURATION, CONTRAST, BRIGHTNESS, SHARPNESS = range(8, 12)  # factor of torchvision's adjust_...
SHEAR_X, SHEAR_Y = 12, 13  # a pixel at height y comes from x + argument * y
TRANSLATE_X, TRANSLATE_Y = 14, 15  # a pixel comes from x + argument * side

SETS: dict[str, tuple[int, ...]] = {
    "all": tuple(range(1, 16)),
    "geometric": (AUTOCONTRAST, IDENTITY, ROTATE, SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y),
}
_PROBABILITY = 0.5
_DRAWS = 5  # of each operation: which, whether, two for the noise, sign
_HIGHEST = 10.0


def chosen(
    starts: NDArray[np.uint64], draw: int, count: int, magnitude: float, std: float, which: Literal["all", "geometric"]
) -> NDArray[np.float64]:
    """Pairs of operation number and argument, (N, 2 * count), from the draws `draw` to `draw` + 5 * count - 1."""
    pairs = np.zeros((len(starts), 2 * count))
    numbers = np.array(SETS[which])
    for slot in range(count):
        at = draw + _DRAWS * slot
        operation = numbers[(uniform(starts, at) * len(numbers)).astype(np.int64)]
        operation = np.where(uniform(starts, at + 1) < _PROBABILITY, operation, IDENTITY)
        # Box and Muller; 1 - u lies in (0, 1]
        normal = np.sqrt(-2 * np.log1p(-uniform(starts, at + 2))) * np.cos(2 * math.pi * uniform(starts, at + 3))
        level = np.clip(magnitude + std * normal, 0, _HIGHEST) / _HIGHEST
        sign = np.where(uniform(starts, at + 4) < 0.5, -1.0, 1.0)
        pairs[:, 2 * slot] = operation
        pairs[:, 2 * slot + 1] = _argument(operation, level, sign)
    return pairs


def _argument(operation: NDArray[np.int64], level: NDArray[np.float64], sign: NDArray[np.float64]) -> NDArray[np.float64]:
    """The argument of each operation at a level in [0, 1]."""
    factor = 0.1 + 1.8 * level
    cases = {
        ROTATE: 30 * level * sign,
        POSTERIZE: np.floor(4 * level),
        SOLARIZE: np.floor(256 * level) / 255,
        SOLARIZE_ADD: np.floor(110 * level) / 255,
        SATURATION: factor,
        CONTRAST: factor,
        BRIGHTNESS: factor,
        SHARPNESS: factor,
        SHEAR_X: 0.3 * level * sign,
        SHEAR_Y: 0.3 * level * sign,
        TRANSLATE_X: 0.45 * level * sign,
        TRANSLATE_Y: 0.45 * level * sign,
    }
    return np.select([operation == number for number in cases], list(cases.values()), 0.0)
