"""python -m benchmark.data: what it converts is what a run finds, what it checks it finds, and its exit codes."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.data.__main__ import main
from benchmark.data.beton import open_beton
from benchmark.data.datasets import find, prepared
from benchmark.data.manifest import read_manifest
from benchmark.data.subset import labelled_subset
from benchmark.run import main as run_main
from tests.data.conftest import jpeg, photograph, write_folder, write_photographs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """No environment but a cache."""
    for name in ("RETABLE_DATA", "RETABLE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RETABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def copy(jpeg_dataset, tmp_path):
    return shutil.copytree(jpeg_dataset.train.parent, tmp_path / "photos")


def said(capsys):
    found = capsys.readouterr()
    return found.out, found.err


def test_help_answers_at_once():
    script = "import sys, benchmark.data.__main__ as m\ntry: m.main(['convert', '--help'])\nexcept SystemExit: pass\n"
    script += "print({'torch', 'numpy', 'numba', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n") and "--classes FILE" in done.stdout


def test_convert_makes_what_a_run_finds(photographs, tmp_path, capsys):
    assert main(["convert", "photos", "--data", str(photographs)]) == 0
    out, err = said(capsys)
    dataset = prepared(find("photos", photographs, tmp_path / "cache"), tmp_path / "cache")
    assert dataset is not None and not err
    assert "converting photos: 42 of 42 images" in out and "30 train, 12 test" in out and dataset.content in out
    assert "JPEG files, sizes as they are, 0 re-encoded\n" in out and re.search(
        r"42 images converted in [\d.]+ s \([\d,]+ images/s\)", out
    )
    assert out.endswith(f"use it with: python -m benchmark.run SWEEP --data photos={dataset.train.parent}\n")
    assert main(["convert", "photos", "--data", str(photographs)]) == 0
    assert said(capsys)[0].startswith("converted already:\n")


def test_a_run_takes_what_was_converted(tmp_path, monkeypatch, capsys):
    """The real runner: its plan of a sweep on a converted folder needs no conversion and names the content."""
    folder = write_folder(tmp_path / "images", side=32, train=4, test=2)
    assert main(["convert", "cifar10", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    content = read_manifest(tmp_path / "out").dataset.content
    (tmp_path / "sweep.yaml").write_text(
        "question: Is it found?\nbase: {method: random, encoder: {name: convnet}, data: {name: cifar10}, epochs: 1}\n"
        "rows: {random: {}}\nseeds: [0]\nevaluate: {knn: {k: 5}}\nprofiles: {smoke: {}}\n"
    )
    command = [str(tmp_path / "sweep.yaml"), "--profile", "smoke", "--plan", "--store", str(tmp_path / "runs")]
    said(capsys)
    assert run_main([*command, "--data", f"cifar10={tmp_path / 'out'}"]) == 0
    out, _ = said(capsys)
    assert content in out and "not converted yet" not in out
    assert main(["convert", "cifar10", "--data", str(folder)]) == 0
    monkeypatch.setenv("RETABLE_DATA", f"cifar10={folder}")
    said(capsys)
    assert run_main(command) == 0
    out, _ = said(capsys)
    assert content in out and "not converted yet" not in out


def test_a_data_set_of_any_name(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path / "images", side=32, train=4, test=2)
    (tmp_path / "sweep.yaml").write_text(
        "question: Is it found?\nbase: {method: random, encoder: {name: convnet}, data: {name: my_Animals-2}, epochs: 1}\n"
        "rows: {random: {}}\nseeds: [0]\nevaluate: {knn: {k: 5}}\nprofiles: {smoke: {}}\n"
    )
    command = [str(tmp_path / "sweep.yaml"), "--profile", "smoke", "--store", str(tmp_path / "runs")]
    named = f"my_Animals-2={tmp_path / 'out'}"
    assert main(["convert", "my_Animals-2", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"use it with: python -m benchmark.run SWEEP --data {named}" in said(capsys)[0]
    assert run_main([*command, "--plan", "--data", named]) == 0
    out, _ = said(capsys)
    assert read_manifest(tmp_path / "out").dataset.content in out
    for arguments in ([], ["--data", str(folder)], ["data.name=cifar11", "--data", str(folder)], ["data.name=CIFAR10"]):
        for looking in ([], ["--plan"], ["--status"]):
            assert run_main([*command, *looking, *arguments]) == 2
            _, err = said(capsys)
            err = " ".join(err.split())
            name = "my_Animals-2" if not arguments or "=" not in arguments[0] else arguments[0].partition("=")[2]
            assert f"data.name: unknown data set '{name}'; known are cifar10," in err and f"with --data {name}=PATH" in err
            assert err.endswith("did you mean 'cifar10'?") == (name != "my_Animals-2")
    assert run_main([*command, "--data", f"my_Animal-2={folder}"]) == 2
    assert "did you mean 'my_Animals-2'?" in " ".join(said(capsys)[1].split())
    assert not list(tmp_path.glob("cache/*")) and not list(tmp_path.glob("runs/*/*"))
    monkeypatch.setenv("RETABLE_DATA", named)
    assert run_main([*command, "--launcher", "inline", "data.image_size=32"]) == 0, said(capsys)


def test_defaults_come_from_the_environment(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RETABLE_DATA", f"imagenet={photographs}")
    monkeypatch.delenv("RETABLE_CACHE")
    monkeypatch.setenv("RETABLE_STORE", str(tmp_path / "store"))
    assert main(["convert", "imagenet"]) == 0
    (folder,) = (tmp_path / "store" / "data").glob("imagenet-jpeg-*")
    assert read_manifest(folder).dataset.name == "imagenet"
    assert main(["convert", "imagenet100"]) == 2  # the variable is about another data set
    assert "'imagenet100' cannot be downloaded; give its images with --data" in said(capsys)[1]
    monkeypatch.setenv("RETABLE_DATA", str(photographs))
    assert main(["convert", "imagenet100"]) == 0


def test_convert_with_every_option(photographs, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("bee\ncow\n")
    arguments = ["--limit", "40", "--quality", "60", "--classes", str(tmp_path / "classes.txt"), "--out", str(tmp_path / "out")]
    assert main(["convert", "photos", "--data", f"photos={photographs}", "--storage", "jpeg", *arguments]) == 0
    made = read_manifest(tmp_path / "out")
    assert made.dataset.classes == ("bee", "cow") and (made.limit, made.quality) == (40, 60)
    file = open_beton(made.dataset.train)
    assert np.minimum(file.heights, file.widths).max() == 40 and made.reencoded["train"] > 10
    out, _ = said(capsys)
    assert f"shorter side at most 40 pixels, {sum(made.reencoded.values())} re-encoded at quality 60" in out
    assert main(["convert", "small", "--data", str(photographs), "--resolution", "24"]) == 0
    assert "raw, 24 x 24 pixels" in said(capsys)[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["convert", "photos"], "data set 'photos' cannot be downloaded"),
        (["convert", "photos", "--data", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["convert", "no/name", "--data", "/nowhere"], "is no name for a data set"),
        (["convert", "stl10", "--data", "imagenet=/nowhere"], "is of imagenet, but stl10 is to be converted"),
        (["convert", "..", "--data", "{folder}"], "'..' is no name for a data set; use letters"),
        (["convert", "a/b", "--data", "{folder}", "--out", "x"], "'a/b' is no name for a data set"),
        (["check", "photos"], "photos is neither a converted folder nor converted in"),
        (["check", "{folder}"], "has no manifest.json: it is not a whole conversion"),
        (["info"], "holds no conversions"),
        (["info", "photos"], "photos is neither a converted folder nor converted in"),
        (["subset", "{copy}", "--share", "0%", "--out", "x"], "0% is not a share"),
        (["subset", "{copy}", "--share", "1%", "--out", "/nowhere/x"], "--out /nowhere/x cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, folder, copy, capsys):
    assert main([part.format(folder=folder, copy=copy) for part in arguments]) == 2
    _, err = said(capsys)
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["convert"], ["convert", "x", "--cache", "a", "--out", "b"], ["convert", "x", "--limit", "0"]]
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage" in said(capsys)[1]


def test_no_stand_in_is_converted(tmp_path, monkeypatch, capsys):
    import torchvision.datasets

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    assert main(["convert", "cifar10", "--out", str(tmp_path / "out")]) == 2
    assert "cifar10 could not be downloaded (OSError: Network is unreachable); give it with --data" in said(capsys)[1]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cifar10-download-failed.txt").write_text("no route")
    assert main(["convert", "cifar10"]) == 2
    assert "cifar10 could not be downloaded (no route)" in said(capsys)[1]


def test_a_whole_conversion_is_whole(copy, dataset, capsys):
    assert main(["check", str(copy), str(dataset.train.parent), "--decode"]) == 0
    out, err = said(capsys)
    assert not err and out.count("whole (every image decoded") == 2 and "decoding test.beton: 12 of 12 images" in out


def test_check_by_name(photographs, capsys):
    for limit in ("50", "60"):
        assert main(["convert", "photos", "--data", str(photographs), "--limit", limit]) == 0
    said(capsys)
    assert main(["check", "photos"]) == 0
    assert said(capsys)[0].count(": whole (") == 2
    assert main(["check", "photo"]) == 2
    assert "did you mean 'photos'?" in said(capsys)[1]


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def test_a_damaged_image_is_named(copy, capsys):
    file = open_beton(copy / "train.beton")
    for index in (7, 21):
        flip(copy / "train.beton", int(file.offsets[index] + file.sizes[index] // 2))
    assert main(["check", str(copy)]) == 1
    out, err = said(capsys)
    assert f"{copy}: 2 damaged (" in out and err.count("error:") == 2
    assert re.search(r"train.beton: image 7 \(ant/007.jpg\) is damaged: its CRC-32 is [0-9a-f]{8}, it was [0-9a-f]{8} at", err)
    assert "image 21 (cow/001.jpg) is damaged" in err


def test_a_damaged_image_that_no_longer_decodes(copy, capsys):
    file = open_beton(copy / "test.beton")
    flip(copy / "test.beton", int(file.offsets[5]))  # the mark every JPEG file begins with
    assert main(["check", str(copy), "--decode"]) == 1
    _, err = said(capsys)
    assert "image 5 (bee/001.jpg) is damaged" in err and "image 5 (bee/001.jpg) cannot be decoded" in err


def test_damage_between_the_images(copy, capsys):
    flip(copy / "train.beton", 4_000_000)  # the zeros before the first page
    assert main(["check", str(copy)]) == 1
    assert "train.beton was changed outside of its images: its digest is another than at conversion" in said(capsys)[1]


@pytest.mark.parametrize(
    ("name", "at", "sentence"),
    [
        ("train.beton", 0, "train.beton is not a whole .beton file"),
        ("train.names", 5, "train.names was changed: its digest is another"),
        ("test.crc32", 5, "test.crc32 was changed: its digest is another"),
        ("manifest.json", 1, "manifest.json is damaged"),
    ],
)
def test_damage_of_every_file(copy, capsys, name, at, sentence):
    flip(copy / name, at)
    assert main(["check", str(copy)]) == 1
    assert sentence in said(capsys)[1]


def test_cut_and_missing_files(copy, capsys):
    os.truncate(copy / "train.beton", 100)
    (copy / "test.names").unlink()
    (copy / "test.crc32").unlink()
    assert main(["check", str(copy)]) == 1
    _, err = said(capsys)
    assert "train.beton has 100 bytes, it was converted with" in err and "train.beton is not a whole .beton file" in err
    assert "test.names is missing" in err and "test.crc32 is missing: single images cannot be checked" in err


def test_much_damage_is_cut_short(tmp_path, capsys):
    folder = write_folder(tmp_path / "images", side=8, train=30, test=1)
    assert main(["convert", "toy", "--data", str(folder), "--resolution", "8", "--out", str(tmp_path / "out")]) == 0
    file = open_beton(tmp_path / "out" / "train.beton")
    for offset in file.offsets.tolist():
        flip(tmp_path / "out" / "train.beton", offset)
    said(capsys)
    assert main(["check", str(tmp_path / "out")]) == 1
    out, err = said(capsys)
    assert err.count("is damaged") == 20 and "error: and 70 more\n" in err and "90 damaged" in out


def test_info(copy, capsys):
    assert main(["info", str(copy)]) == 0
    out, _ = said(capsys)
    for text in ("photos", "30 train, 12 test", "3: ant, bee, cow", "JPEG files", "image folder, JPEG files in", "train.crc32"):
        assert text in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_info_of_the_whole_cache(photographs, folder, capsys):
    assert main(["convert", "photos", "--data", str(photographs)]) == 0
    assert main(["convert", "toy", "--data", str(folder), "--resolution", "8"]) == 0
    said(capsys)
    assert main(["info"]) == 0
    assert re.findall(r"data set +(\w+)", said(capsys)[0]) == ["photos", "toy"]


def test_subset_writes_what_the_share_takes(tmp_path, capsys):
    folder = write_photographs(tmp_path / "images", train=20, test=1)
    for path in folder.rglob("*.jpg"):
        path.rename(path.with_name(f"{path.parent.name}_{path.stem}.JPEG"))
    assert main(["convert", "photos", "--data", str(folder)]) == 0
    said(capsys)
    assert main(["subset", "photos", "--share", "10%", "--seed", "4", "--out", str(tmp_path / "list.txt")]) == 0
    assert said(capsys)[0] == f"6 of 60 training images, 2 a class, in {tmp_path / 'list.txt'}\n"
    dataset = prepared(find("photos", folder, tmp_path / "cache"), tmp_path / "cache")
    names = (tmp_path / "list.txt").read_text().split()
    assert len(names) == 6 and all("/" not in name for name in names)
    chosen = labelled_subset(dataset, "10%", seed=4)
    assert np.array_equal(labelled_subset(dataset, tmp_path / "list.txt"), chosen)
    assert main(["convert", "photos", "--data", str(folder), "--limit", "50"]) == 0
    assert main(["subset", "photos", "--share", "10%", "--out", str(tmp_path / "other.txt")]) == 2
    assert "photos is converted 2 times" in said(capsys)[1]


def test_names_and_paths_say_the_same(copy, jpeg_dataset, photographs, tmp_path, capsys):
    assert main(["check", f"photos={copy}", str(copy)]) == 0 and said(capsys)[0].count(": whole") == 1
    assert main(["info", f"photos={copy}"]) == 0 and jpeg_dataset.content in said(capsys)[0]
    assert main(["subset", f"photos={copy}", "--share", "10%", "--out", str(tmp_path / "names")]) == 0
    said(capsys)
    assert main(["check", f"animals={copy}"]) == 2 and "holds photos converted, not animals" in said(capsys)[1]
    assert main(["check", f"photos={tmp_path / 'no'}"]) == 2 and "is neither a converted folder nor" in said(capsys)[1]
    shutil.copytree(copy, tmp_path / "a=b")
    assert main(["check", str(tmp_path / "a=b")]) == 0
    assert main(["convert", "cats", "--data", f"dogs={photographs}"]) == 2
    assert "is of dogs, but cats is to be converted" in said(capsys)[1]


def test_images_that_were_overwritten_are_converted_anew(tmp_path, capsys):
    folder = write_photographs(tmp_path / "images", train=2, test=1)
    convert = ["convert", "photos", "--data", str(folder)]
    assert main(convert) == 0 and main(convert) == 0 and "converted already" in said(capsys)[0]
    (folder / "train" / "ant" / "000.jpg").write_bytes(jpeg(photograph(9, 60, 60)))
    assert main(["check", "photos"]) == 0
    out = said(capsys)[0]
    assert "note: the images in" in out and "whole" in out
    assert main(convert) == 0
    assert "converting them again" in said(capsys)[0]
    assert main(["check", "photos"]) == 0 and "note" not in said(capsys)[0]
    assert main(convert) == 0 and "converted already" in said(capsys)[0]


def test_ctrl_c_leaves_nothing(tmp_path):
    folder = write_photographs(tmp_path / "images", train=300, test=1)
    out = tmp_path / "a" / "b"
    command = [sys.executable, "-m", "benchmark.data", "convert", "photos", "--data", str(folder), "--out", str(out)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(out.glob(".converting-*/result/.train*")) and running.poll() is None:
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (4, "interrupted; nothing was kept\n")
    assert not (tmp_path / "a").exists()


def test_a_reader_that_has_seen_enough(copy):
    command = f"{sys.executable} -m benchmark.data info {copy} {copy}/../photos | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.split("\n")[:1] == ["data set   photos"] and done.stdout.split()[-1] in "04"


def test_ctrl_c_is_told_by_the_exit_code(photographs, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmark.data.datasets.prepare", interrupted)
    assert main(["convert", "photos", "--data", str(photographs)]) == 4


def test_a_terminal_shows_a_bar(tmp_path):
    folder = tmp_path / "images"
    for split in ("train", "test"):
        (folder / split / "ant").mkdir(parents=True)
        for i in range(200):
            (folder / split / "ant" / f"{i}.jpg").write_bytes(jpeg(photograph(i % 3, 120, 120)))
    here, there = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "benchmark.data",
        "convert",
        "toy",
        "--data",
        str(folder),
        "--cache",
        str(tmp_path / "cache"),
    ]
    done = subprocess.Popen(command, cwd=ROOT, stdout=there, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"})
    os.close(there)
    shown = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # how a terminal ends on Linux
            break
        if not part:
            break
        shown += part
    os.close(here)
    assert done.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "converting toy" in text and "400/400" in text and re.search(r"\d images/s", text) and "0:00:00" in text
