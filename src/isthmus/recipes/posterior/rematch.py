"""Shared items whose ids are wrong, matched anew by what they mean.

Where a part of the ids of an overlap is shuffled, the rest still tells how one space maps onto the other. Canonical
directions fitted on the items that agree carry those that don't, and two items that are each other's nearest there are
taken for the same one. How often that is right is measured on items that agree and were left out of the fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.recipes.posterior.canonical import directions

STRENGTH = 0.1
"""Of the shrunk covariances, as a multiple of their mean variance: finding the very item needs fine directions."""
PRECISION = 0.5
"""Share of held-out items that must be matched to themselves before any match is believed."""
_BLOCK = 1024

Rows = NDArray[np.int64]


def rematch(x: Array, y: Array, agree: NDArray[np.bool_], *, seed: int = 0) -> Rows:
    """Match the items of an overlap that disagree.

    Args:
        x: (n, d) centred unit rows of the items in one space.
        y: (n, e) rows that stand under the same ids in the other.
        agree: (n,) which of them have neighbours in common.
        seed: Of the held-out draw.

    Returns:
        (n,) by row of x its row of y: its own where the two agree, -1 where no match is to be believed.
    """
    partner = np.where(agree, np.arange(len(x)), -1)
    fine, odd = np.flatnonzero(agree), np.flatnonzero(~agree)
    if not len(odd) or _precision(x, y, fine, len(odd), seed) < PRECISION:
        return partner
    near, mutual = _mutual(x, y, fine, odd)
    partner[odd[mutual]] = odd[near[mutual]]
    return partner


def _precision(x: Array, y: Array, fine: Rows, count: int, seed: int) -> float:
    """Share of mutual matches that are right, among items that agree and took no part in the fit."""
    order = numpy_generator(seed, 10).permutation(fine)
    held_out, fitted = np.split(order, [min(count, len(order) // 2)])
    if len(held_out) < 2:
        return 0.0
    near, mutual = _mutual(x, y, fitted, held_out)
    return float((near == np.arange(len(held_out)))[mutual].mean()) if mutual.any() else 0.0


def _mutual(x: Array, y: Array, fitted: Rows, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """By row of x the nearest of the same rows of y, (m,) as numbers into `rows`, and whether it is mutual."""
    one, two = directions(x[fitted], y[fitted], STRENGTH)
    a, b = normalize(x[rows] @ one), normalize(y[rows] @ two)
    near = np.empty(len(rows), np.int64)
    best, back = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        cosines = a[start : start + _BLOCK] @ b.T
        near[start : start + _BLOCK] = cosines.argmax(axis=1)
        top = cosines.max(axis=0)
        back = np.where(top > best, start + cosines.argmax(axis=0), back)
        best = np.maximum(best, top)
    return near, back[near] == np.arange(len(rows))
