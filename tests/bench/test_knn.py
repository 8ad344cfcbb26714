"""The contenders of the kNN bench do the same work, and one that is not installed is told as missing."""

import sys

import pytest
import torch

from benchmark.bench import knn
from benchmark.bench.knn import FAISS, LIGHTLY, OURS, QUICK


@pytest.mark.parametrize("name", ["faiss", "lightly"])
def test_contenders_predict_the_same_classes(name):
    pytest.importorskip(name)
    bank, labels = knn.features(1500, 48, 1)
    queries, truth = knn.features(200, 48, 2)
    expected = knn.weighted_knn(bank, labels, queries, knn.CLASSES, knn.K, knn.TEMPERATURE).argmax(dim=1)
    assert (expected == truth).double().mean() > 0.05  # of a hundred classes
    assert (getattr(knn, name)(bank, labels, queries)() == expected).double().mean() > 0.99


def test_the_bench_says_how_many_times_faster(monkeypatch):
    monkeypatch.setattr(knn, "faiss", lambda *given: slow(*given))
    outcome, threads = knn.run(QUICK, lambda text: None), torch.get_num_threads()
    assert threads == torch.get_num_threads()
    lines = {(line.subject, line.peer): line for line in outcome.results}
    ours, peer = lines[OURS, FAISS], lines[FAISS, None]
    assert ours.ratio == pytest.approx(ours.median / peer.median) and ours.ratio > 1.0 and ours.met
    assert ours.unit == "queries/s" and ours.low <= ours.median <= ours.high and "100.00 %" in peer.detail


def slow(bank, labels, queries):
    def predict():
        for _ in range(8):
            found = knn.weighted_knn(bank, labels, queries, knn.CLASSES, knn.K, knn.TEMPERATURE).argmax(dim=1)
        return found

    return predict


def test_what_is_not_installed_is_missing(monkeypatch):
    for name in ("faiss", "lightly", "lightly.utils.benchmarking"):
        monkeypatch.setitem(sys.modules, name, None)
    outcome = knn.run(QUICK, lambda text: None)
    assert [line.subject for line in outcome.results] == [OURS] and outcome.results[0].ratio is None
    assert {line.subject for line in outcome.missing} == {FAISS, LIGHTLY}
