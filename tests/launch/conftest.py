"""The small sweep of the end-to-end tests, and a control group of one's own."""

import contextlib
import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import SWEEP, Project, cache  # noqa: F401


@pytest.fixture
def small_project(tmp_path, cache):  # noqa: F811
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return Project(tmp_path, cache)


@pytest.fixture
def control_group():
    """Makes a control group with so many MiB of memory; a process enters it by writing its number into `cgroup.procs`."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    base, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (second, "memory.max")
    group = base / f"retable-{uuid.uuid4().hex[:8]}"

    def made(mebibytes: int) -> Path:
        try:
            group.mkdir()
            (group / limit).write_text(str(mebibytes << 20))
        except OSError as error:
            pytest.skip(f"no control group can be made here ({error})")
        return group

    yield made
    with contextlib.suppress(OSError):
        group.rmdir()
