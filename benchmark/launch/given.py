"""The data sets a sweep needs: where the user says they lie, converted if need be, or what is missing in one sentence."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmark.data import boxes
from benchmark.data.boxes import BoxSource
from benchmark.data.convert import Progress
from benchmark.data.datasets import SIDES, Dataset, Source, find, prepare, prepared
from benchmark.errors import InputError, nearest
from benchmark.plan.evaluations import Protocol, content_of, labels_file
from benchmark.plan.resolve import UNPREPARED


def given_data(arguments: list[str] | None, names: list[str], of_boxes: list[str]) -> dict[str, Path]:
    """--data, or RETABLE_DATA: data set -> path. names: of the images that are needed, of_boxes: of the detection data.

    A path without a name can only mean the one set of images that is needed. InputError where images are needed that are not
    known and have no path: a misspelt name must not run.
    """
    known = list(dict.fromkeys([*SIDES, *names, *boxes.NAMES]))
    variable = os.environ.get("RETABLE_DATA")
    texts = list(arguments or [])
    if variable and all(text.partition("=")[0] in boxes.NAMES and "=" in text for text in texts):
        texts.append(variable)  # nobody has said otherwise of the images
    given = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if equals and name in known:
            given[name] = Path(path)
        elif equals and not Path(text).exists() and "/" not in name:
            raise InputError(f"--data {text}: unknown data set '{name}'; allowed: {', '.join(known)}{nearest(name, known)}")
        elif len(real := [name for name in names if name != "shapes"]) > 1:
            raise InputError(f"--data {text}: say which data set this is, {' or '.join(f'{name}={text}' for name in real)}")
        else:
            given |= {name: Path(text) for name in real if name in SIDES}
    for name in names:
        if name not in SIDES and name not in given:
            raise InputError(
                f"data.name: unknown data set '{name}'; known are {', '.join(SIDES)}, give the images of any other with "
                f"--data {name}=PATH{nearest(name.lower(), SIDES)}"
            )
    return given


def find_boxes(names: list[str], given: dict[str, Path], cache: Path, looking: bool) -> tuple[dict[str, BoxSource], list[str]]:
    """The detection data sets by name; when only looking, those that are at hand and can be read. And what to say."""
    found: dict[str, BoxSource] = {}
    notices = []
    for name in names:
        try:
            # Looking writes nothing into a store that is not there yet; what is remembered then lies elsewhere.
            found[name] = boxes.find_boxes(name, given.get(name), cache if cache.exists() or not looking else None)
        except InputError as error:
            if not looking:
                raise
            notices.append(f"{error} (until then the ids of evaluations on {name} are provisional)")
    return found, notices


class OutOfTime(Exception):
    """The deadline was reached while a data set was being converted; nothing of the conversion is kept."""


def prepare_images(
    names: list[str],
    given: dict[str, Path],
    cache: Path,
    converting: Callable[[Source], AbstractContextManager[Progress]] | None,
    until: float | None = None,
) -> tuple[dict[str, Dataset], list[str]]:
    """The sets of images by name, converted if need be. And what to say.

    converting: shows the progress of a conversion; None only looks, and takes those that are already there. until: seconds
    since the epoch after which a conversion ends with OutOfTime.
    """
    datasets: dict[str, Dataset] = {}
    notices = []
    for name in names:
        try:
            source = find(name, given.get(name), cache)
        except InputError as error:
            if converting is not None:
                raise
            notices.append(str(error))
            continue
        found = prepared(source, cache)
        if found is None and converting is not None:
            with converting(source) as progress:
                found = prepare(source, cache, progress=_in_time(progress, source.name, until))
        if source.notice:
            notices.append(source.notice)
        if found is None:
            notices.append(f"{name} is not converted yet, so the ids below are provisional")
        else:
            datasets[name] = found
            if found.name != name and found.note not in notices:  # the download failed just now
                notices.append(found.note)
    return datasets, notices


def _in_time(progress: Progress, name: str, until: float | None) -> Progress:
    def told(what: str, done: int, total: int) -> None:
        if until is not None and time.time() >= until:
            raise OutOfTime(
                f"the deadline was reached in the conversion of {name} ({done:,} of {total:,} images, none of which are kept); "
                f"give it more time, or convert first with python -m benchmark.data"
            )
        progress(what, done, total)

    return told


def not_here(protocols: Iterable[Protocol]) -> list[str]:
    """What else these protocols need of this machine and has not, a sentence each: lists of labelled images, detectron2."""
    problems = []
    for protocol in protocols:
        listed = labels_file(protocol)
        if listed is not None and content_of(listed) == UNPREPARED:
            problems.append(f"{protocol['name']}: its list of labelled images {listed} is no file that can be read")
        if protocol.get("engine") == "detectron2" and importlib.util.find_spec("detectron2") is None:
            advice = "install it as the README says under Detection, or set engine to builtin"
            problems.append(f"{protocol['name']}.engine is 'detectron2', which is not installed here; {advice}")
    return list(dict.fromkeys(problems))
