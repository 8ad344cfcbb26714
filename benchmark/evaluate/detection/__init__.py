"""Detection and segmentation transfer: the encoder fine-tuned as the trunk of a detector, by one of two engines.

Every protocol of benchmark.plan.protocols.detection is measured by `detection`, whatever its engine: the same data, the same
schedule, the same score. Nothing is chosen: the schedule is the paper's and the last iteration is what is tested.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.data.boxes import BoxSet
from benchmark.errors import InputError, nearest
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.train import checkpoint
from benchmark.train.loop import Progress
from benchmark.train.seeding import stream

# Those of benchmark.plan.protocols.detection; this room does not import that one.
DETECTIONS = (
    "detection",
    "detection_voc07",
    "detection_voc0712",
    "detection_voc0712_swav",
    "detection_coco",
    "detection_coco_2x",
    "detection_coco_fpn",
    "detection_coco_fpn_2x",
    "detection_smoke",
)


@dataclass(frozen=True)
class Trial:
    """One of the `count` repetitions of a protocol, with a random seed of its own. number: from 0."""

    number: int
    count: int
    seed: int

    @property
    def stage(self) -> str:
        """What its checkpoint calls it, so that no trial takes up another's."""
        return f"detection trial {self.number}"


# One training and its test: raises Stopped after a checkpoint at place.checkpoint, Diverged, or InputError.
Engine = Callable[[Subject, dict[str, Any], Place, BoxSet, Trial], dict[str, float]]


def _builtin() -> Engine:
    from benchmark.evaluate.detection.builtin import measure

    return measure


def _detectron2() -> Engine:
    from benchmark.evaluate.detection.detectron import measure

    return measure


ENGINES: dict[str, Callable[[], Engine]] = {"builtin": _builtin, "detectron2": _detectron2}


def detection(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """AP, AP50, AP75 and the rest of `score`, as means over the trials, with `<metric>_std` where there are several (that of
    a sample, n - 1). `chosen` has every trial's own numbers.

    A finished trial is not repeated after an interruption.
    """
    name = protocol["engine"]
    if name not in ENGINES:
        raise InputError(
            f"{protocol['name']}.engine is '{name}'; it must be one of {', '.join(ENGINES)}{nearest(name, ENGINES)}"
        )
    if protocol["trials"] < 1:
        raise InputError(f"{protocol['name']}.trials is {protocol['trials']}; at least one training is needed")
    if list(subject.channels) != ["rgb"]:
        raise InputError(
            f"{protocol['name']}: a detector sees RGB photos, but this network was trained on {', '.join(subject.channels)}"
        )
    boxes = _opened(subject, protocol)
    measure = ENGINES[name]()
    kept = place.file("trials.pt")
    done: list[dict[str, float]] = checkpoint.load(kept)["trials"] if kept.exists() else []
    for number in range(len(done), protocol["trials"]):
        subject.stop.heed()
        trial = Trial(number, protocol["trials"], stream(subject.seed, f"detection/{number}"))
        done.append(measure(_reporting(subject, trial, protocol["batch_size"]), protocol, place, boxes, trial))
        subject.check()
        checkpoint.save(kept, {"trials": done})
        place.checkpoint.unlink(missing_ok=True)
    # The file of finished trials stays until the evaluation has its record: whoever writes that removes it.
    return Found(means(done), {"trials": done})


def means(trials: list[dict[str, float]]) -> dict[str, float]:
    """Of every metric, and its standard deviation where there are at least two trials."""
    found = {name: statistics.fmean(trial[name] for trial in trials) for name in trials[0]}
    if len(trials) > 1:
        found |= {f"{name}_std": statistics.stdev(trial[name] for trial in trials) for name in trials[0]}
    return found


def _opened(subject: Subject, protocol: dict[str, Any]) -> BoxSet:
    if subject.boxes is None:
        raise InputError(f"{protocol['name']}: no detection data can be opened here; name them with --data")
    boxes: BoxSet = subject.boxes(protocol["dataset"])
    planned = protocol.get("content")
    if planned and planned != boxes.content:
        raise InputError(
            f"{protocol['name']}.content is {planned}, the {boxes.name} at hand has {boxes.content}; point --data at the "
            "boxes this was planned for"
        )
    if protocol["masks"] and not boxes.has_masks:
        raise InputError(f"{protocol['name']}.masks is true, but {boxes.name} has no masks; set it to false")
    boxes = boxes.take(protocol["train_photos"], protocol["test_photos"])
    if not boxes.learnable:
        raise InputError(
            f"{protocol['name']}: none of the {len(boxes.train)} training photos of {boxes.name} has an object to learn from"
        )
    if not boxes.test:
        raise InputError(f"{protocol['name']}: {boxes.name} has no test photo to score on")
    return boxes


def _reporting(subject: Subject, trial: Trial, batch_size: int) -> Subject:
    """The same subject; its reports count over all trials."""

    def told(progress: Progress) -> None:
        still = (trial.count - 1 - trial.number) * progress.total * batch_size
        subject.report(
            dataclasses.replace(
                progress,
                step=trial.number * progress.total + progress.step,
                total=trial.count * progress.total,
                eta_seconds=progress.eta_seconds + still / max(progress.images_per_second, 1e-9),
            )
        )

    return dataclasses.replace(subject, report=told)
