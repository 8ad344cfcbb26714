"""The SLURM launcher: one job array through submitit, submitted and left; the records tell how it went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, nearest
from benchmark.launch.work import Site, Work
from benchmark.plan.document import read_document


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
        value = tuple(value) if expected is tuple and isinstance(value, list) else value
        if type(value) is not expected:
            raise InputError(f"{document.at(key)}: expected {expected.__name__}, found {value!r}")
        values[key] = value
    return Cluster(**values)


@contextlib.contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """A job that submits jobs would hand its own SLURM_* and SBATCH_* down to them. SLURM_CONF says where the cluster is, and
    a user's own SBATCH_* are wishes for every job: both are kept."""
    import submitit

    where = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env() if "SLURM_JOB_ID" in os.environ else contextlib.nullcontext():
        if where is not None:
            os.environ["SLURM_CONF"] = where
        yield


def submit(works: list[Work], site: Site, cluster: Cluster, folder: Path) -> list[str]:
    """Submit one array per chunk of cells; the ids of the jobs. Raises InputError with sbatch's own words."""
    import submitit

    from benchmark.launch.job import CellJob

    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=100)
    options: dict[str, Any] = {
        "name": "retable",
        "timeout_min": cluster.minutes,
        "cpus_per_task": cluster.cpus,
        "mem_gb": cluster.mem_gb,
        "slurm_array_parallelism": cluster.array_parallelism,
        "slurm_signal_delay_s": cluster.signal_delay_seconds,
        "slurm_additional_parameters": {"requeue": True},
    }
    if cluster.gpus:
        options["gpus_per_node"] = cluster.gpus
    for name in ("partition", "account", "qos"):
        if getattr(cluster, name):
            options[f"slurm_{name}"] = getattr(cluster, name)
    if cluster.setup:
        options["slurm_setup"] = list(cluster.setup)
    executor.update_parameters(**options)
    there = replace(
        site,
        device="cuda" if cluster.gpus else "cpu",
        threads=cluster.cpus if cluster.gpus else 1,
        workers=min(8, cluster.cpus) if cluster.gpus else 0,
    )
    ids = []
    try:
        for start in range(0, len(works), cluster.array_limit):
            chunk = works[start : start + cluster.array_limit]
            with _outside_of_any_job():
                jobs = executor.submit_array([CellJob(there, work.cell_id, work.force) for work in chunk])
            ids += [job.job_id for job in jobs]
    except (submitit.core.utils.FailedJobError, FileNotFoundError) as error:
        raise InputError(f"SLURM refused the job: {str(error).strip().splitlines()[-1]}") from None
    return ids
