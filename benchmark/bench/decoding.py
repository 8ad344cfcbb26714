"""JPEG decoding alone: how fast it is, and how often a loader does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count, cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torchvision.io
from numpy.typing import NDArray

from benchmark.bench.contender import Way
from benchmark.bench.images import Work
from benchmark.bench.ours import open_ours
from benchmark.data.jpegs import decode_jpeg

OURS, TORCHVISION = "JPEG decoding alone", "torchvision's decode_jpeg alone"


def alone(work: Work) -> Mapping[str, Way]:
    """The floor of our loaders: their decoder on the files' bytes in memory, a thread for each core, and nothing else."""
    return {f"{work.cores} threads": partial(_decoded, _bytes(work), decode_jpeg, work)}


def torchvision_alone(work: Work) -> Mapping[str, Way]:
    """The same with the decoder that a torchvision user has."""
    data = [torch.from_numpy(each) for each in _bytes(work)]
    decode = partial(torchvision.io.decode_jpeg, mode=torchvision.io.ImageReadMode.RGB)
    return {f"{work.cores} threads": partial(_decoded, data, decode, work)}


def count_decodes(work: Work, backend: str) -> tuple[int, int]:
    """(images decoded, images delivered) in one epoch of our loader, counted where libjpeg-turbo is entered.

    Those places are exchanged for good: call it in a process of its own.
    """
    calls = count()

    def counting(decode: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            next(calls)  # one step of the interpreter, so threads cannot lose a call
            return decode(*arguments, **named)

        return counted

    for module, name in _decoders():
        setattr(module, name, counting(getattr(module, name)))
    with open_ours(work, backend) as loader:
        before = next(calls)
        delivered = sum(len(batch.index) for batch in loader.epoch(0))
        return next(calls) - before - 1, delivered


def _decoders() -> list[tuple[Any, str]]:
    """Where simplejpeg, torchvision and Pillow enter it, as module and name."""
    found = [(torch.ops.image, "decode_jpeg"), (PIL.Image, "_getdecoder")]
    with suppress(ImportError):
        import simplejpeg

        found.append((simplejpeg, "decode_jpeg"))
    return found


def _bytes(work: Work) -> list[NDArray[np.uint8]]:
    """The files' bytes; names of one file are read once."""
    return [np.fromfile(file, np.uint8) for file in dict.fromkeys(Path(file).resolve() for file in work.files)]


def _decoded(data: Sequence[Any], decode: Callable[[Any], Any], work: Work, number: int) -> Iterator[None]:
    with ThreadPoolExecutor(work.cores) as threads:
        ahead: deque[list[Future[None]]] = deque()
        images = cycle(data)
        for _ in range(number):
            batch = list(islice(images, work.batch))
            shares = pairwise(work.batch * i // work.cores for i in range(work.cores + 1))
            ahead.append([threads.submit(_run, decode, batch[low:high]) for low, high in shares])
            if len(ahead) > 2:
                _wait(ahead.popleft())
                yield
        while ahead:
            _wait(ahead.popleft())
            yield


def _run(decode: Callable[[Any], Any], images: Sequence[Any]) -> None:
    for image in images:
        decode(image)


def _wait(shares: list[Future[None]]) -> None:
    for share in shares:
        share.result()
