"""The draws: a pure function with torchvision's distributions."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from benchmark.data import views as column
from benchmark.data.keys import GOLDEN, bits, counters, mix, mix_array, permutation, stream, uniform
from benchmark.data.views import blur_taps, parameters
from benchmark.errors import InputError
from methods.views import RECIPES, ViewConfig

MANY = np.arange(20_000)
UNLIKELY = 1e-4  # p-values below this fail; the draws are fixed, so a test that passes once passes always
JITTER = ViewConfig(jitter_prob=0.8, brightness=0.4, contrast=0.8, saturation=0.2, hue=0.1, grayscale_prob=0.2)


def table(cfg, indices=MANY, seed=0, epoch=0, view=0, size=32):
    return parameters(seed, epoch, np.asarray(indices), view, cfg, size)


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
    np.testing.assert_allclose(row, [*crop_flip_order, *factors_and_gray, 1.5214821, np.inf], rtol=1e-6)


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
    [((0.08, 1.0), (3 / 4, 4 / 3), 32), ((0.2, 1.0), (3 / 4, 4 / 3), 224), ((0.5, 1.0), (0.3, 3.0), 32)],
)
def test_crops_follow_torchvisions_law(scale, ratio, size):
    torch.manual_seed(0)
    image = torch.empty(3, size, size)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(8_000)], np.float64)
    ours = table(ViewConfig(crop_scale=scale, crop_ratio=ratio), size=size)[:, column.TOP : column.WIDTH + 1].astype(float)
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
def test_impossible_crops_fall_back_like_torchvision(ratio):
    scale = (1.0, 1.0)
    expected = RandomResizedCrop.get_params(torch.empty(3, 33, 33), scale, ratio)
    found = table(ViewConfig(crop_scale=scale, crop_ratio=ratio), size=33)[:, column.TOP : column.WIDTH + 1]
    assert (found == np.array(expected)).all()


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
        blur_taps(ViewConfig(blur_prob=1, blur_kernel=3), 8)
