"""The k nearest rows of a bank by cosine similarity: exact, and in bounded memory whatever the bank's size.

Bank and queries are walked in pieces; of every query only its best so far are kept. So the bank may stay in main memory, in
half precision too, while a GPU compares. Among equally similar rows the earlier one is nearer, so that ties do not depend on
the sizes of the pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

LOW = 0xFFFFFFFF  # the lower half of a key
_EMPTY = -(1 << 63)
_CHUNK = {"cpu": 1 << 12, "cuda": 1 << 16}  # rows of the bank
_ENTRIES = {"cpu": 1 << 21, "cuda": 1 << 27}  # similarities that are held at a time


def nearest(
    queries: Tensor, bank: Tensor, k: int, device: torch.device | None = None, heed: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """(cosine similarity M x k, float32, best first; rows of the bank M x k, int64) of queries M x D, bank N x D, 1 <= k <= N.

    Computed on `device`, by default the bank's, where the answers are. Rows are compared as float32 unit vectors, a row of
    zeros as the origin. ValueError where a feature is not finite. heed: called between the pieces; may raise, to give up.
    """
    where = device or bank.device
    if not 1 <= k <= len(bank) or len(bank) > LOW:
        raise ValueError(f"{k} neighbours among {len(bank)} rows")
    if where.type == "cpu" and find_spec("numba") is not None:
        from benchmark.evaluate.neighbours_cpu import sieved

        keys, crowded = sieved(queries.to(where), bank.to(where), k, heed)
        if len(crowded):
            keys[crowded] = compared(queries[crowded.to(queries.device)], bank, k, where, heed=heed)
    else:
        keys = compared(queries, bank, k, where, heed=heed)
    return similarity_of(keys), LOW - (keys & LOW)


def compared(
    queries: Tensor, bank: Tensor, k: int, where: torch.device, chunk: int = 0, heed: Callable[[], None] = lambda: None
) -> Tensor:  # -> M x k, int64
    """The keys of the k nearest rows, best first, by comparing every query with every row, `chunk` rows at a time."""
    keys = torch.full((len(queries), k), _EMPTY, device=where)
    kind = "cuda" if where.type == "cuda" else "cpu"
    chunk = min(chunk or _CHUNK[kind], len(bank))
    block = max(1, _ENTRIES[kind] // (chunk + k))
    for first in range(0, len(bank), chunk):
        part = unit(bank[first : first + chunk].to(where))
        rows = LOW - torch.arange(first, first + len(part), device=where)
        for begin in range(0, len(queries), block):
            heed()
            asked = slice(begin, begin + block)
            similarity = unit(queries[asked].to(where)) @ part.T
            least = similarity_of(keys[asked, -1])  # so far; at first not a number
            some = (~(similarity.amax(dim=1) <= least)).nonzero()[:, 0]  # of equals the earlier row is kept
            found = ordered((similarity[some] + 0.0).view(torch.int32)).long() << 32 | rows  # -0.0 is 0.0
            keys[begin + some] = torch.cat([keys[begin + some], found], dim=1).topk(k, dim=1).values
    return keys


def ordered(bits: Tensor) -> Tensor:  # int32 -> int32
    """Numbers in the order of the floats that have these bits; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def similarity_of(keys: Tensor) -> Tensor:  # int64 -> float32
    """A key has the similarity in its upper half, as an ordered number, and the row, counted from above, in its lower half:
    all keys of a query differ, the largest are the nearest, and of equals the earliest."""
    return ordered((keys >> 32).int()).view(torch.float32)


def unit(x: Tensor) -> Tensor:  # n x D -> n x D, float32
    """Rows of length one, or of zeros; ValueError where something is not finite."""
    wide = x.float()
    length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    if not length.isfinite().all():
        raise ValueError("knn: some features are not finite, or too large for float32")
    return wide / length.clamp_min(1e-12)
