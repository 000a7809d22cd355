"""Bootstrap intervals of means, seeded, for any number of figures over the same items at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.runtime import numpy_generator
from isthmus.errors import EvaluationError


def bootstrap_means(values: NDArray[np.float64], *, seed: int = 0, n: int = 1000) -> NDArray[np.float64]:
    """Means of `n` resamples with replacement of the rows of (items, figures): (n, figures).

    A resample draws how often each item occurs instead of listing the items, so memory does not grow with `n`.
    """
    rng = numpy_generator(seed)
    size = len(values)
    out = np.empty((n, values.shape[1]))
    for i in range(n):
        out[i] = np.bincount(rng.integers(0, size, size), minlength=size) @ values
    return out / size


def bootstrap_ci(values: Any, seed: int = 0, n: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron, 1979).

    Args:
        values: (items,) numbers, one an item.
        seed: Equal seeds give equal intervals.
        n: Resamples.
        level: Coverage, between 0 and 1.

    Raises:
        EvaluationError: No values, or `n` or `level` out of range.
    """
    return bootstrap_intervals({"value": np.asarray(values, dtype=np.float64)}, seed=seed, n=n, level=level)["value"]


def bootstrap_intervals(
    columns: Mapping[str, NDArray[np.float64]], *, seed: int = 0, n: int = 1000, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means of several figures over the same items, from the same resamples.

    Raises:
        EvaluationError: No values, columns of unequal length, or `n` or `level` out of range.
    """
    if n < 1 or not 0.0 < level < 1.0:
        raise EvaluationError(f"a bootstrap needs at least one resample and a level in (0, 1), got {n} and {level}.")
    if not columns or len({np.shape(each) for each in columns.values()}) != 1:
        raise EvaluationError("a bootstrap needs figures over the same items, one value an item.")
    stacked = np.stack([np.asarray(each, dtype=np.float64) for each in columns.values()], axis=1)
    if not len(stacked) or np.isnan(stacked).any():
        raise EvaluationError("a bootstrap needs at least one value and no NaN.")
    tails = (1.0 - level) / 2.0
    low, high = np.quantile(bootstrap_means(stacked, seed=seed, n=n), (tails, 1.0 - tails), axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(columns)}
