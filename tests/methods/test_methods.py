"""What every method owes the training loop, asked of each of them."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from methods import METHODS, load
from methods.base import Method, Step
from methods.encoders import EncoderConfig
from methods.views import RECIPES
from tests.methods.small import CONFIGS, ENCODER, batch, build, training_set

TRAINED = sorted(name for name in METHODS if load(name).TRAINS)
NORMS = ["batch", "group", "group_ws", "layer", "none", "affine"]


def train(method: Method, steps: range, total: int = 6, autocast: bool = False, lr: float = 0.05) -> list[float]:
    method.train()
    optimizer = torch.optim.SGD([{"params": g["params"]} for g in method.param_groups()], lr=lr)
    losses = []
    if method.EPOCH_PASS and steps.start == 0:
        method.begin_epoch(0, training_set(method.NAME))
        method.train()
    for k in steps:
        step = Step(step=k, total_steps=total, epoch=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, log = method.loss(*batch(method.NAME, seed=k), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step)
        losses.append(loss.item())
        assert all(torch.isfinite(value).all() and value.ndim == 0 for value in log.values())
    return losses


def test_the_list_of_methods_is_what_the_classes_say() -> None:
    assert set(METHODS) == set(CONFIGS)
    for name in METHODS:
        method = load(name)
        assert name == method.NAME and method.VERSION >= 1 and method.PAPER
        assert method.RECIPE in RECIPES and method.NUM_VIEWS in (0, 1, 2)
        assert (method.NUM_VIEWS > 0) == method.TRAINS
    with pytest.raises(ValueError, match="the methods are "):
        load("boyl")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_starts_from_the_same_encoder(name: str) -> None:
    """The random-initialization row is the start of every other row with its seed."""
    method, reference = build(name), build("random").encoder.state_dict()
    if method.MODALITIES or method.setting.channels != 3:
        # One encoder for each, or one of gradients: not that of the random row, but built before everything else too.
        torch.manual_seed(0)
        reference = method.make_encoder(ENCODER)[0].state_dict()
    for key, value in method.encoder.state_dict().items():
        assert torch.equal(value, reference[key])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameter_groups_hold_every_trained_parameter_once(name: str) -> None:
    method = build(name)
    groups = method.param_groups()
    grouped = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    exempt = {id(p) for group in groups if not group["decay"] for p in group["params"]}
    for module in method.modules():
        for key, p in module.named_parameters(recurse=False):
            if p.requires_grad:
                norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
                assert (id(p) in exempt) == (norm or key == "bias")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_features_and_projection_have_their_shapes(name: str) -> None:
    method = build(name).eval()
    images = torch.randn(3, method.setting.channels, 16, 16)
    with torch.no_grad():
        features, z = method.features(images), method.project(images)
        again = method.features(images)
    assert features.shape == (3, method.dim) == (3, {"cmc": 2 * 32}.get(name, 32))
    assert torch.equal(features, again)
    # The heads of small.py end in 8; what has none is watched at its features.
    width = {"cmc": 2 * 8, "cpc": 32, "cpcv2": 32, "deepcluster": 32, "random": 32, "supervised": 32}.get(name, 8)
    assert z.shape == (3, width)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("norm", NORMS)
def test_trains_in_bfloat16_and_channels_last_with_every_norm(name: str, norm: str) -> None:
    encoder = EncoderConfig(name="convnet", stem="stride2", width=0.25, norm=norm)  # type: ignore[arg-type]
    method = build(name, encoder).to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", torch.bfloat16):
        method.prepare(batch(method.NAME)[0])
    before = [p.clone() for p in method.encoder.parameters()]
    losses = train(method, range(3), autocast=True)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert any((a != b).any() for a, b in zip(method.encoder.parameters(), before, strict=True))
    assert all(p.dtype == torch.float32 for p in method.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_that_has_no_equal_parts_is_refused(name: str) -> None:
    encoder = replace(ENCODER, bn_splits=4)
    for size, told in ((6, "a batch of 6 has no 4 equal parts"), (4, "a batch of 4 has no 4 equal parts of at least two")):
        with pytest.raises(ValueError, match=told):
            build(name, encoder, batch_size=size)
    build(name, replace(encoder, norm="none"), batch_size=6, **({"prototypes": 4} if name == "swav" else {}))


@pytest.mark.parametrize("name", TRAINED)
def test_a_copy_and_a_resumed_run_go_on_alike(name: str) -> None:
    """deepcopy, and a state dict through a file read with weights_only, both continue bit for bit."""
    whole = build(name)
    train(whole, range(3))
    copied = copy.deepcopy(whole)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = build(name, seed=1)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    expected = train(whole, range(3, 6))
    assert train(copied, range(3, 6)) == expected
    assert train(resumed, range(3, 6)) == expected
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls_on_one_batch(name: str) -> None:
    method = build(name).train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.2)
    losses = []
    if method.EPOCH_PASS:
        method.begin_epoch(0, training_set(name))
        method.train()
    for _ in range(30):
        # Step total - 1: the target barely moves, so that the loss is nearly one fixed function.
        step = Step(step=99, total_steps=100, epoch=0)
        loss, _ = method.loss(*batch(method.NAME), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_random_row_has_no_loss() -> None:
    method = build("random")
    with pytest.raises(ValueError, match="not trained"):
        method.loss([], torch.zeros(0), torch.zeros(0), Step(0, 1, 0))
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method.eval()
    method.features(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_supervised_reports_its_accuracy() -> None:
    method = build("supervised")
    _, log = method.loss(*batch(method.NAME), Step(0, 1, 0))
    assert 0.0 <= log["accuracy"].item() <= 1.0


def test_supervised_refuses_a_batch_of_one_where_it_needs_statistics() -> None:
    with pytest.raises(ValueError, match="a batch of one image has no batch statistics: raise batch_size"):
        build("supervised", batch_size=1)
    build("supervised", EncoderConfig(name="convnet", stem="stride2", width=0.25, norm="group"), batch_size=1)


def test_a_step_knows_its_fraction() -> None:
    assert [Step(k, 4, 0).fraction for k in range(4)] == [0.0, 0.25, 0.5, 0.75]
