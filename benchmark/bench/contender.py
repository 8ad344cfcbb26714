"""Contenders of a comparison: processes that make batches when asked to, in turns, and tell how fast.

Each lives in a process of its own, so that thread counts, forked workers and allocators of one cannot reach another, and is
idle while another is measured: a measurement is a whole number of batches, after which nothing is left in the making.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol, Self

from benchmark.errors import InputError

Announce = Callable[[str], None]

_CHOICE = 2.0  # seconds for which each way is measured, once warm, before one is chosen
_LEAST = 8  # batches of each worker in a measurement: those delivered in a burst at its start must not matter

# One way to make batches: called with a count, it yields after each of so many batches and leaves no work behind.
Way = Callable[[int], Iterator[object]]


class Work(Protocol):
    """What all contenders of one comparison are given: `batch` images a batch, `cores` processes or threads."""

    @property
    def batch(self) -> int: ...

    @property
    def cores(self) -> int: ...


# Called in the contender's process; gives its ways by name, of which the fastest competes.
Build = Callable[[Any], Mapping[str, Way]]


@dataclass(frozen=True)
class Entry:
    """A contender: its name in the record, and how its process sets it up."""

    name: str
    build: Build


class Contender:
    """The process of an entry. `way` is what it competes with, `rates` images/s of all its ways in the warm-up."""

    def __init__(self, entry: Entry, work: Work) -> None:
        self.name, self.way, self.rates = entry.name, "", dict[str, float]()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, entry.build, work))
        self._process.start()
        theirs.close()

    def prepare(self) -> None:
        """Set up and warm up; Unavailable says why it cannot compete."""
        self.way, self.rates = self._answer()

    def measure(self, seconds: float) -> float:
        """Images per second over about so many seconds."""
        self._pipe.send(seconds)
        rate: float = self._answer()
        return rate

    def _answer(self) -> Any:
        try:
            answer, error = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise Unavailable(f"its process ended with exit code {self._process.exitcode}") from None
        if error:
            raise Unavailable(error)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()  # the process reads this as the end
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


class Unavailable(Exception):
    """A contender that cannot be measured; the message says why."""


@dataclass(frozen=True)
class Contest:
    """rates: images/s of each repetition, by contender. ways: what each competed with. absent: who could not, and why."""

    rates: dict[str, list[float]]
    ways: dict[str, str]
    absent: dict[str, str]


def contest(entries: Sequence[Entry], work: Work, repetitions: int, seconds: float, announce: Announce) -> Contest:
    """Measure all entries in turns, `repetitions` times about `seconds` seconds each."""
    found = Contest({}, {}, {})
    with ExitStack() as stack:
        ready = []
        for entry in entries:
            announce(f"warming up {entry.name}")
            contender = stack.enter_context(Contender(entry, work))
            try:
                contender.prepare()
            except Unavailable as error:
                found.absent[entry.name] = str(error)
            else:
                ready.append(contender)
                found.rates[entry.name] = []
                found.ways[entry.name] = _words(contender)
        for number in range(repetitions):
            for contender in list(ready):
                announce(f"repetition {number + 1} of {repetitions}: {contender.name}")
                try:
                    found.rates[contender.name].append(contender.measure(seconds))
                except Unavailable as error:  # a contender that fails half-way is out
                    ready.remove(contender)
                    del found.rates[contender.name]
                    found.absent[contender.name] = str(error)
    return found


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process and give back what it returns; Unavailable says what went wrong there."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        answer, error = ours.recv()
    except EOFError:
        process.join()
        raise Unavailable(f"its process ended with exit code {process.exitcode}") from None
    process.join()
    if error:
        raise Unavailable(error)
    return answer


def _words(contender: Contender) -> str:
    """ "PIL images; tensors made 640 images/s" """
    others = [f"{name}: {rate:,.0f} images/s" for name, rate in contender.rates.items() if name != contender.way]
    return "; slower in the warm-up, ".join([contender.way, ", ".join(others)]) if others else contender.way


def _serve(pipe: Connection, build: Build, work: Work) -> None:
    try:
        ways = dict(build(work))
        rates = {name: _rate(way, work, 0.0, 0.0) for name, way in ways.items()}
        if len(ways) > 1:
            rates = {name: _rate(way, work, _CHOICE, rates[name]) for name, way in ways.items()}
        best = max(rates, key=lambda name: rates[name])
        way = ways.pop(best)
        ways.clear()  # ends the workers of the others
        pipe.send(((best, rates), None))
        expected = rates[best]
        while True:
            seconds = pipe.recv()
            expected = _rate(way, work, seconds, expected)
            pipe.send((expected, None))
    except EOFError:
        return
    except Exception as error:  # whatever it is, the others go on
        pipe.send((None, _sentence(error)))


def _rate(way: Way, work: Work, seconds: float, expected: float) -> float:
    """Images per second, from the moment on at which every worker has delivered twice, to the last batch.

    The number of batches is a multiple of the workers, who end together.
    """
    lead = 2 * work.cores
    turns = max(_LEAST, math.ceil(seconds * expected / work.batch / work.cores))
    begin = end = 0.0
    for number, _ in enumerate(way(lead + turns * work.cores)):
        end = time.perf_counter()
        if number == lead - 1:
            begin = end
    return turns * work.cores * work.batch / (end - begin)


def _call(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send((function(*arguments), None))
    except Exception as error:
        pipe.send((None, _sentence(error)))


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed (make bench installs what is compared)"
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
