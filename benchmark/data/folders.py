"""The folders that conversions are written into: one writer at a time, no leavings, and what the disk says in a sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmark.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def sweep(folder: Path, prefix: str) -> None:
    """Remove the scratch folders that killed conversions left behind: they can be as large as the data."""
    for left in folder.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path, what: str) -> Iterator[None]:
    """Make `folder` and turn whatever the disk refuses inside the block into one sentence; what: the folder in words.

    Leaving the block by an exception removes the folders made for it, if nothing is in them.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        with suppress(OSError):
            for path in made:
                path.rmdir()
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):  # a pipe is the terminal's, not the disk's
            raise
        if error.errno in _DISK_FULL:
            raise InputError(f"the disk of the {what} {folder} is full ({error.strerror}); free space or move it") from None
        if error.errno == errno.EFBIG:
            raise InputError(
                f"files in the {what} {folder} may not become this large (see ulimit -f); choose another"
            ) from None
        if isinstance(error, PermissionError):
            raise InputError(f"the {what} {folder} cannot be written ({error}); choose another folder") from None
        raise InputError(
            f"the images cannot be converted in {folder} ({error}); free what is in the way and start again"
        ) from None


@contextmanager
def locked(cache: Path, name: str) -> Iterator[bool]:
    """One converter at a time; the lock falls with its process. Where a file system has no locks (False), both just work."""
    with (cache / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the folder itself, so that nothing is left in it; InputError where another process does."""
    handle = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is converting into --out {out}; wait for it or choose another") from None
        yield
    finally:
        os.close(handle)
