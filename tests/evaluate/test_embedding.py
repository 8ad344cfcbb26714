"""Embedding maps: what they say of features with a known structure, and the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.errors import InputError
from benchmark.evaluate.embedding import embedding_map
from benchmark.evaluate.subject import Features, Place
from tests.evaluate.subjects import drawn_subject

PROTOCOL = {"images": 90, "classes": 10, "perplexity": 10.0}


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return drawn_subject(tmp_path_factory.mktemp("cache"), train=50, test=100)


def with_features(subject, x):
    y = torch.arange(len(x)) % 5
    subject.features = Features(x, y, x[:0], y[:0], x, y, x, subject.num_classes)
    return subject


def test_a_plane_is_drawn_as_it_is(subject, tmp_path):
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(100, 2, generator=generator) @ torch.linalg.qr(torch.randn(16, 2, generator=generator))[0].T
    found = embedding_map(with_features(subject, plane), PROTOCOL, Place(tmp_path, "m"))
    assert found.metrics["pca_explained"] == pytest.approx(100.0) and found.metrics["pca_trust"] == pytest.approx(100.0)
    assert found.metrics["tsne_trust"] > 85 and found.chosen["images"] == 90
    image = np.asarray(Image.open(tmp_path / found.pictures[0]).convert("RGB"))
    assert image.shape[0] >= 700 and image.shape[1] > 1500 and image.std() > 10


def test_noise_in_many_dimensions_fits_no_plane(subject, tmp_path):
    noise = torch.randn(100, 64, generator=torch.Generator().manual_seed(1))
    found = embedding_map(with_features(subject, noise), PROTOCOL, Place(tmp_path, "m"))
    assert found.metrics["pca_explained"] < 15 and found.metrics["pca_trust"] < 75


def test_labels_only_colour_the_points(subject, tmp_path):
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(2))
    whole = PROTOCOL | {"images": 0}
    first = embedding_map(with_features(subject, x), whole, Place(tmp_path, "a")).metrics
    y = subject.features.test_y[torch.randperm(100, generator=torch.Generator().manual_seed(3))]
    subject.features = Features(x, y, x[:0], y[:0], x, y, x, subject.num_classes)
    assert embedding_map(subject, whole, Place(tmp_path, "b")).metrics == first


def test_collapsed_features_and_few_images(subject, tmp_path):
    found = embedding_map(with_features(subject, torch.ones(100, 8)), PROTOCOL, Place(tmp_path, "m"))
    assert found.metrics == {"pca_explained": 0.0}
    one = torch.arange(100.0)[:, None]  # a single feature is drawn too
    assert embedding_map(with_features(subject, one), PROTOCOL, Place(tmp_path, "m")).metrics["pca_trust"] > 99
    with pytest.raises(InputError, match="10 test images of the first 10 classes are too few"):
        embedding_map(with_features(subject, torch.randn(10, 3)), PROTOCOL, Place(tmp_path, "m"))


def test_what_cannot_be_drawn_is_told(subject, tmp_path):
    empty = replace(subject, split=replace(subject.split, test=np.arange(0)))
    with pytest.raises(InputError, match=r"embedding_map: shapes has no labelled test image here; see data\.test_images"):
        embedding_map(empty, PROTOCOL, Place(tmp_path, "m"))
    with pytest.raises(InputError, match=r"embedding_map: features of train.* are not finite"):
        embedding_map(with_features(subject, torch.full((100, 3), torch.nan)), PROTOCOL, Place(tmp_path, "m"))
