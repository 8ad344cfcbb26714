"""The engine `detectron2`: the papers' detectors, trained by the code that they were trained with.

Model, losses, optimizer, schedule, resizing and population statistics are detectron2's. The data, the order and the draws of
the photos and the score are the built-in engine's, so that a training that was stopped goes on with the same photos, and the
predictions of both engines are judged alike. Their numbers are not to be compared: they are different detectors.

NOTE(departs): MoCo's detectors were trained on eight GPUs with two photos each, whose norms weigh every GPU alike; here a
step's photos are one batch on one device, padded to the largest, so batch statistics see other borders.
"""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data import keys
from benchmark.data.boxes import BoxSet, Photo
from benchmark.data.keys import counters, stream, uniform
from benchmark.errors import InputError
from benchmark.evaluate.detection import Trial
from benchmark.evaluate.detection.builtin import predict
from benchmark.evaluate.detection.inputs import made, order
from benchmark.evaluate.detection.score import score
from benchmark.evaluate.fit import finite
from benchmark.evaluate.subject import Place, Subject
from benchmark.train import checkpoint
from benchmark.train.loop import CHECKPOINT_SECONDS, Diverged, Progress
from benchmark.train.seeding import seed_everything
from benchmark.train.seeding import stream as seed_of

if TYPE_CHECKING:
    from detectron2.modeling import GeneralizedRCNN

Batch = list[dict[str, Any]]  # as detectron2's models take it


def measure(subject: Subject, protocol: dict[str, Any], place: Place, boxes: BoxSet, trial: Trial) -> dict[str, float]:
    """One trial: new layers drawn, everything trained, the test photos scored."""
    require(protocol["name"])
    from benchmark.evaluate.detection.detectron_model import Results, build_detector

    seed_everything(trial.seed, "init")
    mean, std = subject.dataset.mean, subject.dataset.std
    detector = build_detector(subject.network.backbone(), protocol, len(boxes.classes), mean, std).to(subject.device)
    photos = boxes.learnable
    subject.log.info("%s: %d photos to train on, %d to test on", trial.stage, len(photos), len(boxes.test))
    train(subject, protocol, place, photos, trial, detector)
    if not finite(detector):  # no loss follows the last step, and detectron2 drops boxes of NaN without a word
        raise Diverged(protocol["iterations"])
    found = predict(subject, protocol, place, trial, Results(detector), boxes.test)
    metrics = score(boxes, found, boxes.classes)
    place.file("predictions.pt").unlink(missing_ok=True)
    return metrics


def require(name: str) -> None:
    """Import detectron2, without PyTorch's advice on how it is written; InputError where that cannot be done."""
    advice = "install it as the README says under Detection, or set engine to builtin"
    if importlib.util.find_spec("detectron2") is None:
        raise InputError(f"{name}.engine is 'detectron2', which is not installed here; {advice}")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release")
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    try:
        import detectron2._C
        import detectron2.modeling  # noqa: F401
    except ImportError as error:  # built for another PyTorch
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{name}.engine is 'detectron2', whose installation cannot be imported ({reason}); build it again for this "
            "PyTorch, or set engine to builtin"
        ) from error


def train(
    subject: Subject, protocol: dict[str, Any], place: Place, photos: Sequence[Photo], trial: Trial, detector: GeneralizedRCNN
) -> None:
    """All iterations from wherever the checkpoint stands, then the population statistics; the detector is left in evaluation
    mode. Raises Stopped after a checkpoint, Diverged where a loss is not finite."""
    from detectron2.engine.hooks import PreciseBN
    from detectron2.solver import build_lr_scheduler, build_optimizer

    from benchmark.evaluate.detection.detectron_model import settings

    cfg = settings(protocol, classes=1)  # of which the optimizer reads nothing
    optimizer = build_optimizer(cfg, detector)
    schedule = build_lr_scheduler(cfg, optimizer)
    step, before, ready = 0, 0.0, False
    if place.checkpoint.exists() and (state := checkpoint.load(place.checkpoint))["stage"] == trial.stage:
        detector.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, before, ready = state["step"], state["seconds"], state["ready"]
    total, size = protocol["iterations"], protocol["batch_size"]
    started = saved = time.monotonic()
    first = step

    def save(ready: bool) -> None:
        subject.check()
        state = {"stage": trial.stage, "trained": detector.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {
            "schedule": schedule.state_dict(),
            "step": step,
            "seconds": before + time.monotonic() - started,
            "ready": ready,
        }
        checkpoint.save(place.checkpoint, state)

    detector.train()
    with closing(training_batches(photos, protocol, trial.seed, subject.workers, step)) as batches:
        while step < total:
            loss = losses_of(detector, next(batches), protocol, trial, step)
            value = float(loss.detach())
            if not torch.isfinite(loss):
                raise Diverged(step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            now = time.monotonic()
            pace = (step - first) * size / max(now - started, 1e-9)
            subject.report(
                Progress(step, total, step * size / len(photos), value, pace, (total - step) * size / max(pace, 1e-9))
            )
            if step == total or subject.stop.wanted or now - saved > CHECKPOINT_SECONDS:
                save(ready=False)
                saved = time.monotonic()
                subject.stop.heed()
        if not ready and protocol["precise_bn"]:
            shown = _Shown(subject, detector, protocol, trial)
            PreciseBN(0, shown, enumerate(batches, total), protocol["precise_bn"]).update_stats()
            save(ready=True)
    detector.eval()
    subject.log.info("%s: trained %d steps in %.0f s", trial.stage, total, before + time.monotonic() - started)


def losses_of(detector: GeneralizedRCNN, batch: Batch, protocol: dict[str, Any], trial: Trial, step: int) -> Tensor:
    """The sum of the losses of one batch. Which anchors and regions are drawn depends on the trial and the step alone.
    Diverged where proposals are not finite."""
    from detectron2.utils.events import EventStorage

    torch.manual_seed(seed_of(trial.seed, f"step {step}"))
    # detectron2's models write what they count to the storage around them; nobody reads this one.
    with EventStorage(step), torch.autocast(detector.device.type, torch.bfloat16, enabled=protocol["precision"] == "bf16"):
        try:
            losses = detector(batch)
        except FloatingPointError:  # detectron2's word for proposals that are not finite, before there is a loss
            raise Diverged(step) from None
    return torch.stack([loss.float() for loss in losses.values()]).sum()


class _Shown(nn.Module):
    """Lets the trained detector see (step, batch) without learning from it; raises Stopped."""

    def __init__(self, subject: Subject, detector: GeneralizedRCNN, protocol: dict[str, Any], trial: Trial) -> None:
        super().__init__()
        self.subject, self.detector, self.protocol, self.trial = subject, detector, protocol, trial

    def forward(self, at: tuple[int, Batch]) -> None:
        self.subject.stop.heed()
        step, batch = at
        losses_of(self.detector, batch, self.protocol, self.trial, step)


def training_batches(
    photos: Sequence[Photo], protocol: dict[str, Any], seed: int, workers: int, first: int = 0
) -> Generator[Batch, None, None]:
    """Endless, from batch number `first` on: the photos, sides and flips of the built-in engine's batches."""
    upright = np.array([photo.height > photo.width for photo in photos])
    sides, longest = protocol["train_sides"], protocol["max_side"]
    # detectron2 keeps polygons and cuts each region's mask from them; run-length codes it can only take as bits.
    coded = protocol["masks"] and any(isinstance(outline, dict) for photo in photos for outline in photo.outlines or ())

    def make(at: tuple[int, int]) -> dict[str, Any]:
        number, index = at
        start = counters(stream(keys.VIEWS, seed, number), np.array([index]))
        flipped = bool(uniform(start, 0)[0] < protocol["flip_prob"])
        side = sides[int(uniform(start, 1)[0] * len(sides))]
        return example(photos[index], side, longest, flipped, protocol["masks"], "bitmask" if coded else "polygon")

    yield from made(make, islice(order(upright, seed, protocol["batch_size"]), first, None), workers)


def example(photo: Photo, side: int, longest: int, flipped: bool, masks: bool, masks_as: str = "polygon") -> dict[str, Any]:
    """A training photo and its objects, crowds left out, resized and flipped by detectron2's own transforms."""
    from detectron2.data import detection_utils
    from detectron2.data import transforms as T

    pixels = photo.pixels()
    height, width = T.ResizeShortestEdge.get_output_shape(photo.height, photo.width, side, longest)
    changes = [T.ResizeTransform(photo.height, photo.width, height, width), *([T.HFlipTransform(width)] if flipped else [])]
    transform = T.TransformList(changes)
    objects = [
        detection_utils.transform_instance_annotations(one, transform, (height, width))
        for one in described(photo, masks)["annotations"]
        if not one["iscrowd"]
    ]
    instances = detection_utils.annotations_to_instances(objects, (height, width), masks_as)
    image = np.ascontiguousarray(transform.apply_image(pixels).transpose(2, 0, 1))
    return {"image": torch.from_numpy(image), "instances": detection_utils.filter_empty_instances(instances)}


def described(photo: Photo, masks: bool) -> dict[str, Any]:
    """A photo in detectron2's standard form of a dataset's entry."""
    from detectron2.structures import BoxMode

    objects = []
    for row, box in enumerate(photo.boxes.tolist()):
        entry = {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": int(photo.labels[row]),
            "iscrowd": int(photo.crowd[row]),
        }
        if masks:
            assert photo.outlines is not None
            outline = photo.outlines[row]
            entry["segmentation"] = [list(polygon) for polygon in outline] if isinstance(outline, tuple) else photo.code(row)
        objects.append(entry)
    about = {"file_name": photo.name, "image_id": photo.id, "height": photo.height, "width": photo.width}
    return about | {"annotations": objects}
