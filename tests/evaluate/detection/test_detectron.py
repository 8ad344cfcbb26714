import itertools

import numpy as np
import pytest
import torch

from benchmark.data.boxes import BoxSet, Photo, find_boxes
from benchmark.errors import InputError
from benchmark.evaluate.detection import Trial, detection, detectron, inputs
from benchmark.evaluate.detection.score import Prediction, encode, score
from benchmark.evaluate.subject import Place
from benchmark.train.stop import Stopped, StopRequest
from methods.encoders import EncoderConfig
from tests.evaluate.detection.detectrons import build, installed, needs_detectron2, said
from tests.evaluate.subjects import drawn_subject


@pytest.fixture(scope="module")
def drawn():
    return find_boxes("shapes", None).open().take(24, 6)


@pytest.mark.skipif(installed, reason="detectron2 is installed")
def test_engine_that_is_not_installed_is_one_sentence(tmp_path, drawn):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    subject.boxes = lambda name: drawn
    with pytest.raises(
        InputError, match=r"detection_smoke\.engine is 'detectron2', which is not installed here; install"
    ) as error:
        detection(subject, said(), Place(tmp_path, "detection"))
    assert "\n" not in str(error.value)


@needs_detectron2
def test_batches_show_the_photos_of_the_built_in_engine(drawn):
    protocol = said(batch_size=3)
    ours = inputs.training_batches(drawn.learnable, protocol, 5, 0, 2)
    theirs = detectron.training_batches(drawn.learnable, protocol, 5, 0, 2)
    flipped = 0
    for one, other in itertools.islice(zip(ours, theirs, strict=True), 6):
        for (image, target), entry in zip(one, other, strict=True):
            instances = entry["instances"]
            assert entry["image"].shape == image.shape and entry["image"].dtype == torch.uint8
            assert (entry["image"].int() - image.int()).abs().max() <= 1  # flipped before or after resizing
            torch.testing.assert_close(instances.gt_boxes.tensor, target["boxes"], rtol=0, atol=1e-3)
            assert torch.equal(instances.gt_classes + 1, target["labels"])
            assert instances.gt_masks.tensor.shape == (len(target["boxes"]), *image.shape[1:])
            flipped += 1
    assert flipped == 18


@needs_detectron2
def test_sizes_are_detectron2s():
    from detectron2.data.transforms import ResizeShortestEdge

    draws = np.random.default_rng(0).integers(20, 700, (300, 4))
    for height, width, side, longest in draws.tolist():
        assert inputs.resized_shape(height, width, side, longest) == ResizeShortestEdge.get_output_shape(
            height, width, side, longest
        )


@needs_detectron2
def test_regions_are_drawn_anew_at_every_step_and_alike_at_the_same(drawn):
    protocol = said(roi_batch=4, rpn_batch=4)
    detector, trial = build(protocol).train(), Trial(0, 1, 3)
    batch = next(detectron.training_batches(drawn.learnable, protocol, 0, 0))
    losses = [float(detectron.losses_of(detector, batch, protocol, of, step)) for of, step in
              ((trial, 0), (trial, 0), (trial, 1), (Trial(1, 2, 4), 0))]  # fmt: skip
    assert losses[0] == losses[1] and len(set(losses)) == 3


def photo(outlines=None, crowd=(False, True), number=0):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[10.0, 5.0, 30.0, 25.0], [0.0, 0.0, 60.0, 40.0]])
    labels, areas, difficult = np.array([1, 0]), np.array([400.0, 2400.0]), np.zeros(2, bool)
    name = f"photo {number}"
    return Photo(number, name, "", 40, 60, boxes, labels, areas, np.array(crowd), difficult, outlines, pixels.copy)


@needs_detectron2
def test_polygons_stay_polygons_and_crowds_are_left_out():
    square = np.array([10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0])
    whole = {"size": [40, 60], "counts": [0, 2400]}  # not compressed, as COCO's crowds
    entry = detectron.example(photo((((square),), whole)), 80, 1000, True, True)
    assert entry["image"].shape == (3, 80, 120)
    np.testing.assert_allclose(entry["instances"].gt_boxes.tensor.numpy(), [[60.0, 10.0, 100.0, 50.0]])
    np.testing.assert_allclose(entry["instances"].gt_masks.polygons[0][0], [100, 10, 60, 10, 60, 50, 100, 50])
    assert entry["instances"].gt_classes.tolist() == [1]
    both = detectron.example(photo((((square),), whole), crowd=(False, False)), 40, 1000, False, True, "bitmask")
    assert both["instances"].gt_masks.tensor.sum((1, 2)).tolist() == [400, 2400]


def trained(subject, protocol, place, photos, stop_at=None):
    """The detector after `train`, which is told to stop after so many reports; then again until it is done."""
    detector = build(protocol, subject.network.backbone())
    subject.stop, seen = StopRequest(), []

    def report(progress):
        seen.append(progress.step)
        if stop_at is not None and len(seen) == stop_at:
            subject.stop.ask("the test says so")

    subject.report = report
    detectron.train(subject, protocol, place, photos, Trial(0, 1, 3), detector)
    return detector, seen


@needs_detectron2
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_training_ends_with_the_same_bits(tmp_path, drawn, workers):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    subject.workers = workers
    protocol = said(iterations=4, milestones=(2,), warmup_iterations=2)
    whole, seen = trained(subject, protocol, Place(tmp_path, "whole"), drawn.learnable)
    assert seen == [1, 2, 3, 4] and not whole.training
    place = Place(tmp_path, "parts")
    with pytest.raises(Stopped):
        trained(subject, protocol, place, drawn.learnable, stop_at=2)
    with pytest.raises(Stopped):  # before the population statistics
        trained(subject, protocol, place, drawn.learnable, stop_at=2)
    parts, seen = trained(subject, protocol, place, drawn.learnable)
    assert seen == []
    one, other = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    again, _ = trained(subject, protocol, place, drawn.learnable)  # the statistics are not taken twice
    assert all(torch.equal(one[name], value) for name, value in again.state_dict().items())


@needs_detectron2
def test_population_statistics_replace_the_running_ones(tmp_path, drawn):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    found = {}
    for number in (0, 2):
        protocol = said(iterations=2, milestones=(1,), precise_bn=number)
        found[number] = trained(subject, protocol, Place(tmp_path, f"{number}"), drawn.learnable)[0]
    plain, precise = found[0].state_dict(), found[2].state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], precise[name])}
    assert changed and all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    images = [
        entry["image"]
        for batch in itertools.islice(detectron.training_batches(drawn.learnable, protocol, 3, 0, 2), 2)
        for entry in batch
    ]
    stem, sums = found[2].backbone.bottom_up.stem.conv1, []
    for pair in (images[:2], images[2:]):  # each batch on a canvas of its own
        canvas = found[2].preprocess_image([{"image": image} for image in pair]).tensor
        sums.append(torch.nn.functional.conv2d(canvas, stem.weight, stride=2, padding=3))
    values = torch.cat([x.transpose(0, 1).flatten(1) for x in sums], dim=1)
    torch.testing.assert_close(stem.norm.running_mean, values.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stem.norm.running_var, values.var(1, correction=0), rtol=1e-3, atol=1e-4)


@needs_detectron2
def test_diverged_training_says_at_which_step(tmp_path, drawn):
    from benchmark.train.loop import Diverged

    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="imagenet", width=0.25))
    protocol = said(iterations=8, milestones=(7,), warmup_iterations=0, learning_rate=1e12)
    with pytest.raises(Diverged):
        trained(subject, protocol, Place(tmp_path, "diverged"), drawn.learnable)


@needs_detectron2
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_protocol_on_drawn_shapes(tmp_path, drawn, precision):
    subject = drawn_subject(tmp_path, EncoderConfig(name="resnet10", stem="stride2", width=0.25))
    subject.boxes = lambda name: drawn
    place = Place(tmp_path, "detection")
    found = detection(subject, said(iterations=2, milestones=(1,), trials=2, precision=precision), place)
    assert {"AP", "AP50", "AP75", "mask_AP", "AP_std"} <= found.metrics.keys()
    assert len(found.chosen["trials"]) == 2
    assert sorted(path.name for path in tmp_path.glob("detection*")) == ["detection-trials.pt"]  # gone with the record


def guesses(boxes: BoxSet, seed: int) -> list[Prediction]:
    """Near the truth, with wrong ones among them; no two scores alike."""
    draw = np.random.default_rng(seed)
    found = []
    for one in boxes.test:
        near = np.repeat(one.boxes, 2, axis=0)
        near = near + draw.normal(0, 3, near.shape)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:] - 1), near[:, 2:]], axis=1)
        labels = np.where(
            draw.random(len(near)) < 0.8, np.repeat(one.labels, 2), draw.integers(0, len(boxes.classes), len(near))
        )
        truth = one.masks()[np.repeat(np.arange(len(one.boxes)), 2)]
        masks = np.stack([np.roll(mask, int(draw.integers(-3, 4)), axis=1) for mask in truth]) if len(truth) else truth
        found.append(Prediction(near.astype(np.float32).astype(float), draw.random(len(near)), labels, encode(masks)))
    return found


@needs_detectron2
def test_score_equals_detectron2s_coco_evaluator(tmp_path):
    import contextlib
    import io

    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances
    from pycocotools import mask

    boxes = find_boxes("shapes", None).open().take(1, 40)
    name = f"drawn_of_the_tests_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: [detectron.described(one, True) for one in boxes.test])
    MetadataCatalog.get(name).set(thing_classes=list(boxes.classes))
    found = guesses(boxes, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOEvaluator(name, ("bbox", "segm"), False, str(tmp_path), use_fast_impl=False)
        evaluator.reset()
        for one, guess in zip(boxes.test, found, strict=True):
            instances = Instances((one.height, one.width))
            instances.pred_boxes = Boxes(torch.from_numpy(guess.boxes))
            instances.scores, instances.pred_classes = torch.from_numpy(guess.scores), torch.from_numpy(guess.labels)
            instances.pred_masks = torch.from_numpy(np.stack([mask.decode(code) for code in guess.masks]).astype(bool))
            evaluator.process([{"image_id": one.id}], [{"instances": instances}])
        theirs = evaluator.evaluate()
    DatasetCatalog.remove(name)
    ours = score(boxes, found)
    for metric in ("AP", "AP50", "AP75", "APs", "APm"):
        assert 0 < ours[metric] < 100
        assert ours[metric] == pytest.approx(theirs["bbox"][metric], abs=1e-6)
        assert ours[f"mask_{metric}"] == pytest.approx(theirs["segm"][metric], abs=1e-6)
