"""Images per second of our loaders and of what people use today, on small images and on JPEG files of photographs' size."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.bench import images
from benchmark.bench.contender import Announce, Contest, Entry, Unavailable, alone, contest
from benchmark.bench.images import Work
from benchmark.bench.record import Goal, Missing, Outcome, compared, measured
from benchmark.launch.machine import cores
from methods.views import RECIPES, ViewConfig, multi_crop

UNIT = "images/s"
TORCHVISION, LIGHTLY, KORNIA, KORNIA_COMPILED = "torchvision v2", "lightly", "kornia", "kornia, compiled"
SMALL = "two views, 32 x 32"
TWO_VIEWS, MULTI_CROP = "two views of 224 from JPEG", "2 x 224 + 6 x 96 from JPEG"
_SMALL_GOALS = {TORCHVISION: 25.0, LIGHTLY: 15.0, KORNIA: 8.0}
_LARGE_GOALS = {TWO_VIEWS: 3.0, MULTI_CROP: 5.0}


@dataclass(frozen=True)
class Effort:
    """How long to measure: repetitions of about `seconds` each; batch sizes; how many JPEG files; whether to compile kornia."""

    repetitions: int = 5
    seconds: float = 5.0
    small_batch: int = 256
    large_batch: int = 32
    files: int = 1024
    compiled: bool = True


QUICK = Effort(repetitions=2, seconds=0.3, small_batch=128, large_batch=8, files=32, compiled=False)


def small(work: Work, effort: Effort, announce: Announce) -> Outcome:
    """The full SimCLR recipe, two views, all images in memory."""
    from benchmark.bench import ours, peers

    mine = {ours.name(backend): build for backend, build in ours.BUILD.items()}
    entries = [Entry(name, build) for name, build in mine.items()]
    entries += [Entry(TORCHVISION, peers.torchvision), Entry(LIGHTLY, peers.lightly), Entry(KORNIA, peers.kornia)]
    if effort.compiled:
        entries.append(Entry(KORNIA_COMPILED, peers.kornia_compiled))
    found = contest(entries, work, effort.repetitions, effort.seconds, _prefixed(announce, SMALL))
    goals = {name: Goal(ratio=times) for name, times in _SMALL_GOALS.items()}
    return _compare(SMALL, found, list(mine), [entry.name for entry in entries[len(mine) :]], goals)


def large(work: Work, bench: str, effort: Effort, announce: Announce) -> Outcome:
    """Views of JPEG files, with decoding alone beside it: its share of our time, and how often an image is decoded."""
    from benchmark.bench import decoding, ours, peers

    mine = {ours.name(backend): backend for backend in ("ffcv", "torch")}
    entries = [Entry(name, ours.BUILD[backend]) for name, backend in mine.items()]
    entries += [Entry(TORCHVISION, peers.torchvision), Entry(decoding.OURS, decoding.alone)]
    entries.append(Entry(decoding.TORCHVISION, decoding.torchvision_alone))
    announce = _prefixed(announce, bench)
    found = contest(entries, work, effort.repetitions, effort.seconds, announce)
    outcome = _compare(bench, found, list(mine), [TORCHVISION], {TORCHVISION: Goal(ratio=_LARGE_GOALS[bench])})
    for name in (name for name in (decoding.OURS, decoding.TORCHVISION) if name in found.rates):
        outcome.results.append(measured(bench, name, UNIT, found.rates[name], detail=found.ways[name]))
    floor = found.rates.get(decoding.OURS)
    if floor:
        for name in (name for name in mine if name in found.rates):
            shares = [100 * rate / decoded for rate, decoded in zip(found.rates[name], floor, strict=True)]
            detail = "one decode an image at that speed, of the time that the loader takes for it"
            outcome.results.append(measured(f"share of JPEG decoding, {bench}", name, "%", shares, detail=detail))
    what = f"JPEG decodes for {len(work.views)} views"
    for name in (name for name in mine if name in found.rates):
        announce(f"counting decodes of {name}")
        try:
            decoded, delivered = alone(decoding.count_decodes, work, mine[name])
        except Unavailable as error:
            outcome.missing.append(Missing(what, name, str(error)))
        else:
            detail = f"{decoded} decodes for {delivered} images"
            outcome.results.append(measured(what, name, "an image", [decoded / delivered], Goal(most=1.0), detail))
    return outcome


def run(
    data: str | None, folder: Path | None, cache: Path, effort: Effort, announce: Announce
) -> tuple[Outcome, dict[str, str]]:
    """Everything above; and words on the images."""
    dataset, words = images.small(data, cache, announce)
    view = RECIPES["simclr"][0]
    work = Work(dataset, (), (view, view), images.SMALL_SIDE, effort.small_batch, cores())
    outcome = small(work, effort, announce)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache) as scratch:
        dataset, files, large_words = images.photographs(folder, effort.files, Path(scratch), announce)
        for bench, views in large_views(view).items():
            outcome.add(large(Work(dataset, files, views, 224, effort.large_batch, cores()), bench, effort, announce))
    return outcome, {"small": words, "JPEG": large_words}


def large_views(view: ViewConfig) -> dict[str, tuple[ViewConfig, ...]]:
    """Two views of 224, and SwAV's eight crops with the same law of colours."""
    return {
        TWO_VIEWS: multi_crop([view], [(2, 224, view.crop_scale)]),
        MULTI_CROP: multi_crop([view], [(2, 224, (0.14, 1.0)), (6, 96, (0.05, 0.14))]),
    }


def _compare(bench: str, found: Contest, mine: Sequence[str], peers: Sequence[str], goals: dict[str, Goal]) -> Outcome:
    """Every peer by itself, then each of our loaders beside each. Goals are for our first: what backend "auto" takes."""
    outcome = Outcome(missing=[Missing(bench, name, why) for name, why in found.absent.items()])
    for name in peers:
        if name in found.rates:
            outcome.results.append(measured(bench, name, UNIT, found.rates[name], detail=found.ways[name]))
    present = [name for name in mine if name in found.rates]
    for name in present:
        rates, way = found.rates[name], found.ways[name]
        for peer in (peer for peer in peers if peer in found.rates):
            goal = goals.get(peer) if name == present[0] else None
            outcome.results.append(compared(bench, name, UNIT, rates, peer, found.rates[peer], goal, way))
        if not any(peer in found.rates for peer in peers):
            outcome.results.append(measured(bench, name, UNIT, rates, detail=way))
    return outcome


def _prefixed(announce: Announce, bench: str) -> Announce:
    def say(text: str) -> None:
        announce(f"{bench}: {text}")

    return say
