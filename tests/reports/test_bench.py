"""The bench's table in a text and on the page, from committed records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.bench.memory import growth
from benchmark.bench.record import Goal, Missing, Outcome, Result, assemble, compared, measured, write
from reports import __main__ as reports_main
from reports import bench
from reports.build import ROOT

README = "# Title\n\n<!-- report:begin bench -->\nstale\n<!-- report:end bench -->\nEnd.\n"
FIRST, SECOND = "Retable, ffcv loader", "Retable, torch loader"
SMALL = "two views, 32 x 32"


def outcome(ours: float) -> Outcome:
    results: list[Result] = [
        measured(
            SMALL, "torchvision v2", "images/s", [1300.0, 1400.0, 1350.0], detail="PIL images; slower in the warm-up, tensors"
        ),
        measured(SMALL, "kornia, compiled", "images/s", [9000.0], detail="one process"),
        compared(SMALL, FIRST, "images/s", [ours], "torchvision v2", [1350.0], Goal(ratio=25)),
        compared(SMALL, FIRST, "images/s", [ours], "kornia, compiled", [9000.0]),
        compared(SMALL, SECOND, "images/s", [ours / 2], "torchvision v2", [1350.0]),
        measured("JPEG", "decoding alone", "images/s", [3000.0]),
        measured("first batch", FIRST, "s", [0.7512], Goal(most=3)),
        measured("first batch", SECOND, "s", [3.2], Goal(most=3)),
        growth(FIRST, [900.0] * 20),
    ]
    return Outcome(results, [Missing(SMALL, "lightly", "lightly is not installed")])


def put(folder: Path, name: str, date: str, ours: float, **changes: Any) -> None:
    record = assemble(outcome(ours), {"small": "cifar10, 50,000 images"}, {"quick": False})
    write(folder / "bench" / f"{name}.json", record | {"date": date} | changes)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = reports_main.main([*map(str, arguments), "--table", "byol_bn_blog"])  # one table is enough for these
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_newest_record_fills_the_marked_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", "2026-03-02T10:00:00Z", 40_500)
    put(tmp_path, "b", "2026-03-01T10:00:00Z", 10_000)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    code, printed, errors = run(capsys, "--records", tmp_path, "--readme", readme)
    text = readme.read_text()
    assert (code, errors) == (0, "") and "rewritten" in printed and "stale" not in text and text.endswith("bench -->\nEnd.\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == list(bench.HEADER)
    assert rows[2] == [SMALL, "40,500 images/s", "torchvision v2", "1,350", "30.0", "at least 25x", "met"]
    assert rows[3] == [SMALL, "40,500 images/s", "kornia, compiled", "9,000", "4.5", "", ""]
    assert rows[4] == ["first batch", "0.751 s", "", "", "", "at most 3 s", "met"]
    assert rows[5][4:] == ["1.00", "at most 2% of growth", "met"] and len(rows) == 6
    for words in (
        "torchvision v2 (PIL images)",
        "decoding alone. JPEG: 3,000 images/s.",
        f"{SECOND}. T{SMALL[1:]}: 20,250 images/s; first batch: 3.2 s (goal: at most 3 s, missed).",
        "Small images: cifar10, 50,000 images.",
        "Not measured: two views, 32 x 32, lightly (lightly is not installed).",
        "2026-03-02",
    ):
        assert words in text
    assert "up to date" in run(capsys, "--records", tmp_path, "--readme", readme)[1]


def test_a_quick_run_says_so(tmp_path: Path) -> None:
    put(tmp_path, "a", "2026-03-02T10:00:00Z", 40_500, quick=True)
    found, problems = bench.newest(tmp_path / "bench")
    assert set(found) == {"bench"} and not problems
    assert "A quick run: its numbers say nothing." in bench.markdown(found["bench"])


def test_evaluation_has_a_table_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", "2026-03-01T10:00:00Z", 40_500)
    where, peer = "health telemetry of byol", "the same step, unwatched"
    lines = [
        compared(where, "Retable, every step watched", "ms a step", [500.0], peer, [495.0], Goal(ratio=0.98), "25 turns"),
        measured(where, peer, "ms a step", [495.0]),
    ]
    record = assemble(Outcome(lines), {}, {"quick": False})
    write(tmp_path / "bench" / "b.json", record | {"date": "2026-03-02T10:00:00Z"})  # later, and without any loader
    readme = tmp_path / "README.md"
    for name, wanted in (("evaluation", f"{where}, every step watched"), ("bench", SMALL)):
        readme.write_text(README.replace("begin bench", f"begin {name}").replace("end bench", f"end {name}"))
        assert run(capsys, "--records", tmp_path, "--readme", readme)[0] == 0
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme.read_text().splitlines() if "|" in line]
        assert rows[2][0] == wanted and len(rows[2]) == len(bench.HEADER)
    readme.write_text(README.replace("begin bench", "begin evaluation").replace("end bench", "end evaluation"))
    run(capsys, "--records", tmp_path, "--readme", readme)
    assert (
        "25 turns" in readme.read_text()
        and "| 500 ms a step | the same step, unwatched | 495 | 1.010 | at least 0.98x |"
        in " ".join(readme.read_text().split())
    )


def test_launching_has_a_table_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later record of it alone takes nothing from the loaders' table."""
    put(tmp_path, "a", "2026-03-01T10:00:00Z", 40_500)
    lines = [
        measured("planning: 2,000 cells, an empty store", "Retable", "s", [0.5], Goal(most=1.0), "YAML and all"),
        measured("launching and recording, a cell", "Retable, --launcher local --jobs 1", "s", [0.25], Goal(most=2.0)),
        measured("launching and recording, a cell", "submitit, local executor", "s", [6.0]),
    ]
    record = assemble(Outcome(lines), {}, {"quick": False})
    write(tmp_path / "bench" / "b.json", record | {"date": "2026-03-02T10:00:00Z"})
    readme = tmp_path / "README.md"
    for name, wanted in (("launching", lines[0].bench), ("bench", SMALL)):
        readme.write_text(README.replace("begin bench", f"begin {name}").replace("end bench", f"end {name}"))
        assert run(capsys, "--records", tmp_path, "--readme", readme)[0] == 0
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme.read_text().splitlines() if "|" in line]
        assert rows[2][0] == wanted
        if name == "launching":
            assert [row[1] for row in rows[2:]] == ["0.5 s", "0.25 s"] and "YAML and all" in readme.read_text()


def test_steps_have_a_table_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From whichever record has them; a line for a method, a column for each peer, in the text and on the page."""
    least, goal = "a minimal loop", Goal(ratio=0.971)
    lines = [
        measured("step of byol", least, "ms a step", [200.0, 210.0, 190.0], detail="batches of 128"),
        Result("step of byol", "Retable", "ms a step", 202.0, 190.0, 215.0, least, 0.9901, goal.text("ms"), True),
        measured("step of byol", "lightly", "ms a step", [230.0]),
        Result("step of byol", "Retable", "ms a step", 202.0, 190.0, 215.0, "lightly", 1.1386, "at least 1x", True),
        measured("step of cpc", least, "ms a step", [90.0]),
        Result("step of cpc", "Retable", "ms a step", 99.0, 90.0, 99.0, least, 0.909, goal.text("ms"), False),
    ]
    missing = [Missing("step of cpc", "lightly", "it has none")]
    put(tmp_path, "a", "2026-03-02T10:00:00Z", 40_500)
    record = assemble(Outcome(lines, missing), {}, {"quick": False})
    write(tmp_path / "bench" / "b.json", record | {"date": "2026-03-01T10:00:00Z"})
    readme = tmp_path / "README.md"
    readme.write_text(README.replace("begin bench", "begin steps").replace("end bench", "end steps"))
    assert run(capsys, "--records", tmp_path, "--readme", readme)[0] == 0
    text = readme.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["method", "ours", least, "lightly", ""]
    assert rows[2:] == [
        ["byol", "202", "200 (0.990x)", "230 (1.139x)", "met"],
        ["cpc", "99", "90 (0.909x)", "", f"missed: {least}"],
    ]
    assert "Goals: a minimal loop at least 0.971x, lightly at least 1x." in text and "Batches of 128." in text
    assert "Not measured: step of cpc, lightly (it has none)." in text and "two views" not in text
    assert run(capsys, "--records", tmp_path, "--out", tmp_path / "build", "--no-figures")[0] == 0
    page = (tmp_path / "build" / "speed.html").read_text()
    assert all(bench.TITLES[name] in page for name in ("bench", "steps")) and "230 (1.139x)" in page


def test_nothing_has_been_measured_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert run(capsys, "--records", tmp_path, "--readme", readme)[0] == 0
    assert bench.MISSING in readme.read_text() and "stale" not in readme.read_text()
    out = tmp_path / "build"
    assert run(capsys, "--records", tmp_path, "--out", out, "--no-figures")[0] == 0
    assert not (out / "speed.html").exists() and "speed.html" not in (out / "index.html").read_text()


def test_the_page_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", "2026-03-02T10:00:00Z", 20_250)
    out = tmp_path / "build"
    assert run(capsys, "--records", tmp_path, "--out", out, "--no-figures")[0] == 0
    page = (out / "speed.html").read_text()
    assert "Speed of the loaders" in page and "20,250 images/s" in page and "missed" in page


@pytest.mark.parametrize("damage", ["cut", "schema", "median", "machine"])
def test_a_record_that_cannot_be_read_is_named_and_the_rest_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    put(tmp_path, "good", "2026-03-01T10:00:00Z", 40_500)
    put(tmp_path, "bad", "2026-03-02T10:00:00Z", 40_500)
    path = tmp_path / "bench" / "bad.json"
    record = json.loads(path.read_text())
    if damage == "median":
        record["results"][0]["median"] = None
    elif damage == "schema":
        record["schema"] = 9
    else:
        del record["machine"]
    path.write_text(path.read_text()[:100] if damage == "cut" else json.dumps(record))
    readme = tmp_path / "README.md"
    readme.write_text(README)
    code, _, errors = run(capsys, "--records", tmp_path, "--readme", readme)
    assert code == 2 and str(path) in errors and "not a record of the bench" in errors and readme.read_text() == README
    code, _, errors = run(capsys, "--records", tmp_path, "--readme", readme, "--keep-going")
    assert code == 2 and str(path) in errors
    assert "40,500 images/s" in readme.read_text()


def test_committed_records_are_whole() -> None:
    assert not bench.newest(ROOT / "reports" / "records" / "bench")[1]


def test_the_table_needs_no_torch() -> None:
    code = "import sys, reports.bench; sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
