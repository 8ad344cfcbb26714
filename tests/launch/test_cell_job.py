"""What a job does around its cell, where no SLURM is needed to see it: refuse other code, give up, tell signals apart."""

import signal
import subprocess
import time

import pytest

from benchmark.launch import code
from benchmark.launch.job import FRUITLESS, CellJob
from benchmark.launch.jobs import SUBMITTED
from benchmark.launch.work import Site
from benchmark.store.owner import Claim, failure_of, read_owner
from benchmark.store.record import read_json, write_json
from benchmark.store.store import Store

CELL = "byol-0123456789ab"


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_NTASKS", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))  # no scontrol: SLURM does not answer
    store = Store(tmp_path / "runs", create=True)
    store.folder(CELL).mkdir()
    write_json(store.folder(CELL) / SUBMITTED, {"job": "7"})
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR2, signal.SIGTERM)}
    yield Site(str(store.path), str(tmp_path / "cache"), {}, "cpu", 1, 0, "auto")
    for signum, handler in before.items():
        signal.signal(signum, handler)


def folder(site):
    return Store(code.ROOT / site.store).folder(CELL)


def test_a_cell_submitted_with_other_code_is_left_as_it_was(site):
    said = CellJob(site, CELL, force=True, code="0123456789ab")()
    assert said["status"] == "stopped"
    assert "the code has changed since this cell was submitted" in said["note"]
    assert "not started: the code has changed" in (folder(site) / "log.txt").read_text()
    assert not (folder(site) / "owner.json").exists()  # nobody has held it: a new submission begins as this one would have
    assert read_json(folder(site) / SUBMITTED) == {"job": "7", "ended": "stopped", "note": said["note"]}


def test_the_same_code_goes_on(site):
    job = CellJob(site, CELL, force=False, code=code.remember(code.ROOT / site.store))
    with pytest.raises(RuntimeError, match=r"config\.json"):  # what is wrong with this cell is found by whoever runs it
        job()
    assert read_json(folder(site) / SUBMITTED)["ended"] == "failed"


def refuses(signum, frame):
    """As submitit's handler does where the site does not requeue."""
    raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])


def test_a_cell_that_gets_nowhere_fails_in_the_end(site):
    job = CellJob(site, CELL, force=False)
    for _ in range(FRUITLESS - 1):
        assert job._requeue(refuses, "timeout", "", fruitless=True)[0] == "stopped"
    assert job._requeue(refuses, "preempted", "", fruitless=True)[0] == "stopped"  # others' doing does not count
    for _ in range(FRUITLESS - 1):
        assert job._requeue(refuses, "timeout", "", fruitless=True)[0] == "stopped"
    assert job._requeue(refuses, "timeout", "", fruitless=False)[0] == "stopped"  # it has left something
    for _ in range(FRUITLESS - 1):
        assert job._requeue(refuses, "node", "", fruitless=True)[0] == "stopped"
    status, note = job._requeue(refuses, "timeout", "", fruitless=True)
    assert status == "failed" and "raise minutes" in note
    owner = read_owner(folder(site) / "owner.json")
    assert (owner["released"], failure_of(owner)) == ("failed", "timeout")


def test_what_a_start_leaves_is_seen(site):
    job = CellJob(site, CELL, force=False)
    before = job._marks()
    (folder(site) / "metrics.jsonl").write_text("a line that no restart goes on from\n")
    assert job._marks() == before
    (folder(site) / "evaluations").mkdir()
    (folder(site) / "evaluations" / "knn-0.json").write_text("{}")
    assert job._marks() != before


@pytest.mark.parametrize("left, failure", [(3000, "preempted"), (100, "timeout")])
def test_a_warning_near_the_end_is_the_time_limit(site, monkeypatch, left, failure):
    job = CellJob(site, CELL, force=False, minutes=60, warning=30)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + left)))
    assert job._cause(signal.SIGUSR2) == failure
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    job._started = time.time() + left - 3600
    assert job._cause(signal.SIGUSR2) == failure


def test_a_job_names_what_became_of_its_former_self(site, monkeypatch):
    """Killed without a word on another node of this very job."""
    monkeypatch.setenv("SLURMD_NODENAME", "node2")
    write_json(folder(site) / SUBMITTED, {"job": "7", "node": "node1"})
    assert Claim.take(folder(site)) is not None
    owner = read_owner(folder(site) / "owner.json")
    write_json(folder(site) / "owner.json", owner | {"process_start": "0"})  # whoever has this number now is another
    job = CellJob(site, CELL, force=False)
    job._settle(read_owner(folder(site) / "owner.json"))
    owner = read_owner(folder(site) / "owner.json")
    assert (owner["released"], owner["failure"], owner["note"]) == ("died", "node", "node node1 was lost")
    assert "job 7 starts again on node2: node node1 was lost" in (folder(site) / "log.txt").read_text()
    assert read_json(folder(site) / SUBMITTED) == {"job": "7", "node": "node2"}
