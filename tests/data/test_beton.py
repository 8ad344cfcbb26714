"""The file format: whole or absent, and the same bytes for FFCV."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from benchmark.data import beton
from benchmark.data.beton import BetonWriter, names_file, open_beton
from benchmark.errors import InputError
from tests.data.conftest import jpeg, photograph


def some(count=7, side=9, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8), generator.integers(0, 10, count)


def write(path, images, labels, chunk=3):
    with BetonWriter(path, len(labels), images.shape[1]) as writer:
        for at in range(0, len(labels), chunk):
            writer.write(images[at : at + chunk], labels[at : at + chunk])


def photographs(count=7, sides=(40, 90)):
    """JPEG files of varied sizes, every third grey, and their heights and widths."""
    heights, widths = np.random.default_rng(1).integers(*sides, (2, count))
    pixels = [photograph(i, h, w, grey=i % 3 == 1) for i, (h, w) in enumerate(zip(heights, widths, strict=True))]
    return [jpeg(each) for each in pixels], heights, widths


def write_jpegs(path, files, heights, widths, labels, chunk=3):
    with BetonWriter(path, len(labels)) as writer:
        for at in range(0, len(labels), chunk):
            part = slice(at, at + chunk)
            writer.write_jpegs(files[part], heights[part], widths[part], labels[part])


def by_pillow(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def test_round_trip(tmp_path):
    images, labels = some()
    write(tmp_path / "a.beton", images, labels)
    file = open_beton(tmp_path / "a.beton")
    assert len(file) == 7 and file.side == 9
    assert np.array_equal(file.images(), images) and np.array_equal(file.labels, labels)
    picked = np.array([6, 0, 0, 3])
    assert np.array_equal(file.images(picked), images[picked])
    assert file.images(np.empty(0, np.int64)).shape == (0, 9, 9, 3)


def test_jpeg_round_trip(tmp_path):
    files, heights, widths = photographs()
    labels = np.arange(7) % 3
    write_jpegs(tmp_path / "a.beton", files, heights, widths, labels)
    file = open_beton(tmp_path / "a.beton")
    assert file.jpeg and file.side == 0 and len(file) == 7 and np.array_equal(file.labels, labels)
    assert np.array_equal(file.heights, heights) and np.array_equal(file.widths, widths)
    assert file.sizes.tolist() == [len(each) for each in files]
    assert not file.storage.flags.writeable
    for i, each in enumerate(files):
        begin = file.offsets[i]
        assert file.storage[begin : begin + file.sizes[i]].tobytes() == file.stored(i).tobytes() == each
        decoded = file.decode(i)
        assert decoded.flags.c_contiguous and np.array_equal(decoded, by_pillow(each))
    with pytest.raises(ValueError, match="JPEG files of many sizes"):
        file.images()


def test_raw_images_decode_to_themselves(tmp_path):
    images, labels = some()
    write(tmp_path / "a.beton", images, labels)
    file = open_beton(tmp_path / "a.beton")
    assert not file.jpeg and set(file.heights) == set(file.widths) == {9} and set(file.sizes) == {243}
    decoded = file.decode(4)
    assert np.array_equal(decoded, images[4]) and decoded.flags.writeable


def test_another_process_maps_the_file_itself(tmp_path):
    files, heights, widths = photographs()
    write_jpegs(tmp_path / "a.beton", files, heights, widths, np.zeros(7, int))
    sent = pickle.dumps(open_beton(tmp_path / "a.beton"))
    assert len(sent) < 1000 and np.array_equal(pickle.loads(sent).decode(2), by_pillow(files[2]))


def test_a_jpeg_that_cannot_be_decoded_is_named(tmp_path):
    files, heights, widths = photographs()
    files[2] = files[2][:300]
    files[4] = b"no image at all"
    write_jpegs(tmp_path / "a.beton", files, heights, widths[::-1], np.zeros(7, int))
    file = open_beton(tmp_path / "a.beton")
    with pytest.raises(InputError, match=r"a.beton: image 2 cannot be decoded \(.*\); convert the data set again"):
        file.decode(2)
    names_file(tmp_path / "a.beton").write_text("".join(f"dog/{i}.jpg\n" for i in range(7)))
    file = open_beton(tmp_path / "a.beton")
    with pytest.raises(InputError, match=r"image 4 \(dog/4.jpg\) cannot be decoded"):
        file.decode(4)
    with pytest.raises(InputError, match=rf"image 0 .*\({widths[0]} x {heights[0]} pixels, not {widths[6]} x {heights[0]}\)"):
        file.decode(0)


def test_names_are_read_when_asked_for(tmp_path):
    path = tmp_path / "a.beton"
    write(path, *some())
    file = open_beton(path)
    names_file(path).write_bytes("".join(f"größe/{i}.jpg\n" for i in range(6)).encode() + b"bad\xff.jpg\n")
    assert [file.name(i) for i in (0, 5, -2)] == ["größe/0.jpg", "größe/5.jpg", "größe/5.jpg"]
    assert file.names()[:6] == [f"größe/{i}.jpg" for i in range(6)] and file.names()[6] == file.name(6) == "bad\udcff.jpg"
    with pytest.raises(IndexError):
        file.name(7)
    names_file(path).write_text("one\n")
    with pytest.raises(InputError, match="1 lines for 7 images"):
        open_beton(path).name(0)
    names_file(path).unlink()
    assert open_beton(path).name(0) == "" and open_beton(path).names() == [] and open_beton(path).checksums is None


def test_a_sample_larger_than_a_page_makes_pages_larger(tmp_path, monkeypatch):
    monkeypatch.setattr(beton, "_PAGE", 1 << 12)
    generator = np.random.default_rng(0)
    sizes = [100, 3000, 1500, 20_000, 4096, 1, 9000, 8192, 300]
    files = [generator.bytes(size) for size in sizes]
    ones = np.ones(len(sizes), int)
    write_jpegs(tmp_path / "a.beton", files, ones, ones, ones, chunk=2)
    file = open_beton(tmp_path / "a.beton")
    assert [file.stored(i).tobytes() for i in range(len(sizes))] == files
    page = int(file.storage[: beton._HEADER.itemsize].view(beton._HEADER)[0]["page"])
    assert page == 1 << 15
    assert (file.offsets // page == (file.offsets + file.sizes - 1) // page).all()


def test_many_samples(tmp_path):
    count = 300_000
    files, ones = [b"x"] * count, np.ones(count, int)
    write_jpegs(tmp_path / "a.beton", files, ones, ones, np.arange(count), chunk=count)
    file = open_beton(tmp_path / "a.beton")
    assert np.array_equal(np.diff(file.offsets), ones[1:]) and file.stored(count - 1).tobytes() == b"x"


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


@pytest.mark.parametrize("os_cache", [True, False])
def test_ffcvs_own_loader_reads_our_jpeg_file(tmp_path, ffcv, os_cache):
    """FFCV's central crop of all of a square of the wanted size is no more than decoding."""
    from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
    from ffcv.loader import Loader

    files, heights, widths = photographs(count=40)
    square = [jpeg(photograph(i, 64, 64), subsampling=i % 3) for i in range(20)]
    files += square
    heights, widths = (np.append(sides, [64] * 20) for sides in (heights, widths))
    labels = np.arange(60)
    write_jpegs(tmp_path / "a.beton", files, heights, widths, labels)
    loader = Loader(
        str(tmp_path / "a.beton"), batch_size=16, num_workers=1, os_cache=os_cache, drop_last=False,
        pipelines={"image": [CenterCropRGBImageDecoder((64, 64), 1)], "label": [IntDecoder()]},
    )  # fmt: skip
    read = [(pixels.copy(), numbers.copy()) for pixels, numbers in loader]
    assert np.array_equal(np.concatenate([numbers for _, numbers in read])[:, 0], labels)
    pixels = np.concatenate([pixels for pixels, _ in read])
    difference = np.abs(pixels[40:].astype(int) - np.stack([by_pillow(file) for file in square]))
    assert difference.mean() < 2 and difference.max() < 25  # FFCV asks libjpeg for its fast, coarser transform
    for image, file in zip(pixels[:40], files, strict=False):  # resized by area, which leaves the mean as it is
        whole = by_pillow(file)
        side = min(whole.shape[:2])
        top, left = ((length - side) // 2 for length in whole.shape[:2])
        np.testing.assert_allclose(image.mean((0, 1)), whole[top : top + side, left : left + side].mean((0, 1)), atol=4)


def test_ffcvs_random_crop_reads_our_jpeg_file(tmp_path, ffcv):
    """Whatever is cropped of an image of one colour, it is of that colour."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader

    heights, widths = np.random.default_rng(1).integers(40, 90, (2, 12))
    colours = np.random.default_rng(2).integers(0, 256, (12, 3), dtype=np.uint8)
    files = [jpeg(np.tile(each, (h, w, 1))) for each, h, w in zip(colours, heights, widths, strict=True)]
    write_jpegs(tmp_path / "a.beton", files, heights, widths, np.arange(12))
    pipelines = {"image": [RandomResizedCropRGBImageDecoder((32, 32))], "label": [IntDecoder()]}
    loader = Loader(str(tmp_path / "a.beton"), batch_size=12, num_workers=1, pipelines=pipelines)
    ((pixels, numbers),) = [(pixels.copy(), numbers.copy()) for pixels, numbers in loader]
    assert numbers[:, 0].tolist() == list(range(12))
    assert np.abs(pixels.astype(int) - colours[:, None, None]).max() <= 6


@pytest.mark.parametrize("workers", [1, 2])
def test_we_read_ffcvs_jpeg_file(tmp_path, ffcv, workers):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    heights, widths = np.random.default_rng(1).integers(40, 90, (2, 50))
    pixels = [photograph(i, h, w) for i, (h, w) in enumerate(zip(heights, widths, strict=True))]
    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=95), "label": IntField()}
    writer = DatasetWriter(str(tmp_path / "a.beton"), fields, page_size=1 << 21, num_workers=workers)
    writer.from_indexed_dataset(list(zip(pixels, range(50), strict=True)), chunksize=7)
    file = open_beton(tmp_path / "a.beton")
    assert file.jpeg and np.array_equal(file.heights, heights) and np.array_equal(file.widths, widths)
    assert file.labels.tolist() == list(range(50))
    for i, image in enumerate(pixels):
        decoded = file.decode(i)
        assert np.array_equal(decoded, by_pillow(file.stored(i).tobytes()))
        assert np.abs(decoded.astype(int) - image).mean() < 12  # halved colour resolution; another image is 70 away


def test_a_mixture_of_raw_and_jpeg_is_refused(tmp_path, ffcv):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    images, labels = some(count=40, side=50)
    fields = {"image": RGBImageField(write_mode="proportion"), "label": IntField()}
    writer = DatasetWriter(str(tmp_path / "a.beton"), fields, page_size=1 << 21, num_workers=1)
    writer.from_indexed_dataset(list(zip(images, labels.tolist(), strict=True)))
    with pytest.raises(InputError, match="neither JPEG files nor raw squares"):
        open_beton(tmp_path / "a.beton")
