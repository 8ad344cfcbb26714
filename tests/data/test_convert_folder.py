"""A conversion's folder: complete or not there at all, whatever the disk or a signal does; usable wherever it is put."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import manifest
from benchmark.data.beton import open_beton
from benchmark.data.check import damage
from benchmark.data.datasets import convert_into, find, prepare, prepared, settings_of
from benchmark.data.manifest import read_manifest
from benchmark.errors import InputError
from tests.data.conftest import write_folder, write_photographs

ROOT = Path(__file__).resolve().parents[2]


def run(script, *before, **options):
    command = [*before, sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)


def test_the_manifest_says_what_it_is(photographs, jpeg_dataset):
    made = read_manifest(jpeg_dataset.train.parent)
    assert made.dataset == jpeg_dataset
    assert (made.source, made.limit, made.quality) == (str(photographs), 0, 95) and made.created.endswith("+00:00")
    names = {f"{split}.{suffix}" for split in ("train", "test") for suffix in ("beton", "names", "crc32")}
    assert set(made.files) == names == {path.name for path in jpeg_dataset.train.parent.iterdir()} - {"manifest.json"}
    for name, file in made.files.items():
        path = jpeg_dataset.train.parent / name
        told = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        assert (file.bytes, file.sha256) == (path.stat().st_size, told)
    entries = json.loads((jpeg_dataset.train.parent / "manifest.json").read_text())
    assert entries["format"] == manifest.FORMAT and entries["train"] == "train.beton" and entries["classes"][0] == "ant"


@pytest.fixture
def moved(jpeg_dataset, tmp_path):
    """The converted photographs, copied to another place."""
    return shutil.copytree(jpeg_dataset.train.parent, tmp_path / "elsewhere" / "photos")


def test_a_converted_folder_is_used_wherever_it_lies(moved, jpeg_dataset, tmp_path):
    source = find("photos", moved, tmp_path / "cache")
    assert source.kind == "converted"
    found = prepared(source, tmp_path / "cache")
    assert found == prepare(source, tmp_path / "cache")
    assert (found.content, found.kind, found.train) == (jpeg_dataset.content, "folder", moved / "train.beton")
    assert not (tmp_path / "cache").exists()
    assert prepared(source, tmp_path / "cache", storage="jpeg") == found


def test_a_converted_folder_keeps_its_name_and_settings(moved, tmp_path):
    with pytest.raises(InputError, match=r"elsewhere/photos holds photos converted, not imagenet; give the folder of imagenet"):
        find("imagenet", moved, tmp_path)
    with pytest.raises(InputError, match="is converted with resolution 0, not 32; convert its source again"):
        prepared(find("photos", moved, tmp_path), tmp_path, 32)
    with pytest.raises(InputError, match="is converted with storage jpeg, not raw"):
        prepare(find("photos", moved, tmp_path), tmp_path, storage="raw")
    source = find("photos", moved, tmp_path)
    shutil.rmtree(moved)
    with pytest.raises(InputError, match=r"has no manifest.json any more"):
        prepared(source, tmp_path)


def test_an_image_folder_with_a_manifest_of_its_own_is_still_one(tmp_path):
    folder = write_folder(tmp_path / "images", train=1, test=1)
    (folder / "manifest.json").write_text("{}")
    assert find("toy", folder, tmp_path).kind == "folder"


@pytest.mark.parametrize("name", ["train.beton", "test.beton", "train.names", "test.crc32"])
def test_a_cut_file_is_said_at_once(moved, tmp_path, name):
    size = (moved / name).stat().st_size
    os.truncate(moved / name, size - 7)
    with pytest.raises(
        InputError, match=rf"{name} has {size - 7:,} bytes, it was converted with {size:,}: it was cut or changed"
    ):
        find("photos", moved, tmp_path)
    (moved / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing \(No such file or directory\); remove"):
        find("photos", moved, tmp_path)


def test_a_cut_file_in_the_cache_is_said_at_once(photographs, tmp_path):
    source = find("toy", photographs, tmp_path)
    made = prepare(source, tmp_path / "cache")
    os.truncate(made.train, 5000)
    for look in (prepared, prepare):
        with pytest.raises(
            InputError, match=r"train.beton has 5,000 bytes, it was converted with .* convert the data set again"
        ):
            look(source, tmp_path / "cache")
    shutil.rmtree(made.train.parent)
    assert prepare(source, tmp_path / "cache") == made


def test_a_manifest_of_another_format(moved, tmp_path):
    entries = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps(entries | {"format": 99}))
    with pytest.raises(InputError, match=r"manifest.json is of format 99, this version reads 3"):
        find("photos", moved, tmp_path)
    (moved / "manifest.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        find("photos", moved, tmp_path)


def test_into_a_folder(photographs, jpeg_dataset, tmp_path):
    source, out = find("photos", photographs, tmp_path), tmp_path / "out" / "photos"
    told = []
    made = convert_into(source, out, tmp_path / "cache", settings_of("photos"), lambda *state: told.append(state))
    assert made.content == jpeg_dataset.content and made.train == out / "train.beton"
    assert {path.name for path in out.iterdir()} == {path.name for path in jpeg_dataset.train.parent.iterdir()}
    assert told[-1] == ("converting photos", 42, 42) and not (tmp_path / "cache").exists()
    assert prepared(find("photos", out, tmp_path), tmp_path) == made
    with pytest.raises(InputError, match=r"out/photos is not empty \(it holds manifest.json, test.beton, test.crc32\)"):
        convert_into(source, out, tmp_path / "cache", settings_of("photos"))
    with pytest.raises(InputError, match="is converted already; copy the folder instead"):
        convert_into(find("photos", out, tmp_path), tmp_path / "copy", tmp_path, settings_of("photos"))


def test_into_a_folder_that_another_process_fills(photographs, tmp_path):
    source = find("photos", photographs, tmp_path)
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is converting into"):
        convert_into(source, tmp_path / "out", tmp_path, settings_of("photos"))
    os.close(handle)
    assert convert_into(source, tmp_path / "out", tmp_path, settings_of("photos")).counts["train"] == 30


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmark.data.datasets import convert_into, find, prepare, settings_of
folder, place, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
source = find("photos", folder, place)
calls = []
def told(what, done, total):
    calls.append(done)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
if how == "cache":
    prepare(source, place, progress=told)
else:
    convert_into(source, place, place, settings_of("photos"), told)
"""


@pytest.mark.parametrize("how", ["cache", "out"])
def test_a_killed_conversion_leaves_nothing_that_counts(tmp_path, how):
    """Killed after two thirds of the training images: nothing is taken for whole, and the next attempt leaves no rest."""
    folder, place = write_photographs(tmp_path / "images", train=40, test=2), tmp_path / "place"
    command = [sys.executable, "-c", KILLED, str(folder), str(place), how]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    assert [path for path in place.iterdir() if path.name.startswith(".converting-")]
    assert not list(place.rglob("manifest.json")) and not list(place.rglob("train.beton"))
    source = find("photos", folder, place)
    if how == "cache":
        assert prepared(source, place) is None
        made = prepare(source, place)
    else:
        with pytest.raises(InputError, match="does not hold train/<class>"):
            find("photos", place, place)
        made = convert_into(source, place, place, settings_of("photos"))
    assert made.counts == {"train": 120, "test": 6} and not list(place.glob(".converting-*"))


def test_a_failure_leaves_no_scratch(tmp_path):
    folder = write_photographs(tmp_path / "images", train=2, test=1)
    (folder / "test" / "cow" / "000.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cow/000.jpg cannot be decoded \(not an image\)"):
        convert_into(find("toy", folder, tmp_path), tmp_path / "out", tmp_path, settings_of("toy"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="cannot be decoded"):
        convert_into(find("toy", folder, tmp_path), tmp_path / "mine", tmp_path, settings_of("toy"))
    assert not list((tmp_path / "mine").iterdir())


def test_a_folder_inside_of_its_source_is_refused(tmp_path):
    folder = write_photographs(tmp_path / "images", train=1, test=1)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"images/train/out lies inside of .*images, the folder to be converted"):
        convert_into(find("toy", folder, tmp_path), folder / "train" / "out", tmp_path, settings_of("toy"))
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5), ("name", "../x"), ("content", "abc"), ("kind", "heap"), ("kind", []), ("note", None), ("classes", "ant"),
        ("classes", []), ("size", 3), ("size", True), ("size", "0"), ("train", "../train.beton"), ("train", "other.beton"),
        ("test", ".."), ("counts", {"train": 30}), ("counts", {"train": 30, "test": 0}), ("counts", [30, 12]),
        ("mean", [0.5, 0.5]), ("mean", [0.5, 0.5, float("nan")]), ("std", [0.2, 0.0, 0.2]), ("std", [0.2, 10**400, 0.2]),
        ("std", 0.2), ("storage", "png"), ("storage", "raw"), ("source", 3), ("limit", -1), ("quality", 101),
        ("reencoded", {}), ("listing", "x"), ("chosen", 0), ("files", []), ("files", {}), ("files", {"train.beton": 5}),
        ("files", {"train.beton": {"bytes": "1", "sha256": "0" * 64}}), ("created", 0), ("digest", "0" * 64), ("format", "3"),
        ("mean", [0.5, 0.5, 0.5]), ("classes", ["ant", "bee", "dog"]), ("counts", {"train": 29, "test": 12}),
    ],
)  # fmt: skip
def test_a_manifest_that_was_changed(moved, key, value):
    path = moved / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=r"manifest.json is damaged \(it.*\); remove its folder"):
        manifest.read_manifest(moved)
    assert len(list(damage(moved))) == 1


def test_a_manifest_that_lacks_something(moved):
    path = moved / "manifest.json"
    whole = json.loads(path.read_text())
    for key in whole:
        path.write_text(json.dumps({other: value for other, value in whole.items() if other != key}))
        with pytest.raises(InputError, match=rf"manifest.json is damaged \(it has no '{key}'\)"):
            manifest.read_manifest(moved)


@pytest.mark.parametrize("text", ["", "null", "3", "{", '"x"', "\xff", "[" * 100_000])
def test_a_manifest_of_something_else(moved, text):
    (moved / "manifest.json").write_text(text, encoding="latin-1")
    assert [sentence.count("manifest.json is damaged (it is no JSON object)") for sentence in damage(moved)] == [1]


def test_a_manifest_that_is_a_folder(moved, tmp_path):
    (moved / "manifest.json").unlink()
    (moved / "manifest.json").mkdir()
    assert [sentence.count("manifest.json cannot be read (Is a directory)") for sentence in damage(moved)] == [1]
    with pytest.raises(InputError, match="cannot be read"):
        find("photos", moved, tmp_path)


def resigned(folder, **entries):
    """A manifest with other entries that is right in itself."""
    path = folder / "manifest.json"
    changed = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(changed | {"digest": manifest._digest(changed)}))


def test_the_content_is_made_again_of_the_files(moved, dataset, tmp_path):
    raw = shutil.copytree(dataset.train.parent, tmp_path / "raw")
    for folder in (moved, raw):
        assert not list(damage(folder))
        resigned(folder, content="0123456789ab")
        assert [sentence.count("says content 0123456789ab, the files have ") for sentence in damage(folder)] == [1]


def test_files_that_are_none(moved):
    for name in ("train.names", "test.crc32", "test.beton"):
        (moved / name).unlink()
        (moved / name).mkdir()
    said = "\n".join(damage(moved))
    assert all(f"{name} is not a file" in said for name in ("train.names", "test.crc32", "test.beton"))


CONVERT = """
import sys
from pathlib import Path
from benchmark.data.datasets import find, prepare
from benchmark.errors import InputError
folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
{before}
try:
    prepare(find("toy", folder, cache), cache, storage="jpeg")
except InputError as error:
    print(error)
"""


def test_a_disk_that_is_full_in_the_middle_is_one_sentence(photographs, tmp_path):
    """A real small disk: in a mount namespace of its own, so nothing outside sees it."""
    (tmp_path / "disk").mkdir()
    script = tmp_path / "convert.py"
    script.write_text(CONVERT.format(before=""))
    mount = f"mount -t tmpfs -o size=48k none {tmp_path}/disk && exec {sys.executable} {script} {photographs} {tmp_path}/disk"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine does not let a test mount a small disk")
    assert (
        done.stdout == f"the disk of the data cache {tmp_path}/disk is full (No space left on device); free space or move it\n"
    )
    assert not done.stderr


def test_a_limit_on_the_size_of_files_is_one_sentence(photographs, tmp_path):
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    script = (
        CONVERT.format(before=before).replace("sys.argv[1]", repr(str(photographs))).replace("sys.argv[2]", repr(str(tmp_path)))
    )
    done = run(script)
    assert done.stdout == f"files in the data cache {tmp_path} may not become this large (see ulimit -f); choose another\n"
    assert not list(tmp_path.rglob("manifest.json")) and not list(tmp_path.rglob("*.beton"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(photographs, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        convert_into(find("toy", photographs, tmp_path), tmp_path / "out", tmp_path, settings_of("toy"))


def test_large_files_are_read_back_with_progress(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    told = []
    prepare(find("toy", photographs, tmp_path), tmp_path / "cache", progress=lambda *state: told.append(state))
    assert told[-1] == ("reading back toy", 42, 42)


def test_a_planner_reads_a_converted_folder_without_torch(moved):
    script = f"""
import sys
from pathlib import Path
from benchmark.data.datasets import find, prepared
dataset = prepared(find("photos", Path({str(moved)!r}), Path("nowhere")), Path("nowhere"))
print(dataset.content, {{"torch", "numba", "PIL", "torchvision"}} & set(sys.modules))
"""
    assert run(script).stdout.split(" ", 1)[1] == "set()\n"


def test_opening_reads_no_sidecar(moved):
    for path in (*moved.glob("*.names"), *moved.glob("*.crc32")):
        path.unlink()
    file = open_beton(moved / "train.beton")
    assert (
        file.name(0) == "" and file.checksums is None and np.array_equal(file.decode(0).shape, (*file.decode(0).shape[:2], 3))
    )
