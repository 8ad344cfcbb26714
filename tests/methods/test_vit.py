"""Vision transformers: timm's blocks, the equations, MoCo v3's start, drop path, views of any size."""

from __future__ import annotations

import copy
import functools
import io
import math
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import methods.encoders.vit as vit
from methods.base import Setting, Step, grouped
from methods.byol import BYOL, BYOLConfig
from methods.encoders import EncoderConfig, build_encoder
from methods.encoders.vit import Block, ViT, positions
from methods.heads import HeadConfig

SMALL = {"name": "vit_tiny", "patch_size": 8, "width": 0.25, "heads": 4}  # 48 channels


def build(channels: int = 3, seed: int = 0, **settings: Any) -> ViT:
    torch.manual_seed(seed)
    net = build_encoder(EncoderConfig(**(SMALL | settings)), channels)[0]
    assert isinstance(net, ViT)
    return net


def stirred(net: ViT) -> ViT:
    """Away from its start, where biases are zero and scales one."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net


def images(count: int = 3, height: int = 24, width: int = 24, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)


def timms(net: ViT, heads: int, size: tuple[int, int], patch: int = 8) -> VisionTransformer:
    """timm's network with our weights, and with our positions where it has its own."""
    theirs = VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=net.out_dim,
        num_heads=heads,
        num_classes=0,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    ).double()
    ours = positions(size[0] // patch, size[1] // patch, net.out_dim, net.cls_token)
    state = net.state_dict() | {"pos_embed": torch.cat([torch.zeros_like(ours[:1]), ours])[None]}
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("size", [(24, 24), (16, 40)])
def test_features_and_gradients_are_timms(size: tuple[int, int]) -> None:
    net = stirred(build().double())
    theirs = timms(net, 4, size)
    x = images(3, *size)
    found, expected = net(x), theirs(x)
    assert found.shape == (3, 48)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pull = torch.randn_like(found)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    gradients = dict(theirs.named_parameters())
    for key, p in net.named_parameters():
        torch.testing.assert_close(p.grad, gradients[key].grad, rtol=1e-8, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", ["vit_tiny", "vit_small", "vit_base"])
def test_sizes_are_timms_and_the_papers(name: str) -> None:
    """DINO's table 1: 21 M of ViT-S, 85 M of ViT-B; the constant positions of 224 / 16 are counted there."""
    with torch.device("meta"):
        net, dim = build_encoder(EncoderConfig(name=name))  # type: ignore[arg-type]
        theirs = timm.create_model(f"{name}_patch16_224", num_classes=0)
    shapes = {key: p.shape for key, p in theirs.named_parameters() if key != "pos_embed"}
    assert {key: p.shape for key, p in net.named_parameters()} == shapes
    count = sum(p.numel() for p in net.parameters()) + 197 * dim
    assert round(count / 1e6, 1) == {"vit_tiny": 5.5, "vit_small": 21.7, "vit_base": 85.8}[name]
    blocks = [block for block in net.modules() if isinstance(block, Block)]
    assert len(blocks) == 12 and {block.attn.heads for block in blocks} == {dim // 64}
    assert {block.attn.num_heads for block in theirs.blocks} == {dim // 64}


def layer_norm(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:  # D
    mean = sum(x) / len(x)
    return (x - mean) / (sum((x - mean) ** 2) / len(x) + 1e-6).sqrt() * scale + offset


def test_a_block_is_its_equations() -> None:
    torch.manual_seed(0)
    block = Block(6, 2).double()
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    rows = []
    for sample in x:
        normed = [layer_norm(token, block.norm1.weight, block.norm1.bias) for token in sample]
        qkv = [block.attn.qkv.weight @ token + block.attn.qkv.bias for token in normed]
        tokens = []
        for t in range(4):
            heads = []
            for h in (0, 3):  # where a head's three channels begin
                q = qkv[t][h : h + 3]
                weights = [(q @ other[6 + h : 9 + h] / math.sqrt(3)).exp() for other in qkv]
                heads.append(sum(w * other[12 + h : 15 + h] for w, other in zip(weights, qkv, strict=True)) / sum(weights))
            y = sample[t] + block.attn.proj.weight @ torch.cat(heads) + block.attn.proj.bias
            inner = block.mlp.fc1.weight @ layer_norm(y, block.norm2.weight, block.norm2.bias) + block.mlp.fc1.bias
            gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
            tokens.append(y + block.mlp.fc2.weight @ gelu + block.mlp.fc2.bias)
        rows.append(torch.stack(tokens))
    expected, found = torch.stack(rows), block(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pull = torch.randn_like(found)
    inputs = [x, *block.parameters()]
    pairs = zip(torch.autograd.grad(found, inputs, pull), torch.autograd.grad(expected, inputs, pull), strict=True)
    for ours, slow in pairs:
        torch.testing.assert_close(ours, slow, rtol=1e-8, atol=1e-9)


# Positions.


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5)])
def test_positions_are_sines_of_rows_and_columns(rows: int, columns: int) -> None:
    found = positions(rows, columns, 8, torch.zeros((), dtype=torch.float64))
    assert found.shape == (rows * columns, 8)
    for r in range(rows):
        for c in range(columns):
            waves = [f(at * 10000 ** (-i / 2)) for at in (r, c) for f in (math.sin, math.cos) for i in (0, 1)]
            assert found[r * columns + c].tolist() == pytest.approx(waves, abs=1e-12)


def test_positions_are_moco_v3s_on_its_grid() -> None:
    """Its released code, whose `w` runs over the slower index: on a square grid that is the row."""
    n, quarter = 14, 384 // 4
    first, second = torch.meshgrid(torch.arange(n).double(), torch.arange(n).double(), indexing="ij")
    omega = 1.0 / 10000.0 ** (torch.arange(quarter).double() / quarter)
    a, b = torch.outer(first.flatten(), omega), torch.outer(second.flatten(), omega)
    expected = torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], dim=1)
    torch.testing.assert_close(positions(n, n, 384, torch.zeros((), dtype=torch.float64)), expected)
    half = positions(n, n, 384, torch.zeros((), dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, positions(n, n, 384, torch.zeros(())).bfloat16()), "angles were rounded to bfloat16"


def test_order_of_patches_matters_and_rows_are_not_columns() -> None:
    net = stirred(build().double())
    x = images(2)
    swapped = torch.cat([x[:, :, :, 8:16], x[:, :, :, :8], x[:, :, :, 16:]], dim=3)
    assert not torch.allclose(net(x), net(swapped), rtol=1e-3)
    assert not torch.allclose(net(x), net(x.transpose(2, 3)), rtol=1e-3)


@pytest.mark.parametrize("side", [8, 16, 40])
def test_views_of_any_multiple_of_the_patch(side: int) -> None:
    assert build()(images(2, side, side).float()).shape == (2, 48)


@pytest.mark.parametrize(("height", "width"), [(24, 20), (12, 24), (4, 4)])
def test_other_views_are_refused(height: int, width: int) -> None:
    net = build()
    for run in (net, net.attention, functools.partial(net.intermediate, n=1)):
        with pytest.raises(ValueError, match=rf"a view of {height} x {width} does not divide into patches of 8 x 8"):
            run(images(2, height, width).float())


@pytest.mark.parametrize("channels", [1, 2])
def test_images_of_other_channels(channels: int) -> None:
    assert build(channels)(images(2, channels=channels).float()).shape == (2, 48)


# The start.


def test_weights_start_as_moco_v3s() -> None:
    """Uniform in +- sqrt(6 / (inputs + outputs)), the largest of so many within a percent of the bound."""
    net = build(name="vit_tiny", width=1.0, patch_size=16, heads=0)
    fans = {"qkv": (192, 192), "attn.proj": (192, 192), "fc1": (192, 768), "fc2": (768, 192), "patch": (768, 192)}
    seen = set()
    for key, p in net.named_parameters():
        kind = next((kind for kind in fans if kind in key), None)
        if kind and key.endswith("weight"):
            bound = math.sqrt(6 / sum(fans[kind]))
            assert 0.99 * bound < p.abs().max() <= bound, key
            assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02), key
            seen.add(kind)
        elif "norm" in key and key.endswith("weight"):
            assert (p == 1).all(), key
        elif key.endswith("bias"):
            assert (p == 0).all(), key
    assert seen == set(fans)
    assert 0 < net.cls_token.abs().max() < 1e-5


def test_a_frozen_patch_projection_starts_alike_and_is_not_trained() -> None:
    learned, frozen = build(), build(patch_projection="frozen")
    for a, b in zip(learned.parameters(), frozen.parameters(), strict=True):
        assert torch.equal(a, b)
    x = images().float()
    assert torch.equal(learned(x), frozen(x))
    for net in (learned, frozen):
        net(x).square().mean().backward()
    assert learned.patch_embed.proj.weight.grad is not None and learned.patch_embed.proj.weight.grad.any()
    for key, p in frozen.named_parameters():
        assert (p.grad is None) == key.startswith("patch_embed"), key
    trained = {id(p) for group in grouped(p for p in frozen.parameters() if p.requires_grad) for p in group["params"]}
    assert not trained & {id(p) for p in frozen.patch_embed.parameters()} and len(trained) == 12 * 12 + 3


def test_heads_are_one_for_64_channels_unless_said() -> None:
    assert build(width=1.0, heads=0).blocks[0].attn.heads == 3
    assert build(width=0.25, heads=0).blocks[0].attn.heads == 1
    moco = build(name="vit_small", width=1.0, heads=12, patch_size=16)
    assert {block.attn.heads for block in moco.blocks} == {12}
    two, four = stirred(build(heads=2)), stirred(build(heads=4))
    assert not torch.allclose(two(images().float()), four(images().float()), rtol=1e-2)


@pytest.mark.parametrize(("settings", "found"), [({"heads": 5}, "48 channels and 5 heads"), ({"width": 0.05}, "10 channels")])
def test_widths_that_do_not_divide_are_refused(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=rf"{found}.*; channels must be a multiple of 4 and of heads"):
        build(**settings)


# What probes and pictures read.


def test_intermediate_is_the_normed_class_token_of_the_last_blocks() -> None:
    net = stirred(build().double()).eval()
    x = images()
    found = net.intermediate(x, 4)
    assert found.shape == (3, 4, 48)
    torch.testing.assert_close(found[:, -1], net(x))
    theirs = timms(net, 4, (24, 24)).get_intermediate_layers(x, n=4, return_prefix_tokens=True, norm=True)
    for i, (_, prefix) in enumerate(theirs):
        torch.testing.assert_close(found[:, i], prefix[:, 0], rtol=1e-9, atol=1e-9)
    both = net.intermediate(x, 4, patch_mean=True)
    assert torch.equal(both[:, :4], found)
    torch.testing.assert_close(both[:, 4], theirs[-1][0].mean(dim=1), rtol=1e-9, atol=1e-9)
    for n in (0, 13):
        with pytest.raises(ValueError, match=rf"n must be in \[1, 12\].*not {n}"):
            net.intermediate(x, n)


def test_attention_is_what_the_last_block_mixes_by() -> None:
    net = stirred(build().double()).eval()
    x = images()
    found = net.attention(x)
    assert found.shape == (3, 4, 10, 10)
    torch.testing.assert_close(found.sum(dim=3), torch.ones(3, 4, 10, dtype=torch.float64))
    entered: list[Tensor] = []
    last = net.blocks[-1]
    last.attn.register_forward_hook(lambda module, inputs, output: entered.extend([inputs[0], output]))
    net(x)
    qkv = entered[0] @ last.attn.qkv.weight.T + last.attn.qkv.bias
    heads = [found[:, h] @ qkv[:, :, 96 + 12 * h : 108 + 12 * h] for h in range(4)]
    mixed = torch.cat(heads, dim=2) @ last.attn.proj.weight.T + last.attn.proj.bias
    torch.testing.assert_close(mixed, entered[1], rtol=1e-9, atol=1e-9)


def test_bfloat16_and_channels_last_agree_with_float32() -> None:
    net = stirred(build())
    x = images(8).float()
    fast = copy.deepcopy(net).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(x.contiguous(memory_format=torch.channels_last))
        assert fast.attention(x).isfinite().all()
    assert torch.cosine_similarity(found.float(), net(x), dim=1).min() > 0.99


# Drop path.


def kept(net: ViT, batch: int) -> Tensor:  # depth x 2 x B
    found = net._kept(batch)
    assert found is not None and found.shape == (12, 2, batch, 1, 1)
    return found[:, :, :, 0, 0]


def test_drop_path_skips_branches_of_samples() -> None:
    """x + kept * branch(x), with the kept scaled up by 1 / (1 - rate)."""
    net = stirred(build(drop_path=0.5).double())
    x = images(6)
    factors = kept(copy.deepcopy(net), 6)
    assert (factors == 0).any()
    tokens = net._tokens(x)
    rows = []
    for b in range(6):
        y = tokens[b : b + 1]
        for i, block in enumerate(net.blocks):
            y = y + factors[i, 0, b] * block.attn(block.norm1(y))
            y = y + factors[i, 1, b] * block.mlp(block.norm2(y))
        rows.append(net.norm(y)[0, 0])
    torch.testing.assert_close(net(x), torch.stack(rows), rtol=1e-9, atol=1e-9)


def test_drop_path_rates_rise_evenly_from_zero() -> None:
    net = build(drop_path=0.4).double()
    factors = torch.stack([kept(net, 64) for _ in range(64)])  # draws x depth x 2 x B
    rates = torch.linspace(0, 0.4, 12, dtype=torch.float64)
    dropped = (factors == 0).double().mean(dim=(0, 3))  # of 4096: deviation at most 0.008
    torch.testing.assert_close(dropped, rates[:, None].expand(12, 2), rtol=0, atol=0.035)
    assert (dropped[0] == 0).all()
    for i, rate in enumerate(rates):
        levels = factors[:, i][factors[:, i] > 0].unique()
        torch.testing.assert_close(levels, 1 / (1 - rate).reshape(1))
    # Branches, samples and draws do not follow one another.
    last = (factors[:, -4:] == 0).double() - dropped[-4:, :, None]
    branches, blocks = (last[:, 3, 0], last[:, 3, 1]), (last[:, 3], last[:, 2])
    draws, samples = (last[1:], last[:-1]), (last[..., 1:], last[..., :-1])
    for a, b in (branches, blocks, draws, samples):
        correlation = (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()
        assert correlation.abs() < 0.06


def test_nothing_is_dropped_in_evaluation_or_without_gradients() -> None:
    net = stirred(build(drop_path=0.5))
    whole = build()
    whole.load_state_dict({key: value for key, value in net.state_dict().items() if key != "draws"})
    x = images().float()
    expected = whole(x)
    assert not torch.allclose(net(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.eval()(x), expected)
    assert net.draws[1] == 1, "only what is dropped counts as a draw"
    assert "draws" not in whole.state_dict()


def test_drop_path_goes_on_where_it_was() -> None:
    net = build(drop_path=0.5)
    kept(net, 4)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    resumed = build(drop_path=0.5, seed=1)
    assert not torch.equal(kept(resumed, 4), kept(copy.deepcopy(net), 4)), "two networks drop alike"
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(net)
    torch.manual_seed(5)  # the global generator has no say
    expected = [kept(net, 4) for _ in range(3)]
    assert not torch.equal(expected[0], expected[1])
    for other in (resumed, copied):
        for found in expected:
            assert torch.equal(kept(other, 4), found)


def test_drop_path_is_the_same_on_any_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    net = build(drop_path=0.5)
    whole = kept(copy.deepcopy(net), 8)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(vit, "rank", lambda rank=rank: rank)
        parts.append(kept(copy.deepcopy(net), 4))
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert not torch.equal(parts[0], parts[1])


# In a method.


def byol(**settings: Any) -> BYOL:
    head = HeadConfig(hidden=16, out=8)
    torch.manual_seed(0)
    config = BYOLConfig(projector=head, predictor=head)
    return BYOL(config, EncoderConfig(**(SMALL | settings)), Setting(batch_size=4, num_views=2))


def run(method: BYOL, steps: range) -> list[float]:
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for k in steps:
        views = [torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(k + v)) for v in (0, 100)]
        step = Step(k, 6, 0)
        loss, _ = method.train().loss(views, torch.arange(4), torch.zeros(4), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("settings", [{}, {"drop_path": 0.3}, {"patch_projection": "frozen"}])
def test_a_method_trains_and_resumes_with_a_vit(settings: dict[str, Any]) -> None:
    method = byol(**settings)
    start = copy.deepcopy(method.encoder.state_dict())
    run(method, range(3))
    resumed = byol(**settings)
    resumed.load_state_dict(method.state_dict())
    assert run(method, range(3, 6)) == run(resumed, range(3, 6))
    moved = {key for key, p in method.encoder.named_parameters() if not torch.equal(p, start[key])}
    still = {key for key, _ in method.encoder.named_parameters()} - moved
    assert still == ({"patch_embed.proj.weight", "patch_embed.proj.bias"} if "patch_projection" in settings else set())
    assert torch.isfinite(method.eval().features(torch.randn(2, 3, 16, 16))).all()
