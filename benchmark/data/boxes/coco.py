"""The layout of COCO (Lin et al., 1405.0312; cocodataset.org, data format): one JSON file of annotations a split.

Category ids, which have gaps (COCO's 80 run to 90), become labels 0, 1, ... in rising order; boxes, x y width height from
the upper left corner, become corners. COCO counts its pixels from 0 and lets a box end where the next pixel starts.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np

from benchmark.data.boxes.boxset import BoxSet, Outline, Photo
from benchmark.data.boxes.tree import Tree, reader
from benchmark.errors import InputError

MARKS = ("annotations",)
LAYOUT = "train2017/, val2017/ and annotations/instances_train2017.json, instances_val2017.json"
_SPLITS: tuple[Literal["train2017", "val2017"], ...] = ("train2017", "val2017")


def annotation_files(tree: Tree) -> list[str]:
    """The places of the two annotation files; InputError where the layout is another."""
    files = [_annotations(split) for split in _SPLITS]
    missing = next((place for place in (*files, *_SPLITS) if not tree.has(place)), None)
    if missing:
        raise InputError(f"{tree.path} has no {missing}; the layout of coco is {LAYOUT}")
    return files


def open_coco(tree: Tree, content: str) -> BoxSet:
    """Both splits. InputError where an annotation makes no sense, the splits' classes differ, or photos are missing."""
    categories: dict[int, str] | None = None
    splits: list[tuple[Photo, ...]] = []
    for split in _SPLITS:
        shown = f"{tree.path}:{_annotations(split)}"
        found = _parsed(tree.read(_annotations(split)), shown)
        of_split = _categories(found, shown)
        if categories is None:
            categories = of_split
        elif of_split != categories:
            raise InputError(
                f"{shown} lists other classes than {_annotations(_SPLITS[0])} ({_difference(categories, of_split)})"
            )
        photos = _photos(tree, split, found, {number: label for label, number in enumerate(sorted(of_split))}, shown)
        if not photos:
            raise InputError(f"{shown} lists no photos; an empty split cannot be used")
        splits.append(photos)
    assert categories is not None
    masked = all(photo.outlines is not None for photos in splits for photo in photos)
    numbers = tuple(sorted(categories))
    return BoxSet(
        "coco", content, tuple(categories[n] for n in numbers), numbers, masked, "coco", train=splits[0], test=splits[1]
    )


def _annotations(split: str) -> str:
    return f"annotations/instances_{split}.json"


def _parsed(data: bytes, shown: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown} is no JSON file ({error}); fetch it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(found, dict) or not isinstance(found.get(key), list):
            raise InputError(f"{shown} has no list '{key}'; it is not an instances file of COCO's")
    return found


def _categories(found: dict[str, Any], shown: str) -> dict[int, str]:
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in found["categories"]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{shown}: a category has no id or no name") from None
    if not categories:
        raise InputError(f"{shown} lists no categories")
    if len(categories) < len(found["categories"]):
        raise InputError(f"{shown}: two categories have the same id")
    return categories


def _difference(one: dict[int, str], other: dict[int, str]) -> str:
    different = sorted(set(one.items()) ^ set(other.items()))
    number, name = different[0]
    return f"{len(different)} entries differ, the first is {number} {name!r}"


def _photos(tree: Tree, split: str, found: dict[str, Any], label_of: dict[int, int], shown: str) -> tuple[Photo, ...]:
    objects: dict[Any, list[dict[str, Any]]] = {}
    try:
        images = sorted(found["images"], key=lambda image: image["id"])
        for image in images:
            if image["id"] in objects:
                raise InputError(f"{shown}: two photos have the id {image['id']}")
            objects[image["id"]] = []
        for entry in found["annotations"]:
            if entry["image_id"] not in objects:
                raise InputError(f"{shown}: annotation {entry.get('id')} is of photo {entry['image_id']}, which is not listed")
            if entry["category_id"] not in label_of:
                raise InputError(
                    f"{shown}: annotation {entry.get('id')} is of category {entry['category_id']}, but those listed are "
                    f"{min(label_of)} to {max(label_of)}, {len(label_of)} of them"
                )
            if not _four_numbers(entry["bbox"]):
                said = f"{entry['bbox']!r:.60}"
                raise InputError(f"{shown}: annotation {entry.get('id')} has the box {said}; expected x, y, width, height")
            objects[entry["image_id"]].append(entry)
        there = tree.names(split)
        missing = [image["file_name"] for image in images if image["file_name"] not in there]
        if missing:
            raise InputError(
                f"{tree.path}: {len(missing)} of {len(images)} photos are missing in {split}, the first is {missing[0]}; "
                "fetch them again"
            )
        # Where a file lists outlines for some objects only it cannot teach or test masks.
        masked = all("segmentation" in entry for entry in found["annotations"])
        return tuple(
            _photo(tree, split, number, image, objects[image["id"]], label_of, masked, shown)
            for number, image in enumerate(images)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{shown} is damaged: an entry lacks or mistypes what it needs ({error!r})") from None


def _four_numbers(said: Any) -> bool:
    return isinstance(said, list) and len(said) == 4 and all(isinstance(number, int | float) for number in said)


def _photo(
    tree: Tree, split: str, number: int, image: dict[str, Any], entries: list[dict[str, Any]], label_of: dict[int, int],
    masked: bool, shown: str,
) -> Photo:  # fmt: skip
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    wrong = np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)))
    if len(wrong):
        entry = entries[wrong[0]]
        raise InputError(f"{shown}: annotation {entry.get('id')} has the box {entry['bbox']}, which has no size")
    height, width = int(image["height"]), int(image["width"])
    stored = tree.stored(f"{split}/{image['file_name']}")
    areas = [float(entry.get("area", math.prod(entry["bbox"][2:]))) for entry in entries]
    return Photo(
        id=number,
        name=stored.name,
        key=str(image["id"]),
        height=height,
        width=width,
        boxes=boxes,
        labels=np.array([label_of[entry["category_id"]] for entry in entries], np.int64),
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
        difficult=np.zeros(len(entries), bool),
        outlines=tuple(_outline(entry["segmentation"], entry, shown, (height, width)) for entry in entries) if masked else None,
        load=reader(stored, height, width),
    )


def _outline(said: Any, entry: dict[str, Any], shown: str, shape: tuple[int, int]) -> Outline:
    if isinstance(said, dict) and "size" in said and "counts" in said:
        if tuple(said["size"]) != shape:
            found = f"an outline of {said['size']} pixels, but its photo has {list(shape)}"
            raise InputError(f"{shown}: annotation {entry.get('id')} has {found}")
        counts = said["counts"]
        return {"size": said["size"], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    if isinstance(said, list) and said and all(isinstance(p, list) and len(p) % 2 == 0 for p in said):
        # Fewer than three corners enclose nothing; detectron2 leaves them out, and pycocotools takes two of them for a box.
        polygons = tuple(np.array(polygon, np.float64) for polygon in said if len(polygon) >= 6)
        if polygons:
            return polygons
    raise InputError(f"{shown}: annotation {entry.get('id')} has an outline that is neither polygons nor a run-length code")
