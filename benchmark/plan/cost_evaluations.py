"""What evaluations cost before they run: from past records of the same protocol on the same kind of machine, else a guess.

Those on frozen features share one pass over the data set, priced once for a cell. What a protocol does beside it is counted
in units that grow with it: images that it compares or fits, or views that it takes through the encoder and back.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.plan.cost import Counts, Prices, encoder_kind, images_of, kept_images
from benchmark.plan.protocols.finetune import epochs_trained

Protocol = Mapping[str, Any]
Evaluated = tuple[dict[str, Any], dict[str, Any]]  # a cell's config, a record of an evaluation of it

_FORWARD = 1 / 3  # of forward and backward; a probe's own layer costs little beside the encoder
# Seconds for every image that is compared with others or fitted, once the features are there: a CPU core's as measured on
# 3,600 images of 512 features, a GPU's is a guess.
_ON_FEATURES = {"cpu": 3e-4, "cuda": 1e-5}
_START = 1.0  # seconds of every evaluation, whatever it does
# What a detector costs beside the encoder's own views of the same pixels: with `c4` the last stage runs on each of 512
# regions (multiply-adds counted by hand for 800 x 1,200 pixels), with `fpn` the pyramid and two small heads.
_DETECTOR = {"c4": 7.0, "fpn": 2.3}
_ASPECT = 1.4  # of a photograph; its shorter side is what a protocol says
_BOXES_TEST = {"voc07": 4_952, "voc0712": 4_952, "coco": 5_000, "shapes": 100}


def uses_features(protocol: Protocol) -> bool:
    """Whether it wants the features of the whole data set: for all it does, or as a probe to compare itself with."""
    trains = "epochs" in protocol or "iterations" in protocol
    return bool(protocol.get("gap")) if trains else protocol["name"] != "attention"


def effort(protocol: Protocol, config: Mapping[str, Any], images: Counts) -> float:
    """Units of what it does beside the features: views of the cell's own size, each forward and backward; else images."""
    kept, test = kept_images(config, images), images_of(config, images, "test")
    if "iterations" in protocol:
        return _detection(protocol, config)
    if "epochs" not in protocol:
        return float(kept + test)
    if "labels" in protocol:
        views = _finetuning(protocol, config, images)
    elif "teacher" in protocol:
        every = images_of(config, images, "train")  # the student learns from the held-out images too
        views = _finetuning(protocol["teacher"], config, images) + protocol["epochs"] * every * (1 + _FORWARD)
    else:  # a probe: the layers of all rates learn side by side, then the best one once more
        views = protocol["epochs"] * kept * _FORWARD * (2 if len(protocol.get("learning_rates", ())) > 1 else 1)
    return float(views + test * _FORWARD)


def _finetuning(protocol: Protocol, config: Mapping[str, Any], images: Counts) -> float:
    return epochs_trained(protocol) * images_of(config, images, "train") * _share(protocol["labels"])


def _share(labels: str) -> float:
    """`10%` -> 0.1; a file of labelled images is taken for all of them."""
    return float(labels.removesuffix("%")) / 100 if labels.endswith("%") else 1.0


def _detection(protocol: Protocol, config: Mapping[str, Any]) -> float:
    sides = protocol["train_sides"]
    train, test = statistics.mean(sides), protocol["test_side"]
    views = protocol["iterations"] * protocol["batch_size"] * train**2
    views += (protocol.get("test_photos") or _BOXES_TEST[protocol["dataset"]]) * test**2 * _FORWARD
    detector = _DETECTOR.get(protocol["architecture"], 3.0)
    return float(protocol.get("trials", 1) * views * _ASPECT * detector / config["data"]["image_size"] ** 2)


@dataclass
class EvaluationPrices:
    """Measured rates of a store for one kind of device, beside those of training.

    own: seconds a unit of `effort` by protocol and encoder; passes: seconds an image of taking the features.
    """

    training: Prices
    own: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)
    passes: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)

    @classmethod
    def from_records(cls, evaluated: Iterable[Evaluated], training: Prices) -> EvaluationPrices:
        """Those whose timing is whole: neither of an older version nor of an evaluation that was interrupted."""
        prices = cls(training)
        for config, record in evaluated:
            timing = record.get("timing") or {}
            device = ((record.get("provenance") or {}).get("hardware") or {}).get("device")
            whole = record["status"] == "done" and "features_seconds" in timing and not timing.get("resumed")
            if device != training.device or not whole:
                continue
            passing = timing["features_seconds"]
            if passing and (images := _all_images(config, training)):
                prices.passes.setdefault(encoder_kind(config), []).append(passing / images)
            if units := effort(record["protocol"], config, training.images):
                own = max(timing["wall_seconds"] - passing, 0.0) / units
                prices.own.setdefault(_kind(record["protocol"], config), []).append(own)
        return prices

    def seconds(self, protocols: Iterable[Protocol], config: dict[str, Any]) -> tuple[float, float]:
        """(seconds of one device for all of them on one cell, how many of these are guessed rather than measured)."""
        protocols = list(protocols)
        parts = [self._own(protocol, config) for protocol in protocols]
        if any(map(uses_features, protocols)):
            parts.append(self._pass(config))
        return sum(seconds for seconds, _ in parts), sum(seconds for seconds, measured in parts if not measured)

    def _own(self, protocol: Protocol, config: dict[str, Any]) -> tuple[float, bool]:
        units = effort(protocol, config, self.training.images)
        if rates := self.own.get(_kind(protocol, config)):
            return units * statistics.median(rates), True
        if "epochs" not in protocol and "iterations" not in protocol:
            return _START + units * _ON_FEATURES[self.training.device], False
        return _START + units / self.training.rate(config), False

    def _pass(self, config: dict[str, Any]) -> tuple[float, bool]:
        images = _all_images(config, self.training)
        if rates := self.passes.get(encoder_kind(config)):
            return images * statistics.median(rates), True
        return images * _FORWARD / self.training.rate(config), False


def _all_images(config: Mapping[str, Any], training: Prices) -> int:
    """The images whose features are taken."""
    return images_of(config, training.images, "train") + images_of(config, training.images, "test")


def _kind(protocol: Protocol, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Evaluations whose seconds grow alike."""
    telling = ("name", "dataset", "architecture", "engine", "precision")
    return (*(protocol.get(key) for key in telling), *encoder_kind(config))
