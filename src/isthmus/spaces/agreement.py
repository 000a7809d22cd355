"""How far the same items have the same neighbours in two spaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array

NEIGHBOURS = 10
"""Neighbours that are compared where nobody says how many."""
LEAST_SAMPLED = 100
"""Shared items below which agreement says nothing."""


def contradiction(where: str, report: Mapping[str, float]) -> str | None:
    """The warning of an overlap whose items have their neighbours in common no more often than chance, or None.

    Args:
        where: The two spaces and the modality.
        report: `agreement` and `agreement_chance` of `neighbour_agreement`.
    """
    if report["agreement"] >= 2.0 * report["agreement_chance"]:
        return None
    return (
        f"{where}: shared items have their neighbours in common no more often than chance "
        f"({report['agreement']:.2%} against {report['agreement_chance']:.2%}). "
        "Do equal ids name equal items in both spaces?"
    )


def neighbour_agreement(x: Array, y: Array, k: int) -> dict[str, float]:
    """Agreement of items' neighbours in two spaces (mutual k-NN alignment, Huh et al., arXiv 2405.07987).

    Args:
        x: (n, d) unit rows in one space.
        y: (n, e) unit rows of the same items in the other.
        k: Neighbours, at most n - 2.

    Returns:
        `agreement`, the mean share of neighbours in common; `agreement_chance`, k / (n - 1), without any relation;
        `jaccard`, the mean of intersection over union.
    """
    n = len(x)
    common = np.empty(n, np.float64)
    for start in range(0, n, 1024):
        rows = np.arange(start, min(start + 1024, n))
        near, far = _nearest(x, rows, k), _nearest(y, rows, k)
        # Neighbours of one row are numbered apart from those of the others, so that one intersection serves all.
        own = rows[:, None] * n
        shared = np.intersect1d(near + own, far + own, assume_unique=True) // n
        common[rows] = np.bincount(shared - start, minlength=len(rows))
    return {
        "agreement": float(common.mean() / k),
        "agreement_chance": k / (n - 1),
        "jaccard": float(np.mean(common / (2 * k - common))),
    }


def _nearest(x: Array, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k nearest other rows of some rows, (len(rows), k)."""
    cosines = x[rows] @ x.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    return np.argpartition(-cosines, k - 1, axis=1)[:, :k]
