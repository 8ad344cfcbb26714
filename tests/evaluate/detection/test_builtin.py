"""The built-in engine: its inputs and its schedule, that it learns, that interruptions change nothing, what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmark.data.boxes import Photo, find_boxes
from benchmark.data.boxes.drawn import open_drawn
from benchmark.errors import InputError
from benchmark.evaluate.detection import DETECTIONS, Trial, builtin, detection, means, train
from benchmark.evaluate.detection.inputs import example, order, resized_shape, training_batches
from benchmark.evaluate.detection.model import batch_norms, build_detector
from benchmark.evaluate.subject import Place, Subject
from benchmark.plan.protocols.detection import DETECTIONS as CONFIGS
from benchmark.plan.protocols.detection import DetectionSmoke, DetectionVoc0712
from benchmark.train import checkpoint
from benchmark.train.loop import Diverged
from benchmark.train.stop import Stopped, StopRequest
from methods.encoders import EncoderConfig, build_encoder
from tests.evaluate.detection.slow_score import slow_score

COCO128 = Path(__file__).resolve().parents[4] / "shared" / "data" / "coco128.tar.gz"
SMALL = {
    "dataset": "shapes", "masks": False, "train_sides": (96,), "test_side": 96, "max_side": 160, "fpn_width": 32,
    "anchor_sides": (12, 20, 32, 48, 72), "head_width": 128, "warmup_iterations": 10, "precise_bn": 10, "learning_rate": 0.04,
}  # fmt: skip
TINY = SMALL | {
    "iterations": 5, "milestones": (3,), "batch_size": 2, "precise_bn": 2, "train_sides": (48, 64), "test_side": 64,
    "max_side": 96, "rpn_post_nms_test": 20, "rpn_post_nms_train": 20, "roi_batch": 16, "score_threshold": 0.0, "detections": 5,
}  # fmt: skip


def protocol(**settings):
    return dataclasses.asdict(DetectionSmoke(**settings)) | {"name": "detection_smoke"}


def subject(boxes, seed=0, **settings):
    torch.manual_seed(0)
    encoder, _ = build_encoder(EncoderConfig(name="resnet10", width=0.5, stem="stride2"))
    dataset = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network = SimpleNamespace(backbone=lambda: encoder)
    return Subject(network, dataset, None, 32, ["rgb"], torch.device("cpu"), seed, boxes=lambda name: boxes, **settings)


@pytest.fixture
def predicted(monkeypatch):
    """What every trial of the test predicts, as plain values: the metrics of so small a detector are often all 0."""
    kept, real = [], builtin.score

    def score(boxes, found, classes):
        kept.append([{name: _values(value) for name, value in builtin._plain(one).items()} for one in found])
        return real(boxes, found, classes)

    monkeypatch.setattr(builtin, "score", score)
    return kept


def _values(found):
    return found.tolist() if isinstance(found, torch.Tensor) else found


@pytest.fixture(scope="module")
def drawn():
    return open_drawn(train=12, test=4)


def photo(height, width, boxes, crowd=None, labels=None):
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    outlines = tuple((np.array([x0, y0, x1, y0, x1, y1, x0, y1]),) for x0, y0, x1, y1 in corners)
    n = len(corners)
    return Photo(
        0, "photo", "0", height, width, corners, np.arange(n) if labels is None else np.array(labels), np.ones(n),
        np.zeros(n, bool) if crowd is None else np.array(crowd, bool), np.zeros(n, bool), outlines, lambda: pixels,
    )  # fmt: skip


def test_the_shorter_side_is_as_asked_unless_the_longer_one_would_exceed():
    assert resized_shape(480, 640, 800, 1333) == (800, 1067)
    assert resized_shape(640, 480, 800, 1333) == (1067, 800)
    assert resized_shape(300, 1000, 800, 1333) == (400, 1333)
    assert resized_shape(1, 2000, 800, 1333) == (1, 1333)


def test_a_flipped_photo_has_its_boxes_and_masks_flipped():
    given = photo(40, 60, [[5, 10, 25, 30], [40, 0, 60, 12]])
    plain, target = example(given, 80, 1000, False, True)
    flipped, turned = example(given, 80, 1000, True, True)
    assert plain.shape == flipped.shape == (3, 80, 120)
    assert torch.equal(target["boxes"], torch.tensor([[10.0, 20.0, 50.0, 60.0], [80.0, 0.0, 120.0, 24.0]]))
    assert torch.equal(turned["boxes"], torch.tensor([[70.0, 20.0, 110.0, 60.0], [0.0, 0.0, 40.0, 24.0]]))
    assert torch.equal(turned["masks"], target["masks"].flip(2))
    assert torch.equal(target["labels"], torch.tensor([1, 2]))  # 0 is the background
    rows = (target["boxes"] * target["mask_scale"]).long().tolist()
    for mask, (x0, y0, x1, y1) in zip(target["masks"], rows, strict=True):
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)
    wanted = np.asarray(Image.fromarray(given.pixels()[:, ::-1]).resize((120, 80), Image.Resampling.BILINEAR))
    assert np.array_equal(flipped.permute(1, 2, 0).numpy(), wanted)


def test_crowds_and_boxes_without_an_area_are_not_learned():
    given = photo(40, 60, [[5, 10, 25, 30], [7, 7, 7, 20], [0, 0, 60, 40], [50, 10, 80, 30]], crowd=[0, 0, 1, 0])
    _, target = example(given, 40, 1000, False, True)
    assert torch.equal(target["boxes"], torch.tensor([[5.0, 10.0, 25.0, 30.0], [50.0, 10.0, 60.0, 30.0]]))
    assert torch.equal(target["labels"], torch.tensor([1, 4])) and len(target["masks"]) == 2


def test_batches_are_of_one_orientation_and_each_pass_has_every_photo_once():
    upright = np.arange(11) % 3 == 0
    batches = order(upright, 5, 3)
    taken = [next(batches) for _ in range(40)]
    assert all(len({bool(upright[index]) for _, index in batch}) == 1 for batch in taken)
    seen = sorted(item for batch in taken for item in batch if item[0] < 8)
    assert seen == [(number, index) for number in range(8) for index in range(11)]
    again = order(upright, 5, 3)
    assert [next(again) for _ in range(40)] == taken
    other = order(upright, 6, 3)
    assert [next(other) for _ in range(40)] != taken


def test_a_batch_is_the_same_by_however_many_threads_and_wherever_one_begins(drawn):
    settings = protocol(**TINY) | {"masks": True}

    def some(workers, first, count):
        batches = training_batches(drawn.train, settings, 3, workers, first)
        found = [next(batches) for _ in range(count)]
        batches.close()
        return found

    whole = some(0, 0, 8)
    assert len({tuple(image.shape) for batch in whole for image, _ in batch}) > 4  # sides are drawn
    for other in (some(3, 0, 8), some(0, 5, 3), some(2, 5, 3)):
        for one, two in zip(whole[-len(other) :], other, strict=True):
            for (image, target), (second, truth) in zip(one, two, strict=True):
                assert torch.equal(image, second)
                assert all(torch.equal(target[name], truth[name]) for name in target)


def test_half_of_the_photos_are_flipped_and_all_sides_are_drawn():
    wide = photo(32, 64, [[0, 0, 16, 32]])
    settings = protocol(**TINY) | {"train_sides": (32, 48, 64), "batch_size": 1, "max_side": 500}
    batches = training_batches([wide], settings, 0, 0)
    drawn = [next(batches)[0] for _ in range(200)]
    assert 70 < sum(bool(target["boxes"][0, 0] > 0) for _, target in drawn) < 130
    sides = [image.shape[1] for image, _ in drawn]
    assert set(sides) == {32, 48, 64} and all(sides.count(side) > 40 for side in set(sides))
    never = training_batches([wide], settings | {"flip_prob": 0.0}, 0, 0)
    assert not any(next(never)[0][1]["boxes"][0, 0] for _ in range(20))


def test_the_rate_is_that_of_moco_s_24k_schedule():
    """detectron2's WarmupMultiStepLR of the released pascal_voc_R_50_C4_24k.yaml: 0.02 after 100 steps from a thousandth."""
    settings = dataclasses.asdict(DetectionVoc0712())
    wanted = {0: 0.00002, 50: 0.02 * (0.5 * 0.001 + 0.5), 99: 0.02 * (0.01 * 0.001 + 0.99), 100: 0.02, 17_999: 0.02}
    wanted |= {18_000: 0.002, 21_999: 0.002, 22_000: 0.0002, 23_999: 0.0002}
    for step, value in wanted.items():
        assert train.rate(step, settings) == pytest.approx(value, rel=1e-9), step


def test_norms_have_no_weight_decay_and_all_else_has():
    detector = build_detector(subject(None).network.backbone(), protocol(**TINY) | {"masks": True}, 10, (0,) * 3, (1,) * 3)
    optimizer = train.optimizer_for(detector, protocol(weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for layer in detector.modules():
        for p in layer.parameters(recurse=False):
            assert decays[id(p)] == (0.0 if isinstance(layer, nn.BatchNorm2d) else 0.3)


def test_precise_statistics_are_those_of_the_batches_they_were_taken_over(drawn, tmp_path):
    """mean = E[mean_B], var = E[var_B + mean_B^2] - mean^2, of the stem's batch norm, recomputed in float64."""
    settings = protocol(**TINY) | {"precise_bn": 3}
    detector = build_detector(subject(drawn).network.backbone(), settings, 10, (0.5,) * 3, (0.2,) * 3).train()
    trial = Trial(0, 1, 7)
    norm, seen = detector.backbone.trunk.stem[1], []
    hook = norm.register_forward_hook(lambda layer, given, out: seen.append(given[0].detach().double()))
    batches = training_batches(drawn.learnable, settings, 7, 0)
    before = [layer.momentum for layer in batch_norms(detector)]
    train.precise_batch_norm(subject(drawn), settings, trial, detector, batches)
    hook.remove()
    assert len(seen) == 3 and [layer.momentum for layer in batch_norms(detector)] == before
    rows = [x.transpose(0, 1).flatten(1) for x in seen]
    mean = torch.stack([row.mean(1) for row in rows]).mean(0)
    square = torch.stack([row.var(1) + row.mean(1) ** 2 for row in rows]).mean(0)
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), square - mean**2, rtol=1e-4, atol=1e-5)


def test_a_result_comes_back_to_the_photo_as_it_is_stored():
    given = photo(40, 60, [])
    result = {
        "boxes": torch.tensor([[10.0, 20.0, 50.0, 60.0], [100.0, 60.0, 121.0, 80.0]]),
        "scores": torch.tensor([0.9, 0.3]), "labels": torch.tensor([1, 4]), "masks": torch.ones(2, 28, 28),
    }  # fmt: skip
    found = builtin.prediction(given, result, 80, 120)
    assert found.boxes.tolist() == [[5, 10, 25, 30], [50, 30, 60, 40]] and found.labels.tolist() == [0, 3]
    again = builtin._from_plain(builtin._plain(found))
    assert again.boxes.tolist() == found.boxes.tolist() and again.masks == found.masks
    from pycocotools import mask

    assert [int(mask.area(code)) for code in found.masks] == [400, 100]


@pytest.fixture
def scored(monkeypatch):
    """(data set, predictions, metrics) of every scoring of the test."""
    kept, real = [], builtin.score

    def score(boxes, found, classes):
        kept.append((boxes, found, real(boxes, found, classes)))
        return kept[-1][2]

    monkeypatch.setattr(builtin, "score", score)
    return kept


def assert_scored_alike(boxes, found, metrics):
    """By pycocotools and by the definitions, box by box."""
    assert sum(len(one.boxes) for one in found) > len(boxes.test)
    slow = slow_score(boxes, found)
    if found[0].masks is not None:
        slow |= {f"mask_{name}": value for name, value in slow_score(boxes, found, masked=True).items()}
    assert {name: metrics[name] for name in slow} == pytest.approx(slow, abs=1e-6)
    return slow


@pytest.mark.slow
def test_it_learns_to_find_drawn_shapes(tmp_path, scored):
    """About 0 without training."""
    boxes = open_drawn(train=200, test=30)
    untrained = protocol(**SMALL) | {"iterations": 0, "precise_bn": 0}
    before = detection(subject(boxes), untrained, Place(tmp_path, "a")).metrics
    after = detection(subject(boxes), protocol(**SMALL, iterations=110, milestones=(90,)), Place(tmp_path, "b")).metrics
    assert before["AP50"] < 1 and after["AP50"] > 8 and after["AP"] > 3, (before, after)
    assert after["AR100"] > before["AR100"] + 15
    assert_scored_alike(*scored[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-trials.pt", "b-trials.pt"]  # gone with the record


@pytest.mark.parametrize("settings", [{}, {"architecture": "c4", "masks": True, "anchor_sides": (12, 24, 48)}])
def test_the_same_seed_gives_the_same_detector_and_another_seed_another(drawn, tmp_path, predicted, settings):
    for number, (seed, workers) in enumerate(((1, 0), (1, 2), (2, 0))):
        detection(subject(drawn, seed, workers=workers), protocol(**TINY | settings), Place(tmp_path, f"{number}"))
    assert predicted[0] == predicted[1]
    assert predicted[0] != predicted[2]
    assert all((one["masks"] is not None) == bool(settings) for one in predicted[0])


class StopAt(StopRequest):
    """Wanted from the n-th time that somebody asks."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    @property
    def wanted(self):
        self.left -= 1
        if self.left < 0:
            self.ask("the test says so")
        return self.left < 0


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_an_interrupted_detector_ends_as_one_that_was_not(drawn, tmp_path, predicted, architecture, monkeypatch):
    """Stopped wherever it can be: in the training, in the statistics, in the test, and between two trials."""
    sides = {"anchor_sides": (12, 24, 48)} if architecture == "c4" else {}
    settings = protocol(
        **TINY | sides | {"architecture": architecture, "masks": True, "trials": 2, "iterations": 3, "milestones": (2,)}
    )
    whole = detection(subject(drawn), settings, Place(tmp_path, "whole"))
    steps, real = [], train._step
    monkeypatch.setattr(train, "_step", lambda *given: steps.append(given[5]) or real(*given))
    stops = 0
    while True:
        assert stops < 40
        try:
            parts = detection(subject(drawn, stop=StopAt(stops % 5 + 1)), settings, Place(tmp_path, "parts"))
            break
        except Stopped:
            stops += 1
    assert stops >= 6
    assert steps == [0, 1, 2, 0, 1, 2]  # none is done twice
    assert parts == whole and predicted[:2] == predicted[2:]
    assert predicted[0] != predicted[1]  # the two trials


def test_a_checkpoint_of_another_trial_is_not_taken_up(drawn, tmp_path):
    place, settings = Place(tmp_path, "x"), protocol(**TINY)
    with pytest.raises(Stopped):
        detection(subject(drawn, stop=StopAt(3)), settings, place)
    assert checkpoint.load(place.checkpoint)["stage"] == "detection trial 0"
    detector = build_detector(subject(drawn).network.backbone(), settings, 10, (0,) * 3, (1,) * 3)
    optimizer = train.optimizer_for(detector, settings)
    assert train._restore(place, Trial(1, 2, 0), detector, optimizer) == (0, 0.0, False)
    assert train._restore(place, Trial(0, 2, 0), detector, optimizer)[0] > 0


def test_trials_are_trainings_of_their_own(drawn, tmp_path, predicted):
    progress = []
    settings = protocol(**TINY | {"trials": 3, "iterations": 2, "milestones": (1,)})
    found = detection(subject(drawn, report=progress.append), settings, Place(tmp_path, "x"))
    assert all(one != other for one, other in itertools.combinations(predicted, 2))
    assert len(found.chosen["trials"]) == 3 and found.metrics == means(found.chosen["trials"])
    assert [each.step for each in progress] == list(range(1, 7)) and {each.total for each in progress} == {6}


def test_metrics_are_means_over_trials_with_the_deviation_of_a_sample():
    found = means([{"AP": 50.0}, {"AP": 53.0}, {"AP": 54.5}])
    assert found["AP"] == pytest.approx(52.5) and found["AP_std"] == pytest.approx(np.std([50, 53, 54.5], ddof=1))
    assert means([{"AP": 1.0}]) == {"AP": 1.0}


def test_a_loss_that_is_not_finite_ends_it(drawn, tmp_path):
    with pytest.raises(Diverged):
        detection(subject(drawn), protocol(**TINY | {"learning_rate": 1e12, "warmup_iterations": 0}), Place(tmp_path, "x"))


def test_labels_of_test_photos_have_no_part_in_it(drawn, tmp_path, predicted):
    turned = tuple(dataclasses.replace(one, labels=(one.labels + 1) % 10) for one in drawn.test)
    for name, boxes in (("a", drawn), ("b", dataclasses.replace(drawn, test=turned))):
        detection(subject(boxes), protocol(**TINY), Place(tmp_path, name))
    assert predicted[0] == predicted[1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"engine": "builtn"}, "detection_smoke.engine is 'builtn'; .*did you mean 'builtin'"),
        ({"trials": 0}, "detection_smoke.trials is 0; at least one"),
        ({"content": "0" * 12}, "detection_smoke.content is 000000000000, the shapes at hand has"),
    ],
)
def test_what_a_protocol_cannot_say(drawn, tmp_path, settings, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        detection(subject(drawn), protocol(**TINY) | settings, Place(tmp_path, "x"))
    assert "\n" not in str(raised.value)


def test_data_that_cannot_be_learned_from_or_scored_on_are_refused_before_training(drawn, tmp_path):
    settings, place = protocol(**TINY) | {"masks": True}, Place(tmp_path, "x")
    empty = photo(40, 40, [])
    for boxes, sentence in (
        (dataclasses.replace(drawn, has_masks=False), "masks is true, but shapes has no masks"),
        (dataclasses.replace(drawn, train=(empty,)), "none of the 1 training photos of shapes has an object"),
        (dataclasses.replace(drawn, test=()), "shapes has no test photo"),
    ):
        with pytest.raises(InputError, match=sentence):
            detection(subject(boxes), settings, place)
    with pytest.raises(InputError, match="no detection data can be opened here"):
        detection(dataclasses.replace(subject(drawn), boxes=None), settings, place)
    with pytest.raises(InputError, match="sees RGB photos, but this network was trained on lab"):
        detection(dataclasses.replace(subject(drawn), channels=["lab"]), settings, place)


def test_every_detection_protocol_of_the_plan_is_measured_here():
    assert tuple(CONFIGS) == DETECTIONS


@pytest.mark.slow
def test_the_smoke_protocol_runs_on_real_photos(tmp_path, scored):
    """COCO128 from the archive as it is, with the defaults of detection_smoke."""
    if not COCO128.exists():
        pytest.skip("coco128.tar.gz is not beside the project")
    boxes = find_boxes("coco", COCO128, tmp_path / "cache").open()
    found = detection(subject(boxes), protocol(), Place(tmp_path, "x"))
    assert {"AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"} <= set(found.metrics)
    assert all(0 <= value <= 100 for value in found.metrics.values())
    slow = assert_scored_alike(*scored[-1])
    assert set(slow) <= set(found.metrics)
