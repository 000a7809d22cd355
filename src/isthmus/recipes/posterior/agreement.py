"""Agreement of neighbours, item by item: does a shared item lie among the same others in two spaces?

Of the nearest shared items of an item in one space, some are among its nearest in the other. Where none are, both ids
name different things, or one space sees nothing there: the share of such items reads off which part of an overlap is
wrong. Leaving them out costs a healthy overlap nothing and mends one whose ids are partly shuffled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.core.runtime import numpy_generator
from isthmus.recipes.posterior.concepts import side_by_side

NEIGHBOURS, OTHERS = 20, 6000
"""Neighbours that are compared, and the items among which they are sought: with more, fewer would be in common."""
DIRECTIONS = 128
"""Leading directions of a space in which neighbours are sought."""
_BLOCK = 1024

Counts = NDArray[np.int64]


def common_neighbours(
    x: Array,
    y: Array,
    *,
    neighbours: int = NEIGHBOURS,
    others: int = OTHERS,
    among: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Counts:
    """Count how many of an item's nearest items in one space are among its nearest in the other.

    Args:
        x: (n, d) unit rows of items in one space.
        y: (n, e) unit rows of the same items in the other.
        neighbours: How many nearest items.
        others: Items among which they are sought, drawn at random; every item is counted.
        among: (n,) which items may be drawn; None is all.
        seed: Seed of the draw.

    Returns:
        (n,) from 0 to `neighbours`.
    """
    n = len(x)
    drawn = np.arange(n) if among is None else np.flatnonzero(among)
    if len(drawn) > others:
        drawn = np.sort(numpy_generator(seed, 6).choice(drawn, others, replace=False))
    k = min(neighbours, len(drawn) - 1)
    found = np.zeros(n, dtype=np.int64)
    if k < 1:
        return found
    x, y = side_by_side([x], DIRECTIONS), side_by_side([y], DIRECTIONS)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        # Items as near as the k-th; where several are equally near, one more than k may be in common.
        common = (_near(x, rows, drawn, k) & _near(y, rows, drawn, k)).sum(axis=1)
        found[rows] = np.minimum(common, k)
    return found


def agreeing(x: Array, y: Array, *, neighbours: int, doubtful: float, seed: int = 0) -> tuple[NDArray[np.bool_], float]:
    """Which items have neighbours in common, and the share that has none.

    Where that share is large, the neighbours themselves are wrong, too. They are then sought once more, among the items
    that had some, and two in common are asked for, as one may be chance.

    Args:
        x: (n, d) unit rows of items in one space.
        y: (n, e) unit rows of the same items in the other.
        neighbours: How many nearest items.
        doubtful: The share from which they are sought once more.
        seed: Seed of draws.
    """
    some = common_neighbours(x, y, neighbours=neighbours, seed=seed) > 0
    none = float(1 - some.mean()) if len(some) else 0.0
    if none >= doubtful and some.sum() > 2 * neighbours:
        some = common_neighbours(x, y, neighbours=neighbours, among=some, seed=seed) > 1
    return some, none


def _near(x: Array, rows: Counts, drawn: Counts, k: int) -> NDArray[np.bool_]:
    """Which of the drawn items are among the k nearest others of some rows, (rows, drawn)."""
    cosines = x[rows] @ x[drawn].T
    same = np.searchsorted(drawn, rows)
    inside = (same < len(drawn)) & (drawn[np.minimum(same, len(drawn) - 1)] == rows)
    cosines[np.flatnonzero(inside), same[inside]] = -np.inf
    return np.asarray(cosines >= np.partition(cosines, -k, axis=1)[:, -k, None])


def chance(n: int, *, neighbours: int = NEIGHBOURS, others: int = OTHERS) -> float:
    """Share of items without a common neighbour if two spaces had nothing to do with each other."""
    m = min(n, others) - 1
    k = min(neighbours, m)
    return float((1 - k / m) ** k) if m > 0 else 1.0


def neighbours_of(n: int) -> int:
    """Neighbours to compare among n items: fewer of a small overlap, where chance alone would have some in common."""
    return NEIGHBOURS if n >= OTHERS else int(np.clip(round(float(np.sqrt(n / 6))), 5, NEIGHBOURS))
