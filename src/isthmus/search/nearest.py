"""The nearest rows of an index: exact, or by an approximate index and exact for what that one does not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isthmus.core.geometry import Array
from isthmus.search.approximate import Approximate
from isthmus.search.hits import Hit, Hits
from isthmus.search.rows import Mask, best_of, exact_cosines, exact_nearest
from isthmus.spaces.embeddings import RowNumbers

ANN_SHARE = 0.02
"""Below this share of wanted rows exact search over them is faster than an approximate one that passes the others."""


def nearest_places(
    matrix: Array, queries: Array, k: int, wanted: Mask, ann: Approximate | None
) -> tuple[Array, RowNumbers]:
    """(q, k) cosines and places of the nearest rows among those wanted, best first; fewer where fewer are wanted.

    Args:
        matrix: (n, d) unit rows.
        queries: (q, d) unit rows.
        k: How many.
        wanted: (n,) which rows may be hits.
        ann: The approximate index over the rows, or None to look at all of them.
    """
    count = int(np.count_nonzero(wanted))
    k = min(k, count)
    if not k:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if ann is None or count < ANN_SHARE * len(matrix):
        return exact_nearest(matrix, queries, k, None if count == len(wanted) else wanted)
    return _approximate(ann, matrix, queries, k, wanted)


def _approximate(ann: Approximate, matrix: Array, queries: Array, k: int, wanted: Mask) -> tuple[Array, RowNumbers]:
    """Hits of the approximate index, scored exactly, beside exact ones of rows that changed since it was built."""
    neighbours = ann.nearest(queries, k, wanted)
    which, column = np.nonzero(neighbours >= 0)
    rows = neighbours[which, column]
    # The approximate index only chooses: every hit of it is scored exactly.
    parts = [(which, rows, exact_cosines(queries, which, matrix, rows))]
    unknown = wanted & ~ann.covered(len(matrix))
    if unknown.any():
        few = min(k, int(np.count_nonzero(unknown)))
        _, own = exact_nearest(matrix, queries, few, unknown)
        which = np.repeat(np.arange(len(queries)), few)
        parts.append((which, own.reshape(-1), exact_cosines(queries, which, matrix, own.reshape(-1))))
    which, rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    if np.bincount(which, minlength=len(queries)).min() < k:  # few pass, and they lie where it did not look
        return exact_nearest(matrix, queries, k, wanted)
    return best_of(which, rows, scores, len(queries), k)


def interleave(parts: Sequence[Sequence[Hit]], k: int) -> Hits:
    """Several rankings as one: the best of each, by score, then the second of each, and so on, the first k."""
    ranked = [(rank, -hit.score, hit.row, hit) for part in parts for rank, hit in enumerate(part)]
    return Hits(hit for *_, hit in sorted(ranked, key=lambda one: one[:3])[:k])
