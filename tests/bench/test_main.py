"""The bench on a few small images: every contender really makes its views, and the command leaves a whole record."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.bench.contender import Unavailable, alone
from benchmark.bench.decoding import count_decodes
from benchmark.bench.images import Work, photographs, small
from benchmark.bench.ours import BUILD
from methods.views import RECIPES, multi_crop
from tests.data.conftest import write_folder

ROOT = Path(__file__).resolve().parents[2]
VIEW = RECIPES["simclr"][0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), side=32, train=20, test=2)


@pytest.fixture(scope="module")
def tiny(folder, tmp_path_factory):
    dataset, words = small(f"cifar10={folder}", tmp_path_factory.mktemp("cache"), print)
    assert "60 images of 32 x 32" in words
    return Work(dataset, (), (VIEW, VIEW), 32, batch=20, cores=1)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Nine photographs under twelve names."""
    given = write_folder(tmp_path_factory.mktemp("photographs"), side=40, train=3, test=0, suffix=".jpg")
    dataset, files, words = photographs(given / "train", 12, tmp_path_factory.mktemp("scratch"), print)
    assert words.startswith("9 photographs, 40 x 40 pixels") and len(set(files)) == 12
    views = multi_crop([VIEW], [(2, 24, (0.14, 1.0)), (6, 16, (0.05, 0.14))])
    return Work(dataset, files, views, 24, batch=4, cores=1)


def shapes(build, work):
    """The shapes of the views of the last of three batches, of every way; called in a process of its own."""
    found = {}
    for name, way in build(work).items():
        batches = list(way(3))
        last = batches[-1] if isinstance(batches[-1], list) else batches[-1].views
        assert len(batches) == 3 and all(view.isfinite().all() and view.std() > 0.1 for view in last)
        found[name] = [tuple(view.shape) for view in last]
    return found


@pytest.mark.parametrize("name", ["torch", "ffcv", "torchvision", "lightly", "kornia"])
def test_contenders_make_the_same_views_of_small_images(tiny, name):
    if name not in ("torch", "torchvision") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    for views in alone(shapes, builder(name), tiny).values():
        assert views == [(20, 3, 32, 32)] * 2


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_contenders_make_the_same_views_of_jpeg_files(jpegs, name):
    for views in alone(shapes, builder(name), jpegs).values():
        assert views == [(4, 3, 24, 24)] * 2 + [(4, 3, 16, 16)] * 6


def builder(name):
    from benchmark.bench import peers

    return BUILD[name] if name in BUILD else getattr(peers, name)


def test_lightly_is_not_asked_for_what_it_cannot_do(tiny):
    pytest.importorskip("lightly")
    with pytest.raises(Unavailable, match="two views of one law"):
        alone(shapes, builder("lightly"), replace(tiny, views=(VIEW,)))


def test_decodes_are_counted_where_they_happen(jpegs):
    assert alone(count_decodes, jpegs, "torch") == (12, 12)
    assert alone(count_decodes, replace(jpegs, views=jpegs.views[:1]), "torch") == (12, 12)


@pytest.mark.slow
def test_the_command_writes_a_record_and_prints_a_table(folder, tmp_path):
    path = tmp_path / "new" / "record.json"
    command = [sys.executable, "-m", "benchmark.bench", "--quick", "--only", "memory", "--data", f"cifar10={folder}"]
    command += ["--cache", str(tmp_path / "cache"), "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    torch = next(line for line in record["results"] if line["subject"] == "Retable, torch loader")
    assert torch["unit"] == "MiB" and torch["low"] <= torch["median"] <= torch["high"] and torch["ratio"] > 0
    assert record["settings"]["parts"] == ["memory"] and "60 images" in record["images"]["small"]
    assert "resident set over 4 epochs" in done.stdout and "A quick run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--data", "stl10=x"], "takes cifar10, not stl10"), (["--data", "no/such/folder"], "no/such/folder does not exist")],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, words):
    command = [sys.executable, "-m", "benchmark.bench", "--only", "memory", "--cache", str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_folder_without_photographs_is_named(tmp_path):
    from benchmark.errors import InputError

    with pytest.raises(InputError, match=r"--images .*: no \.jpg or \.jpeg files"):
        photographs(tmp_path, 4, tmp_path / "scratch", print)
