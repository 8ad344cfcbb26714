"""Staying with submitted cells until each has ended: their files first, then one squeue, then one sacct for what is gone.

Never submitit's own word: it takes a lost node for the end although SLURM starts the job again, and without accounting it
waits for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmark.errors import InputError
from benchmark.launch.jobs import SUBMITTED, InQueue, accounting, fate, in_queue, lay_to_rest
from benchmark.launch.slurm import Array, Submission
from benchmark.launch.work import Ended, Watch, Work
from benchmark.store.owner import alive, failure_of, read_owner
from benchmark.store.record import read_json
from benchmark.store.store import CellRecord, Store

LOOK = 2.0  # seconds between looks at the files of the cells
_ASK = 10.0  # seconds between questions to SLURM
_SETTLE = 30.0  # seconds that accounting may lag behind the queue, or the files of another machine behind both
_NOT_OVER = ("", "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED", "RESIZING")


@dataclass
class _Open:
    """A cell that has not ended. job: None where another process has it; before: the nonce of the claim that was there when
    it was submitted; gone: since when the queue no longer has its job."""

    work: Work
    job: str | None
    before: str | None
    gone: float | None = None


class Waiting:
    """`send`, then iterate over `ends`. Leaving it, by Ctrl-C or otherwise, leaves the jobs alone.

    also: cells that were running or in the queue before. told: called with each array that is submitted later on; notice:
    with a sentence that a person should read.
    """

    def __init__(
        self, submission: Submission, also: list[Work], told: Callable[[Array], None], notice: Callable[[str], None]
    ) -> None:
        self.submission, self.store = submission, submission.store
        self._told, self._notice = told, notice
        self._works = {work.cell_id: work for work in submission.left}
        self._open: dict[str, _Open] = {}
        self._noticed: set[str] = set()
        self._asked, self._answers = float("-inf"), True
        for work in also:  # running or in the queue already
            owner = read_owner(self.store.folder(work.cell_id) / "owner.json")
            job = _told(self.store, work.cell_id).get("job")
            self._open[work.cell_id] = _Open(work, str(job) if job else None, None if alive(owner) else owner.get("nonce"))

    def send(self) -> list[Array]:
        """Submit what there is room for; the new arrays."""
        before = {work.cell_id: _nonce(self.store, work.cell_id) for work in self.submission.left}
        arrays = self.submission.send()
        for array in arrays:
            for cell_id, job in array.jobs.items():
                self._open[cell_id] = _Open(self._works[cell_id], job, before[cell_id])
        return arrays

    def ends(self, watch: Watch, max_failures: int | None = None) -> Iterator[Ended]:
        """Each cell as it ends, and meanwhile more into the queue; those that sbatch refused come last, as stopped, like those
        that have not been submitted when max_failures have failed."""
        failed = 0
        while self._open or (self.submission.left and not self.submission.refused):
            due = time.monotonic() - self._asked >= _ASK
            for end in self._look(watch, due):
                del self._open[end.work.cell_id]
                failed += end.status == "failed"
                yield end
            if max_failures is not None and failed >= max_failures:
                self.submission.refused = self.submission.refused or f"{failed} have failed (--max-failures)"
            if due and self._answers and self.submission.left and not self.submission.refused:
                for array in self.send():
                    self._told(array)
            if self._open or self.submission.left:
                time.sleep(LOOK)
        for work in self.submission.left:
            yield Ended(work, "stopped", f"not submitted: {self.submission.refused}", begun=False)

    def _look(self, watch: Watch, due: bool) -> list[Ended]:
        ended = [end for one in self._open.values() if (end := self._by_files(one, watch)) is not None]
        if due:
            self._asked = time.monotonic()
            over = {end.work.cell_id for end in ended}
            ended += self._by_slurm([one for cell_id, one in self._open.items() if cell_id not in over])
        return ended

    def _by_files(self, one: _Open, watch: Watch) -> Ended | None:
        """What the cell's own files say of its end, while its job may still be there."""
        cell_id = one.work.cell_id
        told = _told(self.store, cell_id)
        owner = read_owner(self.store.folder(cell_id) / "owner.json")
        if alive(owner):
            one.gone = None
            progress = owner["progress"]
            if stage := progress.get("stage"):
                watch(one.work, str(stage), progress if "eta_seconds" in progress else None)
            return None
        if one.job is None and not owner.get("released"):
            return _ended(one, "stopped", "the process that had it is gone; the next run goes on", None)
        if one.job is None or not told:  # a job that is done with its cell takes its word away
            return _judged(self.store.cell(cell_id), one)
        if told.get("job") != one.job:  # another command has submitted it anew
            one.job, one.gone = str(told.get("job")), None
        elif told.get("ended") in ("failed", "stopped"):
            return _ended(one, str(told["ended"]), str(told.get("note", "")), failure_of(owner))
        elif told.get("ended") == "busy":
            return _judged(self.store.cell(cell_id), one)
        return None

    def _by_slurm(self, cells: list[_Open]) -> list[Ended]:
        """The ends of cells whose jobs are no longer in the queue."""
        queue = in_queue()
        self._answers = queue is not None
        if queue is None:
            self._once("squeue", "squeue does not answer: the cells' files alone tell now how they go")
            return []
        gone = []
        for one in cells:
            if one.job is None:
                continue
            if one.job in queue:
                one.gone = None
                self._stuck(one, queue[one.job])
            elif one.gone is None:
                one.gone = time.monotonic()  # seen a second time it is gone for good, and its files are here
            elif not alive(read_owner(self.store.folder(one.work.cell_id) / "owner.json")):
                gone.append(one)
        ended, silent = [], []
        for one in gone:
            end = _judged(self.store.cell(one.work.cell_id), one)
            if end is None:
                silent.append(one)
            else:
                ended.append(end)
        return ended + (self._dead(silent) if silent else [])

    def _dead(self, cells: list[_Open]) -> list[Ended]:
        """Jobs that are gone and left no word: why, as far as SLURM and their logs tell."""
        accounts = accounting(one.job for one in cells if one.job)
        ended = []
        for one in cells:
            assert one.job is not None and one.gone is not None
            unknown = isinstance(accounts, dict) and accounts.get(one.job, ("", ""))[0] in _NOT_OVER
            if unknown and time.monotonic() - one.gone < _SETTLE:
                continue
            end = fate(self.store, one.job, accounts)
            lay_to_rest(self.store.cell(one.work.cell_id), end, one.job)
            ended.append(_ended(one, end.status, end.note, end.failure))
        return ended

    def _stuck(self, one: _Open, found: InQueue) -> None:
        if found.stuck:
            what = f"job {one.job} waits for a person ({found.reason}): scontrol release {one.job}, or scancel it"
            self._once(str(one.job), what)

    def _once(self, key: str, sentence: str) -> None:
        if key not in self._noticed:
            self._noticed.add(key)
            self._notice(sentence)


def _judged(found: CellRecord, one: _Open) -> Ended | None:
    """How a cell that nobody holds has ended, by a claim that is newer than its submission; None where there is none."""
    owner = found.owner or {}
    released = owner.get("released")
    if alive(owner) or not released or owner.get("nonce") == one.before:
        return None
    note, failure = str(owner.get("note") or ""), failure_of(owner)
    if released == "done" and found.record is not None:
        return _ended(one, found.record["status"], note, failure)
    failed = released == "failed" or failure in ("oom", "code")
    return _ended(one, "failed" if failed else "stopped", note, failure)


def _ended(one: _Open, status: str, note: str, failure: str | None) -> Ended:
    return Ended(one.work, status, note, failure)


def _told(store: Store, cell_id: str) -> dict[str, object]:
    with contextlib.suppress(InputError):
        return read_json(store.folder(cell_id) / SUBMITTED)
    return {}


def _nonce(store: Store, cell_id: str) -> str | None:
    return read_owner(store.folder(cell_id) / "owner.json").get("nonce")
