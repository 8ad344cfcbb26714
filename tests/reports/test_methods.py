"""A page for each method: its texts are its file's, its numbers are the tables', and every one opens its evidence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from methods.catalogue import CATALOGUE
from reports import methods
from reports.build import ROOT
from reports.site import Site
from reports.site import methods as pages
from tests.reports.builder import numbers
from tests.reports.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The good row at two scales, the bad one at one, the random one at both."""
    made = Project(tmp_path)
    for seed in (0, 1):
        made.run("good", seed, numbers(60.0 + seed, 50.0, 0.8))
        made.run("good", seed, numbers(70.0 + seed, 55.0, 0.8), profile="cpu")
        made.run("bad", seed, numbers(40.0 + seed, 62.0, 0.1))
        made.run("Random init", seed, numbers(30.0 + seed, 25.0, 0.6))
    return made


def of(project: Project, name: str) -> methods.Method:
    return next(method for method in methods.gather(project.report()) if method.name == name)


def test_every_method_has_a_page_in_the_order_of_the_papers(project: Project) -> None:
    found = methods.gather(project.report())
    assert {method.name for method in found} == set(CATALOGUE()["methods"])
    dates = [method.arxiv for method in found if method.arxiv and method.name != "supervised"]
    assert dates == sorted(dates)


def test_the_text_is_the_files_own() -> None:
    text = methods.blocks(
        "Title here (A, 2020).\n\nFor two views:\n\n    a = b\n\n    c = d\nShould reach 1.0.\nSwitches:\n    x: y"
    )
    assert list(text) == [
        ("text", "For two views:"),
        ("formula", "a = b\n\nc = d"),
        ("text", "Should reach 1.0."),
        ("text", "Switches:"),
        ("formula", "x: y"),
    ]


def test_a_file_of_two_methods_serves_both_pages(project: Project) -> None:
    assert of(project, "mocov1").path == of(project, "mocov2").path == "methods/moco.py"
    assert of(project, "mocov1").settings != of(project, "mocov2").settings


def test_no_word_of_a_docstring_is_lost() -> None:
    for name, module in methods._modules().items():
        docstring = methods._docstring(methods._path(module))
        said = " ".join(text for _, text in methods.blocks(docstring)).split()
        assert said == docstring.partition("\n\n")[2].split(), name


def test_settings_are_the_catalogues_with_sections_opened(project: Project) -> None:
    found = {setting.key: setting for setting in of(project, "byol").settings}
    assert found["projector.norm"].default == "batch" and "group_ws" in found["projector.norm"].kind
    assert found["target_ema"].default == "0.996"
    assert found["predict"].note == "false leaves predictor unused"
    assert found["stop_gradient"].note == "false needs target: online"


def test_numbers_stand_at_the_scale_they_were_measured_at(project: Project) -> None:
    (used,) = of(project, "byol").used
    lines = {line.row.id: line for line in used.lines}
    assert set(lines) == {"good", "bad"}  # 'absent' has no training, the random row is another method's
    assert [(number.where, number.entry.display[:4]) for number in lines["good"].numbers] == [
        ("smoke", "60.5"),
        ("cpu", "70.5"),
    ]
    assert [number.where for number in lines["bad"].numbers] == ["smoke"]
    assert (used.measured, len(of(project, "byol").published)) == (2, 2)
    assert of(project, "swav").used == ()


def test_the_best_is_the_highest_mean_of_each_measure(project: Project) -> None:
    best = {(one.number.where, one.metric): one for one in of(project, "byol").best}
    assert set(best) == {("smoke", "linear"), ("smoke", "kNN"), ("cpu", "linear"), ("cpu", "kNN")}
    assert best["smoke", "linear"].row.id == "good" and best["smoke", "kNN"].row.id == "bad"
    # without training there are no epochs, so that both scales share the untrained network
    assert [(one.row.id, one.number.where) for one in of(project, "random").best][::2] == [
        ("Random init", "smoke"),
        ("Random init", "cpu"),
    ]


def test_claims_are_told_at_every_scale_that_judged_them(project: Project) -> None:
    (claim,) = of(project, "byol").used[0].claims
    assert claim.says == "Good is better than bad."
    assert [table.profile for table, _ in claim.verdicts] == ["smoke"]  # at cpu the bad row has not run
    assert of(project, "random").used[0].claims == ()


def test_the_commands_train_the_methods_own_rows(project: Project) -> None:
    commands = dict(of(project, "random").used[0].commands)
    assert commands["cpu"].endswith("--profile cpu --only method=random") and set(commands) == {"smoke", "cpu"}


def test_every_link_of_every_page_leads_somewhere(project: Project, tmp_path: Path) -> None:
    """Also the pages of methods without any run; numbers lead to the training that they are of."""
    report, out = project.report(), tmp_path / "site"
    site = Site(out, report, also=["methods/index.html"])
    pages.write(site)
    expected = {out / f"tables/{table.id}.html" for table in report.tables} | {
        out / site.training(run.key) for run in report.runs.values()
    }
    for page in [out / "methods/index.html", *(out / f"methods/{name}.html" for name in CATALOGUE()["methods"])]:
        text = page.read_text()
        for target in re.findall(r'href="(?!https:)([^"#]+)', text):
            path = (page.parent / target).resolve()
            known = path.is_file() or path in expected or path.name in ("index.html", "style.css", "script.js")
            assert known, f"{page.name}: {target}"
    assert 'href="../runs/' in (out / "methods/byol.html").read_text()
    assert 'aria-current="page">Methods' in (out / "methods/index.html").read_text()


def test_a_title_is_escaped(project: Project, tmp_path: Path) -> None:
    project.table.write_text(project.table.read_text().replace("title: Toys", 'title: "<b>Toys</b> & co"'))
    site = Site(tmp_path / "site", project.report())
    pages.write(site)
    text = (tmp_path / "site/methods/byol.html").read_text()
    assert "&lt;b&gt;Toys&lt;/b&gt; &amp; co" in text and "<b>Toys" not in text


def test_it_needs_no_torch() -> None:
    code = "import sys, reports.methods, reports.site.methods; sys.exit('torch' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
