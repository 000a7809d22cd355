"""The similarities of InfoNCE in 16-bit integers: products, exponentials and their sums there, the gradient back.

Between there and back a similarity is kept in 16 bits, a 32,767th of the largest that unit vectors can have: the
exponential of it is off by 3e-4 at a temperature of 0.05.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.packing import exponential, largest_weight, nearest
from isthmus.core.kernels.softmax_average import BLOCK, ROWS, round_weights
from isthmus.core.kernels.tiles import FEW, MANY, add_words_tile, word_tile

HIGHEST_SIMILARITY = 32767


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nnan", "nsz"})
def _exponentiate(
    products: NDArray[np.int32],
    factor: np.float32,
    step: np.float32,
    shift: np.float32,
    similarities: NDArray[np.int16],
    by_column: NDArray[np.float32],
) -> float:
    total = np.float32(0.0)
    for j in range(len(products)):
        similarity = nearest(np.float32(products[j]) * factor)
        similarities[j] = np.int16(similarity)
        e = exponential(np.float32(similarity) * step - shift)
        by_column[j] += e
        total += e
    return total


@njit(nogil=True, cache=True)
def compare(
    asking: NDArray[np.int32],
    units: NDArray[np.float32],
    others: NDArray[np.int32],
    unit: float,
    places: NDArray[np.int64],
    step: float,
    shift: float,
    similarities: NDArray[np.int16],
    by_row: NDArray[np.float32],
    by_column: NDArray[np.float32],
    scratch: Any,
) -> None:
    """Similarities of a block of rows with all others, and sums of their exponentials.

    Args:
        asking: (q / 4, d / 2, 4) lanes of the rows.
        units: (q,) what a unit of a row stands for, in logits.
        others: (chunks, ROWS / 16, d / 2, 16) lanes of the others.
        unit: What a unit of them stands for.
        places: (chunks, 3) first of the others in a chunk, how many, and the batch that they are of.
        step: Logits of one unit of a similarity.
        shift: Subtracted from the logits.
        similarities: (q, others) receives them.
        by_row: (q, batches) receives the sums of exponentials of each row with each batch.
        by_column: (others,) to which those of each of the others with these rows are added.
        scratch: What `average.make_scratch` gives.
    """
    scores = scratch[0]
    flat, few, groups = scores.reshape(-1), asking.reshape(-1), asking.shape[1]
    by_row[:] = 0.0
    for c in range(len(places)):
        start, n, batch = places[c]
        many = others[c].reshape(-1)
        for j in range(-(-n // MANY)):
            for i in range(asking.shape[0]):
                at = i * FEW * ROWS + j * MANY
                word_tile(many, j * groups * MANY, few, i * groups * FEW, groups, flat, at, ROWS)
        for i in range(len(units)):
            factor = np.float32(units[i] * unit / step)
            part = slice(start, start + n)
            by_row[i, batch] += _exponentiate(
                scores[i, :n], factor, np.float32(step), np.float32(shift), similarities[i, part], by_column[part]
            )


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nnan", "nsz"})
def _gradients(
    similarities: NDArray[np.int16],
    step: np.float32,
    shift: np.float32,
    row: np.float32,
    columns: NDArray[np.float32],
    out: NDArray[np.float32],
) -> float:
    """exp(logit - shift) (row + column), and the largest of them."""
    for j in range(len(similarities)):
        out[j] = exponential(np.float32(similarities[j]) * step - shift) * (row + columns[j])
    return largest_weight(out)


@njit(nogil=True, cache=True)
def pull(
    similarities: NDArray[np.int16],
    step: float,
    shift: float,
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    values: NDArray[np.int32],
    scales: NDArray[np.float32],
    places: NDArray[np.int64],
    out: NDArray[np.float32],
    scratch: Any,
) -> None:
    """Add to a block of rows the others, weighted by exp(logit - shift) (rows + columns).

    Args:
        similarities: (q, others), in any order in memory.
        step: Logits of one unit of a similarity.
        shift: Subtracted from the logits.
        rows: (q, batches) inverse sums of each row with each batch.
        columns: (others,) inverse sums of each of the others with the rows' batch.
        values: (chunks, d / 16, ROWS / 2, 16) lanes of the others.
        scales: (chunks, d) their units, d filled up to a multiple of 16.
        places: (chunks, 3) as for `compare`.
        out: (q, d) float32 that changes in place, q filled up to a multiple of 4.
        scratch: What `average.make_scratch` gives.
    """
    tiles, _, codes, kept, _, _, units, line, _ = scratch
    lanes = codes.view(np.int32)
    weights = tiles.reshape(-1)[:ROWS].view(np.float32)
    flat, few, width, q = out.reshape(-1), kept.reshape(-1), out.shape[1], len(similarities)
    blocks, groups = -(-q // FEW), values.shape[2]
    for c in range(len(places)):
        start, n, batch = places[c]
        part = columns[start : start + n]
        for i in range(blocks):
            for own in range(FEW):
                row = i * FEW + own
                codes[own] = 0
                if row < q:
                    mine = similarities[row, start : start + n]
                    for j in range(n):
                        line[j] = mine[j]
                    top = _gradients(line[:n], np.float32(step), np.float32(shift), rows[row, batch], part, weights[:n])
                    factor, _ = round_weights(weights[:n], top, codes[own, :n])
                    units[row] = np.float32(1.0) / factor
            into = kept[i]
            for g in range(ROWS // 2):
                for own in range(FEW):
                    into[g * FEW + own] = lanes[own, g]
        many = values[c].reshape(-1)
        for k in range(values.shape[1]):
            for i in range(blocks):
                add_words_tile(
                    many, k * groups * MANY, few, i * kept.shape[1], (n + 1) // 2,
                    units, i * FEW, scales[c], k * MANY, flat, i * FEW * width + k * MANY, width,
                )  # fmt: skip


__all__ = ["BLOCK", "HIGHEST_SIMILARITY", "ROWS", "compare", "pull"]
