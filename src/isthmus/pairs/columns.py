"""Columns of pseudo pairs, whatever they are made of: averages held dense, or recomposed when their rows are asked for.

A query's own embedding needs no copy, only its row; an average needs a few dozen rows and weights of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.memory import SparseWeights
from isthmus.memory.matrix import MatrixReader, StoredRows

Column: TypeAlias = "NDArray[Any] | StoredRows"
"""An (n, dim) array or memory map, or anything with that shape that gives float32 rows by number (`take`)."""


def pick(column: Column, rows: NDArray[np.int64]) -> Array:
    """Rows of a column, by number, as float32."""
    taken = column[rows] if isinstance(column, np.ndarray) else column.take(rows)
    return np.asarray(taken, dtype=np.float32)


class OwnRows:
    """Rows of a modality's own embeddings, by number.

    Args:
        embeddings: (m, dim) float32.
        rows: (n,) rows of them.
    """

    def __init__(self, embeddings: Array, rows: NDArray[np.int64]) -> None:
        self.embeddings, self.rows = embeddings, rows.astype(np.int32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return len(self.rows), int(self.embeddings.shape[1])

    def take(self, rows: Any, /) -> Array:
        """Rows by number."""
        return np.asarray(self.embeddings[self.rows[rows]], dtype=np.float32)


class Recomposed:
    """Averages of the rows of a memory, made of their sparse weights when they are asked for.

    Args:
        weights: Weights of n queries over m rows.
        values: The (m, dim) rows that are averaged, as `value_rows` gives them.
        unit: Scale the averages to unit length.
    """

    def __init__(self, weights: SparseWeights, values: MatrixReader, *, unit: bool) -> None:
        self.weights, self.values, self.unit = weights, values, unit

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return len(self.weights), self.values.dim

    def take(self, rows: Any, /) -> Array:
        """Rows by number."""
        averages = self.weights.recompose(rows, self.values)
        return normalize(averages) if self.unit else averages


def value_rows(embeddings: Array) -> MatrixReader:
    """Embeddings looked through once, to be averaged often; a memory map is read where it is needed, never whole."""
    return MatrixReader(embeddings, torch.device("cpu"), unit=False, name="values", resident_bytes=0)


class Joined:
    """Columns of one width, one after another.

    Args:
        parts: At least one.
    """

    def __init__(self, parts: Sequence[Column]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0] + [int(part.shape[0]) for part in parts])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return int(self.starts[-1]), int(self.parts[0].shape[1])

    def take(self, rows: Any, /) -> Array:
        """Rows by number."""
        wanted = np.asarray(rows, dtype=np.int64)
        part = np.searchsorted(self.starts, wanted, side="right") - 1
        out = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            out[here] = pick(self.parts[number], wanted[here] - self.starts[number])
        return out
