"""Sparse softmax weights as packed entries, which recompose averages of any values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

from isthmus.errors import FormatError
from isthmus.memory.matrix import Matrix, MatrixReader

_CPU = torch.device("cpu")
_ROWS = 8192
"""Queries whose entries are unpacked at a time."""
_WEIGHT_BITS = range(8, 17)
"""Bits that a weight takes: as many as the row's number leaves."""


@dataclass(frozen=True)
class SparseWeights:
    """The weights of q queries over the rows of a memory, those that matter, heaviest first.

    An entry is a row's number in the lowest bits and above them the root of its weight relative to the query's largest,
    in 8 to 16 bits: four bytes in all, or eight for a memory of more than 16.7 million rows. Evenly spaced roots spread
    the error of rounding over heavy and light rows alike; at 8 bits it is below 0.2 % of nearly every average.

    Attributes:
        starts: (q + 1,) uint32, or int64 beyond 4.2 billion entries: where each query's entries start.
        entries: (nnz,) uint32 or uint64.
        memory_rows: MatrixReader of the memory.
        report: Errors against the exact averages, ready for json.

    Raises:
        FormatError: The arrays are not such.
    """

    starts: NDArray[Any]
    entries: NDArray[Any]
    memory_rows: int
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        starts, entries = self.starts, self.entries
        good = starts.ndim == entries.ndim == 1 and str(starts.dtype) in ("uint32", "int64") and len(starts) > 0
        good = good and entries.dtype == _entry_type(self.memory_rows)
        if not (good and starts[0] == 0 and starts[-1] == len(entries) and bool((starts[1:] > starts[:-1]).all())):
            raise FormatError(
                f"sparse weights got {starts.dtype} starts of shape {starts.shape} and {entries.dtype} entries of "
                f"shape {entries.shape} over {self.memory_rows:,} rows. Expected starts that ascend from 0 to the "
                "number of entries: make them again."
            )

    @classmethod
    def pack(
        cls, starts: NDArray[np.int64], rows: NDArray[np.int64], weights: NDArray[np.float64], memory_rows: int
    ) -> SparseWeights:
        """Weights from (q + 1,) starts and (nnz,) rows and positive weights, the heaviest of each query first."""
        kind = _entry_type(memory_rows)
        shift, top = _split(kind, memory_rows)
        relative = weights / np.repeat(weights[starts[:-1]], np.diff(starts))
        levels = np.clip(np.rint(top * np.sqrt(relative)), 1, top).astype(kind)
        return cls(_narrow(starts), rows.astype(kind) | (levels << kind.type(shift)), memory_rows)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, in memory and, but for a short header, on disk."""
        return int(self.starts.nbytes + self.entries.nbytes)

    def unpack(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Where the entries of the queries numbered in `rows` end, the memory rows and the weights, summing to one."""
        first = self.starts[rows].astype(np.int64)
        counts = self.starts[rows + 1].astype(np.int64) - first
        ends = np.cumsum(counts)
        entries = self.entries[np.repeat(first - (ends - counts), counts) + np.arange(int(counts.sum()))]
        shift, top = _split(entries.dtype, self.memory_rows)
        weights = ((entries >> entries.dtype.type(shift)).astype(np.float32) / np.float32(top)) ** 2
        if len(rows):
            weights /= np.repeat(np.add.reduceat(weights, ends - counts), counts)
        return ends, (entries & entries.dtype.type((1 << shift) - 1)).astype(np.int64), weights

    def recompose(self, rows: NDArray[np.int64], values: Matrix | MatrixReader) -> NDArray[np.float32]:
        """Averages of `values`, (m, d_v), for the queries numbered in `rows`, as (len(rows), d_v) float32.

        Values that are held in memory are averaged where they lie; of others only the rows that are needed are read.
        `MatrixReader` that are made once save looking through a matrix at every call.
        """
        ends, indices, weights = self.unpack(np.asarray(rows, dtype=np.int64))
        read = (
            values
            if isinstance(values, MatrixReader)
            else MatrixReader(values, _CPU, unit=False, name="values", resident_bytes=0)
        )
        if read.tensor is not None:
            table, places = read.tensor, indices
        else:
            wanted, places = np.unique(indices, return_inverse=True)
            table = read.take(torch.from_numpy(wanted))
        bags = torch.from_numpy(np.concatenate([[0], ends[:-1]])[: len(ends)])
        averages = embedding_bag(
            torch.from_numpy(places), table, bags, mode="sum", per_sample_weights=torch.from_numpy(weights)
        )
        return np.asarray(averages.numpy(), dtype=np.float32)

    def effective_neighbours(self) -> NDArray[np.float32]:
        """(q,) exponential of the entropy of each query's kept weights."""
        parts = [np.zeros(0, np.float32)]
        for low in range(0, len(self), _ROWS):
            ends, _, weights = self.unpack(np.arange(low, min(low + _ROWS, len(self))))
            # Rows of one entry have no entropy; a weight is never zero.
            parts.append(np.exp(-np.add.reduceat(weights * np.log(weights), np.concatenate([[0], ends[:-1]]))))
        return np.concatenate(parts)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file."""
        from safetensors.numpy import save_file

        rows = np.asarray([self.memory_rows], dtype=np.int64)
        save_file({"starts": self.starts, "entries": self.entries, "memory_rows": rows}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> SparseWeights:
        """Read what `save` wrote.

        Raises:
            FormatError: The file is no such file.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(str(path))
            return cls(arrays["starts"], arrays["entries"], int(arrays["memory_rows"].item()))
        except (SafetensorError, KeyError, ValueError, FormatError) as error:
            raise FormatError(
                f"{path} is no file of sparse weights ({error}). Expected one written by SparseWeights.save."
            ) from error


def _narrow(starts: NDArray[np.int64]) -> NDArray[Any]:
    """Starts of entries in 32 bits where these suffice."""
    return starts.astype(np.uint32) if starts[-1] < 1 << 32 else starts


def _entry_type(memory_rows: int) -> np.dtype[Any]:
    """The narrower type that holds a row's number and a weight."""
    return np.dtype(np.uint32 if _number_bits(memory_rows) <= 32 - _WEIGHT_BITS[0] else np.uint64)


def _split(kind: np.dtype[Any], memory_rows: int) -> tuple[int, int]:
    """Bits of an entry below the weight, and the largest number in those above."""
    shift = _number_bits(memory_rows)
    return shift, (1 << min(8 * kind.itemsize - shift, _WEIGHT_BITS[-1])) - 1


def _number_bits(memory_rows: int) -> int:
    """Bits of a row number of the memory."""
    return max(1, int(memory_rows - 1).bit_length())


def on_cpu(rows: MatrixReader) -> MatrixReader:
    """Rows as they are averaged, scaled to unit length where the bank does so, for the CPU."""
    matrix = rows.tensor if rows.tensor is not None else _Scaled(rows)
    return MatrixReader(matrix, _CPU, unit=False, name=rows.name, resident_bytes=0)


class _Scaled:
    """Rows that are read, converted and scaled when asked for."""

    def __init__(self, keys: MatrixReader) -> None:
        self.keys = keys

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width of the memory."""
        return self.keys.n, self.keys.dim

    def take(self, rows: Any, /) -> NDArray[np.float32]:
        """Rows of the memory as the bank has them, at unit length where it scales them."""
        return np.asarray(self.keys.take(torch.as_tensor(rows)).cpu().numpy(), dtype=np.float32)
