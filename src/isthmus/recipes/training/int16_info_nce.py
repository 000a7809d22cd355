"""The similarities of InfoNCE in 16-bit integers, and what pulls embeddings together by them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.recipes.training.int16_linear import run, scratch

_ROUNDING = 1.001
"""Room for similarities that rounding takes beyond one."""


class Contrast:
    """Similarities of k batches with m others, all against all, and the sums of their exponentials.

    Args:
        x: (k, batch, dim) float32 on the CPU.
        z: (m, batch, dim).
        temperature: Divides the products.
        shift: Subtracted from the logits.
        similarities: (k * batch * m * batch,) int16 to hold them until the gradient is wanted.

    Attributes:
        by_row: (k, batch, m) sums of exp(logit - shift) over the others' rows.
        by_column: (k, m, batch) sums over the rows of x.
    """

    def __init__(self, x: Tensor, z: Tensor, temperature: float, shift: float, similarities: Tensor) -> None:
        from isthmus.core.kernels.info_nce import HIGHEST_SIMILARITY, compare
        from isthmus.core.kernels.packing import FEW, highest, pack_rows, rows_room

        (k, batch, dim), m = x.shape, len(z)
        self.x, self.z, self.shift = x.detach().contiguous(), z.detach().contiguous(), shift
        largest = [float(torch.linalg.vector_norm(side, dim=2).max()) for side in (self.x, self.z)]
        self.step = max(_ROUNDING * largest[0] * largest[1] / temperature, 1e-30) / HIGHEST_SIMILARITY
        self.similarities = similarities
        held = similarities.view(k, batch, m * batch).numpy()
        by_row = np.empty((k, batch, m), np.float32)
        lanes, unit, places = _pack_others(self.z)
        blocks = _blocks(k, batch)
        # Added up in their order afterwards: threads that added as they come would make no two runs alike.
        parts = np.zeros((len(blocks), m * batch), np.float32)
        nothing = np.zeros(dim, np.float32)

        def step(number: int) -> None:
            i, part = blocks[number]
            rows = self.x[i, part].numpy()
            asking, units = rows_room(len(rows), dim, FEW), np.empty(len(rows), np.float32)
            pack_rows(rows, nothing, highest(dim), 0.0, units, asking)
            into = held[i, part], by_row[i, part], parts[number]
            compare(asking, units / np.float32(temperature), lanes, unit, places, self.step, shift, *into, scratch())

        run(step, len(blocks))
        self.by_row = torch.from_numpy(by_row)
        self.by_column = torch.from_numpy(parts.reshape(k, -1, m * batch).sum(axis=1)).view(k, m, batch)

    def pull(self, *, of_others: bool = False) -> Tensor:
        """The sum over the others of exp(logit - shift) (1 / by_row + 1 / by_column) times them.

        Args:
            of_others: Give what pulls z, summed over x, instead of what pulls x.

        Returns:
            Shaped as x, or as z.
        """
        from isthmus.core.kernels.info_nce import pull
        from isthmus.core.kernels.packing import FEW, filled

        moving, still = (self.z, self.x) if of_others else (self.x, self.z)
        (k, batch, dim), m = moving.shape, len(still)
        rows, columns = self.by_row.reciprocal(), self.by_column.reciprocal()
        if of_others:
            held = self.similarities.view(m * batch, k * batch).numpy().T.reshape(k, batch, m * batch)
            rows, columns = columns.permute(1, 2, 0).contiguous(), rows.permute(2, 0, 1).contiguous()
        else:
            held = self.similarities.view(k, batch, m * batch).numpy()
        row, column = rows.numpy(), columns.reshape(k, m * batch).numpy()
        lanes, scales, places = _pack_values(still)
        out = np.zeros((k, filled(batch, FEW), scales.shape[1]), np.float32)
        blocks = _blocks(k, batch)

        def step(number: int) -> None:
            i, part = blocks[number]
            of = held[i, part], self.step, self.shift, row[i, part], column[i]
            pull(*of, lanes, scales, places, out[i, part.start : filled(part.stop, FEW)], scratch())

        run(step, len(blocks))
        return torch.from_numpy(out)[:, :batch, :dim].contiguous()


def _pack_others(z: Tensor) -> tuple[NDArray[np.int32], float, NDArray[np.int64]]:
    """Lanes of the rows that fill vectors, a chunk after another, their common unit and their places."""
    from isthmus.core.kernels.info_nce import ROWS
    from isthmus.core.kernels.packing import MANY, highest, pack_rows

    m, batch, dim = z.shape
    places, flat, nothing = _places(m, batch, ROWS), z.view(m * batch, dim).numpy(), np.zeros(dim, np.float32)
    unit = max(float(z.abs().max()), 1e-30) / highest(dim)
    lanes = np.zeros((len(places), ROWS // MANY, -(-dim // 2), MANY), np.int32)

    def pack(c: int) -> None:
        start, n, _ = places[c]
        pack_rows(flat[start : start + n], nothing, highest(dim), unit, np.empty(n, np.float32), lanes[c])

    run(pack, len(places))
    return lanes, unit, places


def _pack_values(still: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """Lanes of what is summed under weights, a chunk after another, the scales of the columns, and the places."""
    from isthmus.core.kernels.info_nce import ROWS
    from isthmus.core.kernels.packing import MANY, filled, pack_pairs
    from isthmus.core.kernels.softmax_average import HIGHEST_VALUE

    m, batch, dim = still.shape
    places, flat, nothing = _places(m, batch, ROWS), still.view(m * batch, dim).numpy(), np.zeros(dim, np.float32)
    scales = np.zeros((len(places), filled(dim, MANY)), np.float32)
    lanes = np.zeros((len(places), scales.shape[1] // MANY, ROWS // 2, MANY), np.int32)

    def pack(c: int) -> None:
        start, n, _ = places[c]
        pack_pairs(flat[start : start + n], nothing, HIGHEST_VALUE, scales[c, :dim], lanes[c])

    run(pack, len(places))
    return lanes, scales, places


def _blocks(k: int, batch: int) -> list[tuple[int, slice]]:
    """Blocks of rows that are compared at a time, none over two of the k batches."""
    from isthmus.core.kernels.info_nce import BLOCK

    return [(i, slice(low, min(low + BLOCK, batch))) for i in range(k) for low in range(0, batch, BLOCK)]


def _places(m: int, batch: int, size: int) -> NDArray[np.int64]:
    """(chunks, 3) first row, number of rows and batch of chunks of m batches, none over two of them."""
    chunks = [(i * batch + low, min(size, batch - low), i) for i in range(m) for low in range(0, batch, size)]
    return np.array(chunks, np.int64)
