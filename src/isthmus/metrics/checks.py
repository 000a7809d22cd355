"""Checks at the door of the metrics: shapes, finite numbers and something to measure, with one-line faults."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.arrays import to_numpy
from isthmus.errors import EvaluationError


def scores_matrix(scores: Any, name: str = "scores") -> NDArray[Any]:
    """Return `scores` as a 2-d floating array without NaN; infinities are allowed, as masks.

    Raises:
        EvaluationError: Not two-dimensional, not numbers, or NaN at a named row and column.
    """
    array = to_numpy(scores)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise EvaluationError(f"{name} must be a 2-d array of numbers, got shape {array.shape} of {array.dtype}.")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if np.isnan(array).any():
        row, column = np.argwhere(np.isnan(array))[0]
        raise EvaluationError(
            f"{name} hold NaN at row {row}, column {column}. Expected numbers; check the embeddings behind them."
        )
    return array


def vector(
    values: Any, name: str, *, size: int | None = None, where: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return `values` as a non-empty 1-d float64 array of `size` entries where given, without NaN (`where` it matters).

    Raises:
        EvaluationError: Empty, of another shape, or NaN at a named entry.
    """
    array = np.asarray(to_numpy(values), dtype=np.float64)
    if array.ndim != 1 or (size is not None and len(array) != size):
        expected = "(n,)" if size is None else f"({size},)"
        raise EvaluationError(f"{name} must have shape {expected}, got {array.shape}.")
    if not len(array):
        raise EvaluationError(f"{name} is empty; there is nothing to measure.")
    bad = np.flatnonzero(np.isnan(array) if where is None else np.isnan(array) & where)
    if len(bad):
        raise EvaluationError(f"{name} holds NaN at entry {int(bad[0])}. Expected numbers.")
    return array


def mask_matrix(mask: Any, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """Return `mask` as a boolean array of `shape`; 0/1 integers are accepted.

    Raises:
        EvaluationError: Another shape, or values other than true and false.
    """
    array = to_numpy(mask)
    if array.shape != shape:
        raise EvaluationError(f"{name} has shape {array.shape}, expected {shape}, that of the scores.")
    if array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        raise EvaluationError(f"{name} must be true or false (1 or 0) everywhere, got {array.dtype} with other values.")
    return array.astype(bool)


def embedding_matrix(x: Any, name: str, dim: int | None = None) -> NDArray[np.float32]:
    """Return `x` as (n, d) float32 with finite entries, n at least 1.

    Raises:
        EvaluationError: Another shape or dimension, empty, or a non-finite entry in a named row.
    """
    array = to_numpy(x)
    if array.ndim != 2 or not array.shape[0] or not array.shape[1] or array.dtype.kind not in "fiu":
        raise EvaluationError(
            f"{name} must be a non-empty (n, d) array of numbers, got shape {array.shape} of {array.dtype}."
        )
    if dim is not None and array.shape[1] != dim:
        raise EvaluationError(f"{name} has {array.shape[1]} dimensions, expected {dim}, those of the other side.")
    array = np.ascontiguousarray(array, dtype=np.float32)
    # One row's sum is finite exactly when its entries are, for anything near unit length, and costs no (n, d) mask.
    sums = array.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise EvaluationError(f"{name} holds NaN or infinity in row {int(np.flatnonzero(~np.isfinite(sums))[0])}.")
    return array
