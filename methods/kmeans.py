"""k-means for DeepCluster and DeepCluster-v2: Lloyd's two steps on whole tensors, and what DeepCluster does around them.

    assign each point to its nearest centroid;   move each centroid to the mean of its points

Nothing here is random but the generator that is passed in, and sums are taken in a fixed order: the same points give the
same clusters. Every rank clusters all the points, and all take the first rank's result.
"""

from __future__ import annotations

import heapq

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.gather import rank, summed

# Scores held at once: points are compared with the centroids in chunks of this many numbers.
_CHUNK = 2**26
# By how much the two halves of a split cluster are moved apart, as a fraction of each coordinate: faiss's 1 / 1024.
_SPLIT = 1.0 / 1024.0
# Directions with less than this part of the largest variance are rounding errors, which whitening would blow up.
_RANK = 1e-10


@torch.no_grad()
def kmeans(
    points: Tensor, k: int, iterations: int, generator: torch.Generator, spherical: bool = False
) -> tuple[Tensor, Tensor]:  # n x d -> k x d, n
    """Centroids after so many iterations from k different points, and the nearest centroid of each point.

    An empty cluster takes over half of the largest one. spherical, as in DeepCluster-v2 and for points that are unit
    vectors: nearest is the largest dot product, centroids are unit vectors, and that of an empty cluster stays as it is.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"{len(points)} points cannot make {k} clusters")
    with torch.autocast(points.device.type, enabled=False):
        start = torch.randperm(len(points), generator=generator)[:k]
        centroids = points[start.to(points.device)]
        for _ in range(iterations):
            means, sizes = cluster_means(points, nearest(points, centroids, spherical), k)
            centroids = torch.where(sizes[:, None] > 0, means, centroids)
            centroids = F.normalize(centroids, dim=1) if spherical else split_largest(centroids, sizes)
        return _agreed(centroids), _agreed(nearest(points, centroids, spherical))


def _agreed(x: Tensor) -> Tensor:
    """The first rank's: where the ranks' points differ in their last bits, the clusters may not."""
    return summed(x if rank() == 0 else torch.zeros_like(x))


def nearest(points: Tensor, centroids: Tensor, spherical: bool = False) -> Tensor:  # n x d, k x d -> n
    """The centroid of the smallest distance, or of the largest dot product; of equal ones the first."""
    # |x - c|^2 is smallest where x.c - |c|^2 / 2 is largest.
    offset = 0.0 if spherical else centroids.square().sum(dim=1) / 2  # k
    rows = max(1, _CHUNK // len(centroids))
    return torch.cat([(chunk @ centroids.T - offset).argmax(dim=1) for chunk in points.split(rows)])


def cluster_means(points: Tensor, assignment: Tensor, k: int) -> tuple[Tensor, Tensor]:  # n x d, n -> k x d, k
    """The mean of each cluster's points, zero for none, and how many they are."""
    sizes = torch.bincount(assignment, minlength=k)
    # Sorted first: where they lie, a GPU would add them up in any order, and no run could be repeated.
    ordered = points[torch.argsort(assignment, stable=True)]
    sums = torch.segment_reduce(ordered, "sum", lengths=sizes, axis=0)
    return sums / sizes.clamp(min=1)[:, None], sizes


def split_largest(centroids: Tensor, sizes: Tensor) -> Tensor:  # k x d, k -> k x d
    """Each empty cluster gets the centroid of the cluster that is largest then; the two are moved apart symmetrically.

    Each counts as half of its points from then on, so that the next empty cluster may take from another.
    """
    empty = (sizes == 0).nonzero().flatten().tolist()
    if not empty:
        return centroids
    moved = centroids.cpu().clone()
    apart = torch.ones_like(moved[0])
    apart[1::2] = -1.0
    heap = [(-size, i) for i, size in enumerate(sizes.tolist()) if size > 0]
    heapq.heapify(heap)
    for i in empty:
        negative, largest = heapq.heappop(heap)
        centroid = moved[largest].clone()
        moved[i], moved[largest] = centroid * (1.0 + _SPLIT * apart), centroid * (1.0 - _SPLIT * apart)
        half = -negative // 2
        heapq.heappush(heap, (negative + half, largest))
        heapq.heappush(heap, (-half, i))
    return moved.to(centroids.device)


@torch.no_grad()
def whitened(points: Tensor, dims: int) -> Tensor:  # n x d -> n x dims
    """The first principal components with variance one each, then every row with length one (DeepCluster, appendix).

    A component without variance stays zero. dims 0: the rows are normalized and nothing else.
    """
    if dims == 0:
        return F.normalize(points, dim=1)
    if dims > points.shape[1]:
        raise ValueError(f"points of {points.shape[1]} dimensions have no {dims} principal components")
    with torch.autocast(points.device.type, enabled=False):
        mean = points.mean(dim=0, dtype=torch.float64)  # d
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=points.device)
        chunks = points.split(max(1, _CHUNK // len(mean)))
        for chunk in chunks:
            centred = chunk.double() - mean
            covariance += centred.T @ centred / len(points)
        variance, directions = torch.linalg.eigh(covariance)  # ascending
        scale = torch.where(variance > _RANK * variance[-1], variance.clamp(min=0).rsqrt(), 0.0)
        components = (directions * scale)[:, -dims:].flip(1).to(points.dtype)  # d x dims
        mean = mean.to(points.dtype)
        return torch.cat([F.normalize((chunk - mean) @ components, dim=1) for chunk in chunks])


def entropy(labels: Tensor) -> Tensor:  # n -> scalar, float64
    """Of the labels' frequencies, in nats: log k where k labels are equally frequent."""
    p = labels.unique(return_counts=True)[1].double() / len(labels)
    return -(p * p.log()).sum()


def mutual_information(a: Tensor, b: Tensor) -> Tensor:  # n, n -> scalar, float64
    """DeepCluster's NMI, I(a; b) / sqrt(H(a) H(b)): 1 for the same partition, 0 for independent ones.

    A single cluster says nothing about any other: 0.
    """
    h_a, h_b = entropy(a), entropy(b)
    both = entropy(a * (b.max() + 1) + b)
    norm = (h_a * h_b).sqrt()
    return torch.where(norm > 0, (h_a + h_b - both) / norm.clamp(min=1e-300), 0.0)
