"""The shipped table files against registry and sweeps: nothing absent, and no claim that the paper's own numbers deny."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from benchmark.plan.sweep import load_sweep
from reports.claimspec import COLLAPSES, ClaimSpec, Point
from reports.filling import Filled, hidden, lay_out
from reports.measured import measurement
from reports.metrics import COLLAPSE, PRETRAIN, Metric
from reports.planned import Plan, read_plan
from reports.reference import Reference, References, read_references
from reports.spec import TableSpec, read_table, read_tables

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "reports" / "tables"
NAMES = sorted(path.stem for path in TABLES.glob("*.yaml"))


@cache
def registry() -> References:
    return read_references(ROOT / "reports" / "reference")


@cache
def plan(sweep: str) -> Plan:
    return read_plan(ROOT, sweep)


def spec_of(name: str) -> TableSpec:
    return read_table(TABLES / f"{name}.yaml", registry())


def cell(spec: TableSpec, point: Point) -> Reference | None:
    """What the paper prints at a claim's cell; without a column in its first one, or the first there is."""
    row = next((row for row in spec.rows if row.id == point.row), None)
    if row is None or not row.references:
        return None
    first = spec.columns[0].id
    return row.references.get(point.column or first, None if point.column else next(iter(row.references.values())))


def measure(spec: TableSpec, point: Point) -> Metric | None:
    return next((each.metric for each in spec.columns if each.id == (point.column or spec.columns[0].id)), None)


def sign(spec: TableSpec, claim: ClaimSpec) -> int:
    metric = measure(spec, claim.points[0])
    return -1 if metric and metric.higher_is_better is False else 1


def numbers(spec: TableSpec, claim: ClaimSpec) -> list[float | None]:
    found = [cell(spec, point) for point in claim.points]
    return [reference.value if reference else None for reference in found]


def denied(spec: TableSpec, claim: ClaimSpec) -> str:
    """Why the published numbers do not agree with the claim, '' where they do or are not all established."""
    values = numbers(spec, claim)
    if claim.kind == "not_collapsed" or claim.points_apart is not None:
        return ""
    if claim.kind == "collapse":
        column = spec.columns[0].id if spec.columns else ""
        all_of_it = [row.references[column].value for row in spec.rows if column in row.references]
        best = max((value for value in all_of_it if value is not None), default=None)
        if values[0] is not None and best is not None and values[0] > best / 2:
            return f"{values[0]} is more than half of the table's best, {best}"
        return ""
    if any(value is None for value in values):
        return ""
    numbers_ = [value for value in values if value is not None]
    good = [sign(spec, claim) * value for value in numbers_]
    if claim.kind in ("order", "ordering"):
        right = all(first > second for first, second in pairwise(good))
    elif claim.kind == "gap":
        right = True  # the size of the difference is the paper's by definition
    elif claim.kind == "within":
        right = max(numbers_) - min(numbers_) <= claim.margin + 1e-9
    elif claim.kind == "trend":
        way = 1 if claim.direction == "rises" else -1
        steps = [way * (later - earlier) for earlier, later in pairwise(numbers_)]
        right = all(step >= 0 for step in steps) and sum(steps) > 0
    elif claim.kind == "inverse_u":
        right = max(good[1:-1]) > max(good[0], good[-1])
    else:
        right = numbers_[0] - numbers_[1] > numbers_[2] - numbers_[3]
    return "" if right else f"the paper prints {numbers_}"


def unfounded(spec: TableSpec, claim: ClaimSpec) -> list[str]:
    """Numbers in the sentence that are no published number of the table, no difference of two of the claim's cells, and in no
    name of a row or note of the registry. A claim with rows of ours may quote other tables."""
    printed = {reference.value for row in spec.rows for reference in row.references.values()} - {None}
    values = [value for value in numbers(spec, claim) if value is not None]
    printed |= {round(abs(one - other), 2) for one, other in combinations(values, 2)}
    if len(values) == 4:
        printed |= {round(abs((values[0] - values[1]) - (values[2] - values[3])), 2)}
    names = [*(column.id for column in spec.columns), *(row.id for row in spec.rows)]
    names += [reference.note for row in spec.rows for reference in row.references.values()]
    if not spec.published or any(row.own for row in spec.rows if row.id in claim.rows):
        printed |= {each.value for table in registry().values() for each in table.values()} - {None}
    named = {float(found) for name in names for found in re.findall(r"\d+\.\d+", name)}
    found = re.findall(r"(?<![\w.])\d+\.\d+(?!\w|\.\d)", claim.says)
    return [text for text in found if not any(abs(float(text) - known) < 1e-6 for known in printed | named)]


def test_every_published_table_and_every_sweep_has_a_file() -> None:
    assert set(registry()) <= set(NAMES)
    sweeps = {path.stem: load_sweep(path) for path in (ROOT / "sweeps").glob("*.yaml")}
    own = {name for name, sweep in sweeps.items() if not sweep.tables}
    assert own and set(NAMES) == set(registry()) | own
    filled = {spec.id: spec.sweep for spec in read_tables(TABLES, registry())}
    for name, sweep in sweeps.items():
        for table in sweep.tables:
            assert filled[table] == f"sweeps/{name}.yaml", f"{table} is filled by sweeps/{name}.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_fills_it_and_the_papers_measures_what_it_says(name: str) -> None:
    """Every row is filled by a training or says why not; and each of the columns is evaluated at the paper's own profile."""
    spec = spec_of(name)
    if not spec.sweep:
        lay_out(spec, None, None)
        return
    profiles = plan(spec.sweep).profiles
    for profile in profiles.values():
        layout = lay_out(spec, plan(spec.sweep), profile)
        if profile.name != spec.profile:
            continue
        for column in spec.columns:
            filled = [
                each.planned for row, of, each in layout.cells if of == column.id and isinstance(each, Filled) and not row.own
            ]
            if column.metric is not None and column.metric.stage != PRETRAIN and filled:
                has = {stage for planned in filled for stage in planned.protocols}
                assert column.metric.stage in has, f"{column.id}: profile {profile.name} evaluates {', '.join(sorted(has))}"


@pytest.mark.parametrize("name", NAMES)
def test_something_may_be_compared_at_the_papers_own_profile(name: str) -> None:
    """A mistake about the paper's training would else show as a table of which nothing is compared. A file whose `config` asks
    for what the sweep does not have says so on purpose."""
    spec = spec_of(name)
    if spec.profile is None:
        return
    cells = lay_out(spec, plan(spec.sweep), plan(spec.sweep).profiles[spec.profile]).cells
    found = [measurement(filled, column, spec, {}, None, row) for row, column, filled in cells if not row.differs]
    why = {each.incomparable for each in found if each.reference and each.metric and isinstance(each.filled, Filled)}
    assert not why or "" in why or any(reason.startswith(tuple(spec.config)) for reason in why if spec.config), why


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_is_about_cells_that_there_are(name: str) -> None:
    spec = spec_of(name)
    found = plan(spec.sweep) if spec.sweep else None
    profile = found.profiles[spec.profile or list(found.profiles)[-1]] if found else None
    cells = {(row.id, column) for row, column, _ in lay_out(spec, found, profile).cells}
    cells |= {(row.id, column) for row in spec.rows if isinstance(row.fill, dict) for column in row.fill}
    for claim in spec.claims:
        metric = COLLAPSE if claim.kind in COLLAPSES else claim.metric
        for point in claim.points:
            if metric is None:
                wanted = [point.column or (spec.columns[0].id if spec.columns else spec.beside[0].id)]
            else:
                wanted = [hidden(metric.id, point.column), metric.id]
            assert any((point.row, each) in cells for each in wanted), f"{claim.id}: {point.row} has no {' or '.join(wanted)}"


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_numbers_agree_with_its_claims(name: str) -> None:
    spec = spec_of(name)
    wrong = {claim.id: why for claim in spec.claims if (why := denied(spec, claim))}
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_quotes_no_number_that_the_registry_does_not_have(name: str) -> None:
    spec = spec_of(name)
    wrong = {claim.id: found for claim in spec.claims if (found := unfounded(spec, claim))}
    assert not wrong


def test_a_wrong_claim_is_found(tmp_path: Path) -> None:
    text = (TABLES / "byol_target_ablation.yaml").read_text(encoding="utf-8")
    path = tmp_path / "byol_target_ablation.yaml"
    swapped = text.replace("below: Moving average, tau_base=0.9\n", "below: Moving average, tau_base=0.99\n", 1)
    swapped = swapped.replace("above: Moving average, tau_base=0.99\n", "above: Moving average, tau_base=0.9\n", 1)
    path.write_text(swapped.replace("costs 4.1 points", "costs 4.7 points"), encoding="utf-8")
    claim = next(each for each in read_table(path, registry()).claims if each.id == "quick_costs")
    assert denied(read_table(path, registry()), claim) == "the paper prints [68.4, 72.5]"
    assert unfounded(read_table(path, registry()), claim) == ["4.7"]
