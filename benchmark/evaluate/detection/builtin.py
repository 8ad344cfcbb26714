"""The built-in engine: our detector on torchvision's parts, trained and tested here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.data.boxes import BoxSet, Photo
from benchmark.evaluate.detection import Trial
from benchmark.evaluate.detection.inputs import made, resized, resized_shape
from benchmark.evaluate.detection.model import build_detector
from benchmark.evaluate.detection.score import Prediction, encode, score
from benchmark.evaluate.detection.train import train
from benchmark.evaluate.fit import finite
from benchmark.evaluate.subject import Place, Subject
from benchmark.train import checkpoint
from benchmark.train.loop import CHECKPOINT_SECONDS, Diverged
from benchmark.train.seeding import seed_everything

_PASTED = 16  # masks at once: a hundred of a large photo would take a gigabyte


# NOTE(departs): MoCo's detectors were trained by detectron2 on eight GPUs with two photos each, a photo padded to the size of
# the other; here a step's photos are one batch on one device, padded to the largest, and batch statistics see those borders.
# NOTE(departs): Mask targets are the filled outlines pooled into each region, as detectron2 does with bit masks; with polygons,
# its default, it fills the polygon on the region's own grid.
def measure(subject: Subject, protocol: dict[str, Any], place: Place, boxes: BoxSet, trial: Trial) -> dict[str, float]:
    """One trial: new layers drawn, everything trained, the test photos scored."""
    seed_everything(trial.seed, "init")
    mean, std = subject.dataset.mean, subject.dataset.std
    detector = build_detector(subject.network.backbone(), protocol, len(boxes.classes), mean, std)
    detector = detector.to(subject.device, memory_format=torch.channels_last)
    photos = boxes.learnable
    subject.log.info("%s: %d photos to train on, %d to test on", trial.stage, len(photos), len(boxes.test))
    train(subject, protocol, place, photos, trial, detector)
    if not finite(detector):  # no loss follows the last step, and a detector of NaN finds nothing, without a word
        raise Diverged(protocol["iterations"])
    found = predict(subject, protocol, place, trial, detector, boxes.test)
    metrics = score(boxes, found, boxes.classes)
    place.file("predictions.pt").unlink(missing_ok=True)
    return metrics


@torch.no_grad()
def predict(
    subject: Subject, protocol: dict[str, Any], place: Place, trial: Trial, detector: nn.Module, photos: Sequence[Photo]
) -> list[Prediction]:
    """What the detector, in evaluation mode, finds on each photo, one photo at a time. What is done is kept over an
    interruption; raises Stopped."""
    kept = place.file("predictions.pt")
    state: dict[str, Any] = checkpoint.load(kept) if kept.exists() else {"stage": ""}
    found: list[Prediction] = [_from_plain(one) for one in state["found"]] if state["stage"] == trial.stage else []
    saved = time.monotonic()

    def make(photo: Photo) -> Tensor:
        return resized(photo.pixels(), *resized_shape(photo.height, photo.width, protocol["test_side"], protocol["max_side"]))

    rest = iter([[photo] for photo in photos[len(found) :]])
    with closing(made(make, rest, subject.workers)) as images:
        for photo, (image,) in zip(photos[len(found) :], images, strict=True):
            with torch.autocast(subject.device.type, torch.bfloat16, enabled=protocol["precision"] == "bf16"):
                (result,) = detector([image.to(subject.device)])
            found.append(prediction(photo, result, image.shape[1], image.shape[2]))
            now, done = time.monotonic(), len(found) == len(photos)
            if not done and (subject.stop.wanted or now - saved > 10 * CHECKPOINT_SECONDS):
                subject.check()
                checkpoint.save(kept, {"stage": trial.stage, "found": [_plain(one) for one in found]})
                saved = now
                subject.stop.heed()
    return found


def prediction(photo: Photo, result: dict[str, Tensor], height: int, width: int) -> Prediction:
    """A detector's result on a photo resized to height x width, in pixels of the photo; labels from 0."""
    scale = result["boxes"].new_tensor([photo.width / width, photo.height / height] * 2)
    edge = result["boxes"].new_tensor([photo.width, photo.height] * 2)
    boxes = torch.minimum((result["boxes"] * scale).clamp_min(0), edge)
    masks = None
    if "masks" in result:
        some = zip(result["masks"].split(_PASTED), boxes.split(_PASTED), strict=True)
        masks = [code for part in some for code in encode(pasted(*part, photo.height, photo.width).cpu().numpy())]
    return Prediction(
        boxes.double().cpu().numpy(), result["scores"].double().cpu().numpy(), result["labels"].cpu().numpy() - 1, masks
    )


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Probabilities on a grid over each box, n x side x side -> bool n x height x width: 1/2 or more at a pixel's centre,
    bilinear between the grid's cells, 0 outside the box."""
    low, size = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp_min(1e-6)
    x = (torch.arange(width, device=boxes.device) + 0.5 - low[..., 0]) / size[..., 0] * 2 - 1  # n x width, -1..1 in the box
    y = (torch.arange(height, device=boxes.device) + 0.5 - low[..., 1]) / size[..., 1] * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(masks[:, None].float(), grid, align_corners=False)[:, 0] >= 0.5


def _plain(found: Prediction) -> dict[str, Any]:
    """As a checkpoint can hold it."""
    arrays = {name: torch.from_numpy(getattr(found, name)) for name in ("boxes", "scores", "labels")}
    return arrays | {"masks": None if found.masks is None else list(found.masks)}


def _from_plain(plain: dict[str, Any]) -> Prediction:
    return Prediction(plain["boxes"].numpy(), plain["scores"].numpy(), plain["labels"].numpy(), plain["masks"])
