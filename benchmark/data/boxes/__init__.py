"""Detection data sets: photos with boxes and, where there are some, masks. Folders or tar archives, never converted.

    source = find_boxes("voc0712", Path("/data/voc"), cache)   # checks the layout, knows the identity; no torch
    boxes = source.open()                                      # a BoxSet: .classes, .train, .test
    photo = boxes.train[0]                                     # .boxes (n x 4), .labels (n), .pixels() H x W x 3, .masks()

    coco     train2017/, val2017/, annotations/instances_train2017.json and instances_val2017.json; tested on val2017
    voc07    VOCdevkit/VOC2007: trained on trainval, tested on test
    voc0712  VOCdevkit/VOC2007 and VOC2012: trained on both trainvals, tested on VOC2007's test
    shapes   drawn here, with boxes and masks: nothing to give

A data set in the COCO layout with any other classes is `coco` too: its classes are those that its annotations list.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmark.data.boxes import coco, voc
from benchmark.data.boxes.boxset import BoxSet, Outline, Photo
from benchmark.data.boxes.drawn import CONTENT, open_drawn
from benchmark.data.boxes.tree import Tree, open_tree
from benchmark.errors import InputError, nearest

__all__ = ["NAMES", "BoxSet", "BoxSource", "Outline", "Photo", "find_boxes"]

NAMES = ("coco", "voc07", "voc0712", "shapes")
_LAYOUTS = {"coco": coco.LAYOUT, "voc07": voc.LAYOUT_07, "voc0712": voc.LAYOUT_0712}
_MARKS = {"coco": coco.MARKS, "voc07": voc.MARKS, "voc0712": voc.MARKS}


@dataclass(frozen=True)
class BoxSource:
    """A detection data set that was found. content: 12 hex digits over the annotations of both splits (and so over the list
    of photos), the same for a folder and an archive of it; it goes into the identity of an evaluation.

    path: of the folder or archive, None for what is drawn; cache: where a compressed archive is kept unpacked.
    """

    name: str
    content: str
    path: Path | None
    cache: Path

    def open(self) -> BoxSet:
        """Read all annotations. As many as COCO's take half a minute and 3.4 GB of memory at their height, 1.1 GB then.
        InputError names what is wrong with an annotation, or the photos that are missing."""
        if self.path is None:
            return open_drawn(self.content)
        tree = open_tree(self.path, self.cache, _MARKS[self.name])
        if self.name == "coco":
            return coco.open_coco(tree, self.content)
        return voc.open_voc(tree, self.name, self.content)


def find_boxes(name: str, path: Path | None, cache: Path | None = None) -> BoxSource:
    """The data set `name` (one of NAMES) at `path`: a folder or a .tar, .tar.gz or .tgz archive of its layout.

    Quick: nothing is parsed, and the identity of files that have not changed since is remembered in `cache` (by default a
    folder of this user's in the system's place for temporary files). A compressed archive is unpacked there once, to a
    plain one. InputError where the name is unknown or `path` is missing or not of this layout.
    """
    if name not in NAMES:
        raise InputError(f"detection data set {name!r} is unknown; allowed: {', '.join(NAMES)}{nearest(name, NAMES)}")
    cache = cache or Path(tempfile.gettempdir()) / f"retable-boxes-{os.getuid()}"
    if name == "shapes":
        return BoxSource(name, CONTENT, None, cache)
    if path is None:
        raise InputError(
            f"detection data set {name} is needed, but no path is given; give --data {name}=PATH with {_LAYOUTS[name]}"
        )
    tree = open_tree(path.expanduser(), cache, _MARKS[name])
    files = coco.annotation_files(tree) if name == "coco" else voc.annotation_files(tree, name)
    return BoxSource(name, _content(name, tree, files, cache), tree.path, cache)


def _content(name: str, tree: Tree, files: list[str], cache: Path) -> str:
    """12 hex digits over the files' names and bytes; remembered under the files' sizes and times."""
    key = hashlib.sha256(f"{name} {tree.path.resolve()} {tree.state(files)}".encode()).hexdigest()[:16]
    remembered = cache / f"boxes-{name}-{key}.txt"
    try:
        return remembered.read_text(encoding="ascii")
    except OSError:
        pass
    digest = hashlib.sha256(f"{name}\n".encode())
    for file in files:
        data = tree.read(file)
        digest.update(f"{file.rpartition('/')[2]} {len(data)}\n".encode())
        digest.update(data)
    content = digest.hexdigest()[:12]
    try:  # only spares time: without a cache it is computed again
        cache.mkdir(parents=True, exist_ok=True)
        partial = remembered.with_suffix(f".{os.getpid()}")
        partial.write_text(content, encoding="ascii")
        partial.replace(remembered)
    except OSError:
        pass
    return content
