"""What a random order earns, in closed form: the row that every table of retrieval figures needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.metrics.ranks import Ints


def _miss(candidates: int, positives: int) -> NDArray[np.float64]:
    """(candidates,) chance that none of the positives is among the first 1, 2, ... of a random order."""
    drawn = np.arange(candidates, dtype=np.float64)
    return np.asarray(np.cumprod(np.maximum(candidates - positives - drawn, 0) / (candidates - drawn)), np.float64)


def _expected_average_precision(candidates: int, positives: int) -> float:
    """Mean average precision of a random order of `candidates` items of which `positives` are relevant."""
    harmonic = float((1.0 / np.arange(1, candidates + 1)).sum())
    if candidates == 1:
        return 1.0
    return (harmonic + (positives - 1) / (candidates - 1) * (candidates - harmonic)) / candidates


def chance_figures(positives: Ints, candidates: int, *, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Expected retrieval figures of a random order, for queries with these numbers of relevant items.

    Args:
        positives: (n,) number of relevant items of each query, each at least 1.
        candidates: Number of items ranked for each query.
        ks: The cut-offs of recall.

    Returns:
        Recall and mean average precision as expected values; `median_rank` is the smallest rank that half of the
        queries are expected to reach.
    """
    sizes, counts = np.unique(np.asarray(positives), return_counts=True)
    share = counts / counts.sum()
    miss = np.zeros(candidates)
    for size, weight in zip(sizes, share, strict=True):
        miss += weight * _miss(candidates, int(size))
    figures = {f"r@{k}": float(1.0 - miss[min(k, candidates) - 1]) for k in ks}
    expected = [_expected_average_precision(candidates, int(size)) for size in sizes]
    # The last bits of a product of many ratios must not push an exact half to the next rank.
    median = 1 + int(np.argmax(miss <= 0.5 + 1e-9))
    return {**figures, "map": float(share @ expected), "median_rank": float(median)}
