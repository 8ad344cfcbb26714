"""Whatever a user gets wrong: one sentence with the remedy, the documented exit code, no traceback."""

import os
import re
import subprocess
import tarfile

import pytest
from PIL import Image


def folder_of_images(root, count=24, classes=("ape", "bee")):
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                colour = (number * 90, index * 9, 40 + index)
                Image.new("RGB", (32, 32), colour).save(root / split / name / f"{index:03}.png")
    return root


def refused(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    flat = " ".join(done.stderr.split())
    for word in words:
        assert word in flat, done.stderr
    return flat


def test_no_such_sweep(project):
    (project.folder / "sweep.yaml").rename(project.folder / "other.yaml")
    refused(project.run(), "sweep.yaml: no such file; that folder has other.yaml")


def test_malformed_yaml(project):
    (project.folder / "sweep.yaml").write_text("question: [unclosed\n")
    refused(project.run(), "sweep.yaml:2: not valid YAML")


def test_wrong_words_on_the_command_line(project):
    refused(project.run("epoch=3"), "command line: epoch: unknown key", "did you mean 'epochs'?")
    refused(project.run("epochs"), "expected key=value")
    refused(project.run("--seeds", "a"), "expected different whole numbers with commas")
    refused(project.run("--deadline", "soon"), "expected a time such as 90s")
    refused(project.run("--only", "row=bloy"), "no such row; the rows are byol, contrastive, random")
    refused(project.run("--launcher", "slurm"), "needs --cluster")


def test_words_that_would_do_nothing(project):
    refused(project.run("--watch", "--plan"), "--watch goes with --status")
    for idle in (("--wait",), ("--snapshot",), ("--cluster", "x.yaml")):
        refused(project.run(*idle, "--plan"), f"{idle[0]} goes with --launcher slurm")
    refused(project.run("--launcher", "slurm", "--max-failures", "1"), "--max-failures goes with --wait")
    refused(project.run("--plan", "--max-seeds", "3"), "--max-seeds goes with --until-decided")
    refused(project.run("--plan", "--status"), "--plan and --status are two questions")
    refused(project.run("--plan", "--only", "row=BYOLS"), "--only row=BYOLS: no such row")


def test_help_explains_every_word_within_80_columns(project):
    said = project.run("--help", COLUMNS="80").stdout
    words = said.partition("options:")[2]
    entries = re.split(r"\n  (?=-)", words)[1:]
    assert len(entries) > 25 and max(map(len, said.splitlines())) <= 80
    assert [entry for entry in entries if not re.search(r"(\n| ) {2,}[A-Za-z]", entry)] == []


def test_a_missing_data_folder(project):
    refused(project.run("data.name=cifar10", "--data", "/nowhere/at/all"), "/nowhere/at/all does not exist")


def test_a_data_folder_of_something_else(project, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(project.run("data.name=cifar10", "--data", str(tmp_path / "empty")), str(tmp_path / "empty"), "train/<class>")


def test_a_truncated_image_is_named(project, tmp_path):
    root = folder_of_images(tmp_path / "images")
    victim = root / "train" / "bee" / "007.png"
    victim.write_bytes(victim.read_bytes()[:60])
    refused(project.run("data.name=cifar10", "--data", str(root)), "train/bee/007.png")


def test_a_truncated_tar(project, tmp_path):
    root = folder_of_images(tmp_path / "images")
    archive = tmp_path / "images.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "images")
    archive.write_bytes(archive.read_bytes()[:-200])
    refused(project.run("data.name=cifar10", "--data", str(archive)), "images.tar.gz")


def test_too_few_images_for_a_batch(project, tmp_path):
    root = folder_of_images(tmp_path / "images", count=8)
    done = project.run("data.name=cifar10", "data.train_images=0", "--data", str(root), "--only", "row=byol")
    assert done.returncode == 1
    assert "batch_size 32 is larger than the 14 training images" in " ".join(done.stderr.split())


def test_an_unwritable_store(project):
    (project.folder / "runs").write_text("a file where the store should be")
    refused(project.run(), "cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission(project):
    project.store.mkdir(mode=0o500)
    refused(project.run(), "choose another folder with --store or RETABLE_STORE")


def test_over_budget(project):
    done = project.run("epochs=100000", "--budget", "0.1")
    assert done.returncode == 3
    assert "over budget" in done.stderr


@pytest.mark.slow
def test_a_full_disk_loses_nothing(project):
    """A limit on the size of files stands in for a full disk: checkpoints cannot be written, the reason is said."""
    assert project.run("--only", "row=random").returncode == 0  # the images are converted before the disk is full
    command = " ".join(project.command("--launcher", "inline", "--only", "row=byol"))
    limited = ["bash", "-c", f"trap '' XFSZ; ulimit -f 24; exec {command}"]
    done = subprocess.run(limited, env=project.environment(), capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "checkpoint.pt: cannot be written (File too large)" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    after = project.run("--only", "row=byol")
    assert after.returncode == 0, after.stdout + after.stderr


def test_selections_that_match_nothing(project):
    refused(project.run("--cell", "zzz"), "--cell zzz: none of the 3 cells matches")
    refused(project.run("--only", "sead=0"), "--only sead=0: none of the 3 cells matches")
    refused(project.run("--only", "byol"), "expected KEY=VALUE")
    refused(project.run("--jobs", "-3"), "expected a whole number of at least 1")
    refused(project.run("--seeds", "0,0"), "expected different whole numbers")
    refused(project.run("data.name=cifar10", "--data", "cifr10=/x"), "unknown data set 'cifr10'", "did you mean 'cifar10'?")
