"""What SLURM says of our jobs: one squeue for all that wait and run, one sacct for all that are gone.

A cell's own files come first everywhere. SLURM is only asked what they cannot say: whether a job without a claim still waits,
and why one that left no word is gone. Where accounting is off, that is said instead of waited for.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.launch.death import why_it_died
from benchmark.store.owner import alive, bury
from benchmark.store.record import read_json, write_json
from benchmark.store.store import CellRecord, Store

SUBMITTED = "submitted.json"  # in a cell's folder while a job has it to do: {"job", "node"?, "ended"?, "note"?}
NAME = "retable"  # of every job, so that one squeue finds them
_PATIENCE = 30  # seconds for one of SLURM's programs to answer
_OF_STATES = {
    "OUT_OF_MEMORY": "oom", "TIMEOUT": "timeout", "DEADLINE": "timeout", "PREEMPTED": "preempted", "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}  # fmt: skip
# What slurmstepd and the kernel leave at the end of a job's standard error, accounting or not.
_OF_WORDS = (
    (re.compile(r"oom[-_ ]?kill|exceeded (job|step) memory|memory limit|out of memory", re.I), "oom"),
    (re.compile(r"DUE TO TIME LIMIT"), "timeout"),
    (re.compile(r"DUE TO PREEMPTION"), "preempted"),
    (re.compile(r"DUE TO NODE FAILURE|NODE FAIL", re.I), "node"),
)
_MEANT = {
    "oom": "ran out of memory; ask for more with mem_gb",
    "timeout": "was ended at its time limit",
    "preempted": "was preempted and not requeued",
    "node": "lost its node",
}


@dataclass(frozen=True)
class Fate:
    """What became of a cell whose job is gone without a record. status: failed | stopped (the next run goes on)."""

    status: str
    failure: str | None
    note: str


def ask_slurm(*command: str) -> tuple[str | None, str]:
    """(output, "") of one of SLURM's programs, or (None, why there is none in a few words)."""
    if shutil.which(command[0]) is None:
        return None, f"there is no {command[0]} on this machine"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_PATIENCE} s"
    except OSError as error:
        return None, str(error)
    words = [line.removeprefix(f"{command[0]}: ").removeprefix("error: ").strip() for line in done.stderr.splitlines()]
    said = "; ".join(word for word in words if word)
    if done.returncode or (not done.stdout.strip() and "disabled" in said):
        return None, said or f"exit code {done.returncode}"
    return done.stdout, ""


@dataclass(frozen=True)
class InQueue:
    """state: pending, running, completing ...; reason: why it does not run, in SLURM's words."""

    state: str
    reason: str

    @property
    def stuck(self) -> bool:
        """Whether it waits for a person: such a job never starts by itself."""
        return bool(re.search(r"held|never|launch failed", self.reason, re.I))


def in_queue(mine: bool = False) -> dict[str, InQueue] | None:
    """Every job of ours that is not over, array tasks one by one; None where SLURM does not answer.

    mine: of this user alone; else also of colleagues who fill the same store.
    """
    who = ["--me"] if mine else []
    output, _ = ask_slurm("squeue", "--noheader", "--array", f"--name={NAME}", "--format=%i|%T|%r", *who)
    if output is None:
        return None
    rows = [line.strip().split("|", 2) for line in output.splitlines()]
    return {row[0]: InQueue(row[1].lower(), row[2]) for row in rows if len(row) == 3}


def queued(store: Store) -> dict[str, str]:
    """cell id -> a few words about its job, for every cell whose job is not over. One squeue for all of them.

    Where SLURM is out of reach the answer is empty: a cell submitted twice costs a job that ends at once, and a cell's state
    must be readable on a machine that only mounts the store.
    """
    jobs = submitted(store)
    states = (in_queue() if jobs else None) or {}
    return {
        cell_id: f"in SLURM's queue as {told['job']} ({states[told['job']].state})"
        for cell_id, told in jobs.items()
        if told["job"] in states
    }


def submitted(store: Store) -> dict[str, dict[str, Any]]:
    """cell id -> what is known of the job that has, or had, it to do."""
    found = {}
    for path in store.cells_folder.glob(f"*/{SUBMITTED}"):
        with contextlib.suppress(InputError):  # removed or unreadable: then it says nothing
            told = read_json(path)
            if isinstance(told.get("job"), str):
                found[path.parent.name] = told
    return found


def record_deaths(store: Store) -> None:
    """Write into the claims of cells whose jobs died without a word why they did, so that --plan and --status can say it."""
    gone = {cell_id: told["job"] for cell_id, told in submitted(store).items() if "ended" not in told}
    dead = {}
    for cell_id, job in gone.items():
        found = store.cell(cell_id)
        if found.owner and not found.owner.get("released") and not alive(found.owner):
            dead[cell_id] = (job, found)
    queue = in_queue() if dead else None
    if queue is None:
        return
    lost = {cell_id: (job, found) for cell_id, (job, found) in dead.items() if job not in queue}
    accounts = accounting(job for job, _ in lost.values()) if lost else {}
    for job, found in lost.values():
        with contextlib.suppress(InputError, OSError):  # a store that can only be read
            lay_to_rest(found, fate(store, job, accounts), job)


def lay_to_rest(found: CellRecord, fate: Fate, job: str) -> None:
    """Leave a word about a job that could not: in the claim of its cell, and beside it that this job has ended."""
    owner = found.owner or {}
    if fate.failure is not None and isinstance(owner.get("nonce"), str) and not owner.get("released"):
        bury(found.folder, owner["nonce"], fate.failure, fate.note)
    end_job(found.folder, job, fate.status, fate.note)


def end_job(folder: Path, job: str, status: str, note: str) -> None:
    """Say that this job is over with the cell; a job submitted since then is left alone."""
    with contextlib.suppress(InputError):
        told = read_json(folder / SUBMITTED)
        if told.get("job") == job:
            write_json(folder / SUBMITTED, told | {"ended": status, "note": note})


def accounting(jobs: Iterable[str]) -> dict[str, tuple[str, str]] | str:
    """Job -> (state, exit code `code:signal`), from one sacct; or why sacct does not answer, in its own words."""
    arrays = sorted({job.split("_")[0] for job in jobs})
    command = ("sacct", "--noheader", "--parsable2", "--format=JobID,State,ExitCode", "--jobs", ",".join(arrays))
    output, why = ask_slurm(*command)
    if output is None:
        return why
    found: dict[str, tuple[str, str]] = {}
    for line in output.splitlines():
        name, state, code = [*line.split("|"), "", ""][:3]
        job, _, step = name.partition(".")
        if job and state and not step:
            found[job] = (state.split()[0], code)
        elif job in found and step.isdecimal():  # the step knows of a kill that the script around it calls an exit code
            whole, of_script = found[job]
            found[job] = ("OUT_OF_MEMORY" if "OUT_OF_MEMORY" in state else whole, code if _signal(code) else of_script)
    return found


def fate(store: Store, job: str, accounts: dict[str, tuple[str, str]] | str) -> Fate:
    """Why a job that is no longer in the queue left its cell without a record."""
    log = log_of(store, job)
    state, code = accounts.get(job, ("", "")) if isinstance(accounts, dict) else ("", "")
    if state == "CANCELLED":
        return Fate("stopped", None, f"its job {job} was cancelled")
    failure = _OF_STATES.get(state) or _last_words(log)
    if failure is not None:
        return Fate("failed" if failure == "oom" else "stopped", failure, f"its job {job} {_MEANT[failure]}")
    where = f"see {log}" if log.exists() else "it left no log"
    if isinstance(accounts, str):
        told = f"sacct does not answer here ({accounts}): why a job died can only be read from its log {log}"
        return Fate("failed", "code", f"its job {job} is gone from the queue without a record; {told}")
    if not state:
        return Fate(
            "failed", "code", f"its job {job} is gone from the queue without a record, and sacct does not know it; {where}"
        )
    killed = _signal(code)
    if killed:
        failure, how = why_it_died(-killed)
        hint = ", perhaps for want of memory" if killed == signal.SIGKILL else ""
        return Fate("stopped" if failure == "node" else "failed", failure, f"its job {job}: {how}{hint}; {where}")
    ended = f"ended as {state}, exit code {code.split(':')[0]},"
    return Fate("failed", "code", f"its job {job} {ended} without a record; {where}")


def log_of(store: Store, job: str) -> Path:
    """The standard error of a job's first process."""
    return store.path / "slurm" / f"{job}_0_log.err"


def _signal(code: str) -> int:
    """The signal in sacct's `code:signal`, or in a shell's code of 128 and more; 0 for none."""
    number, _, by = code.partition(":")
    if by.isdecimal() and int(by):
        return int(by)
    return int(number) - 128 if number.isdecimal() and int(number) > 128 else 0


def _last_words(log: Path) -> str | None:
    """The class of failure that the end of a log tells; earlier lines may be about an earlier start of the same job."""
    try:
        lines = log.read_bytes()[-20_000:].decode(errors="replace").splitlines()[-20:]
    except OSError:
        return None
    for line in reversed(lines):
        for pattern, failure in _OF_WORDS:
            if pattern.search(line):
                return failure
    return None
