"""DeepCluster-v2: memory, clusterings and loss against slow transcriptions, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.deepclusterv2 import DeepClusterV2, DeepClusterV2Config, cluster_prediction
from methods.draws import generator
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.norms import BatchNorm1d
from tests.methods.small import HEALTH_OF_PAIRS

HEAD = HeadConfig(hidden=12, out=6)
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=0, total_steps=10, epoch=0)
IMAGES = 20
INDEX = torch.tensor([7, 0, 19, 3, 11])


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crops(small: int = 1, n: int = 5) -> list[Tensor]:
    return [random64(n, 3, side, side, seed=v) for v, side in enumerate([16, 16] + [12] * small)]


def training_set(images: int = IMAGES) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1))
    everything = random64(IMAGES, 3, 16, 16, seed=50)
    return iter([(everything[index], index) for index in order.split(8)])


def nothing() -> Iterator[tuple[Tensor, Tensor]]:
    raise AssertionError("the training set was looked at again")
    yield


def build(setting: Setting | None = None, encoder: EncoderConfig = ENCODER, **config: Any) -> DeepClusterV2:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"projector": HEAD, "prototypes": (4, 3, 5)} | config
    method = DeepClusterV2(DeepClusterV2Config(**settings), encoder, setting or Setting(num_images=IMAGES, seed=3))
    return method.double().train()


def begun(**config: Any) -> DeepClusterV2:
    method = build(**config)
    method.begin_epoch(0, training_set())
    return method.train()


def slow_spherical(points: Tensor, k: int, iterations: int, start: list[int]) -> tuple[list[Tensor], list[int]]:
    centroids = [points[i] for i in start]
    for step in range(iterations + 1):
        labels = [max(range(k), key=lambda c: float((x * centroids[c]).sum())) for x in points]
        if step == iterations:
            break
        for c in range(k):
            mine = [x for x, label in zip(points, labels, strict=True) if label == c]
            if mine:
                mean = sum(mine, 0 * points[0]) / len(mine)
                centroids[c] = mean / mean.norm()
    return centroids, labels


def assert_clustered(method: DeepClusterV2, epoch: int) -> None:
    """Each clustering is k-means of the memory of its view, from starts of its own."""
    for h, k in enumerate(method.config.prototypes):
        start = torch.randperm(IMAGES, generator=generator(3, f"centroids {h}", epoch))[:k].tolist()
        centroids, labels = slow_spherical(method.memory[h % 2], k, method.config.kmeans_iterations, start)
        torch.testing.assert_close(method.get_buffer(f"centroids_{h}"), torch.stack(centroids), rtol=1e-9, atol=1e-9)
        assert method.assignments[h].tolist() == labels


def test_the_first_epoch_fills_the_memory_and_clusters_it() -> None:
    method = begun()
    method.eval()
    for batch, index in training_set():
        z = method.projector(method.encoder(batch))
        for z_i, i in zip(z, index.tolist(), strict=True):
            for view in (0, 1):
                torch.testing.assert_close(method.memory[view, i], z_i / z_i.norm())
    assert_clustered(method, 0)
    assert method.nmi == 0 and 0 < method.evenness <= 1
    assert not any(value.requires_grad for value in method.buffers())


def test_later_epochs_cluster_what_training_remembered() -> None:
    method = begun()
    before = method.memory.clone()
    method.loss(crops(), INDEX, INDEX, STEP)
    assert torch.equal(method.memory, before)  # not yet: the step may still be looking at it
    state = {k: v.clone() for k, v in method.state_dict().items()}
    method.after_step(STEP)
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items() if k != "memory")
    others = [i for i in range(IMAGES) if i not in INDEX.tolist()]
    assert torch.equal(method.memory[:, others], before[:, others])
    assert (method.memory[:, INDEX] != before[:, INDEX]).any(dim=2).all()
    assert not torch.equal(method.memory[0], method.memory[1])

    method.begin_epoch(1, nothing())
    assert_clustered(method, 1)
    assert 0 < method.nmi <= 1


def test_the_memory_holds_each_views_projection_at_its_index() -> None:
    plain = replace(HEAD, norm="none")
    method = begun(encoder=replace(ENCODER, norm="none"), projector=plain)
    method.loss(crops(), INDEX, INDEX, STEP)
    method.after_step(STEP)
    for view in (0, 1):
        z = method.project(crops()[view])
        for row, i in enumerate(INDEX.tolist()):
            torch.testing.assert_close(method.memory[view, i], (z[row] / z[row].norm()).detach())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_loss_and_gradients_are_the_papers(norm: Any) -> None:
    encoder, head = replace(ENCODER, norm=norm), replace(HEAD, norm=norm)
    method = begun(encoder=encoder, projector=head, temperature=0.2)
    views = crops(small=2)
    fast, _ = method.loss(views, INDEX, INDEX, STEP)
    if norm == "batch":
        y = [method.encoder(torch.cat(same)) for same in (views[:2], views[2:])]
        z = method.projector(torch.cat(y)).view(4, 5, 6)
    else:
        z = torch.stack([method.project(view) for view in views])
    slow, terms = torch.zeros((), dtype=torch.float64), 3 * 4 * 5
    for h, k in enumerate(method.config.prototypes):
        centroids = method.get_buffer(f"centroids_{h}")
        for v in range(4):
            for b, i in enumerate(INDEX.tolist()):
                unit = z[v, b] / z[v, b].norm()
                scores = [torch.exp((unit * centroids[c]).sum() / 0.2) for c in range(k)]
                slow = slow - torch.log(scores[int(method.assignments[h, i])] / sum(scores))
    slow = slow / terms
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    trained = [p for p in method.parameters() if p.requires_grad]
    for found, expected in zip(torch.autograd.grad(fast, trained), torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_degenerate_predictions() -> None:
    eye, targets = torch.eye(3, dtype=torch.float64)[None], torch.arange(3)
    assert cluster_prediction(eye, targets, 0.01).item() == pytest.approx(0.0, abs=1e-9)
    assert cluster_prediction(0 * eye, targets, 0.1).item() == pytest.approx(torch.tensor(3.0).log().item())
    same = torch.ones(4, 1, 6, dtype=torch.float64)
    assert cluster_prediction(same, targets[:1], 0.1).item() == pytest.approx(torch.tensor(6.0).log().item())


def test_nothing_but_the_network_is_trained() -> None:
    method = begun()
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"encoder", "projector"}
    loss, log = method.loss(crops(), INDEX, INDEX, STEP)
    assert loss.ndim == 0
    assert set(log) == HEALTH_OF_PAIRS | {"accuracy", "nmi_previous", "cluster_evenness"}
    assert not any(v.requires_grad for v in log.values())


def test_clusters_depend_on_seed_and_epoch_alone() -> None:
    first, second = begun(), begun()
    assert torch.equal(first.assignments, second.assignments)
    torch.manual_seed(9)
    first.begin_epoch(1, nothing())
    second.begin_epoch(1, nothing())
    assert torch.equal(first.assignments, second.assignments)
    assert not torch.equal(first.assignments, begun().assignments)  # another epoch, other starts


def test_defaults_are_the_released_codes() -> None:
    config = DeepClusterV2Config()
    assert (config.prototypes, config.temperature, config.kmeans_iterations) == ((3000, 3000, 3000), 0.1, 10)
    method = DeepClusterV2(config, ENCODER, Setting(num_images=4000, num_views=8))
    assert [type(m) for m in method.projector] == [nn.Linear, BatchNorm1d, nn.ReLU, nn.Linear]
    assert method.memory.shape == (2, 4000, 128) and method.get_buffer("centroids_2").shape == (3000, 128)


@pytest.mark.parametrize(
    ("setting", "changed", "message"),
    [
        (None, {"prototypes": ()}, r"at least 2, not \[\]"),
        (None, {"prototypes": (4, 1)}, r"at least 2, not \[4, 1\]"),
        (None, {"temperature": 0.0}, "temperature must be positive, not 0"),
        (None, {"kmeans_iterations": 0}, "kmeans_iterations must be at least 1, not 0"),
        (Setting(), {}, "num_images is 0"),
        (None, {"prototypes": (4, 21)}, "prototypes is 21, but there are only 20 images"),
        (Setting(num_images=20, num_views=1), {}, "2 full-size views, but gets 1"),
        (Setting(num_images=20, batch_size=1, num_views=2), {}, "batch of one"),
    ],
)
def test_what_cannot_be_trained_is_refused(setting: Setting | None, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(setting, **changed)


def test_missing_passes_are_named() -> None:
    with pytest.raises(ValueError, match="begin_epoch has not been called"):
        build().loss(crops(), INDEX, INDEX, STEP)
    method = build()
    with pytest.raises(ValueError, match="saw 16 of 20 images"):
        method.begin_epoch(0, training_set(16))
