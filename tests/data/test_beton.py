"""The file format: whole or absent, and the same bytes for FFCV."""

import numpy as np
import pytest

from benchmark.data.beton import BetonWriter, open_beton
from benchmark.errors import InputError


def some(count=7, side=9, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8), generator.integers(0, 10, count)


def write(path, images, labels, chunk=3):
    with BetonWriter(path, len(labels), images.shape[1]) as writer:
        for at in range(0, len(labels), chunk):
            writer.write(images[at : at + chunk], labels[at : at + chunk])


def test_round_trip(tmp_path):
    images, labels = some()
    write(tmp_path / "a.beton", images, labels)
    file = open_beton(tmp_path / "a.beton")
    assert len(file) == 7 and file.side == 9
    assert np.array_equal(file.images(), images) and np.array_equal(file.labels, labels)
    picked = np.array([6, 0, 0, 3])
    assert np.array_equal(file.images(picked), images[picked])
    assert file.images(np.empty(0, np.int64)).shape == (0, 9, 9, 3)


def test_samples_do_not_straddle_pages(tmp_path):
    images, labels = some(count=100, side=200)  # 69 images fill an 8 MiB page
    write(tmp_path / "a.beton", images, labels, chunk=40)
    file = open_beton(tmp_path / "a.beton")
    assert (file.offsets // 2**23 == (file.offsets + images[0].size - 1) // 2**23).all()
    assert np.array_equal(file.images(), images)


def test_an_interrupted_file_never_appears(tmp_path):
    images, labels = some()
    with pytest.raises(RuntimeError), BetonWriter(tmp_path / "a.beton", 7, 9) as writer:
        writer.write(images[:3], labels[:3])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_missing_or_surplus_samples_are_refused(tmp_path):
    images, labels = some()
    with pytest.raises(ValueError, match="7 samples, 3 were written"), BetonWriter(tmp_path / "a.beton", 7, 9) as writer:
        writer.write(images[:3], labels[:3])
    with pytest.raises(ValueError, match="do not fit"), BetonWriter(tmp_path / "a.beton", 5, 9) as writer:
        writer.write(images, labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 10, 2000, -1])
def test_a_cut_file_is_recognized(tmp_path, keep):
    path = tmp_path / "a.beton"
    write(path, *some())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"not a whole|cannot be read"):
        open_beton(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.beton").write_bytes(b"PK" + bytes(5000))
    with pytest.raises(InputError, match="remove it"):
        open_beton(tmp_path / "a.beton")
    with pytest.raises(InputError, match="cannot be read"):
        open_beton(tmp_path / "none.beton")


@pytest.fixture
def ffcv():
    pytest.importorskip("benchmark.data.loader_ffcv", reason="FFCV cannot be imported", exc_type=ImportError)
    import ffcv
    import torch
    from ffcv.pipeline.compiler import Compiler

    threads = torch.get_num_threads()
    Compiler.set_enabled(False)  # its Python form reads the same bytes without half a minute of compilation
    yield ffcv
    Compiler.set_enabled(True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("os_cache", [True, False])
def test_ffcvs_own_loader_reads_our_file(tmp_path, ffcv, os_cache):
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader

    images, labels = some(count=100, side=200)
    write(tmp_path / "a.beton", images, labels)
    loader = Loader(
        str(tmp_path / "a.beton"), batch_size=30, num_workers=1, os_cache=os_cache, drop_last=False,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )  # fmt: skip
    read = [(pixels.copy(), numbers.copy()) for pixels, numbers in loader]
    assert np.array_equal(np.concatenate([pixels for pixels, _ in read]), images)
    assert np.array_equal(np.concatenate([numbers for _, numbers in read])[:, 0], labels)


def test_we_read_ffcvs_file(tmp_path, ffcv):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    images, labels = some(count=50, side=100)
    writer = DatasetWriter(
        str(tmp_path / "a.beton"), {"image": RGBImageField(), "label": IntField()}, page_size=1 << 21, num_workers=1
    )
    writer.from_indexed_dataset(list(zip(images, labels.tolist(), strict=True)), chunksize=7)
    file = open_beton(tmp_path / "a.beton")
    assert np.array_equal(file.images(), images) and np.array_equal(file.labels, labels)
