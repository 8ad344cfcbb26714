"""The labelled part of a training set that semi-supervised protocols use: 1 % and 10 % of ImageNet in SimCLR and after it.

Either the published lists of image names, supplied as a file, or a split of the same law drawn from a seed: the same number
of images of every class, up to rounding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark.data import keys
from benchmark.data.beton import Beton, names_file, open_beton
from benchmark.data.classlist import read_lines
from benchmark.data.manifest import Dataset
from benchmark.errors import InputError, nearest

_LOOKED_AT = 20_000  # names compared for "did you mean": comparing a million takes minutes


def labelled_subset(
    dataset: Dataset, spec: str | float | Path, seed: int = 0, among: NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """Ascending indices i8 (n,) of training images: a share ("1%", "10%", 0.01), or a file with image names, one a line.

    A share is the same number of images of every class, up to rounding and at least one, drawn from `seed`; images without a
    label are never taken. A name is that of the source file (n01440764_10074.JPEG), or its path below the training folder
    where several classes have a file of that name. among: indices of the training images that count; a share is one of
    these, and of a file those that are not among them are left out. InputError where a share is none, a name unknown or
    repeated, or no image of the file counts.
    """
    file = open_beton(dataset.train)
    share = _share(spec)
    if share is not None:
        labels = file.labels
        if among is not None:
            labels = np.full_like(file.labels, -1)
            labels[among] = file.labels[among]
        return _drawn(labels, share, seed)
    chosen = _listed(file, Path(spec))  # type: ignore[arg-type]
    if among is None:
        return chosen
    kept = chosen[np.isin(chosen, among)]
    if not len(kept):
        raise InputError(f"{spec}: none of its {len(chosen)} images is among the {len(among)} training images that count here")
    return kept


def subset_names(dataset: Dataset, indices: NDArray[np.int64]) -> list[str]:
    """Names (n,) of training images as such a file has them: base names if no two images share one, else paths."""
    names = open_beton(dataset.train).names()
    if not names:
        raise InputError(f"{dataset.train.parent}: the images of {dataset.name} have no file names; use the share itself")
    if len({_base(name) for name in names}) == len(names):
        names = [_base(name) for name in names]
    return [names[index] for index in indices.tolist()]


def _share(spec: str | float | Path) -> float | None:
    """The share that a text or a number means, None where it is a file."""
    if isinstance(spec, Path):
        return None
    text = str(spec).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        if Path(text).exists():
            return None
        raise InputError(f"{text} is neither a share such as 1% or 0.1 nor a file with image names") from None
    if text == "1":
        raise InputError("a share of 1 may mean 1 % or all images; write 1% or 100%")
    if not 0 < share <= 1:
        raise InputError(f"{text} is not a share of the training images; give one above 0 and up to 1, or up to 100%")
    return share


def _drawn(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Every image has a number of its own from (seed, index); each class gives those with its smallest numbers."""
    labelled = np.flatnonzero(labels >= 0)
    classes = len(np.unique(labels[labelled]))
    count = max(classes, round(share * len(labelled)))
    numbers = keys.bits(keys.counters(keys.stream(keys.SUBSET, seed), labelled), 0)
    by_class = np.lexsort((numbers, labels[labelled]))
    sorted_labels = labels[labelled][by_class]
    rank = np.arange(len(by_class)) - np.searchsorted(sorted_labels, sorted_labels)
    # All images of rank 0 before all of rank 1, and so on; within the last rank the smallest numbers, not the first classes.
    order = by_class[np.lexsort((numbers[by_class], rank))]
    return np.sort(labelled[order[:count]])


def _listed(file: Beton, path: Path) -> NDArray[np.int64]:
    names = file.names()
    if not names:
        raise InputError(f"{names_file(file.path)} is missing: images without names cannot be chosen by name; give a share")
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path} names no image; give one image name a line")
    whole = {name: index for index, name in enumerate(names)}
    by_base: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        by_base.setdefault(_base(name), []).append(index)
    chosen: dict[int, int] = {}
    for number, text in lines:
        found = [whole[text]] if text in whole else by_base.get(_base(text), [])
        where = f"{path}:{number}"
        if not found:
            raise InputError(f"{where}: no image '{text}' in {file.path.parent}{_nearest(text, names)}")
        if len(found) > 1:
            also = " and ".join(names[index] for index in found[:2])
            raise InputError(f"{where}: '{text}' is the name of {also}; give the path below the training folder")
        if found[0] in chosen:
            raise InputError(f"{where}: '{text}' is already on line {chosen[found[0]]}; list every image once")
        chosen[found[0]] = number
    return np.array(sorted(chosen), np.int64)


def _nearest(text: str, names: list[str]) -> str:
    """The nearest base name, sought among those that begin alike: the class of an ImageNet image is its first part."""
    word, bases = _base(text), [_base(name) for name in names]
    begins = (word[:length] for length in range(len(word), -1, -1))
    alike = next(filter(None, ([base for base in bases if base.startswith(begin)] for begin in begins)))
    return nearest(word, alike[:_LOOKED_AT])


def _base(name: str) -> str:
    return name.rpartition("/")[2]
