"""sweeps/methods.yaml: every method through plan, loader, loop, checkpoint, evaluation and record, in one run."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark.data.datasets import find, prepared
from benchmark.execute import Machine, execute
from benchmark.plan.resolve import DataIdentity
from benchmark.plan.sweep import PROFILES, load_sweep
from benchmark.store.record import read_json
from benchmark.store.store import Store
from benchmark.train.stop import StopRequest
from methods import METHODS, load
from methods.base import Setting
from methods.catalogue import from_values
from methods.encoders.config import EncoderConfig
from methods.views import ViewConfig

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ROOT / "sweeps" / "methods.yaml"
IMAGES = {
    "cifar10": 45_000, "cifar100": 45_000, "imagenet100": 126_689, "imagenet": 1_268_355, "shapes": 252, "stl10": 104_500,
}  # fmt: skip
BUILT: set[str] = set()


def run(store, cache, *extra):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")}
    command = [sys.executable, "-m", "benchmark.run", str(SWEEP), "--profile", "smoke", "--launcher", "inline"]
    return subprocess.run(
        [*command, "--store", str(store), *extra],
        cwd=ROOT, env=plain | {"RETABLE_CACHE": str(cache), "COLUMNS": "160"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("methods") / "runs"
    done = run(folder, cache)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_method_has_a_row():
    for profile in ("smoke", "cifar10", "imagenet"):
        rows = load_sweep(SWEEP).expand(profile)
        assert {row.cells[0].config["method"] for row in rows} == set(METHODS)


@pytest.mark.parametrize("sweep", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_row_can_be_built(sweep, profile):
    """No method refuses what its row says at any profile; weights are on the meta device, so this costs nothing."""
    read = load_sweep(sweep)
    for row in read.expand(profile) if profile in read.profiles else []:
        config = row.cells[0].config
        method = load(config["method"])
        own = {field.name: config[field.name] for field in dataclasses.fields(method.Config) if field.name in config}
        views = [from_values(ViewConfig, view) for view in config["views"]] if "views" in config else []
        channels = sum(view.channel_count for n, view in enumerate(views) if n == 0 or view.same_draws) or 3
        setting = Setting(IMAGES[config["data"]["name"]], 10, config.get("batch_size", 0), len(views), channels)
        said = repr((config["method"], own, config["encoder"], setting))
        if said not in BUILT:  # what many sweeps share is built once
            with torch.device("meta"):
                method(from_values(method.Config, own), from_values(EncoderConfig, config["encoder"]), setting)
            BUILT.add(said)


@pytest.mark.slow
def test_every_method_is_trained_and_measured(store):
    rows = load_sweep(SWEEP).expand("smoke")
    records = [read_json(path) for path in store.glob("cells/*/record.json")]
    assert len(records) == len(rows) and {record["method"]["name"] for record in records} == set(METHODS)
    for record in records:
        name = record["method"]["name"]
        assert record["status"] == "done", record
        steps = 2 * (252 // 32)
        assert record["timing"]["steps"] == (steps if load(name).TRAINS else 0)
        if load(name).TRAINS:
            assert {"loss", "std", "pair_cosine"} <= set(record["metrics"])
            assert all(value is not None for value in record["metrics"].values()), record["metrics"]
        folder = store / "cells" / record["id"] / "evaluations"
        found = {read_json(path)["stage"]: read_json(path)["metrics"] for path in folder.glob("*.json")}
        assert set(found) == {"knn", "linear", "collapse"}
        assert 0 <= found["knn"]["top1"] <= 100
        json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_what_ran_has_the_views_that_were_planned(store):
    """Crops, patches, modalities and added views are what the record's config says."""
    records = [read_json(path) for path in store.glob("cells/*/record.json")]
    swav = next(r for r in records if r["method"]["name"] == "swav" and len(r["config"]["views"]) == 4)
    assert [view["size"] for view in swav["config"]["views"]] == [32, 32, 16, 16]
    cmc = next(r for r in records if r["method"]["name"] == "cmc" and len(r["config"]["views"]) == 2)
    assert [view["channels"] for view in cmc["config"]["views"]] == ["lab", "sobel"]
    infomin = next(r for r in records if r["method"]["name"] == "infomin")
    assert [view.get("patch_grid", 0) for view in infomin["config"]["views"]] == [0, 0, 3]


class Asked(StopRequest):
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    @property
    def wanted(self):
        self.steps -= 1
        if self.steps <= 0:
            self.ask("enough")
        return self.reason is not None


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 7])
@pytest.mark.parametrize(
    "row", ["DeepCluster", "DeepCluster v2", "SwAV", "DINO", "InfoMin", "CMC, three modalities", "SimSiam"]
)
def test_a_stopped_and_resumed_training_is_the_same(store, cache, tmp_path, row, steps):
    """Within an epoch, and at its end, before the next has begun: clusters, queues, banks, centres and schedules go on."""
    dataset = prepared(find("shapes", None, cache), cache)
    identity = DataIdentity(dataset.name, dataset.content)
    rows = load_sweep(SWEEP).expand("smoke", {"shapes": identity})
    cell = next(found for found in rows if found.name == row).cells[0]
    mine = Store(tmp_path, create=True)
    mine.request(cell.id, cell.config, ())
    first = execute(mine, cell.id, cell.config, [], dataset, Machine("cpu", 1, 0), Asked(steps))
    assert first.status == "stopped"
    assert execute(mine, cell.id, cell.config, [], dataset, Machine("cpu", 1, 0), StopRequest()).status == "done"
    assert f"goes on at step {steps} of 14" in (mine.folder(cell.id) / "log.txt").read_text()
    paths = (folder / "checkpoint.pt" for folder in (mine.folder(cell.id), store / "cells" / cell.id))
    ours, whole = (torch.load(path, weights_only=True)["method"] for path in paths)
    assert ours.keys() == whole.keys() and all(torch.equal(ours[key], whole[key]) for key in whole)


def refused(done, *words):
    text = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


@pytest.mark.slow
def test_what_a_method_refuses_is_said_with_the_cells_config(tmp_path, cache):
    """ValueErrors of constructors, and of a first batch, name the file; nothing is trained to NaN."""
    done = run(tmp_path, cache, "--only", "row=DeepCluster", "clusters=300")
    assert done.returncode == 1
    refused(done, "config.json: clusters is 300, but there are only 252 images to cluster")
    done = run(tmp_path, cache, "--only", "row=BYOL", "batch_size=1")
    refused(done, "config.json: ", "batch")
    done = run(tmp_path, cache, "--only", "row=MoCo v2", "queue=31")
    assert done.returncode == 2
    refused(done, "command line: queue: queue is 31, but must be at least batch_size, 32")


@pytest.mark.slow
def test_a_diverged_cell_says_step_norm_and_layer(tmp_path, cache):
    done = run(tmp_path, cache, "--only", "row=BYOL", "optimizer.learning_rate=1e18")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("cells/byol-*/record.json")
    record = read_json(path)
    assert record["status"] == "diverged"
    found = record["diverged"]
    assert found["step"] == record["timing"]["steps"] >= 1
    assert found["layer"].split(".")[0] in ("encoder", "projector", "predictor")
    assert f"the loss was not finite at step {found['step']}" in (path.parent / "log.txt").read_text()
    assert found["layer"] in (path.parent / "log.txt").read_text()
