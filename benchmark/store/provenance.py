"""Where a number comes from: code, versions and hardware, written into every record."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.store.record import read_json

_PACKAGES = ("torch", "torchvision", "numpy", "numba", "ffcv", "pillow", "timm", "pycocotools", "scikit-learn", "detectron2")


SNAPSHOT = "snapshot.json"  # beside a copy of the code: what `code` said where it was copied from


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def code() -> dict[str, str | None]:
    """The commit, and a hash of the uncommitted changes to tracked files (None when there are none or git is absent)."""
    copied = Path(__file__).resolve().parents[2] / SNAPSHOT
    if copied.is_file():
        told = read_json(copied)
        return {"git": told.get("git"), "dirty": told.get("dirty")}
    sha, changes = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    dirty = hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None
    return {"git": sha.strip() if sha else None, "dirty": dirty}


def versions() -> dict[str, str]:
    """Versions of what can change a number; packages that are absent are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware(device: str, device_name: str | None, threads: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": device, "gpu": device_name, "cpu": cpu_name(), "cores": cores, "threads": threads}


def provenance(device: str, device_name: str | None, threads: int) -> dict[str, Any]:
    """The provenance block of a record."""
    return {
        **code(),
        "versions": versions(),
        "hardware": hardware(device, device_name, threads),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
