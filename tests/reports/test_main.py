"""`python -m reports` on the shipped tables and sweep, with records of the shapes that execution writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.plan.sweep import DataIdentity, load_sweep
from reports import __main__ as reports_main
from reports import publish
from reports.build import ROOT
from reports.evidence import LOG_LINES
from reports.reference import read_references
from tests.reports.builder import curves, numbers, tree, write_run
from tests.reports.project import Project

SWEEP = ROOT / "sweeps" / "byol_norm_ablation.yaml"
SPREAD = {"BYOL (BN / BN)": 0.86, "Random init": 0.6, "No normalization in the heads": 0.03, "GN + WS": 0.8}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four rows of the sweep at its smoke profile, on CIFAR-10, two seeds each."""
    at_hand = {"cifar10": DataIdentity("cifar10", "0123456789ab")}
    for row in load_sweep(SWEEP).expand("smoke", at_hand, seeds=[0, 1]):
        if row.name in SPREAD:
            for cell in row.cells:
                values = numbers(40.0 + cell.seed, 38.0 + cell.seed, SPREAD[row.name] + 0.002 * cell.seed)
                series = curves(4.0, 1.0, SPREAD[row.name], points=4)
                write_run(tmp_path / "runs", cell.config, values, protocols=cell.protocols, series=series)
    return tmp_path / "runs"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = reports_main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_build_holds_every_table_in_every_format(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "build"
    code, printed, errors = run(capsys, "--store", store, "--records", tmp_path / "none", "--out", out)
    assert (code, printed.strip(), errors) == (0, str(out / "index.html"), "")
    for name in read_references(ROOT / "reports" / "reference"):  # all of them, whether or not anything has run
        assert {path.suffix for path in (out / "tables").glob(f"{name}.*")} == {".md", ".tex", ".csv", ".json", ".html"}
    figures = sorted(path.suffix for path in (out / "figures").glob("byol_bn_blog*"))
    assert ".pdf" in figures and figures.count(".pdf") == figures.count(".svg")
    blog = (out / "tables" / "byol_bn_blog.md").read_text()
    assert "supported (direction) | With batch normalization in both heads BYOL does not collapse." in blog
    assert "supported (direction) | Without normalization in the heads BYOL collapses." in blog
    assert "--only 'row=Layer norm (LN / LN)'" in blog
    assert {path.name for path in out.glob("*.html")} >= {"index.html", "cost.html", "audit.html", "departures.html"}


@pytest.mark.parametrize("columns", [80, 160])
def test_the_printed_table_fits_the_terminal(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    sweep = ("--sweep", SWEEP, "--profile", "smoke")
    code, printed, _ = run(capsys, "--store", store, "--print", "--records", store / "none", *sweep)
    assert code == 0
    lines = [line for line in printed.splitlines() if "benchmark.run" not in line]  # commands are left whole to be copied
    assert max(map(len, lines)) <= columns
    numbers_of_byol = next(line for line in lines if line.strip().startswith("BYOL ") and "57.7" in line)
    assert ("39.5±" not in numbers_of_byol) and "40.5±6.4" in numbers_of_byol and "not comparable" in numbers_of_byol
    assert ("kNN" in printed) == (columns == 160)


def test_nothing_has_run_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETABLE_STORE", raising=False)
    out = tmp_path / "build"
    code, _, _ = run(capsys, "--records", tmp_path / "none", "--out", out)
    assert code == 0
    blog = (out / "tables" / "byol_bn_blog.md").read_text()
    assert "`python -m benchmark.run sweeps/byol_norm_ablation.yaml --profile imagenet`" in blog  # the paper's own
    lines = [line for line in (out / "tables" / "byol_bn_blog.csv").read_text().splitlines() if ",published," in line]
    assert len(lines) == 8 and all("not run" in line for line in lines[:7])


def test_a_corrupt_record_is_named_and_the_rest_is_rendered_on_demand(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sorted(store.glob("cells/byol-*/record.json"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    out = tmp_path / "build"
    words = ("--store", store, "--records", tmp_path / "none", "--out", out, "--no-figures")
    code, printed, errors = run(capsys, *words)
    first, last = errors.splitlines()
    assert (code, printed, out.exists()) == (2, "", False)
    assert first.startswith(f"error: {broken}: not valid JSON") and "--keep-going" in last
    code, printed, errors = run(capsys, *words, "--keep-going")
    assert code == 2 and printed.strip() == str(out / "index.html") and errors.count(str(broken)) == 1
    assert broken.parent.name in (out / "index.html").read_text()
    assert "supported (direction)" in (out / "tables" / "byol_bn_blog.md").read_text()


def test_an_unknown_schema_is_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = sorted(store.glob("cells/byol-*/record.json"))[0]
    broken.write_text(broken.read_text().replace('"schema": 1', '"schema": 9'))
    code, _, errors = run(capsys, "--store", store, "--records", tmp_path / "none", "--out", tmp_path / "b")
    assert code == 2 and f"{broken}: record schema 9, this version of Retable reads 1" in errors


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        ("none", "rows > bad > select: must fit exactly one row of sweeps/toy.yaml at profile smoke, but fits no row"),
        ("two", "but fits 3 rows: good, bad, aside"),
        ("source", "toy.csv:2: the number 60 has no source"),
        ("yaml", "toy.yaml"),
    ],
)
def test_bad_tables_and_references_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: str, words: str
) -> None:
    selection = {"none": "{method: simclr}", "two": "{method: byol}"}.get(break_it)
    project = Project(tmp_path, more=f"rows: {{bad: {{select: {selection}}}}}\n" if selection else "")
    second = project.table.with_name("second.yaml")
    text = "table: second\ntitle: Second\npaper: {name: Ours}\nsweep: sweeps/toy.yaml\nown: all\n"
    second.write_text(text + "protocol: {about: none, profile: null}\nbeside: [linear.top1]\n")
    if break_it == "source":
        project.registry.write_text(project.registry.read_text().replace("Table 1", "", 1))
    if break_it == "yaml":
        project.table.write_text(project.table.read_text() + "  : [\n")
    out = tmp_path / "build"
    given = ("--root", tmp_path, "--store", tmp_path, "--records", tmp_path / "none", "--out", out, "--no-figures")
    code, printed, errors = run(capsys, *given)
    assert (code, printed, out.exists()) == (2, "", False) and words in errors
    code, _, errors = run(capsys, *given, "--keep-going")
    assert code == 2 and words in errors
    assert (out / "tables" / "second.md").exists()
    if break_it == "source":  # the one cell is left out, and with it the claim about it and so the table
        assert errors.count("toy.yaml") == 1
    assert not (out / "tables" / "toy.md").exists()


def test_a_record_of_another_shape_is_named_too(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = sorted(store.glob("cells/byol-*/record.json"))[0]
    record = json.loads(broken.read_text())
    del record["config"]["data"]
    broken.write_text(json.dumps(record))
    code, _, errors = run(capsys, "--store", store, "--records", tmp_path / "none", "--out", tmp_path / "b", "--no-figures")
    assert code == 2 and f"{broken}: config.data has the wrong type" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--table", "byol_bn_blok"], "did you mean 'byol_bn_blog'"),
        (["--profile", "cifar"], "no sweep has a profile 'cifar'"),
        (["--store", "no/such/store"], "no/such/store: no such store"),
        (["--against", "no/such/store"], "--against: no/such/store: no such store"),
        (["--sweep", "sweeps/nothing.yaml"], "is about sweeps/nothing.yaml"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    code, printed, errors = run(capsys, *arguments)
    assert (code, printed) == (2, "") and errors.startswith("error: ") and errors.count("\n") == 1 and words in errors


def test_compact_records_rebuild_the_same_tables_and_win_over_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "cells" / "byol-unfinished").mkdir()
    logged = sorted(store.glob("cells/byol-*"))[0]
    logged.joinpath("checkpoint.pt").write_bytes(b"weights")
    logged.joinpath("log.txt").write_text("".join(f"line {number}\n" for number in range(100)))
    evaluation = sorted(logged.glob("evaluations/*.json"))[0]
    evaluation.write_text(json.dumps(json.loads(evaluation.read_text()) | {"pictures": ["small.png", "large.png", "gone.png"]}))
    (logged / "evaluations" / "small.png").write_bytes(b"png")
    (logged / "evaluations" / "large.png").write_bytes(bytes(300_000))
    records = tmp_path / "records"
    code, printed, _ = run(capsys, "--store", store, "--compact", records)
    assert code == 0 and f"8 records written to {records}" in printed
    assert tree(records) == tree(store)
    assert len((records / "cells" / logged.name / "log.txt").read_text().splitlines()) == LOG_LINES
    assert [path.name for path in records.rglob("*.png")] == ["small.png"]
    assert not list(records.rglob("checkpoint.pt"))
    out = [tmp_path / "a", tmp_path / "b"]
    run(capsys, "--store", store, "--records", tmp_path / "none", "--out", out[0], "--no-figures")
    run(capsys, "--records", records, "--out", out[1], "--no-figures", "--store", tmp_path / "records")
    strip = {f" --store {store}": "", f" --store {records}": ""}
    texts = [(folder / "tables" / "byol_norm_table1.md").read_text() for folder in out]
    for old, new in strip.items():
        texts = [text.replace(old, new) for text in texts]
    assert texts[0] == texts[1]


def test_two_folders_that_disagree_are_reported_and_the_store_is_used(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records"
    run(capsys, "--store", store, "--compact", records)
    changed = sorted(records.glob("cells/byol-*/evaluations/linear-*.json"))[0]
    changed.write_text(changed.read_text().replace('"top1": 4', '"top1": 9'))
    words = ("--store", store, "--records", records, "--out", tmp_path / "b", "--no-figures")
    code, printed, errors = run(capsys, *words)
    assert (code, printed) == (2, "") and f"{changed.parent.parent}: disagrees" in errors
    # the same on another machine is worth a remark, and no error
    record = changed.parent.parent / "record.json"
    record.write_text(record.read_text().replace("Example CPU", "Another CPU"))
    code, _, errors = run(capsys, *words)
    assert code == 0 and "disagrees" in errors and "other hardware" in errors
    assert "9" + "0." not in (tmp_path / "b" / "tables" / "byol_bn_blog.csv").read_text()


def test_another_config_under_the_same_id_is_never_right(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records"
    run(capsys, "--store", store, "--compact", records)
    changed = sorted(records.glob("cells/byol-*/record.json"))[0]
    text = changed.read_text().replace("Example CPU", "Another CPU")
    changed.write_text(text.replace('"epochs": ', '"epochs": 1'))
    code, _, errors = run(capsys, "--store", store, "--records", records, "--out", tmp_path / "b", "--no-figures")
    assert code == 2 and "has another config than" in errors


def test_what_is_committed_is_held_to_the_records(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a README and a folder of its own: a changed record and a changed number are found, and mended by --publish."""
    readme, rendered, records = tmp_path / "README.md", tmp_path / "reports" / "rendered", tmp_path / "records"
    readme.write_text(README)
    rendered.parent.mkdir()
    for name, value in (("ROOT", tmp_path), ("README", readme), ("RENDERED", rendered)):
        monkeypatch.setattr(publish, name, value)
    run(capsys, "--store", store, "--compact", records)
    code, _, errors = run(capsys, "--records", records, "--check")
    assert code == 1 and "README.md: differs" in errors and "reports/rendered/byol_bn_blog.md: differs" in errors
    assert run(capsys, "--records", records, "--publish")[0] == 0
    assert run(capsys, "--records", records, "--check")[0] == 0
    table = rendered / "byol_bn_blog.md"
    table.write_text(table.read_text().replace("40.5 ± 6.4", "74.3 ± 0.1", 1))
    assert run(capsys, "--records", records, "--check")[0] == 1
    assert run(capsys, "--records", records, "--publish")[0] == 0 and "74.3 ± 0.1" not in table.read_text()
    for path in records.glob("cells/byol-*/evaluations/linear-*.json"):
        path.write_text(path.read_text().replace('"top1": 4', '"top1": 5'))
    code, _, errors = run(capsys, "--records", records, "--check")
    assert code == 1 and "reports/rendered/byol_bn_blog.md: differs from the committed records" in errors


README = """# Title

<!-- report:begin byol_bn_blog/smoke -->
stale
<!-- report:end byol_bn_blog/smoke -->
Between.
<!-- report:begin claims -->
<!-- report:end claims -->
End.
"""


def test_the_marked_parts_of_a_text_are_rewritten_and_only_they(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    code, printed, _ = run(capsys, "--store", store, "--records", tmp_path / "none", "--readme", readme)
    text = readme.read_text()
    assert code == 0 and "rewritten" in printed
    assert text.startswith("# Title\n\n<!-- report:begin byol_bn_blog/smoke -->\n\n") and text.endswith("claims -->\nEnd.\n")
    assert "stale" not in text and "\nBetween.\n" in text and "40.5 ± 6.4" in text
    assert "| claim" in text and "smoke, cifar10" in text
    assert "up to date" in run(capsys, "--store", store, "--records", tmp_path / "none", "--readme", readme)[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no markers", "has no line '<!-- report:begin NAME -->'"),
        ("<!-- report:begin claims -->\n", "README.md:1: expected a begin and an end marker of the same name"),
        ("\n<!-- report:begin claim -->\n<!-- report:end claim -->\n", "README.md:2: the report has no 'claim'"),
    ],
)
def test_markers_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    code, _, errors = run(capsys, "--records", tmp_path / "none", "--readme", readme)
    assert code == 2 and words in errors and readme.read_text() == text


def test_a_report_never_imports_torch(store: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from reports.__main__ import main\n"
        f"code = main(['--store', {str(store)!r}, '--out', {str(tmp_path / 'b')!r}, '--no-figures', '--print'])\n"
        "assert code == 0 and not {'torch', 'numba', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
