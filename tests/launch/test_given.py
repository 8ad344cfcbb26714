"""Which data a user has given for a sweep: images by name or alone, detection data always by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.launch.given import find_boxes, given_data, not_here
from benchmark.launch.work import Site
from benchmark.launch.worker import _at_hand, open_boxes


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("RETABLE_DATA", raising=False)


def test_a_path_alone_is_that_of_the_images():
    assert given_data(["/x/y"], ["cifar10"], ["voc07"]) == {"cifar10": Path("/x/y")}
    assert given_data(["cifar10=/x", "voc07=/y"], ["cifar10"], ["voc07"]) == {"cifar10": Path("/x"), "voc07": Path("/y")}


def test_the_variable_is_that_of_the_images_until_somebody_says_otherwise(monkeypatch):
    monkeypatch.setenv("RETABLE_DATA", "/images")
    assert given_data(None, ["cifar10"], []) == {"cifar10": Path("/images")}
    assert given_data(["coco=/y"], ["cifar10"], ["coco"]) == {"coco": Path("/y"), "cifar10": Path("/images")}
    assert given_data(["cifar10=/z"], ["cifar10"], ["coco"]) == {"cifar10": Path("/z")}


@pytest.mark.parametrize(
    ("arguments", "names", "words"),
    [
        (["voc7=/x"], ["cifar10"], "--data voc7=/x: unknown data set 'voc7'; allowed: .*did you mean 'voc07'"),
        (["/x"], ["cifar10", "stl10"], "--data /x: say which data set this is, cifar10=/x or stl10=/x"),
        ([], ["cifr10"], "data.name: unknown data set 'cifr10'.*did you mean 'cifar10'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, names, words):
    with pytest.raises(InputError, match=words):
        given_data(arguments, names, ["voc07"])


def test_missing_detection_data_stops_a_run_and_is_told_to_who_looks(tmp_path):
    with pytest.raises(InputError, match="detection data set voc07 is needed"):
        find_boxes(["shapes", "voc07"], {}, tmp_path / "cache", looking=False)
    found, notices = find_boxes(["shapes", "voc07"], {}, tmp_path / "cache", looking=True)
    assert list(found) == ["shapes"]
    assert len(notices) == 1 and notices[0].endswith("(until then the ids of evaluations on voc07 are provisional)")


def test_what_else_is_not_here(tmp_path, monkeypatch):
    listed = tmp_path / "some.txt"
    wanted = [
        {"name": "finetune_simclr_1", "labels": str(listed)},
        {"name": "distill", "teacher": {"labels": "10%"}},
        {"name": "detection_voc07", "engine": "detectron2"},
        {"name": "detection_voc07", "engine": "detectron2", "masks": True},
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not_here(wanted) == [
        f"finetune_simclr_1: its list of labelled images {listed} is no file that can be read",
        "detection_voc07.engine is 'detectron2', which is not installed here; install it as the README says under Detection, "
        "or set engine to builtin",
    ]
    listed.write_text("a.jpg")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert not_here(wanted) == []


def test_looking_leaves_a_store_that_is_not_there_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    coco, cache = tmp_path / "coco", tmp_path / "store" / "data"
    for split in ("train2017", "val2017"):
        (coco / split).mkdir(parents=True)
        (coco / "annotations").mkdir(exist_ok=True)
        (coco / "annotations" / f"instances_{split}.json").write_text('{"images": [], "annotations": [], "categories": []}')
    looked, notices = find_boxes(["coco"], {"coco": coco}, cache, looking=True)
    assert not notices and not cache.exists()
    found, _ = find_boxes(["coco"], {"coco": coco}, cache, looking=False)
    assert looked["coco"].content == found["coco"].content and cache.exists()


def site(tmp_path, **boxes):
    return Site(str(tmp_path), str(tmp_path), {}, "cpu", 1, 0, "auto", boxes=boxes)


def test_a_worker_opens_what_the_runner_has_found(tmp_path):
    found, _ = find_boxes(["shapes"], {}, tmp_path, looking=False)
    opened = open_boxes(site(tmp_path, shapes={"path": None, "content": found["shapes"].content}), "shapes")
    assert opened.name == "shapes" and len(opened.train) > 0
    with pytest.raises(InputError, match="has changed since the run was started; start it again"):
        open_boxes(site(tmp_path, shapes={"path": None, "content": "0" * 12}), "shapes")
    with pytest.raises(InputError, match="voc07 is not known here; give it with --data voc07=PATH"):
        open_boxes(site(tmp_path), "voc07")


def test_a_worker_leaves_alone_what_was_asked_for_elsewhere(tmp_path):
    here = site(tmp_path, coco={"path": "/c", "content": "a" * 12})
    assert _at_hand(here, {"name": "knn"}) and _at_hand(here, {"name": "attention", "dataset": "none"})
    assert _at_hand(here, {"name": "d", "dataset": "coco", "content": "a" * 12})
    assert not _at_hand(here, {"name": "d", "dataset": "coco", "content": "b" * 12})
    assert not _at_hand(here, {"name": "d", "dataset": "voc07", "content": "a" * 12})
