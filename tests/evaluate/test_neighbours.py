"""The nearest rows are the float64 ones, whichever engine finds them and however it cuts the work; in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmark.evaluate import neighbours, neighbours_cpu
from benchmark.evaluate.neighbours import LOW, compared, nearest, similarity_of, unit

Engine = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


@pytest.fixture(params=["bfloat16", "float32", "compared"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each way to the answer: sieved in either precision, and every row compared as on a GPU, in small pieces."""
    if request.param != "compared":
        monkeypatch.setattr(neighbours_cpu, "coarse_dtype", lambda: getattr(torch, request.param))
        return nearest

    def by_comparing(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
        keys = compared(queries, bank, k, torch.device("cpu"), chunk=700)
        return similarity_of(keys), LOW - (keys & LOW)

    return by_comparing


def rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cosines(queries: Tensor, bank: Tensor) -> Tensor:
    """M x N in float64, from the definition."""
    q, b = queries.double(), bank.double()
    lengths = q.norm(dim=1)[:, None] * b.norm(dim=1)[None]
    return torch.where(lengths > 0, q @ b.T / lengths.clamp_min(1e-300), 0.0)


def check(found: tuple[Tensor, Tensor], queries: Tensor, bank: Tensor, k: int) -> None:
    """The similarities are the k largest, those of the named rows, best first; float32 may not tell rows 1e-6 apart."""
    similarity, index = found
    true = cosines(queries, bank)
    assert similarity.shape == index.shape == (len(queries), k) and similarity.dtype == torch.float32
    assert all(len(set(row)) == k for row in index.tolist())
    torch.testing.assert_close(similarity.double(), true.gather(1, index), rtol=0, atol=1e-6)
    torch.testing.assert_close(similarity.double(), true.topk(k, dim=1).values, rtol=0, atol=1e-6)
    assert (similarity[:, :-1] >= similarity[:, 1:]).all()


@pytest.mark.parametrize(("n", "d", "k"), [(9000, 24, 200), (9000, 24, 1), (5000, 300, 20), (60, 7, 60), (4096, 5, 3)])
def test_they_are_the_float64_ones(engine: Engine, n: int, d: int, k: int) -> None:
    queries, bank = rows(70, d, 1), rows(n, d, 2)
    check(engine(queries, bank, k), queries, bank, k)


@pytest.mark.parametrize("tail", [1.0, 6.0])
def test_real_looking_features_of_any_scale(engine: Engine, tail: float) -> None:
    """Never negative, a few large entries, lengths from 1e-6 to 1e6."""
    queries, bank = (rows(n, 64, n).abs() ** tail for n in (50, 6000))
    bank = bank * torch.logspace(-6, 6, 6000)[:, None]
    check(engine(queries, bank, 100), queries, bank, 100)


def test_when_everything_is_on_the_other_side(engine: Engine) -> None:
    queries, bank = 3.0 + rows(40, 16, 1), -3.0 - rows(6000, 16, 2)
    found = engine(queries, bank, 150)
    assert (found[0] < 0).all()
    check(found, queries, bank, 150)


def test_rows_that_bfloat16_cannot_tell_apart(engine: Engine) -> None:
    """A network on its way to collapse: all cosines within 1e-4 of one, all queries crowded."""
    queries, bank = (torch.ones(n, 32) + 1e-3 * rows(n, 32, n) for n in (30, 5000))
    check(engine(queries, bank, 50), queries, bank, 50)


def test_crowded_queries_are_handed_back_and_only_they(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_cpu, "coarse_dtype", lambda: torch.bfloat16)
    tried: list[tuple[torch.dtype, int]] = []
    sieve = neighbours_cpu._Sieve
    monkeypatch.setattr(neighbours_cpu, "_Sieve", lambda *given: tried.append((given[4], len(given[0]))) or sieve(*given))
    centre, across = 50.0 * torch.eye(32)[:1], torch.tensor([0.0] + [1.0] * 31)
    bank = torch.cat([across * rows(3000, 32, 4), centre.expand(5000, 32), centre + 1e-3 * rows(5000, 32, 3)])
    queries = torch.cat([centre + 2e-3 * rows(4, 32, 5), across * rows(6, 32, 6), -centre.expand(2, 32)])
    keys, crowded = neighbours_cpu.sieved(queries, bank, 50)
    assert tried[0] == (torch.bfloat16, 12) and tried[1][0] == torch.float32 and tried[1][1] >= len(crowded)
    assert crowded.tolist() == [0, 1, 2, 3, 10, 11]  # 5,000 rows are equal, and 3,000 at a right angle to the last two
    check(nearest(queries, bank, 50), queries, bank, 50)
    kept = keys[4:10]
    check((similarity_of(kept), LOW - (kept & LOW)), queries[4:10], bank, 50)


def test_when_most_are_crowded_the_others_are_found_too(engine: Engine) -> None:
    """The sieve gives up on all of them at once, in the midst of the bank."""
    bank = torch.cat([rows(4096, 8, 3), torch.ones(4096, 8), rows(4096, 8, 5)])
    queries = torch.cat([torch.ones(20, 8), rows(9, 8, 4)])
    check(engine(queries, bank, 30), queries, bank, 30)


def test_features_far_from_the_origin_are_not_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of 0.99 and more, as behind a ReLU: it is their differences that are compared."""
    monkeypatch.setattr(neighbours_cpu, "coarse_dtype", lambda: torch.bfloat16)
    queries, bank = (10.0 + rows(n, 64, n) for n in (40, 6000))
    assert cosines(queries, bank).min() > 0.96
    sieved = neighbours_cpu._Sieve(unit(queries), bank, unit(bank).mean(dim=0), 50, torch.bfloat16, ThreadPoolExecutor(1))
    assert not sieved.run()[1].any()
    check(nearest(queries, bank, 50), queries, bank, 50)


def test_queries_at_the_middle_of_the_bank(engine: Engine) -> None:
    """How far a row lies along the bank's mean is then all that counts."""
    bank = 0.5 + rows(8000, 40, 2)
    queries = torch.ones(20, 40) + 1e-4 * rows(20, 40, 1)
    check(engine(queries, bank, 60), queries, bank, 60)


def test_collapse_to_a_point_costs_little_more_than_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sieve gives up at once, and of equal rows only the first piece is sorted."""
    sorted_rows: list[int] = []
    topk = Tensor.topk
    monkeypatch.setattr(Tensor, "topk", lambda x, *given, **named: sorted_rows.append(len(x)) or topk(x, *given, **named))
    similarity, index = nearest(torch.ones(40, 8), torch.ones(30_000, 8), 20)
    assert index.tolist() == [list(range(20))] * 40 and (similarity - 1.0).abs().max() < 1e-6
    assert sum(sorted_rows) == 40


def test_of_equals_the_earlier_row_is_nearer(engine: Engine) -> None:
    """Every row eight times, far apart, so that the copies fall into different pieces."""
    bank = rows(1200, 20, 2).repeat(8, 1)
    similarity, index = engine(rows(40, 20, 1), bank, 24)
    copies = index.view(40, 3, 8)
    assert torch.equal(copies % 1200, (copies[:, :, :1] % 1200).expand(-1, -1, 8))
    assert torch.equal(copies // 1200, torch.arange(8).expand(40, 3, 8))
    assert torch.equal(similarity.view(40, 3, 8), similarity.view(40, 3, 8)[:, :, :1].expand(-1, -1, 8))
    _, cut = engine(rows(40, 20, 1), bank, 4)  # the fourth of eight equals
    assert torch.equal(cut, index[:, :4])


def test_zeros_are_as_near_as_a_right_angle(engine: Engine) -> None:
    bank = torch.zeros(40, 4)
    bank[5, 0], bank[7, 1], bank[9, 0] = 1.0, 1.0, -1.0
    similarity, index = engine(torch.tensor([[2.0, 0.0, 0.0, 0.0], [-0.0, 0.0, -0.0, 0.0]]), bank, 4)
    assert index.tolist() == [[5, 0, 1, 2], [0, 1, 2, 3]]
    assert similarity.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0] * 4]
    assert engine(torch.tensor([[2.0]]), torch.tensor([[-0.0], [0.0], [3.0], [-0.0]]), 4)[1].tolist() == [[2, 0, 1, 3]]


def test_the_pieces_and_the_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = rows(90, 48, 1), rows(7000, 48, 2)
    whole = nearest(queries, bank, 30)
    threads = torch.get_num_threads()
    try:
        for dtype, sizes in ((torch.bfloat16, (7, 1000, 33, 999)), (torch.float32, (64, 64, 90, 48 * 500))):
            monkeypatch.setattr(neighbours_cpu, "coarse_dtype", lambda dtype=dtype: dtype)
            for name, size in zip(("_BLOCK", "_CHUNK", "_QUERIES", "_CACHED"), sizes, strict=True):
                monkeypatch.setattr(neighbours_cpu, name, size)
            torch.set_num_threads(3)
            for found, expected in zip(nearest(queries, bank, 30), whole, strict=True):
                assert torch.equal(found, expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_may_be_stored_in_other_precisions(engine: Engine, dtype: torch.dtype) -> None:
    queries, bank = rows(20, 12, 1, dtype), rows(5000, 12, 2, dtype)
    found = engine(queries, bank, 9)
    check(found, queries, bank, 9)
    assert torch.equal(found[1], engine(queries.float(), bank.float(), 9)[1])


def rounded_towards(level: float, count: int, up: bool) -> Tensor:
    """Rows of length one whose bfloat16 product with a row of 256 sixteenths, and a 0, is about `level`, while their own is
    that less (up) or more what rounding can do: all entries lie nearly half a step below or above a number of bfloat16."""
    step = 0.0002 if level > 0.5 else 0.03
    across = rows(count, 256, 7 + up)
    coarse = (level / 16 + step * (across - across.mean(dim=1, keepdim=True))).bfloat16()
    ulp = torch.ldexp(torch.ones(count, 256), torch.frexp(coarse.float().abs()).exponent - 8)
    made = coarse.double() + (-0.45 if up else 0.45) * ulp
    return torch.cat([made, (1.0 - made.square().sum(dim=1, keepdim=True)).sqrt()], dim=1).float()


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (0.02, 0.0212),
        (252.4 / 256, 252.6 / 256),  # about the middle of two numbers of bfloat16, a step of which is wider than the rest
    ],
)
def test_neighbours_that_bfloat16_ranks_behind_others(lower: float, higher: float, engine: Engine) -> None:
    queries = torch.cat([torch.full((3, 256), 1 / 16), torch.zeros(3, 1)], dim=1)
    near, seeming = rounded_towards(lower, 30, up=False), rounded_towards(higher, 60, up=True)
    others = rows(500, 257, 1)
    others[:, :256] -= others[:, :256].mean(dim=1, keepdim=True)  # at a right angle
    bank = torch.cat([unit(others), seeming, near])
    bank = torch.cat([-bank, bank])  # whose mean is zero: what is rounded are the rows themselves
    coarse = unit(queries).bfloat16() @ unit(bank).bfloat16().T
    assert coarse[0, -30:].max() < coarse[0, -90:-30].min()
    similarity, index = engine(queries, bank, 30)
    assert (index >= 2 * 590 - 30).all()
    check((similarity, index), queries, bank, 30)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tail", [1.0, 8.0])
def test_a_coarse_product_is_as_near_as_the_bound_says(dtype: torch.dtype, tail: float) -> None:
    """The heart of the sieve: were the bound too narrow, a neighbour could be lost on other features than these."""
    signs = rows(300, 700, 3).sign(), rows(900, 700, 4).sign()
    q, b = (unit(sign * rows(len(sign), 700, 5).abs() ** tail) for sign in signs)
    q[:100] = b[:100]  # similarities of one, where rounding at the end is largest
    if dtype == torch.bfloat16:
        q[100:200] = unit(b - b.bfloat16().float())[100:200]  # what is rounded away all lies in one direction
    (rough_q, spread), (rough_b, off) = neighbours_cpu._rounded(q, dtype), neighbours_cpu._rounded(b, dtype)
    coarse = (rough_q @ rough_b.T).double()
    error = (coarse - q.double() @ b.double().T).abs()
    relative = 0.002 if dtype == torch.bfloat16 else 0.0
    longest = float(rough_b.float().norm(dim=1).max())
    bound = neighbours_cpu._slack(spread, q.norm(dim=1), float(off.max()), longest, 700).double()[:, None]
    assert (error <= bound + relative * coarse.abs()).all()
    if dtype == torch.bfloat16:
        assert error.max() > 0.3 * bound.max()  # and it is not idle


@pytest.mark.parametrize("numba", [True, False])
def test_a_long_search_can_be_given_up(numba: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class GivenUp(Exception):
        pass

    calls = []

    def heed() -> None:
        calls.append(None)
        if len(calls) > 2:
            raise GivenUp

    if not numba:
        monkeypatch.setattr(neighbours, "find_spec", lambda name: None)
    with pytest.raises(GivenUp):
        nearest(rows(20, 8, 0), rows(30_000, 8, 1), 5, heed=heed)


def test_without_numba_every_row_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = rows(20, 8, 1), rows(500, 8, 2)
    expected = nearest(queries, bank, 7)
    monkeypatch.setattr(neighbours, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "benchmark.evaluate.neighbours_cpu", None)  # an import would fail
    found = nearest(queries, bank, 7)
    assert torch.equal(found[1], expected[1])


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = (
        "import torch; from benchmark.evaluate.neighbours import nearest as n; x = torch.eye(3); print(n(x, x, 1)[1].tolist())"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "[[0], [1], [2]]\n", done.stderr


def test_what_cannot_be_compared(engine: Engine) -> None:
    good, bad = rows(9, 4, 1), rows(9, 4, 2)
    bad[3, 2] = float("inf")
    for queries, bank in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="not finite"):
            engine(queries, bank, 2)
    for k in (0, 10):
        with pytest.raises(ValueError, match="neighbours among 9 rows"):
            nearest(good, good, k)


_GROWTH = """
import sys, torch
from benchmark.evaluate import neighbours
torch.set_num_threads(2)
if sys.argv[1] == "compared":
    neighbours.find_spec = lambda name: None
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
bank, queries = torch.ones(200_000, 64, dtype=torch.float16), torch.randn(1000, 64)
for part in bank.split(10_000):
    part.copy_(torch.randn(part.shape))
neighbours.nearest(queries[:50], bank[:5000], 20)
before = peak()
neighbours.nearest(queries, bank, 20)
print(peak() - before)  # MiB
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("way", "most"), [("sieved", 90), ("compared", 250)])
def test_memory_does_not_grow_with_the_bank(way: str, most: int) -> None:
    """All similarities of 1,000 queries with 200,000 rows would be 763 MiB."""
    done = subprocess.run([sys.executable, "-c", _GROWTH, way], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < most
