"""Rows of an index in memory: a matrix that grows, with rows that are gone until it is made dense again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.errors import EvaluationError

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

SPARE_SHARE = 0.25
"""Share of rows that may be gone before the matrix is made dense again: deleting stays cheap, searching too."""
SPARE_ROWS = 1024


class GrowingRows:
    """(n, d) float32 rows that grow by doubling and of which some are gone.

    Args:
        rows: (n, d) float32, not copied until a row changes; it may be a read-only memory map.
    """

    def __init__(self, rows: Array) -> None:
        self._matrix = rows
        self.size = len(rows)
        self.alive: Mask = np.ones(len(rows), bool)

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self._matrix.shape[1])

    @property
    def count(self) -> int:
        """Rows that are there."""
        return self.size - self.gone

    @property
    def gone(self) -> int:
        """Rows that are gone and still take a place."""
        return self.size - int(np.count_nonzero(self.alive[: self.size]))

    @property
    def matrix(self) -> Array:
        """All places, (size, d), those of gone rows included."""
        return self._matrix[: self.size]

    @property
    def living(self) -> Mask:
        """(size,) which places hold a row."""
        return self.alive[: self.size]

    def append(self, rows: Array) -> Rows:
        """Add rows and return their places."""
        needed = self.size + len(rows)
        if needed > len(self._matrix) or not self._matrix.flags.writeable:
            # Half as much again: appending n rows one by one moves each a few times, not n times.
            room = max(needed, self.size + self.size // 2, 16)
            matrix = np.empty((room, self.dim), np.float32)
            matrix[: self.size] = self.matrix
            alive = np.zeros(room, bool)
            alive[: self.size] = self.living
            self._matrix, self.alive = matrix, alive
        self._matrix[self.size : needed] = rows
        self.alive[self.size : needed] = True
        self.size = needed
        return np.arange(needed - len(rows), needed, dtype=np.int64)

    def replace(self, place: int, row: Array) -> None:
        """Put another row in a place."""
        if not self._matrix.flags.writeable:
            self._matrix = np.array(self._matrix, np.float32)
        self._matrix[place] = row

    def remove(self, places: Rows) -> None:
        """Let rows be gone."""
        self.alive[places] = False

    @property
    def should_compact(self) -> bool:
        """Whether so many rows are gone that the matrix should be made dense."""
        return self.gone > max(SPARE_ROWS, SPARE_SHARE * self.size)

    def compact(self) -> Rows:
        """Make the matrix dense and return the places that were kept, in their order."""
        kept = np.flatnonzero(self.living).astype(np.int64)
        self._matrix = np.ascontiguousarray(self.matrix[kept])
        self.size, self.alive = len(kept), np.ones(len(kept), bool)
        return kept


CHUNK = 1 << 16
"""Rows of the index that are multiplied at once."""
SCORES = 1 << 24
"""Scores in memory at once: 64 MiB of float32."""
ROUNDING = np.float32(4e-6)
"""How far a float32 cosine may lie from the exact one, generously."""
GATHER_SHARE = 0.25
"""Below this share of wanted rows, a chunk's rows are copied together before they are multiplied."""


def exact_nearest(matrix: Array, queries: Array, k: int, wanted: Mask | None = None) -> tuple[Array, Rows]:
    """The k best rows of each query by cosine, exact, equal cosines in the order of the rows.

    Args:
        matrix: (n, d) unit rows.
        queries: (q, d) unit rows.
        k: How many, at most as many as are wanted.
        wanted: (n,) the rows that may be given; None is all.

    Returns:
        (q, k) cosines and (q, k) row numbers.
    """
    step = max(1, SCORES // min(CHUNK, max(1, len(matrix))))
    parts = [_block_nearest(matrix, queries[i : i + step], k, wanted) for i in range(0, len(queries), step)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _block_nearest(matrix: Array, queries: Array, k: int, wanted: Mask | None) -> tuple[Array, Rows]:
    """Best k of a block of queries: the best of every chunk, and the best of those."""
    parts = []
    for first in range(0, len(matrix), CHUNK):
        chunk = matrix[first : first + CHUNK]
        here = None if wanted is None else wanted[first : first + CHUNK]
        parts.append(_chunk_candidates(chunk, queries, k, here, first))
    which, rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return best_of(which, rows, scores, len(queries), k)


def _chunk_candidates(
    chunk: Array, queries: Array, k: int, wanted: Mask | None, first: int
) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """(query, row, cosine in float64) of every row of a chunk that may be among the k best of a query."""
    own = np.arange(len(chunk)) if wanted is None else np.flatnonzero(wanted)
    if not len(own):
        nothing = np.empty(0, np.int64)
        return nothing, nothing, np.empty(0, np.float64)
    if len(own) <= GATHER_SHARE * len(chunk):
        chunk, wanted = chunk[own], None
    else:
        own = np.arange(len(chunk))
    scores = queries @ chunk.T
    if wanted is not None:
        scores[:, ~wanted] = -np.inf
    which, columns = candidates(scores, min(k, len(chunk)))
    if wanted is not None:
        which, columns = which[wanted[columns]], columns[wanted[columns]]
    return which, own[columns] + first, exact_cosines(queries, which, chunk, columns)


def exact_cosines(queries: Array, which: Rows, matrix: Array, rows: Rows) -> NDArray[np.float64]:
    """Cosines of pairs of unit rows, summed in float64.

    Equal embeddings get other last bits in other places of a float32 product; float64 row by row does not.
    """
    return np.asarray((queries[which].astype(np.float64) * matrix[rows]).sum(axis=1))


def best_of(which: Rows, rows: Rows, scores: NDArray[np.float64], queries: int, k: int) -> tuple[Array, Rows]:
    """The k best of candidates (query, row, cosine), of which every query has at least k."""
    if np.bincount(which, minlength=queries).min(initial=k) < k:  # NaN is among the best of nothing
        raise EvaluationError("rows of the index hold NaN: its embeddings are damaged. Make the index again.")
    order = np.lexsort((rows, -scores, which))
    starts = np.searchsorted(which[order], np.arange(queries))
    best = order[starts[:, None] + np.arange(k)]
    return scores[best].astype(np.float32), rows[best]


def candidates(scores: Array, k: int) -> tuple[Rows, Rows]:
    """(row, column) of every score that may be among the k best of its row, once rounding is taken off.

    Of the scores within rounding of the k-th best, no more than k + 64 are kept, the first ones: if more are that
    close, they are ties.
    """
    width = scores.shape[1]
    worst = np.partition(scores, width - k, axis=1)[:, width - k]
    rows, columns = np.nonzero(scores >= (worst - ROUNDING)[:, None])
    band = scores[rows, columns] <= (worst + ROUNDING)[rows]
    before = np.cumsum(band) - band
    place = before - before[np.searchsorted(rows, rows)]  # how many of the row's band stand before
    keep = ~band | (place < k + 64)
    return rows[keep], columns[keep]


def renumbered(alive: Mask) -> Callable[[Rows], Rows]:
    """A function from places to row numbers, counted over the rows that are there."""
    if alive.all():
        return lambda places: places
    numbers = np.cumsum(alive) - 1
    return lambda places: np.asarray(numbers[places], np.int64)
