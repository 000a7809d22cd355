"""A low-rank sketch of the scores between queries and a memory, found from both of them.

The score of a query q against a memory row k is a bilinear form, so the best sketch depends on both sides: with the
queries' second moment Q and the memory's covariance K, the error of keeping r directions is the tail of the spectrum
of Q^(1/2) K Q^(1/2). Real contrastive embeddings fill a fraction of their dimensions, and what matters is the error of
the score, not of the vectors, which is why a sketch of the memory alone does worse. The memory mean is
subtracted: it moves all scores of a query alike, which a softmax does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from isthmus.memory.matrix import MatrixReader

_SAMPLE = 4096
"""Rows that the moments are taken of, at least; sixteen times the width if that is more."""
_STEP = 4
_REST = 64
"""Directions beyond the sketch that say how much it misses."""


@dataclass(frozen=True)
class Sketch:
    """Maps under which (queries @ left) @ ((memory - mean) @ right).T approximates logits up to a constant per query.

    A direction is as wide among the queries as among the rows, so that rounding costs both alike.

    Attributes:
        left: (d, r) for queries; holds 1 / temperature.
        right: (d, r) for memory rows.
        shift: (r,) what is added to memory rows: minus the mean's image.
        mean: (d,) of the memory.
        rest: (d, s) under which the length of a query is the standard deviation, in logits, of what the sketch misses
            of its scores; the largest of the directions left out, which are nearly all of it.
        beyond: (d, s) under which a memory row, less the mean, is as long as the sketch misses more of its scores than
            of others': 1 on average.
        residual: The same over all queries.
        chunk_cache: Row residuals and prepared sketch of chunks of a memory that is in RAM itself, by their first row:
            every pass over it wants them.
    """

    left: torch.Tensor
    right: torch.Tensor
    shift: torch.Tensor
    mean: torch.Tensor
    rest: torch.Tensor
    beyond: torch.Tensor
    residual: float
    chunk_cache: dict[int, tuple[torch.Tensor, Any]] = field(default_factory=dict, repr=False)

    @property
    def rank(self) -> int:
        """Directions that are kept."""
        return int(self.left.shape[1])

    def of_queries(self, queries: torch.Tensor) -> torch.Tensor:
        """(q, d) to (q, r)."""
        return queries @ self.left

    def of_memory(self, rows: torch.Tensor) -> torch.Tensor:
        """(m, d) to (m, r)."""
        return torch.addmm(self.shift, rows, self.right)

    def chunks(
        self, keys: MatrixReader, prepare: Callable[[torch.Tensor, torch.Tensor], Any]
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, Any]]:
        """The whole memory, once, as first row, rows, their residuals, and what is prepared of sketch and residuals."""
        for start, chunk in keys.chunks():
            prepared = self.chunk_cache.get(start)
            if prepared is None:
                row_residual = self.row_residual(chunk)
                prepared = row_residual, prepare(self.of_memory(chunk), row_residual)
            if keys.resident:
                self.chunk_cache[start] = prepared
            yield start, chunk, *prepared

    def query_error(self, queries: torch.Tensor) -> torch.Tensor:
        """(q,) standard deviation, in logits, of what the sketch misses of each query's scores."""
        missed: torch.Tensor = torch.linalg.vector_norm(queries @ self.rest, dim=1)
        return missed

    def row_residual(self, rows: torch.Tensor) -> torch.Tensor:
        """(m,) by how much more than of a usual row the sketch misses of the scores of a row; 0 for a usual one.

        Real memories hold a few rows that lie mostly outside the directions that matter to the others.
        """
        missed: torch.Tensor = torch.linalg.vector_norm(rows @ self.beyond - self.mean @ self.beyond, dim=1)
        return missed.sub_(1.0).clamp_(min=0.0)


class Spectrum:
    """The directions of a memory and its queries in the order in which they matter to the scores."""

    def __init__(self, keys: MatrixReader, queries: MatrixReader, temperature: float) -> None:
        self.temperature = temperature
        size = max(_SAMPLE, 16 * keys.dim)
        sample, rows = _spread(queries, size), _spread(keys, size)
        self.mean = rows.mean(dim=0)
        rows = rows - self.mean
        moment = (sample.T @ sample / len(sample)).double()
        covariance = (rows.T @ rows / len(rows)).double()
        # A floor, so that directions that the sampled queries happen not to take are not blown up.
        floor = 1e-4 * moment.diagonal().mean()
        values, vectors = torch.linalg.eigh(moment)
        roots = (values.clamp_(min=0.0) + floor).sqrt()
        # Q^(1/2) and its inverse, then the spectrum of Q^(1/2) K Q^(1/2): see the module.
        root, inverse = vectors * roots @ vectors.T, vectors / roots @ vectors.T
        power, turn = torch.linalg.eigh(root @ covariance @ root)
        turn = turn.flip(1)
        self.left, self.right = inverse @ turn / temperature, root @ turn
        power = power.flip(0).clamp_(min=0.0)
        self.spread = power.sqrt()
        power = power / temperature**2
        self.missed = (power.sum() - power.cumsum(0)).clamp_(min=0.0).sqrt()

    def rank(self, residual: float) -> int:
        """Fewest directions, one short of a multiple of four, that leave at most `residual` logits of error."""
        enough = int((self.missed > residual).sum()) + 1
        return min(len(self.mean), -(-(enough + 1) // _STEP) * _STEP - 1)

    def sketch(self, rank: int) -> Sketch:
        """The sketch of that many directions."""
        # Half of each direction's spread on either side, so that rounding costs queries and rows alike.
        balance = (self.spread[:rank] * self.temperature).sqrt().clamp_(min=1e-6)
        left, right = (self.left[:, :rank] * balance).float(), (self.right[:, :rank] / balance).float()
        shift = -(self.mean @ right)
        some = slice(rank, rank + _REST)
        rest = (self.left[:, some] * self.spread[some]).float()
        beyond = (self.right[:, some] / self.spread[some].norm().clamp_min(1e-6)).float()
        return Sketch(left, right, shift, self.mean, rest, beyond, float(self.missed[rank - 1]))


def _spread(rows: MatrixReader, size: int) -> torch.Tensor:
    """About `size` rows, evenly spread over the matrix in short runs, so that a file is read in few places."""
    if rows.n <= size:
        return rows.block(0, rows.n)
    run = size // 64
    starts = torch.linspace(0, rows.n - run, 64).long().tolist()
    return torch.cat([rows.block(start, start + run) for start in starts])
