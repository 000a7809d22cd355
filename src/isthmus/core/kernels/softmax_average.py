"""The softmax average in 16-bit integers: both products, and between them the exponentials while they are cached.

A processor with AVX2 multiplies 16-bit integers twice as fast as float32. Keys and queries are rounded to as many bits
as 32-bit sums have room for, 11 to 15 of them, which is finer than bfloat16's eight. Weights are relative to the
largest logit of their query so far (online softmax, arXiv 1805.02867) and rounded to 15 bits; those that round to
nothing take no part in the second product.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.llvm import TILE_COLUMNS, TILE_ROWS
from isthmus.core.kernels.packing import exponential, nearest
from isthmus.core.kernels.tiles import add_gathered_int16_tile, int16_tile

ROWS = 512
"""Memory rows that meet a block of queries at a time."""
BLOCK = 64
"""Queries of a block."""
HIGHEST_VALUE = 1023
"""The largest integer of a value."""
_HIGHEST_WEIGHT = 32767.0
_HIGHEST_CODE = np.int32(32767)
_MOST_WEIGHT = 1048576.0
"""Sum of the weights of a query at most, so that their products with values stay below 2**31."""
_LIGHTEST = -11.0
"""Logits below the largest at which a weight, 15 bits of the largest's, rounds to nothing."""


@njit(nogil=True, cache=True, fastmath={"contract"})
def _exponentials(scores: NDArray[np.int32], unit: np.float32, shift: np.float32, out: NDArray[np.float32]) -> None:
    """exp(scores * unit - shift)."""
    for j in range(len(scores)):
        out[j] = exponential(np.float32(scores[j]) * unit - shift)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def round_weights(weights: NDArray[np.float32], top: float, codes: NDArray[np.int16]) -> tuple[float, int]:
    """Round non-negative weights of at most `top` to integers: how many stand for one, and their sum.

    Their sum stays below 2**20, so that their products with values of 11 bits stay below 2**31.
    """
    mass = np.float32(0.0)
    for j in range(len(weights)):
        mass += weights[j]
    factor = np.float32(min(_HIGHEST_WEIGHT / top, _MOST_WEIGHT / max(mass, np.float32(1e-30))))
    total = 0
    for j in range(len(weights)):
        # A logit of hundreds has an ulp of 3e-5: the heaviest weight may come out above `top` by as much, and one that
        # rounds to 32,768 would be -32,768 in 16 bits.
        code = min(nearest(weights[j] * factor), _HIGHEST_CODE)
        codes[j] = np.int16(code)
        total += code
    return factor, total


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _moment(codes: NDArray[np.int16], scores: NDArray[np.int32]) -> float:
    """Sum of scores times their weights, both as integers."""
    total = np.float32(0.0)
    for j in range(len(codes)):
        total += np.float32(codes[j]) * np.float32(scores[j])
    return total


@njit(nogil=True, cache=True)
def _gather(lanes: NDArray[np.int32], n: int, panel: NDArray[np.int32], which: NDArray[np.int64]) -> int:
    """Groups that hold anything among the first n of (4, groups) lanes: lanes, numbers, and how many."""
    count = 0
    for g in range(n):
        # Where one near row outweighs the rest, most groups are zeros of all four queries: leaving them out is what
        # makes the second product cheap.
        if lanes[0, g] | lanes[1, g] | lanes[2, g] | lanes[3, g]:
            which[count] = g
            for own in range(TILE_ROWS):
                panel[count * TILE_ROWS + own] = lanes[own, g]
            count += 1
    return count


def make_scratch() -> tuple[NDArray[Any], ...]:
    """Room for a block of queries and some rows: fresh memory at every call would cost as much as the products."""
    return (
        np.empty((BLOCK, ROWS), np.int32),
        np.empty(ROWS, np.float32),
        np.zeros((TILE_ROWS, ROWS), np.int16),
        np.empty((BLOCK // TILE_ROWS, ROWS // 2 * TILE_ROWS), np.int32),
        np.empty((BLOCK // TILE_ROWS, ROWS // 2), np.int64),
        np.zeros(BLOCK // TILE_ROWS, np.int64),
        np.ones(BLOCK, np.float32),
        np.empty(ROWS, np.int16),
        np.ones(BLOCK, np.float32),
    )


@njit(nogil=True, cache=True)
def _score(query_panels: NDArray[np.int32], keys: NDArray[np.int32], n: int, scores: NDArray[np.int32]) -> None:
    """Products of a block of queries with the first n rows of the memory, tile by tile, into (q, ROWS) scores."""
    groups = query_panels.shape[1]
    a_panel, b_panel, out = query_panels.reshape(-1), keys.reshape(-1), scores.reshape(-1)
    for j in range(-(-n // TILE_COLUMNS)):
        for i in range(query_panels.shape[0]):
            at = i * TILE_ROWS * ROWS + j * TILE_COLUMNS
            int16_tile(b_panel, j * groups * TILE_COLUMNS, a_panel, i * groups * TILE_ROWS, groups, out, at, ROWS)


@njit(nogil=True, cache=True)
def absorb(
    query_panels: NDArray[np.int32],
    units: NDArray[np.float32],
    state: Any,
    keys: NDArray[np.int32],
    unit: float,
    n: int,
    scratch: Any,
) -> None:
    """Softmax weights of some rows of the memory for a block of queries, as int16; `add_values` then adds the values.

    Args:
        query_panels: (q / TILE_ROWS, d / 2, TILE_ROWS) packed panels of the queries.
        units: (q,) quantisation scales of the queries, in logits.
        state: Largest logits, totals and moments, three (q,) float32 that change in place.
        keys: (ROWS / TILE_COLUMNS, d / 2, TILE_COLUMNS) packed panels of the rows.
        unit: Quantisation scale of the rows.
        n: Rows that there are; those beyond are filled up.
        scratch: What `make_scratch` gives; a thread has its own, in which the weights are left.
    """
    largest, totals, moments = state
    q = len(units)
    scores, weights, codes, panels, which, counts, inverses, _, fades = scratch
    lanes = codes.view(np.int32)
    # All products first: the largest of a query decides on what scale its weights are rounded.
    _score(query_panels, keys, n, scores)
    # Online softmax: sums are relative to the largest logit so far. A larger one fades what was summed before; the sums
    # of values are faded by `add_values`, for they are as many as there are matrices of values.
    fades[:] = 1.0
    for i in range(query_panels.shape[0]):
        some = False
        for own in range(min(TILE_ROWS, q - i * TILE_ROWS)):
            query = i * TILE_ROWS + own
            mine = scores[query, :n]
            per = units[query] * np.float32(unit)
            highest = mine[0]
            for j in range(n):
                highest = max(highest, mine[j])
            top = np.float32(highest) * per
            if top > largest[query]:
                fade = np.float32(math.exp(largest[query] - top))
                largest[query] = top
                totals[query] *= fade
                moments[query] *= fade
                fades[query] = fade
            # No row of a block whose best is this light survives rounding to 15 bits of the largest weight.
            codes[own] = 0
            if top - largest[query] > _LIGHTEST:
                some = True
                _exponentials(mine, per, largest[query], weights[:n])
                factor, total = round_weights(weights[:n], 1.0, codes[own, :n])
                inverses[query] = np.float32(1.0) / factor
                totals[query] += total / factor
                moments[query] += _moment(codes[own, :n], mine) * (per / factor)
        # Most weights round to nothing; only pairs of rows of which one is left take part in the second product.
        counts[i] = _gather(lanes, (n + 1) // 2, panels[i], which[i]) if some else 0


@njit(nogil=True, cache=True)
def add_values(
    values: NDArray[np.int32], scales: NDArray[np.float32], sums: NDArray[np.float32], q: int, scratch: Any
) -> None:
    """Add the values of the rows that `absorb` weighed, a tile of 4 queries and 16 columns at a time.

    Args:
        values: (dv / TILE_COLUMNS, ROWS / 2, TILE_COLUMNS) packed panels.
        scales: (dv,) quantisation scales of the columns.
        sums: (q, dv) float32 that change in place; q is filled up to a multiple of 4, dv to one of 16.
        q: Queries that there are.
        scratch: As `absorb` left it.
    """
    _, _, _, panels, which, counts, inverses, _, fades = scratch
    # What was summed before was relative to a smaller largest logit.
    for i in range(q):
        if fades[i] != 1.0:
            sums[i] *= fades[i]
    b_panel, a_panel, numbers, out = values.reshape(-1), panels.reshape(-1), which.reshape(-1), sums.reshape(-1)
    groups, width = values.shape[1], sums.shape[1]
    for k in range(values.shape[0]):
        for i in range(len(sums) // TILE_ROWS):
            if counts[i]:
                add_gathered_int16_tile(
                    b_panel, k * groups * TILE_COLUMNS, a_panel, i * panels.shape[1],
                    counts[i], numbers, i * which.shape[1], inverses, i * TILE_ROWS, scales, k * TILE_COLUMNS,
                    out, i * TILE_ROWS * width + k * TILE_COLUMNS, width,
                )  # fmt: skip
