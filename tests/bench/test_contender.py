"""Contenders in processes of their own, with work that takes a known time."""

import os
import time
from dataclasses import dataclass
from functools import partial

import pytest

from benchmark.bench.contender import Entry, Unavailable, alone, contest
from benchmark.errors import InputError


@dataclass(frozen=True)
class Sleeps:
    batch: int = 100
    cores: int = 2


def sleeping(seconds, count):
    assert count % 2 == 0
    for _ in range(count):
        time.sleep(seconds)
        yield


def slow(work):
    return {"only way": partial(sleeping, 0.02)}


def of_two_ways(work):
    return {"worse": partial(sleeping, 0.02), "better": partial(sleeping, 0.005)}


def without_a_library(work):
    import no_such_library  # noqa: F401


def in_pieces(work):
    os._exit(3)


def test_the_fastest_way_competes_and_who_cannot_is_named():
    said = []
    entries = [Entry("slow", slow), Entry("fast", of_two_ways), Entry("absent", without_a_library), Entry("dead", in_pieces)]
    found = contest(entries, Sleeps(), repetitions=2, seconds=0.1, announce=said.append)
    assert {name: len(rates) for name, rates in found.rates.items()} == {"slow": 2, "fast": 2}
    assert max(found.rates["slow"]) <= 5_000 < 20_000 * 0.5 < max(found.rates["fast"]) <= 20_000
    assert found.ways["fast"].startswith("better; slower in the warm-up, worse: ")
    assert "no_such_library is not installed" in found.absent["absent"] and "exit code 3" in found.absent["dead"]
    measured = [text.split(": ")[1] for text in said if text.startswith("repetition")]
    assert measured == ["slow", "fast", "slow", "fast"]  # in turns


def refuse(reason):
    raise InputError(reason)


def test_a_function_runs_alone_and_its_error_is_a_sentence():
    assert alone(os.getpid) != os.getpid()
    with pytest.raises(Unavailable, match=r"^the file is missing$"):
        alone(refuse, "the file is missing")
    with pytest.raises(Unavailable, match="exit code 3"):
        alone(in_pieces, None)
