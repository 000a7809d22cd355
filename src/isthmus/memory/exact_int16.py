"""The average in 16-bit integers, for processors that multiply these faster than floats.

The loops are in `isthmus.core.kernels.softmax_average`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.threads import blocks_of, threads
from isthmus.memory.exact import Work, empty
from isthmus.memory.matrix import MatrixReader
from isthmus.memory.online_softmax import OnlineSoftmax

_LOOK = 4096
_NONE = -1e30


@dataclass(frozen=True)
class _PackedQueries:
    """A block of queries: their lanes, units, running state, and the rows of the sums that are theirs."""

    lanes: NDArray[np.int32]
    units: NDArray[np.float32]
    state: tuple[NDArray[np.float32], ...]
    sums: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class _PackedRows:
    """Some rows of the memory: lanes and unit of the keys, how many, lanes and units of each matrix of values."""

    keys: NDArray[np.int32]
    unit: float
    n: int
    values: tuple[NDArray[np.int32], ...]
    units: tuple[NDArray[np.float32], ...]


def int16_partial_sums(work: Work, queries: torch.Tensor) -> OnlineSoftmax:
    """Softmax sums as `exact.partial_sums` gives them, with both products in 16-bit integers."""
    from isthmus.core.kernels import packing
    from isthmus.core.kernels.softmax_average import BLOCK, ROWS

    state = empty(work, len(queries), _NONE)
    mean = _mean(work.keys)
    means = [mean if v is None else _mean(v) for v in work.values]
    moment = torch.zeros(len(queries)) if state.moment is None else state.moment
    per_query = (state.shift.numpy(), state.total.numpy(), moment.numpy())
    # Filled up to whole tiles: the loops have no case for a rest.
    rows = packing.filled(len(queries), packing.TILE_ROWS)
    sums = [np.zeros((rows, packing.filled(width, packing.TILE_COLUMNS)), np.float32) for width in work.widths]
    query_blocks = _pack_queries(work, queries.numpy(), per_query, sums, BLOCK)
    with threads(queries.device) as (pool, workers):
        each = pool.map if pool else map
        parts = [query_blocks[part] for part in blocks_of(len(query_blocks), workers)]
        for start, chunk in work.keys.chunks():
            values = [chunk if v is None else v.block(start, start + len(chunk)) for v in work.values]
            lows = range(0, len(chunk), ROWS)
            row_blocks = list(each(partial(_pack_rows, chunk, values, mean, means), lows))
            list(each(partial(_absorb, row_blocks), parts))
    # The keys were packed minus their mean, so that fewer bits are lost; logits get it back, and so do the sums of
    # values, whose columns were centred too.
    offset = (queries @ torch.from_numpy(mean)) / work.temperature
    state.shift.add_(offset)
    if state.moment is not None:
        state.moment.add_(state.total * offset)
    for result, int16_sums, own in zip(state.sums, sums, means, strict=True):
        torch.addr(
            torch.from_numpy(int16_sums)[: len(result), : result.shape[1]],
            state.total,
            torch.from_numpy(own),
            out=result,
        )
    return state


def _pack_queries(
    work: Work, queries: NDArray[np.float32], state: tuple[Any, ...], sums: list[NDArray[np.float32]], size: int
) -> list[_PackedQueries]:
    """Queries packed as 16-bit integers, in blocks of `size`, with the sums that are theirs."""
    from isthmus.core.kernels import packing

    highest = packing.highest(work.keys.dim)
    nothing = np.zeros(queries.shape[1], np.float32)
    blocks = []
    for start in range(0, len(queries), size):
        part = slice(start, min(start + size, len(queries)))
        rows = queries[part]
        lanes, units = packing.rows_room(len(rows), rows.shape[1], packing.TILE_ROWS), np.empty(len(rows), np.float32)
        packing.pack_rows(rows, nothing, highest, 0.0, units, lanes)
        own, whole = tuple(x[part] for x in state), slice(start, start + len(lanes) * packing.TILE_ROWS)
        blocks.append(_PackedQueries(lanes, units / np.float32(work.temperature), own, tuple(s[whole] for s in sums)))
    return blocks


def _pack_rows(
    chunk: torch.Tensor,
    values: list[torch.Tensor],
    mean: NDArray[np.float32],
    means: list[NDArray[np.float32]],
    low: int,
) -> _PackedRows:
    """Pack the rows of a chunk from `low` on."""
    from isthmus.core.kernels import packing
    from isthmus.core.kernels.softmax_average import HIGHEST_VALUE, ROWS

    rows = chunk[low : low + ROWS].numpy()
    highest = packing.highest(rows.shape[1])
    unit = packing.largest(rows, mean) / highest
    lanes = packing.rows_room(len(rows), rows.shape[1], packing.TILE_COLUMNS)
    packing.pack_rows(rows, mean, highest, unit, np.empty(len(rows), np.float32), lanes)
    packed, units = [], []
    for matrix, own in zip(values, means, strict=True):
        some = matrix[low : low + ROWS].numpy()
        pairs = packing.pairs_room(len(some), some.shape[1])
        scales = np.zeros(len(pairs) * packing.TILE_COLUMNS, np.float32)
        packing.pack_pairs(some, own, HIGHEST_VALUE, scales[: some.shape[1]], pairs)
        packed.append(pairs)
        units.append(scales)
    return _PackedRows(lanes, unit, len(rows), tuple(packed), tuple(units))


def _absorb(row_blocks: list[_PackedRows], part: list[_PackedQueries]) -> None:
    """Add packed rows of the memory to the softmax sums of some blocks of queries."""
    from isthmus.core.kernels.softmax_average import absorb, add_values, make_scratch

    scratch = make_scratch()
    for rows in row_blocks:
        for one in part:
            absorb(one.lanes, one.units, one.state, rows.keys, rows.unit, rows.n, scratch)
            for values, units, sums in zip(rows.values, rows.units, one.sums, strict=True):
                add_values(values, units, sums, len(one.units), scratch)


def _mean(rows: MatrixReader) -> NDArray[np.float32]:
    """(d,) mean of rows from all over a matrix."""
    some = rows.take(torch.linspace(0, rows.n - 1, min(_LOOK, rows.n)).long())
    mean: NDArray[np.float32] = some.mean(dim=0).numpy()
    return mean
