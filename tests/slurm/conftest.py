"""The throw-away cluster of the session, and a project that runs on it."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmark.store.record import read_json
from tests.e2e.conftest import SWEEP, Project, cache, undisturbed  # noqa: F401  (fixtures)
from tests.slurm.cluster import Cluster, missing

PROFILE = {"partition": "debug", "gpus": 0, "cpus": 2, "mem_gb": 1, "minutes": 60, "signal_delay_seconds": 30}


@pytest.fixture(scope="session")
def cluster():
    lacking = missing()
    if lacking:
        pytest.skip(f"this machine lacks {', '.join(lacking)}: install slurm-wlm, slurmdbd, munge and mariadb-server")
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's own folder: its path is too long and closed to munge
    one = Cluster(root)
    try:
        one.start()
        yield one
    finally:
        one.stop()
        left = one.leftovers()
        shutil.rmtree(root, ignore_errors=True)
        assert not left, f"processes of the cluster are still there: {left}"


@dataclass
class SlurmProject(Project):
    """A Project whose run command submits to the cluster."""

    cluster: Cluster

    def profile(self, **changes: object) -> Path:
        """A cluster profile; a key with the value None is left out."""
        path = self.folder / "cluster.yaml"
        values = {key: value for key, value in (PROFILE | changes).items() if value is not None}
        path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        return path

    def submit(self, *extra: str, **changes: object):
        path = self.profile(**changes)
        return self.run("--launcher", "slurm", "--cluster", str(path), *extra, **self.cluster.environment())

    def look(self, flag: str, *extra: str) -> str:
        """What --plan or --status prints, with the cluster at hand."""
        done = self.run(flag, *extra, **self.cluster.environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 120) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, f"waited in vain until {what}\n{self.evidence()}"
            time.sleep(0.2)

    def wait_for_the_end(self) -> None:
        self.wait("the queue is empty", lambda: not self.cluster.queue())

    def wait_for_training(self, method: str) -> str:
        """Wait until the cell trains; the id of its job."""

        def progress() -> bool:
            lines = list(self.store.glob(f"cells/{method}-*/metrics.jsonl"))
            return bool(lines) and len(lines[0].read_text().splitlines()) >= 3

        self.wait(f"{method} trains", progress)
        return str(read_json(self.cell(method) / "owner.json")["job"])

    def log(self, method: str) -> str:
        return (self.cell(method) / "log.txt").read_text()

    def evidence(self) -> str:
        logs = sorted([*self.store.glob("slurm/*.err"), *self.store.glob("slurm/*.out"), *self.store.glob("cells/*/log.txt")])
        texts = [f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs]
        return "\n".join([*self.cluster.queue(), *texts, self.cluster.logs()])


@pytest.fixture
def slurm_project(tmp_path, cache, cluster):  # noqa: F811
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    yield SlurmProject(tmp_path, cache, cluster)
    cluster.clear()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory, cache):  # noqa: F811
    """One cell of enough steps to be met at work by a signal, run without any."""
    folder = tmp_path_factory.mktemp("undisturbed_long")
    (folder / "sweep.yaml").write_text(SWEEP)
    project = Project(folder, cache)
    done = project.run(*LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


LONG = ("epochs=40", "--only", "row=byol")
