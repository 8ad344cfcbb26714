"""RandAugment's operations as the definition has them, against Pillow and against the stated rule for what moves pixels."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from benchmark.data import randaugment
from benchmark.data import views as column
from tests.data.test_by_torchvision import MEAN, SIDE, ZERO, interior, levels, once, photo


def augmented(pixels, number, argument=0.0, mean=ZERO):
    """f4 (3, S, S) in [0, 1] after one RandAugment operation; `mean` is the colour that fills what is left empty."""
    return once(column.RANDAUGMENTING, pixels, mean, RANDAUGMENT=[number, argument]) + torch.tensor(mean).view(3, 1, 1)


@pytest.mark.parametrize(
    ("number", "argument", "by_pillow"),
    [
        (randaugment.IDENTITY, 0, lambda image: image),
        (randaugment.AUTOCONTRAST, 0, ImageOps.autocontrast),
        (randaugment.EQUALIZE, 0, ImageOps.equalize),
        (randaugment.INVERT, 0, ImageOps.invert),
        (randaugment.SOLARIZE, 100 / 255, lambda image: ImageOps.solarize(image, 100)),
        (randaugment.SOLARIZE, 256 / 255, lambda image: image),
    ],
)
def test_randaugment_operations_are_pillows(number, argument, by_pillow):
    pixels = photo(48, 48)
    expected = np.asarray(by_pillow(Image.fromarray(pixels)), float)
    assert np.abs(levels(augmented(pixels, number, argument)) - expected).max() < 1.001


@pytest.mark.parametrize("kept", [1, 3, 4])
def test_posterize_keeps_the_highest_bits(kept):
    """On floats a level is named by its place on [0, 1): k / 2^bits where Pillow has k 2^(8 - bits) of 255."""
    pixels = photo()
    found = augmented(pixels, randaugment.POSTERIZE, kept).permute(1, 2, 0).numpy()
    by_pillow = np.asarray(ImageOps.posterize(Image.fromarray(pixels), kept), float)
    assert np.abs(found * 256 - by_pillow).max() < 1e-3
    assert augmented(pixels, randaugment.POSTERIZE, 0).abs().max() == 0


def test_solarize_add_leaves_bright_pixels():
    pixels = photo()
    added = np.where(pixels < 128, np.minimum(255, pixels.astype(int) + 110), pixels)
    np.testing.assert_allclose(levels(augmented(pixels, randaugment.SOLARIZE_ADD, 110 / 255)), added, atol=1e-3)


def test_sharpness_mixes_with_the_smoothedinterior():
    pixels = photo()
    smooth = pixels / 255
    weights = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    windows = np.lib.stride_tricks.sliding_window_view(pixels / 255, (3, 3), (0, 1))
    smooth[1:-1, 1:-1] = (windows * weights).sum((-1, -2))
    for factor in (0.1, 1.9):
        found = augmented(pixels, randaugment.SHARPNESS, factor).permute(1, 2, 0)
        expected = np.clip(factor * (pixels / 255) + (1 - factor) * smooth, 0, 1)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def moved(pixels, fill, source):
    """The rule stated directly: the pixel whose centre is at (x, y) comes from `source(x, y)`, bilinearly; f8 (S, S, 3).

    Beyond the image there is black, and the weight m of what lies inside mixes with the fill as m * (sample - fill) + fill.
    """
    side = len(pixels)
    y, x = np.mgrid[:side, :side] + 0.5
    from_x, from_y = (place - 0.5 for place in source(x, y))
    padded, inside = np.zeros((2, side + 2, side + 2, 3))
    padded[1:-1, 1:-1], inside[1:-1, 1:-1] = pixels / 255, 1
    left, top = np.floor(from_x), np.floor(from_y)
    sample, weight = np.zeros((2, side, side, 3))
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - (from_y - top)) * np.abs(1 - dx - (from_x - left))
            at = (np.clip(top + dy + 1, 0, side + 1).astype(int), np.clip(left + dx + 1, 0, side + 1).astype(int))
            sample += share[..., None] * padded[at]
            weight += share[..., None] * inside[at]
    return weight * (sample - fill) + fill


@pytest.mark.parametrize("argument", [-0.3, -0.07, 0.11, 0.3])
@pytest.mark.parametrize(
    ("number", "source"),
    [
        (randaugment.SHEAR_X, lambda a: lambda x, y: (x + a * y, y)),
        (randaugment.SHEAR_Y, lambda a: lambda x, y: (x, y + a * x)),
        (randaugment.TRANSLATE_X, lambda a: lambda x, y: (x + a * SIDE, y)),
        (randaugment.TRANSLATE_Y, lambda a: lambda x, y: (x, y + a * SIDE)),
    ],
)
def test_pixels_move_by_the_stated_rule(number, source, argument):
    pixels = photo()
    found = augmented(pixels, number, argument, MEAN).permute(1, 2, 0)
    np.testing.assert_allclose(found, moved(pixels, np.array(MEAN), source(argument)), atol=2e-5)


def test_randaugment_turns_counter_clockwise_into_the_mean():
    def source(x, y):
        angle, middle = np.radians(20), SIDE / 2
        across, down = x - middle, y - middle
        return middle + np.cos(angle) * across - np.sin(angle) * down, middle + np.sin(angle) * across + np.cos(angle) * down

    pixels = photo()
    found = augmented(pixels, randaugment.ROTATE, 20.0, MEAN).permute(1, 2, 0)
    np.testing.assert_allclose(found, moved(pixels, np.array(MEAN), source), atol=2e-5)
    np.testing.assert_allclose(found[0, 0], MEAN, atol=1e-6)


@pytest.mark.parametrize(("number", "matrix"), [
    (randaugment.SHEAR_X, (1, 0.2, 0, 0, 1, 0)),
    (randaugment.SHEAR_Y, (1, 0, 0, 0.2, 1, 0)),
])  # fmt: skip
def test_shears_are_pillows_inside(number, matrix):
    pixels = photo(41, 41)
    expected = Image.fromarray(pixels).transform((41, 41), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    inside = interior(lambda image: image.transform((41, 41), Image.Transform.AFFINE, matrix), 41)
    found = levels(augmented(pixels, number, 0.2))
    assert inside.mean() > 0.5 and np.abs(found - np.asarray(expected, float))[inside].max() < 1.01


def test_randaugment_runs_its_pairs_in_order():
    pixels = photo()
    pairs = [randaugment.SOLARIZE, 0.5, randaugment.INVERT, 0]
    solarized = np.where(pixels / 255 >= 0.5, 1 - pixels / 255, pixels / 255)
    found = once(column.RANDAUGMENTING, pixels, RANDAUGMENT=pairs)
    np.testing.assert_allclose(found.permute(1, 2, 0), 1 - solarized, atol=1e-6)
