"""CPC and CPC v2 against a slow transcription of their equations; what a context may see; how images are cut."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.cpc import CPC, CPCConfig, Predictor, cut, patch_scores, positions, turns
from methods.cpcv2 import CPCv2, CPCv2Config
from methods.encoders import EncoderConfig
from methods.views import RECIPES
from tests.methods.small import HEALTH
from tests.methods.test_losses import random64

ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125, norm="none")
SMALL: dict[str, Any] = {"context_blocks": 2, "context_width": 5}
STEP = Step(step=0, total_steps=10, epoch=0)
N, DIM = 3, 16
NOBODY = torch.zeros(N, dtype=torch.long)


def build(kind: type[CPC] = CPC, encoder: EncoderConfig = ENCODER, **config: Any) -> CPC:
    torch.manual_seed(0)
    return kind(kind.Config(**(SMALL | {"grid": 4, "steps": 2} | config)), encoder, Setting(batch_size=N)).double().train()


def patches(grid: int = 4, seed: int = 0) -> Tensor:
    return random64(N, grid**2, 3, 8, 8, seed=seed)


def slow_context(block: nn.Module, x: Tensor) -> Tensor:
    """One masked block on D x G x G, cell by cell: its row and the row above, one column to each side."""
    grid = x.shape[1]

    def matrix(name: str) -> Tensor:
        return getattr(block, name).weight

    def cell(rows: list[list[Tensor]], r: int, c: int) -> Tensor:
        inside = 0 <= r < grid and 0 <= c < grid
        return rows[r][c] if inside else torch.zeros_like(rows[0][0])

    narrow = [
        [torch.relu(matrix("narrow")[:, :, 0, 0] @ x[:, r, c] + block.narrow.bias) for c in range(grid)] for r in range(grid)
    ]
    across = [
        [
            sum(matrix("across")[:, :, 0, j] @ cell(narrow, r, c + j - 1) for j in range(3)) + block.across.bias
            for c in range(grid)
        ]
        for r in range(grid)
    ]
    rows = []
    for r in range(grid):
        row = []
        for c in range(grid):
            above, here = cell(across, r - 1, c), across[r][c]
            down = matrix("down")[:, :, 0, 0] @ above + matrix("down")[:, :, 1, 0] @ here + block.down.bias
            row.append(x[:, r, c] + matrix("widen")[:, :, 0, 0] @ torch.relu(down) + block.widen.bias)
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def turned(z: Tensor, direction: int) -> Tensor:
    """D x G x G read from the top, the bottom, the left, the right."""
    grid = z.shape[1]
    rows = []
    for r in range(grid):
        row = []
        for c in range(grid):
            row.append((z[:, r, c], z[:, grid - 1 - r, c], z[:, c, r], z[:, c, grid - 1 - r])[direction])
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def slow_loss(method: CPC, view: Tensor) -> Tensor:
    """Equation 4 for every patch that is predicted: N images, each direction, each step, each cell."""
    c, total = method.config, torch.zeros((), dtype=torch.float64)
    images = []
    for image in view:
        z = [method.encoder(patch[None])[0] for patch in image]
        images.append(torch.stack([torch.stack(z[r * c.grid : (r + 1) * c.grid], dim=1) for r in range(c.grid)], dim=1))
    for direction, head in enumerate(method.heads):
        assert isinstance(head, Predictor)
        grids = [turned(z, direction) for z in images]
        target = head.target.weight[:, :, 0, 0] if isinstance(head.target, nn.Conv2d) else torch.eye(DIM, dtype=torch.float64)
        everything = [target @ z[:, r, k] for z in grids for r in range(c.grid) for k in range(c.grid)]
        for w, k in zip(head.maps, range(c.skip + 1, c.steps + 1), strict=True):
            terms = []
            for z in grids:
                context = z
                for block in list(head.context)[:-1]:
                    context = slow_context(block, context)
                context = torch.relu(context)
                for r in range(c.grid - k):
                    for column in range(c.grid):
                        guess = c.scale * (w.weight[:, :, 0, 0] @ context[:, r, column])  # type: ignore[union-attr, index]
                        f = torch.stack([torch.exp((guess * t).sum()) for t in everything])
                        answer = torch.exp((guess * (target @ z[:, r + k, column])).sum())
                        terms.append(-torch.log(answer / f.sum()))
            total = total + torch.stack(terms).mean()
    return total


def gradients(method: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(method.parameters())))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"steps": 3, "skip": 1},
        {"directions": 2, "grid": 3},
        {"directions": 4, "grid": 3, "target": 6, "scale": 0.1, "steps": 2, "skip": 1},
    ],
)
def test_loss_and_gradients_are_the_papers(config: dict[str, Any]) -> None:
    method = build(**config)
    view = patches(method.config.grid)
    loss, expected = method.loss([view], NOBODY, NOBODY, STEP)[0], slow_loss(method, view)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for a, b in zip(gradients(method, loss), gradients(method, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [CPC, CPCv2])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_no_context_cell_sees_the_rows_it_must_predict(kind: type[CPC], norm: str) -> None:
    """The gradient of a context row in the cells below it is exactly zero, in each direction; above, it is not."""
    method = build(kind, grid=5, steps=2, skip=0, context_norm=norm)
    for direction, head in enumerate(method.heads):
        assert isinstance(head, Predictor)
        z = random64(1, DIM, 5, 5).requires_grad_(True)
        context = head.context(turns(z)[direction])
        for r in range(5):
            (gradient,) = torch.autograd.grad(context[:, :, r].square().sum(), z, retain_graph=True)
            seen = turns(gradient)[direction].abs().sum(dim=(0, 1, 3))  # by row, as this direction reads
            assert (seen[r + 1 :] == 0).all()
            assert seen[r] > 0 and (r == 0 or seen[r - 1] > 0)
    assert len(method.heads) == (4 if kind is CPCv2 else 1)


def test_a_prediction_does_not_change_with_the_patches_it_predicts() -> None:
    """From the pixels on, with an encoder without batch statistics; with them it would, which the paper avoids."""
    for norm, leaks in (("none", False), ("layer", False), ("group", False), ("batch", True)):
        encoder = replace(ENCODER, norm=norm, groups=4)  # type: ignore[arg-type]
        method, view = build(encoder=encoder), patches()
        other = view.clone()
        other[:, 8:] = patches(seed=5)[:, 8:]  # rows 2 and 3
        with torch.no_grad():
            a, b = (method.heads[0](method.latents(v))[1][0] for v in (view, other))  # k = 1: from rows 0, 1 and 2
        assert torch.equal(a[:, :2], b[:, :2]) != leaks
        assert not torch.equal(a[:, 2], b[:, 2])


def test_turns_are_top_bottom_left_right() -> None:
    z = torch.arange(9.0).view(1, 1, 3, 3)
    firsts = [t[0, 0, 0].tolist() for t in turns(z)]
    assert firsts == [[0.0, 1.0, 2.0], [6.0, 7.0, 8.0], [0.0, 3.0, 6.0], [2.0, 5.0, 8.0]]
    for t, direction in zip(turns(random64(1, 2, 3, 3)), range(4), strict=True):
        assert torch.equal(t[0], turned(random64(1, 2, 3, 3)[0], direction))


def test_positions_point_k_rows_below() -> None:
    found = positions(2, 3, 2, torch.device("cpu"))
    assert found.tolist() == [6, 7, 8, 15, 16, 17]
    assert positions(1, 3, 1, torch.device("cpu")).tolist() == [3, 4, 5, 6, 7, 8]


def test_loss_at_its_extremes() -> None:
    method = build(steps=1)
    with torch.no_grad():
        for w in method.heads[0].maps:  # type: ignore[union-attr]
            w.weight.zero_()
    collapsed, log = method.loss([patches()], NOBODY, NOBODY, STEP)
    assert collapsed.item() == pytest.approx(math.log(N * 16))  # knows nothing: one of all patches of all images
    same = build(steps=2)
    loss, log = same.loss([patches()[:1, :1].expand(N, 16, -1, -1, -1)], NOBODY, NOBODY, STEP)
    assert loss.item() == pytest.approx(2 * math.log(N * 16)) and log["std"].item() == pytest.approx(0.0, abs=1e-9)
    eye = torch.eye(6).double()
    perfect = F.cross_entropy(patch_scores(100.0 * eye[1:], eye), torch.arange(1, 6))
    assert perfect.item() == pytest.approx(0.0, abs=1e-9)
    assert F.cross_entropy(patch_scores(eye[:3], eye[3:]), torch.arange(3)).item() == pytest.approx(math.log(3))
    one = build(steps=1).loss([patches()[:1]], NOBODY[:1], NOBODY[:1], STEP)[0]  # one image: its own patches are negatives
    assert one.isfinite() and one.item() > 0


def test_scores_leave_autocast() -> None:
    wanted, everything = random64(5, 64).bfloat16(), random64(7, 64, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = patch_scores(wanted, everything)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted.double() @ everything.double().T, rtol=1e-5, atol=1e-5)


def test_switches_change_what_is_built() -> None:
    v1, v2 = build(steps=3), build(CPCv2, steps=3, skip=2)
    assert len(v1.heads) == 1 and len(v2.heads) == 4
    assert [len(h.maps) for h in (v1.heads[0], v2.heads[0])] == [3, 1]  # type: ignore[arg-type, union-attr]
    assert isinstance(v1.heads[0].target, nn.Identity)
    assert v2.heads[0].target.out_channels == 64  # type: ignore[union-attr]
    for directions in (1, 2, 3, 4):
        assert len(build(directions=directions).heads) == directions
    plain, norm = build(), build(context_norm="layer")
    extra = set(dict(norm.named_parameters())) - set(dict(plain.named_parameters()))
    assert extra == {f"heads.0.context.{i}.norm.{p}" for i in range(2) for p in ("weight", "bias")}
    scaled = build(scale=2.0)
    assert scaled.loss([patches()], NOBODY, NOBODY, STEP)[0] != plain.loss([patches()], NOBODY, NOBODY, STEP)[0]


def test_defaults_are_the_papers() -> None:
    v1, v2 = CPCConfig(), CPCv2Config()
    assert (v1.grid, v1.overlap, v1.steps, v1.skip, v1.directions, v1.target, v1.scale) == (7, 0.5, 5, 0, 1, 0, 1.0)
    assert (v2.grid, v2.overlap, v2.steps, v2.skip, v2.directions, v2.target, v2.scale) == (6, 0.55, 3, 2, 4, 64, 0.1)
    assert (CPC.RECIPE, CPCv2.RECIPE, CPC.PATCHES, CPCv2.PATCHES) == ("cpc", "cpcv2", True, True)


@pytest.mark.parametrize(("kind", "recipe"), [(CPC, "cpc"), (CPCv2, "cpcv2")])
def test_whole_images_are_cut_as_the_recipe_cuts_views(kind: type[CPC], recipe: str) -> None:
    view, config = RECIPES[recipe][0], kind.Config()
    assert view.patch_grid == config.grid
    image = torch.arange(float(view.size**2)).view(1, 1, view.size, view.size)
    pieces = cut(image, config.grid, config.overlap)
    assert pieces.shape == (1, config.grid**2, 1, view.patch_size, view.patch_size)
    for r in range(config.grid):
        for c in range(config.grid):
            top, left = r * view.patch_stride, c * view.patch_stride
            expected = image[0, :, top : top + view.patch_size, left : left + view.patch_size]
            assert torch.equal(pieces[0, r * config.grid + c], expected)


@pytest.mark.parametrize(("side", "grid", "overlap"), [(16, 3, 0.5), (32, 7, 0.5), (50, 4, 0.5), (33, 6, 0.55), (24, 2, 0.0)])
def test_any_square_image_can_be_cut(side: int, grid: int, overlap: float) -> None:
    pieces = cut(torch.randn(2, 3, side, side), grid, overlap)
    assert pieces.shape[:3] == (2, grid**2, 3) and pieces.shape[3] == pieces.shape[4] >= side // grid


def test_features_are_the_mean_over_the_grid() -> None:
    method, images = build(grid=3).eval(), random64(2, 3, 16, 16)
    whole = method.features(images)
    pieces = [images[:, :, 4 * r : 4 * r + 8, 4 * c : 4 * c + 8] for r in range(3) for c in range(3)]
    expected = torch.stack([method.encoder(piece) for piece in pieces]).mean(dim=0)
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9)
    assert whole.shape == (2, method.dim)


def test_prepare_fits_affine_norms_on_patches() -> None:
    method = build(encoder=replace(ENCODER, norm="affine"))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.prepare([patches()])
    changed = {key for key, value in method.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("encoder.") for key in changed)


def test_log_has_the_collapse_telemetry() -> None:
    loss, log = build().loss([patches()], NOBODY, NOBODY, STEP)
    assert loss.requires_grad and loss.ndim == 0
    assert set(log) == HEALTH | {"patch_top1"} and not any(v.requires_grad for v in log.values())
    assert 0.0 <= log["patch_top1"].item() <= 1.0


def test_bad_input_is_refused() -> None:
    for config, sentence in [
        ({"grid": 1}, "grid is 1, it takes at least 2 rows"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\), not 1.0"),
        ({"steps": 7}, "steps is 7, but a grid of 7 rows allows 1 to 6"),
        ({"steps": 0}, "steps is 0, but a grid of 7 rows"),
        ({"skip": 5}, "skip is 5, but of 5 steps at least one must be predicted"),
        ({"directions": 5}, "directions must be 1, 2, 3 or 4, not 5"),
        ({"context_blocks": 0}, "context_blocks must be at least 1, not 0"),
        ({"context_norm": "batch"}, "none or layer, not 'batch'"),
        ({"target": -1}, "not -1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            CPCConfig(**config)  # type: ignore[arg-type]
    method = build(grid=3)
    with pytest.raises(ValueError, match="grid 3 needs views of 9 patches, but these have 16 patches"):
        method.loss([patches(4)], NOBODY, NOBODY, STEP)
    with pytest.raises(ValueError, match="these have no patches"):
        method.loss([random64(N, 3, 16, 16)], NOBODY, NOBODY, STEP)
    with pytest.raises(ValueError, match="images of 4 pixels are too small for a grid of 7 x 7 patches"):
        cut(torch.zeros(1, 3, 4, 4), 7, 0.5)
