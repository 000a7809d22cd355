"""Softmax weights kept sparse: row numbers and weights, four bytes an entry, instead of a dense average of every query.

A pseudo pair stored this way is recomposed when its batch is drawn; at temperature 0.01 a query needs a few dozen rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

from isthmus.core.runtime import numpy_generator
from isthmus.errors import CheckFailed, ConfigError, FormatError
from isthmus.memory.compressed import Candidates, Scan
from isthmus.memory.exact import Work, partial_sums
from isthmus.memory.matrix import Matrix, MatrixReader
from isthmus.memory.method import CHECKED, compare
from isthmus.memory.sketch import Spectrum

_CPU = torch.device("cpu")
_PASS = 8192
_RESIDUAL = 0.4
_FIRST = 32
_TOO_MANY = 16
"""Rows found per row kept, at most: beyond it the weights are not sparse, and finding them would fill the memory."""
_MASSES = (0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 0.999)
"""Shares of the weight that are tried in turn where none is given; their errors come out near one minus them."""
_MARGIN = 0.9
"""Share of the tolerance that any but the last of them may take: the sample chooses it, and judges it too."""
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
        for low in range(0, len(self), _PASS):
            ends, _, weights = self.unpack(np.arange(low, min(low + _PASS, len(self))))
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


def sparse_weights(
    work: Work, queries: MatrixReader, mass: float | None, max_k: int, tolerance: float, seed: int
) -> SparseWeights:
    """Find the rows that hold `mass` of each query's weight, at most `max_k`, and check what they average to.

    Args:
        work: Keys, temperature, and the values whose averages are checked.
        queries: All of them.
        mass: Share of the weight; None takes the least that holds the tolerance on the sample.
        max_k: MatrixReader per query at most.
        tolerance: Largest 99th percentile of the relative error.
        seed: Of the sample.

    Raises:
        CheckFailed: The averages miss the tolerance: the weights are not sparse at this temperature.
    """
    if not 0.0 < (0.5 if mass is None else mass) < 1.0 or max_k < 1:
        raise ConfigError(f"mass must lie between 0 and 1 and max_k be at least 1, got {mass} and {max_k}.")
    spectrum = Spectrum(work.keys, queries, work.temperature)
    sketch = spectrum.sketch(spectrum.rank(_RESIDUAL))
    chosen = numpy_generator(seed, 256).choice(queries.n, min(CHECKED, queries.n), replace=False)
    sample = queries.take(torch.from_numpy(chosen))
    strictest = _MASSES[-1] if mass is None else mass
    most = _TOO_MANY * max_k
    first = Scan(work, sketch, _threshold(strictest), sample[:_FIRST], most * len(sample[:_FIRST]))
    first.run(lambda part, start, chunk, candidates: None)
    if first.hits > first.most:
        raise CheckFailed(
            f"the weights at temperature {work.temperature:g} are not sparse: more than {most:,} of {work.keys.n:,} "
            f"rows matter to a query, and max_k is {max_k}. Lower the temperature, or keep dense averages."
        )
    entries = _collect(Scan(work, sketch, _threshold(strictest), sample), len(sample))
    mass, check = _choose(work, sample, entries, [mass] if mass else list(_MASSES), max_k, tolerance)
    parts = []
    for at in range(0, queries.n, _PASS):
        block = queries.block(at, min(at + _PASS, queries.n))
        parts.append(_cut(_collect(Scan(work, sketch, _threshold(mass), block), len(block)), mass, max_k, work))
    report = {"mass": mass, "max_k": max_k, "temperature": work.temperature, "tolerance": tolerance, "check": check}
    return _join(parts, work.keys.n, report)


def _threshold(mass: float) -> float:
    """Logits below a query's largest at which rows stop to matter: well beyond what the mass leaves out."""
    return 3.0 - float(np.log1p(-mass))


def _choose(
    work: Work, sample: torch.Tensor, entries: _Entries, masses: list[float], max_k: int, tolerance: float
) -> tuple[float, dict[str, Any]]:
    """The first of ascending masses whose averages hold the tolerance on the sample, and their errors."""
    exact = [x.cpu() for x in partial_sums(work, sample).finish()]
    values = [_on_cpu(work.keys if v is None else v) for v in work.values]
    check: dict[str, Any] = {}
    for mass in masses:
        trial = _cut(entries, mass, max_k, work)
        averages = [torch.from_numpy(trial.recompose(np.arange(len(trial)), v)) for v in values]
        check = compare(averages, exact)
        if check["p99"] <= (tolerance if mass == masses[-1] else _MARGIN * tolerance):
            return mass, check
    raise CheckFailed(
        f"sparse weights at temperature {work.temperature:g}, mass {masses[-1]:g} and max_k {max_k} are off by "
        f"{check['p99']:.2g} (99th percentile of the relative error), over {tolerance:g}. Raise mass or max_k, or "
        "keep dense averages."
    )


class _Entries(NamedTuple):
    """Rows found for queries, heaviest first: starts (q + 1,), rows (nnz,), shares (nnz,) of each query's weight."""

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    shares: NDArray[np.float64]


def _collect(scan: Scan, n: int) -> _Entries:
    """Every row that the scan finds for its n queries."""
    pieces: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def keep(part: slice, start: int, chunk: torch.Tensor, candidates: Candidates) -> None:
        pieces.append(
            (
                (candidates.queries + part.start).cpu().numpy(),
                (candidates.columns + start).cpu().numpy(),
                candidates.logits.cpu().numpy(),
            )
        )

    scan.run(keep)
    queries, columns, logits = (np.concatenate(x) for x in zip(*pieces, strict=True))
    order = np.lexsort((-logits, queries))
    queries, columns, logits = queries[order], columns[order], logits[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(queries, minlength=n))])
    shares = np.exp(logits - logits[starts[:-1]][queries], dtype=np.float64)
    shares /= np.add.reduceat(shares, starts[:-1])[queries]
    return _Entries(starts, columns, shares)


def _cut(entries: _Entries, mass: float, max_k: int, work: Work) -> SparseWeights:
    """The heaviest rows of each query that hold `mass` of its weight, at most `max_k`."""
    counts = np.diff(entries.starts)
    before = np.cumsum(entries.shares) - entries.shares
    before -= np.repeat(before[entries.starts[:-1]], counts)
    rank = np.arange(len(entries.rows)) - np.repeat(entries.starts[:-1], counts)
    mask = ((before < mass) & (rank < max_k)) | (rank == 0)
    starts = np.concatenate([[0], np.cumsum(np.add.reduceat(mask, entries.starts[:-1], dtype=np.int64))])
    return SparseWeights.pack(starts, entries.rows[mask], entries.shares[mask], work.keys.n)


def _join(parts: list[SparseWeights], rows: int, report: dict[str, Any]) -> SparseWeights:
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    starts = _narrow(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
    joined = SparseWeights(starts, np.concatenate([part.entries for part in parts]), rows, report)
    report |= {"queries": len(counts), "rows_per_query": float(counts.mean()), "bytes": joined.nbytes}
    return joined


def _narrow(starts: NDArray[np.int64]) -> NDArray[Any]:
    return starts.astype(np.uint32) if starts[-1] < 1 << 32 else starts


def _entry_type(memory_rows: int) -> np.dtype[Any]:
    """The narrower type that holds a row's number and a weight."""
    return np.dtype(np.uint32 if _number_bits(memory_rows) <= 32 - _WEIGHT_BITS[0] else np.uint64)


def _split(kind: np.dtype[Any], memory_rows: int) -> tuple[int, int]:
    """Bits of an entry below the weight, and the largest number in those above."""
    shift = _number_bits(memory_rows)
    return shift, (1 << min(8 * kind.itemsize - shift, _WEIGHT_BITS[-1])) - 1


def _number_bits(memory_rows: int) -> int:
    return max(1, int(memory_rows - 1).bit_length())


def _on_cpu(rows: MatrixReader) -> MatrixReader:
    """Rows as they are averaged, scaled to unit length where the bank does so, for the CPU."""
    matrix = rows.tensor if rows.tensor is not None else _Scaled(rows)
    return MatrixReader(matrix, _CPU, unit=False, name=rows.name, resident_bytes=0)


class _Scaled:
    """Rows that are read, converted and scaled when asked for."""

    def __init__(self, keys: MatrixReader) -> None:
        self.keys = keys

    @property
    def shape(self) -> tuple[int, int]:
        return self.keys.n, self.keys.dim

    def take(self, rows: Any, /) -> NDArray[np.float32]:
        return np.asarray(self.keys.take(torch.as_tensor(rows)).cpu().numpy(), dtype=np.float32)
