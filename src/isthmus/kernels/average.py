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

from isthmus.kernels.products import FEW, MANY, bits_of_float, float_of_bits, some_words_tile, word_tile

__all__ = ["BLOCK", "FEW", "MANY", "ROWS", "absorb", "highest_key", "make_scratch", "pack_pairs", "pack_rows"]

ROWS = 512
"""Memory rows that meet a block of queries at a time."""
BLOCK = 64
"""Queries of a block."""
_HIGHEST_VALUE = 1023
_HIGHEST_WEIGHT = 32767.0
_MOST_WEIGHT = 1048576.0
"""Sum of the weights of a query at most, so that their products with values stay below 2**31."""
_LIGHTEST = -11.0
"""Logits below the largest at which a weight, 15 bits of the largest's, rounds to nothing."""


def highest_key(dim: int) -> int:
    """The largest integer of a key or query of that width whose products stay in 32 bits."""
    return min(32767, math.isqrt((2**31 - 1) // max(1, dim)))


@njit(nogil=True, cache=True)
def pack_rows(
    x: NDArray[np.float32], mean: NDArray[np.float32], units: NDArray[np.float32], out: NDArray[np.int16]
) -> None:
    """(n, d) rows less the mean, by their (n,) units, as (n / r, d / 2, r) lanes: `out` is (n / r, d / 2, r, 2)."""
    width = 2 * out.shape[2]
    block = out.shape[1] * width
    flat = out.reshape(-1)
    for i in range(len(x)):
        inverse = np.float32(1.0) / units[i]
        at = i // out.shape[2] * block + i % out.shape[2] * 2
        row = x[i]
        for k in range(0, len(row) - 1, 2):
            flat[at] = np.int16(np.rint((row[k] - mean[k]) * inverse))
            flat[at + 1] = np.int16(np.rint((row[k + 1] - mean[k + 1]) * inverse))
            at += width
        if len(row) % 2:
            flat[at] = np.int16(np.rint((row[-1] - mean[-1]) * inverse))


@njit(nogil=True, cache=True)
def pack_pairs(
    x: NDArray[np.float32], mean: NDArray[np.float32], units: NDArray[np.float32], out: NDArray[np.int16]
) -> None:
    """(n, d) values less the mean as lanes of two rows and one column: `out` is (d / 16, n / 2, 16, 2).

    Sets the (d,) units of the columns.
    """
    n, d = x.shape
    units[:] = 1e-30
    for i in range(n):
        row = x[i]
        for k in range(d):
            units[k] = max(units[k], abs(row[k] - mean[k]))
    inverse = np.float32(_HIGHEST_VALUE) / units
    units /= np.float32(_HIGHEST_VALUE)
    flat = out.reshape(-1)
    for i in range(n):
        row = x[i]
        for low in range(0, d, MANY):
            at = (low * out.shape[1] + i // 2 * MANY) * 2 + i % 2
            for k in range(low, min(low + MANY, d)):
                flat[at + 2 * (k - low)] = np.int16(np.rint((row[k] - mean[k]) * inverse[k]))


@njit(nogil=True, cache=True, fastmath={"contract"})
def _exponentials(scores: NDArray[np.int32], unit: np.float32, shift: np.float32, out: NDArray[np.float32]) -> None:
    """exp(scores * unit - shift), nothing below exp(-30), within 3e-6 of it."""
    for j in range(len(scores)):
        x = max((np.float32(scores[j]) * unit - shift) * np.float32(1.4426950408889634), np.float32(-43.0))
        # Adding 1.5 * 2**23 leaves the nearest whole number in the lowest bits.
        high = x + np.float32(12582912.0)
        f = x - (high - np.float32(12582912.0))
        p = np.float32(1.3333558146e-3)
        p = p * f + np.float32(9.6181291076e-3)
        p = p * f + np.float32(5.5504108665e-2)
        p = p * f + np.float32(2.4022650696e-1)
        p = p * f + np.float32(6.9314718056e-1)
        p = p * f + np.float32(1.0)
        out[j] = float_of_bits(np.int32(bits_of_float(p) + np.int32(np.int32(bits_of_float(high) - 0x4B400000) << 23)))


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _weigh(
    weights: NDArray[np.float32], scores: NDArray[np.int32], unit: np.float32, codes: NDArray[np.int16]
) -> tuple[float, float, float]:
    """Round weights of at most one: how many units one is, their sum, and that of their products with the logits."""
    mass = np.float32(0.0)
    for j in range(len(weights)):
        mass += weights[j]
    factor = np.float32(min(_HIGHEST_WEIGHT, _MOST_WEIGHT / max(mass, np.float32(1.0))))
    total, moment = 0, np.float32(0.0)
    for j in range(len(weights)):
        code = np.int32(weights[j] * factor + np.float32(0.5))
        codes[j] = np.int16(code)
        total += code
        moment += np.float32(code) * (np.float32(scores[j]) * unit)
    return factor, total / factor, moment / factor


def make_scratch() -> tuple[NDArray[Any], ...]:
    """Room for a block of queries and some rows: fresh memory at every call would cost as much as the products."""
    return (
        np.empty((BLOCK, ROWS), np.int32),
        np.empty(ROWS, np.float32),
        np.zeros((FEW, ROWS), np.int16),
        np.empty((BLOCK // FEW, ROWS // 2 * FEW), np.int32),
        np.empty((BLOCK // FEW, ROWS // 2), np.int64),
        np.zeros(BLOCK // FEW, np.int64),
        np.ones(BLOCK, np.float32),
        np.empty(FEW * MANY, np.int32),
    )


@njit(nogil=True, cache=True)
def absorb(
    asking: NDArray[np.int32],
    units: NDArray[np.float32],
    state: Any,
    keys: NDArray[np.int32],
    unit: float,
    n: int,
    values: Any,
    scales: Any,
    sums: Any,
    scratch: Any,
) -> None:
    """Add some rows of the memory to the running sums of a block of queries.

    Args:
        asking: (q / 4, d / 2, 4) lanes of the queries.
        units: (q,) what a unit of a query stands for, in logits.
        state: Largest logits, totals and moments, three (q,) float32 that change in place.
        keys: (ROWS / 16, d / 2, 16) lanes of the rows.
        unit: What a unit of them stands for.
        n: Rows that there are; those beyond are filled up.
        values: For each matrix of values its (dv / 16, ROWS / 2, 16) lanes.
        scales: For each (dv,) what a unit of a column stands for.
        sums: For each (q, dv) float32 sums that change in place.
        scratch: What `make_scratch` gives; a thread has its own.
    """
    largest, totals, moments = state
    q, groups = len(units), asking.shape[1]
    few, many = asking.reshape(-1), keys.reshape(-1)
    scores, weights, codes, kept, which, counts, factors, out = scratch
    lanes = codes.view(np.int32)
    for j in range(-(-n // MANY)):
        for i in range(asking.shape[0]):
            at = i * FEW * ROWS + j * MANY
            word_tile(many, j * groups * MANY, few, i * groups * FEW, groups, scores.reshape(-1), at, ROWS)
    for i in range(asking.shape[0]):
        some = False
        for own in range(min(FEW, q - i * FEW)):
            query = i * FEW + own
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
                for s in sums:
                    s[query] *= fade
            codes[own] = 0
            if top - largest[query] > _LIGHTEST:
                some = True
                _exponentials(mine, per, largest[query], weights[:n])
                factor, total, moment = _weigh(weights[:n], mine, per, codes[own, :n])
                factors[query] = factor
                totals[query] += total
                moments[query] += moment
        count = 0
        if some:
            for g in range((n + 1) // 2):
                if lanes[0, g] | lanes[1, g] | lanes[2, g] | lanes[3, g]:
                    which[i, count] = g
                    for own in range(FEW):
                        kept[i, count * FEW + own] = lanes[own, g]
                    count += 1
        counts[i] = count
    for number in range(len(values)):
        _add(values[number], scales[number], sums[number], kept, which, counts, factors, out, q)


@njit(nogil=True, cache=True)
def _add(
    values: NDArray[np.int32],
    scales: NDArray[np.float32],
    sums: NDArray[np.float32],
    kept: NDArray[np.int32],
    which: NDArray[np.int64],
    counts: NDArray[np.int64],
    factors: NDArray[np.float32],
    out: NDArray[np.int32],
    q: int,
) -> None:
    """Add the weighted values, a tile of 4 queries and 16 columns at a time."""
    many, few, numbers = values.reshape(-1), kept.reshape(-1), which.reshape(-1)
    d = len(scales)
    for k in range(values.shape[0]):
        for i in range(-(-q // FEW)):
            if counts[i] == 0:
                continue
            at_few, at_which = i * kept.shape[1], i * which.shape[1]
            some_words_tile(many, k * values.shape[1] * MANY, few, at_few, numbers, at_which, counts[i], out)
            for own in range(min(FEW, q - i * FEW)):
                query = i * FEW + own
                inverse = np.float32(1.0) / factors[query]
                for c in range(min(MANY, d - k * MANY)):
                    column = k * MANY + c
                    sums[query, column] += np.float32(out[own * MANY + c]) * (scales[column] * inverse)
