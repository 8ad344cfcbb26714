"""A procedural data set: ten drawn shapes under nuisances, for machines that have no data and no network.

The class is the shape alone. Colours, position, size, rotation, background texture and a distractor are drawn
independently of it, so that a classifier has to look at the outline and random features do not solve the task. The images
are a pure function of (split, seed, index, side); the boxes and captions serve detection and image-text methods. All is
computed in float64: processors may differ in the last bit of a sine, and that must not reach the stored bytes.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.data import keys
from benchmark.data.keys import counters, stream, uniform

VERSION = 1  # changes whenever a pixel changes
CLASSES = ("circle", "square", "triangle", "pentagon", "star", "cross", "ring", "crescent", "bars", "heart")
COUNTS = {"train": 20_000, "test": 4_000}
BACKGROUNDS = ("plain", "gradient", "striped", "checkered", "speckled")
_CHUNK = 1_000  # images drawn at once; bounds the memory, has no influence on the pixels

Floats = NDArray[np.float64]


class Shapes(NamedTuple):
    """images u1 (n, side, side, 3), labels i8 (n,), boxes f8 (n, 4) as x0 y0 x1 y1 in pixels, captions (n)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: Floats
    captions: list[str]


def shapes(split: Literal["train", "test"], n: int, seed: int = 0, side: int = 32, first: int = 0) -> Shapes:
    """Images first..n of a split."""
    key = stream(keys.SHAPES, VERSION, ("train", "test").index(split), seed)
    chunks = [_draw(counters(key, np.arange(at, min(at + _CHUNK, n))), side) for at in range(first, n, _CHUNK)]
    images, labels, boxes, captions = zip(*chunks, strict=True)
    return Shapes(
        np.concatenate(images), np.concatenate(labels), np.concatenate(boxes), [text for part in captions for text in part]
    )


def _draw(starts: NDArray[np.uint64], side: int) -> Shapes:
    def draw(number: int, low: float = 0.0, high: float = 1.0) -> Floats:
        return (low + (high - low) * uniform(starts, number))[:, None, None]

    label = (uniform(starts, 0) * len(CLASSES)).astype(np.int64)
    background = (uniform(starts, 1) * len(BACKGROUNDS)).astype(np.int64)
    axis = ((np.arange(side) + 0.5) / side * 2 - 1)[None]
    x, y = axis[:, None, :], axis[:, :, None]  # -1..1, y downwards
    edge = side / 2  # one over the width of an antialiased edge

    ink, first, second = colours(starts)
    canvas = textures(background, draw(10, 0, math.pi), draw(11, 3, 9), draw(12, 0, 6), x, y, starts, side)
    image = first + (second - first) * canvas[..., None]

    # A small disc of another colour somewhere: position and colour statistics alone must not give the class away.
    spot = step((draw(20, 0.08, 0.2) - np.hypot(x - draw(21, -0.9, 0.9), y - draw(22, -0.9, 0.9))) * edge)
    image += spot[..., None] * (second[..., ::-1] - image)

    radius, turn = draw(2, 0.35, 0.7), draw(5, -0.6, 0.6)
    middle_x, middle_y = draw(3, -1, 1) * (0.95 - radius), draw(4, -1, 1) * (0.95 - radius)
    u, v = (x - middle_x) / radius, (y - middle_y) / radius
    u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    inside = np.empty(u.shape)
    for number in range(len(CLASSES)):
        chosen = label == number
        inside[chosen] = distance(number, u[chosen], v[chosen])
    mask = step(inside * radius * edge)
    image += mask[..., None] * (ink - image)

    image += (noise(starts, side)[..., None] - 0.5) * 0.08
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    captions = [
        f"a {_size(r)} {CLASSES[k]} at the {_place(cx, cy)} on a {BACKGROUNDS[b]} background"
        for r, k, cx, cy, b in zip(*(a.ravel().tolist() for a in (radius, label, middle_x, middle_y, background)), strict=True)
    ]
    return Shapes(pixels, label, _boxes(mask, side), captions)


def step(value: Floats) -> Floats:
    """0 outside, 1 inside, linear over one pixel at the edge."""
    return np.clip(value + 0.5, 0, 1)


def colours(starts: NDArray[np.uint64]) -> tuple[Floats, Floats, Floats]:
    """Ink and two background colours (n, 1, 1, 3); the ink's brightness is at least 0.3 away from the background's."""
    rgb = np.stack([uniform(starts, 30 + i) for i in range(9)], axis=1).reshape(-1, 3, 3)
    dark = uniform(starts, 40) < 0.5
    luma = rgb.mean(axis=2)
    target = np.where(dark[:, None], [0.2, 0.65, 0.75], [0.85, 0.4, 0.3])
    rgb = np.clip(target[..., None] + 0.55 * (rgb - luma[..., None]), 0, 1)
    return rgb[:, None, None, 0], rgb[:, None, None, 1], rgb[:, None, None, 2]


def textures(
    kind: NDArray[np.int64], angle: Floats, waves: Floats, phase: Floats, x: Floats, y: Floats,
    starts: NDArray[np.uint64], side: int,
) -> Floats:  # fmt: skip
    """The background between its two colours, 0..1 (n, side, side)."""
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    texture = np.zeros(along.shape)
    for number, pattern in (
        (1, lambda rows: 0.5 + 0.4 * along[rows]),
        (2, lambda rows: step(3 * np.sin(waves[rows] * along[rows] + phase[rows]))),
        (3, lambda rows: step(6 * np.sin(waves[rows] * along[rows] + phase[rows]) * np.sin(waves[rows] * across[rows]))),
        (4, lambda rows: noise(starts[rows], side, 7)),
    ):
        rows = np.flatnonzero(kind == number)
        texture[rows] = pattern(rows)
    return texture


def noise(starts: NDArray[np.uint64], side: int, purpose: int = 6) -> Floats:
    """White noise 0..1 (n, side, side)."""
    pixels = counters(stream(keys.SHAPES, purpose), np.arange(side * side))
    return uniform(starts[:, None] ^ pixels[None], 0).reshape(-1, side, side)


def distance(number: int, u: Floats, v: Floats) -> Floats:
    """How far a point lies inside shape `number` of radius 1 at the origin: negative outside, about linear at the edge."""
    r = np.hypot(u, v)
    name = CLASSES[number]
    if name == "circle":
        return 0.9 - r
    if name == "square":
        return 0.75 - np.maximum(abs(u), abs(v))
    if name in ("triangle", "pentagon"):
        corners = 3 if name == "triangle" else 5
        sector = 2 * math.pi / corners
        angle = np.mod(np.arctan2(u, -v) + sector / 2, sector) - sector / 2
        return math.cos(sector / 2) - r * np.cos(np.pi / corners - abs(angle))
    if name == "star":
        sector = 2 * math.pi / 5
        angle = abs(np.mod(np.arctan2(u, -v) + sector / 2, sector) - sector / 2)
        px, py = r * np.cos(angle), r * np.sin(angle)  # the edge runs from the tip (1, 0) to the inner corner
        inner = (0.4 * math.cos(sector / 2), 0.4 * math.sin(sector / 2))
        length = math.hypot(1 - inner[0], inner[1])
        return ((1 - px) * inner[1] - py * (1 - inner[0])) / length
    if name == "cross":
        return np.maximum(np.minimum(0.3 - abs(u), 0.95 - abs(v)), np.minimum(0.3 - abs(v), 0.95 - abs(u)))
    if name == "ring":
        return 0.22 - abs(r - 0.7)
    if name == "crescent":
        return np.minimum(0.95 - r, np.hypot(u - 0.45, v) - 0.72)
    if name == "bars":
        return np.minimum(0.17 - abs(np.mod(v + 0.3, 0.6) - 0.3), np.minimum(0.8 - abs(u), 0.78 - abs(v)))
    heart_v = -v + 0.15 - 0.55 * np.sqrt(abs(u) + 0.01)
    return 0.85 - np.hypot(u, heart_v * 1.1)


def _boxes(mask: Floats, side: int) -> Floats:
    """Tight boxes around mask > 0.5 as x0 y0 x1 y1; pixels, the right and lower edges exclusive."""
    columns, rows = (mask > 0.5).max(axis=1), (mask > 0.5).max(axis=2)
    return np.stack(
        [columns.argmax(1), rows.argmax(1), side - columns[:, ::-1].argmax(1), side - rows[:, ::-1].argmax(1)], axis=1
    ).astype(np.float64)


def _size(radius: float) -> str:
    return "small" if radius < 0.45 else "large" if radius > 0.6 else "medium"


def _place(x: float, y: float) -> str:
    vertical = "top" if y < -0.12 else "bottom" if y > 0.12 else "middle"
    horizontal = "left" if x < -0.12 else "right" if x > 0.12 else "centre"
    return f"{vertical} {horizontal}"
