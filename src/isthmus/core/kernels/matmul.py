"""Products of float matrices in 16-bit integers, a part of the inner dimension at a time."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.tiles import FEW, MANY, add_words_tile

INNER = 1024
"""Inner dimension that is multiplied at a time: the longer, the fewer bits an operand may have."""
_PANEL = 16
"""Blocks of four rows that stay cached while all columns meet them."""


@njit(nogil=True, cache=True)
def multiply(
    a: NDArray[np.int32],
    a_units: NDArray[np.float32],
    b: NDArray[np.int32],
    b_units: NDArray[np.float32],
    first: int,
    last: int,
    out: NDArray[np.float32],
) -> None:
    """Set some rows of `out` to those of a @ b.

    Args:
        a: (parts, n / 4, groups, 4) lanes.
        a_units: (parts, n), n filled up to a multiple of 4.
        b: (parts, m / 16, groups, 16) lanes.
        b_units: (parts, m), m filled up to a multiple of 16.
        first: Block of 4 rows to begin with.
        last: And to end before.
        out: (n, m) float32, both filled up.
    """
    parts, _, groups, _ = a.shape
    flat, width = out.reshape(-1), out.shape[1]
    for low in range(first, last, _PANEL):
        high = min(low + _PANEL, last)
        out[low * FEW : high * FEW] = 0.0
        for part in range(parts):
            few, many = a[part].reshape(-1), b[part].reshape(-1)
            for j in range(b.shape[1]):
                for i in range(low, high):
                    add_words_tile(
                        many, j * groups * MANY, few, i * groups * FEW, groups,
                        a_units[part], i * FEW, b_units[part], j * MANY, flat, i * FEW * width + j * MANY, width,
                    )  # fmt: skip
