"""JPEG decoding alone: how fast it is, and how often a loader does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmark.bench.contender import Way
from benchmark.bench.images import Work
from benchmark.bench.ours import open_ours

NAME = "decode_jpeg alone"


def alone(work: Work) -> Mapping[str, Way]:
    """The floor of any loader: torchvision's decode_jpeg (libjpeg-turbo) on the bytes in memory, a thread for each core."""
    files = list({Path(file).resolve(): None for file in work.files})
    data = [torch.from_numpy(np.fromfile(file, np.uint8)) for file in files]
    return {f"{work.cores} threads": partial(_decoded, data, work)}


def count_decodes(work: Work, backend: str) -> tuple[int, int]:
    """(images decoded, images delivered) in one epoch of our loader, counted at libjpeg-turbo's own entry point."""
    decode, calls = torch.ops.image.decode_jpeg, count()

    def counting(*arguments: Any) -> Any:
        next(calls)  # one step of the interpreter, so threads cannot lose a call
        return decode(*arguments)

    torch.ops.image.decode_jpeg = counting  # type: ignore[attr-defined]
    with open_ours(work, backend) as loader:
        before = next(calls)
        delivered = sum(len(batch.index) for batch in loader.epoch(0))
        return next(calls) - before - 1, delivered


def _decoded(data: list[Tensor], work: Work, number: int) -> Iterator[None]:
    with ThreadPoolExecutor(work.cores) as threads:
        ahead: deque[list[Future[None]]] = deque()
        images = cycle(data)
        for _ in range(number):
            batch = list(islice(images, work.batch))
            shares = pairwise(work.batch * i // work.cores for i in range(work.cores + 1))
            ahead.append([threads.submit(_run, batch[low:high]) for low, high in shares])
            if len(ahead) > 2:
                _wait(ahead.popleft())
                yield
        while ahead:
            _wait(ahead.popleft())
            yield


def _run(images: list[Tensor]) -> None:
    for image in images:
        decode_jpeg(image, mode=ImageReadMode.RGB)


def _wait(shares: list[Future[None]]) -> None:
    for share in shares:
        share.result()
