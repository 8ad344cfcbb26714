"""Detection data sets: the layouts of COCO and VOC as folders and archives, drawn photos, identity, pixels."""

import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.data.boxes import find_boxes
from benchmark.data.boxes.drawn import open_drawn
from benchmark.data.shapes import CLASSES

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def pixels(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def annotation(number, photo, category, box, **more):
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {"id": number, "image_id": photo, "category_id": category, "bbox": box, "area": w * h / 2, "iscrowd": 0} | {
        "segmentation": outline, **more
    }  # fmt: skip


def coco_split():
    """Photo 7 has two objects, photo 3 a crowd region alone, photo 5 none; the category ids have a gap."""
    crowd = {"size": [30, 40], "counts": [0, 600, 600]}  # the left half: columns first
    return {
        "images": [{"id": n, "file_name": f"{n:06d}.jpg", "height": 30, "width": 40} for n in (7, 3, 5)],
        "annotations": [
            annotation(1, 7, 90, [1, 2, 10, 20]),
            annotation(2, 7, 4, [20.5, 0, 19.5, 30]),
            annotation(3, 3, 4, [0, 0, 20, 30], iscrowd=1, segmentation=crowd),
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 4, "name": "motorcycle"}],
    }


def write_coco(root, change=lambda split, found: None):
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        found = coco_split()
        for entry in found["images"]:
            Image.fromarray(pixels(30, 40, entry["id"])).save(root / split / entry["file_name"], quality=95)
        change(split, found)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(found))
    return root


VOC_OBJECT = (
    "<object><name>{}</name><part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"
    "</part>{}<bndbox><xmax>{}</xmax><xmin>{}</xmin><ymin>{}</ymin><ymax>{}</ymax></bndbox></object>"
)


def write_voc(root, years=("VOC2007", "VOC2012"), objects=None):
    objects = objects or [
        VOC_OBJECT.format("cat", "<difficult>1</difficult>", 40, 1, 1, 30),
        VOC_OBJECT.format("tvmonitor", "", "12.5", 10, 11, 13),
    ]
    for year in years:
        base = root / "VOCdevkit" / year
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (base / folder).mkdir(parents=True)
        for part, names in (("trainval", ("000001", "000004")), ("test", ("000002",))):
            (base / f"ImageSets/Main/{part}.txt").write_text("".join(f"{name}\n" for name in names))
            for name in names:
                Image.fromarray(pixels(30, 40, int(name))).save(base / f"JPEGImages/{name}.jpg")
                size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
                (base / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return root


def packed(folder, path, compressed):
    with tarfile.open(path, "w:gz" if compressed else "w") as archive:
        archive.add(folder, folder.name)
    return path


def test_coco_objects_have_corners_and_labels_in_order_of_category_id(tmp_path):
    boxes = find_boxes("coco", write_coco(tmp_path / "coco"), tmp_path / "cache").open()
    assert (boxes.classes, boxes.category_ids) == (("motorcycle", "toothbrush"), (4, 90))
    assert [photo.key for photo in boxes.train] == ["3", "5", "7"]
    crowd, nothing, two = boxes.train
    assert two.boxes.tolist() == [[1, 2, 11, 22], [20.5, 0, 40, 30]]
    assert (two.labels.tolist(), two.areas.tolist(), two.crowd.tolist()) == ([1, 0], [100, 292.5], [False, False])
    assert (crowd.crowd.tolist(), len(nothing.labels), nothing.boxes.shape) == ([True], 0, (0, 4))
    assert boxes.has_masks and boxes.style == "coco"
    assert boxes.learnable == (two,)


def test_coco_masks_fill_polygons_and_run_lengths(tmp_path):
    crowd, nothing, two = find_boxes("coco", write_coco(tmp_path / "coco"), tmp_path / "cache").open().train
    inside = np.zeros((30, 40), bool)
    inside[2:22, 1:11] = True
    assert (two.masks()[0] == inside).all()
    assert two.masks([1]).shape == (1, 30, 40) and (two.masks([1])[0] == two.masks()[1]).all()
    half = np.zeros((30, 40), bool)
    half[:, :20] = True
    assert (crowd.masks()[0] == half).all()
    assert nothing.masks().shape == (0, 30, 40)


def test_polygons_without_an_area_are_left_out(tmp_path):
    def add(split, found):
        found["annotations"][0]["segmentation"] += [[0, 0, 39, 29], [5, 5]]

    two = find_boxes("coco", write_coco(tmp_path / "coco", add), tmp_path / "cache").open().train[2]
    assert two.masks()[0].sum() == 20 * 10 and len(two.outlines[0]) == 1


def test_coco_without_outlines_has_no_masks(tmp_path):
    def drop(split, found):
        if split == "val2017":
            del found["annotations"][0]["segmentation"]

    assert not find_boxes("coco", write_coco(tmp_path / "coco", drop), tmp_path / "cache").open().has_masks


def test_voc_boxes_start_at_0_and_end_after_their_last_pixel(tmp_path):
    boxes = find_boxes("voc07", write_voc(tmp_path, ("VOC2007",)), tmp_path / "cache").open()
    photo = boxes.train[0]
    assert photo.boxes.tolist() == [[0, 0, 40, 30], [9, 10, 12.5, 13]]
    assert [boxes.classes[label] for label in photo.labels] == ["cat", "tvmonitor"]
    assert (photo.difficult.tolist(), photo.crowd.any(), photo.areas.tolist()) == ([True, False], False, [1200, 10.5])
    assert (len(boxes.classes), boxes.has_masks, boxes.style) == (20, False, "voc")
    assert len(boxes.learnable) == 2  # difficult objects are trained on


def test_voc0712_is_both_trainvals_and_the_test_of_2007(tmp_path):
    boxes = find_boxes("voc0712", write_voc(tmp_path), tmp_path / "cache").open()
    assert [(Path(photo.name).parts[-3], photo.key) for photo in boxes.train] == [
        ("VOC2007", "000001"), ("VOC2007", "000004"), ("VOC2012", "000001"), ("VOC2012", "000004"),
    ]  # fmt: skip
    assert [photo.id for photo in boxes.train] == [0, 1, 2, 3]
    assert [Path(photo.name).parts[-3] for photo in boxes.test] == ["VOC2007"]


@pytest.mark.parametrize(("name", "write", "inside"), [("coco", write_coco, "."), ("voc07", write_voc, "VOCdevkit")])
def test_folder_and_archive_are_the_same_data(tmp_path, name, write, inside):
    folder = write(tmp_path / "given")
    sources = [
        find_boxes(name, path, tmp_path / "cache")
        for path in (
            folder,
            folder / inside,
            packed(folder, tmp_path / "plain.tar", False),
            packed(folder, tmp_path / "packed.tar.gz", True),
            packed(folder / inside, tmp_path / "inner.tgz", True),
        )
    ]
    assert len({source.content for source in sources}) == 1
    opened = [source.open() for source in sources]
    for boxes in opened[1:]:
        for one, other in zip(opened[0].train + opened[0].test, boxes.train + boxes.test, strict=True):
            assert one.boxes.tolist() == other.boxes.tolist()
            assert (one.pixels() == other.pixels()).all()


def test_pixels_are_the_files_and_can_be_read_in_another_process(tmp_path):
    folder = write_coco(tmp_path / "coco")
    photo = find_boxes("coco", folder, tmp_path / "cache").open().train[2]
    expected = np.asarray(Image.open(folder / "train2017/000007.jpg").convert("RGB"))
    assert (photo.pixels() == expected).all()
    assert (pickle.loads(pickle.dumps(photo)).pixels() == expected).all()


def test_content_changes_with_an_annotation_and_with_nothing_else(tmp_path):
    first = find_boxes("coco", write_coco(tmp_path / "one" / "coco"), tmp_path / "cache").content
    assert find_boxes("coco", write_coco(tmp_path / "two" / "other"), None).content == first  # another place, another cache

    def moved(split, found):
        if split == "val2017":
            found["annotations"][0]["bbox"][0] += 1

    assert find_boxes("coco", write_coco(tmp_path / "three", moved), tmp_path / "cache").content != first


def test_content_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    folder = write_voc(tmp_path)
    first = find_boxes("voc07", folder, tmp_path / "cache").content
    from benchmark.data.boxes.tree import Folder

    read = []
    original = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, place: read.append(place) or original(self, place))
    assert find_boxes("voc07", folder, tmp_path / "cache").content == first
    assert not [place for place in read if place.endswith(".xml")]
    changed = folder / "VOCdevkit/VOC2007/Annotations/000002.xml"
    changed.write_text(changed.read_text().replace("12.5", "13.5"))
    assert find_boxes("voc07", folder, tmp_path / "cache").content != first


def test_archive_is_unpacked_once(tmp_path):
    path = packed(write_coco(tmp_path / "coco"), tmp_path / "coco.tar.gz", True)
    find_boxes("coco", path, tmp_path / "cache").open()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.tar")}
    find_boxes("coco", path, tmp_path / "cache").open()
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").glob("*.tar")}
    assert before == after and len(after) == 1


def test_take_keeps_the_first():
    boxes = open_drawn(train=4, test=3)
    assert [len(part) for part in (boxes.take(2, 1).train, boxes.take(2, 1).test, boxes.take().train)] == [2, 1, 4]
    assert boxes.take(2, 1).train == boxes.train[:2]


def test_photo_turned_by_its_camera_is_read_as_it_was_annotated(tmp_path):
    folder = write_coco(tmp_path / "coco")
    lying = pixels(40, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(lying).save(folder / "train2017/000007.jpg", exif=exif, quality=100, subsampling=0)
    turned = find_boxes("coco", folder, tmp_path / "cache").open().train[2].pixels()
    assert turned.shape == (30, 40, 3)
    assert abs(turned.astype(int) - np.rot90(lying, -1)).mean() < 2


def test_drawn_photos_are_a_function_of_split_seed_and_index():
    one, other = open_drawn(train=3, test=2), open_drawn(train=5, test=2)
    for a, b in zip(one.train, other.train, strict=False):
        assert (a.pixels() == b.pixels()).all() and a.boxes.tolist() == b.boxes.tolist()
    assert one.train[0].pixels().tobytes() != one.test[0].pixels().tobytes()
    assert one.train[0].pixels().tobytes() != open_drawn(train=1, test=1, seed=1).train[0].pixels().tobytes()
    one.train[0].pixels()[:] = 0  # whoever changes what it got changes nobody else's
    assert one.train[0].pixels().any()


def test_drawn_boxes_are_tight_around_masks_that_do_not_overlap():
    boxes = open_drawn(train=40, test=2)
    counts = set()
    for photo in boxes.train:
        masks = photo.masks()
        counts.add(len(masks))
        assert masks.sum(axis=0).max() == 1
        assert photo.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
        for mask, (x0, y0, x1, y1) in zip(masks, photo.boxes.astype(int), strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
    assert counts == {1, 2, 3, 4, 5}
    assert {label for photo in boxes.train for label in photo.labels.tolist()} == set(range(len(CLASSES)))


def test_drawn_ink_stands_out():
    contrasts = []
    for photo in open_drawn(train=40, test=2).train:
        grey, masks = photo.pixels().mean(axis=2), photo.masks()
        contrasts += [abs(grey[mask].mean() - grey[~masks.any(axis=0)].mean()) for mask in masks]
    assert np.quantile(contrasts, 0.05) > 25  # of 255


@pytest.mark.parametrize(
    ("name", "file", "counts"), [("coco", "coco128.tar.gz", (128, 128, 929, 901)), ("voc07", "voc_from_coco.tar.gz", (97, 100))]
)
def test_real_archives_open_as_they_are(tmp_path, name, file, counts):
    if not (DATA / file).exists():
        pytest.skip(f"{file} is not beside the project")
    boxes = find_boxes(name, DATA / file, tmp_path).open()
    objects = [sum(len(photo.labels) for photo in split) for split in (boxes.train, boxes.test)]
    assert (len(boxes.train), len(boxes.test), *objects)[: len(counts)] == counts
    for photo in (*boxes.train[:8], *boxes.test[:8]):
        assert photo.pixels().shape == (photo.height, photo.width, 3)
        x0, y0, x1, y1 = photo.boxes.T
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= photo.width + 0.01).all() and (y1 <= photo.height + 0.01).all()
        if photo.outlines:  # a mask lies within its box
            for mask, box in zip(photo.masks(), photo.boxes, strict=True):
                rows, columns = np.nonzero(mask)
                assert box[0] - 2 <= columns.min() and columns.max() <= box[2] + 2
                assert box[1] - 2 <= rows.min() and rows.max() <= box[3] + 2


def test_neither_torch_nor_numba_is_imported():
    code = (
        "import sys; from benchmark.data.boxes import find_boxes; find_boxes('shapes', None).open; "
        "sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_png_photos_and_grey_ones_are_read_as_rgb(tmp_path):
    folder = write_coco(tmp_path / "coco")
    Image.fromarray(pixels(30, 40)[..., 0]).save(folder / "train2017/000007.jpg")
    buffer = io.BytesIO()
    Image.fromarray(pixels(30, 40)).save(buffer, "PNG")
    (folder / "train2017/000003.jpg").write_bytes(buffer.getvalue())  # a PNG that is called .jpg
    boxes = find_boxes("coco", folder, tmp_path / "cache").open()
    assert boxes.train[2].pixels().shape == (30, 40, 3)
    assert (boxes.train[0].pixels() == pixels(30, 40)).all()
