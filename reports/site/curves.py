"""A training's logged curves as small drawings, made of plain text: light enough for thousands of pages.

The figures of a table (reports/figures) compare rows; these show what one training logged, one line a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

# what is drawn, in this order, where it was logged: the curve's name in the record and its words
SHOWN = {
    "loss": "loss",
    "std": "spread of the projection, std(z)·√d",
    "knn": "kNN of held-out images, %",
    "learning_rate": "learning rate",
    "gradient_norm": "norm of the gradient",
    "effective_rank": "effective rank",
    "accuracy": "accuracy of the training's own task",
}
_WIDTH, _HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 20
_POINTS = 80
_FINE = 10  # a line's points are whole numbers of this part of a pixel
_DASHES = ("", "5 3", "1.5 3", "8 3 2 3")

Series = tuple[int, str, list[float], list[float]]  # which line it is, the seed's name, epochs, values


def drawn(curves: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The figures of one training as HTML, '' where nothing was logged. curves: each seed's name and its record's curves."""
    parts = []
    for name, words in SHOWN.items():
        series = [
            (i, seed, *found)
            for i, (seed, logged) in enumerate(curves)
            if (found := _points(logged.get("epoch"), logged.get(name)))
        ]
        if series:
            parts.append(_figure(words, series))
    return f'{_legend([seed for seed, _ in curves])}<div class="curves">{"".join(parts)}</div>' if parts else ""


def _legend(seeds: Sequence[str]) -> str:
    """Which line is which seed, where there are several."""
    if len(seeds) < 2:
        return ""
    keys = (
        f'<li><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">'
        f'<polyline class="s{i % 4}" points="0,4 28,4"{_dash(i)}/></svg> {escape(seed)}</li>'
        for i, seed in enumerate(seeds)
    )
    return f'<ul class="files seeds">{"".join(keys)}</ul>'


def _dash(i: int) -> str:
    return f' stroke-dasharray="{_DASHES[i % 4]}"' if i % 4 else ""


def _points(epochs: Any, values: Any) -> tuple[list[float], list[float]] | None:
    """The finite points of one curve, at most so many that each can be told from the next. A null was not logged, or NaN."""
    if not isinstance(epochs, list) or not isinstance(values, list) or len(epochs) != len(values):
        return None
    if not (_all_finite(values) and _all_finite(epochs)):
        known = [(x, y) for x, y in zip(epochs, values, strict=True) if _finite(x) and _finite(y)]
        epochs, values = [x for x, _ in known], [y for _, y in known]
    if len(values) < 2:
        return None
    if len(values) > _POINTS:
        step = math.ceil(len(values) / (_POINTS - 1))
        epochs, values = [*epochs[:-1:step], epochs[-1]], [*values[:-1:step], values[-1]]
    return epochs, values


def _all_finite(values: list[Any]) -> bool:
    """Whether nothing has to be left out: one sum answers it for nearly every curve."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(words: str, series: Sequence[Series]) -> str:
    right = max(xs[-1] for _, _, xs, _ in series)
    left = min(xs[0] for _, _, xs, _ in series)
    low, high = min(min(ys) for *_, ys in series), max(max(ys) for *_, ys in series)
    across = _FINE * (_WIDTH - _LEFT - _RIGHT) / ((right - left) or 1.0)
    up = _FINE * (_HEIGHT - _TOP - _BOTTOM) / ((high - low) or 1.0)
    base = _HEIGHT - _BOTTOM
    lines = []
    for i, _, xs, ys in series:
        points = " ".join([f"{int((x - left) * across)} {int((high - y) * up)}" for x, y in zip(xs, ys, strict=True)])
        lines.append(f'<polyline class="s{i % 4}" points="{points}"{_dash(i)}/>')
    ends = "; ".join(f"{seed} ends at {_short(ys[-1])}" for _, seed, _, ys in series)
    said = escape(f"{words} over {_short(right)} epochs: {ends}")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">'
        f'<path class="axis" d="M{_LEFT} {_TOP}V{base}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{_short(high)}</text>'
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">{_short(low)}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 5}">{_short(left)}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">epoch {_short(right)}</text>'
        f'<g transform="translate({_LEFT} {_TOP}) scale({1 / _FINE})">{"".join(lines)}</g></svg>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def _short(value: float) -> str:
    """Three digits, without an exponent where one can do without."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e5 else f"{value:.3g}"
