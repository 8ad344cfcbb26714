"""The throw-away cluster of the session, projects that run on it, and the disturbances that happen side by side."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import SWEEP, Project, cache, undisturbed  # noqa: F401  (fixtures)
from tests.slurm.cluster import Cluster, missing
from tests.slurm.project import LONG, SlurmProject

_AT_ONCE = 5  # disturbances under way at the same time: most of their time they wait


def pytest_configure(config):
    config.addinivalue_line("markers", "at_once(site=cluster): runs on a thread from the session's start, beside the others")


def pytest_collection_modifyitems(items):
    """They are asked last how they went."""
    items.sort(key=lambda item: item.get_closest_marker("at_once") is not None)


@contextlib.contextmanager
def running(accounting: bool = True) -> Iterator[Cluster]:
    """A cluster, and nothing left of it afterwards."""
    lacking = missing()
    if lacking:
        pytest.fail(f"this machine lacks {', '.join(lacking)}; .ci/slurm installs them", pytrace=False)
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's own folder: its path is too long and closed to munge
    one = Cluster(root, accounting)
    try:
        one.start()
        yield one
    finally:
        one.stop()
        left = one.leftovers()
        shutil.rmtree(root, ignore_errors=True)
        assert not left, f"processes of the cluster are still there: {left}"


@pytest.fixture(scope="session")
def cluster():
    with running() as one:
        yield one


@pytest.fixture(scope="session")
def plain_site():
    """A cluster without accounting: sacct answers nothing."""
    with running(accounting=False) as one:
        yield one


@pytest.fixture(scope="session")
def lost_site():
    """Another one, whose controller will end."""
    with running(accounting=False) as one:
        yield one


@pytest.fixture
def slurm_project(tmp_path, cache, cluster):  # noqa: F811
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    project = SlurmProject(tmp_path, cache, cluster)
    yield project
    project.clear()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory, cache):  # noqa: F811
    """One cell of enough steps to be met at work by a signal, run without any."""
    folder = tmp_path_factory.mktemp("undisturbed_long")
    (folder / "sweep.yaml").write_text(SWEEP)
    project = Project(folder, cache)
    done = project.run(*LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


class Side:
    """The tests marked `at_once` that were asked for, in the order of their files, each on a thread and with a project of its
    own on the cluster that its mark names. Their bodies take (project, reference) and nothing else; a test is over when its
    body is, and fails as it does."""

    def __init__(self, bodies: dict[str, Callable[..., None]], make: Callable[[str], SlurmProject], reference: Project) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self.projects = {name: make(name) for name in bodies}
        self.ends: dict[str, Future[None]] = {
            name: self._pool.submit(body, project=self.projects[name], reference=reference) for name, body in bodies.items()
        }

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for project in self.projects.values():
            project.over.set()
            project.clear()


@pytest.fixture(scope="session", autouse=True)
def side(request, cluster, undisturbed_long, tmp_path_factory, cache):  # noqa: F811
    """Started before the first test, so that what the disturbances wait for passes while other tests run."""
    marks = {item: item.get_closest_marker("at_once") for item in request.session.items}
    wanted = {item.name: (item.function, mark.kwargs.get("site", "cluster")) for item, mark in marks.items() if mark}

    def make(name: str) -> SlurmProject:
        folder = tmp_path_factory.mktemp(name[:40])
        (folder / "sweep.yaml").write_text(SWEEP)
        return SlurmProject(folder, cache, request.getfixturevalue(wanted[name][1]))

    one = Side({name: body for name, (body, _) in wanted.items()}, make, undisturbed_long)
    yield one
    one.stop()


@pytest.fixture
def project():
    """Given by `side`."""


@pytest.fixture
def reference():
    """Given by `side`."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("at_once") is None:
        return None
    pyfuncitem._request.getfixturevalue("side").ends[pyfuncitem.name].result()
    return True
