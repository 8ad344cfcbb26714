"""kNN classification of cached features: ours beside faiss's exact index and lightly's knn_predict.

All predict the classes of the same queries from the same bank, in turns within one process, in an order that changes, with as
many threads as there are cores. The ratio is that of the medians.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Missing, Outcome, compared, measured
from benchmark.evaluate.knn import Neighbours, weighted_knn
from benchmark.evaluate.neighbours import unit
from benchmark.launch.machine import cores

OURS, FAISS, LIGHTLY = "Retable", "faiss IndexFlatIP", "lightly knn_predict"
UNIT = "queries/s"
K, TEMPERATURE, CLASSES = 200, 0.07, 100
_BATCH = 512  # queries that lightly is given at a time: all of their similarities are held
_NOT_SLOWER = Goal(ratio=1.0)

Predict = Callable[[], Tensor]  # -> classes, M


@dataclass(frozen=True)
class Effort:
    """bank: rows, of each of these widths; turns: of each contender, after one that does not count."""

    bank: int = 50_000
    queries: int = 10_000
    widths: tuple[int, ...] = (512, 2048)
    turns: int = 5


QUICK = Effort(bank=2_000, queries=300, widths=(64,), turns=2)


def run(effort: Effort, announce: Announce) -> Outcome:
    """Every width, each contender in turn."""
    outcome = Outcome()
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        for width in effort.widths:
            announce(f"kNN of {effort.queries:,} queries, {effort.bank:,} x {width}")
            outcome.add(one(width, effort))
    finally:
        torch.set_num_threads(threads)
    return outcome


def one(width: int, effort: Effort) -> Outcome:
    """One bank."""
    bench, outcome = f"kNN of {effort.bank:,} x {width}", Outcome()
    bank, labels = features(effort.bank, width, 1)
    queries, _ = features(effort.queries, width, 2)
    contenders: dict[str, Predict] = {OURS: lambda: weighted_knn(bank, labels, queries, CLASSES, K, TEMPERATURE).argmax(dim=1)}
    for name, build in ((FAISS, faiss), (LIGHTLY, lightly)):
        try:
            contenders[name] = build(bank, labels, queries)
        except ImportError as error:
            outcome.missing.append(Missing(bench, name, f"cannot be imported: {error}"))
    rates, said = _turns(contenders, effort)
    ours = rates.pop(OURS)
    for name, theirs in rates.items():
        alike = 100.0 * (said[name] == said[OURS]).double().mean().item()
        detail = f"k {K}, {effort.queries:,} queries, {effort.turns} turns; agrees with ours on {alike:.2f} % of them"
        outcome.results.append(measured(bench, name, UNIT, theirs, detail=detail))
        outcome.results.append(compared(bench, OURS, UNIT, ours, name, theirs, _NOT_SLOWER))
    if not rates:
        outcome.results.append(measured(bench, OURS, UNIT, ours))
    return outcome


def features(count: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy classes, never negative, as behind a ReLU; with their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return (0.3 * centres[labels] + torch.randn(count, width, generator=generator)).relu_(), labels


def faiss(bank: Tensor, labels: Tensor, queries: Tensor) -> Predict:
    """The index does not vote: what it finds is counted as ours is."""
    import faiss

    def predict() -> Tensor:
        faiss.omp_set_num_threads(cores())
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(unit(bank).numpy())
        similarity, rows = index.search(unit(queries).numpy(), K)
        found = Neighbours(torch.from_numpy(similarity), labels[torch.from_numpy(rows)], CLASSES)
        return found.predict(K, TEMPERATURE)

    return predict


def lightly(bank: Tensor, labels: Tensor, queries: Tensor) -> Predict:
    from lightly.utils.benchmarking import knn_predict

    def predict() -> Tensor:
        columns = unit(bank).T.contiguous()  # D x N, as its documentation asks
        parts = unit(queries).split(_BATCH)
        return torch.cat([knn_predict(part, columns, labels, CLASSES, K, TEMPERATURE)[:, 0] for part in parts])

    return predict


def _turns(contenders: dict[str, Predict], effort: Effort) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Queries per second of each turn, and what was predicted, by contender."""
    said = {name: predict() for name, predict in contenders.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    order, shuffled = list(contenders), random.Random(0)
    for _ in range(effort.turns):
        shuffled.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            contenders[name]()
            rates[name].append(effort.queries / (time.perf_counter() - begin))
    return rates, said
