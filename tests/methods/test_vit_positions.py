"""Learned positions of a ViT: timm's where they were learned, DINO's stretched ones over any other grid."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import methods.encoders.vit as vit
from methods.encoders import EncoderConfig
from methods.encoders.vit import ViT
from tests.methods.test_vit import build, images, stirred


def learned(grid: int = 3, **settings: Any) -> ViT:
    return stirred(build(positions="learned", grid=grid, **settings).double())


@pytest.mark.parametrize("grid", [1, 3])
def test_learned_positions_are_timms(grid: int) -> None:
    net, side = learned(grid), 8 * grid
    theirs = VisionTransformer(
        img_size=side,
        patch_size=8,
        embed_dim=48,
        num_heads=4,
        num_classes=0,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    ).double()
    theirs.load_state_dict(net.state_dict())  # the same names, all of them
    x = images(3, side, side)
    torch.testing.assert_close(net(x), theirs(x), rtol=1e-9, atol=1e-9)


def weight(x: float) -> float:
    """Keys' cubic kernel with a = -3/4."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (6, 6), (9, 1), (1, 1)])
def test_over_another_grid_learned_positions_are_stretched_as_dinos(rows: int, columns: int) -> None:
    """Bicubic, edges repeated, at a scale that is a tenth of a patch too large; on a grid as it was learned, untouched."""
    torch.manual_seed(0)
    table = torch.randn(1, 10, 4, dtype=torch.float64)
    square, found = table[0, 1:].view(3, 3, 4), vit.stretched(table, rows, columns)
    assert found.shape == (1, 1 + rows * columns, 4)
    assert torch.equal(found[:, 0], table[:, 0])
    for r in range(rows):
        for c in range(columns):
            if rows == columns == 3:
                expected = square[r, c]
            else:
                down, across = (r + 0.5) * 3 / (rows + 0.1) - 0.5, (c + 0.5) * 3 / (columns + 0.1) - 0.5
                expected = torch.zeros(4, dtype=torch.float64)
                for i in range(math.floor(down) - 1, math.floor(down) + 3):
                    for j in range(math.floor(across) - 1, math.floor(across) + 3):
                        share = weight(down - i) * weight(across - j)
                        expected += share * square[min(max(i, 0), 2), min(max(j, 0), 2)]
            torch.testing.assert_close(found[0, 1 + r * columns + c], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", [1, 7, 14, 37, 61])
def test_stretching_never_loses_a_row_to_rounding(grid: int) -> None:
    table = torch.randn(1, 1 + grid**2, 2)
    for count in (1, 2, 6, 14, 28, 60, 61, 80):
        assert vit.stretched(table, count, count + 1).shape == (1, 1 + count * (count + 1), 2)


def test_views_of_any_size_and_gradients_for_every_position() -> None:
    net = learned()
    (net(images(2, 16, 40)).square().sum() + net(images(2)).square().sum()).backward()
    assert net.pos_embed is not None and net.pos_embed.grad is not None
    assert (net.pos_embed.grad.abs().sum(dim=2) > 0).all()
    assert net.attention(images(2, 16, 40)).shape == (2, 4, 11, 11)
    assert net.intermediate(images(2, 16, 40), 2).shape == (2, 2, 48)


def test_all_but_the_positions_starts_as_with_fixed_ones() -> None:
    fixed, own = build(), build(positions="learned", grid=5)
    assert torch.equal(fixed(images().float()), build()(images().float()))
    state = own.state_dict()
    drawn = state.pop("pos_embed")
    assert drawn.shape == (1, 26, 48) and drawn.std().item() == pytest.approx(0.02, rel=0.1)
    assert {key: value.tolist() for key, value in fixed.state_dict().items()} == {k: v.tolist() for k, v in state.items()}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "resnet50", "positions": "learned"}, "'resnet50' has no positions"),
        ({"name": "vit_tiny", "positions": "sines"}, "must be sincos or learned, not 'sines'"),
        ({"name": "vit_tiny", "positions": "learned", "grid": 0}, "grid must be at least 1, not 0"),
    ],
)
def test_positions_that_do_not_exist_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EncoderConfig(**settings)
