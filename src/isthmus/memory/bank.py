"""The memory bank: softmax averages, nearest rows and sparse weights over the embeddings of one modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.runtime import resolve_device
from isthmus.errors import ConfigError
from isthmus.memory.exact import Work, partial_sums
from isthmus.memory.matrix import RESIDENT_BYTES, Matrix, MatrixReader
from isthmus.memory.nearest import nearest_rows
from isthmus.memory.online_softmax import OnlineSoftmax
from isthmus.memory.run import Run, bias_vector, like_given, positive, query_reader, value_readers
from isthmus.memory.sparse import sparse_weights
from isthmus.memory.sparse_weights import SparseWeights


@dataclass
class Stats:
    """Statistics of an aggregation beside its result.

    Attributes:
        effective_neighbours: (q,) float32, exponential of the entropy of each query's weights.
        report: How it was done and how well, ready for json.
    """

    effective_neighbours: NDArray[np.float32]
    report: dict[str, Any] = field(default_factory=dict)


class MemoryBank:
    """The embeddings of one modality, from which pseudo pairs are aggregated (C-MCR, section 3.2, equation 3).

    Args:
        embeddings: (m, d) array, tensor, memory map, embeddings of a space, or several of them one after another.
            Large ones that need converting are streamed, once per pass.
        device: Where to compute: cpu, cuda, cuda:N, mps or auto; None is the tensor's own device, or the CPU.
        normalize: Scale memory rows and queries to unit length. False takes them as they are (dot products).
        resident_bytes: Float32 size up to which a converted copy of the embeddings is kept.

    Raises:
        ConfigError: The embeddings are no (m, d) matrix or have no rows.
        SpaceError: A row holds NaN or infinity.
    """

    def __init__(
        self,
        embeddings: Matrix,
        *,
        device: str | torch.device | None = None,
        normalize: bool = True,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        if device is None:
            device = embeddings.device if isinstance(embeddings, torch.Tensor) else "cpu"
        self.device = resolve_device(str(device))
        self.normalize, self._resident_bytes = normalize, resident_bytes
        self.keys = MatrixReader(embeddings, self.device, unit=normalize, name="memory", resident_bytes=resident_bytes)
        if not self.keys.n:
            raise ConfigError("the memory holds no rows. Expected at least one embedding to aggregate from.")
        self.report: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.keys.n

    @property
    def dim(self) -> int:
        """Width of the memory rows, and of the queries."""
        return self.keys.dim

    def aggregate(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        bias: Any = None,
        method: str = "exact",
        tolerance: float = 0.01,
        seed: int = 0,
        out: Any = None,
    ) -> Any:
        """Average memory rows under softmax(queries . keys / temperature + bias).

        Args:
            queries: (q, d); whatever the memory may be given as.
            temperature: Softmax temperature, above 0.
            values: What is averaged: None for the memory itself, an (m, d_v) matrix row-aligned with the memory, or a
                list of such matrices, averaged under the same weights. Taken as they are, never normalised.
            bias: (m,) finite numbers added to the logits of the memory rows, such as a log prior; None is none. Then
                the method must be "exact", and "auto" is.
            method: "exact"; "bf16", both products in 16 bits (bfloat16, or integers where the processor has no such
                instructions); "compressed", which scores every row roughly and the few that matter in float32; "auto",
                the soonest that holds the tolerance, and exact where the job is small.
            tolerance: Largest relative error of an approximate method (its mean and 99th percentile; three times this
                for the percentile of bf16) and largest loss of cosine, on 256 random queries that are done exactly
                too; over it the exact method is used.
            seed: Seed of those queries.
            out: Array or memory map to write the result into (a list of them where `values` is a list), float32 or
                float16; then it is returned, and the results are never held whole.

        Returns:
            (q, d_v) float32, not normalised: a tensor on the device where the queries are a tensor, else an array.
            A list of them where `values` is a list. `report` tells how it was done.

        Raises:
            ConfigError: An option is out of range or the shapes do not fit.
        """
        run = Run(self, queries, values, temperature, stats=False, bias=bias)
        return run.aggregate(method, tolerance, seed, out)

    def aggregate_with_stats(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        bias: Any = None,
        method: str = "exact",
        tolerance: float = 0.01,
        seed: int = 0,
        out: Any = None,
    ) -> tuple[Any, Stats]:
        """`aggregate`, and with it each query's effective neighbours and the report of the run."""
        run = Run(self, queries, values, temperature, stats=True, bias=bias)
        results = run.aggregate(method, tolerance, seed, out)
        return results, Stats(np.asarray(run.neighbours.cpu().numpy(), dtype=np.float32), self.report)

    def partial(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        bias: Any = None,
        stats: bool = True,
    ) -> OnlineSoftmax:
        """The unfinished exact sums of the queries over this memory, to merge with those of other parts of it."""
        run = Run(self, queries, values, temperature, stats=stats, bias=bias)
        return partial_sums(run.work, run.queries.block(0, run.queries.n))

    def weights(
        self, queries: Matrix, *, temperature: float = 0.01, bias: Any = None, block_bytes: int = 64 << 20
    ) -> Iterator[tuple[slice, Any]]:
        """Yield softmax(queries . keys / temperature + bias) itself, a block of queries after another.

        Where only products of the weights with a matrix are wanted, `aggregate(values=matrix)` gives them without ever
        holding a row of weights.

        Args:
            queries: (q, d).
            temperature: Softmax temperature, above 0.
            bias: (m,) finite numbers added to the logits of the memory rows, or None.
            block_bytes: Float32 bytes of a block, at least one row.

        Yields:
            Which queries, and their (b, m) float32 weights, each row of sum 1: arrays, or tensors as the queries are.

        Raises:
            ConfigError: An option is out of range or the shapes do not fit.
        """
        scale, prior = 1.0 / positive("temperature", temperature), bias_vector(self, bias)
        rows = query_reader(self, queries)
        size = max(1, block_bytes // (4 * len(self)))
        for start in range(0, rows.n, size):
            part = slice(start, min(start + size, rows.n))
            scaled = rows.block(part.start, part.stop) * scale
            logits = torch.empty((len(scaled), len(self)), device=self.device)
            for low, chunk in self.keys.chunks():
                torch.mm(scaled, chunk.T, out=logits[:, low : low + len(chunk)])
            if prior is not None:
                logits += prior
            yield part, like_given(queries, torch.softmax(logits, dim=1))

    def nearest(self, queries: Matrix, k: int = 1) -> tuple[Any, Any]:
        """The k memory rows of highest cosine, exactly, best first.

        Args:
            queries: (q, d).
            k: MatrixReader per query; at most the memory's rows are returned.

        Returns:
            scores (q, k) float32 and rows (q, k) int64, arrays or tensors as the queries are.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        scores, rows = nearest_rows(self.keys, query_reader(self, queries), min(k, self.keys.n))
        return like_given(queries, scores), like_given(queries, rows)

    def sparse(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        mass: float | None = None,
        max_k: int = 256,
        tolerance: float = 0.01,
        seed: int = 0,
    ) -> SparseWeights:
        """The weights of each query that matter, instead of the average that they give.

        Args:
            queries: (q, d).
            temperature: Softmax temperature.
            values: What the weights are to average, as for `aggregate`: the check is of these averages.
            mass: Share of a query's weight that its kept rows hold, unless `max_k` is fewer. None takes the fewest rows
                that hold the tolerance.
            max_k: MatrixReader per query at most.
            tolerance: Largest 99th percentile of the relative error of the recomposed averages, on 256 random queries.
            seed: Seed of those queries.

        Raises:
            CheckFailed: The tolerance is not held; at high temperatures the weights are not sparse.
            ConfigError: An option is out of range.
        """
        averaged, _ = value_readers(self, values)
        work = Work(self.keys, averaged, positive("temperature", temperature), False, self.normalize)
        return sparse_weights(work, query_reader(self, queries), mass, max_k, positive("tolerance", tolerance), seed)
