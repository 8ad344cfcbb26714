"""YAML as people mean it: the traps of YAML 1.1 are gone, every value knows its line."""

import re
from pathlib import Path

import pytest
import yaml

from benchmark.errors import InputError
from benchmark.plan import document
from benchmark.plan.document import read_document


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("10:30", "10:30"),
        ("010", 10),
        ("0.5", 0.5),
        (".5", 0.5),
        ("-3", -3),
        ("true", True),
        ("~", None),
        ('"1e-3"', "1e-3"),
        ("'2010.10241'", "2010.10241"),
        ("none", "none"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path, written, meant):
    value = read_document(write(tmp_path, f"a: {written}\n")).value["a"]
    assert value == meant
    assert type(value) is type(meant)


def test_lines_are_kept(tmp_path):
    document = read_document(write(tmp_path, "a: 1\nb:\n  c:\n    d: 2\n"))
    assert document.at("b", "c", "d").endswith("x.yaml:4: b > c > d")
    assert document.at("b", "missing").endswith("x.yaml:2: b > missing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("a: [1,\n", "not valid YAML"),
        ("a: 1\na: 2\n", "given twice"),
        ("? [1, 2]\n: 3\n", "a key must be a word"),
        ("a: !!python/object:os.system x\n", None),
    ],
)
def test_bad_files_are_one_sentence_with_file_and_line(tmp_path, text, words):
    path = write(tmp_path, text)
    if words is None:  # a tag has no effect: nothing is ever constructed from it
        assert read_document(path).value == {"a": "x"}
        return
    with pytest.raises(InputError, match=words) as caught:
        read_document(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "byol_norm_ablation.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"no such file; that folder has byol_norm_ablation\.yaml"):
        read_document(tmp_path / "byol.yaml")


def test_not_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_document(path)


@pytest.mark.parametrize("path", sorted(Path("sweeps").glob("**/*.yaml")), ids=lambda path: path.stem)
def test_libyaml_reads_what_pyyaml_reads(path, monkeypatch):
    """The values and the line of each; libyaml is only quicker."""
    assert hasattr(yaml, "CSafeLoader")
    by_libyaml = read_document(path)
    document._parsed.cache_clear()
    monkeypatch.delattr(yaml, "CSafeLoader")
    by_pyyaml = read_document(path)
    document._parsed.cache_clear()
    assert by_libyaml is not by_pyyaml
    assert repr(by_libyaml.value) == repr(by_pyyaml.value) and by_libyaml.lines == by_pyyaml.lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1,\tb]\nc: {d:\t\tx}\n", None),
        ("a:\n\tb: 1\n", r"x\.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: {b: 1, \t'c': 2}\n", r"x\.yaml:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: [1\nb: 2\n", r"x\.yaml:2: not valid YAML: expected ',' or '\]', but got ':'"),
    ],
)
def test_what_is_refused_is_refused_in_pyyamls_words(tmp_path, monkeypatch, text, words):
    path = write(tmp_path, text)

    def said() -> str:
        document._parsed.cache_clear()
        try:
            return repr(read_document(path).value)
        except InputError as error:
            return str(error)

    quick = said()
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert quick == said()
    assert words is None or re.search(words, quick)


def test_a_file_that_is_written_anew_is_read_anew(tmp_path):
    assert read_document(write(tmp_path, "a: 1\n")).value == {"a": 1}
    assert read_document(write(tmp_path, "a: 2\n")).value == {"a": 2}
