"""k-means, whitening and mutual information against loops; empty clusters, identical points, lost dimensions."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from methods.kmeans import cluster_means, entropy, kmeans, mutual_information, nearest, split_largest, whitened


def random64(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_kmeans(points: Tensor, k: int, iterations: int, start: list[int], spherical: bool) -> tuple[list[Tensor], list[int]]:
    centroids = [points[i].clone() for i in start]

    def assign() -> list[int]:
        found = []
        for x in points:
            if spherical:
                found.append(max(range(k), key=lambda c: float((x * centroids[c]).sum())))
            else:
                found.append(min(range(k), key=lambda c: float(((x - centroids[c]) ** 2).sum())))
        return found

    for _ in range(iterations):
        assignment = assign()
        sizes = [assignment.count(c) for c in range(k)]
        for c in range(k):
            if sizes[c]:
                centroids[c] = sum((points[i] for i in range(len(points)) if assignment[i] == c), 0 * points[0]) / sizes[c]
        if not spherical:
            for c in range(k):
                if sizes[c] == 0:
                    largest = max(range(k), key=lambda i: sizes[i])
                    old = centroids[largest].clone()
                    centroids[c], centroids[largest] = old.clone(), old.clone()
                    for j in range(len(old)):
                        sign = 1 if j % 2 == 0 else -1
                        centroids[c][j] = old[j] * (1 + sign / 1024)
                        centroids[largest][j] = old[j] * (1 - sign / 1024)
                    sizes[c] = sizes[largest] // 2
                    sizes[largest] = sizes[largest] - sizes[c]
        if spherical:
            centroids = [c / c.norm() for c in centroids]
    return centroids, assign()


@pytest.mark.parametrize("spherical", [False, True])
def test_centroids_and_assignments_are_lloyds(spherical: bool) -> None:
    points = (8 * random64(40, 3) + 8).round() / 8  # of few digits: dot products are exact, and ties are ties
    if spherical:
        points = torch.nn.functional.normalize(points, dim=1)
    # Equal points: several of them are drawn as starts, and all but the first of these begin empty.
    points[10:24] = torch.tensor([1.0, 0.0, 0.0])
    start = torch.randperm(40, generator=draws())[:12].tolist()
    assert sum(i in range(10, 24) for i in start) > 2
    centroids, assignment = kmeans(points, 12, 5, draws(), spherical)
    expected, labels = slow_kmeans(points, 12, 5, start, spherical)
    torch.testing.assert_close(centroids, torch.stack(expected), rtol=1e-9, atol=1e-9)
    assert assignment.tolist() == labels


def test_the_objective_never_rises() -> None:
    points = random64(200, 4)
    costs = []
    for iterations in range(6):
        centroids, assignment = kmeans(points, 9, iterations, draws())
        costs.append(float((points - centroids[assignment]).square().sum()))
    assert all(a >= b for a, b in itertools.pairwise(costs)) and costs[0] > costs[-1]


def test_clusters_far_apart_are_found() -> None:
    centres = 100.0 * torch.eye(4, dtype=torch.float64)
    points = (centres[:, None] + 0.1 * random64(4, 25, 4)).flatten(0, 1)
    seed = next(s for s in range(100) if len((torch.randperm(100, generator=draws(s))[:4] // 25).unique()) == 4)
    _, assignment = kmeans(points, 4, 20, draws(seed))
    assert len(assignment.view(4, 25)[:, 0].unique()) == 4
    assert (assignment.view(4, 25) == assignment.view(4, 25)[:, :1]).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = random64(50, 3), random64(7, 3, seed=1)
    whole, white = nearest(points, centroids), whitened(points, 2)
    monkeypatch.setattr("methods.kmeans._CHUNK", 16)
    assert torch.equal(nearest(points, centroids), whole)
    assert torch.equal(nearest(points, centroids, spherical=True), (points @ centroids.T).argmax(dim=1))
    torch.testing.assert_close(whitened(points, 2), white, rtol=1e-9, atol=1e-12)


def test_means_count_and_leave_empty_clusters_at_zero() -> None:
    points = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    means, sizes = cluster_means(points, torch.tensor([2, 2, 0]), 4)
    assert sizes.tolist() == [1, 0, 2, 0]
    assert means.tolist() == [[5.0, 0.0], [0.0, 0.0], [2.0, 3.0], [0.0, 0.0]]


def test_empty_clusters_take_from_whichever_is_largest_then() -> None:
    centroids = torch.tensor([[1.0, 1.0], [2.0, -2.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]], dtype=torch.float64)
    moved = split_largest(centroids, torch.tensor([5, 8, 0, 0, 0]))
    e = 1 / 1024
    torch.testing.assert_close(moved[2], torch.tensor([2 * (1 + e), -2 * (1 - e)], dtype=torch.float64))  # half of 8
    torch.testing.assert_close(moved[3], torch.tensor([1 + e, 1 - e], dtype=torch.float64))  # then of 5, not of 4
    torch.testing.assert_close(moved[0], torch.tensor([1 - e, 1 + e], dtype=torch.float64))
    # Then of 4, the first half of 8: neither of the halves of 5.
    torch.testing.assert_close(moved[4], torch.tensor([2 * (1 - e) * (1 + e), -2 * (1 + e) * (1 - e)], dtype=torch.float64))
    torch.testing.assert_close(moved[1], torch.tensor([2 * (1 - e) ** 2, -2 * (1 + e) ** 2], dtype=torch.float64))
    assert torch.equal(split_largest(centroids, torch.tensor([1, 1, 1, 1, 1])), centroids)


def test_splitting_makes_use_of_clusters_that_would_stay_empty() -> None:
    points = torch.cat([random64(30, 2) * 0.01 + 5.0, torch.full((30, 2), -5.0, dtype=torch.float64)])
    seed = next(s for s in range(1000) if (torch.randperm(60, generator=draws(s))[:8] >= 30).sum() == 7)
    assert len(kmeans(points, 8, 0, draws(seed))[1].unique()) == 2  # the seven centroids on one point are one cluster
    assert len(kmeans(points, 8, 10, draws(seed))[1].unique()) > 4


def test_identical_points_and_as_many_clusters_as_points() -> None:
    centroids, assignment = kmeans(torch.ones(9, 3), 4, 5, draws())
    assert centroids.isfinite().all() and len(assignment.unique()) == 1
    points = random64(6, 2)
    centroids, assignment = kmeans(points, 6, 3, draws())
    torch.testing.assert_close(centroids[assignment], points)
    assert kmeans(points[:1], 1, 2, draws())[1].tolist() == [0]


def test_the_generator_alone_decides() -> None:
    points = random64(60, 3)
    torch.manual_seed(0)
    first = kmeans(points, 5, 4, draws(7))
    torch.manual_seed(1)
    second, other = kmeans(points, 5, 4, draws(7)), kmeans(points, 5, 4, draws(8))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_more_clusters_than_points_are_refused() -> None:
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"3 points cannot make {k} clusters"):
            kmeans(random64(3, 2), k, 1, draws())


def test_whitening_is_that_of_the_principal_components() -> None:
    """Compared by the rows' cosines: components have no sign of their own."""
    points = random64(30, 6) @ random64(6, 6, seed=1) + 4.0
    centred = points - points.mean(dim=0)
    u, _, _ = torch.linalg.svd(centred, full_matrices=False)
    for dims in (1, 3, 6):
        rows = torch.stack([row / row.norm() for row in u[:, :dims]])
        white = whitened(points, dims)
        assert white.shape == (30, dims)
        torch.testing.assert_close(white @ white.T, rows @ rows.T, rtol=1e-9, atol=1e-9)
    # The first component is that of the largest variance.
    wide = random64(50, 3) * torch.tensor([1.0, 50.0, 1.0], dtype=torch.float64)
    assert (whitened(wide, 1)[:, 0].sign() * (wide - wide.mean(dim=0))[:, 1].sign()).sum().abs() >= 48


def test_dimensions_without_variance_stay_zero() -> None:
    points = random64(20, 5)
    points[:, 3] = 7.0
    points[:, 4] = points[:, 0] + points[:, 1]
    white = whitened(points, 5)
    assert white.isfinite().all()
    torch.testing.assert_close(white.norm(dim=1), torch.ones(20, dtype=torch.float64))
    assert (white[:, 3:] == 0).all() and (white[:, :3] != 0).any(dim=0).all()
    assert (whitened(torch.ones(4, 3), 2) == 0).all()


def test_without_components_only_lengths_change() -> None:
    points = random64(5, 3)
    torch.testing.assert_close(whitened(points, 0), torch.stack([p / p.norm() for p in points]))
    with pytest.raises(ValueError, match="3 dimensions have no 4 principal components"):
        whitened(points, 4)


def slow_information(a: list[int], b: list[int]) -> float:
    n, pairs, in_a, in_b = len(a), Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    information = sum(c / n * math.log(c * n / (in_a[i] * in_b[j])) for (i, j), c in pairs.items())
    h = [-sum(c / n * math.log(c / n) for c in counted.values()) for counted in (in_a, in_b)]
    return information / math.sqrt(h[0] * h[1])


def test_mutual_information_is_the_papers() -> None:
    a = torch.randint(0, 4, (50,), generator=draws())
    b = (a + torch.randint(0, 2, (50,), generator=draws(1))) % 5
    assert mutual_information(a, b).item() == pytest.approx(slow_information(a.tolist(), b.tolist()), abs=1e-12)
    assert mutual_information(a, (a + 2) % 4).item() == pytest.approx(1.0)  # the same clusters by other numbers
    independent = torch.arange(4).repeat(4), torch.arange(4).repeat_interleave(4)
    assert mutual_information(*independent).item() == pytest.approx(0.0, abs=1e-12)
    assert mutual_information(a, torch.zeros_like(a)).item() == 0.0
    assert entropy(torch.arange(8)).item() == pytest.approx(math.log(8))
    assert entropy(torch.zeros(8)).item() == 0.0
