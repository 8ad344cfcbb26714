"""The loaders: one meaning, whatever the backend, the workers and the interruptions."""

import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from benchmark.data import central_views, kernels_numba, open_loader, read_split, render
from benchmark.data.beton import Beton, open_beton
from benchmark.data.by_torchvision import apply_row
from benchmark.data.loader import Recipe, Shares
from benchmark.data.loader_torch import TorchLoader
from benchmark.data.views import centre, parameters, patches, plain, program
from benchmark.errors import InputError
from methods.views import RECIPES, ViewConfig, composition, multi_crop

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
    order = np.concatenate(TorchLoader(_recipe(dataset), Shares(np.arange(60), BATCH), 0).batches(1))
    mean, std = np.array(dataset.mean, np.float32), np.array(dataset.std, np.float32)
    side = np.array([16])
    views = []
    for number, cfg in enumerate(RECIPES["byol"]):
        rendered = np.empty((len(order), 3, 16, 16), np.float32)
        for at, index in enumerate(order):
            table = parameters(3, 1, np.array([index]), number, cfg, 16, 16, 16)
            kernels_numba.apply(
                images[index].reshape(-1), np.zeros(1, np.int64), side, side, table, program(cfg, 16), mean, std,
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


def test_memory_is_used_again_only_when_nothing_of_a_batch_is_held(dataset, backend):
    with loader(dataset, backend, batch_size=4, workers=1) as opened:
        kept, slices, seen = [], [], set()
        for number, batch in enumerate(opened.epoch(0)):
            seen |= {view.data_ptr() for view in batch.views}
            if number % 3 == 0:
                kept.append((batch.views[0], batch.views[0].clone()))
            if number % 3 == 1:
                part = batch.views[1][2].flatten()[5:9]  # a small part of it is enough to hold it
                slices.append((part, part.clone()))
        for held, copy in (*kept, *slices):
            assert torch.equal(held, copy)
        count = sum(2 for _ in range(2) for _ in opened.epoch(1))
        assert count == 60 and len(seen) < 30  # of the first epoch's thirty views some lay where others had been


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


def test_epochs_may_be_interleaved(dataset, backend):
    with loader(dataset, backend) as opened:
        first, second = opened.epoch(0), opened.epoch(1)
        pairs = list(zip(first, second, strict=True))
    assert same([one for one, _ in pairs], taken(dataset, backend=backend, epoch=0))
    assert same([other for _, other in pairs], taken(dataset, backend=backend, epoch=1))


def test_an_epoch_of_a_closed_ffcv_loader_says_so(dataset):
    opened = loader(dataset, "ffcv", batch_size=2)
    batches = opened.epoch(0)
    next(batches)
    opened.close()
    with pytest.raises(RuntimeError, match="the loader was closed in the middle of this epoch"):
        list(batches)


def test_memory_that_came_back_is_given_up_at_the_end(dataset):
    opened = loader(dataset, "torch", workers=0)
    for _ in opened.epoch(0):
        pass
    kept = list(opened._buffers._returned.values())
    assert sum(len(arrays) for arrays in kept) in (2, 4)  # a batch or two of two views
    opened.close()
    assert not opened._buffers._returned


def test_a_cache_of_numba_that_cannot_be_used_costs_time_alone(tmp_path):
    """No folder to write to, no room, damaged files: one warning, the same images."""
    script = """
import resource, sys
if sys.argv[1] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
import numba.core.caching as caching
if sys.argv[1] == "folder":
    caching.CacheImpl._locator_classes = []
from benchmark.data import kernels_numba
kernels_numba.load()
print("ready")
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run(case):
        return subprocess.run([sys.executable, "-c", script, case], capture_output=True, text=True, env=environment)

    assert "numba's cache cannot be used" not in run("fine").stderr
    for file in tmp_path.rglob("*.nbi"):
        file.write_bytes(b"")
    for case in ("damaged", "room", "folder"):
        done = run(case)
        assert done.stdout == "ready\n", done.stderr
        assert done.stderr.count("numba's cache cannot be used") == 1
        for file in tmp_path.rglob("*.nb*"):  # else there would be nothing to write
            if case == "damaged":
                file.unlink()


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_ranks_share_each_batch_of_one_rank(dataset, jpeg_dataset, backend, world_size, storage):
    """Side by side they see what one rank alone would see, and go on from the middle of an epoch alike."""
    data = dataset if storage == "raw" else jpeg_dataset
    everything = {"indices": np.arange(data.counts["train"]), "backend": backend}
    alone = taken(data, start_batch=1, **everything)
    ranks = [taken(data, start_batch=1, rank=rank, world_size=world_size, **everything) for rank in range(world_size)]
    assert all(len(batch.index) == BATCH // world_size for rank in ranks for batch in rank)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        for number, view in enumerate(whole.views):
            assert torch.equal(torch.cat([part.views[number] for part in parts]), view)


def test_ranks_cover_each_sample_once(dataset, backend):
    seen = [
        batch.index
        for rank in range(4)
        for batch in taken(dataset, backend=backend, rank=rank, world_size=4, drop_last=False, views=(), batch_size=16)
    ]
    assert sorted(torch.cat(seen).tolist()) == list(range(60))


def test_senseless_ranks_are_refused(dataset):
    with pytest.raises(InputError, match="a batch of 8 cannot be shared by 3 ranks"):
        loader(dataset, world_size=3)
    with pytest.raises(ValueError, match="rank 2 is none of 2"):
        loader(dataset, rank=2, world_size=2)


EVERY_KIND = (
    *multi_crop(RECIPES["dino"], [(2, 24, (0.4, 1.0)), (2, 12, (0.05, 0.4))]),
    *composition("rotate", "noise"),
    ViewConfig(channels="lab"),
    ViewConfig(channels="sobel"),
    RECIPES["infomin"][0],
)
PATCHED = ViewConfig(
    size=24, patch_grid=3, patch_size=8, patch_stride=7, patch_slack=2, patch_inner=6, flip_prob=0.5, jitter_prob=0.8,
    brightness=0.5, hue=0.2, channels="lab", order=("crop", "flip"), patch_order=("jitter",),
)  # fmt: skip


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_every_kind_of_view_is_the_same_everywhere(dataset, jpeg_dataset, backend, storage):
    data = dataset if storage == "raw" else jpeg_dataset
    views = (*EVERY_KIND, PATCHED)
    arguments = {"indices": np.arange(16), "views": views}
    reference = taken(data, workers=0, **arguments)
    sizes = [tuple(view.shape[1:]) for view in reference[0].views]
    assert sizes == [
        *[(3, 24, 24)] * 2, *[(3, 12, 12)] * 2, *[(3, 16, 16)] * 2, (3, 16, 16), (2, 16, 16), (3, 16, 16), (9, 3, 8, 8),
    ]  # fmt: skip
    assert all(view.isfinite().all() for batch in reference for view in batch.views)
    for workers in (1, 3):
        assert same(taken(data, backend=backend, workers=workers, **arguments), reference)


@pytest.mark.parametrize("storage", ["raw", "jpeg"])
def test_views_are_those_of_the_definition(dataset, jpeg_dataset, storage):
    """From the file through the loader, against torchvision on the decoded image."""
    data = dataset if storage == "raw" else jpeg_dataset
    file = open_beton(data.train)
    for batch in taken(data, indices=np.arange(16), views=EVERY_KIND[:4]):
        for number, cfg in enumerate(EVERY_KIND[:4]):
            for index, found in zip(batch.index.tolist(), batch.views[number], strict=True):
                sides = int(file.heights[index]), int(file.widths[index])
                row = parameters(3, 1, np.array([index]), number, cfg, *sides, cfg.size)[0]
                expected = apply_row(file.decode(index), row, program(cfg, cfg.size), data.mean, data.std)
                unequal = ((found - expected).abs() * min(data.std) > 2e-5).float().mean()
                assert unequal < 5e-3  # solarize: a value within rounding of the threshold falls on its other side


def test_patches_are_cut_out_of_the_view(dataset):
    """Unpatched view, cut by hand: corners, inner squares and frames are where the law says."""
    plain_cfg = ViewConfig(size=24, jitter_prob=0.8, brightness=0.5, cutout_prob=1.0, randaugment_n=1)
    cut_cfg = replace(plain_cfg, patch_grid=3, patch_size=8, patch_stride=7, patch_slack=2, patch_inner=6)
    (whole,), (cut,) = (taken(dataset, indices=np.arange(8), views=(cfg,)) for cfg in (plain_cfg, cut_cfg))
    cuts = patches(3, 1, whole.index.numpy(), 0, cut_cfg)
    for sample in range(8):
        for patch in range(9):
            top, left = cuts.corners[sample, patch] + cuts.inner[sample, patch]
            expected = torch.zeros(3, 8, 8)
            expected[:, 1:7, 1:7] = whole.views[0][sample, :, top : top + 6, left : left + 6]
            torch.testing.assert_close(cut.views[0][sample, patch], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_photograph_is_decoded_once_whatever_the_number_of_views(jpeg_dataset, backend, monkeypatch, count):
    decoded = []
    decode = Beton.decode
    monkeypatch.setattr(Beton, "decode", lambda file, index, into: decoded.append(index) or decode(file, index, into))
    batches = taken(jpeg_dataset, backend=backend, indices=np.arange(24), views=RECIPES["simclr"][:1] * count)
    assert sorted(decoded) == sorted(torch.cat([batch.index for batch in batches]).tolist())


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("zeroed", ["all of it", "its middle"])
def test_a_damaged_photograph_is_named(jpeg_dataset, backend, tmp_path, monkeypatch, zeroed, with_simplejpeg):
    """Also where what is left can be decoded to something, which Pillow does without a word."""
    if not with_simplejpeg:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    copy = shutil.copytree(jpeg_dataset.train.parent, tmp_path / "copy") / jpeg_dataset.train.name
    file = open_beton(copy)
    begin, size = int(file.offsets[5]), int(file.sizes[5])
    skipped, length = (0, size) if zeroed == "all of it" else (size - size // 4, size // 8)
    with copy.open("r+b") as opened:
        opened.seek(begin + skipped)
        opened.write(bytes(length))
    with pytest.raises(InputError, match=rf"image 5 \({re.escape(file.name(5))}\) cannot be decoded"):
        taken(replace(jpeg_dataset, train=copy), backend=backend, indices=np.arange(16))


def test_without_numba_the_torch_kernel_makes_the_same_views(dataset, jpeg_dataset, monkeypatch):
    for data in (dataset, jpeg_dataset):
        arguments = {"indices": np.arange(8), "views": (*EVERY_KIND[:6], PATCHED)}
        render.cpu_kernel.cache_clear()
        (with_numba,) = taken(data, **arguments)
        monkeypatch.setitem(sys.modules, "benchmark.data.kernels_numba", None)
        render.cpu_kernel.cache_clear()
        (without,) = taken(data, **arguments)
        monkeypatch.undo()
        render.cpu_kernel.cache_clear()
        for first, other in zip(with_numba.views, without.views, strict=True):
            assert ((first - other).abs() > 1e-4).float().mean() < 5e-3


def test_workers_keep_to_the_cores_of_the_process(dataset):
    """In a process that may use one core there is one worker by default, and its threads stay on that core."""
    core = min(os.sched_getaffinity(0))
    script = f"""
import os, sys, pickle, threading
os.sched_setaffinity(0, {{{core}}})
from pathlib import Path
import numpy as np
from benchmark.data import open_loader
from methods.views import RECIPES
dataset = pickle.loads(Path(sys.argv[1]).read_bytes())
with open_loader(dataset, indices=np.arange(60), views=RECIPES["byol"], batch_size=8, seed=0, out_size=16,
                 mean=dataset.mean, std=dataset.std, backend="torch") as loader:
    batches = loader.epoch(0)
    next(batches)
    masks = {{frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}}
    print(loader.workers, [sorted(mask) for mask in masks])
    batches.close()
"""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(pickle.dumps(dataset))
        done = subprocess.run([sys.executable, "-c", script, file.name], capture_output=True, text=True)
    assert done.stdout.strip() == f"1 [[{core}]]", done.stderr


def test_no_shared_memory_is_used(dataset, backend):
    """Nothing to run out of in a container with the usual 64 MB of /dev/shm."""

    def shared():
        mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm" in line]
        return {str(file) for file in Path("/dev/shm").iterdir()} | set(mapped)

    before = shared()
    with loader(dataset, backend, workers=3) as opened:
        for _ in opened.epoch(0):
            assert shared() <= before


def test_a_batch_too_large_for_the_memory_is_told(dataset):
    script = """
import pickle, resource, sys
from pathlib import Path
import numpy as np
from benchmark.data import open_loader
from benchmark.errors import InputError
from methods.views import RECIPES, ViewConfig
dataset = pickle.loads(Path(sys.argv[1]).read_bytes())
with open_loader(dataset, indices=np.arange(60), views=(ViewConfig(size=4096),) * 8, batch_size=60, seed=0, workers=1,
                 out_size=16, mean=dataset.mean, std=dataset.std, backend="torch") as loader:
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    try:
        next(loader.epoch(0))
    except InputError as error:
        print(error)
"""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(pickle.dumps(dataset))
        done = subprocess.run([sys.executable, "-c", script, file.name], capture_output=True, text=True)
    assert done.stdout.strip() == "there is no memory for a batch of 60 images in 8 views (90.0 GiB); lower batch_size", (
        done.stderr
    )


def test_evaluation_shows_the_normalized_image(dataset):
    found = central_views(dataset, "test", np.arange(15), 16)
    images, _ = read_split(dataset, "test")
    expected = F.normalize(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, list(dataset.mean), list(dataset.std))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert torch.equal(central_views(dataset, "test", np.arange(15), 16, threads=3), found)


def test_evaluation_shows_the_middle_of_photographs(jpeg_dataset):
    found = central_views(jpeg_dataset, "test", np.arange(4), 28, "lab", threads=2)
    file = open_beton(jpeg_dataset.test)
    rows = centre(file.heights[:4], file.widths[:4], 224 / 256)
    for index in range(4):
        expected = apply_row(file.decode(index), rows[index], plain(28, "lab"), jpeg_dataset.mean, jpeg_dataset.std)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=2e-5)


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
    with pytest.raises(InputError, match="batch_size is 0; at least 1 is needed"):
        loader(dataset, backend, batch_size=0)
    with pytest.raises(InputError, match="workers is -1; at least 0"):
        loader(dataset, backend, workers=-1)
    with pytest.raises(ValueError, match="outside of the 60 images"):
        loader(dataset, backend, indices=np.array([0, 60]), batch_size=1)


def test_recipes_travel_to_other_processes(dataset):
    recipe = _recipe(dataset)
    assert len(recipe.file) == 60
    copy = pickle.loads(pickle.dumps(recipe))
    assert len(pickle.dumps(recipe)) < 10_000
    index = np.arange(4)
    assert all(torch.equal(a, b) for a, b in zip(copy.render(0, index), recipe.render(0, index), strict=True))


def test_importing_the_package_loads_neither_torch_nor_numba():
    script = "import sys, benchmark.data; print({'torch', 'numba', 'ffcv'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.slow
def test_real_images_are_the_same_in_both_backends(real_cifar10):
    changes = {"indices": np.arange(0, 50_000, 50), "batch_size": 100, "out_size": 32}
    assert same(taken(real_cifar10, backend="ffcv", **changes), taken(real_cifar10, backend="torch", **changes))
