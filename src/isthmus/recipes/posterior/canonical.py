"""Canonical directions of every pair of spaces, covariances shrunk, side by side.

For a pair this is CCA by the SVD of the whitened cross-covariance (Hotelling 1936), the covariance of the shared items
shrunk by a multiple of its mean variance (Vinod 1976), directions weighted by their correlation on either side. Every
pair has coordinates of its own, zero for the other spaces, so that more spaces cost a pair nothing. Two spaces that
share nothing are joined through a third: what one shares with it stands, as an average, in the other as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.steps.softmax import softmax_average
from isthmus.core.geometry import Array, centroid, normalize

if TYPE_CHECKING:
    from isthmus.recipes.posterior.joint import Joint

Matrix = NDArray[np.float64]

TEMPERATURE = 0.03
"""Temperature of the averages through a third space."""
MOST_ROWS = 20_000
"""Most rows of an overlap that are averaged through a third space, evenly spaced."""


@dataclass(frozen=True)
class Canonical:
    """Canonical directions.

    Attributes:
        directions: By pair of spaces, (d, k) float32 of the first and (e, k) of the second.
        count: How many spaces there are.
    """

    directions: dict[tuple[int, int], tuple[Array, Array]]
    count: int

    def blocks(self, member: int) -> list[tuple[Array | None, int]]:
        """A space's directions pair by pair, None where it takes no part, and how many there are."""
        return [
            (ends[pair.index(member)] if member in pair else None, ends[0].shape[1])
            for pair, ends in self.directions.items()
        ]

    def carry(self, member: int, centred: Array) -> Array:
        """Centred rows (n, d) of a space in all canonical coordinates, (n, k) unit rows."""
        parts = [
            np.zeros((len(centred), k), np.float32) if block is None else normalize(centred @ block)
            for block, k in self.blocks(member)
        ]
        scale = np.float32(np.sqrt(max(self.count - 1, 1)))
        return np.asarray(np.concatenate(parts, axis=1) / scale, dtype=np.float32)


def fit_canonical(joint: Joint, strength: float) -> Canonical:
    """Fit canonical directions on the overlaps of some spaces.

    Args:
        joint: The spaces and their overlaps.
        strength: What is added to the diagonal of a covariance, as a multiple of its mean variance.
    """
    shared = {(link.first, link.second): link.rows for link in joint.links}
    count = len(joint.members)
    found = {}
    for pair in combinations(range(count), 2):
        rows = shared.get(pair) or _through_a_third(shared, pair, count)
        if rows is not None:
            found[pair] = directions(*rows, strength)
            shared.setdefault(pair, rows)
    return Canonical(found, count)


def directions(x: Array, y: Array, strength: float) -> tuple[Array, Array]:
    """Canonical directions (d, k) and (e, k) of centred rows (n, d) and (n, e), each scaled by its correlation."""
    one, two = x.astype(np.float64), y.astype(np.float64)
    white = _whitening(one, strength), _whitening(two, strength)
    u, correlation, vt = np.linalg.svd(white[0] @ (one.T @ two / len(one)) @ white[1], full_matrices=False)
    return (white[0] @ u * correlation).astype(np.float32), (white[1] @ vt.T * correlation).astype(np.float32)


def ridge(x: Array, y: Array, strength: float) -> Array:
    """Weights (e, d) that carry rows x (n, d) to rows y (n, e), the covariance of x shrunk as in CCA."""
    one, two = x.astype(np.float64), y.astype(np.float64)
    covariance = one.T @ one / len(one)
    covariance += strength * max(np.trace(covariance) / len(covariance), 1e-12) * np.eye(len(covariance))
    return np.asarray(np.linalg.solve(covariance, one.T @ two / len(one)).T, dtype=np.float32)


def onto(x: Array, y: Array, strength: float) -> Array:
    """Weights (e, d) of canonical directions onto a second space that stays as it is.

    With Wx, Wy the whitening of either side and U S V^T the whitened cross-covariance, the canonical product of two
    rows is x Wx U S^2 V^T Wy y^T; all but y belongs to x.

    Args:
        x: (n, d) centred unit rows of the space that is carried.
        y: (n, e) the same items in the space that stays.
        strength: What is added to the diagonal of a covariance, as a multiple of its mean variance.
    """
    one, two = directions(x, y, strength)
    return np.asarray(two @ one.T, dtype=np.float32)


def _whitening(x: Matrix, strength: float) -> Matrix:
    """Inverse square root of the covariance of centred rows, the diagonal strengthened."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return np.asarray(vectors / np.sqrt(np.clip(values, 0, None) + strength * max(values.mean(), 1e-12)) @ vectors.T)


Overlaps = dict[tuple[int, int], tuple[Array, Array]]


def _through_a_third(shared: Overlaps, pair: tuple[int, int], count: int) -> tuple[Array, Array] | None:
    """Rows of two spaces that share nothing, made of what both share with a third."""

    def between(a: int, b: int) -> tuple[Array, Array] | None:
        rows = shared.get((min(a, b), max(a, b)))
        if rows is None:
            return None
        rows = rows if a < b else rows[::-1]
        chosen = np.unique(np.linspace(0, len(rows[0]) - 1, min(len(rows[0]), MOST_ROWS)).astype(np.int64))
        return rows[0][chosen], rows[1][chosen]

    for third in range(count):
        near, far = between(third, pair[0]), between(third, pair[1])
        if third in pair or near is None or far is None:
            continue
        # What the first shares with the third, described in the second by what that shares with the third; and back.
        there = normalize(softmax_average(near[0], far[0], far[1], TEMPERATURE))
        back = normalize(softmax_average(far[0], near[0], near[1], TEMPERATURE))
        x, y = np.concatenate([near[1], back]), np.concatenate([there, far[1]])
        return normalize(x - centroid(x)), normalize(y - centroid(y))
    return None
