"""What a cell costs before it runs: from past records of the same work on the same kind of machine, else a declared guess."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from methods.views import ViewConfig

# Rough guesses in views per second for forward and backward of one view in bf16: cpu is one core of an AMD EPYC, measured
# once; cuda is one data-centre GPU, not measured here. At another size they scale with the pixels.
_GUESS: dict[str, dict[tuple[str, str], float]] = {
    "cpu": {
        ("convnet", "any"): 1900,
        ("resnet10", "stride2"): 750,
        ("resnet18", "cifar"): 57,
        ("resnet18", "imagenet"): 510,
    },
    "cuda": {("convnet", "any"): 60000, ("resnet10", "stride2"): 40000, ("resnet18", "cifar"): 9000},
}
_GUESS_SIZE = 32
_RESNET50_224 = {"cpu": 1.0, "cuda": 1200.0}  # views/s at 224 pixels
# Multiply-adds of a view against ResNet-50's (torchvision's and timm's published counts); others count as ResNet-50.
_AS_RESNET50 = {
    "resnet34": 0.9, "resnet101": 1.9, "resnet152": 2.8, "vit_tiny": 0.3, "vit_small": 1.1, "vit_base": 4.3,
}  # fmt: skip
_PATCH = ViewConfig().patch_size
# Training and test images of the sets that are not at hand.
_FULL_SET = {
    "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "stl10": (105_000, 8_000), "tinyimagenet": (100_000, 10_000),
    "imagenet100": (126_689, 5_000), "imagenet": (1_281_167, 50_000), "shapes": (20_000, 4_000),
}  # fmt: skip
Counts = Mapping[str, Mapping[str, int]]  # of the data sets at hand: name -> {"train": images, "test": images}


def images_of(config: Mapping[str, Any], at_hand: Counts | None, split: Literal["train", "test"]) -> int:
    """How many images of a split a cell takes; 0 where nobody knows."""
    data = config["data"]
    full = ((at_hand or {}).get(data["name"]) or {}).get(split) or _FULL_SET.get(data["name"], (0, 0))[split == "test"]
    return int(data[f"{split}_images"] or full)


def kept_images(config: Mapping[str, Any], at_hand: Counts | None = None) -> int:
    """How many images a cell trains on: its subset less the held-out share."""
    images = images_of(config, at_hand, "train")
    return images - round(images * config["data"]["held_out"])


def views_to_process(config: dict[str, Any], at_hand: Counts | None = None) -> float:
    """Views of the whole training, each one forward and backward; a momentum or target branch is not counted apart."""
    if "epochs" not in config:
        return 0.0
    steps = kept_images(config, at_hand) // config["batch_size"]
    return float(config["epochs"] * steps * config["batch_size"] * _views(config))


def _views(config: dict[str, Any]) -> float:
    """Views of an image, counted by their pixels: a crop of half the side costs a quarter of a view."""
    size = config["data"]["image_size"]
    total = 0.0
    for view in config["views"]:
        grid = view.get("patch_grid", 0)
        side = grid * view.get("patch_size", _PATCH) if grid else view.get("size") or size
        total += (side / size) ** 2
    return total or 1.0


def encoder_kind(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Encoders that take the same time for a view."""
    encoder = config["encoder"]
    same = encoder["name"], encoder["stem"], encoder["width"], encoder["norm"] == "group_ws"
    return (*same, config["data"]["image_size"])


def _kind(config: dict[str, Any]) -> tuple[Any, ...]:
    return (config["method"], *encoder_kind(config), config.get("precision"))


@dataclass
class Prices:
    """Measured rates of a store, views/s by kind of work, for one kind of device; images of the sets at hand."""

    device: str
    images: Counts = field(default_factory=dict)
    measured: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)

    @classmethod
    def from_records(cls, records: Iterable[dict[str, Any]], device: str, images: Counts | None = None) -> Prices:
        prices = cls(device, images or {})
        for record in records:
            if record["provenance"]["hardware"]["device"] != device or "epochs" not in record["config"]:
                continue
            timing = record.get("timing") or {}
            rate = timing.get("images_per_second")
            if rate:  # of all its ranks together; the price is of one device
                rate /= timing.get("ranks") or 1
                prices.measured.setdefault(_kind(record["config"]), []).append(rate * _views(record["config"]))
        return prices

    def seconds(self, config: dict[str, Any]) -> tuple[float, bool]:
        """(seconds of one device, whether it is measured rather than guessed)."""
        views = views_to_process(config, self.images)
        if views == 0:  # no training, or nobody knows how many images there are
            return 0.0, "epochs" not in config
        return views / self.rate(config), _kind(config) in self.measured

    def rate(self, config: dict[str, Any]) -> float:
        """Views of this cell a second, forward and backward: measured where a training like it has been, else guessed."""
        rates = self.measured.get(_kind(config))
        return statistics.median(rates) if rates else self._guess(config)

    def _guess(self, config: dict[str, Any]) -> float:
        encoder, size = config["encoder"], config["data"]["image_size"]
        table = _GUESS[self.device]
        rate = table.get((encoder["name"], encoder["stem"])) or table.get((encoder["name"], "any"))
        if rate is None:
            rate = _RESNET50_224[self.device] / _AS_RESNET50.get(encoder["name"], 1.0)
            return rate * (224 / size) ** 2 / max(encoder["width"], 0.25) ** 2
        return rate * (_GUESS_SIZE / size) ** 2 / max(encoder["width"], 0.25)


def words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20`, `9 days`, `4 years`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours, rest = divmod(round(seconds / 60), 60)
    if hours < 100:
        return f"{hours} h {rest:02d}"
    return f"{hours / 24:.0f} days" if hours < 24 * 730 else f"{hours / 24 / 365:,.0f} years"
