"""Float matrices as packed panels of 16-bit integers: how the operands of `tiles.int16_tile` are laid out.

A quantisation scale is what one of the integers stands for. Rows are packed for products along their width, pairs of
rows for products along their number, as of values with their weights. The more products a 32-bit sum takes, the fewer
bits an operand may have (`highest`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.bits import bits_of_float, float_of_bits
from isthmus.core.kernels.llvm import TILE_COLUMNS, TILE_ROWS

__all__ = [
    "TILE_COLUMNS",
    "TILE_ROWS",
    "exponential",
    "filled",
    "highest",
    "largest",
    "nearest",
    "pack_pairs",
    "pack_rows",
    "pairs_room",
    "rows_room",
]

_ROUND = np.float32(12582912.0)
"""1.5 * 2**23: added to a float32, it leaves the nearest whole number in the lowest bits."""
_ROUND_BITS = np.int32(0x4B400000)
_SMALLEST = np.float32(1e-30)


def highest(inner: int) -> int:
    """The largest integer of which `inner` products with such sum to less than 2**31."""
    return min(32767, math.isqrt((2**31 - 1) // max(1, inner)))


def rows_room(n: int, d: int, rows: int) -> NDArray[np.int32]:
    """Zeros for `pack_rows` of an (n, d) matrix."""
    return np.zeros((-(-n // rows), -(-d // 2), rows), np.int32)


def filled(n: int, multiple: int) -> int:
    """The next multiple."""
    return -(-n // multiple) * multiple


def pairs_room(n: int, d: int) -> NDArray[np.int32]:
    """Zeros for `pack_pairs` of an (n, d) matrix."""
    return np.zeros((-(-d // TILE_COLUMNS), -(-n // 2), TILE_COLUMNS), np.int32)


@njit(nogil=True, cache=True, inline="always")
def nearest(x: np.float32) -> np.int32:
    """The whole number nearest to a float of less than four millions."""
    return np.int32(bits_of_float(x + _ROUND) - _ROUND_BITS)


@njit(nogil=True, cache=True)
def largest(x: NDArray[np.float32], mean: NDArray[np.float32]) -> float:
    """The largest |x - mean| of a (n, d) matrix."""
    highest_seen = _SMALLEST
    for i in range(len(x)):
        row = x[i]
        for k in range(len(row)):
            highest_seen = max(highest_seen, abs(row[k] - mean[k]))
    return highest_seen


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "nsz"})
def pack_rows(
    x: NDArray[np.float32],
    mean: NDArray[np.float32],
    high: int,
    common: float,
    units: NDArray[np.float32],
    out: NDArray[np.int32],
) -> None:
    """Pack (n, d) rows less the mean, each by a unit of its own, or all by one.

    Args:
        x: The rows.
        mean: (d,).
        high: The largest integer.
        common: The one unit, or 0 for one a row.
        units: (n,) receives the units.
        out: From `rows_room`: lanes of two neighbours of a row, (n / r, d / 2, r).
    """
    r = out.shape[2]
    d = x.shape[1]
    flat = out.reshape(-1)
    for i in range(len(x)):
        row = x[i]
        unit = np.float32(common)
        if common == 0.0:
            top = _SMALLEST
            for k in range(d):
                top = max(top, abs(row[k] - mean[k]))
            unit = top / np.float32(high)
        units[i] = unit
        inverse = np.float32(1.0) / unit
        at = i // r * out.shape[1] * r + i % r
        for g in range(d // 2):
            low = nearest((row[2 * g] - mean[2 * g]) * inverse)
            upper = nearest((row[2 * g + 1] - mean[2 * g + 1]) * inverse)
            flat[at + g * r] = (low & np.int32(0xFFFF)) | (upper << np.int32(16))
        if d % 2:
            flat[at + d // 2 * r] = nearest((row[d - 1] - mean[d - 1]) * inverse) & np.int32(0xFFFF)


@njit(nogil=True, cache=True, fastmath={"contract", "nnan", "nsz"})
def pack_pairs(
    x: NDArray[np.float32], mean: NDArray[np.float32], high: int, units: NDArray[np.float32], out: NDArray[np.int32]
) -> None:
    """Pack (n, d) rows less the mean, each column by a unit of its own.

    Args:
        x: The rows.
        mean: (d,).
        high: The largest integer.
        units: (d,) receives the units.
        out: From `pairs_room`: lanes of two rows and one column, (d / 16, n / 2, 16).
    """
    n, d = x.shape
    units[:] = _SMALLEST
    for i in range(n):
        row = x[i]
        for k in range(d):
            units[k] = max(units[k], abs(row[k] - mean[k]))
    inverse = np.float32(high) / units
    units /= np.float32(high)
    flat = out.reshape(-1)
    lanes = np.zeros(out.shape[0] * TILE_COLUMNS, np.int32)
    for g in range((n + 1) // 2):
        first = x[2 * g]
        if 2 * g + 1 < n:
            second = x[2 * g + 1]
            for k in range(d):
                upper = nearest((second[k] - mean[k]) * inverse[k]) << np.int32(16)
                lanes[k] = upper | (nearest((first[k] - mean[k]) * inverse[k]) & np.int32(0xFFFF))
        else:
            for k in range(d):
                lanes[k] = nearest((first[k] - mean[k]) * inverse[k]) & np.int32(0xFFFF)
        for t in range(len(lanes) // TILE_COLUMNS):
            at = (t * out.shape[1] + g) * TILE_COLUMNS
            for c in range(TILE_COLUMNS):
                flat[at + c] = lanes[t * TILE_COLUMNS + c]


@njit(nogil=True, cache=True, inline="always")
def exponential(x: np.float32) -> np.float32:
    """exp(x) within a hundred-thousandth of it for x of at most 80, next to nothing for x of less than -86."""
    x = max(x * np.float32(1.4426950408889634), np.float32(-125.0))
    whole = nearest(x)
    f = x - np.float32(whole)
    p = np.float32(1.3333558146e-3)
    p = p * f + np.float32(9.6181291076e-3)
    p = p * f + np.float32(5.5504108665e-2)
    p = p * f + np.float32(2.4022650696e-1)
    p = p * f + np.float32(6.9314718056e-1)
    p = p * f + np.float32(1.0)
    return float_of_bits(np.int32(bits_of_float(p) + np.int32(whole << np.int32(23))))
