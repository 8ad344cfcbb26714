"""Scores of predictions: against a slow second scorer on real annotations, on cases with a known answer, and bad input."""

import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmark.data.boxes import BoxSet, Photo, find_boxes
from benchmark.data.boxes.drawn import open_drawn
from benchmark.errors import InputError
from benchmark.evaluate.detection.devkit import devkit_scores
from benchmark.evaluate.detection.score import Prediction, encode, score
from tests.evaluate.detection.slow_score import slow_devkit, slow_score

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def real(name, file, tmp_path_factory):
    if not (DATA / file).exists():
        pytest.skip(f"{file} is not beside the project")
    return find_boxes(name, DATA / file, tmp_path_factory.mktemp("cache")).open()


@pytest.fixture(scope="module")
def coco128(tmp_path_factory):
    return real("coco", "coco128.tar.gz", tmp_path_factory)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """VOC's layout; every fifth object is declared difficult, of which the real files have none."""
    boxes = real("voc07", "voc_from_coco.tar.gz", tmp_path_factory)
    count = iter(range(10_000))
    test = tuple(
        dataclasses.replace(photo, difficult=np.array([next(count) % 5 == 0 for _ in photo.labels], bool))
        for photo in boxes.test
    )
    return dataclasses.replace(boxes, test=test)


@pytest.fixture(scope="module")
def drawn():
    return open_drawn(train=4, test=12)


def photo(boxes, labels=None, crowd=None, difficult=None, side=100, number=0):
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    n = len(corners)
    return Photo(
        number, f"photo {number}", str(number), side, side, corners,
        np.zeros(n, np.int64) if labels is None else np.array(labels),
        (corners[:, 2:] - corners[:, :2]).prod(axis=1),
        np.zeros(n, bool) if crowd is None else np.array(crowd, bool),
        np.zeros(n, bool) if difficult is None else np.array(difficult, bool),
        None, lambda: np.zeros((side, side, 3), np.uint8),
    )  # fmt: skip


def boxset(*photos, style="coco", classes=("cat", "dog")):
    return BoxSet("toy", "0" * 12, classes, tuple(range(len(classes))), False, style, photos, photos)


def predicted(boxes, scores=None, labels=None, masks=None):
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(corners)
    scores = np.linspace(0.9, 0.5, n) if scores is None else np.array(scores)
    return Prediction(corners, scores, np.zeros(n, np.int64) if labels is None else np.array(labels), masks)


def perfect(boxes, masked=False):
    """Every object is found where it is."""
    return [
        Prediction(p.boxes, np.ones(len(p.labels)), p.labels, [p.code(n) for n in range(len(p.labels))] if masked else None)
        for p in boxes.test
    ]


def like_a_detector(boxes, seed, masked=False, ties=False):
    """Boxes near the objects and elsewhere, some twice, some of another class, some missing."""
    generator = np.random.default_rng(seed)
    made = []
    for p in boxes.test:
        rows = np.repeat(np.arange(len(p.labels)), generator.integers(0, 4, len(p.labels)))
        sides = np.tile(p.boxes[rows, 2:] - p.boxes[rows, :2], 2)
        near = p.boxes[rows] + generator.normal(0, 1, (len(rows), 4)) * sides * generator.choice(
            [0.01, 0.05, 0.15], (len(rows), 1)
        )
        corner = generator.uniform(0, 0.7, (generator.integers(0, 6), 2)) * [p.width, p.height]
        far = np.concatenate([corner, corner + generator.uniform(4, 120, corner.shape)], axis=1)
        corners = np.concatenate([near, far])
        corners = np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], axis=1
        )
        labels = np.concatenate([p.labels[rows], generator.choice(p.labels, len(far)) if len(p.labels) else np.zeros(len(far))])
        wrong = generator.random(len(labels)) < 0.1
        labels[wrong] = generator.integers(0, len(boxes.classes), wrong.sum())
        scores = generator.random(len(labels))
        if ties:
            scores = scores.round(1)
        masks = None
        if masked:
            outlines = p.masks()
            shift = generator.integers(-4, 5, (len(corners), 2))
            bitmaps = [np.roll(outlines[row], s, (0, 1)) for row, s in zip(rows, shift, strict=False)]
            bitmaps += [np.zeros((p.height, p.width), bool) for _ in far]
            for bitmap, (x0, y0, x1, y1) in zip(bitmaps[len(near) :], far.astype(int), strict=True):
                bitmap[y0:y1, x0:x1] = True
            masks = encode(np.array(bitmaps)) if bitmaps else []
        made.append(Prediction(corners, scores, labels.astype(np.int64), masks))
    return made


def agrees(found, expected):
    assert set(found) == set(expected)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_coco_scores_equal_the_slow_scorers_on_real_annotations(coco128, ties):
    some = coco128.take(test=64)
    predictions = like_a_detector(some, 1, ties=ties)
    found = score(some, predictions)
    agrees(found, slow_score(some, predictions))
    assert 5 < found["AP"] < 60  # neither trivial end


def test_mask_scores_equal_the_slow_scorers_on_real_outlines(coco128):
    some = coco128.take(test=24)
    predictions = like_a_detector(some, 2, masked=True)
    found = score(some, predictions)
    masked = {key.removeprefix("mask_"): value for key, value in found.items() if key.startswith("mask_")}
    agrees(masked, slow_score(some, predictions, masked=True))
    assert 5 < masked["AP"] < 95


def test_voc_scores_equal_the_slow_scorers_with_difficult_objects(voc):
    predictions = like_a_detector(voc, 3)
    found = score(voc, predictions)
    agrees({key: value for key, value in found.items() if not key.startswith("voc07_")}, slow_score(voc, predictions))
    devkit = {key.removeprefix("voc07_"): value for key, value in found.items() if key.startswith("voc07_")}
    agrees(devkit, slow_devkit(voc, predictions))


def test_crowd_regions_agree_with_the_slow_scorer(coco128):
    some = coco128.take(test=40)
    generator = np.random.default_rng(0)
    test = tuple(dataclasses.replace(p, crowd=generator.random(len(p.labels)) < 0.2) for p in some.test)
    some = dataclasses.replace(some, test=test)
    predictions = like_a_detector(some, 4)
    agrees(score(some, predictions), slow_score(some, predictions))


def test_devkit_scores_equal_detectron2s_pascal_evaluator(tmp_path):
    evaluation = pytest.importorskip("detectron2.evaluation.pascal_voc_evaluation", reason="detectron2 is not installed")
    if not (DATA / "voc_from_coco.tar.gz").exists():
        pytest.skip("voc_from_coco.tar.gz is not beside the project")
    with tarfile.open(DATA / "voc_from_coco.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    boxes = find_boxes("voc07", tmp_path / "voc_from_coco", tmp_path / "cache").open()
    # Scores that differ, so that there is one order; whole coordinates, which is how theirs reads the objects'.
    made = like_a_detector(boxes, 5)
    order = np.random.default_rng(0).permutation(sum(len(p.labels) for p in made)) / 1e5
    scores = iter(np.split(order, np.cumsum([len(p.labels) for p in made])))
    predictions = [Prediction(p.boxes.round(), next(scores), p.labels) for p in made]
    year = tmp_path / "voc_from_coco/VOCdevkit/VOC2007"
    compared = 0
    for label, name in enumerate(boxes.classes):
        lines = [
            f"{boxes.test[n].key} {p.scores[m]:.5f} {p.boxes[m, 0] + 1} {p.boxes[m, 1] + 1} {p.boxes[m, 2]} {p.boxes[m, 3]}"
            for n, p in enumerate(predictions)
            for m in np.flatnonzero(p.labels == label)
        ]
        wanted = sum(int((photo.labels == label).sum()) for photo in boxes.test)
        if not lines or wanted % 5 == 0:  # their recall levels 0.3, 0.6 and 0.7 carry rounding errors that tell: see devkit
            continue
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        theirs = [
            evaluation.voc_eval(
                str(tmp_path / "{}.txt"), str(year / "Annotations/{}.xml"), str(year / "ImageSets/Main/test.txt"), name,
                ovthresh=percent / 100, use_07_metric=True,
            )[2]
            for percent in range(50, 100, 5)
        ]  # fmt: skip
        of_class = dataclasses.replace(boxes, classes=boxes.classes[label : label + 1], test=tuple(
            dataclasses.replace(p, labels=np.where(p.labels == label, 0, 1)) for p in boxes.test
        ))  # fmt: skip
        mine = [Prediction(p.boxes, p.scores, np.where(p.labels == label, 0, 1)) for p in predictions]
        found = devkit_scores(of_class, mine)
        expected = {"AP": np.mean(theirs), "AP50": theirs[0], "AP75": theirs[5]}
        assert found == pytest.approx({key: 100 * value for key, value in expected.items()}, abs=1e-9)
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("name", ["coco128", "drawn"])
def test_perfect_predictions_score_100(name, request):
    boxes = request.getfixturevalue(name)
    found = score(boxes, perfect(boxes, masked=True))
    for key in ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75", "AR100", "mask_AR100"):
        assert found[key] == pytest.approx(100, abs=1e-9), key


def test_perfect_predictions_score_100_by_vocs_measure(voc):
    found = score(voc, perfect(voc))
    assert [found[key] for key in ("AP", "voc07_AP", "voc07_AP50", "voc07_AP75")] == pytest.approx([100] * 4)


def test_no_predictions_score_0(coco128):
    nothing = [predicted([]) for _ in coco128.test]
    found = score(coco128, nothing)
    assert "AP" in found and set(found.values()) == {0.0}


def test_half_the_objects_found_score_half():
    # one class, two objects, the first found: precision 1 up to recall 0.5 (51 of 101 levels), then 0
    boxes = boxset(photo([[0, 0, 50, 50], [50, 50, 99, 99]]), style="voc")
    found = score(boxes, [predicted([[0, 0, 50, 50]])])
    assert found["AP50"] == pytest.approx(100 * 51 / 101)
    assert found["voc07_AP50"] == pytest.approx(100 * 6 / 11)
    assert found["AR100"] == pytest.approx(50)


def test_second_detection_of_an_object_is_wrong():
    boxes = boxset(photo([[0, 0, 50, 50], [50, 50, 99, 99]]), style="voc")
    found = score(boxes, [predicted([[0, 0, 50, 50], [0, 0, 50, 49], [50, 50, 99, 99]])])
    # precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1
    assert found["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert found["voc07_AP50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_class_without_objects_does_not_count():
    boxes = boxset(photo([[0, 0, 50, 50]], labels=[1]), style="voc")
    found = score(boxes, [predicted([[0, 0, 50, 50], [1, 1, 9, 9]], labels=[1, 0])])
    assert [found["AP"], found["voc07_AP"]] == pytest.approx([100, 100])


def test_detections_on_difficult_objects_count_neither_way_but_parts_of_them_are_wrong():
    objects = photo([[0, 0, 60, 60], [60, 60, 99, 99]], difficult=[True, False])
    boxes = boxset(objects, style="voc")
    twice = predicted([[0, 0, 60, 60], [0, 0, 60, 58], [60, 60, 99, 99]])
    found = score(boxes, [twice])
    assert [found["AP50"], found["voc07_AP50"]] == pytest.approx([100, 100])
    part = predicted([[10, 10, 30, 30], [60, 60, 99, 99]])
    found = score(boxes, [part])
    assert [found["AP50"], found["voc07_AP50"]] == pytest.approx([50, 50])
    crowd = boxset(photo([[0, 0, 60, 60], [60, 60, 99, 99]], crowd=[True, False]))
    assert score(crowd, [part])["AP50"] == pytest.approx(100)  # inside a crowd region nothing is wrong


def test_size_that_no_object_has_is_left_out():
    found = score(boxset(photo([[0, 0, 10, 10]])), [predicted([[0, 0, 10, 10]])])
    assert found["APs"] == pytest.approx(100)
    assert "APm" not in found and "ARl" not in found


GOOD = [[0, 0, 50, 50]]


@pytest.mark.parametrize(
    ("boxes", "predictions", "classes", "message"),
    [
        (boxset(), [], None, "the test split of toy has no object to find in 0 photos"),
        (boxset(photo([])), [predicted([])], None, "the test split of toy has no object to find in 1 photos"),
        (boxset(photo(GOOD, crowd=[1])), [predicted([])], None, "the test split of toy has no object to find"),
        (boxset(photo(GOOD)), [], None, "predictions for 0 photos, but toy has 1 to test"),
        (boxset(photo(GOOD)), [predicted(GOOD, labels=[2])], None, "a predicted label is 2, but toy has the classes 0 to 1"),
        (boxset(photo(GOOD)), [predicted(GOOD, labels=[-1])], None, "a predicted label is -1"),
        (boxset(photo(GOOD)), [predicted([[0, 0, np.nan, 9]])], None, "photo 0: a predicted box or score is not finite"),
        (boxset(photo(GOOD)), [predicted(GOOD, scores=[np.inf])], None, "a predicted box or score is not finite"),
        (boxset(photo(GOOD)), [predicted(GOOD, scores=[0.5, 0.4])], None, "have the shapes (1, 4), (2,), (1,)"),
        (boxset(photo(GOOD)), [predicted(GOOD)], ("cat", "dog", "cow"), "not those of toy: 3 classes for 2"),
        (boxset(photo(GOOD)), [predicted(GOOD)], ("cat", "dogs"), "class 1 is 'dogs' there and 'dog' here; did you mean"),
        (boxset(photo(GOOD)), [predicted(GOOD, masks=[])], None, "photo 0: there are 0 masks for 1 boxes"),
        (boxset(photo(GOOD)), [predicted(GOOD, masks=encode(np.ones((1, 9, 7))))], None, "is 7 x 9 pixels, the photo 100 x"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(boxes, predictions, classes, message):
    with pytest.raises(InputError) as error:
        score(boxes, predictions, classes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_printed(capsys):
    score(boxset(photo(GOOD)), [predicted(GOOD)])
    assert capsys.readouterr().out == ""
