"""A page of augmented samples as one picture: a row for each recipe and each group of operations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmark.data.fidelity.compare import MEAN, STILL, cases, planned
from benchmark.data.fidelity.kernels import Kernel, render
from benchmark.data.fidelity.photos import Photos, squares
from benchmark.data.render import plan
from methods.views import RECIPES, Operation, ViewConfig, composition, multi_crop

_SIDE = 144  # what a view of 224 pixels is shown at; all others in proportion
_SHOWN = _SIDE / 224
_LABEL, _ORIGINAL, _WIDTH = 214, 196, 1630
_GAP, _CAPTION = 6, 17
_PAPER, _INK, _QUIET, _LINE = "#ffffff", "#1c2127", "#59636e", "#d5dae0"
_SEED = 7
_ONE = np.ones(3, np.float32)
_COLOUR = torch.from_numpy(MEAN).view(3, 1, 1)


@dataclass(frozen=True)
class Shown:
    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Row:
    label: str
    note: str
    photo: NDArray[np.uint8]
    shown: list[Shown]


def page(photos: Photos, kernel: Kernel, path: Path) -> str:
    """Write the picture; returns what it shows, in words."""
    sections = [("Recipes", list(_recipes(photos, kernel))), ("Operations", list(_operations(photos, kernel)))]
    height = sum(46 + sum(_row_height(row) for row in rows) for _, rows in sections) + 10
    canvas = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen, top = ImageDraw.Draw(canvas), 0
    for title, rows in sections:
        pen.text((16, top + 14), title, _INK, _font(20, bold=True))
        pen.text((_LABEL, top + 20), "stored image", _QUIET, _font(12))
        pen.text((_LABEL + _ORIGINAL, top + 20), "views", _QUIET, _font(12))
        top += 46
        for row in rows:
            _draw_row(canvas, pen, row, top)
            top += _row_height(row)
    canvas.save(path, optimize=True)
    return "; ".join(row.label for _, rows in sections for row in rows)


def _recipes(photos: Photos, kernel: Kernel) -> Iterator[Row]:
    """Two views at a time of the recipes whose views are one image each, then the recipes of another form."""
    photo = cycle(photos)
    plain = (
        ("supervised", "Supervised", "crop, flip"),
        ("instdisc", "InstDisc, MoCo v1", "crops from 20 %, grey before the jitter, which is always on"),
        ("mocov2", "MoCo v2, SimSiam", "crops from 20 %, mild jitter, blur"),
        ("simclr", "SimCLR", "crops from 8 %, strong jitter, grey, blur"),
        ("byol", "BYOL, Barlow Twins, VICReg", "bicubic; the first view always blurred, the second sometimes solarized"),
        ("infomin", "InfoMin", "SimCLR's colours, blur, two operations of RandAugment"),
        ("cmc_randaugment", "CMC with RandAugment", "what leaves the colours alone; shown in RGB"),
    )
    for name, label, note in plain:
        pixels = next(photo)
        views = [replace(cfg, channels="rgb") for cfg in RECIPES[name]]
        shown = [
            Shown(_picture(view), f"{('1st', '2nd')[number]} view")
            for epoch in range(4)
            for number, view in enumerate(_views(kernel, pixels, views, epoch))
        ]
        yield Row(label, note, pixels, shown)
    yield _many(kernel, next(photo), "SwAV", multi_crop(RECIPES["swav"], [(2, 224, (0.14, 1.0)), (6, 96, (0.05, 0.14))]))
    yield _many(kernel, next(photo), "DINO", multi_crop(RECIPES["dino"], [(2, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4))]))
    yield _figure_5(kernel, next(photo))
    pixels = next(photo)
    yield Row("CMC", "Lab: lightness against colour", pixels, _lab(kernel, pixels))
    pixels = next(photo)
    yield Row("DeepCluster", "the two Sobel gradients; grey is none", pixels, _gradients(kernel, pixels))
    for name, label, note in (
        ("jigsaw", "PIRL, InfoMin: Jigsaw", "nine patches of 64 pixels, each moved within its cell of 85"),
        ("cpc", "CPC", "7 x 7 grey patches of 64 pixels that overlap by half, a random 60 of each in a frame"),
        ("cpcv2", "CPC v2", "6 x 6 patches of 80 pixels, 36 apart, colours drawn for each"),
    ):
        pixels = next(photo)
        yield Row(label, note, pixels, _patches(kernel, pixels, RECIPES[name][:1]))


def _many(kernel: Kernel, pixels: NDArray[np.uint8], label: str, cfgs: Sequence[ViewConfig]) -> Row:
    """Two large crops and small ones at their size, of two epochs."""
    shown = []
    for epoch in range(2):
        pictures = [_picture(view) for view in _views(kernel, pixels, cfgs, epoch)]
        shown += [Shown(picture, "224 pixels") for picture in pictures[:2]]
        shown.append(Shown(_grid(pictures[2:], len(cfgs[2:]) // 2, _GAP), f"{len(cfgs[2:])} of 96 pixels"))
    return Row(label, f"multi-crop, all at one scale: 2 x 224 and {len(cfgs[2:])} x 96 pixels", pixels, shown)


def _figure_5(kernel: Kernel, pixels: NDArray[np.uint8]) -> Row:
    """Both branches of some pairs of operations."""
    shown: list[Shown] = []
    pairs: tuple[tuple[Operation, Operation], ...] = (("crop", "jitter"), ("cutout", "sobel"), ("rotate", "noise"))
    alone: tuple[Operation, ...] = ("blur", "jitter", "cutout", "sobel")
    for first, second in pairs:
        branch, identity = (_picture(view) for view in _views(kernel, pixels, composition(first, second), 1))
        if not shown:
            shown.append(Shown(identity, "identity branch"))
        shown.append(Shown(branch, f"{first}, {second}"))
    for only in alone:
        branch, _ = (_picture(view) for view in _views(kernel, pixels, composition(only, only), 1))
        shown.append(Shown(branch, f"{only} alone"))
    return Row("SimCLR, figure 5", "one branch is transformed, the other is the shared crop alone", pixels, shown)


def _lab(kernel: Kernel, pixels: NDArray[np.uint8]) -> list[Shown]:
    """The channels of two views: L as grey, a and b from the one end of their colours to the other."""
    channels = (  # name, colours at both ends, where grey lies, magnification: colours are rarely as full as they can be
        ("L", (0, 0, 0), (255, 255, 255), 0.0, 1.0),
        ("a: green to red", (0, 150, 90), (225, 0, 130), -6.025 / 92.208, 2.5),
        ("b: blue to yellow", (20, 70, 220), (245, 200, 0), 6.6895 / 101.1675, 2.5),
    )
    shown = []
    for epoch in range(2):
        (view,) = _views(kernel, pixels, RECIPES["cmc"][:1], epoch)
        for channel, (name, low, high, grey, gain) in zip(view.numpy(), channels, strict=True):
            shown.append(Shown(_shaded((channel - grey) * gain, low, high), name))
    return shown


def _gradients(kernel: Kernel, pixels: NDArray[np.uint8]) -> list[Shown]:
    shown = []
    for epoch in range(4):
        (view,) = _views(kernel, pixels, RECIPES["deepcluster"][:1], epoch)
        for channel, name in zip(view.numpy(), ("left to right", "top to bottom"), strict=True):
            shown.append(Shown(_shaded(channel, (0, 0, 0), (255, 255, 255)), name))
    return shown


def _patches(kernel: Kernel, pixels: NDArray[np.uint8], cfgs: Sequence[ViewConfig]) -> list[Shown]:
    """As many views as fit, each as a grid."""
    shown: list[Shown] = []
    for epoch in range(8):
        (patches,) = _views(kernel, pixels, cfgs, epoch)
        picture = _grid([_picture(patch) for patch in patches], cfgs[0].patch_grid, 3)
        if sum(one.picture.width + _GAP for one in shown) + picture.width > _WIDTH - _LABEL - _ORIGINAL:
            break
        shown.append(Shown(picture, f"view {epoch + 1}"))
    return shown


def _operations(photos: Photos, kernel: Kernel) -> Iterator[Row]:
    photo = cycle(squares(photos[1:] + photos[:1], 224))

    def row(label: str, note: str, each: Sequence[tuple[str, ViewConfig]]) -> Row:
        pixels = next(photo)
        made = [_views(kernel, pixels, [cfg], epoch)[0] for epoch, (_, cfg) in enumerate(each)]
        return Row(label, note, pixels, [Shown(_picture(v), name) for v, (name, _) in zip(made, each, strict=True)])

    def still(**settings: Any) -> ViewConfig:
        return replace(STILL, **settings)

    def jitter(**strengths: float) -> ViewConfig:
        return still(jitter_prob=1.0, **strengths)

    areas = ((0.08, 0.1), (0.2, 0.25), (0.4, 0.5), (0.8, 0.9))
    crops = [(f"{100 * low:g} to {100 * high:g} %", replace(STILL, crop_scale=(low, high))) for low, high in areas]
    yield row("Crop and flip", "share of the image's area; squares, bilinear, if nothing else is said", [
        *crops,
        *[("30 to 50 %, 3:4 to 4:3", still(crop_scale=(0.3, 0.5), crop_ratio=(0.75, 4 / 3)))] * 2,
        ("8 to 10 %, bicubic", still(crop_scale=(0.08, 0.1), interpolation="bicubic")),
        ("flip", still(flip_prob=1.0)),
    ])  # fmt: skip
    yield row("Rotation", "right angles, or any with black corners", [
        *[("right angles", still(rotate_prob=1.0))] * 3,
        *[("up to 30 degrees", still(rotate_prob=1.0, rotate_degrees=30.0))] * 2,
        *[("up to 180 degrees", still(rotate_prob=1.0, rotate_degrees=180.0))] * 3,
    ])  # fmt: skip
    yield row("Colour jitter, one by one", "strength 0.8, of hue 0.2", [
        *[("brightness", jitter(brightness=0.8))] * 2, *[("contrast", jitter(contrast=0.8))] * 2,
        *[("saturation", jitter(saturation=0.8))] * 2, *[("hue", jitter(hue=0.2))] * 2,
    ])  # fmt: skip
    yield row("Colour jitter, all four", "random order", [
        *[("strength 1 (SimCLR)", jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2))] * 4,
        *[("strength 0.5 (BYOL)", jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1))] * 4,
    ])  # fmt: skip
    yield row("Blur", "Gaussian, 23 pixels wide, or never cut off", [
        *[(f"sigma {sigma:g}", still(blur_prob=1.0, blur_sigma=(sigma, sigma))) for sigma in (0.1, 0.5, 1.0, 1.5, 2.0)],
        ("sigma 2, never cut off", still(blur_prob=1.0, blur_sigma=(2.0, 2.0), blur_kernel=0.0)),
        ("sigma 4", still(blur_prob=1.0, blur_sigma=(4.0, 4.0))),
        ("sigma 4, never cut off", still(blur_prob=1.0, blur_sigma=(4.0, 4.0), blur_kernel=0.0)),
    ])  # fmt: skip
    yield row("Grey, edges, masks, noise", "", [
        ("grayscale", still(grayscale_prob=1.0)), ("solarize at 0.5", still(solarize_prob=1.0)),
        ("Sobel", still(sobel_prob=1.0)), ("cutout", still(cutout_prob=1.0)), ("cutout", still(cutout_prob=1.0)),
        ("noise 0.05", still(noise_prob=1.0, noise_std=(0.05, 0.05))),
        ("noise 0.1", still(noise_prob=1.0, noise_std=(0.1, 0.1))),
        ("noise 0.2", still(noise_prob=1.0, noise_std=(0.2, 0.2))),
    ])  # fmt: skip
    yield from _randaugment(kernel, next(photo), next(photo))


def _randaugment(kernel: Kernel, *photos: NDArray[np.uint8]) -> Iterator[Row]:
    """One picture of each operation, in as many rows as there are photos."""
    augments = [replace(case, size=224, stored=224) for case in cases() if case.number is not None]
    augments.sort(key=lambda case: case.name.split()[1] in ("rotate", "sharpness", "shear", "translate"))
    half = -(-len(augments) // len(photos))
    for number, pixels in enumerate(photos):
        shown = []
        for case in augments[number * half : (number + 1) * half]:
            strong = replace(case, cfg=replace(case.cfg, randaugment_magnitude=7.0, randaugment_std=1.0))
            view = render(kernel, [pixels], planned(strong, [pixels]), MEAN, _ONE)[0]
            shown.append(Shown(_picture(view + _COLOUR), case.name.removeprefix("RandAugment ")))
        yield Row("RandAugment", "one operation each, magnitude near 7 of 10; empty places take the mean colour", pixels, shown)


def _views(kernel: Kernel, pixels: NDArray[np.uint8], cfgs: Sequence[ViewConfig], epoch: int) -> list[Tensor]:
    """Every view of one image, f4 (C, S, S) or (K, C, P, P): RGB in [0, 1], other channels as an encoder sees them."""
    height, width = (np.array([length]) for length in pixels.shape[:2])
    index = np.array([pixels.sum(dtype=np.int64)])  # other draws for other images
    views = plan(cfgs, _SEED, epoch, index, height, width, 224)
    made = [render(kernel, [pixels], view, MEAN, _ONE)[0] for view in views]
    return [view + _COLOUR if cfg.channels == "rgb" else view for view, cfg in zip(made, cfgs, strict=True)]


def _picture(view: Tensor) -> Image.Image:
    """RGB in [0, 1], f4 (3, S, S), in the scale of the page."""
    pixels = (view.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    side = round(len(pixels) * _SHOWN)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


def _shaded(channel: NDArray[np.float32], low: tuple[int, int, int], high: tuple[int, int, int]) -> Image.Image:
    """One channel in [-1, 1] as colours from low to high; the middle is grey."""
    value, grey, below, above = np.clip(channel, -1, 1)[..., None], 127.5, np.array(low), np.array(high)
    colours = grey + np.where(value < 0, -value * (below - grey), value * (above - grey))
    return _picture(torch.from_numpy(colours / 255).permute(2, 0, 1))


def _grid(pictures: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    """Pictures of one size in rows."""
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    made = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), _PAPER)
    for number, picture in enumerate(pictures):
        made.paste(picture, (number % columns * (width + gap), number // columns * (height + gap)))
    return made


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: the same everywhere."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def _row_height(row: Row) -> int:
    return max(_SIDE, *(one.picture.height for one in row.shown)) + _CAPTION + 12


def _draw_row(canvas: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    pen.line([(16, top), (_WIDTH - 16, top)], _LINE)
    at = top + 8
    for line in textwrap.wrap(row.label, 19):
        pen.text((16, at), line, _INK, _font(15, bold=True))
        at += 19
    for line in textwrap.wrap(row.note, 28):
        pen.text((16, at + 3), line, _QUIET, _font(12))
        at += 16
    original = Image.fromarray(row.photo)
    original.thumbnail((_ORIGINAL - 20, _SIDE), Image.Resampling.LANCZOS)
    canvas.paste(original, (_LABEL, top + 8))
    left = _LABEL + _ORIGINAL
    for one in row.shown:
        canvas.paste(one.picture, (left, top + 8))
        pen.text((left, top + 8 + one.picture.height + 2), one.caption, _QUIET, _font(11))
        left += one.picture.width + _GAP
