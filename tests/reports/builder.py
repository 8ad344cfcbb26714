"""Tiny records on disk, in the layout of a store, for tests of the reporting room."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmark.plan.cell import Cell, canonical
from benchmark.store.record import write_json

KNN = {"name": "knn", "version": 1, "k": 200, "temperature": 0.07}
LINEAR = {"name": "linear", "version": 1}
COLLAPSE = {"name": "collapse", "version": 1}
PROTOCOLS = (KNN, LINEAR, COLLAPSE)


def config(method: str, seed: int, content: str = "aaaaaaaaaaaa", name: str = "cifar10", **settings: Any) -> dict[str, Any]:
    """A config with the few keys a report looks at."""
    data = {"name": name, "content": content}
    made = {"method": method, "version": 1, "seed": seed, "data": data, "encoder": {"norm": "batch"}, "epochs": 4}
    return canonical(made | settings)


def curves(start: float, end: float, std: float, points: int = 20) -> dict[str, list[float]]:
    """Smooth training curves from start to end, with a spread that ends at std."""
    steps = [step / (points - 1) for step in range(points)]
    return {
        "step": [round(100 * t) for t in steps],
        "epoch": [round(4 * t, 4) for t in steps],
        "loss": [round(end + (start - end) * math.exp(-4 * t), 5) for t in steps],
        "std": [round(std + (0.4 - std) * math.exp(-6 * t), 5) for t in steps],
    }


def write_run(
    store: Path,
    settings: dict[str, Any],
    metrics: dict[str, dict[str, float]],
    *,
    status: str = "done",
    protocols: tuple[dict[str, Any], ...] = PROTOCOLS,
    series: dict[str, list[float]] | None = None,
    note: str = "torchvision",
    departures: tuple[str, ...] = (),
) -> str:
    """Write one finished run; `metrics` by stage. Returns the cell's id."""
    cell = Cell(canonical(settings), protocols)
    folder = store / "cells" / cell.id
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    provenance = {
        "git": "0" * 40,
        "dirty": None,
        "versions": {"python": "3.11.2", "torch": "2.14.1"},
        "hardware": {"device": "cpu", "gpu": None, "cpu": "Example CPU", "cores": 2, "threads": 2},
        "finished": "2026-01-01T00:00:00Z",
    }
    data = settings["data"]
    record = {
        "schema": 1,
        "stage": "pretrain",
        "id": cell.id,
        "status": status,
        "method": {"name": settings["method"], "version": settings["version"]},
        "config": cell.config,
        "metrics": {"loss": 0.5, "std": 0.5} if status == "done" else None,
        "curves": series or {},
        "timing": {"wall_seconds": 12.5, "images_per_second": 2000.0, "steps": 124, "restarts": 0, "peak_memory_bytes": 1},
        "data": {"name": data["name"], "content": data["content"], "kind": "torchvision", "note": note},
        "provenance": provenance,
        "departures": list(departures),
    }
    write_json(folder / "record.json", record)
    for evaluation in cell.evaluations:
        stage = str(evaluation.protocol["name"])
        if stage in metrics:
            measured = {
                "schema": 1,
                "stage": stage,
                "id": evaluation.id,
                "cell": cell.id,
                "status": "done",
                "protocol": evaluation.protocol,
                "metrics": metrics[stage],
                "chosen": {},
                "timing": {"wall_seconds": 1.0},
                "provenance": provenance,
            }
            write_json(folder / "evaluations" / f"{evaluation.id}.json", measured)
    return cell.id


def numbers(linear: float | None, knn: float | None = None, std: float | None = None) -> dict[str, dict[str, float]]:
    """The metrics of the three evaluations, those given."""
    made: dict[str, dict[str, float]] = {}
    if linear is not None:
        made["linear"] = {"top1": linear, "heldout_top1": linear}
    if knn is not None:
        made["knn"] = {"top1": knn}
    if std is not None:
        made["collapse"] = {"std": std, "effective_rank": 10.0, "pair_cosine": 1 - std**2}
    return made


def tree(folder: Path) -> dict[str, Any]:
    """Every JSON file below a folder by relative path, for comparing two trees."""
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))}
