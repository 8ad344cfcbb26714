"""Files that do not fit, are not whole or are not what they say: a sentence each. And our own checkpoints, of every method."""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate.foreign import Foreign, check, open_foreign
from benchmark.evaluate.weights_file import WeightsFile, read_weights
from benchmark.plan.sweep import load_sweep
from benchmark.train.checkpoint import save
from methods import METHODS, load
from methods.base import Setting
from methods.catalogue import from_values
from methods.encoders import EncoderConfig, build_encoder
from methods.views import ViewConfig
from tests.evaluate.checkpoints import moco, resnet, stirred, vit


def opened(contents: dict[str, Any], layout: str = "auto", **said: Any) -> Foreign:
    foreign = open_foreign(WeightsFile(Path("given.pth"), contents, "0" * 64), layout, said)
    check(foreign, Path("given.pth"))
    foreign.network.eval()
    return foreign


def refused(contents: dict[str, Any], layout: str = "auto", **said: Any) -> str:
    with pytest.raises(InputError) as error:
        opened(contents, layout, **said)
    sentence = str(error.value)
    assert sentence.startswith("given.pth: ") and "\n" not in sentence and len(sentence) < 600
    return sentence.removeprefix("given.pth: ")


# Architectures.


def own_state(seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(stirred(build_encoder(EncoderConfig(**settings))[0]).state_dict())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "resnet10", "stem": "cifar"}, {}),
        ({"name": "resnet18", "stem": "stride2", "width": 0.5}, {"stem": "stride2"}),
        ({"name": "resnet34", "width": 0.25}, {}),
        ({"name": "resnet50", "width": 0.5}, {}),
        ({"name": "resnet18", "width": 2.0}, {}),
        ({"name": "resnet50", "width": 0.5, "sk": True}, {}),
        ({"name": "resnet101", "width": 0.25}, {}),
        ({"name": "resnet18", "width": 0.5, "norm": "group", "groups": 8}, {"norm": "group", "groups": 8}),
        ({"name": "resnet18", "width": 0.5, "norm": "none"}, {}),
        ({"name": "vit_tiny", "patch_size": 8}, {"positions": "sincos"}),
        ({"name": "vit_small", "width": 0.25, "positions": "learned", "grid": 3, "heads": 3}, {"heads": 3}),
    ],
)
@torch.no_grad()
def test_our_encoders_are_known_by_their_tensors(settings: dict[str, Any], said: dict[str, Any]) -> None:
    state = own_state(**settings)
    foreign = opened(state, "timm", **said)
    config, expected = foreign.encoder, EncoderConfig(**settings)
    for key in settings:
        assert getattr(config, key) == pytest.approx(getattr(expected, key)), key
    network = build_encoder(expected)[0].eval()
    network.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(foreign.network.features(x), network(x))
    assert foreign.network.backbone() is foreign.network.finetune_network() is foreign.network.encoder
    assert torch.equal(foreign.network.project(x), network(x))


def test_a_3x3_stem_is_taken_as_that_of_stride_1_and_says_so() -> None:
    foreign = opened(own_state(name="resnet10", stem="cifar"))
    assert foreign.encoder.stem == "cifar" and "stride 1 (stem cifar); --encoder stem=stride2" in foreign.match.notes[0]
    assert not opened(own_state(name="resnet10", stem="cifar"), stem="stride2").match.notes


def state(name: str, **settings: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = timm.create_model(name, **settings) if "." in name or "patch" in name else torchvision.models.__dict__[name]()
    return {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (lambda: state("wide_resnet50_2"), "does not fit layout torchvision, resnet50, width 2"),
        (lambda: state("resnext50_32x4d"), "does not fit layout torchvision, resnet50, width 2"),
        (
            lambda: state("resnet18.a1_in1k") | {"layer1.0.se.fc1.weight": torch.ones(2)},
            "it has layer1.0.se.fc1.weight, which it does",
        ),
        (lambda: state("resnet50d.ra2_in1k"), "does not fit layout torchvision, resnet50.*it lacks conv1.weight"),
        (lambda: state("seresnet50.ra2_in1k"), "does not fit.*se"),
        (lambda: state("resnet200d.ra2_in1k"), "stages layer1 to layer4 of 3-24-36-3 bottlenecks; known are resnet10 1-1-1-1,"),
        (lambda: state("vit_large_patch16_224"), "ViT has 24 blocks; the ViTs here, vit_tiny, vit_small, vit_base, have 12"),
        (lambda: state("vit_small_patch14_dinov2"), "does not fit layout timm, vit_small, patches of 14.*ls1.gamma"),
        (lambda: state("vit_base_patch16_clip_224"), "does not fit layout timm, vit_base.*norm_pre"),
        (lambda: state("deit_small_distilled_patch16_224"), "positions have the shape .1, 198, 384., which is not a square"),
        (lambda: state("vgg11"), "it holds features.0.weight; .* and 16 more; say what it is with --layout"),
        (lambda: state("resnet18") | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, "takes images of 4 channels"),
        (
            lambda: state("resnet18") | {"conv1.weight": torch.zeros(64, 3, 5, 5)},
            "first convolution is 5x5; the stems here are",
        ),
        (lambda: state("resnet18") | {"fc.weight": torch.zeros(1)}, None),
    ],
)
def test_another_architecture_is_refused_by_what_it_has(contents: Callable[[], Any], sentence: str | None) -> None:
    if sentence is None:
        opened(contents())
        return
    assert re.search(sentence, refused(contents()))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"name": "resnet50"}, "holds an encoder with name resnet18, but --encoder says name=resnet50"),
        ({"width": 2.0}, "holds an encoder with width 1, but --encoder says width=2"),
        ({"norm": "group"}, "holds an encoder with norm batch, but --encoder says norm=group"),
        ({"stem": "cifar"}, "holds an encoder with stem imagenet, but --encoder says stem=cifar"),
        ({"heads": 6}, "encoder 'resnet18' has no heads"),
    ],
)
def test_what_the_user_says_against_the_file(said: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(moco(), **said)


def test_what_the_user_says_that_agrees_is_taken() -> None:
    assert opened(moco(), name="resnet18", width=1.0, norm="batch", groups=4).encoder.groups == 4
    assert opened(dict(vit(heads=6).state_dict()), heads=6).encoder.heads == 6
    assert "192 channels and 5 heads" in refused(dict(vit().state_dict()), heads=5)


def test_a_vit_without_positions_is_not_given_fixed_ones_in_silence() -> None:
    contents = {key: value for key, value in vit().state_dict().items() if key != "pos_embed"}
    for layout in ("auto", "timm", "dino"):
        with pytest.raises(InputError, match=r"its ViT lacks pos_embed, .* say --encoder positions=sincos$"):
            opened(contents, layout)
    assert opened(contents, positions="sincos").encoder.positions == "sincos"


def test_norms_that_the_file_cannot_tell_are_asked_for() -> None:
    group = own_state(name="resnet18", width=0.25, norm="group")
    assert "say which, --encoder norm=group" in refused(group)
    assert opened(group, norm="group").encoder.norm == "group"


# Partial and broken states.


def test_every_kind_of_misfit_is_listed() -> None:
    contents = dict(resnet().state_dict())
    for key in ("layer3.1.conv1.weight", "layer4.0.bn2.running_var"):
        del contents[key]
    contents["layer2.0.conv1.weight"] = torch.zeros(128, 64, 1, 1)
    contents["layer5.0.weight"] = torch.zeros(2)
    sentence = refused(contents)
    assert sentence == (
        "does not fit layout torchvision, resnet18, stem imagenet: it lacks layer3.1.conv1.weight, layer4.0.bn2.running_var "
        "and it has layer2.0.conv1.weight of 128 x 64 x 1 x 1 for 128 x 64 x 3 x 3 and it has layer5.0.weight, which it does "
        "not know"
    )


def test_long_lists_are_cut() -> None:
    contents = {key: value for key, value in resnet().state_dict().items() if not key.startswith("layer3.1")}
    assert "and 6 more" in refused(contents | {"layer3.1.bn3.weight": torch.ones(1)})


def test_nothing_is_loaded_in_part() -> None:
    contents = {key: value for key, value in resnet().state_dict().items() if key != "layer3.1.conv1.weight"}
    foreign = open_foreign(WeightsFile(Path("given.pth"), contents, ""), "auto", {})
    assert not foreign.match.whole and foreign.network.encoder.conv1.weight.is_meta


def test_weights_that_are_not_finite() -> None:
    contents = {key: value.clone() for key, value in resnet().state_dict().items()}
    contents["layer2.0.bn1.weight"][3] = float("nan")
    assert refused(contents) == "layer2.0.bn1.weight holds numbers that are not finite; this training had diverged"


def test_a_small_file_that_claims_a_huge_network_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    one = torch.zeros(64_000, 1, 1, 1)
    assert "does not fit layout torchvision, resnet18, width 1000" in refused(
        dict(resnet().state_dict()) | {"layer1.0.conv1.weight": one}
    )
    for name, contents in (("bare", {"w": one.expand(-1, 64_000, 3, 3)}), ("inside", {"model": {"w": one.to_sparse()}})):
        torch.save(contents, tmp_path / name)
        with pytest.raises(InputError, match=r"w says it is .64000, .* but the file does not hold that many numbers for it$"):
            read_weights(tmp_path / name)
    torch.save({"w": torch.ones(4, 6).T, "part": torch.ones(9)[2:5]}, tmp_path / "views")
    assert set(read_weights(tmp_path / "views").contents) == {"w", "part"}


@torch.no_grad()
def test_half_precision_and_missing_counters_are_no_misfit() -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in resnet().state_dict().items()}
    foreign = opened(half)
    assert foreign.network.encoder.conv1.weight.dtype == torch.float32
    x = torch.randn(2, 3, 32, 32)
    assert torch.cosine_similarity(foreign.network.features(x), resnet()(x)).min() > 0.999


@torch.no_grad()
def test_a_copy_for_fine_tuning_is_padded_alike() -> None:
    contents = {key: value for key, value in resnet("resnet50").state_dict().items() if "num_batches" not in key}
    network = opened(contents, "byol").network
    x = torch.randn(2, 3, 64, 64)
    copied = copy.deepcopy(network.finetune_network())
    assert torch.equal(copied.eval()(x), network.features(x))
    assert not torch.allclose(copied(x), resnet("resnet50")(x), rtol=1e-2)


# Files.


class Evil:
    """Runs a command when it is unpickled by whoever lets it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def files(folder: Path) -> dict[str, bytes]:
    """Damaged and malicious files."""
    good = {"state_dict": {"a": torch.ones(300)}, "args": argparse.Namespace(x=1), "best": np.float64(1)}
    made = {}
    for name, contents, zipped in (
        ("whole", good, True),
        ("whole-old", good, False),
        ("evil", {"state_dict": Evil(folder / "ran")}, True),
        ("evil-old", {"state_dict": Evil(folder / "ran")}, False),
        ("module", nn.Linear(2, 2), True),
        ("list", [torch.ones(2)], True),
    ):
        torch.save(contents, folder / "made.pth", _use_new_zipfile_serialization=zipped)
        made[name] = (folder / "made.pth").read_bytes()
    data = made["whole"].find(torch.ones(4).numpy().tobytes())
    made |= {
        "cut": made["whole"][:-9],
        "cut in half": made["whole"][: len(made["whole"]) // 2],
        "cut-old": made["whole-old"][:-9],
        "one bit": made["whole"][:data] + b"\x01" + made["whole"][data + 1 :],
        "pickle 2": pickle.dumps({"a": Evil(folder / "ran")}, 2),
        "pickle 4": pickle.dumps({"a": Evil(folder / "ran")}, 4),
        "noise": np.random.default_rng(0).bytes(4000),
        "empty": b"",
    }
    return made


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("whole", None),
        ("whole-old", None),
        (
            "evil",
            "names posix.system, which only unrestricted unpickling would build and which could run any code, so it is not",
        ),
        ("evil-old", "names posix.system"),
        ("pickle 2", "names posix.system"),
        ("pickle 4", "is a pickle of something else than tensors, or cut off, and is not opened"),
        ("module", "names torch.nn.modules.linear.Linear"),
        ("list", "holds a list; expected a dict of tensors by name"),
        ("cut", "is cut off or damaged; copy or download it again"),
        ("cut in half", "is cut off or damaged"),
        ("cut-old", "is cut off, damaged or no file of weights"),
        ("one bit", "is damaged .entry made/data/0"),
        ("noise", "is cut off, damaged or no file of weights|is a pickle of something else"),
        ("empty", "is empty"),
    ],
)
def test_files_are_opened_without_running_them(name: str, sentence: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(files(tmp_path)[name])
    if sentence is None:
        found = read_weights(path)
        assert torch.equal(found.contents["state_dict"]["a"], torch.ones(300)) and found.contents["args"].x == 1
        return
    with pytest.raises(InputError, match=sentence) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_the_malice_of_the_test_above_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_other_containers(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = dict(resnet().state_dict())
    save_file(tensors, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in tensors.items()})
    for name in ("a.safetensors", "a.npz"):
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found.contents[key], value) for key, value in tensors.items())
        opened(found.contents)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-50])
        with pytest.raises(InputError, match="is cut off, damaged or"):
            read_weights(tmp_path / name)
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="holds more than arrays of numbers"):
        read_weights(tmp_path / "b.npz")
    with pytest.raises(InputError, match=r"no such file; did you mean 'a\.npz'"):
        read_weights(tmp_path / "aa.npz")
    with pytest.raises(InputError, match="is a folder"):
        read_weights(tmp_path)


# Our own.


def cells() -> dict[str, dict[str, Any]]:
    """A cell of every method, as the sweep of all methods plans it at its smallest."""
    rows = load_sweep(Path("sweeps/methods.yaml")).expand("smoke")
    return {row.cells[0].config["method"]: row.cells[0].config for row in rows}


CELLS = cells()


def test_there_is_a_cell_of_every_method() -> None:
    assert set(CELLS) == set(METHODS)


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_our_own_checkpoints_of_every_method(name: str, tmp_path: Path) -> None:
    """Memories and classifiers are as large as the training set was, which only the tensors still know."""
    config = json.loads(json.dumps(CELLS[name]))
    kind = load(name)
    views = [from_values(ViewConfig, view) for view in config.get("views") or ()] or [ViewConfig()]
    seen = [view for number, view in enumerate(views) if number == 0 or view.same_draws]
    torch.manual_seed(0)
    images = max(config.get("queue", 0), config.get("prototypes", 0) if isinstance(config.get("prototypes"), int) else 0, 777)
    made = kind(
        from_values(kind.Config, {key: value for key, value in config.items() if key in kind.Config.__dataclass_fields__}),
        from_values(EncoderConfig, config["encoder"]),
        Setting(images, 10, config.get("batch_size", 0), len(views), sum(view.channel_count for view in seen), config["seed"]),
    )
    stirred(made)
    path = tmp_path / "checkpoint.pt"
    save(path, {"config": config, "method": made.state_dict(), "step": 12})
    for layout in ("auto", "retable"):
        foreign = open_foreign(read_weights(path), layout, {})
        check(foreign, path)
        assert (foreign.layout, foreign.method, foreign.step) == ("retable", name, 12)
        assert list(foreign.channels) == [view.channels for view in seen]
        assert foreign.data is not None and foreign.data["name"] == config["data"]["name"]
        x = torch.randn(2, sum(view.channel_count for view in seen), 32, 32)
        assert torch.equal(foreign.network.eval().features(x), made.eval().features(x))
        assert torch.equal(foreign.network.project(x), made.project(x))


def test_our_own_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    config = json.loads(json.dumps(CELLS["simsiam"]))

    def refusal(**change: Any) -> str:
        save(tmp_path / "checkpoint.pt", {"config": config, "method": {"a": torch.ones(1)}, "step": 0} | change)
        with pytest.raises(InputError) as error:
            foreign = open_foreign(read_weights(tmp_path / "checkpoint.pt"), "auto", {})
            check(foreign, tmp_path / "checkpoint.pt")
        return str(error.value)

    assert "does not fit layout retable, " in refusal() and "which it does not know" in refusal()
    assert "is of method 'nosuch', which this version does not have" in refusal(config=config | {"method": "nosuch"})
    assert "is of simsiam VERSION 99" in refusal(config=config | {"version": 99})
    assert "its cell cannot be built by this version" in refusal(config=config | {"encoder": {"name": "resnet18", "nosuch": 1}})
    assert "its cell cannot be built by this version" in refusal(config=config | {"encoder": "resnet18"})
    assert "is no checkpoint of Retable's" in refusal(config={})
    save(tmp_path / "checkpoint.pt", {"config": config, "method": {}, "step": 0})
    with pytest.raises(InputError, match="says itself what its encoder is; leave --encoder out"):
        open_foreign(read_weights(tmp_path / "checkpoint.pt"), "auto", {"name": "resnet18"})
