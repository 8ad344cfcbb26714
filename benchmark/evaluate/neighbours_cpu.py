"""Nearest rows on a CPU, in two passes over the bank: bfloat16 says which rows may be near, float64 which of them are.

A processor multiplies matrices in bfloat16 more than twice as fast as in float32. For a query q the order of all q.t is that of

    q.(t - m) = (q - m).(t - m) + m.(t - m)        m the bank's mean; the last term does not depend on q

and how far the first term in bfloat16 is from itself is bounded (`_slack`), the closer the nearer all are to m, as behind a
ReLU or on the way to collapse. So no row whose bound reaches the k-th best is lost:

    pass 1   coarse = q.(t - m) for all rows; keep those with   upper(coarse) >= lower(k-th largest coarse so far)
    pass 2   q.t for what was kept, about k rows and as many again; the k largest are the answer

The answer is the same whatever pass 1 is computed in; it depends on pass 2 alone, in which two rows always give the same number
whatever stands around them. Where very many rows are about equally near, keeping them all is no gain: such queries are crowded.
They are tried again in float32, and those that still are (all rows equal) are handed back.
"""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from benchmark.evaluate.neighbours import unit

_QUERIES = 1 << 13  # that have their candidates in memory
_BLOCK, _CHUNK = 2048, 4096  # queries and rows of a coarse product: 16 MB of bfloat16
_CACHED = 1 << 20  # floats of a part of the bank that all queries visit
_STRIDE = 32  # coarse values that are looked at together
_ALL = -(1 << 31)  # a cut that lets everything pass
# What numba raises where its cache cannot be used: no folder to write to, no room in it, files damaged.
_CACHE_ERRORS = (RuntimeError, OSError, EOFError, pickle.UnpicklingError)


def sieved(queries: Tensor, bank: Tensor, k: int, heed: Callable[[], None] = lambda: None) -> tuple[Tensor, Tensor]:
    """The keys (benchmark.evaluate.neighbours) of the k nearest rows, M x k, best first; and the queries that are crowded,
    whose keys are not there. heed: called between the parts of the bank; may raise."""
    keys = torch.empty(len(queries), k, dtype=torch.int64)
    left = torch.arange(len(queries))
    middle = unit(bank[torch.linspace(0, len(bank) - 1, min(len(bank), _CHUNK)).long()]).mean(dim=0)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for dtype in dict.fromkeys((coarse_dtype(), torch.float32)):
            crowded = []
            for asked in left.split(_QUERIES) if len(left) else ():
                keys[asked], lost = _Sieve(unit(queries[asked]), bank, middle, k, dtype, pool, heed).run()
                crowded.append(asked[lost])
            left = torch.cat([left[:0], *crowded])
    return keys, left


class _Sieve:
    """The queries of one round, m x D unit vectors, and their candidates."""

    def __init__(
        self, queries: Tensor, bank: Tensor, middle: Tensor, k: int, dtype: torch.dtype, pool: ThreadPoolExecutor,
        heed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.heed = heed
        self.queries, self.bank, self.middle, self.k, self.dtype, self.pool = queries, bank, middle, k, dtype, pool
        room = 4 * k + 256  # so that there is room for what bfloat16 cannot tell from the k-th
        self.keys = np.empty((len(queries), room), np.int64)
        self.count = np.zeros(len(queries), np.int64)  # -1: crowded
        self.cut = np.full(len(queries), _ALL, np.int64)

    def run(self) -> tuple[Tensor, Tensor]:
        self._find()
        at, queries = np.zeros(len(self.queries), np.int64), self.queries.numpy()
        for first, part in self._parts(max(1, _CACHED // queries.shape[1])):
            weigh = functools.partial(_kernels()["weigh"], part.numpy(), first)
            self._each(weigh, len(queries), queries, self.keys, self.count, at)
        self._each(functools.partial(_kernels()["largest"], self.k), len(queries), self.keys, self.count)
        best = torch.from_numpy(self.keys[:, : self.k]).sort(dim=1, descending=True).values
        return best, torch.from_numpy(self.count < 0)

    def _find(self) -> None:
        """Pass 1."""
        queries, spread = _rounded(self.queries - self.middle, self.dtype)
        lengths = (self.queries - self.middle).norm(dim=1)
        queries = torch.cat([queries, queries.new_ones(len(queries), 2)], dim=1)
        product = torch.empty(_BLOCK * min(_CHUNK, len(self.bank)), dtype=self.dtype)
        half = self.dtype == torch.bfloat16
        shift, relative = (16, np.float32(0.002)) if half else (0, np.float32(0.0))
        widest, longest, slack = 0.0, 0.0, spread.numpy()  # of the rows so far
        for first, part in self._parts(_CHUNK):
            part -= self.middle
            rows, off = _rounded(part, self.dtype)
            widest = max(widest, float(off.max()))
            longest = max(longest, float(part.norm(dim=1).max() + off.max()))
            slack = _slack(spread, lengths, widest, longest, part.shape[1]).numpy()
            along = part.double() @ self.middle.double()  # in two numbers, which the queries multiply by one
            high = along.to(self.dtype)
            rows = torch.cat([rows, high[:, None], (along - high.double()).to(self.dtype)[:, None]], dim=1)
            sieve = functools.partial(_kernels()["sieve"], first, self.k, shift, relative)
            for begin in range(0, len(queries), _BLOCK):
                some = slice(begin, begin + _BLOCK)
                out = product[: len(queries[some]) * len(rows)].view(-1, len(rows))
                torch.mm(queries[some], rows.T, out=out)
                coarse = out.view(torch.int16 if half else torch.int32).numpy()
                self._each(sieve, len(coarse), coarse, slack[some], self.keys[some], self.count[some], self.cut[some])
            if (self.count < 0).mean() > 0.5:
                self.count[:] = -1
                return
        in_order = functools.partial(_kernels()["in_order"], self.k, shift, relative)
        self._each(in_order, len(queries), slack, self.keys, self.count)

    def _parts(self, size: int) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, len(self.bank), size):
            self.heed()
            yield first, unit(self.bank[first : first + size])

    def _each(self, kernel: Callable[..., None], length: int, *arrays: NDArray[Any]) -> None:
        """Each thread takes a share of the rows of all arrays."""
        threads = torch.get_num_threads()
        shares = [slice(low, high) for low, high in pairwise(length * i // threads for i in range(threads + 1))]
        list(self.pool.map(lambda share: kernel(*(array[share] for array in arrays)), shares))


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # n x D -> n x D, n
    """x in this type, and how long the difference is."""
    made = x.to(dtype)
    return made, (x - made.float()).norm(dim=1)


def _slack(spread: Tensor, lengths: Tensor, widest: float, longest: float, dim: int) -> Tensor:
    """How far a coarse product can be from what it stands for, its own rounding at the end aside.

    With a = q - m of these `lengths`, d = t - m at most `longest`, and a', d' as they are rounded, `spread` and `widest` away:
    |a.d - a'.d'| <= |a| |d - d'| + |a - a'| |d'| by Cauchy and Schwarz; D sums in float32 add D 2^-23 |a'| |d'| at most; m.d in
    two numbers is 2^-17 |d| off, and its sum 2^-22 |d|; the rest is for float32's rounding of t, q and the answer.
    """
    apart = widest * lengths + (spread + dim * 2.0**-23 * (lengths + spread)) * longest
    return (1.01 * (apart + 2.0**-16 * longest) + 4e-7).float()


@functools.cache
def coarse_dtype() -> torch.dtype:
    """bfloat16 where this processor multiplies it faster. Only speed depends on it."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(256, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            a @ b.T
            times.append(time.perf_counter() - begin)
        seconds[dtype] = min(times)
    return torch.bfloat16 if 1.3 * seconds[torch.bfloat16] < seconds[torch.float32] else torch.float32


@functools.cache
def _kernels() -> dict[str, Callable[..., Any]]:
    """Compiled, or from numba's disk cache (NUMBA_CACHE_DIR, or beside this file). They release the interpreter's lock."""
    made: dict[str, Callable[..., Any]] = {}
    written: dict[str, Any] = {"sieve": _sieve, "in_order": _in_order, "weigh": _weigh, "largest": _largest_of_each}
    for name, function in written.items():
        try:
            made[name] = njit(nogil=True, cache=True)(function)
            _warm(name, made[name])
        except _CACHE_ERRORS:  # compiled anew by every process, which takes seconds
            made[name] = njit(nogil=True)(function)
    return made


def _warm(name: str, kernel: Callable[..., Any]) -> None:
    """Call it with no rows, of the types that it is called with."""
    keys, count, zero = np.empty((0, 1), np.int64), np.empty(0, np.int64), np.float32(0)
    wide, slack = np.empty((0, 1), np.float32), np.empty(0, np.float32)
    if name == "sieve":
        for whole, shift in ((np.int16, 16), (np.int32, 0)):
            kernel(0, 1, shift, zero, np.empty((0, 1), whole), slack, keys, count, count)
    elif name == "in_order":
        kernel(1, 0, zero, slack, keys, count)
    elif name == "weigh":
        kernel(wide, 0, wide, keys, count, count)
    else:
        kernel(1, keys, count)


@njit(nogil=True)
def _largest(keys, count, k):  # type: ignore[no-untyped-def]
    """Move the k largest of the first `count` keys, which all differ, to the front, the k-th to its place (Hoare's select)."""
    low, high = 0, count - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break


@njit(nogil=True)
def _shrink(keys, count, k, shift, relative, slack, cell):  # type: ignore[no-untyped-def]
    """Keep those of the first `count` keys that can be as near as the k-th largest; (how many, the least coarse value of such).

    cell: one float32, to reach the bits of numbers.
    """
    _largest(keys, count, k)
    bits = cell.view(np.int32)
    whole = np.int32((keys[k - 1] >> 32) << shift)
    bits[0] = whole ^ ((whole >> 31) & 0x7FFFFFFF)
    least = cell[0] - relative * abs(cell[0]) - np.float32(2) * slack
    cell[0] = least / (np.float32(1) + relative) if least > 0 else least / (np.float32(1) - relative)
    whole = bits[0] ^ ((bits[0] >> 31) & 0x7FFFFFFF)
    cut = max((np.int64(whole) >> shift) - 1, _ALL)  # rounded down, and one more for the rounding of the lines above
    n = k
    for i in range(k, count):
        if keys[i] >> 32 >= cut:
            keys[n] = keys[i]
            n += 1
    return n, cut


def _sieve(first, k, shift, relative, coarse, slack, keys, count, cut):  # type: ignore[no-untyped-def]
    """Take in the coarse products (m x n integers, the bits of bfloat16 or float32) with the rows from `first` on."""
    sign, mask, room = 31 - shift, 0x7FFFFFFF >> shift, keys.shape[1]
    cell, level = np.empty(1, np.float32), np.empty(1, coarse.dtype)
    for r in range(coarse.shape[0]):
        values, row, n, least = coarse[r], keys[r], count[r], np.int32(cut[r])
        for begin in range(0, len(values), _STRIDE):
            if n < 0:
                break
            end = min(begin + _STRIDE, len(values))
            level[0] = least if least > 0 else -1 - mask  # bits of positive floats are in the floats' order as they are
            bound, some = level[0], False
            for j in range(begin, end):  # becomes a few wide instructions
                some |= values[j] >= bound
            if not some:
                continue
            for j in range(begin, end):
                whole = np.int32(values[j])
                whole ^= (whole >> sign) & mask
                if whole < least:
                    continue
                row[n] = (np.int64(whole) << 32) | (0xFFFFFFFF - (first + j))
                n += 1
                if n == room:
                    n, cut[r] = _shrink(row, n, k, shift, relative, slack[r], cell)
                    least = np.int32(cut[r])
                    if n > room - (room - k) // 4:
                        n = -1
                        break
        count[r] = n


def _in_order(k, shift, relative, slack, keys, count):  # type: ignore[no-untyped-def]
    """Shrink once more, and replace each query's keys by the rows they name, in ascending order."""
    cell = np.empty(1, np.float32)
    for r in range(len(keys)):
        if count[r] < 0:
            continue
        row = keys[r]
        count[r], _ = _shrink(row, count[r], k, shift, relative, slack[r], cell)
        for i in range(count[r]):
            row[i] = 0xFFFFFFFF - (row[i] & 0xFFFFFFFF)
        row[: count[r]].sort()


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float64(0)
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


def _weigh(part, first, queries, keys, count, at):  # type: ignore[no-untyped-def]
    """Replace the rows that lie in this part of the bank by the keys of their products; at: how far each query is."""
    cell = np.empty(1, np.float32)
    bits, last = cell.view(np.int32), first + len(part)
    for r in range(len(queries)):
        row, i = keys[r], at[r]
        while i < count[r] and row[i] < last:
            cell[0] = _dot(queries[r], part[row[i] - first])
            whole = bits[0] ^ ((bits[0] >> 31) & 0x7FFFFFFF)
            row[i] = (np.int64(whole) << 32) | (0xFFFFFFFF - row[i])
            i += 1
        at[r] = i


def _largest_of_each(k, keys, count):  # type: ignore[no-untyped-def]
    for r in range(len(keys)):
        if count[r] >= 0:
            _largest(keys[r], count[r], k)
