"""The labelled part: a share drawn from a seed, or a list of names; wrong lists are refused."""

import numpy as np
import pytest

from benchmark.data.beton import BetonWriter, names_file, open_beton
from benchmark.data.datasets import find, prepare
from benchmark.data.subset import labelled_subset, subset_names
from benchmark.errors import InputError
from tests.data.conftest import write_folder


@pytest.fixture
def labelled(tmp_path, dataset):
    """A data set with these labels, one pixel an image, and names like ImageNet's."""
    from dataclasses import replace

    def make(labels, names=True):
        labels = np.asarray(labels)
        path = tmp_path / "train.beton"
        with BetonWriter(path, len(labels), 1) as writer:
            writer.write(np.zeros((len(labels), 1, 1, 3), np.uint8), labels)
        if names:
            names_file(path).write_text("".join(f"n{label:08d}/n{label:08d}_{i}.JPEG\n" for i, label in enumerate(labels)))
        return replace(dataset, train=path)

    return make


@pytest.mark.parametrize(
    ("spec", "count"), [("1%", 30), ("10%", 300), (0.01, 30), ("0.1", 300), (" 2.5 %", 75), ("100%", 3000)]
)
def test_a_share_takes_the_same_number_of_every_class(labelled, spec, count):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 250))
    chosen = labelled_subset(labelled(labels), spec)
    assert chosen.dtype == np.int64 and len(chosen) == count and (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen], minlength=12)
    assert counts.max() - counts.min() <= 1


def test_every_class_gives_at_least_one(labelled):
    labels = np.repeat(np.arange(50), 4)
    assert sorted(labels[labelled_subset(labelled(labels), "1%")]) == list(range(50))


def test_classes_of_unequal_size(labelled):
    """As SimCLR's lists of ImageNet: equal numbers even where a class has fewer images, as long as it has them."""
    sizes = [3, 70, 100, 130, 200]
    labels = np.repeat(np.arange(5), sizes)
    counts = np.bincount(labels[labelled_subset(labelled(labels), "10%")])
    assert counts[0] == 3 and counts.sum() == 50 and counts[1:].max() - counts[1:].min() <= 1


def test_images_without_a_label_are_never_taken(labelled):
    labels = np.array([0, -1, 1] * 100)
    chosen = labelled_subset(labelled(labels), "10%")
    assert len(chosen) == 20 and (labels[chosen] >= 0).all()


def test_a_share_of_some_of_the_images(labelled, tmp_path):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    dataset, some = labelled(labels), np.arange(0, 1000, 2)
    chosen = labelled_subset(dataset, "10%", among=some)
    assert len(chosen) == 50 and set(chosen) <= set(some) and np.bincount(labels[chosen]).tolist() == [5] * 10
    assert np.array_equal(labelled_subset(dataset, "10%", among=np.arange(1000)), labelled_subset(dataset, "10%"))
    path = tmp_path / "list.txt"
    path.write_text("".join(name + "\n" for name in subset_names(dataset, np.array([1, 4, 8]))))
    assert labelled_subset(dataset, path, among=some).tolist() == [4, 8]
    with pytest.raises(InputError, match=r"list\.txt: none of its 3 images is among the 2 training images that count here"):
        labelled_subset(dataset, path, among=np.array([0, 2]))


def test_the_choice_depends_on_seed_and_index_alone(labelled):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    dataset = labelled(labels)
    one, same, other = (labelled_subset(dataset, "5%", seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert set(one) <= set(labelled_subset(dataset, "10%", 0))  # a larger share only adds to a smaller one
    # What other classes hold changes nothing within a class.
    elsewhere = np.where(labels == 3, 3, 0)
    first = set(one[labels[one] == 3])
    again = labelled_subset(labelled(elsewhere), "10%")
    assert first <= set(again[elsewhere[again] == 3])


def test_choices_are_spread_over_the_images(labelled):
    labels = np.zeros(4000, int)
    taken = np.bincount(np.concatenate([labelled_subset(labelled(labels), "1%", seed) for seed in range(50)]), minlength=4000)
    halves = taken.reshape(8, 500).sum(1)
    assert taken.max() <= 6 and abs(halves - 250).max() < 80


@pytest.mark.parametrize("spec", ["0%", "101%", "-1%", 0.0, 1.5, "10"])
def test_what_is_no_share_is_refused(labelled, spec):
    with pytest.raises(InputError, match="is not a share of the training images"):
        labelled_subset(labelled([0, 1]), spec)


def test_texts_that_mean_nothing(labelled):
    with pytest.raises(InputError, match="may mean 1 % or all images; write 1% or 100%"):
        labelled_subset(labelled([0, 1]), "1")
    with pytest.raises(InputError, match=r"some_list.txt is neither a share such as 1% or 0.1 nor a file"):
        labelled_subset(labelled([0, 1]), "some_list.txt")


def test_a_list_of_names(jpeg_dataset, labelled, tmp_path):
    dataset = labelled([1440764, 1440764, 2088364, 2088364])
    path = tmp_path / "1percent.txt"
    path.write_text("n02088364_3.JPEG\nn01440764_0.JPEG\n\n")
    assert labelled_subset(dataset, path).tolist() == [0, 3]
    assert labelled_subset(dataset, str(path)).tolist() == [0, 3]
    path.write_text("# with folders\nn02088364/n02088364_2.JPEG\n")
    assert labelled_subset(dataset, path).tolist() == [2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n01440764_0.JPEG\nn01440764_9.JPEG\n", r"list.txt:2: no image 'n01440764_9.JPEG' in .*; did you mean 'n01440764_\d"),
        ("n01440764_1.jpg\n", r"list.txt:1: no image 'n01440764_1.jpg' in .*; did you mean 'n01440764_1.JPEG'\?"),
        ("zebra\n", r"list.txt:1: no image 'zebra' in [^;]*$"),
        ("n01440764_0.JPEG\nn01440764/n01440764_0.JPEG\n", r"list.txt:2: .* is already on line 1; list every image once"),
        ("# nothing\n", r"list.txt names no image"),
    ],
)  # fmt: skip
def test_faults_of_a_list_are_named(labelled, tmp_path, text, said):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        labelled_subset(labelled([1440764, 1440764, 2088364]), tmp_path / "list.txt")


def test_a_name_in_several_classes_needs_its_folder(dataset, tmp_path):
    (tmp_path / "list.txt").write_text("003.png\n")
    with pytest.raises(InputError, match=r"list.txt:1: '003.png' is the name of ant/003.png and bee/003.png; give the path"):
        labelled_subset(dataset, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("bee/003.png\n")
    (chosen,) = labelled_subset(dataset, tmp_path / "list.txt")
    assert open_beton(dataset.train).name(chosen) == "bee/003.png"


def test_images_without_names_cannot_be_listed(labelled, tmp_path):
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(InputError, match=r"train.names is missing: images without names cannot be chosen by name"):
        labelled_subset(labelled([0, 1], names=False), tmp_path / "list.txt")
    with pytest.raises(InputError, match="have no file names; use the share itself"):
        subset_names(labelled([0, 1], names=False), np.array([0]))


@pytest.mark.parametrize("alike", [False, True])
def test_a_written_list_gives_the_share_back(tmp_path, alike):
    folder = write_folder(tmp_path / "images", train=20, test=1, suffix=".jpg")
    if not alike:  # names of their own, as ImageNet's
        for path in folder.rglob("*.jpg"):
            path.rename(path.with_name(f"{path.parent.name}_{path.name}"))
    dataset = prepare(find("toy", folder, tmp_path), tmp_path / "cache")
    chosen = labelled_subset(dataset, "10%", seed=3)
    names = subset_names(dataset, chosen)
    assert all(("/" in name) == alike for name in names)
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert np.array_equal(labelled_subset(dataset, tmp_path / "list.txt"), chosen)
