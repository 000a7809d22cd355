"""Retrieval over embeddings too many for a score matrix: blocks of one float32 product, both directions at once.

For every true pair it is counted how many non-relevant items score at least as high; rows are sorted only for items
with many pairs. Float32 products give equal vectors different last bits, depending on where in a block they lie, so a
product alone would break ties at random. True pairs are therefore scored in float64, an item within rounding
of one is compared in float64 too, and equal embeddings tie on every machine. Where more than one score in 64 is that
close (a collapsed space, coarsely quantised embeddings), those count as ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.metrics.checks import embedding_matrix
from isthmus.metrics.ranks import Ints, Pairs, Ranking, make_pairs, ranking

BLOCK = 1 << 25
"""Scores held at once: 128 MiB of float32."""
TILE = 1 << 18
"""Scores looked at in one step: they stay in a core's cache while several thresholds pass over them."""
FEW = 16
"""Items with at most this many pairs are counted threshold by threshold, others by sorting their row of scores."""
CROWD = 64
"""One score in this many within rounding of a threshold, and those scores are taken as ties."""
_AT_LEAST = 1 << 12
"""No fewer scores than these in a tile are taken as ties unseen."""


def retrieval(query: Any, gallery: Any, positives: Any) -> tuple[Ranking, Ranking]:
    """Rank the true pairs among all scores, in both directions, without ever holding the score matrix.

    Args:
        query: (q, d) embeddings; the score is the inner product, so rows of unit length give cosines.
        gallery: (g, d) embeddings.
        positives: (query rows, gallery rows) of the true pairs, or a list of gallery rows for each query.

    Returns:
        The rankings of gallery items for each query and of queries for each gallery item. They equal those of the exact
        score matrix, a tie ranking behind the items that are not relevant.

    Raises:
        EvaluationError: Shapes that do not fit, NaN or infinity, no pair, or a pair out of range.
    """
    rows, columns = _directions(query, gallery, positives, both=True)
    _shared_pass(rows, columns)
    return rows.ranking(), columns.ranking()


def retrieval_one_way(query: Any, gallery: Any, positives: Any) -> Ranking:
    """The first of the two rankings of `retrieval`, without the work for the other."""
    rows, columns = _directions(query, gallery, positives, both=False)
    _shared_pass(rows, columns)
    return rows.ranking()


def _directions(query: Any, gallery: Any, positives: Any, *, both: bool) -> tuple[_Direction, _Direction]:
    """Both directions of a retrieval, of which the second may be left uncounted."""
    q = embedding_matrix(query, "query")
    g = embedding_matrix(gallery, "gallery", q.shape[1])
    pairs = make_pairs(positives, len(q), len(g))
    return _Direction(q, g, pairs, wanted=True), _Direction(g, q, pairs.swapped(), wanted=both)


def _exact(a: Array, b: Array, rows: Ints, columns: Ints) -> NDArray[np.float64]:
    """Inner products of a[rows] and b[columns] in float64; equal vectors give equal bits."""
    out = np.empty(len(rows))
    step = max(1, (1 << 20) // a.shape[1])
    for i in range(0, len(rows), step):
        part = slice(i, i + step)
        out[part] = (a[rows[part]].astype(np.float64) * b[columns[part]]).sum(axis=1)
    return out


def _product64(a: Array, b: Array) -> NDArray[np.float64]:
    """Inner products of all rows in float64, (len(a), len(b)), converting a part of `b` at a time."""
    left, out = a.astype(np.float64), np.empty((len(a), len(b)))
    for i in range(0, len(b), 8192):
        np.matmul(left, b[i : i + 8192].astype(np.float64).T, out=out[:, i : i + 8192])
    return out


def _rounding(a: Array, b: Array) -> float:
    """How far a float32 inner product may lie from the exact one: rounding errors that add up as a random walk."""
    longest = [float(np.sqrt(np.einsum("nd,nd->n", x, x).max())) for x in (a, b)]
    return float(np.finfo(np.float32).eps) * math.sqrt(a.shape[1]) * longest[0] * longest[1]


@dataclass(frozen=True)
class _Thresholds:
    """The t-th pair of each item: exact score, and the float32 scores surely above and surely below it."""

    exact: NDArray[np.float64]
    upper: Array
    lower: Array
    counts: Ints


class _Direction:
    """One direction: its items, the others that are ranked for them, and the counts of its pairs."""

    def __init__(self, items: Array, others: Array, pairs: Pairs, *, wanted: bool) -> None:
        self.items, self.others, self.pairs = items, others, pairs
        self.margin = _rounding(items, others)
        self.outranking: Ints = np.zeros(len(pairs), dtype=np.int64)
        self.starts: Ints = np.searchsorted(pairs.rows, np.arange(len(items) + 1))
        sizes = np.diff(self.starts)
        self.few = np.flatnonzero((sizes > 0) & (sizes <= FEW)) if wanted else np.empty(0, np.int64)
        self.many = np.flatnonzero(sizes > FEW) if wanted else np.empty(0, np.int64)
        self.rounds = [self._thresholds(t) for t in range(int(sizes[self.few].max()) if len(self.few) else 0)]

    def _thresholds(self, t: int) -> _Thresholds:
        """Thresholds of the t-th pair of the items that have one and have few; infinite elsewhere."""
        items = self.few[np.diff(self.starts)[self.few] > t]
        exact = np.full(len(self.items), np.inf)
        exact[items] = _exact(self.items, self.others, items, self.pairs.columns[self.starts[items] + t])
        upper, lower = (exact + self.margin).astype(np.float32), (exact - self.margin).astype(np.float32)
        return _Thresholds(exact, upper, lower, np.zeros(len(self.items), dtype=np.int64))

    def count_tile(self, tile: Array, axis: int, first_item: int, first_other: int) -> None:
        """Count one tile of scores in which this side's items lie along `axis` and relevant scores are -inf."""
        span = slice(first_item, first_item + tile.shape[axis])
        for each in self.rounds:
            above = tile >= np.expand_dims(each.upper[span], 1 - axis)
            near = tile >= np.expand_dims(each.lower[span], 1 - axis)
            each.counts[span] += np.count_nonzero(above, axis=1 - axis)
            np.logical_xor(near, above, out=near)
            # Far faster than np.nonzero of two dimensions.
            where = np.divmod(np.flatnonzero(near), tile.shape[1])
            items, others = where[axis], where[1 - axis]
            if len(items) <= max(_AT_LEAST, tile.size // CROWD):
                scores = _exact(self.items, self.others, items + first_item, others + first_other)
                items = items[scores >= each.exact[items + first_item]]
            each.counts[span] += np.bincount(items, minlength=tile.shape[axis])

    def collect(self) -> None:
        """Hand the counts of the thresholds to the pairs they belong to."""
        for t, each in enumerate(self.rounds):
            items = self.few[np.diff(self.starts)[self.few] > t]
            self.outranking[self.starts[items] + t] = each.counts[items]

    def count_many(self) -> None:
        """Count the items that have many pairs, from a float64 product and one sorted row for each."""
        margin = self.margin * float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)
        step = max(1, BLOCK // 2 // len(self.others))
        for i in range(0, len(self.many), step):
            block = self.many[i : i + step]
            for item, row in zip(block, _product64(self.items[block], self.others), strict=True):
                span = slice(self.starts[item], self.starts[item + 1])
                relevant = self.pairs.columns[span]
                reached = row[relevant] - margin
                row[relevant] = -np.inf
                row.sort()
                self.outranking[span] = len(row) - np.searchsorted(row, reached, side="left")

    def ranking(self) -> Ranking:
        """Count the items with many pairs too, and turn all counts into ranks."""
        self.count_many()
        return ranking(self.pairs.rows, self.outranking, *self.pairs.shape)


def _shared_pass(rows: _Direction, columns: _Direction) -> None:
    """Go once through the product and count, for both sides, the items that have few pairs."""
    if not rows.rounds and not columns.rounds:
        return
    for first, block in _blocks(rows):
        height = max(1, TILE // block.shape[1])
        for i in range(0, len(block), height):
            tile = block[i : i + height]
            rows.count_tile(tile, 0, first + i, 0)
            columns.count_tile(tile, 1, 0, first + i)
    rows.collect()
    columns.collect()


def _blocks(rows: _Direction) -> Iterator[tuple[int, Array]]:
    """Blocks of the score matrix with their first row; relevant scores are -inf, so that they never outrank."""
    width = len(rows.others)
    height = min(len(rows.items), max(1, BLOCK // width))
    buffer = np.empty((height, width), dtype=np.float32)
    for first in range(0, len(rows.items), height):
        part = rows.items[first : first + height]
        block = np.matmul(part, rows.others.T, out=buffer[: len(part)])
        span = slice(rows.starts[first], rows.starts[first + len(part)])
        block[rows.pairs.rows[span] - first, rows.pairs.columns[span]] = -np.inf
        yield first, block
