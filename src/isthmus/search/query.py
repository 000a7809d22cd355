"""Several query items at once: a weighted sum of unit vectors, of which some may be subtracted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.core.geometry import Array, normalize
from isthmus.errors import ConfigError
from isthmus.metrics.checks import embedding_matrix

CANCELLED = 1e-3
"""Below this length of the sum, what is left of the items is rounding and not a direction."""


@dataclass(frozen=True, eq=False)
class QueryItem:
    """Item of a query in the unified space.

    Attributes:
        vector: (d,) its embedding in the unified space, of any length.
        weight: Share in the query; below zero what is like it is ranked lower.
        modality: Its modality, which a centred index needs.
        space: The bridge's space that embedded it, by which a match is explained; empty where that is unknown.
        own: (d,) its row in that space, or None.
    """

    vector: Any
    weight: float = 1.0
    modality: str | None = None
    space: str = ""
    own: Any = None


def combine(items: Sequence[QueryItem]) -> Array:
    """Query made of several items: the sum of their unit vectors times their weights, at unit length, (d,) float32.

    The score of a gallery item is then, up to a factor that is the same for all, the weighted sum of its cosines with
    the items: `QueryItem(sound), QueryItem(night, 0.5), QueryItem(picture, -0.5)` ranks by the cosine with the sound,
    plus half of that with the text, minus half of that with the picture.

    Raises:
        ConfigError: There is no item, a weight is zero or no number, or the items cancel each other.
        EvaluationError: The vectors differ in dimension, or hold NaN.
    """
    if not items:
        raise ConfigError("a query needs an item, got none. Give a text, a file or the id of an item.")
    for item in items:
        if not math.isfinite(item.weight) or item.weight == 0:
            raise ConfigError(f"the weight of a query item is {item.weight}, expected a number other than 0.")
    vectors = normalize(embedding_matrix(_stack(items), "queries"))
    total = np.einsum("n,nd->d", np.asarray([item.weight for item in items], np.float64), vectors.astype(np.float64))
    if np.linalg.norm(total) < CANCELLED * sum(abs(item.weight) for item in items):
        raise ConfigError("the items of the query cancel each other: nothing is left to search for. Change a weight.")
    return normalize(np.asarray(total, np.float32))


def _stack(items: Sequence[QueryItem]) -> Array:
    """Vectors of a query's items, (n, d), which must be of one dimension."""
    vectors = [np.asarray(item.vector, np.float32).reshape(-1) for item in items]
    if len({len(vector) for vector in vectors}) > 1:
        sizes = ", ".join(str(len(vector)) for vector in vectors)
        raise ConfigError(f"the items of the query have {sizes} dimensions, expected one unified space.")
    return np.stack(vectors)
