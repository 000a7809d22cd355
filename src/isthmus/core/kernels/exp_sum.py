"""Exponentials and their sums in one pass over float32 logits, as exact as a library's, which makes three passes."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.bits import bits_of_float, float_of_bits
from isthmus.core.kernels.packing import nearest

_LOG2_HIGH, _LOG2_LOW = np.float32(0.693359375), np.float32(-2.1219444e-4)
"""ln 2 in two parts, the first of so few bits that its products with whole numbers are exact."""


@njit(nogil=True, cache=True, fastmath={"contract"})
def _exponentials(row: NDArray[np.float32], shift: np.float32) -> None:
    """Exponentials of a row of logits in place, relative to a shift."""
    for j in range(len(row)):
        x = max(row[j] - shift, np.float32(-87.0))
        whole = nearest(x * np.float32(1.4426950408889634))
        n = np.float32(whole)
        f = (x - n * _LOG2_HIGH) - n * _LOG2_LOW
        # The exponential's series: |f| is at most ln(2) / 2, where the term left out is 5e-9.
        p = np.float32(1.0 / 5040.0)
        p = p * f + np.float32(1.0 / 720.0)
        p = p * f + np.float32(1.0 / 120.0)
        p = p * f + np.float32(1.0 / 24.0)
        p = p * f + np.float32(1.0 / 6.0)
        p = p * f + np.float32(0.5)
        p = p * f + np.float32(1.0)
        p = p * f + np.float32(1.0)
        row[j] = float_of_bits(np.int32(bits_of_float(p) + np.int32(whole << np.int32(23))))


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _sum(row: NDArray[np.float32]) -> float:
    """Sum of a row of float32."""
    total = np.float32(0.0)
    for j in range(len(row)):
        total += row[j]
    return total


@njit(nogil=True, cache=True)
def exponentiate(logits: NDArray[np.float32], shifts: NDArray[np.float32], totals: NDArray[np.float32]) -> None:
    """Put exp(logit - shift) in the place of (q, m) logits of at most 80 beyond their (q,) shifts.

    What would be less than exp(-87) is exp(-87). The sum of each row is added to (q,) totals.
    """
    for i in range(len(logits)):
        _exponentials(logits[i], shifts[i])
        totals[i] += _sum(logits[i])
