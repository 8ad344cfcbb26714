"""Our encoders under other libraries' names: their networks give our features, and the file comes back as what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from benchmark import export
from benchmark.errors import InputError
from benchmark.evaluate.foreign import check, open_foreign
from benchmark.evaluate.weights_file import read_weights
from benchmark.train.checkpoint import save
from methods import load
from methods.base import Method, Setting
from methods.encoders import EncoderConfig
from tests.evaluate.checkpoints import converted_byol, resnet, stirred


def checkpoint(folder: Path, **settings: Any) -> Method:
    """Of an untrained cell of ours, its weights stirred."""
    kind, encoder = load("random"), EncoderConfig(**settings)
    torch.manual_seed(0)
    method = kind(kind.Config(), encoder, Setting())
    stirred(method)
    data = {"name": "shapes", "content": "0" * 12, "image_size": 32, "train_images": 0, "test_images": 0, "held_out": 0.1}
    config = {"method": "random", "version": kind.VERSION, "encoder": settings, "data": data, "seed": 0}
    save(folder / "checkpoint.pt", {"config": config, "method": method.state_dict(), "step": 0})
    return method


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(7))


def run(folder: Path, layout: str, out: str, *more: str) -> int:
    return export.main([str(folder / "checkpoint.pt"), "--layout", layout, "--out", str(folder / out), *more])


RESNETS = [
    {"name": "resnet18"},
    {"name": "resnet10", "stem": "cifar"},
    {"name": "resnet34", "stem": "stride2"},
    {"name": "resnet50", "bn_splits": 4},
]


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
@pytest.mark.parametrize("settings", RESNETS, ids=lambda settings: settings["name"])
@torch.no_grad()
def test_resnets_give_the_same_features_there_and_back(
    layout: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = checkpoint(tmp_path, **settings)
    assert run(tmp_path, layout, "out.pth") == 0
    expected = method.features(images(64))
    printed = capsys.readouterr().out.replace("\n", " ")  # what it tells people to write must do it
    names = {"torch": torch, "timm": timm, "torchvision": torchvision}
    lines = printed[printed.index("net = ") :].replace('"out.pth"', repr(str(tmp_path / "out.pth")))
    exec(lines, names)
    net: Any = names["net"]
    torch.testing.assert_close(net.eval()(images(64)), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    said = {"stem": settings["stem"]} if "stem" in settings else {}
    foreign = open_foreign(read_weights(tmp_path / "out.pth"), "auto", said)
    check(foreign, tmp_path / "out.pth")
    assert torch.equal(foreign.network.eval().features(images(64)), expected)


VITS = [
    {"name": "vit_tiny", "width": 0.3334, "patch_size": 8},
    {"name": "vit_tiny", "patch_size": 16, "heads": 4, "drop_path": 0.1},
    {"name": "vit_tiny", "width": 0.3334, "patch_size": 8, "positions": "learned", "grid": 5},
]


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
@pytest.mark.parametrize("settings", VITS, ids=["sincos", "heads", "learned"])
@torch.no_grad()
def test_vits_give_the_same_features_there_and_back(
    layout: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = checkpoint(tmp_path, **settings)
    assert run(tmp_path, layout, "out.safetensors", "--image-size", "48") == 0
    side = 40 if "grid" in settings else 48
    expected = method.features(images(side))
    printed = capsys.readouterr().out.replace("\n", " ")
    lines = printed[printed.index("net = ") :].replace('"out.safetensors"', repr(str(tmp_path / "out.safetensors")))
    import functools

    import safetensors.torch

    names = {"torch": torch, "timm": timm, "torchvision": torchvision, "functools": functools, "safetensors": safetensors}
    exec(lines, names)
    net: Any = names["net"]
    torch.testing.assert_close(net.eval()(images(side)), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    heads = {"heads": settings["heads"]} if "heads" in settings else {}
    foreign = open_foreign(read_weights(tmp_path / "out.safetensors"), layout, heads)
    check(foreign, tmp_path / "out.safetensors")
    torch.testing.assert_close(
        foreign.network.eval().features(images(side)), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


def test_detectron2s_layout_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.evaluate.detection.convert import from_detectron2, read_pkl

    method = checkpoint(tmp_path, name="resnet50", width=0.5)
    assert run(tmp_path, "detectron2", "out.pkl") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "DEPTH 50, STEM_OUT_CHANNELS 32, RES2_OUT_CHANNELS 128, WIDTH_PER_GROUP 32, STRIDE_IN_1X1 False" in said
    back = from_detectron2(read_pkl(tmp_path / "out.pkl"))
    state = method.encoder.state_dict()
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
    # And by the command: as it lies in the file, and in a detector that was trained from it.
    detector = {f"backbone.{name}": value for name, value in read_pkl(tmp_path / "out.pkl").items() if "res5" not in name}
    detector |= {f"roi_heads.{name}": value for name, value in read_pkl(tmp_path / "out.pkl").items() if "res5" in name}
    torch.save({"model": detector | {"roi_heads.box_predictor.bbox_pred.bias": torch.zeros(4)}}, tmp_path / "detector.pth")
    for name, aside in (("out.pkl", set()), ("detector.pth", {"detector"})):
        for layout in ("auto", "detectron2"):
            foreign = open_foreign(read_weights(tmp_path / name), layout, {})
            check(foreign, tmp_path / name)
            assert foreign.layout == "detectron2" and set(foreign.match.aside.values()) == aside
            found, expected = foreign.network.eval().features(images(40)), method.features(images(40))
            assert torch.equal(found, expected)


def test_somebody_elses_checkpoint_is_exported_too(tmp_path: Path) -> None:
    queue = {"queue": torch.zeros(3)}
    state = {f"module.encoder_q.{key}": value for key, value in resnet().state_dict().items()}
    torch.save({"state_dict": state | {f"module.{key}": value for key, value in queue.items()}}, tmp_path / "checkpoint.pt")
    assert run(tmp_path, "timm", "out.pth") == 0
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert found.keys() == resnet().state_dict().keys()


@pytest.mark.parametrize(
    ("settings", "layout", "sentence"),
    [
        ({"name": "resnet18", "width": 0.5}, "torchvision", "torchvision has no ResNet with width 0.5, as this resnet18 has"),
        ({"name": "resnet18", "norm": "group"}, "timm", "timm has no ResNet with norm group"),
        ({"name": "resnet50", "sk": True, "width": 0.25}, "timm", "no ResNet with selective kernels and width 0.25"),
        ({"name": "resnet18", "stem": "cifar"}, "detectron2", "detectron2 has no ResNet with stem cifar"),
        ({"name": "resnet10"}, "detectron2", "detectron2 has no ResNet with one block a stage"),
        ({"name": "resnet18", "width": 0.5}, "detectron2", "detectron2 has no ResNet with width 0.5"),
        ({"name": "vit_tiny", "width": 0.3334}, "detectron2", "detectron2 has no network like its encoder, vit_tiny, width"),
        ({"name": "convnet"}, "torchvision", "torchvision has no network like its encoder, convnet"),
    ],
)
def test_what_a_library_cannot_build_is_refused(
    settings: dict[str, Any], layout: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, **settings)
    assert run(tmp_path, layout, "out.pkl" if layout == "detectron2" else "out.pth") == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_byols_padding_is_not_lost_in_silence(tmp_path: Path) -> None:
    torch.save(converted_byol(), tmp_path / "checkpoint.pt")
    foreign = open_foreign(read_weights(tmp_path / "checkpoint.pt"), "byol", {})
    with pytest.raises(InputError, match=r"padded as TensorFlow's SAME, which no network of timm does; .* --from torchvision"):
        export.exported(foreign, "timm", 224, tmp_path)
    assert run(tmp_path, "timm", "out.pth", "--from", "torchvision") == 0


@pytest.mark.parametrize(
    ("layout", "out", "more", "sentence"),
    [
        ("timm", "out.pkl", [], "a file for timm ends in .pth or .safetensors"),
        ("timm", "out.npz", [], "a file for timm ends in .pth or .safetensors"),
        ("detectron2", "out.pth", [], "a file for detectron2 ends in .pkl"),
        ("timm", "checkpoint.pt", [], "is there already; choose another name"),
        ("timm", "nosuch/out.pth", [], "there is no folder"),
        ("timm", "out.pth", ["--encoder", "name=resnet50"], "leave --encoder out"),
    ],
)
def test_where_it_cannot_be_written(
    layout: str, out: str, more: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, name="resnet10")
    assert run(tmp_path, layout, out, *more) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_fixed_positions_need_a_size_that_the_patches_divide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path, name="vit_tiny", width=0.3334, patch_size=16)
    assert run(tmp_path, "timm", "out.pth", "--image-size", "50") == 2
    assert "cuts images into patches of 16; take a multiple of it" in " ".join(capsys.readouterr().err.split())


def test_a_network_with_other_features_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path, name="resnet18")

    def wrong(layout: str, encoder: EncoderConfig, state: dict[str, Tensor]) -> nn.Module:
        network = torchvision.models.resnet18()
        network.fc, network.relu = nn.Identity(), nn.SiLU()
        return network

    monkeypatch.setattr(export, "theirs", wrong)
    with pytest.raises(AssertionError, match="other features"):
        run(tmp_path, "torchvision", "out.pth")
    assert not (tmp_path / "out.pth").exists()
