"""The definition that kernels are held to, against facts that do not come from torchvision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from scipy.stats import kstest

from benchmark.data import views as column
from benchmark.data.by_torchvision import apply_patches, apply_row, lab, normal
from benchmark.data.keys import NOISE, bits, stream
from benchmark.data.views import Program, centre, parameters, patch_program, patches, plain, program
from methods.views import RECIPES, ViewConfig, composition

SIDE = 24
ZERO, ONE, MEAN, STD = (0, 0, 0), (1, 1, 1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
GREY_LEVEL = 1 / 255


def photo(height=SIDE, width=SIDE, seed=0):
    """Smooth colours with an edge and some noise: u1 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5 + channel) + np.cos(y / 7 - channel) + (x > width / 2) for channel in range(3)], axis=-1)
    return np.clip(110 + 45 * waves + generator.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def nothing(side=SIDE):
    """A row that takes the whole image and does nothing else."""
    return centre(np.array([side]), np.array([side]))[0]


def once(operation, pixels, mean=ZERO, std=ONE, taps=3, **numbers):
    """f4 (3, S, S) after the whole image and one operation whose columns are `numbers`."""
    row = nothing(len(pixels))
    for name, value in numbers.items():
        at = getattr(column, name)
        row[at : at + np.size(value)] = value
    return apply_row(pixels, row, Program(len(pixels), (column.CROP, operation), taps=taps), mean, std)


def levels(image):
    """f4 (3, S, S) in [0, 1] -> (S, S, 3) in grey levels."""
    return image.permute(1, 2, 0).numpy() * 255


def unit(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def test_a_whole_image_is_itself_normalized():
    pixels = photo()
    found = apply_row(pixels, nothing(), plain(SIDE), MEAN, STD)
    expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-6)


def test_a_crop_takes_its_rectangle():
    pixels = photo(20, 30)
    row = nothing()
    row[column.TOP : column.WIDTH + 1] = [3, 7, 8, 8]
    np.testing.assert_allclose(levels(apply_row(pixels, row, plain(8), ZERO, ONE)), pixels[3:11, 7:15], atol=1e-4)


@pytest.mark.parametrize(("bicubic", "filter"), [(False, Image.Resampling.BILINEAR), (True, Image.Resampling.BICUBIC)])
@pytest.mark.parametrize("size", [10, 40])
def test_resizing_is_pillows(bicubic, filter, size):
    """Within the rounding of Pillow's two passes of whole numbers; it clamps between them, so no extremes here."""
    pixels = photo(31, 45) // 2 + 60
    row = nothing()
    row[column.TOP : column.WIDTH + 1] = [4, 9, 25, 33]
    found = apply_row(pixels, row, Program(size, (column.CROP,), bicubic=bicubic), ZERO, ONE)
    expected = np.asarray(Image.fromarray(pixels[4:29, 9:42]).resize((size, size), filter), float)
    assert np.abs(levels(found) - expected).max() < 1.1
    assert found.min() >= 0 and found.max() <= 1


def test_a_base_comes_first_and_a_crop_reads_its_result():
    pixels = photo(40, 40)
    row = nothing()
    row[column.BASE : column.BASE + 4] = [8, 4, 24, 24]
    row[column.TOP : column.WIDTH + 1] = [6, 10, 12, 12]
    found = apply_row(pixels, row, Program(24, (column.CROP,), base=True), ZERO, ONE)
    inner = nothing()
    inner[column.TOP : column.WIDTH + 1] = [8 + 6, 4 + 10, 12, 12]
    torch.testing.assert_close(found, apply_row(pixels, inner, plain(24), ZERO, ONE), atol=1e-6, rtol=0)
    bare = apply_row(pixels, row, Program(24, (), base=True), ZERO, ONE)
    np.testing.assert_allclose(levels(bare), pixels[8:32, 4:28], atol=1e-4)


def test_a_flip_follows_its_crop():
    pixels = photo(24, 40)
    row = nothing()
    row[column.FLIP] = 1
    for made in (Program(24, (column.CROP,), mirrored=True), Program(24, (column.CROP, column.FLIPPING))):
        np.testing.assert_allclose(levels(apply_row(pixels, row, made, ZERO, ONE)), pixels[:, 23::-1], atol=1e-4)
    assert np.abs(levels(apply_row(pixels, row, plain(24), ZERO, ONE)) - pixels[:, :24]).max() < 1e-4


@pytest.mark.parametrize(("degrees", "turn"), [(90, 1), (180, 2), (270, 3)])
def test_right_angles_turn_counter_clockwise(degrees, turn):
    pixels = photo()
    upright = Image.fromarray(pixels).rotate(degrees)
    assert np.array_equal(np.asarray(upright), np.rot90(pixels, turn))
    np.testing.assert_allclose(levels(once(column.ROTATING, pixels, ROTATE=degrees)), upright, atol=1e-4)


@pytest.mark.parametrize("degrees", [-75.5, 12, 45, 120])
def test_any_angle_is_pillows(degrees):
    """Pillow rounds to whole numbers and repeats the outermost half pixel, so near the border of the image it differs."""
    pixels = photo(41, 41)
    found = levels(once(column.ROTATING, pixels, ROTATE=degrees))
    turned = np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR), float)
    inside = interior(lambda image: image.rotate(degrees), 41)
    assert inside.mean() > 0.5 and np.abs(found - turned)[inside].max() < 1.01
    outside = ~np.asarray(Image.new("L", (41, 41), 1).rotate(degrees, Image.Resampling.NEAREST), bool)
    assert found[_eroded(outside)].max(initial=0) == 0


def interior(transform, side):
    """Where the pixel of a moved image comes from well inside of it, bool (side, side)."""
    inner = np.zeros((side, side), np.uint8)
    inner[2:-2, 2:-2] = 1
    return np.asarray(transform(Image.fromarray(inner)), bool)


def _eroded(mask):
    padded = np.pad(mask, 1, constant_values=True)
    return np.logical_and.reduce([np.roll(padded, move, (0, 1)) for move in np.ndindex(3, 3)])[2:, 2:]


def test_brightness_contrast_and_saturation_blend():
    """Each mixes the image with black, with its mean grey, with its own grey, and clamps."""
    pixels = photo()
    image = pixels / 255
    grey = image @ [0.2989, 0.587, 0.114]
    for place, at, other in (
        (0, "BRIGHTNESS", 0.0),
        (1, "CONTRAST", grey.mean()),
        (2, "SATURATION", grey[..., None]),
    ):
        for factor in (0.3, 1.7):
            found = once(column.JITTER, pixels, ORDER=[-1, place, -1, -1], **{at: factor})
            expected = np.clip(factor * image + (1 - factor) * other, 0, 1)
            np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=2e-6)


@pytest.mark.parametrize("turn", [-0.4, 0.1, 0.5])
def test_hue_turns_the_colour_circle(turn):
    import colorsys

    pixels = photo(8, 8)
    found = once(column.JITTER, pixels, ORDER=[3, -1, -1, -1], HUE=turn).permute(1, 2, 0).numpy()
    for (y, x), _ in np.ndenumerate(found[..., 0]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[y, x] / 255))
        np.testing.assert_allclose(found[y, x], colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-5)


def test_the_jitter_follows_its_order():
    pixels = photo()
    both = {"BRIGHTNESS": 1.6, "CONTRAST": 0.5}
    first = once(column.JITTER, pixels, ORDER=[0, 1, -1, -1], **both)
    other = once(column.JITTER, pixels, ORDER=[1, -1, 0, -1], **both)
    brighter = np.clip(pixels / 255 * 1.6, 0, 1)
    expected = 0.5 * brighter + 0.5 * (brighter @ [0.2989, 0.587, 0.114]).mean()
    np.testing.assert_allclose(first.permute(1, 2, 0), expected, atol=2e-6)
    assert (first - other).abs().max() > 0.05


def test_grayscale_is_the_luma():
    pixels = photo()
    found = once(column.GRAYSCALE, pixels, GRAY=1)
    np.testing.assert_allclose(found, np.stack([pixels / 255 @ [0.2989, 0.587, 0.114]] * 3), atol=1e-6)


@pytest.mark.parametrize(("sigma", "taps"), [(0.6, 3), (1.7, 9), (2.0, 17)])
def test_blur_is_scipys(sigma, taps):
    pixels = photo()
    expected = pixels / 255
    for axis in (0, 1):
        expected = gaussian_filter1d(expected, sigma, axis, mode="mirror", radius=taps // 2)
    found = once(column.BLUR, pixels, taps=taps, SIGMA=sigma)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=2e-6)


def test_solarize_and_its_threshold():
    pixels = photo()
    expected = np.where(pixels >= 128, 255 - pixels.astype(int), pixels)
    np.testing.assert_allclose(levels(once(column.SOLARIZING, pixels, SOLARIZE=128 / 255)), expected, atol=1e-4)
    np.testing.assert_allclose(levels(once(column.SOLARIZING, pixels, SOLARIZE=np.inf)), pixels, atol=1e-4)


def test_gradient_measures_a_ramp_and_an_edge():
    """A slope of s a pixel has Sobel magnitude 2 s (the filter is an eighth of the usual scale, doubled)."""
    ramp = np.repeat(np.arange(SIDE, dtype=np.uint8)[None, :, None] * 5, SIDE, 0).repeat(3, 2)
    found = levels(once(column.GRADIENT, ramp, SOBEL=1))
    luma = 0.2989 + 0.587 + 0.114
    np.testing.assert_allclose(found[:, 1:-1], 10 * luma, atol=1e-3)
    np.testing.assert_allclose(found[:, [0, -1]], 5 * luma, atol=1e-3)  # the border is repeated
    np.testing.assert_allclose(
        levels(once(column.GRADIENT, ramp.transpose(1, 0, 2).copy(), SOBEL=1))[1:-1], 10 * luma, atol=1e-3
    )
    edge = np.zeros((SIDE, SIDE, 3), np.uint8)
    edge[:, SIDE // 2 :] = 255
    found = once(column.GRADIENT, edge, SOBEL=1)
    assert (found[0, 5] > 1e-3).nonzero().flatten().tolist() == [SIDE // 2 - 1, SIDE // 2] and found.max() <= 1


def test_cutout_leaves_the_mean_which_normalizes_to_zero():
    found = once(column.CUTTING, photo(), MEAN, STD, CUTOUT=[3, 5, 7, 9])
    assert found[:, 3:10, 5:14].abs().max() == 0
    untouched = apply_row(photo(), nothing(), plain(SIDE), MEAN, STD)
    untouched[:, 3:10, 5:14] = 0
    assert torch.equal(found, untouched)
    assert torch.equal(
        once(column.CUTTING, photo(), CUTOUT=[0, 0, 0, 0]), apply_row(photo(), nothing(), plain(SIDE), ZERO, ONE)
    )


def test_noise_is_standard_normal_and_its_rows_independent():
    row = nothing()
    row[column.NOISE_KEY : column.NOISE_KEY + 2] = [123, 456]
    numbers = normal(row, (3, 64, 64))
    assert kstest(numbers.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(numbers.mean()) < 0.03 and abs(numbers.std() - 1) < 0.02
    assert abs(np.corrcoef(numbers[0].flatten(), numbers[1].flatten())[0, 1]) < 0.05
    for change in (0, 1):
        other = row.copy()
        other[column.NOISE_KEY + change] += 1
        assert abs(np.corrcoef(numbers.flatten(), normal(other, (3, 64, 64)).flatten())[0, 1]) < 0.03


def test_noise_numbers_are_draws_of_the_keyed_sequence():
    """Position p of the image is draw p of the sequence that starts at the key, taken apart into two halves."""
    row = nothing()
    row[column.NOISE_KEY : column.NOISE_KEY + 2] = [7, (1 << 24) - 1]
    numbers = normal(row, (3, 5, 5))
    start = np.array([stream(NOISE, 7, (1 << 24) - 1)], np.uint64)
    for channel, y, x in ((0, 0, 0), (1, 2, 3), (2, 4, 4)):
        random = int(bits(start, (channel * 5 + y) * 5 + x)[0])
        radius = np.sqrt(-2 * np.log(((random >> 32) + 1) / 2**32))
        expected = radius * np.cos(2 * np.pi * (random & 0xFFFFFFFF) / 2**32)
        assert numbers[channel, y, x] == np.float32(expected)


def test_noise_is_added_and_clamped():
    pixels = np.full((64, 64, 3), 128, np.uint8)
    found = once(column.NOISING, pixels, NOISE=0.1, NOISE_KEY=[1, 2])
    assert abs(found.mean() - 128 / 255) < 0.005 and abs(found.std() - 0.1) < 0.005
    strong = once(column.NOISING, pixels, NOISE=2.0, NOISE_KEY=[1, 2])
    assert strong.min() == 0 and strong.max() == 1
    assert torch.equal(once(column.NOISING, pixels, NOISE_KEY=[1, 2]), unit(pixels))


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 1, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 1), (32.2970, 79.1875, -107.8602)),
        ((0.5, 0.5, 0.5), (53.3890, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, expected):
    """To the digits that the matrix is known to: published triples differ among themselves in the third decimal."""
    colour = torch.tensor(rgb, dtype=torch.float32).view(3, 1, 1)
    np.testing.assert_allclose(lab(colour).flatten(), expected, atol=5e-3)


def test_lab_channels_are_scaled_as_cmcs():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[...] = (255, 0, 0)
    made = replace(plain(4), channels=column.CHANNELS.index("lab"))
    found = apply_row(pixels, nothing(4), made, MEAN, STD)
    expected = (53.2408 - 50) / 50, (80.0925 - 6.025) / 92.208, (67.2032 + 6.6895) / 101.1675
    np.testing.assert_allclose(found[:, 1, 2], expected, atol=1e-4)


def test_sobel_channels_are_the_gradients_of_the_normalized_grey():
    ramp = np.repeat(np.arange(SIDE, dtype=np.uint8)[None, :, None] * 5, SIDE, 0).repeat(3, 2)
    made = plain(SIDE, "sobel")
    across, down = apply_row(ramp, nothing(), made, MEAN, STD)
    slope = 5 / 255 * np.mean([1 / value for value in STD])
    np.testing.assert_allclose(across[1:-1, 1:-1], -8 * slope, atol=1e-4)
    np.testing.assert_allclose(down[1:-1, 1:-1], 0, atol=1e-5)
    across, down = apply_row(ramp.transpose(1, 0, 2).copy(), nothing(), made, MEAN, STD)
    np.testing.assert_allclose(down[1:-1, 1:-1], -8 * slope, atol=1e-4)
    assert across[1:-1, -1].abs().max() > 0.1  # beyond the border there is zero


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_runs_in_its_range(recipe):
    pixels = photo(50, 40)
    heights, widths = np.full(8, 50), np.full(8, 40)
    for number, cfg in enumerate(RECIPES[recipe]):
        size = cfg.size or 32
        made = program(cfg, size)
        for row in parameters(0, 0, np.arange(8), number, cfg, heights, widths, size):
            view = apply_row(pixels, row, replace(made, channels=0), ZERO, ONE)
            assert view.shape == (3, size, size) and view.dtype == torch.float32
            assert view.min() >= -1e-6 and view.max() <= 1 + 1e-6
            assert apply_row(pixels, row, made, MEAN, STD).shape[0] == cfg.channel_count


def test_an_identity_branch_is_the_shared_crop():
    pixels = photo(50, 40)
    sizes = np.array([50]), np.array([40]), 32
    cut, identity = composition("cutout", "flip")
    row = parameters(0, 0, np.arange(1), 0, cut, *sizes)[0]
    other = parameters(0, 0, np.arange(1), 1, identity, *sizes)[0]
    changed = apply_row(pixels, row, program(cut, 32), MEAN, STD)
    kept = apply_row(pixels, other, program(identity, 32), MEAN, STD)
    same = changed == kept
    assert 0.5 < same.float().mean() < 1 and changed[~same].abs().max() == 0


def test_a_patch_is_worked_on_in_place():
    cfg = ViewConfig(patch_grid=2, patch_size=SIDE, patch_order=("grayscale", "flip"), grayscale_prob=1.0, flip_prob=1.0)
    row = nothing()
    row[column.GRAY] = row[column.FLIP] = 1
    patch = unit(photo())
    found = apply_row(patch, row, patch_program(cfg), ZERO, ONE)
    grey = once(column.GRAYSCALE, photo(), GRAY=1)
    torch.testing.assert_close(found, grey.flip(-1), atol=1e-6, rtol=0)
    assert torch.equal(patch, unit(photo()))


def test_patches_are_cut_drawn_and_framed():
    cfg = ViewConfig(patch_grid=2, patch_size=8, patch_stride=8, patch_inner=6, patch_order=("flip",))
    whole = plain(SIDE)
    cuts = patches(0, 0, np.arange(1), 0, cfg)
    cuts.table[:, column.FLIP] = [0, 1, 0, 0]
    found = apply_patches(photo(), nothing(), whole, cuts, patch_program(replace(cfg, flip_prob=1.0)), 6, MEAN, STD)
    view = apply_row(photo(), nothing(), whole, MEAN, STD)
    for number, ((top, left), (y, x)) in enumerate(zip(cuts.corners[0], cuts.inner[0], strict=True)):
        piece = view[:, top : top + 8, left : left + 8]
        piece = piece.flip(-1) if number == 1 else piece
        torch.testing.assert_close(found[number, :, 1:7, 1:7], piece[:, y : y + 6, x : x + 6])
        assert found[number, :, [0, 7]].abs().max() == 0 and found[number, :, :, [0, 7]].abs().max() == 0
