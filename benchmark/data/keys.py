"""Randomness as a function: a number for every (stream, counter, draw), with no generator state to carry or to restore.

The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). A stream is a key made of a few integers, for example (seed, epoch, view); inside a stream every
counter, for example a sample's index, owns a SplitMix64 sequence whose n-th output is its n-th draw. So any draw can be had
alone, in any order, in any process, and a run that is cut and resumed sees the very same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: SplitMix64's increment
# What a stream is for is the first part of its key, so that no two purposes ever share numbers.
VIEWS, SHAPES, ORDER, SHARED_CROP, PATCHES, SUBSET, NOISE = range(1, 8)
_MASK = (1 << 64) - 1
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix(value: int) -> int:
    """SplitMix64's finalizer on one integer, modulo 2**64."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * MULTIPLIERS[0]) & _MASK
    value = ((value ^ (value >> 27)) * MULTIPLIERS[1]) & _MASK
    return value ^ (value >> 31)


def stream(*parts: int) -> int:
    """A 64-bit key for a sequence of integers; every part and its place matter."""
    key = 0
    for part in parts:
        key = mix(key + GOLDEN + mix(part + GOLDEN))
    return key


def mix_array(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same finalizer on an array, in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(MULTIPLIERS[0])
    values ^= values >> np.uint64(27)
    values *= np.uint64(MULTIPLIERS[1])
    values ^= values >> np.uint64(31)
    return values


def counters(key: int, indices: NDArray[np.integer]) -> NDArray[np.uint64]:
    """One sequence start per index (N,) in the stream `key`; feed it to `bits` or `uniform`."""
    starts = indices.astype(np.uint64)  # a copy: mixed in place below
    starts += np.uint64(1)
    starts *= np.uint64(GOLDEN)
    starts += np.uint64(key)
    return mix_array(starts)


def bits(starts: NDArray[np.uint64], draw: int) -> NDArray[np.uint64]:
    """Draw number `draw` of every sequence, as 64 random bits (N,)."""
    return mix_array(starts + np.uint64(((draw + 1) * GOLDEN) & _MASK))


def uniform(starts: NDArray[np.uint64], draw: int) -> NDArray[np.float64]:
    """Draw number `draw` of every sequence, uniform in [0, 1) with 53 bits (N,)."""
    return (bits(starts, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """A random order of `items` (N,): sorted by each item's own key, so independent of the order they come in."""
    items = np.sort(items)
    return items[np.argsort(bits(counters(key, items), 0), kind="stable")]
