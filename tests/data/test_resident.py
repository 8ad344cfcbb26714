"""The resident loader: the other loaders' batches on a device."""

import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.data import loader_resident, open_loader
from benchmark.data.loader import Recipe
from benchmark.data.loader_resident import ResidentLoader, has_room, render
from benchmark.errors import InputError
from methods.views import RECIPES, ViewConfig, multi_crop

BATCH = 8
PATCHES = ViewConfig(size=30, patch_grid=3, patch_size=8, patch_stride=9, patch_slack=2)
VIEWS = {
    "byol": RECIPES["byol"],
    "simclr": RECIPES["simclr"],
    "infomin": RECIPES["infomin"],
    "multi-crop": multi_crop(RECIPES["swav"], [(2, 16, (0.14, 1.0)), (3, 9, (0.05, 0.14))]),
    "patches": (
        PATCHES,
        replace(PATCHES, patch_inner=5, patch_order=("jitter", "grayscale"), jitter_prob=0.8, hue=0.2, grayscale_prob=0.5),
    ),
    "channels": (replace(RECIPES["cmc"][0], grayscale_prob=0.2), *RECIPES["deepcluster"]),
}


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


def loader(dataset, backend="resident", workers=2, **changes):
    arguments = {
        "indices": np.arange(60), "views": RECIPES["byol"], "batch_size": BATCH, "seed": 3, "workers": workers,
        "out_size": 16, "mean": dataset.mean, "std": dataset.std, "backend": backend,
    }  # fmt: skip
    return open_loader(dataset, **(arguments | changes))


def taken(dataset, epoch=1, start_batch=0, **changes):
    with loader(dataset, **changes) as opened:
        return list(opened.epoch(epoch, start_batch))


def same(first, other):
    assert len(first) == len(other)
    for a, b in zip(first, other, strict=True):
        assert torch.equal(a.index, b.index) and torch.equal(a.labels, b.labels) and len(a.views) == len(b.views)
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
    return True


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("name", VIEWS)
def test_batches_are_those_of_the_other_loaders(dataset, name, workers, device):
    """To 1e-5 in units of pixels, except the few that lie on a threshold of RandAugment or of solarization."""
    expected = taken(dataset, backend="torch", views=VIEWS[name])
    found = taken(dataset, views=VIEWS[name], workers=workers, device=device)
    assert len(found) == len(expected) == 60 // BATCH
    for batch, other in zip(found, expected, strict=True):
        assert batch.index.cpu().tolist() == other.index.tolist() and batch.labels.cpu().tolist() == other.labels.tolist()
        assert batch.index.dtype == batch.labels.dtype == torch.int64
        assert {tensor.device.type for tensor in (*batch.views, batch.index, batch.labels)} == {device}
    for views in zip(*([batch.views for batch in batches] for batches in (found, expected)), strict=True):
        for view, other in zip(*views, strict=True):
            assert view.shape == other.shape and view.dtype == torch.float32
    for number in range(len(VIEWS[name])):
        mine, other = (torch.cat([batch.views[number].cpu() for batch in batches]) for batches in (found, expected))
        difference = (mine - other).abs() * min(dataset.std)
        few = 1e-3 if name in ("byol", "infomin") else 0
        assert (difference > 1e-5).float().mean() <= few


def test_each_epoch_sees_each_sample_once_in_its_own_order(dataset, device):
    with loader(dataset, batch_size=6, device=device) as opened:
        orders = [torch.cat([batch.index for batch in opened.epoch(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(60))
    assert orders[0] == orders[2] != orders[1]


def test_only_the_training_images_are_held(dataset, device):
    few = np.array([59, 4, 33, 7, 12, 50, 21, 20])
    with loader(dataset, indices=few, device=device) as opened:
        (part,) = opened.epoch(1)
        assert opened._resident().shape == (8, 16, 16, 3)
    (other,) = taken(dataset, backend="torch", indices=few)
    assert part.index.tolist() == other.index.tolist() and part.labels.tolist() == other.labels.tolist()
    assert (part.views[0].cpu() - other.views[0]).abs().max() < 5e-5


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_epoch_goes_on_with_the_very_next_batch(dataset, start, device):
    assert same(taken(dataset, start_batch=start, device=device), taken(dataset, device=device)[start:])


def test_ranks_share_every_batch(dataset, device):
    whole = taken(dataset, batch_size=12, device=device)
    parts = [taken(dataset, batch_size=12, rank=rank, world_size=3, device=device) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.index for share in shares]), batch.index)
        together = torch.cat([share.views[0] for share in shares])
        assert (together - batch.views[0]).abs().max() < 5e-5


def test_last_batch(dataset, device):
    batches = taken(dataset, drop_last=False, device=device)
    assert [len(batch.index) for batch in batches] == [8] * 7 + [4]
    assert same(batches[:7], taken(dataset, device=device))
    (single,) = taken(dataset, drop_last=False, batch_size=59, start_batch=1, device=device)
    assert single.labels.shape == (1,) and single.views[0].shape == (1, 3, 16, 16)


def test_batches_belong_to_the_caller(dataset, device):
    with loader(dataset, batch_size=4, views=RECIPES["supervised"], device=device) as opened:
        kept = list(opened.epoch(0))
        copies = [pickle.loads(pickle.dumps(batch)) for batch in opened.epoch(0)]
        assert same(kept, copies)
        tensors = [tensor for batch in kept for tensor in (*batch.views, batch.index, batch.labels)]
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        for batch in opened.epoch(0):
            batch.views[0].zero_(), batch.labels.fill_(-1), batch.index.zero_()
        assert same(list(opened.epoch(0)), copies)


def test_leaving_early_leaves_nothing_alive(dataset, device):
    before = threading.active_count()
    with loader(dataset, batch_size=2, device=device) as opened:
        for _ in range(3):
            for _batch in opened.epoch(0):
                break
            assert threading.active_count() == before
        iterator = opened.epoch(0)
        next(iterator)
        assert threading.active_count() == before + 1
        iterator.close()
        assert threading.active_count() == before
        with pytest.raises(ZeroDivisionError):
            for _batch in opened.epoch(0):
                _ = 1 // 0
        assert threading.active_count() == before


def test_a_closed_loader_holds_no_images_and_can_be_used_again(dataset, device):
    opened = loader(dataset, device=device)
    first = list(opened.epoch(0))
    opened.close()
    assert opened._pixels is None
    assert same(first, list(opened.epoch(0)))


def test_a_fault_while_drawing_reaches_the_loop(dataset, monkeypatch, device):
    def broken(*_):
        raise RuntimeError("no such number")

    for workers in (0, 2):
        with loader(dataset, workers=workers, device=device) as opened, monkeypatch.context() as patched:
            patched.setattr(Recipe, "plan", broken)
            with pytest.raises(RuntimeError, match="no such number"):
                next(opened.epoch(0))


def test_training_random_numbers_and_settings_are_left_alone(dataset, device):
    torch.manual_seed(0)
    expected, threads, precision = torch.rand(3), torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    taken(dataset, views=VIEWS["infomin"], device=device)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads and torch.get_float32_matmul_precision() == precision


def test_views_carry_no_history(dataset, device):
    (batch, *_) = taken(dataset, device=device)
    assert not any(view.requires_grad or view.is_inference() for view in batch.views)


def test_what_cannot_be_resident_says_so(dataset, jpeg_dataset, monkeypatch):
    with pytest.raises(InputError, match=r"photographs of many sizes, which cannot be resident.*--storage raw"):
        loader(jpeg_dataset, indices=np.arange(20))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="is to use cuda, but there is no CUDA device"):
            loader(dataset, device="cuda")
        assert not has_room(dataset, "cuda")
    assert not has_room(dataset, "cpu")
    opened = loader(dataset, device="cpu")
    monkeypatch.setattr(loader_resident, "_free", lambda device: 60 * 16 * 16 * 3 - 1)
    for attempt in (lambda: next(opened.epoch(0)), lambda: loader(dataset, device="cpu")):
        with pytest.raises(InputError, match=r"take 0\.00 GiB on cpu, which has 0\.00 GiB free; use --loader ffcv or torch"):
            attempt()


def test_free_memory_is_known():
    assert 1 << 20 < loader_resident._free(torch.device("cpu")) < 1 << 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_is_taken_where_there_is_room(dataset, monkeypatch):
    assert has_room(dataset, "cuda")
    assert loader(dataset, device=None).device.type == "cuda"
    assert loader(dataset, backend="auto", device="cuda").backend == "resident"
    monkeypatch.setattr(loader_resident, "_free", lambda device: 2 * 60 * 16 * 16 * 3 - 1)
    assert not has_room(dataset, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_never_waits(dataset):
    for views in VIEWS.values():
        with loader(dataset, views=views, device="cuda") as opened:
            list(opened.epoch(0))
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                list(opened.epoch(0))
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_made_on_the_gpu_without_waiting(dataset, name):
    """On simulated tensors, which need no GPU; see test_kernels_torch."""
    recipe = Recipe(dataset.train, VIEWS[name], 0, 16, dataset.mean, dataset.std)
    planned = recipe.plan(0, np.arange(20))
    with FakeTensorMode():
        images = torch.zeros((20, 16, 16, 3), dtype=torch.uint8, device="cuda")
        views = render(images, planned, recipe.mean, recipe.std)
        assert [view.shape for view in views] == [(20, *view.shape) for view in planned]
        assert {view.device for view in views} == {torch.device("cuda", 0)}


def test_it_is_one_of_the_loaders(dataset):
    assert isinstance(loader(dataset), ResidentLoader) and loader(dataset).backend == "resident"
