"""Which class of failure an exception belongs to: what a user does about it differs, and so does what a launcher may do.

Decided with care for `node`, because whatever is called so may be tried again elsewhere without anybody having a look: only
what speaks of the machine itself counts. A device-side assert, an illegal memory access and an "unspecified launch failure" are
nearly always an index out of range in a kernel: those are `code`, although CUDA reports them as errors of the device.
"""

from __future__ import annotations

import errno
import re

from benchmark.store.owner import FAILURES

_LOST_STORAGE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.ESHUTDOWN)
# CPU and CUDA allocators of torch, cuBLAS, cuDNN, the C library.
_MEMORY = re.compile(
    r"out of memory|DefaultCPUAllocator|not enough memory|STATUS_ALLOC_FAILED|cannot allocate memory|std::bad_alloc", re.I
)
_DEVICE = re.compile(
    r"uncorrectable|\bECC\b|hardware stack error|GPU is lost|fallen off the bus|NVLink|"
    r"no CUDA-capable device|busy or unavailable|CUDA driver is shutting down",
    re.I,
)
# gloo's and NCCL's words for another host that is gone.
_PEER = re.compile(
    r"connection (closed|reset) by peer|broken pipe|remote process exited|no route to host|network is unreachable", re.I
)


def class_of(error: BaseException) -> str:
    """oom | node | diverged | code. An error that says its class itself (`error.failure`) is believed."""
    for one in _chain(error):
        told = getattr(one, "failure", None)
        if told in FAILURES:
            return str(told)
        if isinstance(one, MemoryError) or (isinstance(one, OSError) and one.errno == errno.ENOMEM):
            return "oom"
        if isinstance(one, OSError) and one.errno in _LOST_STORAGE:
            return "node"
        if isinstance(one, RuntimeError):
            if _MEMORY.search(str(one)):
                return "oom"
            if _DEVICE.search(str(one)) or (_PEER.search(str(one)) and _between_ranks(one)):
                return "node"
    return "code"


def first_line(error: BaseException) -> str:
    """What the error says, in a line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from: `raise InputError(...) from error` must not hide that the storage is gone."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__
    return found


def _between_ranks(error: BaseException) -> bool:
    """Whether the error comes from torch.distributed or from a collective of its backends."""
    return type(error).__module__.startswith("torch") or bool(re.search(r"gloo|nccl|rank", str(error), re.I))
