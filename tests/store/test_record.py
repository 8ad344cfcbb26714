"""Records are whole or absent, hold no NaN, and name what is wrong with them."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from benchmark.errors import InputError
from benchmark.store.record import finite, read_record, storage_error, write_json
from benchmark.store.store import Store

RECORD = {
    "schema": 1,
    "stage": "pretrain",
    "id": "byol-0123456789ab",
    "status": "done",
    "config": {"method": "byol", "version": 1, "seed": 0, "data": {}, "encoder": {}},
    "metrics": {"loss": 0.5},
    "timing": {},
    "provenance": {"hardware": {"device": "cpu"}},
}


def test_nan_and_infinity_become_null():
    assert finite({"a": [float("nan"), (1.0, float("inf"))]}) == {"a": [None, [1.0, None]]}


def test_a_record_survives_the_round_trip(tmp_path):
    write_json(tmp_path / "record.json", RECORD)
    assert read_record(tmp_path / "record.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not valid JSON"),
        ('{"schema": 1, "stage"', "not valid JSON"),
        ("[1]", "expected a JSON object"),
        (json.dumps(RECORD | {"schema": 9}), "record schema 9, this version of Retable reads 1"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "metrics"}), "the key 'metrics' is missing"),
        (json.dumps(RECORD | {"status": "dome"}), "unknown status 'dome'"),
        (json.dumps(RECORD | {"metrics": [1]}), r"metrics has the wrong type \(list\)"),
        (json.dumps(RECORD | {"config": "x"}), r"config has the wrong type \(str\)"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "provenance"}), "provenance.hardware.device has the wrong type"),
    ],
)
def test_a_bad_record_is_named_and_the_others_are_read(tmp_path, content, words):
    store = Store(tmp_path, create=True)
    for name in ("byol-0123456789ab", "byol-ba9876543210"):
        store.folder(name).mkdir()
        write_json(store.folder(name) / "record.json", RECORD | {"id": name})
    bad = store.folder("byol-0123456789ab") / "record.json"
    bad.write_text(content)
    with pytest.raises(InputError, match=words):
        read_record(bad)
    first, second = store.cells()
    assert first.record is None
    assert str(bad) in first.problems[0]
    assert second.record is not None


def test_a_full_disk_leaves_the_old_record(tmp_path):
    """A file-size limit stands in for a full disk: the write really fails half-way."""
    write_json(tmp_path / "record.json", RECORD)
    code = """
import resource, signal, sys
from pathlib import Path
from benchmark.store.record import write_json
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_json(Path(sys.argv[1]), {"big": "x" * 100_000})
except Exception as error:
    print(type(error).__name__, error)
"""
    path = tmp_path / "record.json"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InputError"), done.stdout + done.stderr
    assert read_record(path) == RECORD
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    assert resource.RLIMIT_FSIZE  # this process is not limited


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "choose another folder with --store"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_storage_errors_carry_a_remedy(tmp_path, number, words):
    assert words in str(storage_error(tmp_path, OSError(number, os.strerror(number))))


def test_an_unwritable_store(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(blocked / "store", create=True)


def test_requests_of_two_sweeps_add_up(tmp_path):
    store = Store(tmp_path, create=True)
    store.request("byol-0123456789ab", {"seed": 0}, ({"name": "knn", "version": 1},))
    store.request("byol-0123456789ab", {"seed": 0}, ({"name": "linear", "version": 1},))
    request = json.loads((store.folder("byol-0123456789ab") / "config.json").read_text())
    assert {protocol["name"] for protocol in request["evaluate"]} == {"knn", "linear"}
