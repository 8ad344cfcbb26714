"""Encoders: torchvision's numbers, every norm and stem, shapes, initial values."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from methods.encoders import EncoderConfig, build_encoder
from methods.norms import Affine, StandardizedConv2d, data_dependent_init

NORMS = ["batch", "group", "group_ws", "layer", "none", "affine"]
NAMES = ["convnet", "resnet10", "resnet18", "resnet50"]
STEMS = ["imagenet", "cifar", "stride2"]


def build(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(**settings))[0]  # type: ignore[arg-type]


def convolutions(net: nn.Module) -> Iterator[nn.Conv2d]:
    return (m for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_are_torchvisions(name: str) -> None:
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)(weights=None)
    theirs.fc = nn.Identity()
    theirs.train()
    theirs(torch.randn(8, 3, 64, 64))  # running statistics away from their start
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


@pytest.mark.parametrize(("name", "dim"), [("convnet", 128), ("resnet10", 512), ("resnet18", 512), ("resnet50", 2048)])
def test_width_multiplies_every_channel_count(name: str, dim: int) -> None:
    for width in (0.5, 1.0):
        net, found = build_encoder(EncoderConfig(name=name, width=width))  # type: ignore[arg-type]
        assert found == dim * width
        first = next(convolutions(net))
        assert first.out_channels == (32 if name == "convnet" else 64) * width


def test_resnet10_has_one_block_a_stage() -> None:
    net = build(name="resnet10")
    assert [len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)] == [1, 1, 1, 1]


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
        build(name="resnet34")
    with pytest.raises(ValueError, match="stems are imagenet"):
        build(stem="small")
    with pytest.raises(ValueError, match="norms are batch"):
        build(norm="bn")
