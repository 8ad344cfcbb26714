"""The numba kernel against torchvision, and against itself in other surroundings."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from benchmark.data import kernels_numba, normalize_batch
from benchmark.data import views as column
from benchmark.data.views import blur_taps, parameters
from methods.views import RECIPES, ViewConfig
from tests.data.reference import by_torchvision

COUNT = 64
ZERO, ONE = np.zeros(3, np.float32), np.ones(3, np.float32)

# float32 against float32 on values in [0, 1]; a grey level is 4e-3. Seen: 2.4e-6 for one operation, 5.2e-6 for a chain.
TOLERANCE = 5e-6
TOLERANCE_CHAIN = 1e-5

OPERATIONS = {
    "crop": ViewConfig(flip_prob=0),
    "crop and flip": ViewConfig(flip_prob=1),
    "brightness": ViewConfig(jitter_prob=1, brightness=0.8),
    "contrast": ViewConfig(jitter_prob=1, contrast=0.8),
    "saturation": ViewConfig(jitter_prob=1, saturation=0.8),
    "hue": ViewConfig(jitter_prob=1, hue=0.5),
    "jitter": ViewConfig(jitter_prob=1, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    "grayscale": ViewConfig(grayscale_prob=1),
    "blur": ViewConfig(blur_prob=1),
    "wide blur": ViewConfig(blur_prob=1, blur_kernel=0.5),
    "solarize": ViewConfig(solarize_prob=1),
}


def images(side, count=COUNT):
    """Noise, smooth gradients and exact greys (where hue is undefined): u1 (count, side, side, 3)."""
    generator = np.random.default_rng(side)
    out = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, side)
    out[::4] = (ramp[:, None, None] * [0.2, 0.5, 1.0] + ramp[None, :, None] * [0.8, 0.5, 0.0]).astype(np.uint8)
    out[1::4] = out[1::4, :, :, :1]
    return out


def kernel(pixels, table, taps, out_size, mean=ZERO, std=ONE, threads=None, shares=1):
    count, side = pixels.shape[:2]
    out = np.full((count, 3, out_size, out_size), np.nan, np.float32)
    offsets = np.arange(count) * (side * side * 3)
    kernels_numba.apply(pixels.reshape(-1), offsets, side, table, taps, mean, std, out, threads, shares)
    return out


@pytest.mark.parametrize(("side", "out_size"), [(32, 32), (32, 20), (48, 32), (20, 33)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name, side, out_size):
    cfg, pixels = OPERATIONS[name], images(side)
    table, taps = parameters(1, 2, np.arange(COUNT), 0, cfg, side), blur_taps(cfg, out_size)
    expected = torch.stack([by_torchvision(*pair, taps, out_size) for pair in zip(pixels, table, strict=True)])
    tolerance = TOLERANCE_CHAIN if cfg.hue else TOLERANCE
    np.testing.assert_allclose(kernel(pixels, table, taps, out_size), expected.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("view", [0, 1])
def test_the_whole_chain_is_torchvisions(recipe, view):
    cfg, pixels = RECIPES[recipe][view], images(32, 96)
    table, taps = parameters(3, 0, np.arange(96), view, cfg, 32), blur_taps(cfg, 32)
    mean, std = np.array([0.49, 0.48, 0.45], np.float32), np.array([0.25, 0.24, 0.26], np.float32)
    expected = torch.stack([by_torchvision(*pair, taps, 32) for pair in zip(pixels, table, strict=True)])
    expected = F.normalize(expected, mean.tolist(), std.tolist())
    found = kernel(pixels, table, taps, 32, mean, std)
    np.testing.assert_allclose(found * std.min(), expected.numpy() * std.min(), rtol=0, atol=TOLERANCE_CHAIN)


def test_whole_image_is_exact():
    pixels, cfg = images(32), RECIPES["identity"][0]
    table = parameters(0, 0, np.arange(COUNT), 0, cfg, 32)
    found = kernel(pixels, table, 3, 32)
    np.testing.assert_allclose(found, pixels.transpose(0, 3, 1, 2) / np.float32(255), rtol=0, atol=6e-8)


@pytest.mark.parametrize("shares", [2, 3, 4, 100])
def test_bits_do_not_depend_on_threads(shares):
    pixels, cfg = images(32), RECIPES["byol"][0]
    table = parameters(0, 0, np.arange(COUNT), 0, cfg, 32)
    alone = kernel(pixels, table, 3, 32)
    with ThreadPoolExecutor(4) as threads:
        assert np.array_equal(kernel(pixels, table, 3, 32, threads=threads, shares=shares), alone)


def test_bits_do_not_depend_on_the_batch():
    pixels, cfg = images(32), RECIPES["simclr"][0]
    table = parameters(0, 0, np.arange(COUNT), 0, cfg, 32)
    together = kernel(pixels, table, 3, 32)
    some = np.array([40, 3, 17])
    assert np.array_equal(kernel(pixels[some].copy(), table[some].copy(), 3, 32), together[some])


def test_values_stay_in_range():
    cfg = ViewConfig(jitter_prob=1, brightness=2, contrast=2, saturation=2, hue=0.5, blur_prob=0.5, solarize_prob=0.5)
    found = kernel(images(32), parameters(0, 0, np.arange(COUNT), 0, cfg, 32), 3, 32)
    assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6


def test_evaluation_shows_the_normalized_image():
    pixels = images(32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    expected = F.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, list(mean), list(std))
    torch.testing.assert_close(normalize_batch(pixels, 32, mean, std), expected, rtol=0, atol=2e-6)


def test_evaluation_resizes_the_centre():
    pixels = images(64, 4)
    expected = F.resized_crop(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, 4, 4, 56, 56, [28, 28], antialias=True)
    found = normalize_batch(pixels, 28, (0, 0, 0), (1, 1, 1), crop=0.875)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_images_that_are_no_squares_are_refused():
    with pytest.raises(ValueError, match="side, side"):
        normalize_batch(np.zeros((2, 8, 9, 3), np.uint8), 8, (0, 0, 0), (1, 1, 1))


def test_table_of_evaluation_changes_nothing_but_the_crop():
    table = column.centre(2, 32, 0.5)
    assert table[0, column.TOP : column.WIDTH + 1].tolist() == [8, 8, 16, 16]
    assert (table[:, column.ORDER : column.ORDER + 4] == -1).all() and np.isinf(table[:, column.SOLARIZE]).all()
