"""Softmax weights kept sparse: row numbers and weights instead of a dense average of every modality.

A pseudo pair stored this way is recomposed when its batch is drawn; at temperature 0.01 a query needs a few dozen rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

from isthmus.errors import CheckFailed, ConfigError, FormatError
from isthmus.memory.check import CHECKED, compare
from isthmus.memory.compressed import Found, Scan, probe
from isthmus.memory.exact import Work, partial_sums
from isthmus.memory.rows import Matrix, Rows
from isthmus.memory.sketch import Spectrum
from isthmus.runtime import numpy_generator

_PASS = 8192
_RESIDUAL = 0.4
_FIRST = 32
_TOO_MANY = 16
"""Rows found per row kept, at most: beyond it the weights are not sparse, and finding them would fill the memory."""


@dataclass(frozen=True)
class SparseWeights:
    """The weights of q queries over the rows of a memory, those that matter, heaviest first.

    Attributes:
        starts: (q + 1,) int64, where each query's entries start.
        indices: (nnz,) int32 rows of the memory.
        weights: (nnz,) float16, summing to one per query.
        report: Errors against the exact averages, ready for json.
    """

    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float16]
    report: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def recompose(self, rows: NDArray[np.int64], values: Matrix) -> NDArray[np.float32]:
        """Averages of `values`, (m, d_v), for the queries numbered in `rows`, as (len(rows), d_v) float32."""
        rows = np.asarray(rows, dtype=np.int64)
        counts = self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(counts)
        where = np.repeat(self.starts[rows] - (ends - counts), counts) + np.arange(int(counts.sum()))
        weights = torch.from_numpy(self.weights[where].astype(np.float32))
        wanted, places = np.unique(self.indices[where], return_inverse=True)
        table = Rows(values, torch.device("cpu"), unit=False, name="values").take(
            torch.from_numpy(wanted.astype(np.int64))
        )
        bags = torch.from_numpy(ends - counts)
        found = embedding_bag(torch.from_numpy(places), table, bags, mode="sum", per_sample_weights=weights)
        return np.asarray(found.numpy(), dtype=np.float32)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file."""
        from safetensors.numpy import save_file

        save_file({"starts": self.starts, "indices": self.indices, "weights": self.weights}, str(path))

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
            return cls(arrays["starts"], arrays["indices"], arrays["weights"])
        except (SafetensorError, KeyError) as error:
            raise FormatError(
                f"{path} is no file of sparse weights ({error}). Expected one written by SparseWeights.save."
            ) from error


def sparse_weights(work: Work, queries: Rows, mass: float, max_k: int, tolerance: float, seed: int) -> SparseWeights:
    """Find the rows that hold `mass` of each query's weight, at most `max_k`, and check what they average to.

    Raises:
        CheckFailed: The averages miss the tolerance: the weights are not sparse at this temperature.
    """
    if not 0.0 < mass < 1.0 or max_k < 1:
        raise ConfigError(f"mass must lie between 0 and 1 and max_k be at least 1, got {mass} and {max_k}.")
    spectrum = Spectrum(work.keys, queries, work.temperature)
    sketch = spectrum.sketch(spectrum.rank(_RESIDUAL))
    threshold = 3.0 - float(np.log1p(-mass))
    chosen = numpy_generator(seed, 256).choice(queries.n, min(CHECKED, queries.n), replace=False)
    sample = queries.take(torch.from_numpy(chosen))

    def build(asking: torch.Tensor) -> SparseWeights:
        return _collect(Scan(work, sketch, threshold, asking), len(asking), mass, max_k)

    kept, _ = probe(work, sample[:_FIRST], sketch, threshold)
    if kept > _TOO_MANY * max_k:
        raise CheckFailed(
            f"the weights at temperature {work.temperature:g} are not sparse: {kept:,.0f} of {work.keys.n:,} rows "
            f"matter to a query, and max_k is {max_k}. Lower the temperature, or keep dense averages."
        )
    trial = build(sample)
    average = torch.from_numpy(trial.recompose(np.arange(len(trial)), _matrix(work.keys)))
    check = compare([average], [x.cpu() for x in partial_sums(work, sample).finish()])
    if check["p99"] > tolerance:
        raise CheckFailed(
            f"sparse weights at temperature {work.temperature:g}, mass {mass:g} and max_k {max_k} are off by "
            f"{check['p99']:.2g} (99th percentile of the relative error), over {tolerance:g}. Raise mass or max_k, or "
            "keep dense averages."
        )
    parts = [build(queries.block(at, min(at + _PASS, queries.n))) for at in range(0, queries.n, _PASS)]
    report = {"mass": mass, "max_k": max_k, "temperature": work.temperature, "tolerance": tolerance, "check": check}
    return _join(parts, report)


def _collect(scan: Scan, n: int, mass: float, max_k: int) -> SparseWeights:
    pieces: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def keep(part: slice, start: int, chunk: torch.Tensor, found: Found) -> None:
        pieces.append(
            (
                (found.queries + part.start).cpu().numpy(),
                (found.columns + start).cpu().numpy(),
                found.logits.cpu().numpy(),
            )
        )

    scan.run(keep)
    queries, columns, logits = (np.concatenate(x) for x in zip(*pieces, strict=True))
    order = np.lexsort((-logits, queries))
    queries, columns, logits = queries[order], columns[order], logits[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(queries, minlength=n))])
    weights = np.exp(logits - logits[starts[:-1]][queries], dtype=np.float64)
    weights /= np.add.reduceat(weights, starts[:-1])[queries]
    before = np.cumsum(weights) - weights
    before -= before[starts[:-1]][queries]
    rank = np.arange(len(queries)) - starts[:-1][queries]
    kept = (before < mass) & (rank < max_k)
    queries, weights = queries[kept], weights[kept]
    starts = np.concatenate([[0], np.cumsum(np.bincount(queries, minlength=n))])
    weights /= np.add.reduceat(weights, starts[:-1])[queries]
    return SparseWeights(starts, columns[kept].astype(np.int32), weights.astype(np.float16))


def _join(parts: list[SparseWeights], report: dict[str, Any]) -> SparseWeights:
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    indices = np.concatenate([part.indices for part in parts])
    report |= {"queries": len(counts), "rows_per_query": float(counts.mean()), "bytes": indices.nbytes * 3 // 2}
    return SparseWeights(starts, indices, np.concatenate([part.weights for part in parts]), report)


def _matrix(keys: Rows) -> Matrix:
    """The keys as they are averaged: scaled to unit length where the bank does so."""
    return keys.tensor if keys.tensor is not None else _Scaled(keys)


class _Scaled:
    """Rows that are read, converted and scaled when asked for."""

    def __init__(self, keys: Rows) -> None:
        self.keys = keys

    @property
    def shape(self) -> tuple[int, int]:
        return self.keys.n, self.keys.dim

    def take(self, rows: Any, /) -> NDArray[np.float32]:
        return np.asarray(self.keys.take(torch.as_tensor(rows)).cpu().numpy(), dtype=np.float32)
