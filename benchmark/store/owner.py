"""Who runs a cell: a claim that exactly one process holds, kept alive by a heartbeat, taken over when its holder is gone.

A claim has a number, its `token`, that only grows: the times the cell has been started. Who wants claim number N first puts
`.owner.N.claim` where there is none (a hard link: it appears whole, and of two processes one wins), then moves its claim to
`owner.json`. That file stays until there is a later one, so the count survives a torn `owner.json` and a process killed
between the two. The `nonce` names this start: a holder whose nonce is no longer there has been replaced and must not write (a
node that was declared lost may still be alive).
"""

from __future__ import annotations

import contextlib
import json
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
    if owner.get("released") or "host" not in owner:
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
        for _ in range(8):
            now = max((read_owner(path), *_tickets(folder).values()), key=lambda owner: owner.get("token", 0))
            if alive(now):
                return None
            fresh = {
                "token": now.get("token", 0) + 1,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_start": process_start(os.getpid()),
                "job": os.environ.get("SLURM_JOB_ID"),
                "nonce": uuid.uuid4().hex,
                "started": time.time(),
                "heartbeat": time.time(),
                "progress": {},
            }
            if _move_in(path, fresh):
                _clear_up(folder)
                return cls(path, fresh)
        return None

    def beat(self, progress: dict[str, Any] | None = None, force: bool = False) -> None:
        """Say that the holder lives and how far it is; cheap, writes at most every HEARTBEAT seconds unless forced."""
        with self._lock:
            if progress is not None:
                self.owner["progress"] = progress
            if not force and time.monotonic() - self._last < HEARTBEAT:
                return
            self.check()  # before the time is noted: a loss that the thread of keep_alive finds is found again at once
            self._last = time.monotonic()
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


def _tickets(folder: Path) -> dict[Path, dict[str, Any]]:
    """The claims that have been numbered: of the present holder, and for an instant of the one before it. The number is in the
    name as well: the content of the present one may be that of `owner.json`, torn with it."""
    numbered = {path: path.name.split(".")[2] for path in folder.glob(".owner.*.claim")}
    return {path: read_owner(path) | {"token": int(number)} for path, number in numbered.items() if number.isdecimal()}


def _move_in(path: Path, owner: dict[str, Any]) -> bool:
    """Make a numbered claim the cell's; False when somebody else was quicker."""
    temporary, ticket = path.with_name(f".owner.{owner['nonce']}.new"), path.with_name(f".owner.{owner['token']}.claim")
    try:
        _write(temporary, owner)
        os.link(temporary, ticket)
        # Whoever comes so late that this number has been taken, used and cleared away finds a higher one.
        if read_owner(path).get("token", 0) >= owner["token"]:
            ticket.unlink()
            return False
        temporary.replace(path)
    except (FileExistsError, FileNotFoundError):  # or it was cleared away by the one who was quicker
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: is gone") from None
        return False
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    for other, earlier in _tickets(path.parent).items():
        if earlier.get("token", 0) < owner["token"]:
            other.unlink(missing_ok=True)
    return True


def _clear_up(folder: Path) -> None:
    """Remove what killed predecessors left half-written: a checkpoint can be large, and they would gather for ever.

    The holder alone writes these; only a request, or a word about a job, may be in the making by somebody else.
    """
    for path in (*folder.glob(".*.tmp"), *folder.glob(".owner.*.new"), *folder.glob(".owner.*.old"), *folder.glob("*/.*.tmp")):
        if not path.name.startswith((".config.json.", ".submitted.json.")):
            with contextlib.suppress(OSError):
                path.unlink()


def _place(path: Path, owner: dict[str, Any]) -> bool:
    """Put a whole claim where there is none, in one step; False when somebody else was quicker.

    A link fails if the name exists, like O_EXCL, but never shows a rival an empty file, which looks like a torn claim.
    """
    temporary = path.with_name(f".owner.{owner['nonce']}.new")
    try:
        _write(temporary, owner)
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):  # or it was cleared away by the one who was quicker
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: is gone") from None
        return False
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _write(temporary: Path, owner: dict[str, Any]) -> None:
    """A claim under a name that nobody reads."""
    with temporary.open("w") as file:
        json.dump(owner, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


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
