"""A small set of generated images, as PNG files in class folders, and its conversion."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.data.datasets import find, prepare

CLASSES = ("ant", "bee", "cow")


def write_folder(root: Path, side=16, train=20, test=5, suffix=".png", seed=0):
    generator = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03d}{suffix}")
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def dataset(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return prepare(find("toy", folder, cache), cache, 16)


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory):
    """Real CIFAR-10 converted, where RETABLE_DATA names it."""
    path = os.environ.get("RETABLE_DATA")
    if not path:
        pytest.skip("RETABLE_DATA is not set: no real images here")
    cache = tmp_path_factory.mktemp("cifar10")
    return prepare(find("cifar10", Path(path.partition("=")[2] or path), cache), cache)
