"""Finding and converting data sets: what is used, that it is whole, and what a user is told."""

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from benchmark.data import convert, datasets, read_split
from benchmark.data import shapes as procedural
from benchmark.data.check import damage, notes
from benchmark.data.datasets import find, prepare, prepared
from benchmark.errors import InputError
from tests.data.conftest import CLASSES, write_folder


def pack(folder, path, top="", order=1, compress=False):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(folder.rglob("*"), reverse=order < 0):
            if file.is_file():
                archive.add(file, f"{top}{file.relative_to(folder).as_posix()}")
    path.write_bytes(gzip.compress(buffer.getvalue()) if compress else buffer.getvalue())
    return path


@pytest.fixture
def few_shapes(monkeypatch):
    monkeypatch.setattr(procedural, "COUNTS", {"train": 40, "test": 20})


def test_a_folder(folder, dataset):
    assert dataset.classes == CLASSES and dataset.counts == {"train": 60, "test": 15} and dataset.size == 16
    assert (dataset.kind, dataset.note) == ("folder", "image folder, PNG files")
    images, labels = read_split(dataset, "train")
    files = sorted((folder / "train").rglob("*.png"))
    assert np.array_equal(images, np.stack([np.asarray(Image.open(file)) for file in files]))
    assert labels.tolist() == [CLASSES.index(file.parent.name) for file in files]
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(0), atol=6e-5)
    np.testing.assert_allclose(dataset.std, pixels.std(0), atol=6e-5)
    picked = np.array([50, 3])
    assert np.array_equal(read_split(dataset, "train", picked)[0], images[picked])


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"top": "./"},
        {"top": "toy/"},
        {"order": -1},
        {"order": -1, "compress": True},
    ],
    ids=str,
)
def test_a_tar_has_the_content_of_its_folder(folder, dataset, tmp_path, form):
    path = pack(folder, tmp_path / ("images.tar.gz" if form.get("compress") else "images.tar"), **form)
    source = find("toy", path, tmp_path)
    packed = prepare(source, tmp_path / "cache", 16)
    assert (source.kind, packed.kind, packed.content) == ("tar", "tar", dataset.content)
    assert not list((tmp_path / "cache").glob(".converting*"))


def test_content_follows_pixels_and_labels(folder, dataset, tmp_path):
    other = write_folder(tmp_path / "other", seed=1)
    assert prepare(find("toy", other, tmp_path), tmp_path / "cache", 16).content != dataset.content
    same = write_folder(tmp_path / "same", suffix=".bmp")
    assert prepare(find("toy", same, tmp_path), tmp_path / "cache", 16).content == dataset.content
    (same / "train" / "bee" / "000.bmp").rename(same / "train" / "cow" / "999.bmp")
    assert prepare(find("toy", same, tmp_path), tmp_path / "cache", 16).content != dataset.content


def test_other_sizes_are_fitted_to_their_centre(tmp_path):
    folder = write_folder(tmp_path / "images", train=1, test=1)
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(folder / "train" / "ant" / "000.png")
    grey = Image.fromarray(np.full((40, 10), 7, np.uint8))
    grey.save(folder / "train" / "bee" / "000.png")
    images, _ = read_split(prepare(find("toy", folder, tmp_path), tmp_path / "cache", 10), "train")
    assert images.shape == (3, 10, 10, 3)
    assert (images[0, :, 1:-1] == 200).all() and (images[1] == 7).all()


def test_prepared_knows_a_change_of_the_source(tmp_path):
    folder = write_folder(tmp_path / "images", train=2, test=1)
    source, cache = find("toy", folder, tmp_path), tmp_path / "cache"
    assert prepared(source, cache, 16) is None
    first = prepare(source, cache, 16)
    assert prepared(source, cache, 16) == first and prepared(source, cache, 8) is None
    start = time.perf_counter()
    prepared(source, cache, 16)
    assert time.perf_counter() - start < 0.1
    assert prepare(source, cache, 16, progress=lambda *_: pytest.fail("converted again")) == first
    (folder / "train" / "ant" / "000.png").unlink()
    assert prepared(source, cache, 16) is None
    assert prepare(source, cache, 16).counts["train"] == 5


def test_a_change_one_folder_deeper_is_seen(tmp_path):
    folder, cache = write_folder(tmp_path / "images", train=2, test=1), tmp_path / "cache"
    (folder / "train" / "ant" / "more").mkdir()
    source = find("toy", folder, tmp_path)
    assert prepare(source, cache, 16).counts["train"] == 6
    shutil.copy(folder / "train" / "ant" / "000.png", folder / "train" / "ant" / "more" / "1.png")
    assert prepared(source, cache, 16) is None


def test_an_image_overwritten_in_place_is_seen_closely(tmp_path):
    folder, cache = write_folder(tmp_path / "images", train=2, test=1), tmp_path / "cache"
    (tmp_path / "list.txt").write_text("ant\nbee\n")
    source, some = find("toy", folder, tmp_path), find("toy", folder, tmp_path, tmp_path / "list.txt")
    first, chosen = (prepare(one, cache, 16) for one in (source, some))
    assert prepared(source, cache, 16, closely=True) == first and prepared(some, cache, 16, closely=True) == chosen
    (folder / "train" / "cow" / "000.png").write_bytes((folder / "train" / "cow" / "001.png").read_bytes())
    assert prepared(source, cache, 16) == first  # the cheap look
    assert prepared(source, cache, 16, closely=True) is None and prepared(some, cache, 16, closely=True) == chosen
    assert not list(notes(chosen.train.parent))
    assert "have changed since they were converted" in next(notes(first.train.parent))
    again = prepare(source, cache, 16, closely=True)
    assert again.train == first.train and again.content != first.content
    assert not list(notes(again.train.parent)) and not list(damage(again.train.parent))
    assert prepared(source, cache, 16, closely=True) == again and not list(cache.glob(".converting-*"))


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_images_without_contrast_are_refused(tmp_path, storage):
    folder = write_folder(tmp_path / "images", train=2, test=1)
    for path in (folder / "train").rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = 40
        Image.fromarray(pixels if storage == "raw" else np.full_like(pixels, 7)).save(path)
    flat = "blue is" if storage == "raw" else "red and green and blue is"
    with pytest.raises(InputError, match=rf"^toy: {flat} the same in all pixels of the training images \(std 0\)"):
        prepare(find("toy", folder, tmp_path), tmp_path / "cache", 16 if storage == "raw" else None, storage=storage)
    assert not list((tmp_path / "cache").glob("*toy-*/*"))


@pytest.mark.parametrize("name", ["..", "a/b", "", "a.b", "a b", "a=b", "é"])
def test_names_that_are_none(tmp_path, folder, name):
    with pytest.raises(InputError, match=r"is no name for a data set; use letters \(a to z\), digits, - and _"):
        find(name, folder, tmp_path)


def test_progress_is_told(tmp_path):
    told = []
    folder = write_folder(tmp_path / "images", train=2, test=1)
    prepare(find("toy", folder, tmp_path), tmp_path / "cache", 16, progress=lambda *state: told.append(state))
    assert told[-1] == ("converting toy", 9, 9)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    folder = write_folder(tmp_path / "images", train=3, test=1, suffix=suffix)
    broken = folder / "train" / "bee" / f"001{suffix}"
    broken.write_bytes(broken.read_bytes()[:-200])
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=rf"train/bee/001{suffix} cannot be decoded .*[Tt]runcated"):
        prepare(find("toy", folder, cache), cache, 16)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    packed = pack(folder, tmp_path / "images.tar")
    with pytest.raises(InputError, match=rf"images.tar:train/bee/001{suffix} cannot be decoded"):
        prepare(find("toy", packed, cache), cache, 16)


def test_what_is_no_image_is_named(tmp_path):
    folder = write_folder(tmp_path / "images", train=2, test=1)
    (folder / "test" / "cow" / "000.png").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"cow/000.png cannot be decoded \(not an image\); replace"):
        prepare(find("toy", folder, tmp_path), tmp_path / "cache", 16)


def test_a_killed_conversion_leaves_nothing_that_counts(tmp_path):
    """Killed while it decodes: the cache is not taken for prepared, and the next attempt succeeds."""
    folder = write_folder(tmp_path / "images", train=2, test=1)
    cache = tmp_path / "cache"
    script = f"""
import os, signal
from pathlib import Path
from benchmark.data.datasets import find, prepare
source = find("toy", Path({str(folder)!r}), Path({str(cache)!r}))
prepare(source, Path({str(cache)!r}), 16, lambda what, done, total: os.kill(os.getpid(), signal.SIGKILL))
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    source = find("toy", folder, cache)
    assert prepared(source, cache, 16) is None
    assert prepare(source, cache, 16).counts["train"] == 6


def test_two_at_once_convert_once(tmp_path):
    folder = write_folder(tmp_path / "images", train=5, test=1)
    cache, counted = tmp_path / "cache", []
    source = find("toy", folder, cache)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(prepare, source, cache, 16, lambda *state: counted.append(state)) for _ in range(4)]
    assert all(future.result() == futures[0].result() for future in futures)
    assert [state[1] for state in counted] == [15, 18]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "missing", "does not exist"),
        (lambda root: root, "it is empty"),
        (lambda root: (root / "cats").mkdir() or root, "does not hold train/<class>.*: it holds cats"),
        (lambda root: _touch(root / "images.zip"), "neither a folder nor a .tar.*; unpack it first and give the folder$"),
        (lambda root: _touch(root / "images.txt"), "neither a folder nor a .tar.* of images$"),
        (lambda root: _touch(root / "images.tar"), "cannot be read as a tar archive"),
        (lambda root: _touch(root / "images.tar.gz"), "cannot be read as a tar archive"),
        (lambda root: _empty_classes(root), "holds no image files"),
    ],
)
def test_nonsense_is_refused_with_a_remedy(tmp_path, make, said):
    root = tmp_path / "given"
    root.mkdir()
    with pytest.raises(InputError, match=said):
        find("cifar10", make(root), tmp_path)


def _touch(path):
    path.write_bytes(b"nothing of use" * 100)
    return path


def _empty_classes(root):
    (root / "train" / "cat").mkdir(parents=True)
    (root / "test" / "cat").mkdir(parents=True)
    return root


def test_faults_of_the_layout_are_named(tmp_path):
    folder = write_folder(tmp_path / "images", train=1, test=1)
    source = find("toy", folder, tmp_path)
    (folder / "train" / "dog").mkdir()
    with pytest.raises(InputError, match="train/dog holds no image files"):
        prepare(source, tmp_path / "cache", 16)
    (folder / "train" / "dog").rename(folder / "test" / "dog")
    (folder / "train" / "ant" / "000.png").rename(folder / "test" / "dog" / "0.png")
    (folder / "train" / "ant").rmdir()
    with pytest.raises(InputError, match="is of a class that train/ does not have"):
        prepare(source, tmp_path / "cache", 16)


def test_a_cut_archive_is_named(folder, tmp_path):
    path = pack(folder, tmp_path / "images.tar.gz", compress=True)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"images.tar.gz cannot be read"):
        prepare(find("toy", path, tmp_path), tmp_path / "cache", 16)


def test_unknown_names(tmp_path, folder):
    with pytest.raises(InputError, match="did you mean 'cifar10'"):
        find("cifar1o", None, tmp_path)
    with pytest.raises(InputError, match="'imagenet' cannot be downloaded; give its images with --data"):
        find("imagenet", None, tmp_path)
    with pytest.raises(InputError, match=r"no usual size; set data.resolution"):
        prepared(find("toy", folder, tmp_path), tmp_path, storage="raw")


def test_a_full_disk_is_one_sentence(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(convert.BetonWriter, "write", full)
    with pytest.raises(InputError, match=r"the disk of the data cache .* is full"):
        prepare(find("toy", folder, tmp_path), tmp_path / "cache", 16)
    monkeypatch.undo()
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="GiB are needed"):
        prepare(find("toy", folder, tmp_path), tmp_path / "cache", 16)


def test_a_damaged_manifest_is_named(folder, tmp_path):
    source = find("toy", folder, tmp_path)
    done = prepare(source, tmp_path / "cache", 16)
    for text in ("{", json.dumps({"name": "toy"})):
        (done.train.parent / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest.json is damaged"):
            prepared(source, tmp_path / "cache", 16)


def test_shapes(tmp_path, few_shapes):
    source = find("shapes", None, tmp_path)
    made = prepare(source, tmp_path)
    assert (made.name, made.kind, made.counts, made.size) == ("shapes", "procedural", {"train": 40, "test": 20}, 32)
    assert np.array_equal(read_split(made, "test")[0], procedural.shapes("test", 20).images)
    assert source.notice is None and prepared(source, tmp_path) == made


def test_no_network_ends_in_the_stand_in(tmp_path, few_shapes, monkeypatch):
    import torchvision.datasets

    attempts = []

    def unreachable(*_, **__):
        attempts.append(1)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    source = find("cifar10", None, tmp_path)
    assert source.kind == "torchvision" and prepared(source, tmp_path) is None
    made = prepare(source, tmp_path)
    assert made.name == "shapes" and "Network is unreachable" in made.note and "stands in" in made.note
    # Every later process comes to the same answer, without waiting for the network again.
    later = find("cifar10", None, tmp_path)
    assert later.name == "shapes" and "cifar10 could not be downloaded" in later.notice
    assert prepared(later, tmp_path) == made and len(attempts) == 1
    # After a while the download is tried again.
    monkeypatch.setattr(datasets, "_RETRY_DOWNLOAD_AFTER", -1)
    assert find("cifar10", None, tmp_path).kind == "torchvision"


def test_other_downloads_have_no_stand_in(tmp_path, monkeypatch):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=r"cifar100 cannot be downloaded .* give it with --data"):
        prepare(find("cifar100", None, tmp_path), tmp_path)


def test_original_files_through_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets

    class Stored:
        classes = CLASSES

        def __init__(self, root, train, download):
            assert root == tmp_path and not download
            generator = np.random.default_rng(train)
            self.data = generator.integers(0, 256, (30 if train else 10, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 3 for i in range(len(self.data))]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stored)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for given in (tmp_path, tmp_path / "cifar-10-batches-py"):
        source = find("cifar10", given, tmp_path)
        assert (source.kind, source.path, source.notice) == ("torchvision", tmp_path, None)
    made = prepare(source, tmp_path / "cache")
    assert made.note == "original files" and made.classes == CLASSES
    assert np.array_equal(read_split(made, "train")[0], Stored(tmp_path, True, False).data)


def test_damaged_original_files_are_named(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match="cifar-10-batches-py is damaged or incomplete"):
        prepare(find("cifar10", tmp_path, tmp_path), tmp_path / "cache")


def test_planning_needs_neither_torch_nor_numba():
    script = "import sys, benchmark.data.datasets; print({'torch', 'numba', 'PIL', 'torchvision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_re_encoded_pixels_are_told(tmp_path, folder):
    jpeg = write_folder(tmp_path / "jpeg", train=1, test=1, suffix=".jpg")
    assert "re-encoded pixels" in find("cifar10", jpeg, tmp_path).notice
    assert find("cifar10", folder, tmp_path).notice is None


@pytest.mark.slow
def test_real_cifar10(real_cifar10):
    assert real_cifar10.counts == {"train": 50_000, "test": 10_000} and len(real_cifar10.classes) == 10
    np.testing.assert_allclose(real_cifar10.mean, (0.4914, 0.4822, 0.4465), atol=0.002)
    np.testing.assert_allclose(real_cifar10.std, (0.247, 0.2435, 0.2616), atol=0.004)


def test_sweeps_and_conversions_take_the_same_names():
    from benchmark.data.manifest import NAMES
    from benchmark.plan.schema import DATA_NAMES

    assert NAMES.pattern == DATA_NAMES
