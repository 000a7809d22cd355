"""Softmax weights kept sparse: row numbers and weights, four bytes an entry, instead of a dense average of every query.

A pseudo pair stored this way is recomposed when its batch is drawn; at temperature 0.01 a query needs a few dozen rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.runtime import numpy_generator
from isthmus.errors import CheckFailed, ConfigError
from isthmus.memory.compressed import Candidates, Scan
from isthmus.memory.exact import Work, partial_sums
from isthmus.memory.matrix import MatrixReader
from isthmus.memory.method import CHECKED, compare
from isthmus.memory.sketch import Spectrum
from isthmus.memory.sparse_weights import SparseWeights, _narrow, on_cpu

_PASS = 8192
_RESIDUAL = 0.4
_FIRST = 32
_TOO_MANY = 16
"""Rows found per row kept, at most: beyond it the weights are not sparse, and finding them would fill the memory."""
_MASSES = (0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 0.999)
"""Shares of the weight that are tried in turn where none is given; their errors come out near one minus them."""
_MARGIN = 0.9
"""Share of the tolerance that any but the last of them may take: the sample chooses it, and judges it too."""


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
        seed: Seed of the sample.

    Raises:
        CheckFailed: The averages miss the tolerance: the weights are not sparse at this temperature.
    """
    if not 0.0 < (0.5 if mass is None else mass) < 1.0 or max_k < 1:
        raise ConfigError(f"mass must lie between 0 and 1 and max_k be at least 1, got {mass} and {max_k}.")
    spectrum = Spectrum(work.keys, queries, work.temperature)
    sketch = spectrum.sketch(spectrum.rank(_RESIDUAL))
    chosen = numpy_generator(seed, 256).choice(queries.n, min(CHECKED, queries.n), replace=False)
    sample = queries.take(torch.from_numpy(chosen))
    # A cheap first look: where the strictest mass needs too many rows, nothing else is tried.
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
    values = [on_cpu(work.keys if v is None else v) for v in work.values]
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
    # By query, the heaviest rows first, so that a cut keeps a prefix.
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
    """Sparse weights of blocks of queries as one, with what they take in the report."""
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    starts = _narrow(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
    joined = SparseWeights(starts, np.concatenate([part.entries for part in parts]), rows, report)
    report |= {"queries": len(counts), "rows_per_query": float(counts.mean()), "bytes": joined.nbytes}
    return joined
