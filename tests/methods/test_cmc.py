"""CMC against a slow transcription: both losses, both graphs, two modalities and three."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Setting, Step
from methods.cmc import CMC, CMCConfig, Modalities, directions
from methods.encoders import EncoderConfig, build_encoder
from methods.heads import HeadConfig
from methods.instdisc import drawn_negatives
from methods.norms import Affine
from tests.methods.small import HEALTH

ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
IMAGES = 9
INDEX = torch.tensor([4, 8, 0])
NOBODY = torch.zeros(3, dtype=torch.long)


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(*channels: int) -> list[Tensor]:
    return [random64(3, count, 16, 16, seed=count) for count in channels or (3,)]


def build(encoder: EncoderConfig = ENCODER, images: int = IMAGES, found: int = 0, batch: int = 0, **config: Any) -> CMC:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": HeadConfig(layers=1, out=6), "negatives": 4} | config
    made = CMCConfig(**settings)
    setting = Setting(num_images=images, batch_size=batch, channels=found or sum(made.channels), seed=3)
    return CMC(made, encoder, setting).double().train()


def slow_projections(method: CMC, images: Tensor) -> list[list[Tensor]]:
    found, start = [], 0
    for m, count in enumerate(method.config.channels):
        z = method.projectors[m](method.encoder.each[m](images[:, start : start + count]))
        found.append([row / torch.sqrt((row * row).sum()) for row in z])
        start += count
    return found


def slow_loss(method: CMC, images: Tensor) -> Tensor:
    """Every anchor against every memory it is contrasted with, negative by negative."""
    config, n, tau = method.config, method.setting.num_images, method.config.temperature
    z, v = slow_projections(method, images), [bank.rows.clone() for bank in method.banks]
    drawn = drawn_negatives(INDEX, n, config.negatives, 3, STEP)
    m, total = config.negatives, torch.zeros((), dtype=torch.float64)
    for a in range(len(z)):
        for b in range(len(z)):
            if a == b or (config.graph == "core" and 0 not in (a, b)):
                continue
            every = [float(torch.exp(v[b][j] @ z[a][i].detach() / tau)) for i in range(3) for j in drawn[i]]
            constant = n * sum(every) / len(every)
            for i in range(3):
                positive = torch.exp(v[b][INDEX[i]] @ z[a][i] / tau)
                negatives = [torch.exp(v[b][j] @ z[a][i] / tau) for j in drawn[i]]
                if config.loss == "softmax":
                    total = total - torch.log(positive / (positive + sum(negatives))) / 3
                    continue
                total = total - torch.log(positive / constant / (positive / constant + m / n)) / 3
                for e in negatives:
                    total = total - torch.log(1 - e / constant / (e / constant + m / n)) / 3
    return total


@pytest.mark.parametrize("loss", ["nce", "softmax"])
@pytest.mark.parametrize(("channels", "graph"), [((1, 2), "full"), ((1, 2, 3), "full"), ((1, 2, 3), "core")])
def test_loss_and_gradients_are_the_papers(loss: str, channels: tuple[int, ...], graph: str) -> None:
    method = build(loss=loss, channels=channels, graph=graph, temperature=0.2)
    images = torch.cat(views(*channels), dim=1)
    found = method.loss([images], INDEX, NOBODY, STEP)[0]
    expected = slow_loss(method, images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    trained = list(method.parameters())
    for a, b in zip(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_graphs_name_their_pairs() -> None:
    assert directions(2, "full") == directions(2, "core") == [(0, 1), (1, 0)]
    assert set(directions(3, "core")) == {(0, 1), (1, 0), (0, 2), (2, 0)}
    assert set(directions(3, "full")) == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert len(directions(4, "full")) == 12 and len(directions(4, "core")) == 6


def test_further_views_are_further_modalities() -> None:
    """L and ab in one view and Sobel gradients in another are the same images as all five channels in one."""
    method, whole = build(channels=(1, 2, 2)), build(channels=(1, 2, 2))
    parts = views(3, 2)
    found = method.loss(parts, INDEX, NOBODY, STEP)[0]
    assert torch.equal(found, whole.loss([torch.cat(parts, dim=1)], INDEX, NOBODY, STEP)[0])
    assert method.eval().features(torch.cat(parts, dim=1)).shape == (3, method.dim) == (3, 3 * 16)


def test_an_encoder_sees_its_own_channels_only() -> None:
    method = build(channels=(1, 2, 1)).eval()
    images = random64(3, 4, 16, 16)
    features = method.features(images)
    for m, (start, stop) in enumerate(((0, 1), (1, 3), (3, 4))):
        changed = images.clone()
        changed[:, start:stop] += 1.0
        moved = (method.features(changed) != features).any(dim=0).view(3, 16).any(dim=1)
        assert moved.tolist() == [k == m for k in range(3)]
        alone = method.encoder.each[m](images[:, start:stop])
        assert torch.equal(features[:, 16 * m : 16 * (m + 1)], alone)


def test_encoders_have_their_own_weights_and_the_configs_width() -> None:
    encoder = Modalities(EncoderConfig(name="convnet", stem="stride2", width=0.5), (1, 1))
    weights = [next(e.parameters()) for e in encoder.each]
    assert encoder.dims == [64, 64] and not torch.equal(*weights)
    torch.manual_seed(0)
    first = build_encoder(ENCODER, 1)[0].double()
    for a, b in zip(build().encoder.each[0].parameters(), first.parameters(), strict=True):
        assert torch.equal(a, b)


def test_evaluate_first_is_one_modality_alone() -> None:
    both, first = build().eval(), build(evaluate="first").eval()
    images = views()[0]
    assert (both.dim, first.dim) == (32, 16)
    assert torch.equal(first.features(images), both.features(images)[:, :16])
    assert both.project(images).shape == (3, 12)
    torch.testing.assert_close(both.project(images).norm(dim=1), torch.full((3,), math.sqrt(2.0), dtype=torch.float64))


def test_every_memory_moves_after_the_step_towards_its_own_modality() -> None:
    method = build(momentum=0.75)
    before = [bank.rows.clone() for bank in method.banks]
    method.loss(views(), INDEX, NOBODY, STEP)
    assert all(torch.equal(bank.rows, old) for bank, old in zip(method.banks, before, strict=True))
    with torch.no_grad():
        z = [torch.stack(rows) for rows in slow_projections(method, views()[0])]
    method.after_step(STEP)
    for bank, old, z_m in zip(method.banks, before, z, strict=True):
        wanted = old.clone()
        wanted[INDEX] = F.normalize(0.75 * old[INDEX] + 0.25 * z_m, dim=1)
        torch.testing.assert_close(bank.rows, wanted, rtol=0, atol=1e-12)


def test_each_direction_has_a_constant_of_its_own_and_keeps_it() -> None:
    method = build()
    log = method.loss(views(), INDEX, NOBODY, STEP)[1]
    assert set(log) == HEALTH | {"view_cosine", "z_ratio"} and not any(v.requires_grad for v in log.values())
    constants = [float(p.log) for p in method.partitions]  # type: ignore[arg-type]
    assert len(set(constants)) == 2 and log["z_ratio"].item() == pytest.approx(1.0)
    method.after_step(STEP)
    method.loss(views(), INDEX, NOBODY, Step(1, 10, 0))
    assert [float(p.log) for p in method.partitions] == constants  # type: ignore[arg-type]
    assert "z_ratio" not in build(loss="softmax").loss(views(), INDEX, NOBODY, STEP)[1]


def test_perfect_and_identical_features() -> None:
    """Features that agree with the memory and with no other image cost nearly nothing; all alike, chance."""
    eye = torch.eye(IMAGES, dtype=torch.float64)
    for perfect in (True, False):
        method = build(loss="softmax", projector=HeadConfig(layers=0), temperature=0.02)
        for bank in method.banks:
            bank.rows = eye.clone() if perfect else torch.ones(IMAGES, IMAGES).double() / 3.0
        z = [bank.rows[INDEX] for bank in method.banks]
        method._projections = lambda images, z=z: z  # type: ignore[method-assign, misc]
        drawn = drawn_negatives(INDEX, IMAGES, 4, 3, STEP)
        own = (drawn == INDEX.unsqueeze(1)).sum(dim=1)  # uniform draws may meet the positive itself
        expected = 2 * torch.log(1.0 + (own if perfect else torch.full((3,), 4)).double()).mean().item()
        assert method.loss(views(), INDEX, NOBODY, STEP)[0].item() == pytest.approx(expected, abs=1e-9)


def test_prepare_sets_the_affine_norms_of_every_encoder() -> None:
    method = build(EncoderConfig(name="convnet", stem="stride2", width=0.125, norm="affine"), channels=(1, 2, 2))
    method.prepare(views(3, 2))
    norms = [m for m in method.modules() if isinstance(m, Affine)]
    assert len(norms) == 3 * 4 and all((m.weight != 1).any() for m in norms)


def test_defaults_are_the_papers() -> None:
    config = CMCConfig()
    assert (config.channels, config.loss, config.negatives, config.temperature, config.momentum) == (
        (1, 2),
        "nce",
        4096,
        0.07,
        0.5,
    )
    assert (config.projector.layers, config.projector.out, config.graph) == (1, 128, "full")


def test_wrong_settings_are_refused() -> None:
    for settings, message in (
        ({"channels": (3,)}, r"two modalities or more, each at least 1, not \[3\]"),
        ({"channels": (1, 0, 2)}, r"each at least 1, not \[1, 0, 2\]"),
        ({"channels": (1, 2, 2), "found": 3}, r"channels \[1, 2, 2\] are 5 in all, but the views of an image have 3"),
        ({"graph": "star"}, "graph must be full or core, not 'star'"),
        ({"loss": "nec"}, "loss must be nce or softmax, not 'nec'"),
        ({"negatives": 0}, "negatives must be at least 1, not 0"),
        ({"z_batches": 0}, "z_batches must be at least 1, not 0"),
        ({"temperature": -1.0}, "temperature must be positive, not -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1.0"),
        ({"evaluate": "L"}, "evaluate must be all or first, not 'L'"),
        ({"images": 0}, "needs num_images"),
        ({"batch": 1, "projector": HeadConfig()}, "a batch of one image has no batch statistics"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
