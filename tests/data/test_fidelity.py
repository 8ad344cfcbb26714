"""The fidelity report: what it measures, and that all of it is written."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ks_2samp

from benchmark.data.fidelity import compare, crops, photos
from benchmark.data.fidelity.__main__ import main
from benchmark.data.fidelity.kernels import available, define
from benchmark.data.fidelity.page import number
from benchmark.errors import InputError

ONLY = ("reduce 256 to 96", "hue", "blur, 32 px", "noise", "RandAugment shear x", "channels", "SimCLR, 32 px", "CPC v2 patches")


def case(name):
    return next(case for case in compare.cases() if case.name == name)


@pytest.fixture(scope="module")
def drawn():
    return photos.load(None, 4).photos


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity") / "new"
    options = [option for name in ONLY for option in ("--only", name)]
    assert main(["--out", str(folder), "--count", "4", "--draws", "400", *options]) == 0
    return folder


def test_kernels_are_torchvisions(out):
    """Differences in grey levels; a crop of a larger image would show torchvision's rounding of positions."""
    report = json.loads((out / "fidelity.json").read_text())
    assert report["kernels"][:2] == ["numba", "torch"] and "4 drawn images" in report["images"]
    found = {(row["operation"], row["kernel"]): row for row in report["rows"] if row["kernel"] in report["kernels"]}
    operations = [name for name in ONLY if name != "channels"] + ["Lab", "Sobel gradients"]
    assert set(found) == {(name, kernel) for name in operations for kernel in report["kernels"]}
    for (operation, _), row in found.items():
        assert row["mean"] <= row["max"] and row["visible"] == 0
        assert row["max"] < (1e-3 if operation not in ("RandAugment shear x", "CPC v2 patches") else 2e-2)


def test_crops_of_the_report_follow_torchvisions_law(out):
    laws = json.loads((out / "fidelity.json").read_text())["crops"]
    assert len(laws) == len(crops.IMAGES) * len(crops.SCALES) * 2
    assert min(law["pvalue"] for law in laws) > 1e-4
    for law in laws:
        assert law["draws"] == 400 and sorted(law["ours"]) == law["ours"]
        np.testing.assert_allclose(law["ours"], law["torchvision"], atol=0.12)


def test_another_law_is_noticed():
    found = {(law.height, law.scale): law for law in crops.laws(1000) if law.quantity == "area"}
    assert ks_2samp(found[224, (0.2, 1.0)].ours, found[224, (0.08, 1.0)].theirs).pvalue < 1e-6
    assert ks_2samp(found[224, (0.2, 1.0)].ours, found[375, (0.2, 1.0)].theirs).pvalue < 1e-3, "the image's own shape counts"


def test_the_page_stands_alone(out):
    html = (out / "index.html").read_text()
    assert not re.search(r"(src|href)=.(?!data:)", html) and html.count("<img") == 2
    pictures = [base64.b64decode(data) for data in re.findall(r"src='data:image/png;base64,([^']+)' alt='[^']{20}", html)]
    assert pictures == [(out / "crops.png").read_bytes(), (out / "samples.png").read_bytes()]
    for text in ("SimCLR, 32 px", "Kolmogorov-Smirnov", "500 × 375"):
        assert text in html


def test_samples_are_pictures_of_something(out):
    page = np.asarray(Image.open(io.BytesIO((out / "samples.png").read_bytes())).convert("RGB"))
    assert page.shape[0] > 3000 and page.shape[1] > 1200
    ink = (page < 250).any(axis=2)
    assert ink[:, :200].any() and ink[:, -12:].sum() == 0, "labels on the left, nothing cut off on the right"
    assert 0.3 < ink.mean() < 0.9


def test_tables_fit_a_narrow_terminal_and_json_goes_where_it_is_sent(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "records" / "fidelity.json"
    options = ["--count", "1", "--draws", "50", "--only", "crop and turn", "--kernels", "torch", "--json", str(file)]
    assert main(["--out", str(tmp_path / "out"), *options]) == 0
    text = capsys.readouterr().out
    assert "…" not in text and "enlarge 32 to 96" in text and "log aspect" in text
    assert all(len(line) <= 80 for line in text.splitlines()[:-1])
    assert json.loads(file.read_text())["rows"][0]["operation"] == "crop, bilinear"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["crops.png", "index.html", "samples.png"]


def test_a_wrong_kernel_shows(drawn):
    def flipped(images, table, made, mean, std):
        return right(images, table, made, mean, std).flip(-1)

    kernels, _ = available(["torch"])
    right = kernels["torch"]
    (found,) = compare.compare(case("hue"), drawn, {"wrong": flipped})
    assert found.max > 50 and found.mean > 5 and found.visible > 0.5


def test_an_exact_crop_shows_torchvisions_rounding(drawn):
    """torchvision rounds the positions that it samples at to float32; numba's do not lose that much."""
    kernels, _ = available(["numba", "torch"])
    numba, torch = compare.compare(case("crop, bilinear, to float64"), drawn, kernels)
    assert numba.max < 1e-3 and torch.max < 2e-2


def test_every_randaugment_case_has_its_operation(drawn):
    for one in compare.cases():
        if one.number is not None:
            rows = compare.planned(one, photos.squares(drawn, one.stored)).table
            assert len(rows) == len(drawn) and (rows[:, compare.column.RANDAUGMENT] == one.number).all()


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in compare.cases()]
    assert len(set(names)) == len(names) >= 50


def test_every_case_can_be_defined(drawn):
    for one in compare.cases():
        images = photos.squares(drawn[:1], one.stored) if one.stored else drawn[:1]
        view = compare.planned(one, images)
        assert define(images, view, compare.MEAN, np.ones(3, np.float32)).shape == (1, *view.shape)


def test_ffcvs_crop_is_another(drawn):
    """Where FFCV is installed its INTER_AREA is far from bilinear; where it is not, the report says so."""
    rows, words = compare.compare_ffcv([case("crop, bilinear"), case("hue")], drawn)
    if rows:
        assert [row.operation for row in rows] == ["crop, bilinear"] and rows[0].mean > 0.2 and words.startswith("FFCV")
    else:
        assert "cannot be imported" in words
    assert compare.compare_ffcv([case("hue")], drawn) == ([], "")


def test_images_of_a_folder_and_of_a_data_set(folder, dataset):
    from_folder = photos.load(folder, 7)
    assert len(from_folder.photos) == 7 and {image.shape for image in from_folder.photos} == {(16, 16, 3)}
    for where in (dataset.train, dataset.train.parent):
        loaded = photos.load(where, 1000)
        assert len(loaded.photos) == dataset.counts["train"] and "train.beton" in loaded.words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kernels", "nunba"], "--kernels names 'nunba'; there are numba and torch; did you mean 'numba'?"),
        (["--only", "hew"], "--only names 'hew', which is neither an operation nor a group; did you mean 'hue'?"),
        (["--images", "nowhere"], "--images nowhere is neither a folder nor a .beton file"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, options, message):
    assert main(["--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no image files"):
        photos.load(tmp_path, 3)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (1.234e-5, "1.2e-5"), (0.0099, "9.9e-3"), (0.0321, "0.032"), (98.86, "98.9"), (1.0, "1.0")]
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown
