"""The law of the crops against torchvision's sampler: area and aspect ratio of many draws of both, compared as samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from benchmark.data import views as column
from benchmark.data.views import parameters
from methods.views import ViewConfig

IMAGES = ((32, 32), (224, 224), (375, 500))  # height, width
SCALES = ((0.08, 1.0), (0.2, 1.0), (0.05, 0.14), (0.14, 1.0))  # SimCLR and BYOL, MoCo v2, SwAV's small and large crops
QUANTITIES = ("area", "log aspect")
QUANTILES = (5, 25, 50, 75, 95)
_SEED = 2020

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """One quantity of the crops of one kind of image: area as a fraction of the image's, or the logarithm of width / height.

    ours, theirs: f8 (draws,). statistic, pvalue: of the two-sample Kolmogorov-Smirnov test.
    """

    height: int
    width: int
    scale: tuple[float, float]
    quantity: str
    ours: Floats
    theirs: Floats
    statistic: float
    pvalue: float

    @property
    def image(self) -> str:
        return f"{self.width} x {self.height}"

    def as_json(self) -> dict[str, Any]:
        """What is kept of it, without the draws."""
        return {
            "height": self.height, "width": self.width, "scale": list(self.scale), "quantity": self.quantity,
            "draws": len(self.ours), "statistic": self.statistic, "pvalue": self.pvalue, "percents": list(QUANTILES),
            "ours": quantiles(self.ours), "torchvision": quantiles(self.theirs),
        }  # fmt: skip


def quantiles(values: Floats) -> list[float]:
    return [float(value) for value in np.percentile(values, QUANTILES)]


def laws(draws: int) -> list[Law]:
    """Every image size and scale, each with random numbers of its own. They are fixed: a repetition finds the same."""
    found = []
    for number, ((height, width), scale) in enumerate(itertools.product(IMAGES, SCALES)):
        cfg, seed = ViewConfig(crop_scale=scale), _SEED + number
        ours = parameters(seed, 0, np.arange(draws), 0, cfg, height, width, 32)[:, column.TOP : column.WIDTH + 1]
        pairs = zip(_measured(ours.astype(float), height, width), _theirs(seed, cfg, draws, height, width), strict=True)
        for quantity, (mine, other) in zip(QUANTITIES, pairs, strict=True):
            test = ks_2samp(mine, other)
            found.append(Law(height, width, scale, quantity, mine, other, float(test.statistic), float(test.pvalue)))
    return found


def _theirs(seed: int, cfg: ViewConfig, draws: int, height: int, width: int) -> tuple[Floats, Floats]:
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):  # whoever imports this keeps the random numbers they had
        torch.manual_seed(seed)
        taken = [RandomResizedCrop.get_params(image, list(cfg.crop_scale), list(cfg.crop_ratio)) for _ in range(draws)]
    return _measured(np.array(taken, np.float64), height, width)


def _measured(crops: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Area fraction and log aspect ratio of crops (N, 4)."""
    return crops[:, 2] * crops[:, 3] / (height * width), np.log(crops[:, 3] / crops[:, 2])


def draw(found: list[Law], path: Path) -> None:
    """The cumulative distributions, a panel for each kind of image and quantity: torchvision's as bands, ours as lines."""
    import matplotlib
    import seaborn
    from matplotlib.figure import Figure

    matplotlib.use("agg")
    style = {**seaborn.axes_style("ticks"), **seaborn.plotting_context("notebook", font_scale=0.9)}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 10), layout="constrained")
        axes = figure.subplots(len(IMAGES), len(QUANTITIES), sharex="col", sharey=True)
        colours = dict(zip(SCALES, seaborn.color_palette("colorblind", len(SCALES)), strict=True))
        for law in found:
            row, across = IMAGES.index((law.height, law.width)), QUANTITIES.index(law.quantity)
            axis, colour = axes[row, across], colours[law.scale]
            seaborn.ecdfplot(law.theirs, ax=axis, color=colour, alpha=0.35, linewidth=7)
            label = f"{law.scale[0]:g} to {law.scale[1]:g}" if (row, across) == (0, 0) else None
            seaborn.ecdfplot(law.ours, ax=axis, color=colour, linewidth=1.3, label=label)
            axis.set_title(f"{law.image} pixels", loc="left", fontsize="medium")
            axis.set_ylabel("share of crops below" if across == 0 else "")
            axis.set_xlabel(("area of the crop / area of the image", "log(width / height) of the crop")[across])
            axis.set_xlim(((0, 1), (-0.45, 0.45))[across])
            axis.grid(alpha=0.3)
        seaborn.despine(figure)
        axes[0, 0].legend(title="area drawn from", loc="lower right", frameon=False)
        figure.suptitle("Crops: torchvision's sampler (wide bands) and ours (thin lines in them)", x=0.02, ha="left")
        figure.savefig(path, dpi=110)
