"""Further views of the same crop in other channels, and the training set as methods see it between epochs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.data import central_views, open_loader
from benchmark.data.split import Split
from benchmark.evaluate.subject import Subject
from benchmark.train.images import TrainingImages
from methods.views import RECIPES, ViewConfig

STRONG = replace(RECIPES["simclr"][0], size=16, rotate_prob=0.5, cutout_prob=0.5, noise_prob=0.5)


def batches(dataset, views, backend):
    with open_loader(
        dataset, indices=np.arange(24), views=views, batch_size=8, seed=3, workers=0, out_size=16,
        mean=dataset.mean, std=dataset.std, backend=backend,
    ) as loader:  # fmt: skip
        return list(loader.epoch(2))


@pytest.mark.parametrize("backend", ["torch", "resident"])
def test_the_same_draws_are_the_same_crop(dataset, backend):
    views = (STRONG, replace(STRONG, same_draws=True), STRONG)
    for batch in batches(dataset, views, backend):
        first, again, other = batch.views
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)


@pytest.mark.parametrize("backend", ["torch", "resident"])
def test_a_modality_is_the_view_in_other_channels(dataset, backend):
    """Sobel of the crop that Lab shows is what a Sobel view alone, with the same number, shows."""
    lab = replace(STRONG, channels="lab")
    sobel = replace(STRONG, channels="sobel")
    together = batches(dataset, (lab, replace(sobel, same_draws=True), replace(STRONG, same_draws=True)), backend)
    alone = batches(dataset, (sobel,), backend)
    plain = batches(dataset, (STRONG,), backend)
    for a, b, c in zip(together, alone, plain, strict=True):
        assert [view.shape[1] for view in a.views] == [3, 2, 3]
        assert torch.equal(a.views[1], b.views[0]) and torch.equal(a.views[2], c.views[0])


def test_views_after_a_modality_keep_their_numbers(dataset):
    """What follows is drawn as if the modality were any other view: a view's number is its place."""
    with_modality = batches(dataset, (STRONG, replace(STRONG, same_draws=True), STRONG), "torch")
    without = batches(dataset, (STRONG, STRONG, STRONG), "torch")
    for a, b in zip(with_modality, without, strict=True):
        assert torch.equal(a.views[0], b.views[0]) and torch.equal(a.views[2], b.views[2])


def test_channels_of_several_spaces_are_concatenated(dataset):
    index = np.arange(5)
    both = central_views(dataset, "train", index, 16, ["lab", "sobel"])
    parts = [central_views(dataset, "train", index, 16, space) for space in ("lab", "sobel")]
    assert torch.equal(both, torch.cat(parts, dim=1)) and both.shape == (5, 5, 16, 16)


def test_the_training_set_between_epochs(dataset):
    indices = np.array([50, 3, 17, 4])
    images = TrainingImages(dataset, indices, 16, torch.device("cpu"), ["sobel"])
    for _ in range(2):  # as often as asked
        (batch,) = list(images)
        assert torch.equal(batch[0], central_views(dataset, "train", indices, 16, "sobel"))
        assert batch[1].tolist() == [0, 1, 2, 3]
    where = images.positions()
    assert where[torch.tensor([50, 3, 17, 4])].tolist() == [0, 1, 2, 3] and int((where >= 0).sum()) == 4
    assert len(images) == 4


def test_a_large_set_comes_in_parts(dataset, monkeypatch):
    monkeypatch.setattr("benchmark.train.images._BATCH", 7)
    images = TrainingImages(dataset, np.arange(20), 16, torch.device("cpu"))
    parts = list(images)
    assert [len(x) for x, _ in parts] == [7, 7, 6]
    assert torch.cat([where for _, where in parts]).tolist() == list(range(20))


class Seen(torch.nn.Module):
    """Features are the image's mean in each channel."""

    def features(self, images):
        return images.mean(dim=(2, 3))

    project = features


def test_evaluation_shows_all_modalities(dataset):
    split = Split(np.arange(12), np.arange(12, 15), np.arange(6))
    found = Subject(Seen().eval(), dataset, split, 16, ["lab", "sobel", "rgb"], torch.device("cpu")).features
    expected = central_views(dataset, "train", np.arange(12), 16, ["lab", "sobel", "rgb"]).mean(dim=(2, 3))
    assert found.train_x.shape == (12, 8)
    torch.testing.assert_close(found.train_x, expected)


def test_a_first_view_cannot_follow_another(dataset):
    """same_draws on the first view is without meaning, and without effect."""
    a = batches(dataset, (replace(STRONG, same_draws=True),), "torch")
    b = batches(dataset, (STRONG,), "torch")
    assert all(torch.equal(x.views[0], y.views[0]) for x, y in zip(a, b, strict=True))
    assert ViewConfig().same_draws is False
