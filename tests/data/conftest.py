"""Small sets of generated images in class folders, and their conversions: PNG squares stored raw, JPEG photographs."""

import io
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


def photograph(seed, height, width, grey=False):
    """Something with the statistics of a photograph: smooth areas, edges, a little noise; u1 (H, W, 3), or (H, W) for grey."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.empty((height, width, 3), np.float64)
    for channel in range(3):
        low = generator.uniform(0, 255, (4, 4)).astype(np.uint8)
        pixels[..., channel] = np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))
    for _ in range(3):
        inside = (y - generator.uniform(0, height)) ** 2 + (x - generator.uniform(0, width)) ** 2
        pixels[inside < generator.uniform(5, 25) ** 2] = generator.uniform(0, 255, 3)
    pixels += generator.normal(0, 4, pixels.shape)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return pixels[..., 1] if grey else pixels


def jpeg(pixels, **options):
    """The bytes of a JPEG file of u1 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def write_photographs(root, train=10, test=4, sides=(40, 90), seed=0):
    """JPEG files <split>/<class>/<number>.jpg of varied sizes: most in colour, every seventh grey, every fifth progressive."""
    generator = np.random.default_rng(seed)
    number = 0
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = generator.integers(sides[0], sides[1] + 1, 2)
                pixels = photograph([seed, number], height, width, grey=number % 7 == 3)
                (folder / f"{i:03d}.jpg").write_bytes(jpeg(pixels, progressive=number % 5 == 1))
                number += 1
    return root


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 42 JPEG files of 40 to 90 pixels a side, 3 classes; 30 are for training."""
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def jpeg_dataset(photographs, tmp_path_factory):
    """The photographs converted with the storage "jpeg": every file as it is."""
    cache = tmp_path_factory.mktemp("cache")
    return prepare(find("photos", photographs, cache), cache, storage="jpeg")


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
