"""The procedural set."""

import hashlib

import numpy as np

from benchmark.data.shapes import CLASSES, shapes


def test_images_are_a_pure_function_of_split_seed_and_index():
    whole = shapes("train", 50)
    assert np.array_equal(shapes("train", 50, first=30).images, whole.images[30:])
    assert np.array_equal(shapes("train", 20).images, whole.images[:20])
    assert not np.array_equal(shapes("test", 50).images, whole.images)
    assert not np.array_equal(shapes("train", 50, seed=1).images, whole.images)


def test_form():
    images, labels, boxes, captions = shapes("test", 300, side=24)
    assert images.shape == (300, 24, 24, 3) and images.dtype == np.uint8
    assert set(labels) == set(range(10)) and np.bincount(labels).min() > 10
    assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 24
    assert all(CLASSES[label] in caption for label, caption in zip(labels, captions, strict=True))


def test_the_box_holds_the_shape():
    """Inside the box the image departs from its plain background, outside (but for the small spot) it does not."""
    images, _, boxes, captions = shapes("train", 400)
    for image, (x0, y0, x1, y1), caption in zip(images, boxes.astype(int), captions, strict=True):
        if "plain" not in caption:
            continue
        off = np.abs(image.astype(int) - np.median(image.reshape(-1, 3), axis=0)).max(axis=2) > 40
        assert off[y0:y1, x0:x1].mean() > 0.1 or off.mean() > 0.5


def test_colour_and_place_do_not_tell_the_class():
    """A linear rule on the mean colour and the box's centre stays near chance: only the outline says the class."""
    images, labels, boxes, _ = shapes("train", 3_000)
    colour = images.reshape(3_000, -1, 3).mean(axis=1) / 255
    middle = (boxes[:, :2] + boxes[:, 2:]) / 64
    features = np.concatenate([colour, middle, np.ones((3_000, 1))], axis=1)
    weights = np.linalg.lstsq(features[:2_000], np.eye(10)[labels[:2_000]], rcond=None)[0]
    accuracy = ((features[2_000:] @ weights).argmax(1) == labels[2_000:]).mean()
    assert accuracy < 0.2


def test_pixels_are_pinned():
    """If this fails on purpose, raise shapes.VERSION: the cached conversions must not be mistaken for the new pixels."""
    assert hashlib.sha256(shapes("train", 64).images.tobytes()).hexdigest()[:12] == "541259effced"
