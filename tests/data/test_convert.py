"""The storage "jpeg": what is taken as it is, what is encoded again, and that every image was looked at."""

import io
import sys

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from benchmark.data import jpegs, read_split
from benchmark.data.beton import open_beton
from benchmark.data.datasets import find, prepare, prepared, settings_of
from benchmark.data.manifest import read_manifest
from benchmark.data.sources import Settings
from benchmark.errors import InputError
from tests.data.conftest import CLASSES, jpeg, photograph, write_folder, write_photographs


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def converted(folder, tmp_path, **wishes):
    return prepare(find("toy", folder, tmp_path), tmp_path / "cache", **wishes)


def reencoded(dataset):
    return read_manifest(dataset.train.parent).reencoded


@pytest.fixture
def one(tmp_path):
    """A folder with one class; `put` adds an image file to the training images and converts it all."""
    for split in ("train", "test"):
        (tmp_path / "images" / split / "ant").mkdir(parents=True)
    (tmp_path / "images" / "test" / "ant" / "0.jpg").write_bytes(jpeg(photograph(0, 50, 40)))

    def put(name, data, **wishes):
        (tmp_path / "images" / "train" / "ant" / name).write_bytes(data)
        dataset = converted(tmp_path / "images", tmp_path, **({"storage": "jpeg"} | wishes))
        file = open_beton(dataset.train)
        assert len(file) == 1 and file.name(0) == f"ant/{name}"
        return file.stored(0).tobytes(), file.decode(0), reencoded(dataset)

    return put


def test_jpeg_files_are_stored_as_they_are(photographs, jpeg_dataset):
    assert (jpeg_dataset.storage, jpeg_dataset.size, jpeg_dataset.classes) == ("jpeg", 0, CLASSES)
    assert jpeg_dataset.counts == {"train": 30, "test": 12} and reencoded(jpeg_dataset) == {"train": 0, "test": 0}
    for split, path in (("train", jpeg_dataset.train), ("test", jpeg_dataset.test)):
        file = open_beton(path)
        assert file.names() == sorted(str(each.relative_to(photographs / split)) for each in photographs.glob(f"{split}/*/*"))
        assert [CLASSES[label] for label in file.labels] == [name.split("/")[0] for name in file.names()]
        for i in range(len(file)):
            source = (photographs / split / file.name(i)).read_bytes()
            assert file.stored(i).tobytes() == source
            assert np.array_equal(file.decode(i), by_pillow(source))


def test_every_image_counts_the_same_in_mean_and_std(jpeg_dataset):
    file = open_beton(jpeg_dataset.train)
    pixels = [file.decode(i).reshape(-1, 3) / 255 for i in range(len(file))]
    mean = np.mean([each.mean(0) for each in pixels], 0)
    square = np.mean([(each**2).mean(0) for each in pixels], 0)
    np.testing.assert_allclose(jpeg_dataset.mean, mean, atol=6e-5)
    np.testing.assert_allclose(jpeg_dataset.std, np.sqrt(square - mean**2), atol=6e-5)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2, "optimize": True}, {"quality": 20}], ids=str
)
@pytest.mark.parametrize("grey", [False, True])
def test_kinds_of_jpeg_that_stay(one, options, grey):
    source = jpeg(photograph(1, 60, 47, grey=grey), **options)
    data, pixels, counted = one("a.jpg", source)
    assert data == source and counted == {"train": 0, "test": 0}
    assert np.array_equal(pixels, by_pillow(source)) and pixels.shape == (60, 47, 3)


def test_exif_orientation_is_ignored(one):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    source = jpeg(photograph(1, 60, 47), exif=exif)
    data, pixels, _ = one("a.jpg", source)
    assert data == source and pixels.shape == (60, 47, 3)


def test_a_cameras_file_of_several_pictures_is_its_first(one):
    buffer = io.BytesIO()
    first, second = (Image.fromarray(photograph(seed, 60, 47)) for seed in (1, 2))
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=90)
    data, pixels, _ = one("a.jpg", buffer.getvalue())
    assert data == buffer.getvalue() and np.abs(pixels.astype(int) - np.asarray(first)).mean() < 12


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_encoded(one, form):
    pixels, buffer = photograph(1, 60, 47), io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    data, decoded, counted = one(f"a.{form.lower()}", buffer.getvalue())
    assert counted == {"train": 1, "test": 0} and Image.open(io.BytesIO(data)).format == "JPEG"
    assert np.array_equal(decoded, by_pillow(data)) and np.abs(decoded.astype(int) - pixels).mean() < 4
    # Full colour resolution, and the quality asked for.
    image = Image.open(io.BytesIO(data))
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert image.quantization == Image.open(io.BytesIO(jpeg(pixels, quality=95))).quantization


def test_a_png_that_calls_itself_jpeg_is_encoded(one):
    buffer = io.BytesIO()
    Image.fromarray(photograph(1, 60, 47)).save(buffer, "PNG")  # ImageNet has one of these
    assert one("a.JPEG", buffer.getvalue())[2] == {"train": 1, "test": 0}


def test_a_palette_with_transparency_is_encoded(one):
    buffer = io.BytesIO()
    Image.fromarray(photograph(1, 60, 47)).convert("P").save(buffer, "PNG", transparency=0)
    assert one("a.png", buffer.getvalue())[1].shape == (60, 47, 3)


def test_cmyk_is_encoded_as_pillow_sees_it(one):
    buffer = io.BytesIO()
    Image.fromarray(photograph(1, 60, 47)).convert("CMYK").save(buffer, "JPEG", quality=95, subsampling=0)
    data, pixels, counted = one("a.jpg", buffer.getvalue())  # ImageNet has two dozen of these
    assert counted == {"train": 1, "test": 0} and Image.open(io.BytesIO(data)).mode == "RGB"
    assert np.abs(pixels.astype(int) - by_pillow(buffer.getvalue())).mean() < 4


@pytest.mark.parametrize(("limit", "shape"), [(30, (38, 30, 3)), (46, (59, 46, 3)), (47, (60, 47, 3)), (100, (60, 47, 3))])
def test_the_limit_is_of_the_shorter_side(one, limit, shape):
    source = jpeg(photograph(1, 60, 47))
    data, pixels, counted = one("a.jpg", source, limit=limit)
    assert pixels.shape == shape
    assert (data == source) == (limit >= 47) and counted["train"] == (limit < 47)
    if limit < 47:
        wanted = Image.open(io.BytesIO(source)).resize(shape[1::-1], Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(wanted)).mean() < 3


def test_the_quality_is_that_of_encoded_files(one):
    pixels, buffer = photograph(1, 60, 47), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    sizes = [len(one("a.png", buffer.getvalue(), quality=quality)[0]) for quality in (20, 75, 95)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2


def test_an_image_too_large_for_a_jpeg_is_named(one):
    buffer = io.BytesIO()
    Image.new("RGB", (70_000, 1)).save(buffer, "PNG")
    with pytest.raises(InputError, match=r"a.png is 70000 x 1 pixels, a JPEG has at most 65535 a side"):
        one("a.png", buffer.getvalue())


@pytest.mark.parametrize("keep", [0, 1, 300, -200, -10])
@pytest.mark.parametrize("storage", ["jpeg", "raw"])
def test_a_cut_jpeg_is_named(one, storage, keep):
    wishes = {"storage": storage} | ({"resolution": 8} if storage == "raw" else {})
    with pytest.raises(InputError, match=r"train/ant/a.jpg cannot be decoded \(.+\); replace the image or remove it"):
        one("a.jpg", jpeg(photograph(1, 60, 47))[:keep], **wishes)


def test_an_unreadable_file_is_named(tmp_path):
    folder = write_photographs(tmp_path / "images", train=1, test=1)
    (folder / "train" / "bee" / "000.jpg").unlink()
    (folder / "train" / "bee" / "000.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match=r"bee/000.jpg cannot be read \(No such file or directory\); make it readable"):
        converted(folder, tmp_path, storage="jpeg")


def test_names_and_checksums_are_kept_for_raw_squares_too(dataset, folder):
    file = open_beton(dataset.train)
    assert file.names() == sorted(str(path.relative_to(folder / "train")) for path in folder.glob("train/*/*"))
    assert not file.jpeg and len(file.checksums) == 60


def test_drawn_images_as_jpeg_files(tmp_path, monkeypatch):
    from benchmark.data import shapes

    monkeypatch.setattr(shapes, "COUNTS", {"train": 40, "test": 20})
    raw = prepare(find("shapes", None, tmp_path), tmp_path)
    encoded = prepare(find("shapes", None, tmp_path), tmp_path, storage="jpeg")
    assert raw.storage == "raw" and encoded.storage == "jpeg" and reencoded(encoded) == {"train": 40, "test": 20}
    file, images = open_beton(encoded.train), read_split(raw, "train")[0]
    assert np.array_equal(file.labels, read_split(raw, "train")[1]) and file.name(0) == ""
    assert np.mean([np.abs(file.decode(i).astype(int) - images[i]).mean() for i in range(40)]) < 3


@pytest.mark.parametrize(
    ("name", "wishes", "settings"),
    [
        ("cifar10", {}, Settings("raw", 32)),
        ("cifar100", {}, Settings("raw", 32)),
        ("shapes", {}, Settings("raw", 32)),
        ("tinyimagenet", {}, Settings("raw", 64)),
        ("stl10", {}, Settings("raw", 96)),
        ("stl10", {"resolution": 64}, Settings("raw", 64)),
        ("stl10", {"storage": "jpeg"}, Settings("jpeg", 0, 0, 95)),
        ("imagenet", {}, Settings("jpeg", 0, 0, 95)),
        ("imagenet100", {"limit": 500, "quality": 90}, Settings("jpeg", 0, 500, 90)),
        ("imagenet", {"resolution": 128}, Settings("raw", 128)),
        ("imagenet", {"storage": "raw"}, Settings("raw", 256)),
        ("toy", {}, Settings("jpeg", 0, 0, 95)),
        ("toy", {"resolution": 16}, Settings("raw", 16)),
    ],
)
def test_what_is_not_said_is_filled_in(name, wishes, settings):
    assert settings_of(name, **wishes) == settings


@pytest.mark.parametrize(
    ("name", "wishes", "said"),
    [
        ("toy", {"storage": "raw"}, "no usual size; set data.resolution"),
        ("toy", {"storage": "jpeg", "resolution": 32}, "side of raw squares; JPEG storage takes a limit"),
        ("cifar10", {"limit": 16}, "a limit of 16 is for JPEG storage"),
        ("toy", {"quality": 0}, "quality of 0 does not exist"),
        ("toy", {"quality": 101}, "quality of 101 does not exist"),
        ("toy", {"limit": -3}, "number of pixels above 0"),
    ],
)
def test_wishes_that_contradict_each_other(name, wishes, said):
    with pytest.raises(InputError, match=said):
        settings_of(name, **wishes)


def test_other_settings_are_other_conversions(photographs, tmp_path):
    source, cache = find("toy", photographs, tmp_path), tmp_path / "cache"
    wishes = [{}, {"limit": 50}, {"limit": 60}, {"quality": 80}, {"resolution": 24}, {"resolution": 16}]
    made = [prepare(source, cache, **each) for each in wishes]
    assert len({dataset.train.parent for dataset in made}) == len(wishes)
    assert [prepared(source, cache, **each) for each in wishes] == made
    assert prepared(source, cache, limit=70) is None
    # Nothing had to be encoded, so the quality changes nothing that is stored; the others do.
    assert made[0].content == made[3].content and len({dataset.content for dataset in made}) == len(wishes) - 1


def test_the_content_of_jpeg_files_is_their_bytes_and_labels(photographs, jpeg_dataset, tmp_path):
    assert converted(photographs, tmp_path, storage="jpeg").content == jpeg_dataset.content
    other = write_photographs(tmp_path / "other")
    (other / "train" / "bee" / "009.jpg").rename(other / "train" / "cow" / "0.jpg")
    assert converted(other, tmp_path, storage="jpeg").content != jpeg_dataset.content


def test_the_slower_way_to_the_same_pixels():
    files = [jpeg(photograph(i, 50 + i, 40, grey=i == 2), progressive=i == 1) for i in range(4)]
    for data in (np.frombuffer(file, np.uint8) for file in files):
        assert np.array_equal(jpegs.decode_jpeg(data), jpegs._decode_with_pillow(data))
    with pytest.raises(ValueError, match=r"(?i)truncated"):
        jpegs._decode_with_pillow(np.frombuffer(files[0][:500], np.uint8))


def stray(file):
    """A JPEG file with bytes before its end marker that belong to nothing: libjpeg warns."""
    return file[:-2] + b"\x11" * 9 + file[-2:]


def test_a_warning_of_libjpegs_is_no_error(tmp_path, monkeypatch):
    plain = jpeg(photograph(1, 50, 40))
    odd = stray(plain)
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(odd)
    assert np.array_equal(jpegs.decode_jpeg(np.frombuffer(odd, np.uint8)), by_pillow(plain))
    folder = write_photographs(tmp_path / "images", train=1, test=1)
    (folder / "test" / "ant" / "000.jpg").write_bytes(odd)
    with_it, without = [], []
    for result, name in ((with_it, "with"), (without, "without")):
        dataset = converted(folder, tmp_path / name, storage="jpeg")
        file = open_beton(dataset.test)
        result += [dataset.content, reencoded(dataset), file.stored(0).tobytes(), file.decode(0).tobytes()]
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert with_it == without and with_it[2] == odd and not any(with_it[1].values())


def test_what_is_lost_is_still_an_error():
    whole = jpeg(photograph(1, 50, 40))
    for data in (whole[:500], whole[:-400], bytes(len(whole)), whole[:700] + bytes(len(whole) - 700), b""):
        with pytest.raises(ValueError, match=r"."):
            jpegs.decode_jpeg(np.frombuffer(data, np.uint8))


def test_small_images_of_a_raw_data_set_may_be_jpeg_files_too(tmp_path):
    folder = write_folder(tmp_path / "images", suffix=".jpg", train=3, test=2)
    dataset = prepare(find("cifar10", folder, tmp_path), tmp_path / "cache", storage="jpeg")
    assert dataset.storage == "jpeg" and open_beton(dataset.train).decode(0).shape == (16, 16, 3)
