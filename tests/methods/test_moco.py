"""MoCo v1 and v2 against slow transcriptions of their equations; what shuffling BN hides; every switch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import draws
from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.losses import info_nce
from methods.moco import MoCoV1, MoCoV1Config, MoCoV2, MoCoV2Config, dictionary_logits
from methods.norms import BatchNorm2d
from tests.methods.small import HEALTH_OF_PAIRS

HEAD = HeadConfig(hidden=10, out=6, norm="none")
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=3, total_steps=10, epoch=0)
N, IMAGES, SEED = 8, 20, 5
INDEX = torch.tensor([3, 17, 0, 9, 11, 4, 19, 6])


def views(n: int = N, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2)]


def build(kind: type[MoCoV1] = MoCoV2, encoder: EncoderConfig = ENCODER, **config: Any) -> MoCoV1:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"head": HEAD, "queue": 16} | config
    method = kind(kind.Config(**settings), encoder, Setting(num_images=IMAGES, batch_size=N, seed=SEED)).double().train()
    if method.target is not None:  # away from the query network, or both would be the same
        with torch.no_grad():
            for p in method.target.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method


def value(method: MoCoV1, batch: list[Tensor], step: Step = STEP) -> tuple[Tensor, dict[str, Tensor]]:
    return method.loss(batch, INDEX, INDEX, step)


def slow_unit(rows: Tensor) -> Tensor:
    return torch.stack([row / torch.sqrt((row * row).sum()) for row in rows])


def in_parts(network: nn.Module, images: Tensor, order: list[int], parts: int) -> Tensor:
    """The network part by part of the images in this order, as on as many GPUs; the outputs in the images' order."""
    alone = copy.deepcopy(network)
    for module in alone.modules():
        if isinstance(module, BatchNorm2d):
            module.splits = 1
    size = len(order) // parts
    outputs: dict[int, Tensor] = {}
    for part in range(parts):
        mine = order[part * size : (part + 1) * size]
        outputs |= dict(zip(mine, alone(images[mine]), strict=True))
    return torch.stack([outputs[i] for i in range(len(order))])


def slow_direction(q: Tensor, k: Tensor, negatives: list[list[Tensor]], tau: float) -> Tensor:
    """Equation 1, query by query; negatives[i] are those of query i."""
    total = q.new_zeros(())
    for i in range(len(q)):
        positive = torch.exp((q[i] * k[i]).sum() / tau)
        everything = positive
        for negative in negatives[i]:
            everything = everything + torch.exp((q[i] * negative).sum() / tau)
        total = total - torch.log(positive / everything)
    return total / len(q)


def slow_loss(method: MoCoV1, batch: list[Tensor], orders: list[list[int]], parts: int = 1) -> Tensor:
    config = method.config
    straight = list(range(len(batch[0])))
    total = batch[0].new_zeros(())
    for number, order in enumerate(orders):
        x_q, x_k = (batch[0], batch[1]) if number == 0 else (batch[1], batch[0])
        online = nn.Sequential(method.encoder, method.head)
        q = slow_unit(in_parts_with_gradient(online, x_q, straight, parts))
        if config.mechanism == "moco":
            assert method.target is not None and method.queue is not None
            k = slow_unit(in_parts(method.target, x_k, order, parts)).detach()
            negatives = [list(method.queue.keys) for _ in q]
        elif config.mechanism == "end_to_end":
            k = slow_unit(in_parts_with_gradient(online, x_k, order, parts))
            negatives = [[k[j] for j in range(len(k)) if j != i] for i in range(len(q))]
        else:
            assert method.bank is not None
            k = method.bank.rows[INDEX]
            drawn = torch.randint(IMAGES, (config.queue,), generator=draws.generator(SEED, "moco", STEP.step)).tolist()
            negatives = [[method.bank.rows[j] for j in drawn if j != int(INDEX[i])] for i in range(len(q))]
        total = total + slow_direction(q, k, negatives, config.temperature)
    return total


def in_parts_with_gradient(network: nn.Sequential, images: Tensor, order: list[int], parts: int) -> Tensor:
    """As in_parts, on the network's own parameters."""
    splits = [(m, m.splits) for m in network.modules() if isinstance(m, BatchNorm2d)]
    for module, _ in splits:
        module.splits = 1
    size = len(order) // parts
    outputs: dict[int, Tensor] = {}
    for part in range(parts):
        mine = order[part * size : (part + 1) * size]
        outputs |= dict(zip(mine, network(images[mine]), strict=True))
    for module, was in splits:
        module.splits = was
    return torch.stack([outputs[i] for i in range(len(order))])


def drawn_orders(count: int) -> list[list[int]]:
    generator = draws.generator(SEED, "moco", STEP.step)
    return [torch.randperm(N, generator=generator).tolist() for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "config", "splits"),
    [
        (MoCoV1, {"head": replace(HEAD, layers=1)}, 1),
        (MoCoV1, {"head": replace(HEAD, layers=1)}, 4),
        (MoCoV2, {}, 1),
        (MoCoV2, {"shuffle": False}, 4),
        (MoCoV2, {"symmetric": True}, 2),
        (MoCoV1, {"mechanism": "end_to_end"}, 1),
        (MoCoV1, {"mechanism": "end_to_end"}, 2),
        (MoCoV1, {"mechanism": "memory_bank"}, 1),
    ],
)
def test_loss_and_gradients_are_the_papers(kind: type[MoCoV1], config: dict[str, Any], splits: int) -> None:
    method = build(kind, replace(ENCODER, bn_splits=splits), **config)
    count = 2 if config.get("symmetric") else 1
    shuffled = splits > 1 and config.get("shuffle", True)
    orders = drawn_orders(count) if shuffled else [list(range(N))] * count
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    expected = slow_loss(method, views(), orders, splits)
    slow = torch.autograd.grad(expected, list(trained.values()))
    loss, _ = value(method, views())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    fast = torch.autograd.grad(loss, list(trained.values()))
    for name, a, b in zip(trained, fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_the_logits_give_info_nce_and_leave_half_precision() -> None:
    torch.manual_seed(0)
    q, k, queue = torch.randn(5, 4, dtype=torch.float64), F.normalize(torch.randn(5, 4).double()), torch.randn(9, 4).double()
    logits = dictionary_logits(q, k, F.normalize(queue), None, 0.2)
    nothing = torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(F.cross_entropy(logits, nothing), info_nce(q, k, F.normalize(queue), 0.2), rtol=1e-12, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = dictionary_logits(q.bfloat16(), k.float(), F.normalize(queue).float(), None, 0.2)
    assert half.dtype == torch.float32
    exact = dictionary_logits(q.bfloat16().double(), k, F.normalize(queue), None, 0.2)
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-5)


# Shuffling BN. ---------------------------------------------------------------------------------------------------------


class Statistics(nn.Module):
    """The worst encoder: batch norm of an image, of which it sees the first pixel only, and that is 0 in every image.

    Its output says nothing of the image, and all of the statistics of the part of the batch that the image was in.
    """

    def __init__(self, channels: int, splits: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels, splits)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(images)[:, :, 0, 0]


def cheating(splits: int, batch: int, **config: Any) -> MoCoV1:
    torch.manual_seed(0)
    encoder = EncoderConfig(name="convnet", stem="stride2", width=0.1, bn_splits=splits)
    settings: dict[str, Any] = {"head": HeadConfig(layers=0), "queue": 2 * batch, "temperature": 0.1} | config
    method = MoCoV1(MoCoV1Config(**settings), encoder, Setting(batch_size=batch, channels=16)).train()
    method.encoder = Statistics(16, splits)
    method.target = nn.Sequential(Statistics(16, splits), nn.Sequential())
    assert method.queue is not None
    method.queue.keys = F.normalize(torch.randn(2 * batch, 16), dim=1)
    return method


def coloured(batch: int, seed: int) -> list[Tensor]:
    """Two noisy views of images of one colour each; the first pixel is 0."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randn(batch, 16, 1, 1, generator=generator)
    both = [colours + 0.3 * torch.randn(batch, 16, 2, 2, generator=generator) for _ in range(2)]
    for view in both:
        view[:, :, 0, 0] = 0.0
    return both


def pretext_accuracy(method: MoCoV1, batch: int, steps: int = 8) -> float:
    """Over the last steps, when the queue holds keys of other batches only."""
    found = []
    for k in range(steps):
        step = Step(step=k, total_steps=steps, epoch=0)
        _, log = method.loss(coloured(batch, seed=k), torch.arange(batch), torch.arange(batch), step)
        method.after_step(step)
        found.append(log["pretext_top1"].item())
    return sum(found[3:]) / len(found[3:])


@pytest.mark.parametrize(("splits", "batch", "hidden"), [(4, 64, 0.5), (16, 256, 0.12)])
def test_statistics_give_the_positive_away_unless_the_keys_are_shuffled(splits: int, batch: int, hidden: float) -> None:
    """Against a queue of the keys of two earlier batches, which has 2 x splits different keys.

    What shuffling leaves, a key's part has one image in `splits` in common with its query's, grows with fewer parts.
    """
    assert pretext_accuracy(cheating(splits, batch, shuffle=False), batch) > 0.95
    assert pretext_accuracy(cheating(splits, batch, shuffle=True), batch) < hidden
    # One part is no way out: the statistics tell this batch from those of the queue.
    assert pretext_accuracy(cheating(1, batch), batch) > 0.95


@pytest.mark.parametrize("shuffle", [True, False])
def test_within_a_batch_statistics_tell_a_query_its_key_only_where_it_was_not_shuffled(shuffle: bool) -> None:
    """How often the positive is more similar than a key of an image of another part; chance is a half."""
    splits, batch = 4, 256
    method = cheating(splits, batch, shuffle=shuffle)
    part = torch.arange(batch) // (batch // splits)
    other = part[:, None] != part[None, :]
    wins = []
    for k in range(20):
        x_q, x_k = coloured(batch, seed=k)
        q = F.normalize(method.project(x_q), dim=1)
        cosines = q @ method.dictionary(x_k, torch.arange(batch), draws.generator(0, "moco", k))[0].T
        positive = cosines.diagonal()[:, None]
        wins.append(((positive > cosines).float() + 0.5 * (positive == cosines).float())[other].mean().item())
    found = sum(wins) / len(wins)
    assert 0.46 < found < 0.54 if shuffle else found > 0.99


def test_shuffling_draws_another_order_each_step_and_gives_the_keys_back_in_place() -> None:
    """Without batch norms in parts the order changes nothing, so that nothing is shuffled."""
    method = build(encoder=replace(ENCODER, bn_splits=4))
    orders = [torch.randperm(N, generator=draws.generator(SEED, "moco", k)).tolist() for k in range(3)]
    assert orders[0] != orders[1] != orders[2] and method.shuffles
    assert method.target is not None
    for k, order in enumerate(orders):
        keys = method.dictionary(views()[1], INDEX, draws.generator(SEED, "moco", k))[0]
        torch.testing.assert_close(
            keys, slow_unit(in_parts(method.target, views()[1], order, 4)).detach(), rtol=1e-9, atol=1e-9
        )
    assert not build(shuffle=False, encoder=replace(ENCODER, bn_splits=4)).shuffles
    assert not build().shuffles and not build(encoder=replace(ENCODER, norm="group", bn_splits=4)).shuffles


# The dictionary. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_keys_enter_the_queue_after_the_step_and_leave_it_in_their_order(symmetric: bool) -> None:
    method = build(symmetric=symmetric, target_ema=1.0)
    assert method.queue is not None and method.target is not None
    expected = list(method.queue.keys.clone())
    oldest = 0
    for k in range(4):
        before = method.queue.keys.clone()
        batch = views(seed=k)
        value(method, batch, Step(k, 10, 0))
        assert torch.equal(method.queue.keys, before)
        method.after_step(Step(k, 10, 0))
        for view in (batch[1], batch[0])[: 2 if symmetric else 1]:
            for key in slow_unit(method.target(view).detach()):
                expected[oldest % 16] = key
                oldest += 1
        torch.testing.assert_close(method.queue.keys, torch.stack(expected), rtol=1e-9, atol=1e-9)
    method.after_step(Step(4, 10, 0))  # nothing left to queue
    assert int(method.queue.cursor) == oldest % 16


@pytest.mark.parametrize("m", [0.0, 0.9, 1.0])
def test_the_key_network_moves_at_one_pace(m: float) -> None:
    method = build(target_ema=m)
    assert method.target is not None
    slow = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.head.parameters()]
    for k in range(3):
        with torch.no_grad():
            for p in online:
                p.add_(0.1 * torch.randn_like(p))
        slow = [m * s + (1 - m) * p for s, p in zip(slow, online, strict=True)]
        method.after_step(Step(k, 3, 0))
        for found, expected in zip(method.target.parameters(), slow, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            assert not found.requires_grad


def test_the_key_network_starts_as_the_query_network() -> None:
    method = MoCoV2(MoCoV2Config(head=HEAD, queue=16), ENCODER, Setting())
    assert method.target is not None
    online = [*method.encoder.parameters(), *method.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))
    affine = build(encoder=replace(ENCODER, norm="affine"))
    affine.prepare(views())
    assert affine.target is not None
    online = [*affine.encoder.parameters(), *affine.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(affine.target.parameters(), online, strict=True))


def test_the_memory_bank_moves_the_rows_of_the_batch_and_no_gradient_passes() -> None:
    method = build(mechanism="memory_bank", bank_momentum=0.3)
    assert method.bank is not None and method.target is None and method.queue is None
    before = method.bank.rows.clone()
    loss, _ = value(method, views())
    features = slow_unit(copy.deepcopy(method).project(views()[0]).detach())
    assert torch.equal(method.bank.rows, before) and not method.bank.rows.requires_grad and loss.requires_grad
    method.after_step(STEP)
    for i in range(IMAGES):
        expected = before[i]
        if i in INDEX.tolist():
            moved = 0.3 * before[i] + 0.7 * features[INDEX.tolist().index(i)]
            expected = moved / torch.sqrt((moved * moved).sum())
        torch.testing.assert_close(method.bank.rows[i], expected, rtol=1e-9, atol=1e-9)


def test_an_image_is_never_its_own_negative_in_the_memory_bank() -> None:
    """20 images and 16 draws with replacement: in some step some image of the batch is drawn."""
    method, met = build(mechanism="memory_bank"), 0
    for k in range(5):
        _, negatives, own = method.dictionary(views()[1], INDEX, draws.generator(SEED, "moco", k))
        drawn = torch.randint(IMAGES, (16,), generator=draws.generator(SEED, "moco", k))
        assert own is not None and method.bank is not None
        assert torch.equal(negatives, method.bank.rows[drawn])
        met += int(own.sum())
        for i, image in enumerate(INDEX.tolist()):
            assert own[i].tolist() == [j == image for j in drawn.tolist()]
    assert met > 0


def test_end_to_end_has_no_key_network_and_trains_the_keys() -> None:
    method = build(mechanism="end_to_end")
    assert method.target is None and method.queue is None and method.bank is None
    assert not any(name.startswith(("target", "queue", "bank")) for name in method.state_dict())
    batch = views()
    for view in batch:
        view.requires_grad_(True)
    value(method, batch)[0].backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in batch)
    moving = build()
    loss, _ = value(moving, batch)
    through_q, through_k = torch.autograd.grad(loss, batch, allow_unused=True)
    assert through_q is not None and through_k is None


# Degenerate features. --------------------------------------------------------------------------------------------------


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :16]


def bare(queue: Tensor, tau: float = 0.05, **config: Any) -> MoCoV1:
    """The first 16 pixels are the features."""
    method = build(head=HeadConfig(layers=0), queue=len(queue), temperature=tau, **config)
    method.encoder = Pixels()
    if method.target is not None and method.queue is not None:
        method.target = nn.Sequential(Pixels(), nn.Sequential())
        method.queue.keys = queue.double()
    return method


def one_hot(which: list[int]) -> Tensor:
    images = torch.zeros(len(which), 3, 16, 16, dtype=torch.float64)
    for i, channel in enumerate(which):
        images[i].view(-1)[channel] = 3.0
    return images


def test_perfect_features_cost_nearly_nothing_step_after_step() -> None:
    """Were the keys queued before the logits, every positive would be its own negative: log 2."""
    method = bare(F.one_hot(torch.arange(8, 16), 16).float())
    for k in range(4):
        images = one_hot([(8 * k + i) % 16 for i in range(8)])
        loss, log = value(method, [images, images], Step(k, 4, 0))
        assert loss.item() < 1e-6 < math.log(2.0)
        assert log["pretext_top1"].item() == 1.0
        assert log["mutual_information"].item() == pytest.approx(math.log(9.0), abs=1e-5)
        assert method.queue is not None
        method.queue.enqueue(method._fresh.pop()[1])


@pytest.mark.parametrize("mechanism", ["moco", "end_to_end"])
def test_identical_features_know_nothing(mechanism: str) -> None:
    same = one_hot([2] * N)
    method = bare(F.one_hot(torch.tensor([2] * 8), 16).float(), mechanism=mechanism)
    loss, log = value(method, [same, same])
    candidates = 9 if mechanism == "moco" else N
    assert loss.item() == pytest.approx(math.log(candidates))
    assert log["pretext_top1"].item() == 0.0
    assert log["mutual_information"].item() == pytest.approx(0.0, abs=1e-9)
    assert log["std"].item() == pytest.approx(0.0, abs=1e-9) and log["pair_cosine"].item() == pytest.approx(1.0)


def test_orthogonal_views_are_told_from_nothing() -> None:
    method = bare(F.one_hot(torch.arange(8, 16), 16).float())
    loss, log = value(method, [one_hot(list(range(8))), one_hot([(i + 1) % 8 for i in range(8)])])
    assert loss.item() == pytest.approx(math.log(9.0)) and log["pretext_top1"].item() == 0.0


def test_opposite_views_are_worse_than_chance_and_zero_features_are_finite() -> None:
    method = bare(F.one_hot(torch.arange(8, 16), 16).float(), tau=0.5)
    images = one_hot(list(range(8)))
    loss, log = value(method, [images, -images])
    assert loss.item() == pytest.approx(math.log(math.exp(-2.0) + 8.0) + 2.0)
    assert log["mutual_information"].item() < 0.0
    nothing = torch.zeros_like(images).requires_grad_(True)
    loss, _ = value(method, [nothing, images])
    loss.backward()
    assert loss.item() == pytest.approx(math.log(9.0))
    assert nothing.grad is not None and nothing.grad.isfinite().all()


def test_one_sample_is_enough_for_a_queue() -> None:
    method = MoCoV2(MoCoV2Config(head=HEAD, queue=4), replace(ENCODER, norm="none"), Setting(batch_size=1)).double()
    loss, log = method.loss(views(1), INDEX[:1], INDEX[:1], STEP)
    assert loss.isfinite() and log["pair_cosine"].isnan()


def test_the_memory_bank_counts_the_candidates_that_are_left() -> None:
    method = build(mechanism="memory_bank")
    own = method.dictionary(views()[1], INDEX, draws.generator(SEED, "moco", STEP.step))[2]
    loss, log = value(method, views())
    assert own is not None
    candidates = sum(math.log(17 - int(row.sum())) for row in own) / N
    assert log["mutual_information"].item() == pytest.approx(candidates - loss.item())


@pytest.mark.parametrize("symmetric", [False, True])
def test_both_directions_keys_age_the_queue(symmetric: bool) -> None:
    method = build(symmetric=symmetric)
    assert method.queue is not None
    _, log = method.loss(views(), INDEX, INDEX, replace(STEP, step=1000, total_steps=2000))
    assert log["queue_age"] == math.ceil(len(method.queue.keys) / (2 * N if symmetric else N))


def test_log_of_both_directions_is_their_mean() -> None:
    both, one = build(symmetric=True), build()
    there, back = value(one, views())[1], value(one, views()[::-1])[1]
    log = value(both, views())[1]
    assert set(log) == HEALTH_OF_PAIRS | {"pretext_top1", "mutual_information", "queue_age"}
    assert not any(found.requires_grad for found in log.values())
    del log["queue_age"]  # of both directions' keys
    for name, found in log.items():
        torch.testing.assert_close(found, (there[name] + back[name]) / 2)


# Configs. --------------------------------------------------------------------------------------------------------------


def test_defaults_are_the_papers() -> None:
    v1, v2 = MoCoV1Config(), MoCoV2Config()
    for config in (v1, v2):
        assert (config.mechanism, config.queue, config.target_ema) == ("moco", 65536, 0.999)
        assert config.shuffle and not config.symmetric and config.head.norm == "none"
    assert (v1.head.layers, v1.head.out, v1.temperature) == (1, 128, 0.07)
    assert (v2.head.layers, v2.head.hidden, v2.head.out, v2.temperature) == (2, 2048, 128, 0.2)
    assert replace(v1.head, layers=2) == v2.head
    head = MoCoV2(replace(v2, queue=4), ENCODER, Setting()).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.Identity, nn.ReLU, nn.Linear]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mechanism": "bank"}, "moco, memory_bank or end_to_end, not 'bank'"),
        ({"mechanism": "memory_bank", "symmetric": True}, "memory_bank has none"),
        ({"queue": 0}, "queue must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"target_ema": 1.5}, r"target_ema must be in \[0, 1\], not 1.5"),
        ({"bank_momentum": -0.1}, r"bank_momentum must be in \[0, 1\], not -0.1"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoCoV1Config(**config)


@pytest.mark.parametrize(
    ("config", "encoder", "setting", "message"),
    [
        ({"queue": 8}, ENCODER, Setting(batch_size=16), "a queue of 8 cannot hold the 16 keys of one step"),
        ({"queue": 8, "symmetric": True}, ENCODER, Setting(batch_size=8), "cannot hold the 16 keys"),
        ({"mechanism": "end_to_end"}, ENCODER, Setting(batch_size=1), "a batch of 1 has none"),
        ({"head": HeadConfig(out=6)}, ENCODER, Setting(batch_size=1), "a batch of one image has no batch statistics"),
        ({"mechanism": "memory_bank", "queue": 30}, ENCODER, Setting(num_images=20), "30 negatives cannot be drawn .* of 20"),
        ({"mechanism": "memory_bank", "queue": 8}, ENCODER, Setting(), "of 0 images"),
        ({"queue": 64}, replace(ENCODER, bn_splits=4), Setting(batch_size=6), "batch of 6 has no 4 equal parts"),
        ({"queue": 64}, replace(ENCODER, bn_splits=8), Setting(batch_size=8), "at least two images"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    config: dict[str, Any], encoder: EncoderConfig, setting: Setting, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MoCoV1(MoCoV1Config(**({"head": HEAD} | config)), encoder, setting)
