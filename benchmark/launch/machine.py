"""What this machine is, found out without importing torch, and what a run makes of it by default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


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
    """How a run uses the machine: `jobs` cells at once, each with `threads` CPU threads and `workers` loader workers."""

    device: str
    jobs: int
    threads: int
    workers: int
    gpus: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        if self.device == "cuda":
            return f"{self.jobs} GPU{'s' if self.jobs > 1 else ''}, one cell on each"
        cells = "one cell" if self.jobs == 1 else f"{self.jobs} cells"
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        return f"CPU, {cells} at once with {threads} each"


def resources(jobs: int | None, threads: int | None) -> Resources:
    """GPUs get a cell each. On a CPU every core gets a cell of one thread: small networks gain more from that than from
    threads, and numbers then do not depend on how many cores there are."""
    devices = gpus()
    if devices:
        count = min(jobs or len(devices), len(devices))
        per_cell = threads or max(1, cores() // count)
        return Resources("cuda", count, per_cell, min(8, per_cell), tuple(devices[:count]))
    count = jobs or max(1, cores() // (threads or 1))
    return Resources("cpu", count, threads or 1, 0)
