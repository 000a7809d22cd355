"""A compressed scan of a memory: byte products that never leave the registers, and what matters in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.core.kernels.bits import lowest_bit
from isthmus.core.kernels.llvm import TILE_COLUMNS, TILE_ROWS
from isthmus.core.kernels.tiles import int8_tile

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "add_rows", "pack", "pair_products", "scan_tile", "sort_hits"]

_LANE = 4
"""Bytes that are multiplied together; a tile takes two such groups at a time."""


def pack(codes: NDArray[Any], rows: int) -> NDArray[np.int32]:
    """(n, k) bytes as (n / rows, k / 4, rows) lanes, filled up with zeros; k to a multiple of eight."""
    n, k = codes.shape
    whole = np.zeros((-(-n // rows) * rows, -(-k // (2 * _LANE)) * 2 * _LANE), np.int8)
    whole[:n, :k] = codes.view(np.int8)
    lanes = whole.view(np.int32).reshape(len(whole) // rows, rows, -1)
    return np.ascontiguousarray(lanes.transpose(0, 2, 1))


@njit(nogil=True, cache=True)
def scan_tile(
    query_panels: NDArray[np.int32],
    scales: NDArray[np.float32],
    zeros: NDArray[np.int32],
    tile: NDArray[np.int32],
    low: int,
    n: int,
    scale: float,
    row_residual: NDArray[np.float32],
    query_error: NDArray[np.float32],
    margin: NDArray[np.float32],
    best: NDArray[np.float32],
    hits: Any,
    count: int,
) -> int:
    """Hits of byte queries in a tile of byte rows: scores within the margin of the query's best, raised on the way.

    Args:
        query_panels: (q / TILE_ROWS, groups, TILE_ROWS) packed panels of the queries.
        scales: (q,) quantisation scales of the queries.
        zeros: (q,) what its product with a row of zeros gives.
        tile: (m / TILE_COLUMNS, groups, TILE_COLUMNS) packed panels of the rows.
        low: First row of the tile in its chunk.
        n: Rows of the tile.
        scale: Quantisation scale of the rows.
        row_residual: (chunk,) by how much more the sketch misses of a row.
        query_error: (q,) what the sketch may miss of a query's scores.
        margin: (q,) below the best at which rows stop to matter.
        best: (q,) largest score that is sure, raised in place.
        hits: Queries, rows and scores, three arrays of which `count` entries are filled.
        count: See there.

    Returns:
        Entries that are filled now, or -1 where the arrays are too short.
    """
    queries, rows, scores = hits
    groups = query_panels.shape[1]
    a_panel, b_panel = query_panels.reshape(-1), tile.reshape(-1)
    q = len(scales)
    floors = np.full(query_panels.shape[0] * TILE_ROWS, 2147483647, np.int32)
    for i in range(q):
        floors[i] = _floor(best[i] - margin[i], scales[i] * scale, zeros[i])
    out = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
    for j in range(tile.shape[0]):
        # Room for the case that every product of this column of tiles is a hit, so that none has to look.
        if count + TILE_ROWS * TILE_COLUMNS * query_panels.shape[0] > len(rows):
            return -1
        for i in range(query_panels.shape[0]):
            hit_bits = int8_tile(
                b_panel, j * groups * TILE_COLUMNS, a_panel, i * groups * TILE_ROWS, groups, floors, i * TILE_ROWS, out
            )
            # One bit a product: only what exceeds its floor leaves the registers, a few of each thousand.
            while hit_bits != 0:
                bit = lowest_bit(hit_bits)
                hit_bits &= hit_bits - 1
                query, row = i * TILE_ROWS + bit // TILE_COLUMNS, j * TILE_COLUMNS + bit % TILE_COLUMNS
                if row >= n or out[bit] <= floors[query]:
                    continue
                unit = scales[query] * scale
                score = (out[bit] - zeros[query]) * unit
                queries[count], rows[count], scores[count] = query, low + row, score
                count += 1
                # A row may owe some of its score to what the sketch misses; what is left is sure, and raises the
                # floor for all rows behind it.
                sure = score - query_error[query] * row_residual[low + row]
                if sure > best[query]:
                    best[query] = sure
                    floors[query] = _floor(sure - margin[query], unit, zeros[query])
    return count


@njit(nogil=True, cache=True)
def _floor(floor: float, unit: float, zero: int) -> int:
    """The largest integer product that stays below a floor."""
    lowest = math.ceil(floor / unit) - 1.0 + zero
    return int(min(max(lowest, -2147483648.0), 2147483647.0))


@njit(nogil=True, cache=True)
def sort_hits(hits: Any, count: int, floors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hits that reach the (q,) floors of their queries: (q + 1,) starts of each query's, and their rows."""
    queries, rows, scores = hits
    starts = np.zeros(len(floors) + 1, np.int64)
    for at in range(count):
        if scores[at] >= floors[queries[at]]:
            starts[queries[at] + 1] += 1
    for i in range(len(floors)):
        starts[i + 1] += starts[i]
    place = starts[:-1].copy()
    columns = np.empty(starts[-1], np.int64)
    for at in range(count):
        query = queries[at]
        if scores[at] >= floors[query]:
            columns[place[query]] = rows[at]
            place[query] += 1
    return starts, columns


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def pair_products(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    starts: NDArray[np.int64],
    columns: NDArray[np.int64],
    scale: float,
) -> NDArray[np.float32]:
    """(nnz,) products of each query with its rows, times `scale`."""
    out = np.empty(len(columns), np.float32)
    for i in range(len(queries)):
        query = queries[i]
        for at in range(starts[i], starts[i + 1]):
            key = keys[columns[at]]
            total = np.float32(0.0)
            for k in range(len(query)):
                total += query[k] * key[k]
            out[at] = total * np.float32(scale)
    return out


@njit(nogil=True, cache=True, fastmath={"contract"})
def add_rows(
    starts: NDArray[np.int64],
    columns: NDArray[np.int64],
    weights: NDArray[np.float32],
    values: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None:
    """Add to (q, d) sums each query's rows of (m, d) values, times their (nnz,) weights."""
    for i in range(len(sums)):
        total = sums[i]
        for at in range(starts[i], starts[i + 1]):
            weight, value = weights[at], values[columns[at]]
            if weight != 0.0:
                for k in range(len(total)):
                    total[k] += weight * value[k]
