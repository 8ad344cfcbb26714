"""`paper.tables` of a sweep: a row that is not there is found when the file is read, not when a table stays empty."""

import pytest

from benchmark.errors import InputError
from benchmark.plan.sweep import load_sweep
from benchmark.plan.tables import rows_of

SWEEP = """\
question: Which loss?
paper:
  key: somebody
  tables:
{tables}
base: {{method: byol, data.name: shapes}}
rows: {{"one": {{epochs: 1}}, "two": {{epochs: 2}}}}
profiles: {{smoke: {{}}}}
"""


def read(tmp_path, *lines):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(tables="\n".join("    " + line for line in lines)))
    return load_sweep(path)


def test_rows_columns_and_reasons(tmp_path):
    lines = [
        "t:",
        "  A: one",
        "  B: {100 epochs: one, 200 epochs: two, 400 epochs: {absent: too long}}",
        "  C: {absent: no code}",
    ]
    tables = read(tmp_path, *lines).tables
    assert tables["t"]["B"] == {"100 epochs": "one", "200 epochs": "two", "400 epochs": {"absent": "too long"}}
    assert rows_of(tables["t"]) == ["one", "two"]


@pytest.mark.parametrize(
    "lines, words",
    [
        (
            ["t: {A: on}"],
            "sweep.yaml:5: paper > tables > t > A: no row of this name; the rows are one, two; did you mean 'one'?",
        ),
        (["t: {A: {x: too}}"], "paper > tables > t > A > x: no row of this name"),
        (["t: {A: {}}"], "paper > tables > t > A: no row of this name"),
        (["t: {A: {absent: }}"], "paper > tables > t > A > absent: expected the reason in words"),
        (["t: {A: {absent: none, x: one}}"], "expected the reason in words, and nothing beside it"),
        (["t: one"], "paper > tables > t: expected the paper's rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, lines, words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, *lines)
    assert words in str(caught.value)
