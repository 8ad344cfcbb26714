"""The SLURM launcher: one job array through submitit, submitted and left; the records tell how it went."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.launch.work import Site, Work
from benchmark.plan.document import read_document
from benchmark.store.record import read_json, storage_error, write_json
from benchmark.store.store import Store

SUBMITTED = "submitted.json"  # in a cell's folder while a job has it to do: which job
_NAME = "retable"  # of every job, so that one squeue finds them
_KINDS = {str: "a text", int: "a whole number", tuple: "a list of texts"}
_MAY_BE_ZERO = ("gpus",)


@dataclass(frozen=True)
class Cluster:
    """A file of `slurm/clusters/`: how to ask this site for one cell's resources."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    gpus: int = 1
    cpus: int = 8
    mem_gb: int = 32
    minutes: int = 720
    array_parallelism: int = 64
    array_limit: int = 1000  # below the site's MaxArraySize
    signal_delay_seconds: int = 120  # time for a checkpoint between the warning and the kill
    setup: tuple[str, ...] = ()  # shell lines before the job, such as `module load cuda`


def read_cluster(path: Path) -> Cluster:
    """Raises InputError naming file, line and key."""
    document = read_document(path)
    known = Cluster.__dataclass_fields__
    values: dict[str, Any] = {}
    for key, value in document.value.items():
        if key not in known:
            raise InputError(f"{document.at(key)}: unknown key; allowed here: {', '.join(known)}{nearest(key, known)}")
        expected = type(known[key].default)
        fits = type(value) is (list if expected is tuple else expected)
        if not fits or (expected is tuple and not all(isinstance(line, str) for line in value)):
            raise InputError(f"{document.at(key)}: expected {_KINDS[expected]}, found {value!r}")
        least = 0 if key in _MAY_BE_ZERO else 1
        if expected is int and value < least:
            raise InputError(f"{document.at(key)}: expected {least} or more, found {value}")
        values[key] = tuple(value) if expected is tuple else value
    return Cluster(**values)


def queued(store: Store) -> dict[str, str]:
    """cell id -> a few words about its job, for every cell whose job is not over. One squeue for all of them.

    Where SLURM is out of reach the answer is empty: a cell submitted twice costs a job that ends at once, and a cell's state
    must be readable on a machine that only mounts the store.
    """
    jobs = {path.parent.name: path for path in store.cells_folder.glob(f"*/{SUBMITTED}")}
    if not jobs or shutil.which("squeue") is None:
        return {}
    try:
        command = ["squeue", "--noheader", "--array", f"--name={_NAME}", "--format=%i %T"]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except subprocess.TimeoutExpired:
        return {}
    states = dict(line.split(maxsplit=1) for line in lines if " " in line)
    found = {}
    for cell_id, path in jobs.items():
        with contextlib.suppress(InputError):  # removed or unreadable: then it says nothing
            job = str(read_json(path).get("job"))
            if job in states:
                found[cell_id] = f"in SLURM's queue as {job} ({states[job].strip().lower()})"
    return found


def submit(works: list[Work], site: Site, profile: Path) -> list[str]:
    """Submit one array per chunk of cells; the ids of the jobs. Raises InputError with sbatch's own words."""
    from benchmark.launch.job import CellJob

    cluster, store = read_cluster(profile), Store(Path(site.store))
    there = replace(
        site,
        device="cuda" if cluster.gpus else "cpu",
        threads=cluster.cpus if cluster.gpus else 1,
        workers=min(8, cluster.cpus) if cluster.gpus else 0,
    )
    executor = _executor(cluster, there)
    ids: list[str] = []
    for start in range(0, len(works), cluster.array_limit):
        chunk = works[start : start + cluster.array_limit]
        jobs = [CellJob(there, work.cell_id, work.force, work.retry) for work in chunk]
        with _refusal(profile, len(ids)), _outside_of_any_job():
            new = [str(job.job_id) for job in executor.submit_array(jobs)]
        for work, job in zip(chunk, new, strict=True):
            write_json(store.folder(work.cell_id) / SUBMITTED, {"job": job})
        ids += new
    return ids


def _executor(cluster: Cluster, there: Site) -> Any:
    import submitit

    folder = Path(there.store) / "slurm"
    options: dict[str, Any] = {
        "name": _NAME,
        "timeout_min": cluster.minutes,
        "cpus_per_task": cluster.cpus,
        "mem_gb": cluster.mem_gb,
        "slurm_array_parallelism": cluster.array_parallelism,
        "slurm_signal_delay_s": cluster.signal_delay_seconds,
        "slurm_additional_parameters": {"requeue": True},
        # Since SLURM 22.05 srun no longer takes this from the job, and where tasks are bound the cell would get one core.
        "slurm_srun_args": [f"--cpus-per-task={cluster.cpus}"],
        "slurm_setup": [*cluster.setup, f"export OMP_NUM_THREADS={there.threads} NUMBA_NUM_THREADS={there.threads}"],
    }
    if cluster.gpus:
        options["gpus_per_node"] = cluster.gpus
    for name in ("partition", "account", "qos"):
        if getattr(cluster, name):
            options[f"slurm_{name}"] = getattr(cluster, name)
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise InputError("--launcher slurm: there is no sbatch on this machine; start it on a login node of the cluster")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=100)
    except OSError as error:
        raise storage_error(folder, error) from error
    executor.update_parameters(**options)
    return executor


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


@contextlib.contextmanager
def _refusal(profile: Path, before: int) -> Iterator[None]:
    """What sbatch says against a job, as one sentence. submitit would print it as well: that is swallowed."""
    import submitit

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        words = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in str(error).splitlines()]
        said = "; ".join(word for word in words if word) or "sbatch gave no reason"
        kept = f" ({before} cells were submitted before it)" if before else ""
        raise InputError(f"SLURM refused the job: {said}; see {profile}{kept}") from None
    except OSError as error:
        raise InputError(f"SLURM's job cannot be submitted ({error})") from None
