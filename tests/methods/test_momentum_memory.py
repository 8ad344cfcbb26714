"""The moving target, the queue of keys and the bank of images."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.memory import KeyQueue, MemoryBank
from methods.momentum import copy_into, cosine_to_one, ema_update, frozen_copy


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_schedule_goes_from_base_to_one_by_a_cosine() -> None:
    total, base = 50, 0.99
    values = [cosine_to_one(base, k / total) for k in range(total + 1)]
    expected = [1 - (1 - base) * (math.cos(math.pi * k / total) + 1) / 2 for k in range(total + 1)]
    assert values == pytest.approx(expected, abs=1e-15)
    assert values[0] == pytest.approx(base) and values[-1] == pytest.approx(1.0)
    assert values[total // 2] == pytest.approx((1 + base) / 2)
    assert all(a < b for a, b in itertools.pairwise(values))


def test_ema_moves_parameters_and_leaves_buffers() -> None:
    first, second = small_net(), nn.Linear(2, 2)
    target = frozen_copy(first, second)
    before = copy.deepcopy(target)
    with torch.no_grad():
        for p in [*first.parameters(), *second.parameters()]:
            p.add_(torch.randn_like(p))
        first[1].running_mean.fill_(7.0)  # type: ignore[union-attr, operator]
    ema_update(target, first, second, momentum=0.9)
    online = [*first.parameters(), *second.parameters()]
    for new, old, fast in zip(target.parameters(), before.parameters(), online, strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * fast)
        assert not new.requires_grad
    for new, old in zip(target.buffers(), before.buffers(), strict=True):
        assert torch.equal(new, old)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_ema_at_its_ends_is_exact(momentum: float) -> None:
    net = small_net()
    target = frozen_copy(net)
    old = copy.deepcopy(target)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    ema_update(target, net, momentum=momentum)
    wanted = net if momentum == 0.0 else old
    for a, b in zip(target.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ema_refuses_another_network() -> None:
    with pytest.raises(ValueError, match="parameters"):
        ema_update(frozen_copy(small_net()), nn.Linear(3, 3), momentum=0.5)


def test_copy_into_takes_parameters_and_buffers() -> None:
    net = small_net()
    target = frozen_copy(net)
    net(torch.randn(8, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    copy_into(target, net)
    for a, b in zip(target.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(not p.requires_grad for p in target.parameters())


def unit(n: int, d: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d), dim=1)


def test_queue_starts_with_unit_vectors_and_keeps_the_last_ones() -> None:
    queue = KeyQueue(10, 4)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(10))
    pushed = [unit(4, 4) for _ in range(4)]  # 16 keys through 10 places: wraps in the middle of a batch
    for keys in pushed:
        queue.enqueue(keys)
    held = {tuple(row.tolist()) for row in queue.keys}
    assert held == {tuple(row.tolist()) for row in torch.cat(pushed)[-10:]}
    assert int(queue.cursor) == 16 % 10


def test_queue_takes_a_batch_larger_than_itself() -> None:
    queue, keys = KeyQueue(3, 2), unit(8, 2)
    queue.enqueue(keys)
    assert {tuple(r.tolist()) for r in queue.keys} == {tuple(r.tolist()) for r in keys[-3:]}


def test_queue_survives_a_checkpoint_in_the_middle() -> None:
    batches = [unit(3, 4) for _ in range(5)]
    whole = KeyQueue(7, 4)
    resumed = KeyQueue(7, 4)
    resumed.load_state_dict(whole.state_dict())
    for keys in batches:
        whole.enqueue(keys)
    for keys in batches[:2]:
        resumed.enqueue(keys)
    again = KeyQueue(7, 4)
    again.load_state_dict(resumed.state_dict())
    for keys in batches[2:]:
        again.enqueue(keys)
    assert torch.equal(again.keys, whole.keys) and torch.equal(again.cursor, whole.cursor)


def test_queue_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        KeyQueue(0, 4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_bank_moves_the_rows_of_its_images_and_no_others(momentum: float) -> None:
    bank = MemoryBank(9, 4).double()
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(9, dtype=torch.float64), atol=1e-6, rtol=0)
    before = bank.rows.clone()
    index, features = torch.tensor([7, 0, 3]), torch.randn(3, 4, dtype=torch.float64)
    bank.update(index, features, momentum)
    for i in range(9):
        if i not in index:
            assert torch.equal(bank.rows[i], before[i])
            continue
        f = features[index.tolist().index(i)]
        mixed = [momentum * float(v) + (1 - momentum) * float(x) / float(f.norm()) for v, x in zip(before[i], f, strict=True)]
        length = math.sqrt(sum(v * v for v in mixed))
        assert bank.rows[i].tolist() == pytest.approx([v / length for v in mixed], abs=1e-12)


def test_bank_of_zeros_takes_the_first_features_as_they_are() -> None:
    bank, features = MemoryBank(3, 4), unit(2, 4)
    bank.rows.zero_()
    bank.update(torch.tensor([2, 1]), features, 0.8)
    torch.testing.assert_close(bank.rows[[2, 1]], features)
    bank.update(torch.tensor([0]), torch.zeros(1, 4), 0.8)
    assert torch.equal(bank.rows[0], torch.zeros(4))  # no direction at all: not NaN


def test_bank_takes_half_precision_keeps_its_own_and_is_saved() -> None:
    bank = MemoryBank(5, 4)
    bank.update(torch.tensor([1]), torch.ones(1, 4, dtype=torch.bfloat16, requires_grad=True), 0.0)
    assert bank.rows.dtype == torch.float32 and not bank.rows.requires_grad
    torch.testing.assert_close(bank.rows[1], torch.full((4,), 0.5))
    again = MemoryBank(5, 4)
    again.load_state_dict(bank.state_dict())
    assert torch.equal(again.rows, bank.rows)


def test_bank_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="num_images must be at least 1, not 0"):
        MemoryBank(0, 4)
