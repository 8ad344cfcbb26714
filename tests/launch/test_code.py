"""The code a job runs is the code it was submitted with: told apart by content, refused by name, or copied."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from benchmark.launch import code


@pytest.fixture
def checkout(tmp_path):
    """The packages, to be changed at will."""
    root = tmp_path / "checkout"
    for package in ("benchmark", "methods"):
        shutil.copytree(code.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_every_kind_of_change_is_noticed_and_named(tmp_path, checkout):
    store = tmp_path / "runs"
    submitted = code.remember(store)
    assert code.changed(store, submitted, checkout) == []
    with (checkout / "methods" / "byol.py").open("a") as file:
        file.write("# a word more\n")
    (checkout / "benchmark" / "train" / "new.py").touch()
    (checkout / "methods" / "catalogue.json").unlink()
    expected = ["benchmark/train/new.py", "methods/byol.py", "methods/catalogue.json"]
    assert code.changed(store, submitted, checkout) == expected


def test_what_no_job_runs_does_not_count(tmp_path, checkout):
    store = tmp_path / "runs"
    submitted = code.remember(store)
    for name in ("benchmark/bench/more.py", "benchmark/notes.txt", "benchmark/train/__pycache__/loop.pyc"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("x")
    assert code.changed(store, submitted, checkout) == []


def test_the_refusal_is_one_sentence_with_the_remedy(tmp_path):
    store = tmp_path / "runs"
    found = code.files()
    assert code.refusal(store, code.remember(store)) is None
    then = found | {f"methods/gone{number}.py": "0" for number in range(5)}
    folder = store / "slurm" / "code"
    (folder / f"{code.fingerprint(then)}.json").write_text(json.dumps({"files": then}))
    said = code.refusal(store, code.fingerprint(then))
    assert said is not None and "(methods/gone0.py, methods/gone1.py, methods/gone2.py and 2 more)" in said
    assert "--snapshot" in said and "\n" not in said
    assert "not known" in str(code.refusal(store, "0123456789ab"))  # the list is gone: refused all the same


def test_a_snapshot_is_made_once_and_runs_by_itself(tmp_path):
    store = tmp_path / "runs"
    name, folder = code.snapshot(store)
    assert folder == store / "slurm" / "code" / name
    assert code.files(folder) == code.files()
    assert code.changed(store, name, folder) == []
    before = (folder / "methods" / "byol.py").stat().st_mtime_ns
    assert code.snapshot(store) == (name, folder)
    assert (folder / "methods" / "byol.py").stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.parent.iterdir()) == [name, f"{name}.json"]
    # As a job starts it: in the folder of the project, whose code must not be found first.
    ask = "import benchmark.launch.code as c; from benchmark.store.provenance import code; print(c.ROOT, code()['git'])"
    ours = "from benchmark.store.provenance import code; print(code()['git'])"
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    there = subprocess.run([sys.executable, "-c", ask], cwd=code.ROOT, env=environment, capture_output=True, text=True)
    here = subprocess.run([sys.executable, "-c", ours], cwd=code.ROOT, capture_output=True, text=True)
    assert there.stdout.split() == [str(folder), here.stdout.strip()], there.stderr
