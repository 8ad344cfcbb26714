"""What is wrong with a detection data set is said in one sentence."""

import pytest
from PIL import Image

from benchmark.data.boxes import NAMES, find_boxes
from benchmark.errors import InputError
from tests.data.test_boxes import VOC_OBJECT, packed, pixels, write_coco, write_voc


def refused(name, path, tmp_path, opened=True):
    with pytest.raises(InputError) as error:
        source = find_boxes(name, path, tmp_path / "cache")
        if opened:
            source.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unknown_name_and_missing_path_are_one_sentence(tmp_path):
    assert "'voc7' is unknown; allowed: coco, voc07, voc0712, shapes; did you mean 'voc07'?" in refused("voc7", None, tmp_path)
    for name in NAMES[:3]:
        assert f"give --data {name}=PATH" in refused(name, None, tmp_path)
    assert "does not exist" in refused("coco", tmp_path / "nowhere", tmp_path)
    (tmp_path / "coco.zip").write_bytes(b"PK")
    assert "unpack it and give the folder" in refused("coco", tmp_path / "coco.zip", tmp_path)


def test_layout_of_another_kind_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no annotations/instances_train2017.json; the layout of coco is" in refused("coco", tmp_path / "empty", tmp_path)
    assert "has no VOCdevkit/VOC2007/ImageSets/Main/trainval.txt" in refused("voc07", tmp_path / "empty", tmp_path)
    only_07 = write_voc(tmp_path / "voc", ("VOC2007",))
    assert "has no VOCdevkit/VOC2012/ImageSets/Main/trainval.txt; the layout of voc0712" in refused(
        "voc0712", only_07, tmp_path
    )


def test_damaged_archives_are_one_sentence(tmp_path):
    path = packed(write_coco(tmp_path / "coco"), tmp_path / "coco.tar.gz", True)
    path.write_bytes(path.read_bytes()[:-500])
    assert "cannot be unpacked" in refused("coco", path, tmp_path)
    assert not list((tmp_path / "cache").glob("boxes-*"))
    (tmp_path / "not.tar").write_bytes(b"nothing of the kind" * 100)
    assert "cannot be read as a tar archive" in refused("coco", tmp_path / "not.tar", tmp_path)


def put(**values):
    def change(split, found):
        if split == "val2017":
            found.update(values)

    return change


def first_annotation(**values):
    def change(split, found):
        found["annotations"][0].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(images=[]), "is of photo 7, which is not listed"),
        (put(images=[], annotations=[]), "instances_val2017.json lists no photos; an empty split"),
        (put(images=7), "has no list 'images'"),
        (put(categories=[]), "lists no categories"),
        (put(categories=[{"id": 4, "name": "motorcycle"}, {"id": 90, "name": "comb"}]), "lists other classes than"),
        (put(categories=[{"id": 4, "name": "motorcycle"}, {"id": 4, "name": "comb"}]), "two categories have the same id"),
        (put(categories=[{"name": "motorcycle"}]), "a category has no id or no name"),
        (first_annotation(category_id=5), "annotation 1 is of category 5, but those listed are 4 to 90, 2 of them"),
        (first_annotation(image_id=8), "annotation 1 is of photo 8, which is not listed"),
        (first_annotation(bbox=[0, 0, -1, 5]), "annotation 1 has the box [0, 0, -1, 5], which has no size"),
        (first_annotation(bbox=[0, 0, float("nan"), 5]), "which has no size"),
        (first_annotation(bbox=[0, 0, 5]), "annotation 1 has the box [0, 0, 5]; expected x, y, width, height"),
        (first_annotation(bbox=["0", "0", "5", "5"]), "has the box ['0', '0', '5', '5']; expected x, y, width, height"),
        (first_annotation(bbox=None), "annotation 1 has the box None; expected x, y, width, height"),
        (first_annotation(segmentation=[[1, 2, 3]]), "annotation 1 has an outline that is neither polygons nor"),
        (lambda split, found: found["images"].append(found["images"][0]), "two photos have the id 7"),
        (lambda split, found: found["images"][0].pop("height"), "is damaged: an entry lacks or mistypes"),
        (lambda split, found: found["images"].append({"id": 9, "file_name": "9.jpg", "height": 1, "width": 1}),
         "1 of 4 photos are missing in train2017, the first is 9.jpg"),
    ],
)  # fmt: skip
def test_bad_coco_annotations_are_one_sentence(tmp_path, change, message):
    assert message in refused("coco", write_coco(tmp_path / "coco", change), tmp_path)


def test_missing_or_cut_coco_files_are_one_sentence(tmp_path):
    folder = write_coco(tmp_path / "coco")
    file = folder / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:-100])
    assert "instances_train2017.json is no JSON file" in refused("coco", folder, tmp_path)
    file.unlink()
    assert "has no annotations/instances_train2017.json" in refused("coco", folder, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VOC_OBJECT.format("tvmonitors", "", 5, 1, 1, 5), "class 'tvmonitors' is none of VOC's 20; did you mean 'tvmonitor'?"),
        (VOC_OBJECT.format("cat", "", 1, 5, 1, 5), "the box 5 1 1 5 of a cat has no size"),
        (VOC_OBJECT.format("cat", "", "x", 1, 1, 5), "cannot be read as a VOC annotation"),
        ("<object><name>cat</name></object>", "it has no <bndbox><xmin>"),
        ("<object>", "cannot be read as a VOC annotation"),
    ],
)
def test_bad_voc_annotations_are_one_sentence(tmp_path, text, message):
    assert message in refused("voc07", write_voc(tmp_path, objects=[text]), tmp_path)


def test_missing_voc_files_are_one_sentence(tmp_path):
    folder = write_voc(tmp_path / "voc")
    base = folder / "VOCdevkit/VOC2007"
    (base / "JPEGImages/000004.jpg").unlink()
    assert "1 of 2 photos are missing in VOC2007/JPEGImages, the first is 000004.jpg" in refused("voc07", folder, tmp_path)
    (base / "Annotations/000002.xml").unlink()
    assert "000002.xml cannot be read (No such file" in refused("voc07", folder, tmp_path, opened=False)
    (base / "ImageSets/Main/test.txt").write_text("\n")
    assert "lists no photos; an empty test split cannot be used" in refused("voc07", folder, tmp_path, opened=False)


def test_bad_photos_are_one_sentence(tmp_path):
    folder = write_coco(tmp_path / "coco")
    boxes = find_boxes("coco", folder, tmp_path / "cache").open()
    Image.fromarray(pixels(20, 20)).save(folder / "train2017/000003.jpg")
    (folder / "train2017/000005.jpg").write_bytes(b"no photo")
    (folder / "train2017/000007.jpg").unlink()
    for photo, message in zip(
        boxes.train,
        (
            "000003.jpg is 20 x 20 pixels, but its annotation says 40 x 30",
            "000005.jpg cannot be decoded",
            "000007.jpg cannot be read (No such file",
        ),
        strict=True,
    ):
        with pytest.raises(InputError, match=r".*") as error:
            photo.pixels()
        assert message in str(error.value) and "\n" not in str(error.value)
