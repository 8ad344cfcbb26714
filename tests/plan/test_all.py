"""Every sweep of a folder at once: each shared cell once, what each would take alone, what sharing saves; and run for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.plan.plan import Known, planned
from benchmark.plan.shared import Alone, alone, saved, sweeps_of, together
from benchmark.run import main
from benchmark.store.store import Store

ROOT = Path(__file__).resolve().parents[2]

ONE = """
question: one?
base: {method: byol, epochs: 1, batch_size: 10, encoder: {name: convnet, width: 0.25}, projector: {hidden: 8, out: 8},
       predictor: {hidden: 8, out: 8}, data: {name: shapes, train_images: 100, test_images: 50, image_size: 32, held_out: 0.1}}
rows:
  Random init: {method: random}
  byol: {}
evaluate: [collapse]
profiles: {smoke: {seeds: [0, 1]}, cpu: {}}
"""
TWO = (
    ONE.replace("  byol: {}", "  other: {projector.norm: none}")
    .replace("one?", "two?")
    .replace("[collapse]", "[collapse, knn]")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RETABLE_DATA", "RETABLE_STORE", "RETABLE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    made = tmp_path / "questions"
    made.mkdir()
    (made / "one.yaml").write_text(ONE)
    (made / "two.yaml").write_text(TWO)
    (made / "three.yaml").write_text(ONE.replace("smoke: {seeds: [0, 1]}, ", ""))
    return made


def command(folder: Path, *more: str) -> list[str]:
    return ["--all", str(folder), "--profile", "smoke", "--store", str(folder.parent / "runs"), *more]


def planned_cells(text: str) -> str:
    return next(line for line in text.splitlines() if "have work left" in line).partition(" left")[0] + " left"


def test_shared_cells_are_there_once_with_all_their_evaluations(folder: Path) -> None:
    sweeps, without = sweeps_of(folder, "smoke")
    assert ([sweep.path.name for sweep in sweeps], without) == (["one.yaml", "two.yaml"], ["three.yaml"])
    rows, shared = together([(sweep, sweep.expand("smoke")) for sweep in sweeps])
    known = Known.read(Store(folder.parent / "runs"), "cpu")
    actions = planned(rows, known, "cached")
    assert [action.rows for action in actions[:3]] == [
        ("one: Random init", "two: Random init"), ("one: byol",), ("two: other",),
    ]  # fmt: skip
    assert len(actions) == 6 and {action.cell.id for action in actions if len(action.rows) > 1} == set(shared)
    assert set(shared.values()) == {("one.yaml", "two.yaml")}
    assert [one.protocol["name"] for one in actions[0].evaluations] == ["collapse", "knn"]
    assert [one.protocol["name"] for one in actions[1].evaluations] == ["collapse"]
    each = [alone(sweep.path.name, planned(sweep.expand("smoke"), known, "cached")) for sweep in sweeps]
    assert [(one.rows, one.cells, one.works) for one in each] == [(2, 4, 4), (2, 4, 4)]
    found = saved(each, actions)
    assert found.cells == 2
    alone_in_one = sum(action.seconds for action in planned(sweeps[0].expand("smoke"), known, "cached") if len(action.rows) and
                       action.cell.id in shared)  # fmt: skip
    assert found.seconds == pytest.approx(alone_in_one)  # two has all that one measures of them, and one sweep less pays


def test_nothing_is_saved_where_nothing_is_shared(folder: Path) -> None:
    one = Alone("one.yaml", 1, 1, 1, 10.0, 0, {})  # type: ignore[arg-type]
    assert saved([one], []).cells == 1
    (folder / "two.yaml").write_text(TWO.replace("epochs: 1", "epochs: 2").replace("  Random init: {method: random}\n", ""))
    sweeps, _ = sweeps_of(folder, "smoke")
    assert together([(sweep, sweep.expand("smoke")) for sweep in sweeps])[1] == {}


def test_the_plan_has_a_line_for_each_sweep_and_what_sharing_saves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, "--plan")) == 0
    said = capsys.readouterr().out
    assert "without it: three.yaml" in said
    assert planned_cells(said) == "6 of 6 cells have work left"
    assert "Sharing saves 2 cells" in said
    lines = {line.split()[0]: line.split() for line in said.splitlines() if ".yaml " in line and "without" not in line}
    assert lines["one.yaml"][1:4] == lines["two.yaml"][1:4] == ["2", "4", "4"]
    assert lines["one.yaml"][-2:] == ["4", "new"]
    assert not (folder.parent / "runs").exists()


def test_what_may_stand_beside_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cells(*more: str) -> str:
        assert main(command(folder, "--plan", *more)) == 0
        return planned_cells(capsys.readouterr().out)

    assert cells("--seeds", "0,1,2") == "9 of 9 cells have work left"
    assert cells("--only", "row=byol") == "2 of 2 cells have work left"
    assert cells("--only", "seed=1") == "3 of 3 cells have work left"
    assert cells("batch_size=20") == "6 of 6 cells have work left"
    assert cells("--first") == "1 of 1 cells have work left"
    refused = {
        ("--only", "row=nobody"): "--only row=nobody: no such row; none of 2 sweeps has it",
        ("--only", "seed=7"): "none of the 6 cells matches",
        ("--budget", "0"): "over budget",
        ("--until-decided",): "--until-decided --all",
    }
    for words, sentence in refused.items():
        assert main(command(folder, "--plan", *words)) == (3 if "budget" in sentence else 2)
        assert sentence in capsys.readouterr().err


def test_a_setting_is_not_taken_for_a_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.rename(folder.parent / "sweeps")
    monkeypatch.chdir(folder.parent)
    assert main(["--all", "--profile", "smoke", "--plan", "epochs=nonsense"]) == 2
    assert "command line: epochs: expected a whole number" in capsys.readouterr().err
    assert main(["--all", "--profile", "smoke", "--plan", "epochs=2"]) == 0
    assert planned_cells(capsys.readouterr().out) == "6 of 6 cells have work left"
    assert main(["--all", "sweeps/one.yaml", "--plan"]) == 2
    assert "--all takes every sweep of a folder" in capsys.readouterr().err
    assert main(["--plan"]) == 2
    assert "no sweep is named" in capsys.readouterr().err
    assert main(["--all", "--profile", "imagenet", "--plan"]) == 2
    assert "none of its sweeps has a profile 'imagenet'; they have smoke, cpu" in capsys.readouterr().err


def test_the_union_runs_and_each_cell_once(folder: Path, tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "benchmark.run", *command(folder, "--launcher", "inline", "--seeds", "0", *more)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)

    done, store = run(), tmp_path / "runs"
    assert done.returncode == 0, done.stderr
    records = {path.parent.name: json.loads(path.read_text()) for path in store.glob("cells/*/record.json")}
    assert sorted(record["config"]["method"] for record in records.values()) == ["byol", "byol", "random"]
    (random,) = (name for name in records if name.startswith("random-"))
    measured = {path.name.partition("-")[0] for path in (store / "cells" / random / "evaluations").glob("*.json")}
    assert measured == {"collapse", "knn"}  # what either sweep wants
    starts = [json.loads(path.read_text())["token"] for path in store.glob("cells/*/owner.json")]
    assert starts == [1, 1, 1]
    assert "0 of 3 cells have work left" in run("--plan").stdout
