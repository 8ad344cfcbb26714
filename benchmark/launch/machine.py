"""What this machine is, found out without importing torch, and what a run makes of it by default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError


def cores() -> int:
    """CPU cores this process may use; respects taskset, cgroups' cpusets and SLURM."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    found = list(Path("/dev").glob("nvidia[0-9]*"))
    return [str(number) for number in range(len(found))]  # CUDA counts from 0, whatever the device files are called


@dataclass(frozen=True)
class Resources:
    """How a run uses the machine: `jobs` cells at once, each trained by `ranks` processes together; each process has a GPU of
    its own where there are any, `threads` CPU threads and `workers` loader workers."""

    device: str
    jobs: int
    threads: int
    workers: int
    gpus: tuple[str, ...] = ()
    ranks: int = 1

    @property
    def words(self) -> str:
        cells = "one cell" if self.jobs == 1 else f"{self.jobs} cells"
        if self.device == "cuda":
            count = self.jobs * self.ranks
            return f"{count} GPU{'s' if count > 1 else ''}, " + (
                "one cell on each" if self.ranks == 1 else f"{cells} at once, {self.ranks} GPUs for each"
            )
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        each = threads if self.ranks == 1 else f"{self.ranks} processes of {threads}"
        return f"CPU, {cells} at once with {each} each"

    def visible(self, slot: int) -> str | None:
        """CUDA_VISIBLE_DEVICES of the cell in this slot; None on a CPU."""
        return ",".join(self.gpus[slot * self.ranks : (slot + 1) * self.ranks]) if self.gpus else None


def resources(jobs: int | None, threads: int | None, ranks: int = 1) -> Resources:
    """GPUs get a cell each. On a CPU every core gets a cell of one thread: small networks gain more from that than from
    threads, and numbers then do not depend on how many cores there are. With several ranks to a cell so many fewer cells run.

    More ranks than GPUs is an error: two processes on one GPU take twice the memory, and NCCL refuses them.
    """
    devices = gpus()
    if devices:
        if ranks > len(devices):
            raise InputError(f"--ranks {ranks}: this machine has {len(devices)} GPU{'s' if len(devices) > 1 else ''}")
        count = min(jobs or len(devices), len(devices) // ranks)
        per_process = threads or max(1, cores() // (count * ranks))
        return Resources("cuda", count, per_process, min(8, per_process), tuple(devices[: count * ranks]), ranks)
    count = jobs or max(1, cores() // ((threads or 1) * ranks))
    return Resources("cpu", count, threads or 1, 0, (), ranks)
