"""Fine-tuning with few labels: the papers' settings, the update written out, honest choices, interruptions, bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.data import open_loader, split_labels
from benchmark.errors import InputError
from benchmark.evaluate import protocols
from benchmark.evaluate import subject as subjects_module
from benchmark.evaluate.finetune import NAMES, classifier, finetune, labelled_images, train
from benchmark.evaluate.protocols import PROTOCOLS
from benchmark.evaluate.subject import Place
from benchmark.plan.cell import Evaluation
from benchmark.plan.evaluations import read_protocols
from benchmark.plan.protocols.finetune import DISTILLATIONS, FINETUNINGS, epochs_trained
from benchmark.train import checkpoint
from benchmark.train.loop import Diverged
from benchmark.train.stop import Stopped, StopRequest
from methods import load
from methods.base import Setting
from methods.encoders import EncoderConfig
from methods.norms import BatchNorm1d, BatchNorm2d
from methods.views import ViewConfig
from tests.evaluate.subjects import drawn_subject


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def subject(cache):
    return drawn_subject(cache)


def settings(name="finetune", **said):
    """What a sweep that says this asks for."""
    [protocol] = read_protocols({name: said}, lambda path: " > ".join(("sweep.yaml:3: evaluate", *path)))
    return protocol


# ---------------------------------------------------------------------------------------------- what the papers say

COSINE = {"schedule": "cosine", "warmup": 0.0, "weight_decay": 0.0, "momentum": 0.9, "crop_scale": [0.08, 1.0]}
FACEBOOK = {"optimizer": "sgd", "nesterov": False, "batch_size": 256, "epochs": 20, "scale_with_batch": False}
PAPERS = {
    "finetune_simclr_1": COSINE | {
        "labels": "1%", "epochs": 60, "batch_size": 4096, "optimizer": "sgd", "nesterov": True, "learning_rates": [0.05],
        "scale_with_batch": True, "scale_rule": "linear", "head_learning_rate": 0.0, "head": "zero",
    },
    "finetune_simclr_10": {"labels": "10%", "epochs": 30, "batch_size": 4096, "learning_rates": [0.05], "nesterov": True},
    "finetune_simclrv2_1": COSINE | {
        "labels": "1%", "epochs": 60, "batch_size": 1024, "optimizer": "lars", "learning_rates": [0.005],
        "scale_with_batch": True, "scale_rule": "sqrt", "keep_head": True, "head": "zero", "nesterov": False,
    },
    "finetune_simclrv2_10": {"labels": "10%", "epochs": 30, "optimizer": "lars", "keep_head": True, "batch_size": 1024},
    "finetune_simclrv2_100": {"labels": "100%", "epochs": 30, "optimizer": "lars", "keep_head": False},
    "finetune_byol_1": COSINE | {
        "labels": "1%", "epochs": 50, "shorter": [30], "batch_size": 1024, "nesterov": True, "scale_with_batch": False,
        "learning_rates": [0.005, 0.01, 0.02, 0.05, 0.1],
    },
    "finetune_byol_10": {"labels": "10%", "epochs": 50, "shorter": [30]},
    "finetune_swav_1": FACEBOOK | {
        "labels": "1%", "learning_rates": [0.02], "head_learning_rate": 5.0, "schedule": "step", "milestones": [12, 16],
        "gamma": 0.2, "weight_decay": 0.0, "momentum": 0.9,
    },
    "finetune_swav_10": FACEBOOK | {"labels": "10%", "learning_rates": [0.01], "head_learning_rate": 0.2, "gamma": 0.2},
    "finetune_barlow_1": COSINE | FACEBOOK | {
        "labels": "1%", "learning_rates": [0.005], "head_learning_rate": 0.5, "every": "epoch", "head": "normal",
    },
    "finetune_barlow_10": FACEBOOK | {"labels": "10%", "learning_rates": [0.005], "head_learning_rate": 0.5},
    "finetune_vicreg_1": COSINE | FACEBOOK | {
        "labels": "1%", "learning_rates": [0.03], "head_learning_rate": 0.08, "every": "epoch", "head": "normal",
    },
    "finetune_vicreg_10": FACEBOOK | {"labels": "10%", "learning_rates": [0.01], "head_learning_rate": 0.1, "every": "epoch"},
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_a_preset_is_its_papers_protocol(name):
    found = settings(name)
    assert {key: found[key] for key in PAPERS[name]} == PAPERS[name]


def test_every_fine_tuning_has_an_evaluator_and_a_check_above():
    assert set(NAMES) == set(FINETUNINGS) == set(PAPERS) | {"finetune"}
    assert all(PROTOCOLS[name] is finetune for name in NAMES)


def test_both_shares_of_a_paper_stand_in_one_sweep():
    one, ten = read_protocols(["finetune_simclr_1", "finetune_simclr_10"], lambda path: "")
    assert (one["epochs"], ten["epochs"]) == (60, 30)
    ids = {Evaluation("byol-0123456789ab", protocol).id for protocol in (one, ten)}
    assert len(ids) == 2 and {identity.rpartition("-")[0] for identity in ids} == {"finetune_simclr_1", "finetune_simclr_10"}
    several = read_protocols({"finetune": [{"labels": "1%"}, {"labels": "20%"}]}, lambda path: "")
    assert [protocol["labels"] for protocol in several] == ["1%", "20%"]


def test_what_a_sweep_cannot_say():
    assert settings("finetune_simclr_1", labels="lists/1percent.txt")["labels"] == "lists/1percent.txt"
    for name, said, words in [
        ("finetune_simclr_1", {"labels": "10%"}, r"labels: expected a name of 1% or of a \.txt file .*, found the text '10%'"),
        ("finetune", {"labels": "0%"}, r"expected a name of a share of the labels"),
        ("finetune", {"labels": "101%"}, r"expected a name of a share of the labels"),
        ("finetune", {"labels": 0.1}, r"labels: expected a word, found the number 0\.1"),
        ("finetune_swav_1", {"epochs": 3}, r"milestones \[12, 16\] do not all lie within 3 epochs; give earlier ones"),
        ("finetune", {"learning_rates": [0.0]}, r"learning_rates is \[0\.0\]; give one rate above 0"),
        ("finetune", {"optimizer": "lars"}, "nesterov is of optimizer 'sgd'"),
        ("finetune", {"schedule": "step"}, "schedule 'step' has no milestones"),
        ("finetune", {"shorter": [0]}, r"shorter is \[0\]"),
        ("finetune", {"warmup": 1.0}, "warmup is 1.0"),
        ("finetune", {"batch_size": 1}, "batch_size is 1"),
        ("finetune", {"crop_scale": [0.5, 2]}, "crop_scale"),
        ("finetune_simclr_1", {"epoch": 3}, "unknown key.*did you mean.*epochs"),
    ]:
        with pytest.raises(InputError, match=words):
            settings(name, **said)


def test_the_price_counts_what_is_chosen_among():
    assert epochs_trained(settings("finetune_simclr_10")) == 30
    assert epochs_trained(settings("finetune_byol_1")) == 5 * (30 + 50) + 50
    assert epochs_trained(settings("finetune_byol_1", epochs=4)) == 5 * 4 + 4  # 30 are not shorter than 4


# ---------------------------------------------------------------------------------------------- which images are labelled


def test_labelled_images_are_of_the_cell_and_of_every_class(subject):
    labels = split_labels(subject.dataset, "train")
    cell = np.union1d(subject.split.train, subject.split.held_out)
    one, ten, all_ = (labelled_images(subject, settings(labels=share), "x") for share in ("1%", "10%", "100%"))
    assert sorted(labels[one]) == list(range(10))  # at least one of every class
    assert np.bincount(labels[ten]).tolist() == [2] * 10
    assert set(one) <= set(ten) <= set(cell) and np.array_equal(all_, cell)
    assert set(all_) & set(subject.split.held_out)
    other = replace(subject, seed=5)
    assert np.array_equal(labelled_images(other, settings(labels="10%"), "x"), ten)  # the cell's seed does not draw them
    assert not np.array_equal(labelled_images(subject, settings(labels="10%", label_seed=1), "x"), ten)


# ---------------------------------------------------------------------------------------------- the update, written out


class Wide(nn.Module):
    """images -> A x + a, computed in float64 for a layer of float32; x the pixels in a row."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, dtype=torch.float64) / 10)
        self.bias = nn.Parameter(torch.randn(outputs, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1).double() @ self.weight.T + self.bias).float()


class Pretrained(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)

    def finetune_network(self) -> nn.Module:
        return self.trunk

    def backbone(self) -> nn.Module:
        raise AssertionError("keep_head is set")


def batches(subject, ids, size, epochs):
    loader = open_loader(
        subject.dataset, indices=ids, views=(ViewConfig(),), batch_size=size, seed=subject.seed, workers=0,
        out_size=subject.image_size, mean=subject.dataset.mean, std=subject.dataset.std,
    )  # fmt: skip
    with loader:
        return [(b.views[0].flatten(1).double(), b.labels) for epoch in range(epochs) for b in loader.epoch(epoch)]


def rates_of(protocol, step, total, per_epoch):
    """What the peak is multiplied by."""
    if protocol["schedule"] == "step":
        return protocol["gamma"] ** sum(step // per_epoch >= milestone for milestone in protocol["milestones"])
    warm = round(protocol["warmup"] * protocol["epochs"] * per_epoch)
    if step < warm:
        return (step + 1) / warm
    if protocol["every"] == "epoch":
        step = max(warm, step - step % per_epoch)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


SAID = {
    "finetune_simclr_1": {"learning_rates": [5.0]},
    "finetune_simclrv2_1": {"learning_rates": [2.0]},
    "finetune_swav_1": {"milestones": [1, 2], "head": "zero", "learning_rates": [0.1], "head_learning_rate": 0.5},
    "finetune_barlow_1": {"head": "zero", "warmup": 0.3, "weight_decay": 0.01, "learning_rates": [0.05]},
}


@pytest.mark.parametrize("name", SAID)
def test_the_update_is_the_papers(subject, tmp_path, name):
    torch.manual_seed(3)
    subject.image_size = 8
    trunk = Wide(4, 3 * 8 * 8)
    subject.network = Pretrained(trunk)
    protocol = settings(name, **SAID[name], epochs=3, batch_size=8)
    [rate] = protocol["learning_rates"]
    ids = subject.split.train[:20]
    a, b = trunk.weight.detach().clone(), trunk.bias.detach().clone()
    w, c = torch.zeros(10, 4, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    velocities = [torch.zeros_like(p) for p in (a, b, w, c)]
    size, data = 8, batches(subject, ids, 8, 3)
    per_epoch, total = 2, 6
    assert len(data) == total
    scale = {"linear": size / 256, "sqrt": math.sqrt(size)}[protocol["scale_rule"]] if protocol["scale_with_batch"] else 1.0
    head = protocol["head_learning_rate"] or rate
    for step, (x, y) in enumerate(data):
        h = x @ a.T + b
        error = (torch.softmax(h @ w.T + c, dim=1) - torch.eye(10, dtype=torch.float64)[y]) / size
        back = error @ w
        gradients = [back.T @ x, back.sum(0), error.T @ h, error.sum(0)]
        factor = scale * rates_of(protocol, step, total, per_epoch)
        for number, (p, g, v) in enumerate(zip((a, b, w, c), gradients, velocities, strict=True)):
            r = factor * (rate if number < 2 else head)
            g = g + protocol["weight_decay"] * p
            if protocol["optimizer"] == "lars":  # SimCLR's: the trunk's weights alone are adapted, the rate is in the velocity
                ratio = 0.001 * p.norm() / g.norm() if number == 0 and g.norm() > 0 else 1.0
                v.mul_(0.9).add_(r * ratio * g)
                p -= v
            else:
                v.mul_(0.9).add_(g)
                p -= r * (g + 0.9 * v if protocol["nesterov"] else v)
    found = train(subject, protocol, Place(tmp_path, "x"), ids, 3, rate, "here")
    layer = found[1]
    for ours, theirs in ((found[0].weight, a), (found[0].bias, b), (layer.weight, w), (layer.bias, c)):
        torch.testing.assert_close(ours.detach().double(), theirs, rtol=2e-5, atol=2e-6)  # the layer is float32
    assert (found[0].weight - trunk.weight).abs().max() > 1e-3 and not trunk.weight.requires_grad


# ---------------------------------------------------------------------------------------------- the network


def test_all_of_the_network_is_trained_and_the_original_stays(subject, tmp_path):
    encoder = EncoderConfig(name="resnet10", stem="cifar", width=0.125, bn_splits=2, zero_init=False)
    subject.network.encoder = load("random")(load("random").Config(), encoder, Setting()).encoder
    subject.network.encoder.conv1.requires_grad_(False)
    before = {key: value.clone() for key, value in subject.network.state_dict().items()}
    images = subject.split.train[:15]  # which no two norms could share
    found = train(subject, settings(head="normal"), Place(tmp_path, "x"), images, 2, 0.5, "here")
    norms = [m for m in found.modules() if isinstance(m, BatchNorm1d | BatchNorm2d)]
    assert norms and all(m.splits == 1 and m.num_batches_tracked == 2 for m in norms)
    moved = [not torch.equal(p, before["encoder." + key]) for key, p in found[0].named_parameters()]
    assert all(moved)
    assert all(torch.equal(value, before[key]) for key, value in subject.network.state_dict().items())


def test_the_new_layer_begins_as_it_is_told(subject):
    def made(**said):
        return classifier(subject, settings(**said))[1]

    assert not made(head="zero").weight.any() and not made(head="zero").bias.any()
    normal = made(head="normal")
    assert 0.005 < normal.weight.std() < 0.015 and not normal.bias.any()
    assert made(head="pytorch").bias.any()
    assert torch.equal(made(head="pytorch").weight, made(head="pytorch").weight)
    other = classifier(replace(subject, seed=1), settings(head="normal"))[1]
    assert not torch.equal(other.weight, normal.weight)


def test_simclr_v2_goes_on_from_the_first_layer_of_its_head_or_from_the_encoder(subject):
    kind = load("simclrv2")
    subject.network = kind(
        replace(kind.Config(), queue=8), EncoderConfig(name="convnet", stem="stride2", width=0.25), Setting(batch_size=4)
    ).eval()
    head = classifier(subject, settings("finetune_simclrv2_10"))
    assert torch.equal(head[0][1].weight, subject.network.projector[0].weight) and head[1].in_features == 2048
    alone = classifier(subject, settings("finetune_simclrv2_100"))
    assert alone[1].in_features == subject.network.dim


@pytest.mark.parametrize("channels", [["lab", "lab"], ["sobel"]])
def test_views_have_the_colour_spaces_of_the_network(subject, tmp_path, channels):
    count = {"lab": 3, "sobel": 2}[channels[0]] * len(channels)
    seen = []

    class Watched(Wide):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.detach())
            return super().forward(images)

    subject.channels, subject.image_size, subject.network = channels, 8, Pretrained(Watched(4, count * 64))
    found = finetune(subject, settings(epochs=1, batch_size=16, labels="10%"), Place(tmp_path, "x"))
    assert 0 <= found.metrics["top1"] <= 100 and {x.shape[1] for x in seen} == {count}
    if len(channels) == 2:  # one crop
        assert all(torch.equal(x[:, :3], x[:, 3:]) for x in seen)


# ---------------------------------------------------------------------------------------------- choices

GRID = {"epochs": 3, "shorter": [1, 9], "batch_size": 16, "learning_rates": [0.5, 0.01], "labels": "20%"}


def test_what_is_chosen_is_best_on_held_out_images_and_trained_on_all(subject, tmp_path):
    trainings, original = [], protocols.finetune.__globals__["train"]

    def watched(subject, protocol, place, images, epochs, rate, stage):
        trainings.append((len(images), len(np.intersect1d(images, subject.split.held_out)), epochs, rate))
        return original(subject, protocol, place, images, epochs, rate, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocols.finetune.__globals__, "train", watched)
        found = finetune(subject, settings(**GRID), Place(tmp_path, "x"))
    grid = found.chosen["grid"]
    assert [row[:2] for row in grid] == [[1, 0.01], [1, 0.5], [3, 0.01], [3, 0.5]]
    best = max(row[2] for row in grid)
    first = next(row for row in grid if row[2] == best)
    assert [found.chosen["epochs"], found.chosen["learning_rate"]] == first[:2] and found.metrics["heldout_top1"] == best
    assert found.chosen["at_edge"] and found.chosen["labelled"] == 40
    inner = 40 - trainings[-1][1]
    assert 0 < inner < 40
    assert trainings == [(inner, 0, *row[:2]) for row in grid] + [(40, 40 - inner, *first[:2])]


def permuted(monkeypatch, part):
    """From now on the labels of this part are in another order."""
    original = split_labels

    def other(dataset, which):
        labels = original(dataset, which)
        return np.random.default_rng(1).permutation(labels) if which == part else labels

    monkeypatch.setattr(subjects_module, "split_labels", other)


@pytest.mark.parametrize("said", [GRID, {"epochs": 2, "batch_size": 16, "labels": "20%"}])
def test_test_labels_change_no_choice_and_no_weight(subject, tmp_path, monkeypatch, said):
    one, two = Place(tmp_path, "one"), Place(tmp_path, "two")
    first = finetune(subject, settings(**said), one)
    permuted(monkeypatch, "test")
    second = finetune(subject, settings(**said), two)
    assert first.chosen == second.chosen and first.metrics.get("heldout_top1") == second.metrics.get("heldout_top1")
    assert same_weights(one, two)


def test_held_out_labels_do_change_a_choice(subject, tmp_path, monkeypatch):
    """Or the test above could not fail."""
    first = finetune(subject, settings(**GRID), Place(tmp_path, "one"))
    permuted(monkeypatch, "train")
    assert finetune(subject, settings(**GRID), Place(tmp_path, "two")).chosen["grid"] != first.chosen["grid"]


def test_a_choice_that_diverges_is_not_taken(subject, tmp_path):
    found = finetune(subject, settings(**GRID | {"learning_rates": [0.01, 1e30]}), Place(tmp_path, "x"))
    assert found.chosen["learning_rate"] == 0.01 and found.chosen["grid"][3] == [3, 1e30, None]
    with pytest.raises(Diverged):
        finetune(subject, settings(**GRID | {"learning_rates": [1e29, 1e30], "shorter": []}), Place(tmp_path, "y"))
    with pytest.raises(Diverged):
        finetune(subject, settings(epochs=3, learning_rates=[1e30], batch_size=16), Place(tmp_path, "z"))
    with pytest.raises(Diverged) as diverged:  # by the last step, whose weights no loss has seen
        finetune(subject, settings(epochs=1, learning_rates=[1e38], head="pytorch", batch_size=4096), Place(tmp_path, "v"))
    assert diverged.value.step == 1


def test_a_long_pass_over_images_ends_when_a_stop_is_asked_for(cache, monkeypatch):
    subject = drawn_subject(cache)
    subject.stop.ask("a test")
    assert len(subject.features.test_x) == len(subject.split.test)  # a short one does not
    monkeypatch.setattr(subjects_module, "_PATIENCE", -1.0)
    with pytest.raises(Stopped, match="a test"):
        subject.outputs("test", subject.split.test, subject.network.features)


# ---------------------------------------------------------------------------------------------- interruptions


def same_weights(one, two):
    first, second = (checkpoint.load(place.checkpoint)["trained"] for place in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def interrupted(evaluator, make, protocol, place, every):
    """The evaluation stopped after every few steps, and taken up by a new subject each time; and how many steps it took."""
    steps, starts = 0, 0
    while True:
        subject, here = make(), 0
        subject.stop = StopRequest()

        def count(progress, subject=subject):
            nonlocal steps, here
            steps, here = steps + 1, here + 1
            if here == every:
                subject.stop.ask("a test")

        subject.report = count
        starts += 1
        try:
            return evaluator(subject, protocol, place), steps, starts
        except Stopped:
            assert place.checkpoint.exists()


def test_a_stopped_evaluation_ends_with_the_same_bits(cache, tmp_path):
    """Once within each training and between them: two choices, then the training of what was chosen."""
    protocol = settings(epochs=3, learning_rates=[0.5, 0.01], batch_size=16, labels="20%", head="pytorch")
    whole, broken = Place(tmp_path, "whole"), Place(tmp_path, "broken")
    subject, steps = drawn_subject(cache), []
    subject.report = steps.append
    expected = finetune(subject, protocol, whole)
    found, taken, starts = interrupted(finetune, lambda: drawn_subject(cache), protocol, broken, 2)
    assert found == expected and same_weights(whole, broken)
    assert taken == len(steps) and starts > 4  # nothing was trained twice
    kept = checkpoint.load(broken.checkpoint)["finished"]
    assert len(kept) == 2 and all(set(stage) == {"settled"} for stage in kept.values())  # no weights of what was not taken


# ---------------------------------------------------------------------------------------------- what it is good for


def test_it_learns(cache, tmp_path):
    """From scratch on drawn shapes, all labels: far above one in ten; with 2 % of them less."""
    subject = drawn_subject(cache, EncoderConfig(name="convnet", stem="stride2", width=1.0), train=1000, test=300, held_out=0.0)
    said = {"epochs": 10, "learning_rates": [0.1], "batch_size": 64, "scale_with_batch": False, "crop_scale": [0.6, 1.0]}
    many = finetune(subject, settings(**said), Place(tmp_path, "many"))
    few = finetune(subject, settings(labels="2%", **said), Place(tmp_path, "few"))
    assert many.metrics["top1"] > 40 > few.metrics["top1"] and many.metrics["top5"] > many.metrics["top1"]


# ---------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_told_before_a_training(cache, tmp_path):
    place = Place(tmp_path, "x")
    trained = []

    def refused(protocol, words, **subject_settings):
        subject = drawn_subject(cache, **subject_settings)
        subject.report = trained.append
        with pytest.raises(InputError, match=words):
            finetune(subject, protocol, place)

    refused(settings(**GRID), "finetune: it chooses among 4 settings, but data.held_out is 0; set it above 0", held_out=0.0)
    refused(settings(labels=str(tmp_path / "none.txt")), "none.txt is neither a share such as 1% or 0.1 nor a file")
    empty = drawn_subject(cache)
    empty.split = replace(empty.split, test=empty.split.test[:0])
    with pytest.raises(InputError, match=r"finetune_byol_1: the test split has no labelled image; raise data\.test_images"):
        finetune(empty, settings("finetune_byol_1"), place)
    single = drawn_subject(cache)
    single.split = replace(single.split, train=single.split.train[:1], held_out=single.split.held_out[:0])
    with pytest.raises(InputError, match="finetune: labels 100% is 1 of 1 images; 2 are needed"):
        finetune(single, settings(), place)
    narrow = drawn_subject(cache)
    narrow.dataset = replace(narrow.dataset, classes=narrow.dataset.classes[:5])
    with pytest.raises(InputError, match="finetune: a train image has label 9; the classes of shapes are 0 to 4"):
        finetune(narrow, settings(), place)
    assert not trained and not place.checkpoint.exists()


def test_distillations_are_protocols_too():
    assert set(DISTILLATIONS) < set(PROTOCOLS)
