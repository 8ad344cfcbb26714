"""DeepCluster: clusters, weights, the fresh classifier and the loss against slow transcriptions, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Setting, Step
from methods.deepcluster import DeepCluster, DeepClusterConfig, weighted_classification
from methods.draws import generator
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.kmeans import kmeans, mutual_information, whitened
from tests.methods.small import HEALTH

ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
HEAD = HeadConfig(layers=2, hidden=12, out=10, norm="none")
STEP = Step(step=0, total_steps=10, epoch=0)
IMAGES, CLUSTERS = 24, 5
INDEX = torch.tensor([7, 0, 23, 3, 11, 12])


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything() -> Tensor:
    return random64(IMAGES, 2, 16, 16, seed=50)


def training_set(images: int = IMAGES) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1))
    return iter([(everything()[index], index) for index in order.split(7)])


def nothing() -> Iterator[tuple[Tensor, Tensor]]:
    raise AssertionError("the training set was looked at again")
    yield


def build(setting: Setting | None = None, **config: Any) -> DeepCluster:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"clusters": CLUSTERS, "pca": 4} | config
    setting = setting or Setting(num_images=IMAGES, channels=2, seed=3)
    return DeepCluster(DeepClusterConfig(**settings), ENCODER, setting).double().train()


def begun(**config: Any) -> DeepCluster:
    method = build(**config)
    method.begin_epoch(0, training_set())
    return method.train()


def views(seed: int = 0) -> list[Tensor]:
    return [random64(len(INDEX), 2, 16, 16, seed=seed)]


@pytest.mark.parametrize("projector", [HeadConfig(layers=0), HEAD])
def test_clusters_are_kmeans_of_the_whitened_features_of_central_views(projector: HeadConfig) -> None:
    method = begun(projector=projector)
    with torch.no_grad():
        features = method.eval().projector(method.encoder(everything()))  # running statistics: not the batch's
    start = generator(3, "centroids", 0)
    expected = kmeans(whitened(features, 4), CLUSTERS, 20, start)[1]
    assert torch.equal(method.assignment, expected)
    assert len(expected.unique()) > 1
    assert method.nmi == 0 and 0 < method.evenness <= 1
    raw = begun(projector=projector, pca=0)
    unit = torch.stack([x / x.norm() for x in features])
    assert torch.equal(raw.assignment, kmeans(unit, CLUSTERS, 20, generator(3, "centroids", 0))[1])


def test_features_are_taken_in_eval_mode() -> None:
    """So that an image's cluster does not depend on who shares its batch, and the pass leaves no trace in the norms."""
    method = build()
    before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
    method.begin_epoch(0, training_set())
    assert all(torch.equal(v, before[k]) for k, v in method.encoder.state_dict().items())
    twin = build()
    twin.begin_epoch(0, iter([(everything(), torch.arange(IMAGES))]))
    assert torch.equal(twin.assignment, method.assignment)


def test_weights_make_every_cluster_count_the_same() -> None:
    """The mean of the weighted loss over the training set is the mean over clusters of the loss within each."""
    method = begun()
    sizes = torch.bincount(method.assignment, minlength=CLUSTERS)
    used = int((sizes > 0).sum())
    for k in range(CLUSTERS):
        if sizes[k]:
            assert method.weights[k].item() == pytest.approx(IMAGES / (used * int(sizes[k])))
    assert method.weights[method.assignment].mean().item() == pytest.approx(1.0)
    logits = random64(IMAGES, CLUSTERS)
    one = [F.cross_entropy(logits[i : i + 1], method.assignment[i : i + 1]) for i in range(IMAGES)]
    within = []
    for k in range(CLUSTERS):
        mine = [loss for loss, label in zip(one, method.assignment.tolist(), strict=True) if label == k]
        if mine:
            within.append(sum(mine, torch.zeros(())) / len(mine))
    found = weighted_classification(logits, method.assignment, method.weights[method.assignment])
    torch.testing.assert_close(found, torch.stack(within).mean())
    assert (begun(balance=False).weights == 1).all()


def test_clusters_that_stay_empty_take_no_part_in_the_weights() -> None:
    method = build()
    images = [(torch.ones(IMAGES, 2, 16, 16, dtype=torch.float64), torch.arange(IMAGES))]
    method.begin_epoch(0, iter(images))  # all alike: one cluster has them all
    assert method.assignment.unique().numel() == 1
    assert method.weights[method.assignment].mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("projector", [HeadConfig(layers=0), HEAD])
def test_loss_and_gradients_are_the_papers(projector: HeadConfig, balance: bool) -> None:
    method = begun(projector=projector, balance=balance)
    fast, _ = method.loss(views(), INDEX, INDEX, STEP)
    z = method.project(views()[0])
    hidden = z.clamp(min=0) if projector.layers else z
    slow = torch.zeros((), dtype=torch.float64)
    for b, i in enumerate(INDEX.tolist()):
        label = int(method.assignment[i])
        size = int((method.assignment == label).sum())
        scores = [torch.exp((hidden[b] * w).sum() + c) for w, c in zip(*method.classifier.parameters(), strict=True)]
        weight = IMAGES / (len(method.assignment.unique()) * size) if balance else 1.0
        slow = slow - weight * torch.log(scores[label] / sum(scores)) / len(INDEX)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    trained = [p for p in method.parameters() if p.requires_grad]
    for found, expected in zip(torch.autograd.grad(fast, trained), torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_degenerate_predictions() -> None:
    eye, ones, targets = 1000 * torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), torch.arange(3)
    assert weighted_classification(eye, targets, ones).item() == 0.0
    assert weighted_classification(0 * eye, targets, 2 * ones).item() == pytest.approx(2 * torch.tensor(3.0).log().item())
    assert weighted_classification(0 * eye[:1], targets[:1], ones[:1]).item() == pytest.approx(torch.tensor(3.0).log().item())


def test_the_classifier_starts_anew_with_each_clustering() -> None:
    method = build(clusters=20)
    parameters, starts = [method.classifier.weight, method.classifier.bias], []
    for epoch in range(2):
        with torch.no_grad():
            method.classifier.weight.add_(1.0)
            method.classifier.bias.add_(1.0)
        method.begin_epoch(epoch, training_set())
        assert (method.classifier.bias == 0).all()
        assert method.classifier.weight.std().item() == pytest.approx(0.01, rel=0.2)
        starts.append(method.classifier.weight.detach().clone())
    assert not torch.equal(*starts)
    assert method.classifier.weight is parameters[0] and method.classifier.bias is parameters[1]  # the optimizer's own


def test_clusters_are_kept_between_reassignments() -> None:
    method = begun(reassign_every=2)
    state = {k: v.clone() for k, v in method.state_dict().items()}
    method.begin_epoch(1, nothing())
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    method.begin_epoch(2, training_set())
    assert not torch.equal(method.classifier.weight, state["classifier.weight"])
    assert 0 < method.nmi <= 1
    with pytest.raises(AssertionError, match="looked at again"):
        begun().begin_epoch(1, nothing())


def test_agreement_with_the_clusters_before_is_logged() -> None:
    method = begun()
    kept = method.assignment.clone()
    method.begin_epoch(1, training_set())  # the same network, other starts
    loss, log = method.loss(views(), INDEX, INDEX, STEP)
    assert loss.ndim == 0
    assert set(log) == HEALTH | {"accuracy", "nmi_previous", "cluster_evenness"}
    assert not any(v.requires_grad for v in log.values())
    assert log["nmi_previous"].item() == pytest.approx(mutual_information(kept, method.assignment).item())


def test_clusters_depend_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(5)
    first = begun()
    torch.manual_seed(6)
    second = begun()
    assert torch.equal(first.assignment, second.assignment)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    other = build(Setting(num_images=IMAGES, channels=2, seed=4))
    other.begin_epoch(0, training_set())
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_it_reads_two_channels_of_gradients_and_defaults_are_the_papers() -> None:
    config = DeepClusterConfig()
    assert (config.clusters, config.pca, config.kmeans_iterations, config.balance) == (10000, 256, 20, True)
    encoder = EncoderConfig(name="resnet18")
    method = DeepCluster(config, encoder, Setting(num_images=10000, channels=2))
    assert method.classifier.weight.shape == (10000, 512) and len(method.projector) == 0
    first = next(m for m in method.encoder.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == 2


@pytest.mark.parametrize(
    ("setting", "changed", "message"),
    [
        (None, {"clusters": 1}, "clusters must be at least 2, not 1"),
        (None, {"pca": -1}, "pca must be at least 0, not -1"),
        (None, {"kmeans_iterations": 0}, "kmeans_iterations must be at least 1"),
        (None, {"reassign_every": 0}, "reassign_every must be at least 1"),
        (Setting(channels=2), {}, "num_images is 0"),
        (None, {"clusters": 25}, "clusters is 25, but there are only 24 images"),
        (None, {"pca": 17}, "pca is 17, but 24 images with features of 16"),
        (Setting(num_images=6, channels=2), {"pca": 7}, "pca is 7, but 6 images"),
    ],
)
def test_what_cannot_be_trained_is_refused(setting: Setting | None, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(setting, **changed)


def test_missing_passes_are_named() -> None:
    with pytest.raises(ValueError, match="begin_epoch has not been called"):
        build().loss(views(), INDEX, INDEX, STEP)
    with pytest.raises(ValueError, match="saw 20 of 24 images"):
        build().begin_epoch(0, training_set(20))
