"""The numba kernel against torchvision, and against itself in other surroundings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from benchmark.data import kernels_numba, randaugment
from benchmark.data import views as column
from benchmark.data.by_torchvision import apply_row
from benchmark.data.views import Program, centre, parameters, plain, program
from methods.views import OPERATIONS, RECIPES, ViewConfig, composition

COUNT = 48
ZERO, ONE = np.zeros(3, np.float32), np.ones(3, np.float32)
MEAN, STD = np.array([0.49, 0.48, 0.45], np.float32), np.array([0.25, 0.24, 0.26], np.float32)

# float32 against float32 on values in [0, 1]; a grey level is 4e-3. Seen: 2.4e-6 for one operation, 7e-6 for a chain.
TOLERANCE = 5e-6
TOLERANCE_CHAIN = 2e-5
# torchvision's grid of a moved image is in float32: at 33 pixels its places are off by up to 4e-6 pixels
TOLERANCE_MOVED = 3e-5

BASIC = {
    "crop": ViewConfig(flip_prob=0),
    "crop and flip": ViewConfig(flip_prob=1),
    "bicubic crop": ViewConfig(flip_prob=1, interpolation="bicubic"),
    "brightness": ViewConfig(jitter_prob=1, brightness=0.8),
    "contrast": ViewConfig(jitter_prob=1, contrast=0.8),
    "saturation": ViewConfig(jitter_prob=1, saturation=0.8),
    "hue": ViewConfig(jitter_prob=1, hue=0.5),
    "jitter": ViewConfig(jitter_prob=1, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    "grayscale": ViewConfig(grayscale_prob=1),
    "blur": ViewConfig(blur_prob=1),
    "wide blur": ViewConfig(blur_prob=1, blur_kernel=0.5),
    "blur that is not cut off": ViewConfig(blur_prob=1, blur_kernel=0.0),
    "solarize": ViewConfig(solarize_prob=1),
    "sobel": ViewConfig(sobel_prob=1),
    "cutout": ViewConfig(cutout_prob=1),
    "noise": ViewConfig(noise_prob=1),
    "right angles": ViewConfig(rotate_prob=1),
    "rotation": ViewConfig(rotate_prob=1, rotate_degrees=40),
    "lab": ViewConfig(channels="lab"),
    "gradients": ViewConfig(channels="sobel"),
    "late flip": ViewConfig(flip_prob=0.5, order=("crop", "rotate", "flip")),
    "no crop": ViewConfig(flip_prob=0.5, order=("flip",)),
    "late crop": ViewConfig(jitter_prob=1, contrast=0.8, order=("jitter", "crop", "flip")),
    "late bicubic crop": ViewConfig(interpolation="bicubic", order=("flip", "crop")),
    "identity branch": composition("jitter", "crop")[1],
    "shared crop": composition("crop", "crop")[0],
}


def tolerance(cfg):
    if cfg.rotate_prob or cfg.randaugment_n:
        return TOLERANCE_MOVED
    return TOLERANCE if len(cfg.order) < 4 and not cfg.hue else TOLERANCE_CHAIN


def images(height, width=None, count=COUNT):
    """Noise, smooth gradients and exact greys (where hue is undefined): u1 (count, height, width, 3)."""
    width = width or height
    generator = np.random.default_rng(height)
    out = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    down, across = np.linspace(0, 255, height)[:, None, None], np.linspace(0, 255, width)[None, :, None]
    out[::4] = (down * [0.2, 0.5, 1.0] + across * [0.8, 0.5, 0.0]).astype(np.uint8)
    out[1::4] = out[1::4, :, :, :1]
    return out


def drawn(cfg, pixels, size, seed=1, view=0):
    count, height, width, _ = pixels.shape
    return parameters(seed, 2, np.arange(count), view, cfg, height, width, size), program(cfg, size)


def kernel(pixels, table, made: Program, mean=ZERO, std=ONE):
    count, height, width = pixels.shape[:3]
    out = np.full((count, made.channel_count, made.size, made.size), np.nan, np.float32)
    sides = (np.full(count, length, np.int64) for length in (height, width))
    kernels_numba.apply(pixels.reshape(-1), np.arange(count) * (height * width * 3), *sides, table, made, mean, std, out)
    return out


def by_torchvision(pixels, table, made, mean=ZERO, std=ONE):
    rows = zip(pixels, table, strict=True)
    return torch.stack([apply_row(image, row, made, mean.tolist(), std.tolist()) for image, row in rows]).numpy()


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (32, 32, 20), (48, 40, 32), (20, 31, 33)])
@pytest.mark.parametrize("name", BASIC)
def test_each_operation_is_torchvisions(name, height, width, size):
    cfg, pixels = BASIC[name], images(height, width)
    table, made = drawn(cfg, pixels, size)
    expected = by_torchvision(pixels, table, made)
    np.testing.assert_allclose(kernel(pixels, table, made), expected, rtol=0, atol=tolerance(cfg))


NUMBERS = sorted({number for numbers in randaugment.SETS.values() for number in numbers})
STEPPED = (randaugment.EQUALIZE, randaugment.POSTERIZE, randaugment.SOLARIZE, randaugment.SOLARIZE_ADD)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_operation_of_randaugment_is_torchvisions(number):
    cfg, pixels = ViewConfig(randaugment_n=4, order=("crop", "randaugment")), images(32)
    table, made = drawn(cfg, pixels, 24)
    chosen = table[:, column.RANDAUGMENT :: 2] == number
    table[:, column.RANDAUGMENT :: 2][~chosen] = randaugment.IDENTITY
    assert chosen.sum() > 3
    difference = np.abs(kernel(pixels, table, made, MEAN, STD) - by_torchvision(pixels, table, made, MEAN, STD)) * STD.min()
    # a value within rounding of a threshold may fall on its other side: a rare pixel, a whole step
    assert (difference > TOLERANCE_MOVED).mean() < (1e-3 if number in STEPPED else 1e-9)


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", ["crop", "jitter", "blur", "rotate"])
def test_any_order_is_what_it_says(first, second):
    if first == second:
        return
    cfg, _ = composition(first, second)
    cfg, pixels = replace(cfg, flip_prob=0.5, solarize_prob=1.0), images(40, 32, 16)
    table, made = drawn(cfg, pixels, 24)
    difference = np.abs(kernel(pixels, table, made) - by_torchvision(pixels, table, made))
    assert (difference > 1e-4).mean() < (1e-3 if first == "solarize" else 1e-9)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("view", [0, 1])
def test_the_whole_chain_is_torchvisions(recipe, view):
    cfg, pixels = replace(RECIPES[recipe][view], size=32, patch_grid=0), images(36, 32, 96)
    table, made = drawn(cfg, pixels, 32, seed=3, view=view)
    difference = np.abs(kernel(pixels, table, made, MEAN, STD) - by_torchvision(pixels, table, made, MEAN, STD)) * STD.min()
    stepped = cfg.solarize_prob or cfg.randaugment_n
    assert (difference > (TOLERANCE_MOVED if cfg.randaugment_n else TOLERANCE_CHAIN)).mean() < (1e-3 if stepped else 1e-9)


def test_a_program_in_place_goes_on_from_what_is_there():
    cfg = replace(RECIPES["simclr"][0], order=("jitter", "grayscale", "blur"))
    start = np.random.default_rng(0).random((COUNT, 3, 24, 24), np.float32)
    table = parameters(0, 0, np.arange(COUNT), 0, cfg, 24, 24, 24)
    made = replace(program(cfg, 24), base=False, in_place=True)
    out, none = start.copy(), np.empty(0, np.int64)
    kernels_numba.apply(np.empty(0, np.uint8), none, none, none, table, made, MEAN, STD, out)
    rows = zip(torch.from_numpy(start), table, strict=True)
    expected = torch.stack([apply_row(image, row, made, MEAN.tolist(), STD.tolist()) for image, row in rows])
    np.testing.assert_allclose(out * STD.min(), expected.numpy() * STD.min(), rtol=0, atol=TOLERANCE_CHAIN)


def test_whole_image_is_exact():
    pixels, cfg = images(32), RECIPES["identity"][0]
    found = kernel(pixels, *drawn(cfg, pixels, 32))
    np.testing.assert_allclose(found, pixels.transpose(0, 3, 1, 2) / np.float32(255), rtol=0, atol=6e-8)


@pytest.mark.parametrize("recipe", ["simclr", "infomin"])
def test_bits_do_not_depend_on_the_batch(recipe):
    pixels, cfg = images(32), RECIPES[recipe][0]
    table, made = drawn(cfg, pixels, 32)
    some = np.array([40, 3, 17])
    assert np.array_equal(kernel(pixels[some].copy(), table[some].copy(), made), kernel(pixels, table, made)[some])


def test_values_stay_in_range():
    cfg = ViewConfig(
        jitter_prob=1, brightness=2, contrast=2, saturation=2, hue=0.5, blur_prob=0.5, solarize_prob=0.5, noise_prob=1,
        noise_std=(1, 2), interpolation="bicubic",
    )  # fmt: skip
    pixels = images(32)
    found = kernel(pixels, *drawn(cfg, pixels, 32))
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6


def test_evaluation_resizes_the_centre():
    pixels = images(64, 80, 4)
    expected = F.resized_crop(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, 4, 12, 56, 56, [28, 28], antialias=True)
    sides = np.full(4, 64), np.full(4, 80)
    found = kernel(pixels, centre(*sides, 0.875), plain(28))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=TOLERANCE)


def test_table_of_evaluation_changes_nothing_but_the_crop():
    table = centre(np.array([32, 40]), np.array([32, 20]), 0.5)
    assert table[:, column.TOP : column.WIDTH + 1].tolist() == [[8, 8, 16, 16], [15, 5, 10, 10]]
    assert (table[:, column.ORDER : column.ORDER + 4] == -1).all() and np.isinf(table[:, column.SOLARIZE]).all()
    assert not table[:, column.BASE :].any()
