"""How good a join is, without a label: pseudo pairs of the spaces' own items, made from clusters of the shared ones.

Shared items are clustered; the clusters best supported in both memories give pseudo pairs, the items nearest to a
cluster in either space. `uncovered` scores a method that was fitted without those clusters' items, so it tells whether
meanings that are not among the shared items are carried (composed ones, as numbers are); `covered` scores it with all
items, and over wider lists, so it sees damage. Both are mean average precisions over both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.core.runtime import numpy_generator
from isthmus.recipes.posterior.concepts import centroids, side_by_side, spherical_kmeans
from isthmus.recipes.posterior.joint import Joint

CLUSTERS, BEST = 300, 40
"""Clusters of the shared items, and how many of them give pseudo pairs."""
NARROW, WIDE = (4, 6), (24, 36)
"""Nearest items of a cluster in the first and in the second space: for `uncovered`, and for `covered`."""
REPEATS = 2
"""Clusterings, each from another seed, whose estimates are averaged."""
SURE = 0.95
"""Share of draws of clusters in which one recipe is above another, from which it counts as better."""
_RESAMPLES = 500

Score = Callable[[Array, Array], Array]
"""(n, d) centred rows of the first space and (m, e) of the second to (n, m) scores."""


@dataclass(frozen=True)
class PseudoPairs:
    """Pseudo pairs of two spaces from one clustering.

    Attributes:
        left_out: (items,) whether a shared item is of a cluster that gives pairs.
        first: By width, (clusters, items) memory rows of the first space nearest to each cluster.
        second: The same of the second.
    """

    left_out: NDArray[np.bool_]
    first: dict[str, NDArray[np.int64]]
    second: dict[str, NDArray[np.int64]]

    def items(self, width: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of both memories, each once, the cluster that a row of the first is nearest to, and what is relevant."""
        near, far = self.first[width], self.second[width]
        rows, columns = np.unique(near), np.unique(far)
        relevant = np.zeros((len(rows), len(columns)), dtype=bool)
        for a, b in zip(near, far, strict=True):
            relevant[np.ix_(np.searchsorted(rows, a), np.searchsorted(columns, b))] = True
        owner = np.array([np.flatnonzero((near == row).any(axis=1))[0] for row in rows])
        return rows, columns, owner, relevant


def pseudo_pairs(joint: Joint, a: int, b: int, modalities: tuple[str, str], seed: int) -> PseudoPairs:
    """Make pseudo pairs of two spaces.

    Args:
        joint: The spaces.
        a: Number of the first.
        b: Number of the second.
        modalities: Modalities of the items, in the first and in the second.
        seed: Seed of the clustering.
    """
    items = [joint.members[n].items for n in (a, b)]
    memories = [joint.members[n].memories[m].rows for n, m in zip((a, b), modalities, strict=True)]
    count = max(2, min(CLUSTERS, len(joint.ids) // 4))
    numbers = spherical_kmeans(side_by_side(items, 64), count, steps=5, seed=seed + 100)
    sizes = np.bincount(numbers, minlength=count)
    cosines = [
        centroids(x, numbers, np.zeros((count, x.shape[1]), np.float32)) @ memory.T
        for x, memory in zip(items, memories, strict=True)
    ]
    supported = np.minimum(*(_standard(_largest(each, 5).mean(axis=1)) for each in cosines))
    supported[sizes < 2] = -np.inf
    best = np.argsort(-supported, kind="stable")[: min(BEST, max(2, count // 3))]
    lists = [
        {
            width: np.argsort(-each[best], axis=1, kind="stable")[:, : _size(end, each.shape[1], len(best))]
            for width, end in (("narrow", NARROW[side]), ("wide", WIDE[side]))
        }
        for side, each in enumerate(cosines)
    ]
    return PseudoPairs(np.isin(numbers, best), *lists)


def _size(wanted: int, rows: int, clusters: int) -> int:
    """Items a cluster: as many as wanted, fewer where a small memory would give every cluster the same."""
    return max(1, min(wanted, 3 * rows // max(clusters, 1), rows))


def _standard(x: Array) -> Array:
    return np.asarray((x - x.mean()) / max(float(x.std()), 1e-12), dtype=np.float32)


def _largest(x: Array, k: int) -> Array:
    k = min(k, x.shape[1])
    return np.partition(x, -k, axis=1)[:, -k:]


@dataclass(frozen=True)
class Figure:
    """One estimate: the mean over clusterings, and each cluster's own share of it, for intervals."""

    value: float
    clusters: Array

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval by drawing clusters anew."""
        drawn = numpy_generator(seed, 7).integers(0, len(self.clusters), (_RESAMPLES, len(self.clusters)))
        means = self.clusters[drawn].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)


def figure(scores: Array, owner: NDArray[np.int64], relevant: NDArray[np.bool_]) -> Figure:
    """Mean average precision of both directions, and its parts by cluster of the first space's items."""
    precision = average_precisions(scores, relevant)
    both = (float(precision.mean()) + float(average_precisions(scores.T, relevant.T).mean())) / 2
    clusters = np.array([precision[owner == c].mean() for c in np.unique(owner)], dtype=np.float32)
    # The other direction moves the level, the clusters of this one the spread.
    return Figure(both, clusters * np.float32(both / max(float(clusters.mean()), 1e-9)))


def average_precisions(scores: Array, relevant: NDArray[np.bool_]) -> Array:
    """Average precision of every row; a tie ranks behind what is not relevant, as in `isthmus.metrics`."""
    order = np.lexsort((relevant, -scores), axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1), dtype=np.float32)


def ahead(one: Sequence[Figure], other: Sequence[Figure], draws: int = 1000) -> float:
    """Share of draws of clusters, the same for both, in which one recipe's figures are above another's.

    Args:
        one: A recipe's figures; of several the product counts.
        other: The other's, of the same kinds and on the same pseudo pairs.
        draws: How often clusters are drawn anew.
    """
    generator = numpy_generator(0, 9)
    logs = np.zeros((2, draws))
    for figures in zip(one, other, strict=True):
        n = min(len(each.clusters) for each in figures)
        drawn = generator.integers(0, n, (draws, n))
        for side, each in enumerate(figures):
            logs[side] += np.log(np.maximum(each.clusters[drawn].mean(axis=1), 1e-9))
    return float((logs[0] > logs[1]).mean())


def mean_figure(figures: Mapping[int, Figure] | list[Figure]) -> Figure:
    """The mean of several clusterings' figures."""
    each = list(figures.values()) if isinstance(figures, Mapping) else figures
    return Figure(float(np.mean([f.value for f in each])), np.concatenate([f.clusters for f in each]))
