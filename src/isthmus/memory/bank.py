"""The memory bank: softmax averages, nearest rows and sparse weights over the embeddings of one modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.errors import ConfigError
from isthmus.memory.exact import MEMORY_BLOCK, QUERY_BLOCK, Work, partial_sums
from isthmus.memory.partial import Partial
from isthmus.memory.rows import RESIDENT_BYTES, Matrix, Rows
from isthmus.runtime import resolve_device

METHODS = ("exact", "bf16", "compressed", "auto")


@dataclass
class Stats:
    """What is known of an aggregation beside its result.

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
        self.keys = Rows(embeddings, self.device, unit=normalize, name="memory", resident_bytes=resident_bytes)
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
        method: str = "exact",
        tolerance: float = 0.01,
    ) -> Any:
        """Average memory rows under softmax(queries . keys / temperature).

        Args:
            queries: (q, d); whatever the memory may be given as.
            temperature: Softmax temperature, above 0.
            values: What is averaged: None for the memory itself, an (m, d_v) matrix row-aligned with the memory, or a
                list of such matrices, averaged under the same weights. Taken as they are, never normalised.
            method: "exact", "bf16", "compressed" or "auto".
            tolerance: Largest relative error of an approximate method, as its 99th percentile; over it the exact
                method is used.

        Returns:
            (q, d_v) float32, not normalised: a tensor on the device where the queries are a tensor, else an array.
            A list of them where `values` is a list. `report` tells how it was done.

        Raises:
            ConfigError: An option is out of range or the shapes do not fit.
        """
        results, _ = self._run(queries, temperature, values, method, tolerance, stats=False)
        return results

    def aggregate_with_stats(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        method: str = "exact",
        tolerance: float = 0.01,
    ) -> tuple[Any, Stats]:
        """`aggregate`, and with it each query's effective neighbours and the report of the run."""
        results, neighbours = self._run(queries, temperature, values, method, tolerance, stats=True)
        return results, Stats(np.asarray(neighbours.cpu().numpy(), dtype=np.float32), self.report)

    def partial(
        self,
        queries: Matrix,
        *,
        temperature: float = 0.01,
        values: Matrix | Sequence[Matrix] | None = None,
        stats: bool = True,
    ) -> Partial:
        """The unfinished exact sums of the queries over this memory, to merge with those of other parts of it."""
        wanted, _ = self._values(values)
        work = Work(self.keys, wanted, _positive("temperature", temperature), stats, self.normalize)
        asked = self._queries(queries)
        return partial_sums(work, asked.block(0, asked.n))

    def nearest(self, queries: Matrix, k: int = 1) -> tuple[Any, Any]:
        """The k memory rows of highest cosine, exactly, best first.

        Args:
            queries: (q, d).
            k: Rows per query; at most the memory's rows are returned.

        Returns:
            scores (q, k) float32 and rows (q, k) int64, arrays or tensors as the queries are.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}.")
        asked, k = self._queries(queries), min(k, self.keys.n)
        scores = torch.full((asked.n, k), -torch.inf, device=self.device)
        rows = torch.zeros((asked.n, k), dtype=torch.int64, device=self.device)
        for start, chunk in self.keys.chunks():
            for low in range(0, len(chunk), 4 * MEMORY_BLOCK):
                keys = chunk[low : low + 4 * MEMORY_BLOCK]
                for first in range(0, asked.n, QUERY_BLOCK):
                    part = slice(first, min(first + QUERY_BLOCK, asked.n))
                    found, where = (asked.block(part.start, part.stop) @ keys.T).topk(min(k, len(keys)), dim=1)
                    both = torch.cat([scores[part], found], dim=1)
                    best, order = both.topk(k, dim=1)
                    rows[part] = torch.cat([rows[part], where + (start + low)], dim=1).gather(1, order)
                    scores[part] = best
        return _like(queries, scores), _like(queries, rows)

    def _run(
        self, queries: Matrix, temperature: float, values: Any, method: str, tolerance: float, *, stats: bool
    ) -> tuple[Any, torch.Tensor]:
        if method not in METHODS:
            raise ConfigError(f"unknown method {method!r}. Expected one of {', '.join(METHODS)}.")
        wanted, many = self._values(values)
        work = Work(self.keys, wanted, _positive("temperature", temperature), stats, self.normalize)
        asked = self._queries(queries)
        results = [torch.empty((asked.n, width), device=self.device) for width in work.widths]
        neighbours = torch.ones(asked.n, device=self.device)
        for start in range(0, asked.n, work.pass_queries):
            stop = min(start + work.pass_queries, asked.n)
            partial = partial_sums(work, asked.block(start, stop))
            for out, total in zip(results, partial.sums, strict=True):
                torch.div(total, partial.total[:, None], out=out[start:stop])
            if stats:
                neighbours[start:stop] = partial.effective_neighbours()
        self.report = {"asked": method, "used": "exact", "tolerance": tolerance, "fell_back": None}
        finished = [_like(queries, r) for r in results]
        return (finished if many else finished[0]), neighbours

    def _queries(self, queries: Matrix) -> Rows:
        asked = Rows(queries, self.device, unit=self.normalize, name="queries", resident_bytes=0)
        if asked.dim != self.dim:
            raise ConfigError(
                f"the queries have {asked.dim} dimensions and the memory {self.dim}. Expected the same space."
            )
        return asked

    def _values(self, values: Any) -> tuple[list[Rows | None], bool]:
        many = isinstance(values, (list, tuple))
        given = list(values) if many else [values]
        rows = [
            None if v is None else Rows(v, self.device, unit=False, name="values", resident_bytes=self._resident_bytes)
            for v in given
        ]
        for v in rows:
            if v is not None and v.n != self.keys.n:
                raise ConfigError(
                    f"the values have {v.n} rows and the memory {self.keys.n}. Expected one value per memory row."
                )
        return rows, many


def _positive(name: str, value: float) -> float:
    if not value > 0.0 or value == float("inf"):
        raise ConfigError(f"the {name} must be above 0, got {value}.")
    return float(value)


def _like(given: Any, result: torch.Tensor) -> Any:
    return result if isinstance(given, torch.Tensor) else result.cpu().numpy()
