"""The house's walls: imports run one way, and what must answer on a login node never imports torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("benchmark", "methods", "reports", "slurm")

# package or module -> first-party prefixes its modules may import; everything else is a hole in a wall
ALLOWED = {
    "methods": ("methods",),
    "benchmark.errors": (),
    "benchmark.plan": ("benchmark.plan", "benchmark.store", "benchmark.errors", "methods.catalogue", "methods.views"),
    "benchmark.store": ("benchmark.store", "benchmark.errors"),
    "benchmark.data": ("benchmark.data", "benchmark.errors", "methods.views"),
    "benchmark.train": ("benchmark.train", "benchmark.data", "benchmark.store", "benchmark.errors", "methods.base",
                        "methods.gather", "methods.norms"),
    "benchmark.evaluate": ("benchmark.evaluate", "benchmark.data", "benchmark.errors", "benchmark.train", "benchmark.store",
                           "methods"),
    # the command puts rooms together, as run.py does
    "benchmark.evaluate.__main__": ("benchmark", "methods"),
    "benchmark.launch": ("benchmark.launch", "benchmark.plan", "benchmark.store", "benchmark.data", "benchmark.errors",
                         "benchmark.execute", "benchmark.pretrain", "benchmark.train", "methods.catalogue"),
    "reports": ("reports", "benchmark.plan", "benchmark.store", "benchmark.errors", "methods.departures",
                "methods.catalogue"),
    # the check of a site reads the launcher's profiles and asks as it does; the launcher never needs the check
    "slurm": ("slurm", "benchmark.errors", "benchmark.launch.cluster", "benchmark.launch.jobs"),
}  # fmt: skip
TORCH_FREE = (
    "benchmark.run",
    "benchmark.plan.plan",
    "benchmark.store.store",
    "methods",
    "methods.catalogue",
    "reports.__main__",
    "reports.undecided",  # what benchmark.run imports for --until-decided alone
    "slurm.check",
)


def modules():
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def first_party_imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            yield node.module


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = next((room for room in sorted(ALLOWED, key=len, reverse=True) if name == room or name.startswith(room + ".")), None)
    if room is None:
        return  # run.py, execute.py, console.py: where the rooms are put together
    for imported in first_party_imports(path):
        assert any(imported == prefix or imported.startswith(prefix + ".") for prefix in ALLOWED[room]), (
            f"{name} imports {imported}"
        )


@pytest.mark.parametrize("name", TORCH_FREE)
def test_planning_and_reporting_import_no_torch(name):
    code = (
        f"import sys, importlib; importlib.import_module({name!r}); sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400
