"""The layouts people have on their disks, and parts of them chosen by a class list; the same from a folder and from a tar."""

import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmark.data import read_split
from benchmark.data.beton import open_beton
from benchmark.data.classlist import read_class_list
from benchmark.data.datasets import find, prepare, prepared
from benchmark.errors import InputError
from tests.data.conftest import jpeg, photograph, write_folder, write_photographs


def pack(folder, path, top=""):
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.add(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path


def names_and_classes(dataset, split="test"):
    file = open_beton(dataset.train if split == "train" else dataset.test)
    return {name: dataset.classes[label] for name, label in zip(file.names(), file.labels, strict=True)}


WNIDS = ("n01443537", "n01629819", "n02094433")


def write_tiny_imagenet(root, train=3, val=9):
    """Its own layout: class folders with images/ and boxes, a flat val/ with annotations, an unlabelled test/."""
    for wnid in WNIDS:
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for i in range(train):
            (folder / f"{wnid}_{i}.JPEG").write_bytes(jpeg(photograph(i, 64, 64)))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for split, count in (("val", val), ("test", 4)):
        (root / split / "images").mkdir(parents=True)
        for i in range(count):
            (root / split / "images" / f"{split}_{i}.JPEG").write_bytes(jpeg(photograph(100 + i, 64, 64)))
            lines.append(f"{split}_{i}.JPEG\t{WNIDS[(2 * i) % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines[:val]))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    return root


def test_tiny_imagenets_own_layout(tmp_path):
    root = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    dataset = prepare(find("tinyimagenet", root, tmp_path), tmp_path / "cache")
    assert dataset.classes == WNIDS and dataset.counts == {"train": 9, "test": 9}
    assert (dataset.storage, dataset.size) == ("raw", 64)
    assert names_and_classes(dataset, "train")["n01629819/images/n01629819_2.JPEG"] == "n01629819"
    classes = names_and_classes(dataset)
    assert classes == {f"{WNIDS[(2 * i) % 3]}/val_{i}.JPEG": WNIDS[(2 * i) % 3] for i in range(9)}
    images, _ = read_split(dataset, "test")
    at = list(classes).index("n02094433/val_1.JPEG")
    assert np.array_equal(images[at], np.asarray(Image.open(root / "val" / "images" / "val_1.JPEG")))


@pytest.mark.parametrize("top", ["", "tiny-imagenet-200/"])
def test_tiny_imagenet_in_a_tar(tmp_path, top):
    root = write_tiny_imagenet(tmp_path / "images")
    folder = prepare(find("tinyimagenet", root, tmp_path), tmp_path / "cache")
    packed = prepare(find("tinyimagenet", pack(root, tmp_path / "tiny.tar", top), tmp_path), tmp_path / "cache")
    assert packed.content == folder.content and packed.kind == "tar"
    assert names_and_classes(packed) == names_and_classes(folder)


def test_a_change_in_tiny_imagenets_layout_is_seen(tmp_path):
    root = write_tiny_imagenet(tmp_path / "images")
    source, cache = find("tinyimagenet", root, tmp_path), tmp_path / "cache"
    prepare(source, cache)
    (root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG").unlink()
    assert prepared(source, cache) is None
    assert prepare(source, cache).counts["train"] == 8
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text())
    os.utime(annotations, ns=(1, 1))
    assert prepared(source, cache) is None


def test_an_image_without_annotation_is_named(tmp_path):
    root = write_tiny_imagenet(tmp_path / "images")
    (root / "val" / "images" / "val_99.JPEG").write_bytes(jpeg(photograph(0, 64, 64)))
    with pytest.raises(InputError, match=r"val/val_annotations.txt has no class for val_99.JPEG"):
        prepare(find("tinyimagenet", root, tmp_path), tmp_path / "cache")


def write_imagenet(root, wnids=WNIDS):
    """train/<wnid>, val/<wnid>, and beside them an unlabelled flat test/."""
    for number, wnid in enumerate(wnids):
        for split, count in (("train", 4), ("val", 2)):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                name = f"{wnid}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{10 * number + i:08d}.JPEG"
                (folder / name).write_bytes(jpeg(photograph(10 * number + i, 50 + i, 70)))
    (root / "test").mkdir()
    (root / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(jpeg(photograph(99, 50, 70)))
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_imagenet(tmp_path, packed):
    root = write_imagenet(tmp_path / "images")
    given = pack(root, tmp_path / "imagenet.tar") if packed else root
    dataset = prepare(find("imagenet", given, tmp_path), tmp_path / "cache")
    assert dataset.classes == WNIDS and dataset.counts == {"train": 12, "test": 6} and dataset.storage == "jpeg"
    assert names_and_classes(dataset)["n01629819/ILSVRC2012_val_00000011.JPEG"] == "n01629819"


def test_an_empty_test_folder_beside_val_is_passed_over(tmp_path):
    root = write_imagenet(tmp_path / "images")
    (root / "test" / "ILSVRC2012_test_00000001.JPEG").unlink()
    assert prepare(find("imagenet", root, tmp_path), tmp_path / "cache").counts["test"] == 6


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", ["n02094433\nn01443537\n", "# two dogs\n\nn01443537 goldfish\nn02094433 terrier, a dog\n"])
def test_a_class_list_filters_both_splits(tmp_path, packed, text):
    root = write_imagenet(tmp_path / "images")
    given = pack(root, tmp_path / "imagenet.tar") if packed else root
    (tmp_path / "classes.txt").write_text(text)
    source = find("imagenet100", given, tmp_path, tmp_path / "classes.txt")
    dataset = prepare(source, tmp_path / "cache")
    assert dataset.classes == ("n01443537", "n02094433") and dataset.counts == {"train": 8, "test": 4}
    assert set(names_and_classes(dataset).values()) == {"n01443537", "n02094433"}
    assert set(open_beton(dataset.train).labels) == {0, 1}
    assert prepared(source, tmp_path / "cache") == dataset
    whole = find("imagenet100", given, tmp_path)
    assert prepared(whole, tmp_path / "cache") is None


def test_a_class_list_gives_what_a_folder_of_these_classes_gives(tmp_path):
    root = write_imagenet(tmp_path / "images")
    (tmp_path / "classes.txt").write_text("n02094433\nn01443537\n")
    chosen = prepare(find("toy", root, tmp_path, tmp_path / "classes.txt"), tmp_path / "cache")
    (root / "train" / "n01629819").rename(tmp_path / "away")
    (root / "val" / "n01629819").rename(tmp_path / "away too")
    assert prepare(find("toy", root, tmp_path), tmp_path / "cache").content == chosen.content


def test_a_class_list_of_tiny_imagenet(tmp_path):
    root = write_tiny_imagenet(tmp_path / "images")
    (tmp_path / "classes.txt").write_text("n01629819\n")
    dataset = prepare(find("tinyimagenet", root, tmp_path, tmp_path / "classes.txt"), tmp_path / "cache")
    assert dataset.classes == ("n01629819",) and dataset.counts == {"train": 3, "test": 3}


def test_class_names_may_hold_spaces(tmp_path):
    root = write_photographs(tmp_path / "images", train=2, test=1)
    for split in ("train", "test"):
        (root / split / "bee").rename(root / split / "bumble bee")
    (tmp_path / "classes.txt").write_text("bumble bee\nant the small one\n")
    dataset = prepare(find("toy", root, tmp_path, tmp_path / "classes.txt"), tmp_path / "cache")
    assert dataset.classes == ("ant", "bumble bee")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n01443537\nn0209443\n", r"classes.txt:2: no class folder 'n0209443' among the 3 .*; did you mean 'n02094433'\?"),
        ("n01443537\nn01443537 again\n", r"classes.txt:2: class 'n01443537' is already on line 1"),
        ("# nothing\n\n", r"classes.txt names no class; give one class folder name a line"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_faults_of_a_class_list_are_named(tmp_path, text, said, packed):
    root = write_imagenet(tmp_path / "images")
    given = pack(root, tmp_path / "imagenet.tar") if packed else root
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        prepare(find("imagenet", given, tmp_path, tmp_path / "classes.txt"), tmp_path / "cache")


def test_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none.txt cannot be read as a list"):
        read_class_list(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"binary.txt cannot be read as a list"):
        read_class_list(tmp_path / "binary.txt")


def test_a_class_list_needs_classes_to_choose_from(tmp_path, jpeg_dataset):
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(InputError, match="needs --data with an image folder or archive"):
        find("cifar10", None, tmp_path, tmp_path / "classes.txt")
    with pytest.raises(InputError, match="is converted already"):
        find("photos", jpeg_dataset.train.parent, tmp_path, tmp_path / "classes.txt")


def test_all_of_imagenet_is_not_taken_for_imagenet100(tmp_path):
    root = write_folder(tmp_path / "images", side=4, train=1, test=1)
    for i in range(100):
        (root / "train" / f"more{i}").mkdir()
        Image.new("RGB", (4, 4)).save(root / "train" / f"more{i}" / "0.png")
    with pytest.raises(InputError, match=r"has 103 classes, imagenet100 has 100; list them in a file .* --classes FILE"):
        prepare(find("imagenet100", root, tmp_path), tmp_path / "cache")


def test_class_folders_may_be_links(tmp_path):
    """How ImageNet-100 is often made from ImageNet."""
    root = write_imagenet(tmp_path / "images")
    for split in ("train", "val"):
        (tmp_path / "linked" / split).mkdir(parents=True)
        for wnid in WNIDS[:2]:
            (tmp_path / "linked" / split / wnid).symlink_to(root / split / wnid)
    dataset = prepare(find("toy", tmp_path / "linked", tmp_path), tmp_path / "cache")
    assert dataset.classes == WNIDS[:2] and dataset.counts == {"train": 8, "test": 4}


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_stl10s_unlabelled_images_are_for_training(tmp_path, monkeypatch, storage):
    import torchvision.datasets

    class Stored:
        classes = ("airplane", "bird")

        def __init__(self, root, split, download):
            assert root == tmp_path and not download
            count = {"train+unlabeled": 12, "test": 5}[split]
            self.data = np.stack([photograph(i, 96, 96).transpose(2, 0, 1) for i in range(count)])
            self.labels = np.array([0, 1] * 2 + [-1] * 8 if count == 12 else [0, 1, 0, 1, 0])

    monkeypatch.setattr(torchvision.datasets, "STL10", Stored)
    (tmp_path / "stl10_binary").mkdir()
    dataset = prepare(find("stl10", tmp_path, tmp_path), tmp_path / "cache", storage=storage)
    assert dataset.counts == {"train": 12, "test": 5} and dataset.classes == ("airplane", "bird")
    file = open_beton(dataset.train)
    assert file.labels.tolist() == [0, 1, 0, 1] + [-1] * 8 and file.name(3) == ""
    difference = [np.abs(file.decode(i).astype(int) - photograph(i, 96, 96)).mean() for i in range(12)]
    assert max(difference) == 0 if storage == "raw" else max(difference) < 4
