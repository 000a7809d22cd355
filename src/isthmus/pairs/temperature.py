"""The softmax temperature of an aggregation: as configured or, under the preset "auto", found on the spaces."""

from __future__ import annotations

import math

import numpy as np

from isthmus.core.geometry import Array
from isthmus.memory import MemoryBank

AUTO_NEIGHBOURS = 3.0
"""Median effective neighbours that the preset "auto" aims at: the middle of what 0.01 gives in CLIP-like spaces."""
AUTO_SAMPLE = 512
"""Queries that the preset "auto" measures on."""


def find_temperature(bank: MemoryBank, queries: Array, neighbours: float = AUTO_NEIGHBOURS) -> float:
    """Bisect for the temperature at which the median query has so many effective neighbours, exp(entropy).

    The papers' 0.01 is CLIP's own logit scale; in a space of another scale it means one neighbour, or hundreds.

    Args:
        bank: The memory.
        queries: (n, dim) unit rows, of which at most `AUTO_SAMPLE`, evenly spaced, are measured on.
        neighbours: Wanted median, above 1.

    Returns:
        A temperature in [0.001, 1].
    """
    sample = queries[np.arange(0, len(queries), max(1, len(queries) // AUTO_SAMPLE))]
    low, high = math.log(0.001), 0.0
    for _ in range(12):
        middle = (low + high) / 2
        _, stats = bank.aggregate_with_stats(sample, temperature=math.exp(middle))
        if float(np.median(stats.effective_neighbours)) < neighbours:
            low = middle
        else:
            high = middle
    return round(math.exp((low + high) / 2), 5)
