"""The SLURM launcher: arrays through submitit, submitted and left (`benchmark.launch.wait` stays); records tell how it went."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.launch import code
from benchmark.launch.cluster import Ask, names_gpus, read_cluster
from benchmark.launch.jobs import NAME, SUBMITTED, ask_slurm, in_queue, queued, record_deaths
from benchmark.launch.work import Site, Work
from benchmark.store.record import read_json, storage_error, write_json
from benchmark.store.store import Store

__all__ = ["Array", "Submission", "queued", "record_deaths"]


@dataclass(frozen=True)
class Array:
    """One array as SLURM has it: its number, what each of its jobs asks for, and cell id -> job."""

    number: str
    ask: Ask
    jobs: dict[str, str]


class Submission:
    """The cells of one run on their way into the queue: `sent` are there, `left` wait until there is room for them.

    Raises InputError for a profile, a code copy or a cell that cannot be; what sbatch has against a job is in `refused`, so
    that the arrays before it are still told of.
    """

    def __init__(self, works: list[Work], site: Site, profile: Path, snapshot: bool = False) -> None:
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise InputError("--launcher slurm: there is no sbatch on this machine; start it on a login node of the cluster")
        if site.ranks > 1:
            raise InputError(f"--ranks: with --launcher slurm the profile says it (gpus x nodes, or ranks); see {profile}")
        self.cluster, self.site, self.store = read_cluster(profile), site, Store(Path(site.store))
        self.sent: list[Array] = []
        self.left = list(works)
        self.refused: str | None = None
        self._asks = {work.cell_id: self._ask(work) for work in works}
        self._limit = min(self.cluster.array_limit, _max_array_size())
        if snapshot or self.cluster.snapshot:
            self.code, self.root = code.snapshot(self.store.path)
        else:
            self.code, self.root = code.remember(self.store.path), code.ROOT

    def _ask(self, work: Work) -> Ask:
        config = read_json(self.store.folder(work.cell_id) / "config.json")["config"]
        ask = self.cluster.ask_for(config)
        if config.get("batch_size", 0) % ask.processes:
            told = f"a batch of {config['batch_size']} cannot be shared by {ask.processes} processes"
            raise InputError(f"{self.cluster.path}: {work.label} ({work.cell_id}): {told}; change gpus, nodes or ranks for it")
        return ask

    def send(self) -> list[Array]:
        """Submit as many as there is room for; the new arrays. Stops at what sbatch refuses."""
        room = self._room()
        batch, self.left = self.left[:room], self.left[room:]
        chunks = chunked(batch, self._asks, self._limit)
        shares = shared_out(self.cluster.array_parallelism, [len(works) for _, works in chunks])
        new: list[Array] = []
        for number, (ask, works) in enumerate(chunks):
            array = None if self.refused else self._submit(ask, works, shares[number])
            if array is None:
                self.left = [*works, *self.left]
            else:
                new.append(array)
        self.sent += new
        return new

    def _room(self) -> int:
        """How many jobs may still be submitted. Jobs of this user's other sweeps count: the site counts them too."""
        if not self.cluster.submit_limit:
            return len(self.left)
        queue = in_queue(mine=True)
        if queue is None:
            raise InputError(f"{self.cluster.path}: submit_limit needs squeue, which does not answer; try again later")
        return max(0, self.cluster.submit_limit - len(queue))

    def _submit(self, ask: Ask, works: list[Work], at_once: int) -> Array | None:
        from benchmark.launch.job import CellJob

        there = replace(
            self.site,
            device="cuda" if ask.gpus else "cpu",
            threads=ask.cpus if ask.gpus else 1,
            workers=min(8, ask.cpus) if ask.gpus else 0,
            ranks=ask.processes,
        )
        executor = self._executor(ask, there.threads, at_once)
        jobs = [
            CellJob(there, work.cell_id, work.force, work.retry, self.code, ask.minutes, ask.signal_delay_seconds)
            for work in works
        ]
        try:
            with _sbatch(), _outside_of_any_job():
                names = [str(job.job_id) for job in executor.submit_array(jobs)]
        except _Refused as refused:
            self.refused = f"SLURM refused the job: {refused}; see {self.cluster.path}"
            return None
        for work, name in zip(works, names, strict=True):
            write_json(self.store.folder(work.cell_id) / SUBMITTED, {"job": name})
        return Array(names[0].split("_")[0], ask, {work.cell_id: name for work, name in zip(works, names, strict=True)})

    def _executor(self, ask: Ask, threads: int, at_once: int) -> Any:
        import submitit

        folder = self.store.path / "slurm"
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=100)
        except OSError as error:
            raise storage_error(folder, error) from error
        executor.update_parameters(**options(ask, threads, at_once, self.root, self.root != code.ROOT))
        return executor


def options(ask: Ask, threads: int, at_once: int, root: Path, alone: bool) -> dict[str, Any]:
    """What submitit is told. root: the folder of the code; alone: not that of the folder in which the job starts."""
    # Since SLURM 22.05 srun no longer takes this from the job, and where tasks are bound the cell would get one core.
    # A lost process must leave the first one the time to have the job requeued: it notices by itself, whatever the site's rule.
    of_srun = [f"--cpus-per-task={ask.cpus}", *(["--kill-on-bad-exit=0"] if ask.processes > 1 else [])]
    path = f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}"
    found: dict[str, Any] = {
        "name": NAME,
        "timeout_min": ask.minutes,
        "nodes": ask.nodes,
        "tasks_per_node": ask.processes // ask.nodes,
        "cpus_per_task": ask.cpus,
        "slurm_array_parallelism": at_once,
        "slurm_signal_delay_s": ask.signal_delay_seconds,
        "slurm_additional_parameters": {"requeue": True, **dict(ask.extra)},
        "slurm_srun_args": of_srun,
        "slurm_setup": [
            *ask.setup,
            f"export OMP_NUM_THREADS={threads} NUMBA_NUM_THREADS={threads}",
            f"{path} PYTHONSAFEPATH=1" if alone else path,
        ],
    }
    if ask.mem_gb:
        found["mem_gb"] = ask.mem_gb
    if ask.gpus and not names_gpus(ask.gres):
        found["gpus_per_node"] = ask.gpus
    for name in ("partition", "account", "qos", "constraint", "gres"):
        if getattr(ask, name):
            found[f"slurm_{name}"] = getattr(ask, name)
    return found


def chunked(works: list[Work], asks: dict[str, Ask], limit: int) -> list[tuple[Ask, list[Work]]]:
    """One group per distinct ask, in the order of their first cells, cut into arrays of at most `limit` cells."""
    groups: dict[Ask, list[Work]] = {}
    for work in works:
        groups.setdefault(asks[work.cell_id], []).append(work)
    return [(ask, group[start : start + limit]) for ask, group in groups.items() for start in range(0, len(group), limit)]


def shared_out(total: int, sizes: list[int]) -> list[int]:
    """How many cells of each array may run at once, together `total` (at least one of each): in proportion to their sizes."""
    if sum(sizes) <= total:
        return sizes
    shares = [1] * len(sizes)
    for _ in range(total - len(sizes)):  # one more to the array that has least of what it should have
        number = min(range(len(sizes)), key=lambda number: shares[number] / sizes[number])
        shares[number] += 1
    return shares


def _max_array_size() -> int:
    """The site's limit on cells in one array; where it does not say, the profile's alone counts."""
    shown, _ = ask_slurm("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown or "", re.M)
    return max(1, int(found[1])) if found else 10**9


class _Refused(Exception):
    """What sbatch said against a job."""


@contextlib.contextmanager
def _sbatch() -> Iterator[None]:
    """Raises _Refused with sbatch's own words in one sentence. submitit would print them as well: that is swallowed."""
    import submitit

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in str(error).splitlines()]
        said = "; ".join(line for line in lines if line) or "sbatch gave no reason"
        if re.search(r"submit\w*limit|too many jobs|maximum number of jobs", said, re.I):
            said += "; the site limits how many jobs one may have in the queue: set submit_limit"
        raise _Refused(said) from None
    except OSError as error:
        raise InputError(f"SLURM's job cannot be submitted ({error})") from None


@contextlib.contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """A job that submits jobs would hand its own SLURM_* and SBATCH_* down to them. SLURM_CONF says where the cluster is, and
    SBATCH_* outside of a job are what the user wants for every job: both are kept."""
    import submitit

    where = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else contextlib.nullcontext():
        if where is not None:
            os.environ["SLURM_CONF"] = where
        yield
