"""Rows of an index in memory: a matrix that grows, with rows that are gone until it is made dense again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.errors import EvaluationError
from isthmus.spaces.embeddings import RowNumbers

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
        """(size, d) embeddings of all places, those of deleted rows included."""
        return self._matrix[: self.size]

    @property
    def living(self) -> Mask:
        """(size,) which places hold a row."""
        return self.alive[: self.size]

    def append(self, rows: Array) -> RowNumbers:
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

    def remove(self, places: RowNumbers) -> None:
        """Let rows be gone."""
        self.alive[places] = False

    @property
    def should_compact(self) -> bool:
        """Whether so many rows are gone that the matrix should be made dense."""
        return self.gone > max(SPARE_ROWS, SPARE_SHARE * self.size)

    def compact(self) -> RowNumbers:
        """Make the matrix dense and return the places that were kept, in their order."""
        survivors = np.flatnonzero(self.living).astype(np.int64)
        self._matrix = np.ascontiguousarray(self.matrix[survivors])
        self.size, self.alive = len(survivors), np.ones(len(survivors), bool)
        return survivors


SCORES = 1 << 18
"""Scores in memory at once: 1 MiB of float32, which a core's cache holds while they are compared."""
TILE_ROWS = (2048, 1 << 16)
"""Fewest and most rows that are multiplied at once."""
TILE_HITS = 4
"""Times k, the fewest rows of a tile: one with less than k rows would set no floor."""
QUERIES = 256
"""Queries that are multiplied at once."""
ROUNDING = np.float32(4e-6)
"""How far a float32 cosine may lie from the exact one, generously."""
GATHER_SHARE = 0.25
"""Below this share of wanted rows, a tile's rows are copied together before they are multiplied."""


def exact_nearest(matrix: Array, queries: Array, k: int, wanted: Mask | None = None) -> tuple[Array, RowNumbers]:
    """The k best rows of each query by cosine, exact, equal cosines in the order of the rows.

    Args:
        matrix: (n, d) unit rows.
        queries: (q, d) unit rows.
        k: How many, at most as many as are wanted.
        wanted: (n,) the rows that may be given; None is all.

    Returns:
        (q, k) cosines and (q, k) row numbers.
    """
    parts = [_block_nearest(matrix, queries[i : i + QUERIES], k, wanted) for i in range(0, len(queries), QUERIES)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _block_nearest(matrix: Array, queries: Array, k: int, wanted: Mask | None) -> tuple[Array, RowNumbers]:
    """Best k of a block of queries, tile by tile of rows.

    Each query has a floor, the k-th best cosine of some tile before: what lies below it in a later tile is passed over
    by one comparison, so that after the first tile few scores are looked at twice.
    """
    step = max(min(max(SCORES // len(queries), TILE_ROWS[0]), TILE_ROWS[1]), TILE_HITS * k)
    floor = np.full(len(queries), -np.inf, np.float32)
    parts = []
    for first in range(0, len(matrix), step):
        here = None if wanted is None else wanted[first : first + step]
        tile, own = _wanted_rows(matrix[first : first + step], here)
        if not len(tile):
            continue
        scores = tile @ queries.T  # this way round the product of few queries takes two thirds of the time
        whole = here if here is not None and len(tile) == len(here) else None
        if whole is not None:
            scores[~whole] = -np.inf
        which, columns, floor = _above(scores, k, floor)
        if whole is not None:
            which, columns = which[whole[columns]], columns[whole[columns]]
        parts.append((which, own[columns] + first, exact_cosines(queries, which, tile, columns)))
    which, rows, exact = (np.concatenate(column) for column in zip(*parts, strict=True))
    return best_of(which, rows, exact, len(queries), k)


def _wanted_rows(tile: Array, wanted: Mask | None) -> tuple[Array, RowNumbers]:
    """The rows of a tile to multiply and their numbers: the wanted ones alone where these are few, else all."""
    if wanted is not None:
        own = np.flatnonzero(wanted).astype(np.int64)
        if len(own) <= GATHER_SHARE * len(tile):
            return tile[own], own
    return tile, np.arange(len(tile), dtype=np.int64)


def _above(scores: Array, k: int, floor: Array) -> tuple[RowNumbers, RowNumbers, Array]:
    """(query, row) of every score (row, query) that may be among the k best of its query, and the floors after it."""
    places = np.flatnonzero(scores >= floor - ROUNDING)
    if len(places) <= 2 * k * len(floor) and floor.min() > -np.inf:
        rows, which = np.divmod(places, len(floor))
        return which, rows, floor
    few = min(k, len(scores))
    which, rows, worst = candidate_hits(np.ascontiguousarray(scores.T), few)
    return which, rows, np.maximum(floor, worst) if few == k else floor


def exact_cosines(queries: Array, which: RowNumbers, matrix: Array, rows: RowNumbers) -> NDArray[np.float64]:
    """Cosines of pairs of unit rows, summed in float64.

    Equal embeddings get other last bits in other places of a float32 product; float64 row by row does not.
    """
    return np.asarray((queries[which].astype(np.float64) * matrix[rows]).sum(axis=1))


def best_of(
    which: RowNumbers, rows: RowNumbers, scores: NDArray[np.float64], queries: int, k: int
) -> tuple[Array, RowNumbers]:
    """The k best of candidates (query, row, cosine), of which every query has at least k."""
    if np.bincount(which, minlength=queries).min(initial=k) < k:  # NaN is among the best of nothing
        raise EvaluationError("rows of the index hold NaN: its embeddings are damaged. Make the index again.")
    order = np.lexsort((rows, -scores, which))
    starts = np.searchsorted(which[order], np.arange(queries))
    best = order[starts[:, None] + np.arange(k)]
    return scores[best].astype(np.float32), rows[best]


def candidate_hits(scores: Array, k: int) -> tuple[RowNumbers, RowNumbers, Array]:
    """Candidates for the k nearest rows of each query: (query, row) of every score that rounding may hide, and each
    query's k-th best.

    Of the scores within rounding of the k-th best, no more than k + 64 are kept, the first ones: if more are that
    close, they are ties.
    """
    width = scores.shape[1]
    # Two float32 products of equal vectors may differ in their last bits: nobody within that of the k-th best is left
    # out before exact scores decide.
    worst = np.partition(scores, width - k, axis=1)[:, width - k]
    rows, columns = np.nonzero(scores >= (worst - ROUNDING)[:, None])
    band = scores[rows, columns] <= (worst + ROUNDING)[rows]
    before = np.cumsum(band) - band
    place = before - before[np.searchsorted(rows, rows)]  # how many of the row's band stand before
    keep = ~band | (place < k + 64)
    return rows[keep], columns[keep], worst


def renumbered(alive: Mask) -> Callable[[RowNumbers], RowNumbers]:
    """A function from places to row numbers, counted over the rows that are there."""
    if alive.all():
        return lambda places: places
    numbers = np.cumsum(alive) - 1
    return lambda places: np.asarray(numbers[places], np.int64)
