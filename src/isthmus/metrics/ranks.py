"""From how many items outrank each true pair to recall, average precision and median rank.

A rank counts the non-relevant items that score at least as high as the relevant one (a tie ranks behind them) and the
relevant items before it. Which of two tied relevant items comes first changes no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import EvaluationError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Distinct true pairs, sorted by query and then gallery row.

    Attributes:
        rows: (p,) int64 query rows.
        columns: (p,) int64 gallery rows.
        shape: Number of queries and of gallery items.
    """

    rows: Ints
    columns: Ints
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def swapped(self) -> Pairs:
        """The same pairs seen from the gallery; entry i is this object's entry `by_column()[i]`."""
        order = self.by_column()
        return Pairs(self.columns[order], self.rows[order], (self.shape[1], self.shape[0]))

    def by_column(self) -> Ints:
        """The order that sorts the pairs by gallery row and then query row."""
        return np.lexsort((self.rows, self.columns))


def make_pairs(positives: Any, n_query: int, n_gallery: int) -> Pairs:
    """Sort and deduplicate true pairs.

    Args:
        positives: A tuple (query rows, gallery rows) of equally long integer arrays, or a list with one integer array
            of gallery rows for each query.
        n_query: Number of queries.
        n_gallery: Number of gallery items.

    Raises:
        EvaluationError: No pair at all, arrays of other lengths, or a row out of range.
    """
    if isinstance(positives, tuple) and len(positives) == 2:
        rows, columns = (np.asarray(side, dtype=np.int64).ravel() for side in positives)
    else:
        lists = [np.asarray(each, dtype=np.int64).ravel() for each in positives]
        if len(lists) != n_query:
            raise EvaluationError(f"positives list {len(lists)} queries, expected {n_query}, one entry for each query.")
        rows = np.repeat(np.arange(n_query, dtype=np.int64), [len(each) for each in lists])
        columns = np.concatenate([*lists, np.empty(0, np.int64)])
    if len(rows) != len(columns):
        raise EvaluationError(f"pairs name {len(rows)} query rows and {len(columns)} gallery rows, expected as many.")
    if not len(rows):
        raise EvaluationError("there is no pair of a query and a gallery item; there is nothing to measure.")
    for side, values, size in (("query", rows, n_query), ("gallery", columns, n_gallery)):
        bad = np.flatnonzero((values < 0) | (values >= size))
        if len(bad):
            raise EvaluationError(
                f"pair {int(bad[0])} names {side} row {int(values[bad[0]])}, expected 0 to {size - 1} "
                f"({len(bad):,} pairs are out of range)."
            )
    keys = np.unique(rows * n_gallery + columns)
    return Pairs(keys // n_gallery, keys % n_gallery, (n_query, n_gallery))


@dataclass(frozen=True)
class Ranking:
    """Ranking of one direction of retrieval, query by query, for the queries that have a pair.

    Attributes:
        rows: (n,) query rows, ascending.
        best: (n,) rank of the best-ranked relevant item, from 1.
        average_precision: (n,) float64.
        positives: (n,) number of relevant items.
        n_candidates: Number of items that were ranked for each query.
        n_without_pairs: Queries that have no pair; they enter no average.
    """

    rows: Ints
    best: Ints
    average_precision: NDArray[np.float64]
    positives: Ints
    n_candidates: int
    n_without_pairs: int

    def figures(self, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        """Any-hit recall at each k, mean average precision and median rank; fractions are 0 to 1."""
        recalls = {f"r@{k}": float(np.mean(self.best <= k)) for k in ks}
        return {**recalls, "map": float(self.average_precision.mean()), "median_rank": float(np.median(self.best))}

    def per_query(self, ks: Sequence[int] = (1, 5, 10)) -> dict[str, NDArray[np.float64]]:
        """The values whose means are the figures: (n,) for each `r@k` and `map`."""
        hits = {f"r@{k}": (self.best <= k).astype(np.float64) for k in ks}
        return {**hits, "map": self.average_precision}


def ranking(rows: Ints, outranking: Ints, n_queries: int, n_candidates: int) -> Ranking:
    """Turn counts into ranks.

    Args:
        rows: (p,) query row of each true pair, ascending.
        outranking: (p,) number of non-relevant items that score at least as high as the pair.
        n_queries: Queries in all, with and without pairs.
        n_candidates: Items ranked for each query.
    """
    order = np.lexsort((outranking, rows))
    rows, outranking = rows[order], outranking[order]
    queries, starts, sizes = np.unique(rows, return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(starts, sizes) + 1  # among the relevant items, from 1
    ranks = place + outranking
    precision = np.add.reduceat(place / ranks, starts) / sizes
    return Ranking(queries, ranks[starts], precision, sizes, n_candidates, n_queries - len(queries))
