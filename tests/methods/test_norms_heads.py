"""Norms against their definitions; heads of every norm."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.heads import HeadConfig, has_batch_norm, mlp, out_dim
from methods.norms import (
    Affine,
    BatchNorm1d,
    Conv2d,
    GroupNorm,
    StandardizedConv2d,
    StandardizedLinear,
    data_dependent_init,
    divisor,
    norm_1d,
    norm_2d,
    standardized,
)

NORMS = ["batch", "group", "group_ws", "layer", "none", "affine"]


def test_standardized_weights_have_mean_zero_and_variance_one_per_output() -> None:
    weight = 3.0 * torch.randn(5, 4, 3, 3, dtype=torch.float64) + 1.0
    rows = standardized(weight).flatten(1)
    torch.testing.assert_close(rows.mean(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(rows.square().mean(dim=1), torch.ones(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_standardized_layers_ignore_scale_and_shift_of_their_weights() -> None:
    conv, linear = StandardizedConv2d(3, 4, 3, padding=1), StandardizedLinear(6, 4)
    maps, vectors = torch.randn(2, 3, 5, 5), torch.randn(2, 6)
    before = conv(maps), linear(vectors)
    with torch.no_grad():
        for layer in (conv, linear):
            layer.weight.mul_(10.0).add_(2.0)
    torch.testing.assert_close(conv(maps), before[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(linear(vectors), before[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("channels", "groups", "expected"), [(64, 16, 16), (8, 16, 8), (24, 16, 12), (7, 4, 1), (1, 16, 1)])
def test_groups_are_capped_and_divide_the_channels(channels: int, groups: int, expected: int) -> None:
    assert divisor(channels, groups) == expected
    layers = [norm_2d("group", channels, groups)]
    if expected < channels:
        layers.append(norm_1d("group_ws", channels, groups))
    for layer in layers:
        assert isinstance(layer, nn.GroupNorm) and layer.num_groups == expected


def test_groups_of_a_single_value_are_refused() -> None:
    """Their norm is zero whatever comes in: vectors are refused when the layer is made, maps when they arrive."""
    for channels, groups in ((8, 16), (16, 16), (1, 4)):
        with pytest.raises(ValueError, match=f"{channels} groups of {channels} channels .* a vector"):
            norm_1d("group", channels, groups)
    with pytest.raises(ValueError, match="one value"):
        mlp(10, HeadConfig(hidden=16, norm="group_ws"))
    layer = norm_2d("group", 8, 16)
    assert layer(torch.randn(2, 8, 2, 1)).abs().min() > 0
    with pytest.raises(ValueError, match="8 groups of 8 channels leave one value to a group of a map of one pixel"):
        layer(torch.randn(2, 8, 1, 1))
    assert norm_2d("group", 16, 8)(torch.randn(2, 16, 1, 1)).abs().min() > 0


def test_no_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        divisor(8, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_group_norm_is_pytorchs_and_keeps_the_memory_format(dtype: torch.dtype) -> None:
    ours, theirs = (kind(4, 8).to(dtype) for kind in (GroupNorm, nn.GroupNorm))
    results = []
    for norm in (ours, theirs):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(3, 8, 5, 5, generator=generator).to(dtype).to(memory_format=torch.channels_last)
        y = norm(x.requires_grad_(True))
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape)).sum().backward()
        assert y.is_contiguous(memory_format=torch.channels_last)
        results.append((y.detach(), x.grad))
    tolerance = 1e-9 if dtype == torch.float64 else 3e-2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_layer_norm_on_maps_is_over_channels_and_space() -> None:
    x = 2.0 * torch.randn(3, 4, 5, 5, dtype=torch.float64) + 1.0
    y = norm_2d("layer", 4, 16).double()(x)
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.var(dim=(1, 2, 3), correction=0), torch.ones(3).double(), atol=1e-4, rtol=0)


def test_unknown_norms_are_refused() -> None:
    for make in (norm_1d, norm_2d):
        with pytest.raises(ValueError, match="unknown norm 'bn'"):
            make("bn", 4, 1)


@pytest.mark.parametrize("shape", [(32, 6), (8, 6, 5, 5)])
def test_affine_starts_as_batch_norm_would_and_then_has_no_statistics(shape: tuple[int, ...]) -> None:
    x = 3.0 * torch.randn(shape, dtype=torch.float64) + 2.0
    affine = Affine(6).double()
    batch = (nn.BatchNorm1d(6) if len(shape) == 2 else nn.BatchNorm2d(6)).double()
    with torch.no_grad():
        for layer in (affine, batch):
            layer.weight.copy_(torch.linspace(-1, 2, 6))
            layer.bias.copy_(torch.linspace(3, 4, 6))
    with data_dependent_init(affine) as wanted:
        assert wanted
        torch.testing.assert_close(affine(x), batch(x))
        torch.testing.assert_close(affine(x), batch(x))  # fitted by the first forward only
    torch.testing.assert_close(affine(2.0 * x) - affine(x), affine(3.0 * x) - affine(2.0 * x))
    assert not affine.fitting and affine.weight.requires_grad


def test_stacked_affines_see_what_the_layers_before_have_normalized() -> None:
    def stack(norm: type[nn.Module]) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), norm(5), nn.ReLU(), nn.Linear(5, 3), norm(3)).double()

    twin, net = stack(nn.BatchNorm1d), stack(Affine)
    x = torch.randn(16, 4, dtype=torch.float64)
    with torch.no_grad(), data_dependent_init(net):
        net(x)
    torch.testing.assert_close(net(x), twin(x))


def test_data_dependent_init_tells_whether_there_is_anything_to_set() -> None:
    with data_dependent_init(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) as wanted:
        assert not wanted


def test_affine_keeps_half_precision() -> None:
    assert Affine(3)(torch.randn(2, 3).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("final_norm", [False, True])
def test_heads_of_every_norm(norm: str, final_norm: bool) -> None:
    config = HeadConfig(layers=3, hidden=24, out=8, norm=norm, final_norm=final_norm, groups=4)  # type: ignore[arg-type]
    head = mlp(10, config)
    y = head(torch.randn(5, 10))
    assert y.shape == (5, 8) and out_dim(10, config) == 8
    y.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    kinds = {
        "batch": BatchNorm1d,
        "group": nn.GroupNorm,
        "group_ws": nn.GroupNorm,
        "layer": nn.LayerNorm,
        "none": nn.Identity,
        "affine": Affine,
    }
    assert sum(type(m) is kinds[norm] for m in head) == 2 + final_norm
    linears = [m for m in head if isinstance(m, nn.Linear)]
    assert len(linears) == 3
    assert all((m.bias is None) == (norm in ("batch", "affine")) for m in linears[:2])
    assert all(isinstance(m, StandardizedLinear) == (norm == "group_ws") for m in linears[:2])


def test_heads_of_one_and_of_no_layer() -> None:
    one = mlp(10, HeadConfig(layers=1, out=4))
    assert len(one) == 1 and isinstance(one[0], nn.Linear) and one[0].bias is not None
    none = HeadConfig(layers=0, out=4)
    x = torch.randn(3, 10)
    assert torch.equal(mlp(10, none)(x), x) and out_dim(10, none) == 10
    with pytest.raises(ValueError, match="at least 0"):
        mlp(10, HeadConfig(layers=-1))
    for hidden, out in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="widths must be at least 1"):
            mlp(10, HeadConfig(hidden=hidden, out=out))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_head_knows_whether_it_has_a_batch_norm(layers: int, final_norm: bool, norm: str) -> None:
    config = HeadConfig(layers=layers, hidden=6, out=6, norm=norm, final_norm=final_norm)  # type: ignore[arg-type]
    assert has_batch_norm(config) == any(isinstance(m, BatchNorm1d) for m in mlp(6, config))


def test_final_bias_is_a_choice() -> None:
    config = HeadConfig(final_bias=False)
    assert mlp(10, config)[-1].bias is None
    assert mlp(10, replace(config, final_bias=True))[-1].bias is not None


@pytest.mark.parametrize("kind", [Conv2d, StandardizedConv2d])
def test_a_map_of_one_pixel_meets_the_kernels_centre_alone(kind: type[Conv2d]) -> None:
    """The same numbers as PyTorch's convolution in float64; in bfloat16 its gradient is garbage and ours is not."""
    torch.manual_seed(0)
    layer = kind(16, 32, 3, 2, padding=1, bias=False)
    x = torch.randn(64, 16, 1, 1)
    wide = copy.deepcopy(layer).double()
    weight = standardized(wide.weight) if kind is StandardizedConv2d else wide.weight
    expected = torch.autograd.grad(F.conv2d(x.double(), weight, None, 2, 1).square().sum(), wide.weight)[0]
    (found,) = torch.autograd.grad(wide(x.double()).square().sum(), wide.weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    layer = layer.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.contiguous(memory_format=torch.channels_last))
    y.float().square().sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))
