"""The compressed method: score every row in a low-rank sketch, then do the few that matter in float32.

No row is left out unseen: partition indexes miss nearest rows of real embeddings, which is the error that matters.
Rows whose sketched logit lies within a threshold of the query's largest, and twice what the sketch misses of that
query's scores, are rescored in float32; those that then lie within the threshold are averaged. A threshold, unlike a
number of rows, keeps as many as a query needs. The rows beyond it are together about as heavy as a fixed share of the
last band before it, and lie in the same direction: that band stands in for them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from isthmus.memory.bf16 import pays
from isthmus.memory.exact import Work, empty, rescale, slice_of
from isthmus.memory.partial import Partial
from isthmus.memory.sketch import Sketch

BAND = 2.0
"""Width in logits of the last band before the threshold, whose weight stands in for the tail."""
_QUERIES = 1024
_TILE = 2048
"""Memory rows that meet 1024 queries at a time: 8 MB of scores, which stay cached while they are looked through."""
_LOOK = 512
_SLACK = 2.0
"""Standard deviations of what the sketch misses by which a sketched logit may lie below the threshold."""
_NONE = -1e30
"""The largest logit of no rows: finite, so that differences of it are numbers."""

_Hits: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Found:
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

    def where(self, wanted: torch.Tensor) -> Found:
        """Those of (nnz,) true entries."""
        some = torch.nonzero(wanted)[:, 0]
        queries = self.queries[some]
        return Found(_starts(queries, len(self.starts) - 1), self.columns[some], queries, self.logits[some])


class Scan:
    """One pass of queries over the memory.

    Args:
        work: Keys and temperature.
        sketch: Of the memory and such queries.
        threshold: Logits below a query's largest at which rows stop to matter.
        queries: (q, d) float32.
    """

    def __init__(self, work: Work, sketch: Sketch, threshold: float, queries: torch.Tensor) -> None:
        _hush()
        self.keys, self.sketch = work.keys, sketch
        self.threshold = threshold + _SLACK * sketch.missed(queries)
        self.scaled = queries / work.temperature
        # Rounding to bfloat16 costs a few hundredths of a logit, and what matters is rescored.
        self.dtype = torch.bfloat16 if pays(queries.device, sketch.rank) else torch.float32
        # The last column of a query times the ones in the memory's subtracts the floor: what matters is then positive.
        self.asking = sketch.of_queries(queries)
        self.best = self._first_look()
        self.asking = self.asking.to(self.dtype)
        self.floor = self.best - self.threshold
        self._set_floor(self.asking, self.floor)
        self.kept = 0
        self._buffers = _Buffers()

    def run(self, use: Callable[[slice, int, torch.Tensor, Found], None]) -> None:
        """Scan the memory once and hand the rows found to `use`: queries, first row of the chunk, chunk, found."""
        blocks = [slice(i, min(i + _QUERIES, len(self.best))) for i in range(0, len(self.best), _QUERIES)]
        with _threads(self.scaled.device) as pool:
            for start, chunk in self.keys.chunks():
                sketched = self.sketch.of_memory(chunk).to(self.dtype)

                def step(
                    part: slice, start: int = start, chunk: torch.Tensor = chunk, sketched: torch.Tensor = sketched
                ) -> int:
                    found = self._find(part, chunk, sketched)
                    use(part, start, chunk, found)
                    return len(found.columns)

                self.kept += sum(pool.map(step, blocks) if pool else map(step, blocks))

    def _first_look(self) -> torch.Tensor:
        """Largest sketched logits among a few rows from all over the memory, for a floor to start from."""
        rows = torch.linspace(0, self.keys.n - 1, min(_LOOK, max(1, self.keys.n // 16))).long()
        look = self.sketch.of_memory(self.keys.take(rows))
        parts = [(part @ look.T).amax(dim=1) for part in torch.split(self.asking, 4096)]
        return torch.cat(parts) if parts else self.asking[:, 0]

    @staticmethod
    def _set_floor(asking: torch.Tensor, floor: torch.Tensor) -> None:
        """Put the floor into the queries; what it is rounded to there is the floor."""
        torch.neg(floor, out=floor)
        asking[:, -1] = floor
        torch.neg(asking[:, -1].float(), out=floor)

    def _find(self, part: slice, chunk: torch.Tensor, sketched: torch.Tensor) -> Found:
        tiles = [self._tile(part, sketched[low : low + _TILE], low) for low in range(0, len(chunk), _TILE)]
        queries, columns, scores = (torch.cat(x) for x in zip(*tiles, strict=True))
        # Earlier tiles were held against a best that later ones surpassed.
        keep = torch.nonzero(scores >= self.floor[part][queries])[:, 0]
        keep = keep[_sorted(queries[keep])]
        queries, columns = queries[keep], columns[keep]
        starts = _starts(queries, part.stop - part.start)
        logits = _pair_products(self.scaled[part], chunk, starts, queries, columns)
        return Found(starts, columns, queries, logits)

    def _tile(self, part: slice, sketched: torch.Tensor, low: int) -> _Hits:
        """Rows of a tile that reach their query's floor, which they then raise."""
        asking, best, floor = self.asking[part], self.best[part], self.floor[part]
        buffers = self._buffers.get((len(asking), len(sketched)), asking)
        torch.mm(asking, sketched.T, out=buffers.scores)
        queries, columns, above = _positive(buffers.scores, buffers.over)
        scores = above.add_(floor[queries])
        best.scatter_reduce_(0, queries, scores, "amax")
        torch.sub(best, self.threshold[part], out=floor)
        self._set_floor(asking, floor)
        return queries, columns + low, scores


def compressed_sums(work: Work, queries: torch.Tensor, sketch: Sketch, threshold: float, tail: float) -> Partial:
    """What `exact.partial_sums` gives, from the rows that matter alone.

    Args:
        work: What to average.
        queries: (q, d) float32.
        sketch: Of the memory and such queries.
        threshold: Logits below a query's largest at which rows stop to matter.
        tail: Weight of the rows beyond it, as a share of the last band's.
    """
    scan = Scan(work, sketch, threshold, queries)
    state = empty(work, len(queries), _NONE)

    def add(part: slice, start: int, chunk: torch.Tensor, found: Found) -> None:
        values = [chunk if v is None else v.block(start, start + len(chunk)) for v in work.values]
        block = slice_of(state, part)
        largest = block.shift.clone()
        found.raise_largest(largest)
        rescale(block, largest, moment=True)
        found = found.where(found.logits >= (largest - threshold)[found.queries])
        relative = found.logits - largest[found.queries]
        weights = torch.exp(relative)
        weights += (tail * weights) * (relative < BAND - threshold)
        block.total.add_(found.per_query(weights))
        if block.moment is not None:
            block.moment.add_(found.per_query(weights * found.logits))
        for running, matrix in zip(block.sums, values, strict=True):
            bags = embedding_bag(found.columns, matrix, found.starts[:-1], mode="sum", per_sample_weights=weights)
            running.add_(bags)

    scan.run(add)
    return state


def probe(work: Work, queries: torch.Tensor, sketch: Sketch, threshold: float) -> tuple[float, float]:
    """Rows that are rescored per query, and the weight of the tail as a share of the last band's.

    The weights of bands of logits fall off about geometrically: the ratio of the last two extrapolates to the rest.
    """
    scan = Scan(work, sketch, threshold, queries)
    pieces: list[tuple[torch.Tensor, torch.Tensor]] = []
    largest = torch.full((len(queries),), _NONE, device=queries.device)

    def add(part: slice, start: int, chunk: torch.Tensor, found: Found) -> None:
        found.raise_largest(largest[part])
        pieces.append((found.queries + part.start, found.logits))

    scan.run(add)
    asked, logits = (torch.cat(x) for x in zip(*pieces, strict=True))
    relative = logits - largest[asked]
    weights = torch.exp(relative)
    total = torch.zeros_like(largest).index_add_(0, asked, weights)
    shares = weights / total[asked]
    last, before = (
        float(shares[(relative < high) & (relative >= high - BAND)].sum())
        for high in (BAND - threshold, 2 * BAND - threshold)
    )
    ratio = min(0.5, last / before) if before > 0.0 else 0.0
    return scan.kept / max(1, len(queries)), ratio / (1.0 - ratio)


class _Buffers(threading.local):
    """A thread's scores and their signs: fresh memory for each tile would cost as much as the product in it."""

    def __init__(self) -> None:
        self.size = 0

    def get(self, shape: tuple[int, int], like: torch.Tensor) -> _Buffers:
        """Give `scores` and `over` (bool) that shape, where and as `like` is."""
        needed = shape[0] * shape[1]
        if self.size < needed:
            self.size = needed
            self._scores = torch.empty(needed, dtype=like.dtype, device=like.device)
            self._over = torch.empty(needed, dtype=torch.bool, device=like.device)
        self.scores, self.over = self._scores[:needed].view(shape), self._over[:needed].view(shape)
        return self


def _positive(scores: torch.Tensor, over: torch.Tensor) -> _Hits:
    """Row, column and value of every score that is not negative."""
    if scores.device.type != "cpu":
        rows, columns = torch.nonzero(scores >= 0.0, as_tuple=True)
        return rows, columns, scores[rows, columns].float()
    # The sign of a bfloat16, which numpy does not know, is that of the integer of the same bits.
    plain = scores if scores.dtype == torch.float32 else scores.view(torch.int16)
    # numpy compares and finds positions five times faster than torch on a CPU.
    flat = np.flatnonzero(np.greater_equal(plain.numpy(), plain.numpy().dtype.type(0), out=over.numpy()))
    rows_np, columns_np = np.divmod(flat, scores.shape[1])
    values = torch.from_numpy(plain.numpy().ravel().take(flat)).view(scores.dtype).float()
    return torch.from_numpy(rows_np), torch.from_numpy(columns_np), values


def _starts(queries: torch.Tensor, n: int) -> torch.Tensor:
    """(n + 1,) where the entries of each of n queries start among ascending query numbers."""
    starts = torch.zeros(n + 1, dtype=torch.int64, device=queries.device)
    torch.cumsum(torch.bincount(queries, minlength=n), 0, out=starts[1:])
    return starts


def _sorted(queries: torch.Tensor) -> torch.Tensor:
    """Order that sorts small query numbers, keeping equal ones as they are."""
    if queries.device.type != "cpu":
        return torch.argsort(queries, stable=True)
    return torch.from_numpy(np.argsort(queries.numpy().astype(np.uint16), kind="stable"))


def _pair_products(
    queries: torch.Tensor, keys: torch.Tensor, starts: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """(nnz,) products of the pairs (rows[i], columns[i])."""
    if queries.device.type == "cpu":
        pattern = torch.sparse_csr_tensor(
            starts, columns, torch.zeros(len(columns)), (len(queries), len(keys)), check_invariants=False
        )
        products: torch.Tensor = torch.sparse.sampled_addmm(pattern, queries, keys.T, beta=0.0).values()
        return products
    out = torch.empty(len(columns), device=queries.device)
    for first in range(0, len(columns), 1 << 17):
        part = slice(first, first + (1 << 17))
        out[part] = torch.linalg.vecdot(queries[rows[part]], keys[columns[part]])
    return out


@cache
def _hush() -> None:
    """Let torch say once, unheard, that its sparse tensors are young; it says so once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), torch.zeros(0), (1, 1))


@contextmanager
def _threads(device: torch.device) -> Iterator[ThreadPoolExecutor | None]:
    """A thread per core that torch may use, each working alone on its own queries; none on an accelerator."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
