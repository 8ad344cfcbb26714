"""The layout of Pascal VOC (Everingham et al., 2010; the development kits of 2007 and 2012): one XML file a photo.

VOC counts pixels from 1 and its boxes include their last pixel: xmin ymin xmax ymax become xmin - 1, ymin - 1, xmax, ymax, as
detectron2 reads them. Objects of a split are those of ImageSets/Main/<split>.txt. The outlines of its segmentation task are
not read: the papers transfer to its boxes.
"""

from __future__ import annotations

from typing import Literal
from xml.etree import ElementTree

import numpy as np

from benchmark.data.boxes.boxset import BoxSet, Photo
from benchmark.data.boxes.tree import Tree, reader
from benchmark.errors import InputError, nearest

MARKS = ("VOCdevkit", "VOC2007", "VOC2012")
LAYOUT_07 = "VOCdevkit/VOC2007/{JPEGImages,Annotations,ImageSets/Main} (trainval and test)"
LAYOUT_0712 = f"{LAYOUT_07} and the same of VOCdevkit/VOC2012 (trainval)"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_PARTS: dict[str, dict[Literal["train", "test"], tuple[tuple[str, str], ...]]] = {
    "voc07": {"train": (("VOC2007", "trainval"),), "test": (("VOC2007", "test"),)},
    "voc0712": {"train": (("VOC2007", "trainval"), ("VOC2012", "trainval")), "test": (("VOC2007", "test"),)},
}


def annotation_files(tree: Tree, name: str) -> list[str]:
    """The places of the split files and of the photos' annotations, in order; InputError where the layout is another."""
    files = []
    for split, parts in _PARTS[name].items():
        for year, part in parts:
            listed = _list_file(tree, name, year, part)
            files += [listed, *(_annotation(tree, year, key) for key in _keys(tree, listed, split))]
    return files


def open_voc(tree: Tree, name: str, content: str) -> BoxSet:
    """Both splits. InputError names the annotation that is missing or wrong, or the photos that are missing."""
    splits = {}
    for split, parts in _PARTS[name].items():
        places = [(year, key) for year, part in parts for key in _keys(tree, _list_file(tree, name, year, part), split)]
        for year, _ in parts:
            _complete(tree, year, [key for of, key in places if of == year])
        splits[split] = tuple(_photo(tree, number, year, key) for number, (year, key) in enumerate(places))
    return BoxSet(name, content, CLASSES, tuple(range(len(CLASSES))), False, "voc", splits["train"], splits["test"])


def _base(tree: Tree, year: str) -> str:
    return year if tree.has(year) else f"VOCdevkit/{year}"


def _annotation(tree: Tree, year: str, key: str) -> str:
    return f"{_base(tree, year)}/Annotations/{key}.xml"


def _list_file(tree: Tree, name: str, year: str, part: str) -> str:
    place = f"{_base(tree, year)}/ImageSets/Main/{part}.txt"
    if not tree.has(place):
        layout = LAYOUT_07 if name == "voc07" else LAYOUT_0712
        raise InputError(f"{tree.path} has no {place}; the layout of {name} is {layout}")
    return place


def _keys(tree: Tree, listed: str, split: str) -> list[str]:
    keys = [line.split()[0] for line in tree.read(listed).decode("utf-8", "replace").splitlines() if line.strip()]
    if not keys:
        raise InputError(f"{tree.path}:{listed} lists no photos; an empty {split} split cannot be used")
    return keys


def _complete(tree: Tree, year: str, keys: list[str]) -> None:
    for folder, ending, what in (("Annotations", ".xml", "annotations"), ("JPEGImages", ".jpg", "photos")):
        there = tree.names(f"{_base(tree, year)}/{folder}")
        missing = [key for key in keys if key + ending not in there]
        if missing:
            raise InputError(
                f"{tree.path}: {len(missing)} of {len(keys)} {what} are missing in {year}/{folder}, the first is "
                f"{missing[0]}{ending}; fetch them again"
            )


def _photo(tree: Tree, number: int, year: str, key: str) -> Photo:
    annotation = tree.stored(_annotation(tree, year, key))
    stored = tree.stored(f"{_base(tree, year)}/JPEGImages/{key}.jpg")
    try:
        root = ElementTree.fromstring(annotation.read())
        height, width = (int(_text(root, f"size/{side}")) for side in ("height", "width"))
        boxes, labels, difficult = [], [], []
        for entry in root.findall("object"):
            name = _text(entry, "name").strip()
            if name not in CLASSES:
                raise InputError(f"{annotation.name}: class {name!r} is none of VOC's 20{nearest(name, CLASSES)}")
            # Not ./part/bndbox: in VOC's layout task an object has parts with boxes of their own.
            x0, y0, x1, y1 = (float(_text(entry, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            if not (x1 >= x0 and y1 >= y0):
                raise InputError(f"{annotation.name}: the box {x0:g} {y0:g} {x1:g} {y1:g} of a {name} has no size")
            boxes.append((x0 - 1, y0 - 1, x1, y1))
            labels.append(CLASSES.index(name))
            difficult.append((entry.findtext("difficult") or "0").strip() == "1")
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{annotation.name} cannot be read as a VOC annotation ({error}); fetch it again") from None
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return Photo(
        id=number,
        name=stored.name,
        key=key,
        height=height,
        width=width,
        boxes=corners,
        labels=np.array(labels, np.int64),
        areas=(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
        crowd=np.zeros(len(labels), bool),
        difficult=np.array(difficult, bool),
        outlines=None,
        load=reader(stored, height, width),
    )


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise ValueError(f"it has no <{path.replace('/', '><')}>")
    return found
