"""A folder like the project's own for tests of the join: a sweep, a table about it, published numbers, a store of records."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmark.plan.sweep import DataIdentity, load_sweep
from reports import build
from reports.assemble import Report
from reports.reference import COLUMNS
from tests.reports.builder import write_run

CONTENT = "aaaaaaaaaaaa"
SWEEP = """
question: Which is better?
paper:
  key: example
  tables:
    toy: {"good": "good", "bad": "bad", "absent": {absent: "it is not among the methods"}}
base: {method: byol, epochs: 1, batch_size: 10, encoder: {name: resnet10, width: 0.5, stem: stride2},
       projector: {hidden: 8, out: 8}, predictor: {hidden: 8, out: 8},
       data: {name: shapes, train_images: 100, test_images: 50, image_size: 32, held_out: 0.1}}
rows:
  Random init: {method: random}
  good: {}
  bad: {projector.norm: none}
  aside: {predictor.norm: none}
evaluate: {knn: {k: 20}, linear: {l2_low: -2, l2_high: -2}, collapse: {}}
profiles:
  smoke: {seeds: [0, 1]}
  cpu: {set: {epochs: 2}, seeds: [0, 1, 2]}
"""
TABLE = """
table: toy
title: Toys
sweep: sweeps/toy.yaml
protocol: {about: toys, profile: PROFILE}
columns: {"acc.": {metric: linear.top1}}
beside: [knn.top1, collapse.std]
margin: {points: 1.0, why: chosen for the test}
claims:
  order: {kind: order, above: good, below: bad, says: Good is better than bad.}
figures: [numbers]
"""
PUBLISHED = (("good", "acc.", "60"), ("bad", "acc.", "50"), ("absent", "acc.", "40"))


def cell_of(table: str, row: str, column: str, value: str, **words: str) -> dict[str, str]:
    """A line of the registry."""
    line = dict.fromkeys(COLUMNS, "")
    line |= {"table": table, "row": row, "column": column, "paper": "Example", "year": "2020", "arxiv": "2001.00001"}
    line |= {"source": "Table 1", "metric": "top-1 linear", "protocol": "linear probe", "value": value, "unit": "%"}
    return line | {"status": "paper-text"} | words


def write_registry(path: Path, lines: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


class Project:
    """sweeps/toy.yaml, reports/tables/toy.yaml, reports/reference/toy.csv and a store, all of which a test may write anew."""

    def __init__(self, root: Path, profile: str = "null", more: str = "", table: str = TABLE, sweep: str = SWEEP) -> None:
        self.root, self.store, self.sweep = root, root / "runs", root / "sweeps" / "toy.yaml"
        self.table = root / "reports" / "tables" / "toy.yaml"
        self.registry = root / "reports" / "reference" / "toy.csv"
        for path in (self.sweep, self.table):
            path.parent.mkdir(parents=True)
        self.sweep.write_text(sweep)
        self.table.write_text(table.replace("PROFILE", profile).replace("figures:", more + "figures:"))
        write_registry(self.registry, [cell_of("toy", row, column, value) for row, column, value in PUBLISHED])

    @property
    def sources(self) -> build.Sources:
        reports = self.root / "reports"
        return build.Sources([self.store], self.root, reports / "tables", reports / "reference")

    def run(
        self,
        row: str,
        seed: int,
        metrics: dict[str, dict[str, float]],
        profile: str = "smoke",
        content: str = CONTENT,
        **changes: Any,
    ) -> str:
        """Write what a training of this row and its evaluations would leave; returns the cell's id."""
        images = {"shapes": DataIdentity("shapes", content, 100)}
        (found,) = (one for one in load_sweep(self.sweep).expand(profile, images, [seed]) if one.name == row)
        (cell,) = found.cells
        settings = cell.config | changes.pop("config", {})
        return write_run(self.store, settings, metrics, protocols=changes.pop("protocols", cell.protocols), **changes)

    def report(self, profile: str | None = None) -> Report:
        return build.load(self.sources, profile=profile)
