"""A small sweep on the procedural images, and ways to run it as a user does: in processes of their own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmark.store.record import read_json

ROOT = Path(__file__).resolve().parents[2]

SWEEP = """
question: Does a small run survive?
base:
  method: byol
  encoder: {name: convnet, width: 0.25}
  projector: {hidden: 32, out: 16}
  predictor: {hidden: 32, out: 16}
  data: {name: shapes, train_images: 400, test_images: 200, image_size: 32}
  optimizer: {learning_rate: 0.05}
  epochs: 3
  batch_size: 32
  queue: 64
rows:
  byol: {}
  contrastive: {method: contrastive}
  random: {method: random}
seeds: [0]
evaluate: {knn: {k: 20}, linear: {l2_low: -2, l2_high: -1}, collapse: {}}
profiles: {smoke: {}}
"""


@dataclass
class Project:
    """A sweep file, a store and a cache of converted images shared by all tests of the session."""

    folder: Path
    cache: Path

    @property
    def store(self) -> Path:
        return self.folder / "runs"

    def command(self, *extra: str) -> list[str]:
        sweep = str(self.folder / "sweep.yaml")
        return [sys.executable, "-m", "benchmark.run", sweep, "--profile", "smoke", "--store", str(self.store), *extra]

    def environment(self, **extra: str) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")}
        return plain | {"RETABLE_CACHE": str(self.cache), "COLUMNS": "160", **extra}

    def start(self, *extra: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*extra),
            cwd=ROOT,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*extra), cwd=ROOT, env=self.environment(**environment), capture_output=True, text=True, timeout=300
        )

    def cells(self) -> list[Path]:
        return sorted((self.store / "cells").iterdir())

    def cell(self, method: str) -> Path:
        return next(path for path in self.cells() if path.name.startswith(method))

    def numbers(self) -> dict[str, object]:
        """Every number that must not depend on how often a run was interrupted."""
        found: dict[str, object] = {}
        for cell in self.cells():
            record = read_json(cell / "record.json")
            found[cell.name] = (record["metrics"], record["curves"])
            for path in sorted(cell.glob("evaluations/*.json")):
                found[f"{cell.name}/{path.name}"] = read_json(path)["metrics"]
        return found

    def weights(self, method: str) -> dict[str, torch.Tensor]:
        return torch.load(self.cell(method) / "checkpoint.pt", weights_only=True)["method"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path, cache):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return Project(tmp_path, cache)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, cache):
    """The sweep run once from start to end without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sweep.yaml").write_text(SWEEP)
    project = Project(folder, cache)
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return project
