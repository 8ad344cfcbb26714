"""World-size invariance: on N ranks, loss, gradients and buffers are those of one rank on the concatenated batch."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from methods.gather import own_rows
from methods.norms import BatchNorm2d
from tests.methods.ranks import CASES, SWITCHES, WRONG, Found, on_ranks, read

WORLDS = (2, 4)
Run = Callable[[int, str], list[Found]]


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All cases that are asked for, on N ranks in one go; whoever of pytest-xdist's processes needs them first runs them."""
    asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def of(world: int, name: str) -> list[Found]:
        folder: Path = shared / f"ranks{world}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "done").exists():
                names = [asking["name"] for asking in asked if "name" in asking and asking.get("world") == world]
                on_ranks(world, [*names, "within a rank"], folder)
                (folder / "done").touch()
        results = []
        for rank in range(world):
            found = read(folder, name, rank)
            assert not isinstance(found, str), f"rank {rank} of {world}: {found}"
            results.append(found)
        return results

    return of


@pytest.mark.parametrize(
    ("name", "world"), [(name, world) for name in CASES for world in WORLDS if world == 2 or name not in SWITCHES]
)
def test_the_number_of_ranks_is_no_part_of_the_experiment(run: Run, name: str, world: int) -> None:
    alone = CASES[name]()
    for found in run(world, name):
        assert list(found) == list(alone)
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("world", WORLDS)
def test_what_stays_within_a_rank_is_seen_to_differ(run: Run, world: int) -> None:
    """The comparison above can fail."""
    alone = WRONG["within a rank"]()
    for found in run(world, "within a rank"):
        assert all((found[key] - value).abs().max() > 1e-3 for key, value in alone.items())


def test_a_rank_that_fails_is_named_and_the_next_case_runs(tmp_path: Path) -> None:
    on_ranks(2, list(WRONG), tmp_path)
    assert "rank 1 gives up" in str(read(tmp_path, "one rank fails", 1))
    assert isinstance(read(tmp_path, "one rank fails", 0), str)
    assert isinstance(read(tmp_path, "within a rank", 0), dict)


def test_on_one_rank_nothing_is_gathered_and_all_rows_are_own() -> None:
    x = torch.randn(4, 2)
    assert own_rows(x) is x


def test_parts_that_the_batch_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="6 samples cannot be split into 4 parts"):
        BatchNorm2d(3, splits=4)(torch.randn(6, 3, 2, 2))
