"""Concepts: clusters of shared items by spherical k-means, in all spaces at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.core.runtime import numpy_generator

DIRECTIONS = 96
"""Leading directions that clusters are sought in: what lies beyond them moves hardly an item to another cluster."""
_BLOCK = 4096

Numbers = NDArray[np.int64]


def side_by_side(items: Sequence[Array], directions: int = DIRECTIONS) -> Array:
    """The same items of several spaces as one row each, in the leading directions of all spaces together.

    Args:
        items: By space, (n, d) unit rows of the same items.
        directions: Most dimensions kept.

    Returns:
        (n, D) float32 unit rows.
    """
    x = np.concatenate(items, axis=1) / np.float32(np.sqrt(len(items)))
    if x.shape[1] <= directions:
        return normalize(x)
    _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
    return normalize(np.asarray(x @ vectors[:, -directions:].astype(np.float32), dtype=np.float32))


def spherical_kmeans(x: Array, clusters: int, *, steps: int, seed: int) -> Numbers:
    """Cluster unit rows by cosine.

    Args:
        x: (n, d) unit rows.
        clusters: How many; at most n.
        steps: Iterations.
        seed: Seed of the rows that clusters start from.

    Returns:
        (n,) number of each row's cluster.
    """
    clusters = min(clusters, len(x))
    centres = x[numpy_generator(seed, 4).choice(len(x), clusters, replace=False)]
    for _ in range(steps):
        centres = centroids(x, nearest(x, centres), centres)
    return nearest(x, centres)


def nearest(x: Array, centres: Array) -> Numbers:
    """Number of the centre of the largest product, row by row."""
    parts = [np.argmax(x[start : start + _BLOCK] @ centres.T, axis=1) for start in range(0, len(x), _BLOCK)]
    return np.concatenate(parts).astype(np.int64)


def centroids(x: Array, numbers: Numbers, empty: Array) -> Array:
    """Unit means of the rows of each cluster; a cluster without rows keeps its row of `empty`."""
    sums = sum_by(x.T, numbers, len(empty)).T
    gone = ~sums.any(axis=1)
    sums[gone] = empty[gone]
    return normalize(sums)


def sum_by(x: Array, numbers: Numbers, clusters: int) -> Array:
    """Sum the columns of (n, m) by their cluster, (n, clusters)."""
    from scipy.sparse import csr_matrix

    m = len(numbers)
    membership = csr_matrix((np.ones(m, np.float32), (np.arange(m), numbers)), shape=(m, clusters))
    return np.asarray((membership.T @ np.ascontiguousarray(x.T)).T, dtype=np.float32)
