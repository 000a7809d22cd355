"""The compressed method: score every row in a low-rank sketch, then do the few that matter in float32.

No row is left out unseen: partition indexes miss nearest rows of real embeddings, which is the error that matters.
Rows whose sketched logit lies within a threshold of the query's largest, and twice what the sketch misses of that
query's scores, are rescored in float32; those that then lie within the threshold are averaged. A threshold, unlike a
number of rows, keeps as many as a query needs. The rows beyond it are together about as heavy as a fixed share of the
last band before it, and lie in the same direction: that band stands in for them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeAlias

import torch
from torch.nn.functional import embedding_bag

from isthmus.core import kernels
from isthmus.core.threads import blocks_of, threads
from isthmus.memory.candidates import Bounds, Tiles, make_scores
from isthmus.memory.exact import Work, empty, rescale, slice_of
from isthmus.memory.online_softmax import OnlineSoftmax
from isthmus.memory.sketch import Sketch

BAND = 2.0
"""Width in logits of the last band before the threshold, whose weight stands in for the tail."""
_QUERIES = 2048
"""Queries at most that meet the memory at a time."""
_EVEN = 64
"""Products of a number of queries that this divides are the fastest."""
_LOOK = 512
_SLACK = 2.0
"""Standard deviations of what the sketch misses by which a sketched logit may lie below the threshold."""
_NONE = -1e30
"""The largest logit of no rows: finite, so that differences of it are numbers."""


@dataclass(frozen=True)
class Candidates:
    """Rows that matter to a block of queries, among a chunk of the memory: a sparse matrix of float32 logits.

    Attributes:
        starts: (q + 1,) where each query's entries start.
        columns: (nnz,) rows of the chunk.
        queries: (nnz,) query of each entry, ascending.
        logits: (nnz,) exact logits.
    """

    starts: torch.Tensor
    columns: torch.Tensor
    queries: torch.Tensor
    logits: torch.Tensor

    def per_query(self, values: torch.Tensor) -> torch.Tensor:
        """(q,) sums of (nnz,) values."""
        return values.new_zeros(len(self.starts) - 1).index_add_(0, self.queries, values)

    def raise_largest(self, largest: torch.Tensor) -> None:
        """Bring (q,) largest logits seen before up to those found here, in place."""
        largest.scatter_reduce_(0, self.queries, self.logits, "amax")


Use: TypeAlias = Callable[[slice, int, torch.Tensor, Candidates], None]
"""What is done with rows found: queries, first row of the chunk, chunk, found."""


@dataclass(frozen=True)
class _Chunk:
    """Rows of the memory from `start` on, by how much the sketch misses more of them, and their sketch in tiles."""

    start: int
    rows: torch.Tensor
    row_residual: torch.Tensor
    tiles: Tiles


class Scan:
    """Pass of queries over the sketched memory.

    Args:
        work: Keys and temperature.
        sketch: Sketch of the memory and such queries.
        threshold: Logits below a query's largest at which rows stop to matter.
        queries: (q, d) float32.
        most: Rows found, of all queries together, beyond which the rest of the memory is left alone.
    """

    def __init__(
        self, work: Work, sketch: Sketch, threshold: float, queries: torch.Tensor, most: float = math.inf
    ) -> None:
        _hush()
        self.most = most
        self.keys, self.sketch = work.keys, sketch
        self.queries, self.scale = queries, 1.0 / work.temperature
        sketched, few = sketch.of_queries(queries), self._few_rows()
        look = sketch.of_memory(few)
        # Floors start from a few rows of the whole memory; from nothing, the whole first chunk would pass.
        self.best = torch.cat([(part @ look.T).amax(dim=1) for part in torch.split(sketched, 4096)] or [sketched[:, 0]])
        missed = sketch.query_error(queries)
        self.query_error = _SLACK * missed
        # One direction more lifts rows of which the sketch misses more, by as much more of the query error.
        self.scores = make_scores(_widen(sketched, self.query_error), _widen(look, sketch.row_residual(few)))
        self.margin = threshold + _SLACK * (missed.square() + self.scores.missed**2).sqrt()
        self.hits = 0

    def run(self, use: Use) -> None:
        """Scan the memory once and hand the rows found to `use`."""
        with threads(self.queries.device) as (pool, workers):
            blocks = blocks_of(len(self.best), workers, _QUERIES, _EVEN)
            for start, rows, row_residual, tiles in self.sketch.chunks(self.keys, self._tiles):
                chunk = _Chunk(start, rows, row_residual, tiles)
                step = partial(self._step, chunk, use)
                self.hits += sum(pool.map(step, blocks) if pool else map(step, blocks))
                if self.hits > self.most:
                    return

    def _step(self, chunk: _Chunk, use: Use, part: slice) -> int:
        """Scan one chunk of the memory for one block of queries; the number of rows rescored."""
        candidates = self._find(chunk, part)
        use(part, chunk.start, chunk.rows, candidates)
        return len(candidates.columns)

    def _tiles(self, sketched: torch.Tensor, row_residual: torch.Tensor) -> Tiles:
        """Sketched rows of a chunk, prepared for the scan."""
        return self.scores.tiles(_widen(sketched, row_residual))

    def _few_rows(self) -> torch.Tensor:
        """A few rows from all over the memory, for floors to start from."""
        return self.keys.take(torch.linspace(0, self.keys.n - 1, min(_LOOK, max(1, self.keys.n // 16))).long())

    def _find(self, chunk: _Chunk, part: slice) -> Candidates:
        """Rows of a chunk that may matter to a block of queries, with their exact logits."""
        bounds = Bounds(self.best[part], self.margin[part], self.query_error[part], chunk.row_residual)
        starts, columns = self.scores.find(part, chunk.tiles, bounds)
        queries = torch.repeat_interleave(starts.diff(), output_size=len(columns))
        logits = _pair_products(self.queries[part], chunk.rows, starts, queries, columns, self.scale)
        return Candidates(starts, columns, queries, logits)


def compressed_sums(work: Work, queries: torch.Tensor, sketch: Sketch, threshold: float, tail: float) -> OnlineSoftmax:
    """Softmax sums as `exact.partial_sums` gives them, from the rows that matter alone.

    Args:
        work: What to average.
        queries: (q, d) float32.
        sketch: Sketch of the memory and such queries.
        threshold: Logits below a query's largest at which rows stop to matter.
        tail: Weight of the rows beyond it, as a share of the last band's.
    """
    scan = Scan(work, sketch, threshold, queries)
    state = empty(work, len(queries), _NONE)

    def add(part: slice, start: int, chunk: torch.Tensor, candidates: Candidates) -> None:
        values = [chunk if v is None else v.block(start, start + len(chunk)) for v in work.values]
        block = slice_of(state, part)
        largest = block.shift.clone()
        candidates.raise_largest(largest)
        # Online softmax: what was summed before shrinks to the new largest logit.
        rescale(block, largest, moment=True)
        relative = candidates.logits - largest[candidates.queries]
        # A row within the error of the sketch was rescored too; it counts only where its own logit is high enough.
        weights = torch.exp(relative).mul_(relative >= -threshold)
        # The rows beyond the threshold, which were never seen, are put on those of the last band before it.
        weights += (tail * weights) * (relative < BAND - threshold)
        block.total.add_(candidates.per_query(weights))
        if block.moment is not None:
            block.moment.add_(candidates.per_query(weights * candidates.logits))
        for running, matrix in zip(block.sums, values, strict=True):
            _add_rows(candidates, weights, matrix, running)

    scan.run(add)
    return state


def probe(work: Work, queries: torch.Tensor, sketch: Sketch, threshold: float, most: float) -> tuple[float, float]:
    """Rows that are rescored per query, and the weight of the tail as a share of the last band's.

    The weights of bands of logits fall off about geometrically: the ratio of the last two extrapolates to the rest.
    Where a query needs more than `most` rows it stops there, for it may be nearly all of a large memory.
    """
    scan = Scan(work, sketch, threshold, queries, most * len(queries))
    pieces: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    largest = torch.full((len(queries),), _NONE, device=queries.device)

    def add(part: slice, start: int, chunk: torch.Tensor, candidates: Candidates) -> None:
        candidates.raise_largest(largest[part])
        pieces[start, part.start] = candidates.queries + part.start, candidates.logits

    scan.run(add)
    # Threads end in any order; sums of floats must not, or one seed gives other last digits in every process.
    entries, logits = (torch.cat(x) for x in zip(*(pieces[key] for key in sorted(pieces)), strict=True))
    relative = logits - largest[entries]
    weights = torch.exp(relative)
    total = torch.zeros_like(largest).index_add_(0, entries, weights)
    shares = weights / total[entries]
    last, before = (
        float(shares[(relative < high) & (relative >= high - BAND)].sum())
        for high in (BAND - threshold, 2 * BAND - threshold)
    )
    # A geometric series: the bands beyond weigh ratio, ratio^2, ... of the last one.
    ratio = min(0.5, last / before) if before > 0.0 else 0.0
    return scan.hits / max(1, len(queries)), ratio / (1.0 - ratio)


def _pair_products(
    queries: torch.Tensor,
    keys: torch.Tensor,
    starts: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """(nnz,) products of the pairs (rows[i], columns[i]), times `scale`."""
    if _compiled(queries.device):
        from isthmus.core.kernels import scan

        arrays = (x.numpy() for x in (queries, keys, starts, columns))
        return torch.from_numpy(scan.pair_products(*arrays, scale))
    if queries.device.type == "cpu":
        pattern = torch.sparse_csr_tensor(
            starts, columns, torch.zeros(len(columns)), (len(queries), len(keys)), check_invariants=False
        )
        products: torch.Tensor = torch.sparse.sampled_addmm(pattern, queries, keys.T, beta=0.0, alpha=scale).values()
        return products
    out = torch.empty(len(columns), device=queries.device)
    for first in range(0, len(columns), 1 << 17):
        part = slice(first, first + (1 << 17))
        out[part] = torch.linalg.vecdot(queries[rows[part]], keys[columns[part]])
    return out.mul_(scale)


def _add_rows(candidates: Candidates, weights: torch.Tensor, values: torch.Tensor, sums: torch.Tensor) -> None:
    """Add to (q, d) sums the rows of values that were found, times their weights."""
    if _compiled(sums.device):
        from isthmus.core.kernels import scan

        scan.add_rows(*(x.numpy() for x in (candidates.starts, candidates.columns, weights, values, sums)))
    else:
        sums.add_(
            embedding_bag(candidates.columns, values, candidates.starts[:-1], mode="sum", per_sample_weights=weights)
        )


def _compiled(device: torch.device) -> bool:
    """Whether the scan goes through compiled loops."""
    return device.type == "cpu" and kernels.available()


@cache
def _hush() -> None:
    """Silence torch's warning that CSR tensors are in beta, by letting it come, once in a process, where none hears."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), torch.zeros(0), (1, 1))


def _widen(x: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """(n, d + 1) a matrix with one column more."""
    return torch.cat([x, column[:, None]], dim=1)
