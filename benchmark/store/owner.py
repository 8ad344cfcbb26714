"""Who runs a cell: a claim that exactly one process holds, kept alive by a heartbeat, taken over when its holder is gone.

`owner.json` appears whole and only where there is none (a hard link), so of two processes one wins. Its `token` counts the
times the cell has been started, its `nonce` names this start: a holder whose nonce is no longer there has been replaced and
must not write (a node that was declared lost may still be alive).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.store.record import read_json, storage_error, write_json

HEARTBEAT = 10.0  # seconds between heartbeats
STALE = 120.0  # seconds without one after which a holder on another host counts as gone
# Why a cell has no number. oom: memory of the GPU or the machine; timeout, preempted: SLURM took the node away; node: the
# machine, its storage or another one of the same cell; diverged: numbers that were not finite; code: everything else.
FAILURES = ("oom", "timeout", "preempted", "node", "diverged", "code")


class Replaced(Exception):
    """Another process has taken this cell over; stop without writing."""


def process_start(pid: int) -> str | None:
    """When the process started, in clock ticks since boot: tells a process from a later one with the same number.

    None where there is none; one that is dead and only waits for its parent to notice counts as none.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (OSError, IndexError, ValueError):
        return None


def alive(owner: dict[str, Any]) -> bool:
    """Whether the holder still runs: asked of the system on its own host, judged by the heartbeat elsewhere."""
    if owner.get("released") or not owner:
        return False
    if owner["host"] == socket.gethostname():
        started = process_start(owner["pid"])
        return started is not None and started == owner.get("process_start")
    return time.time() - owner["heartbeat"] < STALE


def read_owner(path: Path) -> dict[str, Any]:
    """The claim in a file, or an empty one where it is absent, torn or not a claim: nobody holds such a cell."""
    try:
        owner = read_json(path)
    except InputError:
        return {}
    kinds = {"token": int, "host": str, "pid": int, "heartbeat": int | float, "progress": dict}
    return owner if all(isinstance(owner.get(key), kind) for key, kind in kinds.items()) else {}


def failure_of(owner: dict[str, Any]) -> str | None:
    """The class of failure that a claim tells of, or None. Those of older versions have it in front of their note."""
    told = owner.get("failure")
    if told in FAILURES:
        return str(told)
    if owner.get("released") != "failed":
        return None
    before, colon, _ = str(owner.get("note") or "").partition(":")
    return before if colon and before in FAILURES else "code"


def bury(folder: Path, who: str | int, failure: str, note: str) -> bool:
    """Say why a holder is gone that could not say so itself: `released` becomes `died`, which is as good as interrupted.

    who: the nonce of its claim, or its process number on this host. False where that claim is no longer there, has been
    released, or its holder still runs. Another process that takes the cell over meanwhile comes first.
    """
    path = folder / "owner.json"
    owner = read_owner(path)
    mine = owner.get("nonce") == who if isinstance(who, str) else _is_process(owner, who)
    if not mine or owner.get("released") or alive(owner) or not _set_aside(path, owner):
        return False
    return _place(path, owner | {"released": "died", "failure": failure, "note": note})


def _is_process(owner: dict[str, Any], pid: int) -> bool:
    return owner.get("pid") == pid and owner.get("host") == socket.gethostname()


class Claim:
    """A held cell. Use `Claim.take`; call `beat` now and then, `check` before writing, `release` at the end."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        self.path = path
        self.owner = owner
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def token(self) -> int:
        return int(self.owner["token"])

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """The claim on this cell's folder, or None when a living process holds it."""
        path = folder / "owner.json"
        token = 1
        for _ in range(8):
            if path.exists():
                owner = read_owner(path)
                if alive(owner):
                    return None
                token = owner.get("token", 0) + 1
                if not _set_aside(path, owner):
                    continue  # somebody else was quicker; look again
            fresh = {
                "token": token,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_start": process_start(os.getpid()),
                "job": os.environ.get("SLURM_JOB_ID"),
                "nonce": uuid.uuid4().hex,
                "started": time.time(),
                "heartbeat": time.time(),
                "progress": {},
            }
            if _place(path, fresh):
                return cls(path, fresh)
        return None

    def beat(self, progress: dict[str, Any] | None = None, force: bool = False) -> None:
        """Say that the holder lives and how far it is; cheap, writes at most every HEARTBEAT seconds unless forced."""
        with self._lock:
            if progress is not None:
                self.owner["progress"] = progress
            if not force and time.monotonic() - self._last < HEARTBEAT:
                return
            self._last = time.monotonic()
            self.check()
            self.owner["heartbeat"] = time.time()
            write_json(self.path, self.owner)

    def keep_alive(self) -> None:
        """Beat from a thread as well, until release: reading data or fitting a probe can take longer than STALE."""

        def run() -> None:
            while not self._over.wait(HEARTBEAT):
                with contextlib.suppress(Replaced, InputError):  # the working thread finds out by itself
                    self.beat()

        threading.Thread(target=run, daemon=True, name="heartbeat").start()

    def check(self) -> None:
        """Raise Replaced if the cell has been taken over."""
        for patience in (0.05, 0.5, 0.0):  # a rival may have put the file aside for an instant, to find it alive
            try:
                nonce = read_json(self.path).get("nonce")
            except InputError:
                nonce = None
            if nonce == self.owner["nonce"]:
                return
            if nonce is not None:
                break
            time.sleep(patience)
        raise Replaced(f"{self.path}: this cell has been taken over by another process")

    def release(self, state: str, note: str = "", failure: str | None = None) -> None:
        """Give the cell back: `done`, `stopped` (work left, checkpoint written) or `failed` with a note and one of FAILURES."""
        self._over.set()
        with self._lock:
            try:
                self.check()
            except Replaced:
                return
            self.owner |= {"released": state, "note": note, "heartbeat": time.time()}
            if failure is not None:
                self.owner["failure"] = failure
            write_json(self.path, self.owner)


def _place(path: Path, owner: dict[str, Any]) -> bool:
    """Put a whole claim where there is none, in one step; False when somebody else was quicker.

    A link fails if the name exists, like O_EXCL, but never shows a rival an empty file, which looks like a torn claim.
    """
    temporary = path.with_name(f".owner.{owner['nonce']}.new")
    write_json(temporary, owner)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink()
    return True


def _set_aside(path: Path, judged: dict[str, Any]) -> bool:
    """Remove a dead claim; False when the file is no longer the one that was judged dead."""
    aside = path.with_name(f".owner.{uuid.uuid4().hex[:8]}.old")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if read_owner(aside).get("nonce") == judged.get("nonce"):
        aside.unlink()
        return True
    try:  # a living claim was caught between reading and renaming: put it back
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return False
