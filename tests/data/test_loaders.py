"""The loaders: one meaning, whatever the backend, the workers and the interruptions."""

import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from benchmark.data import kernels_numba, open_loader, read_split
from benchmark.data.loader import Recipe
from benchmark.data.loader_torch import TorchLoader
from benchmark.data.views import blur_taps, parameters
from benchmark.errors import InputError
from methods.views import RECIPES

BATCH = 8
SETTINGS = [("torch", 0), ("torch", 1), ("torch", 2), ("torch", 4), ("ffcv", 0), ("ffcv", 1), ("ffcv", 2), ("ffcv", 4)]


def has_ffcv():
    try:
        import benchmark.data.loader_ffcv  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(params=["torch", "ffcv"])
def backend(request):
    if request.param == "ffcv" and not has_ffcv():
        pytest.skip("FFCV cannot be imported")
    return request.param


def loader(dataset, backend="torch", workers=2, **changes):
    if backend == "ffcv" and not has_ffcv():
        pytest.skip("FFCV cannot be imported")
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


@pytest.fixture(scope="module")
def expected(dataset):
    """Epoch 1, made sample by sample straight from the definition."""
    images, labels = read_split(dataset, "train")
    order = TorchLoader(_recipe(dataset), np.arange(60), BATCH, 0, True).order(1)
    mean, std = np.array(dataset.mean, np.float32), np.array(dataset.std, np.float32)
    views = []
    for number, cfg in enumerate(RECIPES["byol"]):
        rendered = np.empty((len(order), 3, 16, 16), np.float32)
        for at, index in enumerate(order):
            table = parameters(3, 1, np.array([index]), number, cfg, 16)
            kernels_numba.apply(
                images[index].reshape(-1), np.zeros(1, np.int64), 16, table, blur_taps(cfg, 16), mean, std,
                rendered[at : at + 1],
            )  # fmt: skip
        views.append(rendered)
    return order, labels[order], views


def _recipe(dataset, views=RECIPES["byol"]):
    return Recipe(dataset.train, views, 3, 16, dataset.mean, dataset.std)


@pytest.mark.parametrize(("backend", "workers"), SETTINGS)
def test_every_setting_gives_the_same_bits(dataset, expected, backend, workers):
    order, labels, views = expected
    batches = taken(dataset, backend=backend, workers=workers)
    assert len(batches) == 60 // BATCH
    assert torch.cat([batch.index for batch in batches]).tolist() == order.tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == labels.tolist()
    for number, view in enumerate(views):
        assert np.array_equal(torch.cat([batch.views[number] for batch in batches]).numpy(), view)


def test_form_of_a_batch(dataset, backend):
    batch = taken(dataset, backend=backend, out_size=12)[0]
    assert [(view.shape, view.dtype) for view in batch.views] == [((BATCH, 3, 12, 12), torch.float32)] * 2
    assert batch.index.dtype == batch.labels.dtype == torch.int64
    assert all(view.isfinite().all() for view in batch.views) and not torch.equal(*batch.views)


@pytest.mark.parametrize("views", [(), RECIPES["supervised"][:1], RECIPES["byol"] * 2])
def test_any_number_of_views(dataset, backend, views):
    batch = taken(dataset, backend=backend, views=views)[0]
    assert len(batch.views) == len(views)
    assert len({view.numpy().tobytes() for view in batch.views}) == len(views)


def test_each_epoch_sees_each_sample_once_in_its_own_order(dataset, backend):
    with loader(dataset, backend, batch_size=6) as opened:
        orders = [torch.cat([batch.index for batch in opened.epoch(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(60))
    assert orders[0] == orders[2] != orders[1]


def test_a_subset_keeps_its_ids_and_its_images(dataset, backend):
    """The same sample looks the same, whatever else is in the training set."""
    few = np.array([59, 4, 33, 7, 12, 50, 21, 20])
    (part,) = taken(dataset, backend=backend, indices=few)
    assert sorted(part.index.tolist()) == sorted(few.tolist())
    whole = {}
    for batch in taken(dataset, backend=backend):
        whole |= dict(zip(batch.index.tolist(), batch.views[0], strict=True))
    shown = [i for i, index in enumerate(part.index.tolist()) if index in whole]
    assert len(shown) > 4
    assert all(torch.equal(part.views[0][i], whole[int(part.index[i])]) for i in shown)


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_epoch_goes_on_with_the_very_next_batch(dataset, backend, start):
    assert same(taken(dataset, backend=backend, start_batch=start), taken(dataset, backend=backend)[start:])


def test_last_batch(dataset, backend):
    assert len(taken(dataset, backend=backend)[-1].index) == BATCH
    batches = taken(dataset, backend=backend, drop_last=False)
    assert [len(batch.index) for batch in batches] == [8] * 7 + [4]
    assert same(batches[:7], taken(dataset, backend=backend))
    (single,) = taken(dataset, backend=backend, drop_last=False, batch_size=59, start_batch=1)
    assert single.labels.shape == (1,) and single.views[0].shape == (1, 3, 16, 16)


def test_batches_belong_to_the_caller(dataset, backend):
    """Kept ones are not overwritten, and writing to them harms nobody."""
    with loader(dataset, backend, batch_size=4) as opened:
        kept = list(opened.epoch(0))
        copies = [pickle.loads(pickle.dumps(batch)) for batch in opened.epoch(0)]
        assert same(kept, copies)
        pointers = [view.data_ptr() for batch in kept for view in batch.views]
        assert len(set(pointers)) == len(pointers)
        for batch in opened.epoch(0):
            batch.views[0].zero_(), batch.labels.fill_(-1), batch.index.zero_()
        assert same(list(opened.epoch(0)), copies)


def test_leaving_early_leaves_nothing_alive(dataset, backend):
    before = threading.active_count()
    with loader(dataset, backend, batch_size=2) as opened:
        for _ in range(3):
            for _batch in opened.epoch(0):
                break
            assert threading.active_count() == before
        iterator = opened.epoch(0)
        next(iterator)
        assert threading.active_count() > before
        iterator.close()
        assert threading.active_count() == before
        iterator = opened.epoch(0)
        next(iterator)
    del iterator
    assert threading.active_count() == before and not multiprocessing.active_children()


def test_an_error_in_the_loop_ends_the_epoch(dataset, backend):
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), loader(dataset, backend) as opened:
        for batch in opened.epoch(0):
            batch.labels[0] = 1 // 0
    assert threading.active_count() == before


def test_training_random_numbers_and_threads_are_left_alone(dataset, backend):
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(3), np.random.rand()
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    np.random.seed(0)
    taken(dataset, backend=backend)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]
    assert torch.get_num_threads() == threads


def test_a_fault_while_loading_reaches_the_loop(dataset, backend, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such pixel")

    with loader(dataset, backend) as opened:
        monkeypatch.setattr(Recipe, "render", broken)
        with pytest.raises(RuntimeError, match="no such pixel"):
            next(opened.epoch(0))


def test_a_second_epoch_ends_the_first_of_ffcv(dataset):
    with loader(dataset, "ffcv") as opened:
        first, second = opened.epoch(0), opened.epoch(1)
        next(first)
        assert same([next(second)], taken(dataset, backend="ffcv", epoch=1)[:1])
        assert same(list(second), taken(dataset, backend="ffcv", epoch=1)[1:])


def test_auto_takes_ffcv_where_it_is(dataset, monkeypatch):
    assert loader(dataset, "auto").backend == ("ffcv" if has_ffcv() else "torch")
    monkeypatch.setitem(sys.modules, "benchmark.data.loader_ffcv", None)
    assert loader(dataset, "auto").backend == "torch"
    with pytest.raises(InputError, match=r"data.backend is 'ffcv', but FFCV cannot be imported"):
        open_loader(
            dataset, indices=np.arange(60), views=(), batch_size=8, seed=0, workers=0, out_size=16,
            mean=(0, 0, 0), std=(1, 1, 1), backend="ffcv",
        )  # fmt: skip


def test_senseless_requests_are_refused(dataset, backend):
    with pytest.raises(InputError, match="a batch of 61 is more than the 60 training images"):
        loader(dataset, backend, batch_size=61)
    with pytest.raises(ValueError, match="outside of the 60 images"):
        loader(dataset, backend, indices=np.array([0, 60]))


def test_recipes_travel_to_other_processes(dataset):
    recipe = _recipe(dataset)
    assert len(recipe.file) == 60
    copy = pickle.loads(pickle.dumps(recipe))
    assert len(pickle.dumps(recipe)) < 5_000
    index = np.arange(4)
    assert same([copy.batch(0, index)], [recipe.batch(0, index)])


def test_importing_the_package_loads_neither_torch_nor_numba():
    script = "import sys, benchmark.data; print({'torch', 'numba', 'ffcv'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.slow
def test_real_images_are_the_same_in_both_backends(real_cifar10):
    changes = {"indices": np.arange(0, 50_000, 50), "batch_size": 100, "out_size": 32}
    assert same(taken(real_cifar10, backend="ffcv", **changes), taken(real_cifar10, backend="torch", **changes))
