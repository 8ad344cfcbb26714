"""Whose tensors are whose: every official layout, by name and recognized, gives the features of the network it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate.foreign import Foreign, check, open_foreign
from benchmark.evaluate.layouts import LAYOUTS, take
from benchmark.evaluate.names import from_torchvision_vit, to_torchvision_vit
from benchmark.evaluate.weights_file import WeightsFile, read_weights
from tests.evaluate import checkpoints
from tests.evaluate.checkpoints import RELEASES, converted_byol, haiku_byol, resnet, stirred, trained, vit


def opened(contents: dict[str, Any], layout: str = "auto", **said: Any) -> Foreign:
    path = Path("given.pth")
    foreign = open_foreign(WeightsFile(path, contents, "0" * 64), layout, said)
    check(foreign, path)
    foreign.network.eval()
    return foreign


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def same(foreign: Foreign, network: nn.Module, side: int = 32, tolerance: float = 1e-5) -> None:
    found, expected = foreign.network.features(images(side)), network.eval()(images(side))  # type: ignore[operator]
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_is_recognized_and_gives_its_features(release: str, tmp_path: Path) -> None:
    layout, contents, network, aside = RELEASES[release]
    torch.save(contents(), tmp_path / "file.pth")  # a file, because that is where Namespaces and wrappers come from
    file = read_weights(tmp_path / "file.pth")
    for asked in ("auto", layout):
        foreign = open_foreign(file, asked, {})
        check(foreign, file.path)
        foreign.network.eval()
        assert foreign.layout == layout
        assert set(foreign.match.aside.values()) == aside
        same(foreign, network())


def test_the_table_of_releases_has_every_layout() -> None:
    # tests/test_export.py has those of detectron2
    assert {layout for layout, *_ in RELEASES.values()} | {"byol", "detectron2"} == set(LAYOUTS)


@pytest.mark.parametrize(
    ("layout", "network"), [("barlow", "resnet50"), ("vicreg", "resnet50"), ("dino", "resnet18"), ("timm", "resnet34")]
)
def test_bare_trunks_are_recognized_as_torchvisions_and_load_under_their_own_layout(layout: str, network: str) -> None:
    state = resnet(network).state_dict()
    assert opened(state).layout == "torchvision"
    foreign = opened(state, layout)
    assert foreign.layout == layout and foreign.encoder.name == network
    same(foreign, resnet(network))


def test_the_network_that_is_averaged_or_trained_beside_is_not_the_one_taken() -> None:
    contents = RELEASES["dino vit"][1]()
    contents["teacher"], contents["student"] = contents["student"], contents["teacher"]
    with pytest.raises(AssertionError):
        same(opened(contents), vit())


def test_torchvisions_vit_under_both_of_its_spellings() -> None:
    theirs = stirred(torchvision.models.VisionTransformer(32, 16, 12, 3, 192, 768, num_classes=5))
    state = theirs.state_dict()
    old = {k.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): v for k, v in state.items()}
    theirs.heads = nn.Identity()  # type: ignore[assignment]
    for layout, contents in (("auto", state), ("torchvision", old)):
        foreign = opened(contents, layout)
        assert foreign.layout == "torchvision" and set(foreign.match.aside) == {"heads.head.weight", "heads.head.bias"}
        same(foreign, theirs)
    for key in opened(state).match.matched:
        assert from_torchvision_vit(to_torchvision_vit(key)) == key
    assert {to_torchvision_vit(key) for key in opened(state).match.matched} == {key for key in state if "heads" not in key}


# BYOL's.


def padded_as_same(network: nn.Module) -> Any:
    """ResNet-50's forward, written out with TensorFlow's SAME before everything strided."""

    def pads(x: Tensor, kernel: int, stride: int) -> Tensor:
        sides = []
        for side in (x.shape[3], x.shape[2]):
            lacking = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            sides += [lacking // 2, lacking - lacking // 2]
        return F.pad(x, sides)

    def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
        return F.conv2d(pads(x, layer.kernel_size[0], layer.stride[0]), layer.weight, None, layer.stride)

    def forward(x: Tensor) -> Tensor:
        net: Any = network
        x = F.relu(net.bn1(conv(net.conv1, x)))
        x = F.max_pool2d(pads(x, 3, 2), 3, 2)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                y = F.relu(block.bn1(conv(block.conv1, x)))
                y = F.relu(block.bn2(conv(block.conv2, y)))
                y = block.bn3(conv(block.conv3, y))
                if block.downsample is not None:
                    x = block.downsample[1](conv(block.downsample[0], x))
                x = F.relu(x + y)
        return x.mean(dim=(2, 3))

    return forward


@pytest.mark.parametrize("side", [64, 33])
@torch.no_grad()
def test_byol_is_padded_as_it_was_trained(side: int) -> None:
    foreign = opened(converted_byol(), "byol")
    expected = padded_as_same(resnet("resnet50"))(images(side))
    torch.testing.assert_close(foreign.network.features(images(side)), expected, rtol=1e-5, atol=1e-5)
    if side == 64:  # and on even sides that is another grid than torchvision's
        assert not torch.allclose(expected, resnet("resnet50")(images(side)), rtol=1e-2)


def test_byol_as_deepminds_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "byol.npz", **{key: value.numpy() for key, value in haiku_byol().items()})
    file = read_weights(tmp_path / "byol.npz")
    foreign = open_foreign(file, "auto", {})  # no other release has such names
    check(foreign, file.path)
    assert foreign.layout == "byol"
    assert set(foreign.match.aside.values()) == {"classifier", "head"} and foreign.same_pads
    expected = opened(converted_byol(), "byol")
    with torch.no_grad():
        assert torch.equal(foreign.network.eval().features(images()), expected.network.features(images()))


def test_byol_or_an_old_torchvision_is_asked_for_instead_of_guessed() -> None:
    with pytest.raises(
        InputError, match=r"^given.pth: batch norms without num_batches_tracked .* --layout torchvision or --layout byol$"
    ):
        opened(converted_byol())
    foreign = opened(converted_byol(), "torchvision")  # its counters are not missed
    assert not foreign.same_pads
    same(foreign, resnet("resnet50"))


# What is not there.


@pytest.mark.parametrize(
    ("contents", "layout", "sentence"),
    [
        (checkpoints.simsiam, "moco", r"has no encoder where .* keeps it \(state_dict: encoder_q.\.\.\.\); it holds epoch;"),
        (checkpoints.moco, "torchvision", "has no encoder where layout torchvision keeps it"),
        (lambda: resnet().state_dict(), "detectron2", r"keeps it \(model: stem\.\.\. or stem\.\.\.\); it holds conv1"),
        (lambda: {"model": {"stem.conv1.weight": torch.ones(2, 3, 7, 7)}}, "auto", "^given.pth: the detectron2 weights cannot"),
        (lambda: {"epoch": 3}, "auto", "it holds epoch; say what it is with --layout"),
        (dict, "auto", "it is empty; say"),
        (lambda: trained({"a.weight": torch.ones(2)}), "auto", r"state_dict: a\.\.\."),
        (lambda: {"format": 1, "config": {}, "method": {}}, "moco", "a checkpoint of Retable's own, --layout retable"),
    ],
)  # fmt: skip
def test_a_file_without_the_layouts_encoder_says_what_it_holds(contents: Any, layout: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        take(contents(), layout, Path("given.pth"))


def test_a_key_that_the_layout_does_not_name_is_never_ignored() -> None:
    for name in ("encoder_q.layer5.weight", "scale"):
        contents = checkpoints.moco()
        contents["state_dict"][f"module.{name}"] = torch.ones(2)
        with pytest.raises(
            InputError, match=rf"does not fit layout moco, .*{name.removeprefix('encoder_q.')}, which it does not know"
        ):
            opened(contents, "moco")


def test_wrappers_are_taken_off_only_where_every_key_has_them() -> None:
    state = resnet().state_dict()
    twice = {f"module._orig_mod.{key}": value for key, value in state.items()}
    same(opened(twice), resnet())
    with pytest.raises(InputError):
        opened(twice | {"loose": torch.ones(1)})
