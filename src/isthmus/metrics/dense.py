"""Retrieval figures of a dense score matrix: any-hit recall, mean average precision, median rank, hits at k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import EvaluationError
from isthmus.metrics.checks import mask_matrix, scores_matrix
from isthmus.metrics.ranks import Ints, ranking


def _outranking(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> Ints:
    """(number of true pairs,) non-relevant items of the row that score at least as high, in row-major order."""
    counts = []
    for row, mask in zip(scores, relevant, strict=True):
        if mask.any():
            others = np.sort(row[~mask])
            counts.append(len(others) - np.searchsorted(others, row[mask], side="left"))
    return np.concatenate([*counts, np.empty(0, np.int64)]).astype(np.int64)


def retrieval_scores(scores: Any, relevant: Any, *, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Retrieval figures of one direction from a dense matrix of scores.

    A tie ranks behind the items that are not relevant, so that constant scores earn nothing. Queries without a relevant
    item enter no average. `r@k` counts a query as found when any relevant item is among its first k; `map` is the mean
    over queries of the mean precision at each relevant item; `median_rank` is that of the best-ranked relevant item.

    Args:
        scores: (q, g) numbers, higher is better.
        relevant: (q, g) booleans.
        ks: The cut-offs of recall.

    Returns:
        {"r@1", ..., "map", "median_rank"}, fractions 0 to 1.

    Raises:
        EvaluationError: Shapes that do not fit, NaN scores, or no relevant item at all.
    """
    matrix = scores_matrix(scores)
    mask = mask_matrix(relevant, matrix.shape, "relevant")
    rows = np.nonzero(mask)[0]
    if not len(rows):
        raise EvaluationError(
            f"none of the {matrix.shape[0]} queries has a relevant item; there is nothing to measure."
        )
    return ranking(rows, _outranking(matrix, mask), *matrix.shape).figures(ks)


def foscttm(scores: Any) -> float:
    """Fraction of samples closer than the true match, averaged over both directions; 0 is perfect and 0.5 is chance.

    Row i and column i are one item. The fraction is taken over the other n - 1 items, and a tie counts as closer
    (Liu et al., "Jointly embedding multiple single-cell omics measurements", 2019).

    Args:
        scores: (n, n) numbers, higher is closer.

    Raises:
        EvaluationError: Not square, fewer than two items, or NaN.
    """
    matrix = scores_matrix(scores)
    n = matrix.shape[0]
    if matrix.shape != (n, n) or n < 2:
        raise EvaluationError(f"foscttm needs a square matrix of at least two items, got shape {matrix.shape}.")
    own = np.diag(matrix)
    closer = (matrix >= own[:, None]).sum() + (matrix >= own[None, :]).sum() - 2 * n
    return float(closer / (2 * n * (n - 1)))
