"""Which verdicts more random seeds would settle, and rounds of training that end when none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import rounds
from benchmark.errors import InputError
from benchmark.run import main
from reports.undecided import Open, Tables
from tests.reports.builder import numbers
from tests.reports.project import CONTENT, SWEEP, TABLE, Project

ROOT = Path(__file__).resolve().parents[2]
SWEEP_OF_CONVNETS = SWEEP.replace("{name: resnet10, width: 0.5, stem: stride2}", "{name: convnet, width: 0.25}").replace(
    "smoke: {seeds: [0, 1]}", "smoke: {seeds: [0]}"
)


class Toys(Project):
    """Its rows' numbers are all one, and its open rows are those of the smoke profile."""

    def __init__(self, root: Path, profile: str = "null", more: str = "") -> None:
        own = "own: {Random init: {row: Random init}, aside: {row: aside}}\nclaims:"
        super().__init__(root, profile, more, TABLE.replace("claims:", own), SWEEP_OF_CONVNETS)

    def number(self, row: str, seed: int, linear: float, std: float = 0.9, content: str = CONTENT, **changes: Any) -> None:
        self.run(row, seed, numbers(linear, linear, std), content=content, **changes)

    def open(self, contents: tuple[tuple[str, str], ...] = (("shapes", CONTENT),)) -> dict[str, tuple[tuple[int, ...], int]]:
        rows = Tables.of(self.sweep).open_rows("smoke", self.store, contents)
        return {row.name: (row.seeds, row.more) for row in rows}


def test_nothing_is_open_before_anything_has_run(tmp_path: Path) -> None:
    assert Toys(tmp_path).open() == {}


def test_an_order_of_single_seeds_is_open_for_its_two_rows(tmp_path: Path) -> None:
    toys = Toys(tmp_path)
    for row, linear in (("Random init", 20.0), ("good", 60.0), ("bad", 50.0), ("aside", 40.0)):
        toys.number(row, 0, linear)
    assert toys.open() == {"good": ((0,), 1), "bad": ((0,), 1)}  # `aside` is in no claim, and nobody published it
    toys.number("good", 1, 60.1)
    assert toys.open() == {"bad": ((0,), 1)}  # the one that lags behind
    toys.number("bad", 1, 50.1)
    assert toys.open() == {"Random init": ((0,), 1)}  # the better one must beat it, and one seed has no interval
    toys.number("Random init", 1, 20.1)
    assert toys.open() == {}


def test_the_power_calculation_says_how_many(tmp_path: Path) -> None:
    toys = Toys(tmp_path)
    for seed, (good, bad) in enumerate([(60.0, 59.0), (61.0, 60.0), (62.0, 61.0)]):
        toys.number("good", seed, good)
        toys.number("bad", seed, bad)
        toys.number("Random init", seed, 20.0 + seed)
    found = toys.open()
    assert found.keys() == {"good", "bad"} and 10 < found["good"][1] == found["bad"][1] < 60  # a difference of a deviation


def test_what_seeds_cannot_settle_adds_none(tmp_path: Path) -> None:
    toys = Toys(tmp_path, more="  between: {kind: collapse, cell: aside, says: Aside collapses.}\n")
    for seed in range(2):
        toys.number("good", seed, 20.0 + seed)
        toys.number("bad", seed, 5.0 + seed)
        toys.number("Random init", seed, 20.0 + seed)
        toys.number("aside", seed, 40.0, std=0.3)  # neither collapsed nor spread, whatever the number of seeds
    assert toys.open() == {}  # good is no better than an untrained network: accuracy cannot decide
    toys.number("bad", 2, 0.0, status="diverged")
    assert toys.open() == {}


def test_a_published_number_is_open_at_the_papers_scale_alone(tmp_path: Path) -> None:
    small, own = Toys(tmp_path / "small"), Toys(tmp_path / "own", profile="smoke")
    for toys in (small, own):
        for seed in range(3):
            toys.number("good", seed, 60.0 + seed)  # the interval reaches across 61
            toys.number("bad", seed, 30.0 + 0.1 * seed)
            toys.number("Random init", seed, 20.0 + 0.1 * seed)
    assert small.open() == {}
    assert own.open().keys() == set()  # at the very edge no affordable number of seeds would do
    own.number("good", 0, 60.3)
    own.number("good", 1, 60.6)
    own.number("good", 2, 59.4)
    assert own.open().keys() == {"good"}


def test_other_images_and_unfinished_runs_do_not_count(tmp_path: Path) -> None:
    toys = Toys(tmp_path)
    for row in ("good", "bad"):
        toys.number(row, 0, 50.0, content="bbbbbbbbbbbb")
    assert toys.open() == {}
    assert toys.open(()).keys() == {"good", "bad"}
    for row in ("good", "bad"):
        toys.number(row, 0, 50.0)
        toys.number(row, 5, 50.0)
    for path in toys.store.glob("cells/*/evaluations/*.json"):
        config = json.loads((path.parents[1] / "record.json").read_text())["config"]
        if config["seed"] == 5:
            path.unlink()
    assert toys.open() == {"good": ((0,), 1), "bad": ((0,), 1)}


def test_a_sweep_without_a_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys = Toys(tmp_path)
    other = toys.sweep.with_name("other.yaml")
    other.write_text(SWEEP)
    for path in (other, tmp_path / "elsewhere.yaml"):
        path.write_text(SWEEP)
        with pytest.raises(InputError, match="no table in reports/tables is about this sweep"):
            Tables.of(path)
    command = [str(other), "--profile", "smoke", "--until-decided", "--store", str(toys.store), "--plan"]
    assert main(command) == 2
    assert "no table in reports/tables is about this sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--first"], "drop --first"),
        (["--cell", "byol"], "drop --cell"),
        (["--mode", "force"], "would train everything anew in every round"),
        (["epochs=3"], "the tables know the sweep's own settings alone"),
        (["--status"], "drop --status"),
        (["--only", "seed=0"], "which seeds there are is what the rounds decide"),
    ],
)
def test_what_makes_no_sense_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    toys = Toys(tmp_path)
    assert main([str(toys.sweep), "--until-decided", "--store", str(toys.store), *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seeds", "more", "most", "expected"),
    [
        ((0, 1), 1, 10, [2]),
        ((0, 1, 2), 40, 10, [3, 4, 5]),  # at most as many again as there are
        ((0, 1, 2, 3, 4, 5, 6, 7), 40, 10, [8, 9]),
        ((0, 2), 2, 10, [1, 3]),
        ((), 1, 10, [0]),
        ((0, 1, 2), 5, 3, []),
        ((0, 1, 2, 3), 5, 3, []),
    ],
)
def test_the_seeds_of_the_next_round(seeds: tuple[int, ...], more: int, most: int, expected: list[int]) -> None:
    assert rounds._next(Open("row", seeds, more, ""), most) == expected


def test_rounds_until_nothing_is_open_or_the_seeds_are_used_up(tmp_path: Path) -> None:
    """For real: one seed of each row, then one more where the order is open, and no more than --max-seeds."""
    toys = Toys(tmp_path)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RETABLE_")} | {"COLUMNS": "160"}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "benchmark.run", str(toys.sweep), "--profile", "smoke", "--store", str(toys.store)]
        words += ["--launcher", "inline", "--until-decided", "--max-seeds", "2", *more]
        return subprocess.run(words, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=300)

    first = run("--plan")
    assert first.returncode == 0, first.stderr
    assert "4 of 4 cells have work left" in first.stdout and not toys.store.exists()
    done = run()
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in toys.store.glob("cells/*/record.json")]
    seeds: dict[str, list[int]] = {}
    for record in records:
        config = record["config"]
        name = f"{config['method']} {config.get('projector', {}).get('norm')} {config.get('predictor', {}).get('norm')}"
        seeds.setdefault(name, []).append(config["seed"])
    assert sorted(seeds["byol batch batch"]) == sorted(seeds["byol none batch"]) == [0, 1]
    assert seeds["byol batch none"] == [0]  # of no claim
    assert "Undecided: good: Good is better than bad" in done.stdout
    again = run("--plan")
    assert again.returncode == 0 and "0 of 4 cells have work left" in again.stdout
