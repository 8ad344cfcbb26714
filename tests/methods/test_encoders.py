"""Convolutional encoders: torchvision's numbers, every norm and stem, shapes, initial values, selective kernels."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from methods.encoders import EncoderConfig, build_encoder
from methods.encoders.resnet import AveragePool, ResNet, SelectiveKernel
from methods.norms import Affine, BatchNorm2d, StandardizedConv2d, data_dependent_init

NORMS = ["batch", "group", "group_ws", "layer", "none", "affine"]
NAMES = ["convnet", "resnet10", "resnet18", "resnet50"]
STEMS = ["imagenet", "cifar", "stride2"]


def build(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(**settings))[0]  # type: ignore[arg-type]


def convolutions(net: nn.Module) -> Iterator[nn.Conv2d]:
    return (m for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnets_are_torchvisions(name: str) -> None:
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.fc = nn.Identity()
    theirs.train()
    theirs(torch.randn(4, 3, 64, 64))  # running statistics away from their start
    ours, dim = build_encoder(EncoderConfig(name=name))  # type: ignore[arg-type]
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    for mode in (False, True):
        with torch.no_grad():
            expected, found = theirs.train(mode)(images), ours.train(mode)(images)
        assert found.shape == (2, dim)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "norm"), list(itertools.product(NAMES, NORMS)))
def test_every_encoder_with_every_norm_learns_something(name: str, norm: str) -> None:
    config = EncoderConfig(name=name, norm=norm, stem="stride2", width=0.25, zero_init=False)  # type: ignore[arg-type]
    torch.manual_seed(0)
    net, dim = build_encoder(config)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad(), data_dependent_init(net):
        net(images)
    y = net(images)
    assert y.shape == (4, dim) and y.isfinite().all()
    y.square().mean().backward()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
    assert all((conv.bias is not None) == (norm == "none") for conv in convolutions(net))
    assert all(isinstance(conv, StandardizedConv2d) == (norm == "group_ws") for conv in convolutions(net))


@pytest.mark.parametrize(("name", "stem"), list(itertools.product(NAMES, STEMS)))
def test_stems_divide_the_side_as_they_say(name: str, stem: str) -> None:
    net = build(name=name, stem=stem, width=0.125)
    sides: list[int] = []
    target = net.layers[3] if name == "convnet" else net.maxpool  # type: ignore[index, union-attr]
    target.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    net(torch.randn(2, 3, 32, 32))
    assert sides == [{"imagenet": 8, "cifar": 32, "stride2": 16}[stem]]


@pytest.mark.parametrize(("name", "dim"), [("convnet", 128), ("resnet10", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_width_multiplies_every_channel_count(name: str, dim: int) -> None:
    for width in (0.5, 1.0):
        net, found = build_encoder(EncoderConfig(name=name, width=width))  # type: ignore[arg-type]
        assert found == dim * width
        first = next(convolutions(net))
        assert first.out_channels == (32 if name == "convnet" else 64) * width


def test_resnet10_has_one_block_a_stage() -> None:
    net = build(name="resnet10")
    assert [len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)] == [1, 1, 1, 1]


# README of SimCLR v2's released code, in millions: (depth, width, sk).
SIMCLR_V2 = {
    (50, 1, False): 24, (50, 1, True): 35, (50, 2, False): 94, (50, 2, True): 140,
    (101, 1, False): 43, (101, 1, True): 65, (101, 2, False): 170, (101, 2, True): 257,
    (152, 1, False): 58, (152, 1, True): 89, (152, 2, False): 233, (152, 2, True): 354, (152, 3, True): 795,
}  # fmt: skip


@pytest.mark.parametrize("network", SIMCLR_V2, ids=str)
def test_parameters_are_as_many_as_simclr_v2_prints(network: tuple[int, int, bool]) -> None:
    depth, width, sk = network
    with torch.device("meta"):
        net = build(name=f"resnet{depth}", width=float(width), sk=sk)
    count = sum(p.numel() for p in net.parameters())
    statistics = sum(2 * m.num_features for m in net.modules() if isinstance(m, BatchNorm2d))
    assert round((count + statistics) / 1e6) == SIMCLR_V2[network]


@pytest.mark.parametrize("norm", ["batch", "group", "group_ws", "layer", "affine"])
@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_is_the_last_scale_of_each_block(name: str, last: str, norm: str) -> None:
    for zero_init in (True, False):
        net = build(name=name, norm=norm, width=0.125, zero_init=zero_init)
        for key, p in net.named_parameters():
            if key.endswith(f"{last}.weight"):
                assert bool((p == 0).all()) == zero_init, key
            elif "bn" in key and key.endswith("weight"):
                assert (p == 1).all(), key


def test_zero_init_without_norms_changes_nothing() -> None:
    a, b = (build(name="resnet18", norm="none", width=0.25, zero_init=z) for z in (True, False))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)


def test_affine_network_starts_as_its_batch_norm_twin() -> None:
    """Richemond et al., section 3.3: batch norm's work at initialization, and none of it afterwards."""
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    for zero_init in (True, False):
        settings = {"name": "resnet18", "stem": "stride2", "width": 0.25, "zero_init": zero_init}
        twin, net = build(norm="batch", **settings).double(), build(norm="affine", **settings).double()
        with torch.no_grad(), data_dependent_init(net):
            net(images)
        torch.testing.assert_close(net(images), twin(images), rtol=1e-9, atol=1e-9)
        assert any(isinstance(m, Affine) for m in net.modules())
        one = net(images[:1])  # no statistics: a sample's output does not depend on its batch
        torch.testing.assert_close(one, net(images)[:1])


@pytest.mark.parametrize("norm", ["group", "group_ws", "layer", "none"])
def test_norms_without_batch_statistics_treat_samples_alone(norm: str) -> None:
    net = build(name="resnet10", stem="stride2", norm=norm, width=0.25, zero_init=False).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(net(images)[:1], net(images[:1]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["convnet", "resnet10"])
def test_bfloat16_and_channels_last_agree_with_float32(name: str, norm: str) -> None:
    net = build(name=name, stem="stride2", norm=norm, width=0.5, zero_init=False)
    images = torch.randn(8, 3, 32, 32)
    plain = net(images)
    fast = copy.deepcopy(net).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = fast(images.contiguous(memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16, "something promoted the maps to float32"
    cosine = torch.cosine_similarity(found.float(), plain, dim=1)
    assert cosine.min() > 0.98


def test_wrong_names_are_refused_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match="encoders are convnet, resnet10"):
        build(name="resnet20")
    with pytest.raises(ValueError, match="stems are imagenet"):
        build(stem="small")
    with pytest.raises(ValueError, match="norms are batch"):
        build(norm="bn")
    with pytest.raises(ValueError, match="one of resnet50, resnet101, resnet152, not 'resnet18'"):
        build(name="resnet18", sk=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "vit_small", "norm": "group"}, "'vit_small' has no norm; leave it at batch, not group"),
        ({"name": "vit_small", "bn_splits": 2}, "'vit_small' has no bn_splits"),
        ({"name": "vit_small", "sk": True}, "'vit_small' has no sk"),
        ({"name": "resnet18", "heads": 3}, "'resnet18' has no heads; leave it at 0, not 3"),
        ({"name": "convnet", "drop_path": 0.1}, "'convnet' has no drop_path"),
        ({"name": "resnet50", "patch_projection": "frozen"}, "'resnet50' has no patch_projection"),
        ({"width": 0.0}, "width must be positive, not 0.0"),
        ({"bn_splits": 0}, "bn_splits must be at least 1, not 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, not 0"),
        ({"name": "vit_tiny", "heads": -1}, "heads must be at least 0, not -1"),
        ({"name": "vit_tiny", "drop_path": 1.0}, "drop_path must be in \\[0, 1\\), not 1.0"),
        ({"name": "vit_tiny", "patch_projection": "random"}, "must be learned or frozen, not 'random'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**changed)  # type: ignore[arg-type]


def test_settings_of_size_may_be_said_for_all_rows() -> None:
    """A sweep over a ResNet and a ViT names the stem of the one and the patches of the other once."""
    for name in ("resnet10", "vit_tiny"):
        build(name=name, stem="cifar", patch_size=4, width=0.25)


# Batch norms in parts.


def test_splits_are_the_parts_of_the_batch_run_alone() -> None:
    """MoCo on two GPUs, on one: outputs and gradients of each half by itself, running statistics their mean."""
    settings = {"name": "resnet18", "stem": "stride2", "width": 0.125, "zero_init": False}
    split, alone = build(bn_splits=2, **settings).double(), build(**settings).double()
    images, weights = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.randn(8, 64, dtype=torch.float64)
    halves = [copy.deepcopy(alone) for _ in range(2)]
    expected = torch.cat([net(x) for net, x in zip(halves, images.chunk(2), strict=True)])
    found = split(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(alone(images), expected, rtol=1e-2), "whole-batch statistics would do as well"
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for p, first, second in zip(split.parameters(), *(net.parameters() for net in halves), strict=True):
        assert p.grad is not None and first.grad is not None and second.grad is not None
        torch.testing.assert_close(p.grad, first.grad + second.grad, rtol=1e-7, atol=1e-9)
    for (key, value), first, second in zip(split.named_buffers(), *(net.buffers() for net in halves), strict=True):
        if value.is_floating_point():
            torch.testing.assert_close(value, (first + second) / 2, rtol=1e-9, atol=1e-9, msg=key)
    torch.testing.assert_close(split.eval()(images[:3]), split(images)[:3])  # evaluation has no parts


@pytest.mark.parametrize("size", [7, 2])
def test_a_batch_that_cannot_be_split_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} samples cannot be split into 2 parts"):
        build(name="resnet10", width=0.125, bn_splits=2)(torch.randn(size, 3, 32, 32))


# Selective kernels, and the ResNet-D that comes with them.


def batch_normed(x: Tensor) -> Tensor:  # B x C x h x w
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_selective_kernel_is_its_equations(stride: int) -> None:
    torch.manual_seed(0)
    kernel = SelectiveKernel(EncoderConfig(name="resnet50", sk=True), 5, stride).double()
    x = torch.randn(4, 5, 7, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *kernel.parameters()]
    found = kernel(x)

    weight, squeeze, excite = kernel.conv.weight, kernel.gate[0].weight[:, :, 0, 0], kernel.gate[3].weight[:, :, 0, 0]
    u = [batch_normed(torch.conv2d(x, w, stride=stride, padding=1)).relu() for w in (weight[:5], weight[5:])]
    s = torch.stack([(u[0][b] + u[1][b]).mean(dim=(1, 2)) for b in range(4)])
    hidden = batch_normed((s @ squeeze.T)[:, :, None, None])[:, :, 0, 0].relu()
    assert squeeze.shape == (32, 5) and excite.shape == (10, 32)
    rows = []
    for b in range(4):
        maps = []
        for c in range(5):
            first, second = (excite[c] @ hidden[b]).exp(), (excite[5 + c] @ hidden[b]).exp()
            maps.append((first * u[0][b, c] + second * u[1][b, c]) / (first + second))
        rows.append(torch.stack(maps))
    expected = torch.stack(rows)

    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pull = torch.randn_like(found)
    ours = torch.autograd.grad(found, inputs, pull)
    slow = torch.autograd.grad(expected, inputs, pull, allow_unused=True)  # scales and offsets are 1 and 0 there
    compared = 0
    for a, b in zip(ours, slow, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
            compared += 1
    assert compared == 4


def test_the_gate_is_a_sixteenth_as_wide_and_at_least_32() -> None:
    config = EncoderConfig(name="resnet50", sk=True)
    assert [SelectiveKernel(config, c, 1).gate[0].out_channels for c in (64, 512, 1024)] == [32, 32, 64]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_the_shortcuts_pool_is_the_mean_of_neighbours(stride: int, side: int) -> None:
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    found = AveragePool(stride)(x)
    n = -(-side // stride)
    assert found.shape == (2, 3, n, n)
    for i, j in itertools.product(range(n), range(n)):
        cells = [(a, b) for a in (i * stride, i * stride + 1) for b in (j * stride, j * stride + 1)]
        there = [x[:, :, a, b] for a, b in cells if a < side and b < side]
        expected = sum(there) / (len(there) if stride == 1 else 4)
        torch.testing.assert_close(found[:, :, i, j], expected)


def test_selective_kernels_bring_resnet_ds_stem_and_shortcuts() -> None:
    net = build(name="resnet50", sk=True, width=0.25)
    assert isinstance(net, ResNet)
    assert [(c.kernel_size, c.stride, c.out_channels) for c in convolutions(net.conv1)] == [
        ((3, 3), (2, 2), 8),
        ((3, 3), (1, 1), 8),
        ((3, 3), (1, 1), 16),
    ]
    blocks = [block for i in (1, 2, 3, 4) for block in getattr(net, f"layer{i}")]
    assert len(blocks) == 16 and all(isinstance(block.conv2, SelectiveKernel) for block in blocks)
    pools = [block.downsample[0].stride for block in blocks if block.downsample is not None]
    assert pools == [1, 2, 2, 2]
    assert all(block.downsample[1].stride == (1, 1) for block in blocks if block.downsample is not None)
    cifar = build(name="resnet50", sk=True, width=0.25, stem="cifar")
    assert isinstance(cifar.conv1, nn.Conv2d), "only the stem for large images changes"


@pytest.mark.parametrize("norm", NORMS)
def test_selective_kernels_with_every_norm(norm: str) -> None:
    net = build(name="resnet50", sk=True, norm=norm, stem="stride2", width=0.125, zero_init=False)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad(), data_dependent_init(net):
        net(images)
    plain = net(images)
    assert plain.shape == (4, 256) and plain.isfinite().all()
    plain.square().mean().backward()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
        assert p.grad.any() or (norm == "affine" or key.endswith("bias")), f"{key} does nothing"
    with torch.autocast("cpu", torch.bfloat16):
        assert net(images).dtype == torch.bfloat16, "something promoted the maps to float32"


@pytest.mark.parametrize("norm", NORMS)
def test_selective_kernels_in_bfloat16_and_channels_last(norm: str) -> None:
    torch.manual_seed(0)
    kernel = SelectiveKernel(EncoderConfig(name="resnet50", sk=True, norm=norm), 16, 1)  # type: ignore[arg-type]
    maps = torch.randn(16, 16, 8, 8)
    plain = kernel(maps)
    fast = copy.deepcopy(kernel).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(maps.contiguous(memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16 and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.cosine_similarity(found.float().flatten(1), plain.flatten(1), dim=1).min() > 0.99
