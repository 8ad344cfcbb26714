"""Linear probes by named protocol: the papers' settings, the papers' updates, honest choices, and no step done twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmark.data import open_loader, split_labels
from benchmark.data.datasets import find, prepare
from benchmark.data.manifest import Dataset
from benchmark.data.split import split
from benchmark.errors import InputError
from benchmark.evaluate import probe, protocols
from benchmark.evaluate.accuracy import top1, topk
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.plan.evaluations import read_protocols
from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.protocols.probes import PROBES, LinearMoco, ProbeConfig
from benchmark.train import checkpoint
from benchmark.train.loop import Diverged
from benchmark.train.stop import Stopped, StopRequest
from methods.encoders import EncoderConfig, build_encoder
from methods.views import ViewConfig
from tests.evaluate.subjects import drawn_subject

SIDE, CLASSES = 16, 6


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Noise around a colour drawn near that of the class: six classes that overlap, 40 + 60 images of each."""
    root, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    centres = generator.uniform(60, 190, (CLASSES, 3))
    for part, count in (("train", 40), ("test", 60)):
        for label, centre in enumerate(centres):
            folder = root / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                colour = centre + generator.normal(0, 18, 3)
                pixels = (colour + generator.normal(0, 10, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return prepare(find("colours", root / "images", root / "cache"), root / "cache")


class Averages(nn.Module):
    """Mean colours of the four quarters of an image, through a batch norm that must never learn."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.calls = 0

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        assert not self.training and not torch.is_grad_enabled()
        return F.adaptive_avg_pool2d(self.norm(images[:, :3]), 2).flatten(1)

    project = features

    def backbone(self) -> nn.Module:
        return self

    def finetune_network(self) -> nn.Module:
        return self


@pytest.fixture
def subject(colours: Dataset) -> Subject:
    parts = split(split_labels(colours, "train"), split_labels(colours, "test"), 0, 0, 0.25)
    return Subject(Averages().train(), colours, parts, SIDE, ["rgb"], torch.device("cpu"), seed=3)


def asked(name: str, **said: Any) -> dict[str, Any]:
    """The protocol as a sweep's `evaluate` resolves it."""
    [protocol] = read_protocols({name: said}, lambda path: "sweep.yaml")
    return protocol


def run(subject: Subject, folder: Path, name: str = "linear_barlow", **said: Any) -> tuple[Found, dict[str, Any]]:
    """What was found, and the state that the training left."""
    folder.mkdir(exist_ok=True)
    place = Place(folder, "probe")
    found = probe.linear_probe(subject, asked(name, **{"gap": False} | said), place)
    return found, checkpoint.load(place.checkpoint)


def weights(state: dict[str, Any]) -> list[Tensor]:
    return [value for _, value in sorted(state["trained"].items())]


# --- the settings ----------------------------------------------------------------------------------------------------

_SGD = {"optimizer": "sgd", "momentum": 0.9, "nesterov": False, "initial_std": 0.01, "crop_scale": (0.08, 1.0), "refit": True}
_COSINE = {"schedule": "cosine", "every": "epoch", "milestones": ()}
PAPERS: dict[str, dict[str, Any]] = {
    "linear_moco": _SGD | {"epochs": 100, "batch_size": 256, "learning_rates": (30.0,), "scale_with_batch": False,
                           "weight_decay": 0.0, "schedule": "step", "milestones": (60, 80), "gamma": 0.1},
    "linear_mocov3": _SGD | _COSINE | {"epochs": 90, "batch_size": 1024, "learning_rates": (0.1,), "scale_with_batch": True,
                                       "weight_decay": 0.0},
    "linear_mocov3_vit": _SGD | _COSINE | {"epochs": 90, "batch_size": 1024, "learning_rates": (3.0,), "scale_with_batch": True,
                                           "weight_decay": 0.0, "blocks": 0},
    "linear_simsiam": _SGD | _COSINE | {"optimizer": "lars", "epochs": 90, "batch_size": 4096, "learning_rates": (0.02,),
                                        "scale_with_batch": True, "weight_decay": 0.0},
    "linear_simclr": _SGD | _COSINE | {"nesterov": True, "epochs": 90, "batch_size": 4096, "learning_rates": (0.1,),
                                       "scale_with_batch": True, "weight_decay": 0.0, "initial_std": 0.0, "every": "step"},
    "linear_byol": _SGD | _COSINE | {"nesterov": True, "epochs": 80, "batch_size": 1024, "weight_decay": 0.0, "every": "step",
                                     "learning_rates": (0.4, 0.3, 0.2, 0.1, 0.05), "scale_with_batch": True},
    "linear_swav": _SGD | _COSINE | {"epochs": 100, "batch_size": 256, "learning_rates": (0.3,), "scale_with_batch": False,
                                     "weight_decay": 1e-6},
    "linear_barlow": _SGD | _COSINE | {"epochs": 100, "batch_size": 256, "learning_rates": (0.3,), "scale_with_batch": False,
                                       "weight_decay": 1e-6},
    "linear_vicreg": _SGD | _COSINE | {"epochs": 100, "batch_size": 256, "learning_rates": (0.02,), "scale_with_batch": False,
                                       "weight_decay": 1e-6},
    "linear_dino": _SGD | _COSINE | {"epochs": 100, "batch_size": 1024, "learning_rates": (0.001,), "scale_with_batch": True,
                                     "weight_decay": 0.0, "blocks": 4, "patch_mean": False},
    "linear_dino_base": _SGD | _COSINE | {"epochs": 100, "batch_size": 1024, "learning_rates": (0.001,),
                                          "scale_with_batch": True, "weight_decay": 0.0, "blocks": 1, "patch_mean": True},
    "linear_cmc": _SGD | {"epochs": 60, "batch_size": 256, "learning_rates": (30.0,), "scale_with_batch": False,
                          "weight_decay": 0.0, "schedule": "step", "milestones": (30, 40, 50), "gamma": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_a_preset_is_its_papers_protocol(name: str) -> None:
    config = PROBES[name]()
    assert {key: getattr(config, key) for key in PAPERS[name]} == PAPERS[name]
    assert "arxiv" not in (config.__doc__ or "") and "(" in (config.__doc__ or "")


def test_every_preset_can_be_planned_and_measured() -> None:
    assert set(PAPERS) == set(PROBES) == set(probe.NAMES)
    for name in PROBES:
        assert protocols.PROTOCOLS[name] is probe.linear_probe and PROTOCOLS[name] == (1, PROBES[name])
        protocol = asked(name)
        assert {f.name for f in fields(ProbeConfig)} | {"name", "version"} == set(protocol)
        assert protocol["learning_rates"] == list(PAPERS[name]["learning_rates"])


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"learning_rates": ()}, "give one rate above 0"),
        ({"learning_rates": (0.1, 0.0)}, "give one rate above 0"),
        ({"epochs": 80}, r"milestones \[60, 80\] do not all lie within 80 epochs"),
        ({"milestones": ()}, "has no milestones"),
        ({"nesterov": True, "optimizer": "lars"}, "set nesterov to false"),
        ({"crop_scale": (0.5, 1.5)}, "areas are fractions"),
        ({"patch_mean": True}, "set blocks to 1 or more"),
    ],
)
def test_what_no_probe_can_be(said: dict[str, Any], sentence: str) -> None:
    LinearMoco()
    with pytest.raises(ValueError, match=sentence):
        replace(LinearMoco(), **said)


# --- the update ------------------------------------------------------------------------------------------------------


def transcribed(subject: Subject, protocol: dict[str, Any], indices: np.ndarray, rate: float) -> tuple[Tensor, Tensor]:
    """Weights and bias after the whole training, in float64, from the rules as the papers write them."""
    dataset, network = subject.dataset, subject.network
    size = min(protocol["batch_size"], len(indices))
    view = ViewConfig(crop_scale=tuple(protocol["crop_scale"]))
    epochs, momentum, decay = protocol["epochs"], protocol["momentum"], protocol["weight_decay"]
    peak = rate * size / 256 if protocol["scale_with_batch"] else rate
    start = torch.randn(CLASSES, 12, generator=torch.Generator().manual_seed(probe.stream(subject.seed, "probe")))
    w, b = (protocol["initial_std"] * start).double(), torch.zeros(CLASSES, dtype=torch.float64)
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    with open_loader(
        dataset, indices=indices, views=(view,), batch_size=size, seed=subject.seed, workers=0, out_size=SIDE,
        mean=dataset.mean, std=dataset.std,
    ) as loader:  # fmt: skip
        per_epoch = loader.batches_per_epoch
        for step in range(epochs * per_epoch):
            epoch, number = divmod(step, per_epoch)
            batch = list(loader.epoch(epoch))[number]
            with torch.no_grad():
                x = network.features(batch.views[0]).double()
            y = F.one_hot(batch.labels, CLASSES).double()
            error = (torch.softmax(x @ w.T + b, dim=1) - y) / size
            if protocol["schedule"] == "step":
                now = peak * protocol["gamma"] ** sum(epoch >= milestone for milestone in protocol["milestones"])
            else:
                done = epoch / epochs if protocol["every"] == "epoch" else step / (epochs * per_epoch)
                now = peak * 0.5 * (1 + math.cos(math.pi * done))
            for p, v, g in ((w, vw, error.T @ x), (b, vb, error.sum(dim=0))):
                full = g + decay * p
                if protocol["optimizer"] == "lars" and p.norm() > 0 and g.norm() > 0:
                    full = full * 0.001 * p.norm() / (g.norm() + decay * p.norm())
                v.mul_(momentum).add_(full)
                p.sub_(now * (full + momentum * v if protocol["nesterov"] else v))
    return w, b


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("linear_moco", {"epochs": 5, "milestones": [2, 4], "batch_size": 50, "learning_rates": [3.0]}),
        ("linear_simsiam", {"epochs": 5, "batch_size": 60, "learning_rates": [20.0], "weight_decay": 0.01}),
        ("linear_simclr", {"epochs": 4, "batch_size": 60, "weight_decay": 0.03}),
        ("linear_byol", {"epochs": 4, "batch_size": 64, "refit": False}),
        ("linear_swav", {"epochs": 4, "batch_size": 64, "weight_decay": 0.05, "crop_scale": [0.5, 1.0]}),
        ("linear_cmc", {"epochs": 4, "milestones": [1, 3], "batch_size": 4096, "learning_rates": [3.0]}),
    ],
)
def test_the_update_is_the_papers(subject: Subject, tmp_path: Path, name: str, said: dict[str, Any]) -> None:
    found, state = run(subject, tmp_path, name, **said)
    protocol = asked(name, **said)
    refit = protocol["refit"]
    indices = np.union1d(subject.split.train, subject.split.held_out) if refit else subject.split.train
    assert len(indices) == (240 if refit else 180)
    for number, rate in enumerate(sorted(protocol["learning_rates"])):
        w, b = transcribed(subject, protocol, indices, rate)
        torch.testing.assert_close(state["trained"][f"{number}.weight"].double(), w, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state["trained"][f"{number}.bias"].double(), b, rtol=1e-4, atol=1e-5)
        if rate == found.chosen.get("learning_rate", rate):
            x, y = subject.features.test_x.double(), subject.features.test_y
            assert found.metrics["top1"] == pytest.approx(top1(x @ w.T + b, y), abs=0.3)
    assert found.chosen["features"] == 12
    assert found.chosen.get("batch_size") == (240 if protocol["batch_size"] == 4096 else None)


def test_the_network_stays_as_it_was(subject: Subject, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in subject.network.state_dict().items()}  # type: ignore[attr-defined]
    run(subject, tmp_path, epochs=2)
    after = subject.network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not subject.network.training  # type: ignore[attr-defined]


def test_it_reaches_the_fast_probe_and_tells_the_gap(subject: Subject, tmp_path: Path) -> None:
    fast = protocols.PROTOCOLS["linear"](subject, asked("linear"), Place(tmp_path, "fast"))
    assert 75 < fast.metrics["top1"] < 99  # a test that could tell a bad probe
    for name, said in {
        "linear_moco": {"learning_rates": [10.0], "epochs": 60, "milestones": [36, 48], "batch_size": 60},
        "linear_byol": {"epochs": 60, "batch_size": 60, "learning_rates": [4.0, 1.0]},
    }.items():
        found, _ = run(subject, tmp_path / name, name, gap=True, **said)
        assert found.metrics["fast_top1"] == fast.metrics["top1"] and found.chosen["fast_l2"] == fast.chosen["l2"]
        assert found.metrics["gap"] == found.metrics["top1"] - fast.metrics["top1"]
        assert abs(found.metrics["gap"]) <= 1.0
        assert found.metrics["top1"] <= found.metrics["top5"] <= 100.0


# --- choices ---------------------------------------------------------------------------------------------------------


def test_the_rate_is_the_best_on_held_out_images_and_all_is_refitted(subject: Subject, tmp_path: Path) -> None:
    said = {"epochs": 3, "batch_size": 60, "learning_rates": [1e-6, 1.0, 1e-5]}
    found, state = run(subject, tmp_path / "a", **said)
    grid = dict(found.chosen["grid"])
    assert list(grid) == [1e-6, 1e-5, 1.0]
    assert grid[1.0] == max(grid.values()) == found.metrics["heldout_top1"] and grid[1e-6] < 50
    assert found.chosen["learning_rate"] == 1.0 and found.chosen["at_edge"]
    alone, refitted = run(subject, tmp_path / "b", epochs=3, batch_size=60, learning_rates=[1.0])
    assert all(map(torch.equal, weights(state), weights(refitted)))  # on train and held-out, from the same start
    assert alone.metrics == {key: found.metrics[key] for key in ("top1", "top5")}
    kept, state = run(subject, tmp_path / "c", **said, refit=False)
    aside, other = run(subject, tmp_path / "d", epochs=3, batch_size=60, learning_rates=[1.0], refit=False)
    assert kept.metrics == aside.metrics and kept.metrics["heldout_top1"] == grid[1.0]
    assert torch.equal(state["trained"]["2.weight"], other["trained"]["0.weight"])
    assert not torch.equal(state["trained"]["2.weight"], refitted["trained"]["0.weight"])


def test_among_equals_the_smallest_rate_wins(subject: Subject, tmp_path: Path) -> None:
    found, _ = run(subject, tmp_path, epochs=1, learning_rates=[3e-20, 1e-20, 2e-20])
    assert found.chosen["learning_rate"] == 1e-20


class Swapped(Subject):
    """Test images in another order than their labels."""

    def outputs(self, part: Any, indices: np.ndarray, network: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        x, y = super().outputs(part, indices, network)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        return x, y[order] if part == "test" else y


def test_test_labels_choose_nothing(subject: Subject, tmp_path: Path) -> None:
    said = {"epochs": 2, "batch_size": 60, "learning_rates": [0.01, 1.0], "gap": True}
    swapped = Swapped(subject.network, subject.dataset, subject.split, SIDE, ["rgb"], subject.device, subject.seed)
    (honest, left), (other, right) = run(subject, tmp_path / "a", **said), run(swapped, tmp_path / "b", **said)
    assert honest.chosen == other.chosen and honest.metrics["heldout_top1"] == other.metrics["heldout_top1"]
    assert all(map(torch.equal, weights(left), weights(right)))
    assert other.metrics["top1"] < 40 < honest.metrics["top1"]


def test_a_rate_that_diverges_costs_itself_alone(subject: Subject, tmp_path: Path) -> None:
    said = {"epochs": 2, "batch_size": 60, "weight_decay": 0.1}
    found, state = run(subject, tmp_path / "a", learning_rates=[0.5, 1e38], **said)
    assert found.chosen["diverged"] == [1e38] and found.chosen["grid"][0][0] == 0.5
    _, other = run(subject, tmp_path / "b", learning_rates=[0.5], **said)
    assert all(map(torch.equal, weights(state), weights(other)))
    for rates in ([1e38], [1e37, 1e38]):
        with pytest.raises(Diverged):
            run(subject, tmp_path / str(len(rates)), learning_rates=rates, **said)
    with pytest.raises(Diverged) as diverged:  # by the last step, whose weights no loss has seen
        run(subject, tmp_path / "c", learning_rates=[3e38], epochs=1, batch_size=4096, initial_std=100.0, weight_decay=1.0)
    assert diverged.value.step == 1


# --- interruption ----------------------------------------------------------------------------------------------------


def until_done(subject: Subject, folder: Path, **said: Any) -> tuple[Found, dict[str, Any], int]:
    """Stopped after every single step and taken up again; the last number counts the stops."""
    for stops in range(100):
        subject.stop = StopRequest()
        subject.stop.ask("enough")
        try:
            return *run(subject, folder, **said), stops
        except Stopped:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_stopped_at_every_step_it_ends_with_the_same_bits(subject: Subject, tmp_path: Path, optimizer: str) -> None:
    said = {"epochs": 2, "batch_size": 80, "learning_rates": [0.1, 1.0], "optimizer": optimizer}
    steps: list[tuple[int, int]] = []
    subject.report = lambda progress: steps.append((progress.step, progress.total))
    undisturbed, expected = run(subject, tmp_path / "a", **said)
    assert steps == [(n, 4) for n in range(1, 5)] + [(n, 6) for n in range(1, 7)]  # the choice of 180, then all 240
    once, steps[:] = list(steps), []
    found, state, stops = until_done(subject, tmp_path / "b", **said)
    assert stops == 8  # a stage's last step needs no stop
    assert steps == once  # every step once, in both stages
    assert found == undisturbed
    assert all(map(torch.equal, weights(state), weights(expected)))


def test_the_seed_and_the_stage_decide(subject: Subject, tmp_path: Path) -> None:
    said = {"epochs": 2, "batch_size": 60}
    _, first = run(subject, tmp_path / "a", **said)
    _, again = run(subject, tmp_path / "b", **said)
    subject.seed = 4
    _, other = run(subject, tmp_path / "c", **said)
    assert all(map(torch.equal, weights(first), weights(again)))
    assert not torch.equal(weights(first)[0], weights(other)[0])


# --- what the layer sees ---------------------------------------------------------------------------------------------


def test_dino_takes_class_tokens_of_a_vit_and_features_of_others(subject: Subject, tmp_path: Path) -> None:
    config = EncoderConfig(name="vit_tiny", width=0.25, patch_size=8)
    vit = drawn_subject(tmp_path, config, train=30, test=20)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder: Any = vit.network.backbone()
    with torch.no_grad():
        entered: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda m, i, out: entered.append(out)) for block in encoder.blocks]
        last = encoder(images)
        [hook.remove() for hook in hooks]
        tokens = [encoder.norm(out) for out in entered[-4:]]
        four = torch.cat([token[:, 0] for token in tokens], dim=1)
        torch.testing.assert_close(probe.FrozenFeatures(vit, asked("linear_dino"))(images), four)
        torch.testing.assert_close(four[:, -48:], last)
        base = torch.cat([tokens[-1][:, 0], tokens[-1][:, 1:].mean(dim=1)], dim=1)
        torch.testing.assert_close(probe.FrozenFeatures(vit, asked("linear_dino_base"))(images), base)
        torch.testing.assert_close(probe.FrozenFeatures(vit, asked("linear_mocov3_vit"))(images), last)
    found, _ = run(vit, tmp_path, "linear_dino", epochs=1, gap=True)
    assert found.chosen["features"] == 4 * 48 and "gap" in found.metrics
    with pytest.raises(InputError, match="linear_dino: blocks is 13, but the network has 12; lower it"):
        run(vit, tmp_path, "linear_dino", blocks=13)
    found, _ = run(subject, tmp_path / "other", "linear_dino", epochs=1)
    assert found.chosen["features"] == 12


def test_half_precision_is_of_the_network_alone(subject: Subject, tmp_path: Path) -> None:
    class Matrix(Averages):
        def features(self, images: Tensor) -> Tensor:
            self.matrix = torch.eye(12) if self.calls == 0 else self.matrix
            x = super().features(images) @ self.matrix
            self.kind = x.dtype
            return x

    subject.network = Matrix()
    half, state = run(subject, tmp_path / "half", epochs=3, batch_size=60, precision="bf16")
    assert subject.network.kind == torch.bfloat16
    assert {value.dtype for value in state["trained"].values()} == {torch.float32}
    whole, _ = run(subject, tmp_path / "whole", epochs=3, batch_size=60)
    assert subject.network.kind == torch.float32
    assert half.metrics["top1"] == pytest.approx(whole.metrics["top1"], abs=2.5)


def test_modalities_are_side_by_side_and_of_one_crop(subject: Subject, tmp_path: Path) -> None:
    class Both(Averages):
        def features(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().features(images)

    seen: list[Tensor] = []
    subject.network, subject.channels = Both(), ["rgb", "lab"]
    run(subject, tmp_path, epochs=1, batch_size=60)
    first = next(images for images in seen if len(images) == 60)
    assert first.shape[1] == 6
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (subject.dataset.mean, subject.dataset.std))
    grey = ((first[:, :3] * std + mean) * torch.tensor([0.2126, 0.7152, 0.0722])[None, :, None, None]).sum(dim=1)
    pairs = torch.stack([(part - part.mean(dim=(1, 2), keepdim=True)).flatten() for part in (grey, first[:, 3])])
    assert torch.corrcoef(pairs)[0, 1] > 0.97  # pixel by pixel within the images


def test_a_large_batch_goes_through_the_network_in_parts(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = probe.FrozenFeatures(subject, asked("linear_simclr"))
    images = torch.randn(10, 3, SIDE, SIDE)
    whole, before = seen(images), subject.network.calls  # type: ignore[attr-defined]
    monkeypatch.setattr(probe, "_AT_ONCE", 4)
    torch.testing.assert_close(seen(images), whole)
    assert subject.network.calls == before + 3  # type: ignore[attr-defined]


# --- what cannot be measured -----------------------------------------------------------------------------------------


def test_what_cannot_be_probed(subject: Subject, tmp_path: Path) -> None:
    whole, nothing = subject.split, np.arange(0)
    subject.split = replace(whole, held_out=nothing)
    with pytest.raises(InputError, match=r"linear_byol: learning_rates has 5 to choose from, but data\.held_out is 0"):
        run(subject, tmp_path, "linear_byol")
    found, _ = run(subject, tmp_path, epochs=1, gap=True)
    assert set(found.metrics) == {"top1", "top5"}
    for part in ("train", "test"):
        subject.split = replace(whole, **{part: nothing})
        with pytest.raises(InputError, match=f"linear_barlow: there is no labelled {part} image"):
            run(subject, tmp_path, epochs=1)
    subject.split, dataset = whole, subject.dataset
    subject.dataset = replace(dataset, classes=dataset.classes[:5])
    with pytest.raises(InputError, match="linear_barlow: a train image has label 5; the classes of colours are 0 to 4"):
        run(subject, tmp_path, epochs=1)
    subject.dataset, subject.network.norm.bias.data[1] = dataset, math.nan  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="linear_barlow: the network's features of train images are not finite"):
        run(subject, tmp_path / "nan", epochs=1)


def test_features_that_are_not_finite_are_no_score(subject: Subject, tmp_path: Path) -> None:
    subject.features.test_x[3, 2] = math.inf
    with pytest.raises(InputError, match="linear_barlow: the network's features of test images are not finite"):
        run(subject, tmp_path, epochs=1)


def test_few_classes_have_no_top5(subject: Subject, tmp_path: Path) -> None:
    subject.dataset = replace(subject.dataset, classes=subject.dataset.classes[:4])
    labels = split_labels(subject.dataset, "train"), split_labels(subject.dataset, "test")
    few = [np.flatnonzero(part < 4) for part in labels]
    subject.split = replace(subject.split, train=few[0][::2], held_out=few[0][1::2], test=few[1])
    found, state = run(subject, tmp_path, epochs=1)
    assert "top5" not in found.metrics and state["trained"]["0.weight"].shape == (4, 12)


def test_topk_counts_the_first_among_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (200, 7), generator=generator).double()
    labels = torch.randint(0, 7, (200,), generator=generator)
    for k in (1, 3, 7):
        hits = [
            int(y) in sorted(range(7), key=lambda c, row=row: (-row[c], c))[:k] for row, y in zip(scores, labels, strict=True)
        ]
        assert topk(scores, labels, k) == pytest.approx(100 * np.mean(hits))
    assert topk(scores, labels, 1) == pytest.approx(top1(scores, labels))
    assert topk(torch.tensor([[math.nan, 1.0], [math.nan, 1.0]]), torch.tensor([0, 1]), 1) == 0.0
    with pytest.raises(ValueError, match="labels"):
        topk(scores, labels[:3], 5)


def test_a_real_encoder_is_probed_on_drawn_images(tmp_path: Path) -> None:
    """End to end on what a cell has: a convolutional network, drawn shapes, several rates."""
    drawn = drawn_subject(tmp_path, train=120, test=60)
    found, _ = run(drawn, tmp_path, "linear_byol", epochs=2, batch_size=32, gap=True)
    assert set(found.metrics) == {"top1", "top5", "heldout_top1", "fast_top1", "gap"}
    assert build_encoder(EncoderConfig(name="convnet", stem="stride2", width=0.25), 3)[1] == found.chosen["features"]
