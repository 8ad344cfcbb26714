"""The draws: a pure function with torchvision's distributions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from benchmark.data import randaugment
from benchmark.data import views as column
from benchmark.data.keys import GOLDEN, bits, counters, mix, mix_array, permutation, stream, uniform
from benchmark.data.views import Program, blur_taps, parameters, patch_program, patches, program
from benchmark.errors import InputError
from methods.views import RECIPES, ViewConfig, composition, multi_crop

MANY = np.arange(20_000)
UNLIKELY = 1e-4  # p-values below this fail; the draws are fixed, so a test that passes once passes always
EVERYTHING = ViewConfig(
    shared_crop=True, rotate_prob=1, rotate_degrees=40, sobel_prob=1, cutout_prob=1, noise_prob=1, randaugment_n=4
)  # fmt: skip
EVERYTHING_ROW = [6, 6, 23, 25, -35.240318, 1, 0, 17, 13, 15, 0.14231713, 12837480, 1910186, 0, 0, 3, 0, 0, 0, 6, 1.0039216]
JITTER = ViewConfig(jitter_prob=0.8, brightness=0.4, contrast=0.8, saturation=0.2, hue=0.1, grayscale_prob=0.2)


def table(cfg, indices=MANY, seed=0, epoch=0, view=0, size=32, height=None, width=None):
    return parameters(seed, epoch, np.asarray(indices), view, cfg, height or size, width or size, size)


def test_a_row_depends_on_its_index_alone():
    cfg = RECIPES["byol"][1]
    together = table(cfg)
    assert np.array_equal(table(cfg, [7, 19_999, 7, 0]), together[[7, 19_999, 7, 0]])


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"view": 1}])
def test_seed_epoch_and_view_change_every_row(change):
    cfg = RECIPES["simclr"][0]
    first, other = table(cfg), table(cfg, **change)
    assert not (first == other).all(axis=1).any()
    assert abs(np.corrcoef(first[:, column.TOP], other[:, column.TOP])[0, 1]) < 0.03


def test_swapped_arguments_are_other_streams():
    assert len({stream(*order) for order in itertools.permutations((1, 2, 3))}) == 6
    assert stream(0) != stream(0, 0) != stream()


def test_generator_is_splitmix64():
    """The published first outputs for the seed 0."""
    start = np.zeros(1, np.uint64)
    assert [int(bits(start, draw)[0]) for draw in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(GOLDEN) == int(mix_array(np.array([GOLDEN], np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_numbers_are_pinned():
    """A change of these numbers changes every image of every experiment."""
    assert stream(1, 2, 3) == 12096571958832185870
    assert permutation(stream(3, 0, 0), np.arange(8)).tolist() == [0, 5, 7, 6, 3, 4, 2, 1]
    row = table(RECIPES["byol"][1], [123], seed=5, epoch=7, view=1)[0]
    crop_flip_order, factors_and_gray = [5, 4, 19, 22, 1, 1, 3, 2, 0], [0.78677982, 1.0504388, 1.0316467, -0.093585849, 0]
    np.testing.assert_allclose(row[: column.BASE], [*crop_flip_order, *factors_and_gray, 1.5214821, np.inf], rtol=1e-6)
    assert not row[column.BASE :].any()
    row = table(EVERYTHING, [123], seed=5, epoch=7, view=1)[0]
    np.testing.assert_allclose(row[column.BASE :], EVERYTHING_ROW, rtol=1e-6)


def test_uniform_is_uniform_and_draws_are_independent():
    starts = counters(stream(9), MANY)
    first, second = uniform(starts, 0), uniform(starts, 1)
    assert kstest(first, "uniform").pvalue > UNLIKELY
    assert first.min() >= 0 and first.max() < 1
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03 and abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


def test_permutation_does_not_depend_on_the_order_given():
    items = np.array([5, 900, 3, 77])
    assert np.array_equal(permutation(4, items), permutation(4, items[::-1].copy()))
    assert sorted(permutation(4, items)) == sorted(items)


@pytest.mark.parametrize(
    ("scale", "ratio", "size"),
    [
        ((0.08, 1.0), (3 / 4, 4 / 3), (32, 32)),
        ((0.2, 1.0), (3 / 4, 4 / 3), (224, 224)),
        ((0.5, 1.0), (0.3, 3.0), (32, 32)),
        ((0.08, 1.0), (3 / 4, 4 / 3), (375, 500)),
        ((0.05, 0.14), (3 / 4, 4 / 3), (600, 200)),
    ],
)
def test_crops_follow_torchvisions_law(scale, ratio, size):
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(8_000)], np.float64)
    rows = table(ViewConfig(crop_scale=scale, crop_ratio=ratio), height=size[0], width=size[1])
    ours = rows[:, column.TOP : column.WIDTH + 1].astype(float)
    for statistic in (
        lambda crop: crop[:, 0],
        lambda crop: crop[:, 1],
        lambda crop: crop[:, 2],
        lambda crop: crop[:, 3],
        lambda crop: crop[:, 2] * crop[:, 3],
        lambda crop: crop[:, 3] / crop[:, 2],
    ):
        assert ks_2samp(statistic(ours), statistic(theirs)).pvalue > UNLIKELY


@pytest.mark.parametrize("ratio", [(1.5, 3.0), (0.3, 0.6), (1.0, 1.0)])
@pytest.mark.parametrize("size", [(33, 33), (33, 5), (20, 71)])
def test_impossible_crops_fall_back_like_torchvision(ratio, size):
    scale = (1.0, 1.0)
    expected = RandomResizedCrop.get_params(torch.empty(3, *size), scale, ratio)
    rows = table(ViewConfig(crop_scale=scale, crop_ratio=ratio), height=size[0], width=size[1])
    assert (rows[:, column.TOP : column.WIDTH + 1] == np.array(expected)).all()


def test_each_sample_has_crops_of_its_own_size():
    heights, widths = np.array([20, 300, 32]), np.array([400, 30, 32])
    together = parameters(0, 0, np.arange(3), 0, ViewConfig(), heights, widths, 32)
    for i in range(3):
        alone = parameters(0, 0, np.array([i]), 0, ViewConfig(), int(heights[i]), int(widths[i]), 32)
        assert np.array_equal(together[[i]], alone)


def test_crops_lie_inside():
    crop = table(ViewConfig(), size=32)[:, column.TOP : column.WIDTH + 1]
    assert crop.min() >= 0 and (crop[:, 2:] >= 1).all() and (crop[:, :2] + crop[:, 2:] <= 32).all()


def test_jitter_is_joint_and_in_random_order():
    rows = table(JITTER)
    order = rows[:, column.ORDER : column.ORDER + 4]
    applied = (order >= 0).any(axis=1)
    assert ((order >= 0).all(axis=1) == applied).all()
    assert abs(applied.mean() - 0.8) < 0.015
    kinds, counts = np.unique(order[applied], axis=0, return_counts=True)
    assert len(kinds) == 24 and chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("at", "low", "high"),
    [(column.BRIGHTNESS, 0.6, 1.4), (column.CONTRAST, 0.2, 1.8), (column.SATURATION, 0.8, 1.2), (column.HUE, -0.1, 0.1)],
)
def test_jitter_factors_are_uniform(at, low, high):
    rows = table(JITTER)
    factors = rows[rows[:, column.ORDER] >= 0, at]
    assert kstest(factors, "uniform", (low, high - low)).pvalue > UNLIKELY


def test_strong_jitter_stops_at_zero():
    factors = table(ViewConfig(jitter_prob=1, brightness=1.5))[:, column.BRIGHTNESS]
    assert kstest(factors, "uniform", (0, 2.5)).pvalue > UNLIKELY


def test_an_operation_of_strength_zero_takes_no_part():
    order = table(ViewConfig(jitter_prob=1, contrast=0.5))[:, column.ORDER : column.ORDER + 4]
    assert set(np.unique(order)) == {-1, 1} and ((order == 1).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("cfg", "at", "share"),
    [
        (ViewConfig(flip_prob=0.5), column.FLIP, 0.5),
        (ViewConfig(grayscale_prob=0.2), column.GRAY, 0.2),
        (ViewConfig(blur_prob=0.1), column.SIGMA, 0.1),
    ],
)
def test_probabilities(cfg, at, share):
    assert abs((table(cfg)[:, at] > 0).mean() - share) < 0.015


def test_blur_and_solarize():
    rows = table(ViewConfig(blur_prob=1, solarize_prob=0.2, solarize_threshold=0.7))
    assert kstest(rows[:, column.SIGMA], "uniform", (0.1, 1.9)).pvalue > UNLIKELY
    solarized = np.isfinite(rows[:, column.SOLARIZE])
    assert abs(solarized.mean() - 0.2) < 0.015 and np.allclose(rows[solarized, column.SOLARIZE], 0.7)


def test_switching_one_operation_leaves_the_draws_of_the_others():
    with_blur, without = table(RECIPES["simclr"][0]), table(ViewConfig(**_simclr_without_blur()))
    others = [i for i in range(column.COLUMNS) if i != column.SIGMA]
    assert np.array_equal(with_blur[:, others], without[:, others])


def _simclr_without_blur():
    return {**RECIPES["simclr"][0].__dict__, "blur_prob": 0.0}


@pytest.mark.parametrize(("size", "taps"), [(32, 3), (96, 9), (224, 23), (8, 3)])
def test_blur_kernel_is_the_nearest_odd_size(size, taps):
    assert blur_taps(ViewConfig(), size) == taps


def test_a_blur_wider_than_the_image_is_refused():
    with pytest.raises(InputError, match="blur_kernel of 3 is too wide for images of 8 pixels"):
        program(ViewConfig(blur_prob=1, blur_kernel=3), 8)


def test_a_blur_that_is_not_cut_off_reaches_four_sigma_or_the_border():
    assert blur_taps(ViewConfig(blur_kernel=0), 96) == 17
    assert blur_taps(ViewConfig(blur_kernel=0, blur_sigma=(0.1, 5)), 12) == 23


def test_right_angles_are_equally_likely_and_others_uniform():
    right = table(ViewConfig(rotate_prob=1))[:, column.ROTATE]
    kinds, counts = np.unique(right, return_counts=True)
    assert kinds.tolist() == [0, 90, 180, 270] and chisquare(counts).pvalue > UNLIKELY
    free = table(ViewConfig(rotate_prob=0.5, rotate_degrees=30))[:, column.ROTATE]
    assert abs((free != 0).mean() - 0.5) < 0.015 and kstest(free[free != 0], "uniform", (-30, 60)).pvalue > UNLIKELY


def test_cutout_is_a_square_cut_off_at_the_border():
    top, left, height, width = table(ViewConfig(cutout_prob=1, cutout_side=0.25))[:, column.CUTOUT : column.CUTOUT + 4].T
    inside = (height == 8) & (width == 8)
    assert height.max() == width.max() == 8 and height.min() == width.min() == 4 and 0.5 < inside.mean() < 0.65
    assert top.min() == left.min() == 0 and (top + height).max() == (left + width).max() == 32
    assert not table(ViewConfig(cutout_prob=0.0))[:, column.CUTOUT : column.CUTOUT + 4].any()


def test_noise_keys_are_whole_numbers_that_float32_holds():
    rows = table(ViewConfig(noise_prob=0.5, noise_std=(0.1, 0.3)))
    on = rows[:, column.NOISE] > 0
    assert abs(on.mean() - 0.5) < 0.015 and kstest(rows[on, column.NOISE], "uniform", (0.1, 0.2)).pvalue > UNLIKELY
    pairs = rows[:, column.NOISE_KEY : column.NOISE_KEY + 2]
    assert (pairs == np.floor(pairs)).all() and pairs.max() < 2**24 and len(np.unique(pairs, axis=0)) == len(pairs)


def test_randaugment_chooses_half_of_the_time_and_evenly():
    rows = table(ViewConfig(randaugment_n=2))
    first, second, none = (rows[:, column.RANDAUGMENT + 2 * slot] for slot in range(3))
    assert abs((first > 0).mean() - 0.5) < 0.015 and not none.any()
    counts = np.bincount(first[first > 0].astype(int), minlength=16)[1:]
    assert chisquare(counts).pvalue > UNLIKELY
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    few = table(ViewConfig(randaugment_n=2, randaugment_set="geometric"))[:, [column.RANDAUGMENT, column.RANDAUGMENT + 2]]
    assert set(np.unique(few)) == set(randaugment.SETS["geometric"])


@pytest.mark.parametrize(
    ("number", "low", "high"),
    [
        (randaugment.ROTATE, -30, 30),
        (randaugment.POSTERIZE, 0, 4),
        (randaugment.SOLARIZE, 0, 256 / 255),
        (randaugment.SOLARIZE_ADD, 0, 110 / 255),
        (randaugment.SHARPNESS, 0.1, 1.9),
        (randaugment.SHEAR_X, -0.3, 0.3),
        (randaugment.TRANSLATE_Y, -0.45, 0.45),
    ],
)
def test_randaugments_ranges(number, low, high):
    """At magnitude 5 with a wide spread everything between nothing and all is drawn, and nothing beyond."""
    rows = table(ViewConfig(randaugment_n=1, randaugment_magnitude=5, randaugment_std=3))
    arguments = rows[rows[:, column.RANDAUGMENT] == number, column.RANDAUGMENT + 1]
    assert np.isclose(arguments.min(), low, atol=1e-6) and np.isclose(arguments.max(), high, atol=1e-6)
    if low < 0:
        assert abs((arguments > 0).mean() - 0.5) < 0.1


def test_randaugments_magnitude_without_noise_is_exact():
    rows = table(ViewConfig(randaugment_n=1, randaugment_magnitude=4, randaugment_std=0))
    arguments = rows[rows[:, column.RANDAUGMENT] == randaugment.CONTRAST, column.RANDAUGMENT + 1]
    np.testing.assert_allclose(arguments, 0.1 + 0.4 * 1.8, rtol=1e-6)


def test_views_share_the_shared_crop_and_nothing_else():
    branch, identity = composition("crop", "crop")
    first, other = table(branch, view=0), table(identity, view=1)
    base = slice(column.BASE, column.BASE + 4)
    assert np.array_equal(first[:, base], other[:, base]) and not np.array_equal(first[:, base], first[:, : column.FLIP])
    assert not other[:, : column.ORDER].any()  # no crop and no flip of its own
    assert program(identity, 32) == Program(32, (), base=True, taps=3)


def test_multi_crop():
    views = multi_crop(RECIPES["dino"], [(2, 224, (0.4, 1.0)), (3, 96, (0.05, 0.4))])
    assert [(view.size, view.crop_scale, view.blur_prob) for view in views] == [
        (224, (0.4, 1.0), 1.0), (224, (0.4, 1.0), 0.1), *[(96, (0.05, 0.4), 0.5)] * 3,
    ]  # fmt: skip
    assert [view.solarize_prob for view in views] == [0, 0.2, 0, 0, 0]


def test_programs():
    assert program(RECIPES["supervised"][0], 32) == Program(32, (column.CROP,), mirrored=True, taps=3)
    assert program(RECIPES["instdisc"][0], 32).operations == (
        column.CROP, column.GRAYSCALE, column.JITTER, column.FLIPPING,
    )  # fmt: skip
    assert program(ViewConfig(flip_prob=0, order=("flip", "crop")), 32) == Program(32, (column.CROP,), taps=3)
    assert program(composition("jitter", "crop")[0], 32).base


def test_jigsaw_patches_move_within_their_cells():
    cuts = patches(0, 0, MANY[:500], 0, RECIPES["jigsaw"][0])
    assert cuts.corners.shape == (500, 9, 2)
    within = cuts.corners - 85 * np.stack(np.divmod(np.arange(9), 3), axis=1)
    assert within.min() == 0 and within.max() == 21
    assert chisquare(np.bincount(within.ravel())).pvalue > UNLIKELY


def test_cpc_patches_overlap_by_half_and_keep_a_random_inner_square():
    cuts = patches(0, 0, MANY[:100], 0, RECIPES["cpc"][0])
    assert cuts.corners[0, :8].tolist() == [[0, 0], [0, 32], [0, 64], [0, 96], [0, 128], [0, 160], [0, 192], [32, 0]]
    assert cuts.inner.min() == 0 and cuts.inner.max() == 4
    assert patch_program(RECIPES["cpc"][0]) == Program(64, (), taps=7, in_place=True)


def test_patches_of_one_sample_draw_alone():
    cfg = RECIPES["cpcv2"][0]
    some, alone = patches(3, 1, MANY[:9], 1, cfg), patches(3, 1, MANY[4:5], 1, cfg)
    assert np.array_equal(some.table[4 * 36 : 5 * 36], alone.table) and len(np.unique(alone.table, axis=0)) > 20
    gray = patches(0, 0, MANY[:500], 0, cfg).table[:, column.GRAY]
    assert abs(gray.mean() - 0.25) < 0.015


def test_cpc_crops_at_random_out_of_photographs_of_any_shape():
    """Its square is as large as 85 % of the shorter side, and lies within the middle square."""
    rows = table(RECIPES["cpc"][0], MANY[:2_000], height=333, width=500)
    assert set(rows[:, column.HEIGHT]) == set(rows[:, column.WIDTH]) == {284}
    assert len(np.unique(rows[:, :2], axis=0)) > 1_000
    assert rows[:, column.TOP].min() == 0 and rows[:, column.TOP].max() == 49
    assert rows[:, column.LEFT].min() == 83 and rows[:, column.LEFT].max() == 83 + 49


@pytest.mark.parametrize("changes", [{"size": 224}, {"size": 0}])
def test_patches_that_reach_out_of_the_view_are_refused(changes):
    cfg = replace(RECIPES["cpc"][0], **changes)
    with pytest.raises(InputError, match="patches of 64 pixels, 32 apart, reach to pixel 256 of a view of 224"):
        program(cfg, 224)
    assert cfg.misfit(224) and not RECIPES["cpc"][0].misfit(224)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"order": ("crop", "blur", "crop")}, "order names an operation twice"),
        ({"flip_prob": 7}, "flip_prob is 7, a probability"),
        ({"crop_scale": (0.5, 3.0)}, "crop_scale is .0.5, 3.0., areas are fractions"),
        ({"hue": 0.9}, "hue is 0.9"),
        ({"interpolation": "nearest"}, "interpolation has 'nearest', allowed are bilinear, bicubic"),
        ({"order": ("crop", "blurr")}, "order has 'blurr', allowed are crop, flip"),
        ({"size": -3}, "size is -3, it is at least 0"),
        ({"patch_size": 0}, "patch_size is 0, it is at least 1"),
        ({"patch_inner": 65}, "patch_inner is 65, more than the patch_size of 64"),
        ({"cutout_side": 5}, "cutout_side is 5"),
        ({"patch_order": ("crop",)}, "patch_order cannot hold 'crop'"),
        ({"randaugment_n": 5}, "at most 4 operations"),
        ({"patch_grid": 3, "channels": "sobel"}, "patches are rgb or lab"),
    ],
)
def test_senseless_views_are_refused(said, sentence):
    with pytest.raises(ValueError, match=sentence):
        ViewConfig(**said)
