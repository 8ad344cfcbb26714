"""Claims: one holder at a time, the dead are replaced, the replaced cannot write."""

import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time

import pytest

from benchmark.store.owner import FAILURES, STALE, Claim, Replaced, _move_in, bury, failure_of, process_start, read_owner


def test_a_held_cell_is_not_given_twice(tmp_path):
    first = Claim.take(tmp_path)
    assert first is not None
    assert first.token == 1
    assert Claim.take(tmp_path) is None
    first.release("done")
    second = Claim.take(tmp_path)
    assert second is not None
    assert second.token == 2


def test_a_dead_holder_is_replaced_and_cannot_write(tmp_path):
    code = "import sys; from pathlib import Path; from benchmark.store.owner import Claim; Claim.take(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    taken = Claim.take(tmp_path)
    assert taken is not None
    assert taken.token == 2


def test_a_holder_that_is_dead_but_not_yet_buried_is_replaced(tmp_path):
    code = "import sys; from pathlib import Path; from benchmark.store.owner import Claim; Claim.take(Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and remains as a zombie
    assert process_start(child.pid) is None
    assert Claim.take(tmp_path) is not None
    child.wait()


def test_the_replaced_holder_notices(tmp_path):
    old = Claim.take(tmp_path)
    owner = json.loads((tmp_path / "owner.json").read_text())
    owner |= {"host": "elsewhere", "heartbeat": time.time() - 2 * STALE}  # lost from sight, but still running
    (tmp_path / "owner.json").write_text(json.dumps(owner))
    new = Claim.take(tmp_path)
    assert new is not None
    with pytest.raises(Replaced):
        old.check()
    with pytest.raises(Replaced):
        old.beat(force=True)
    old.release("done")  # silent, and without effect on the new claim
    assert Claim.take(tmp_path) is None
    new.check()


def test_a_holder_elsewhere_lives_by_its_heartbeat(tmp_path):
    Claim.take(tmp_path)
    owner = json.loads((tmp_path / "owner.json").read_text()) | {"host": "elsewhere", "heartbeat": time.time()}
    (tmp_path / "owner.json").write_text(json.dumps(owner))
    assert Claim.take(tmp_path) is None


def test_a_reused_process_number_is_not_the_holder(tmp_path):
    Claim.take(tmp_path)
    owner = json.loads((tmp_path / "owner.json").read_text())
    assert owner["process_start"] == process_start(os.getpid())
    (tmp_path / "owner.json").write_text(json.dumps(owner | {"process_start": "1"}))
    assert Claim.take(tmp_path) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1', '{"pid": "abc", "host": "x"}', '{"token": "x"}'])
def test_a_torn_claim_is_replaced(tmp_path, content):
    (tmp_path / "owner.json").write_text(content)
    assert Claim.take(tmp_path) is not None


ROUNDS = 60


def _race(folder, barrier, winners):
    for round_ in range(ROUNDS):
        cell = folder / str(round_)
        barrier.wait()
        claim = Claim.take(cell)
        if claim is not None:
            winners.put((round_, claim.owner["nonce"]))
        barrier.wait()  # the winner lives while the others look


def test_of_many_at_once_one_wins(tmp_path):
    context = multiprocessing.get_context("fork")
    for stale in (False, True):
        folder = tmp_path / str(stale)
        folder.mkdir()
        dead = {"token": 3, "host": "gone", "pid": 1, "heartbeat": 0, "progress": {}, "nonce": "dead"}
        for round_ in range(ROUNDS):
            (folder / str(round_)).mkdir()
            if stale:
                (folder / str(round_) / "owner.json").write_text(json.dumps(dead))
        barrier, winners = context.Barrier(6), context.Queue()
        racers = [context.Process(target=_race, args=(folder, barrier, winners)) for _ in range(6)]
        for racer in racers:
            racer.start()
        won = [winners.get(timeout=30) for _ in range(ROUNDS)]
        for racer in racers:
            racer.join()
        assert len(set(won)) == ROUNDS
        assert winners.empty()


def _dead_holder(folder):
    """A cell whose holder has ended without a word; the process number it had."""
    code = "import sys; from pathlib import Path; from benchmark.store.owner import Claim; Claim.take(Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    child.wait()
    return child.pid


@pytest.mark.parametrize("by", ["nonce", "pid"])
def test_a_dead_holder_is_given_its_last_word(tmp_path, by):
    pid = _dead_holder(tmp_path)
    before = read_owner(tmp_path / "owner.json")
    assert failure_of(before) is None
    assert bury(tmp_path, before["nonce"] if by == "nonce" else pid, "oom", "killed")
    owner = read_owner(tmp_path / "owner.json")
    assert owner == before | {"released": "died", "failure": "oom", "note": "killed"}
    assert failure_of(owner) == "oom"
    assert not bury(tmp_path, pid, "node", "once is enough")
    taken = Claim.take(tmp_path)
    assert taken is not None
    assert taken.token == 2
    assert failure_of(taken.owner) is None


def test_the_living_the_released_and_the_successor_are_not_buried(tmp_path):
    claim = Claim.take(tmp_path)
    assert not bury(tmp_path, os.getpid(), "node", "")
    claim.release("done")
    assert not bury(tmp_path, os.getpid(), "node", "")
    assert read_owner(tmp_path / "owner.json")["released"] == "done"
    pid = _dead_holder(tmp_path)
    dead = read_owner(tmp_path / "owner.json")["nonce"]
    successor = Claim.take(tmp_path)
    assert not bury(tmp_path, pid, "node", "")
    assert not bury(tmp_path, dead, "node", "")
    successor.check()
    assert not bury(tmp_path / "nothing here", pid, "node", "")


def test_a_failure_has_a_class_and_so_have_those_of_older_versions(tmp_path):
    for failure in FAILURES:
        claim = Claim.take(tmp_path)
        claim.release("failed", "words", failure)
        assert failure_of(read_owner(tmp_path / "owner.json")) == failure
    assert failure_of({"released": "failed", "note": "oom: CUDA out of memory"}) == "oom"
    assert failure_of({"released": "failed", "note": "code: list index out of range"}) == "code"
    assert failure_of({"released": "failed", "note": "KeyError: 'x'"}) == "code"
    assert failure_of({"released": "done", "note": ""}) is None
    assert failure_of({}) is None


def _take_and_release_for_ever(folder, report):
    while True:
        claim = Claim.take(folder)
        report.send(claim.token)
        claim.beat({"step": 1}, force=True)
        claim.release("stopped")


def test_killed_at_any_moment_the_count_goes_on_and_nothing_is_left_behind(tmp_path):
    """A process that does nothing but take and give back is killed 60 times, wherever it happens to be."""
    context, moments = multiprocessing.get_context("fork"), random.Random(3)
    last = 0
    for _ in range(60):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_take_and_release_for_ever, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        for _ in range(moments.randrange(1, 4)):
            token = ours.recv()
            assert token > last  # a number is never given twice, whatever the kill left behind
            last = token
        spin = moments.random() * 2e-3
        until = time.perf_counter() + spin
        while time.perf_counter() < until:
            pass
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = ours.recv()
    claim = Claim.take(tmp_path)
    assert claim.token > last
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".owner.{claim.token}.claim", "owner.json"]


def test_what_a_killed_holder_left_half_written_is_cleared_away_but_no_request(tmp_path):
    (tmp_path / "evaluations").mkdir()
    names = (".checkpoint.pt.0a1b2c3d.tmp", "evaluations/.knn-0.json.0a1b2c3d.tmp", ".owner.0a1b2c3d.old")
    for name in (*names, ".config.json.0a1b2c3d.tmp", "log.txt"):
        (tmp_path / name).touch()
    Claim.take(tmp_path)
    assert not any((tmp_path / name).exists() for name in names)
    assert (tmp_path / ".config.json.0a1b2c3d.tmp").exists()
    assert (tmp_path / "log.txt").exists()


def test_a_torn_claim_does_not_begin_the_count_anew(tmp_path):
    for _ in range(3):
        _dead_holder(tmp_path)
    (tmp_path / "owner.json").write_text("{")
    assert Claim.take(tmp_path).token == 4


def test_killed_between_numbering_its_claim_and_moving_in(tmp_path):
    _dead_holder(tmp_path)
    first = (tmp_path / "owner.json").read_bytes()
    _dead_holder(tmp_path)
    (tmp_path / "owner.json").unlink()  # it shares its content with the numbered claim
    (tmp_path / "owner.json").write_bytes(first)
    assert Claim.take(tmp_path).token == 3


def test_who_is_about_to_move_in_is_not_overtaken(tmp_path):
    _dead_holder(tmp_path)
    first = (tmp_path / "owner.json").read_bytes()
    Claim.take(tmp_path)
    (tmp_path / "owner.json").unlink()  # it shares its content with the numbered claim
    (tmp_path / "owner.json").write_bytes(first)
    assert Claim.take(tmp_path) is None


def test_who_comes_too_late_with_a_number_does_not_get_the_cell(tmp_path):
    """Between judging a holder dead and moving in, another has come and gone, and a third holds the cell."""
    first = Claim.take(tmp_path)
    late = first.owner | {"token": 2, "nonce": "late"}
    first.release("stopped")
    Claim.take(tmp_path).release("stopped")
    third = Claim.take(tmp_path)
    assert not _move_in(tmp_path / "owner.json", late)
    third.check()
    assert Claim.take(tmp_path) is None
