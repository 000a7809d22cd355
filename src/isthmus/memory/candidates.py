"""Which rows of a sketched memory reach their query's floor: a tile of products at a time, in bytes or floats.

The scan only has to tell rows that matter from those that do not; what matters is rescored in float32. So it may round:
bfloat16 to eight bits of each number, bytes to seven, which is a third of a logit in the balanced coordinates of a
sketch, and counts as missed by it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.products import scan_type
from isthmus.memory.matrix import BLOCK_ROWS

Hits: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query, row, and logits above its floor, of every product that reaches it."""
Tiles: TypeAlias = list[tuple[int, Any]]
"""First row and prepared rows of each tile of a chunk."""
_TILE = BLOCK_ROWS
_TILE_BITS = _TILE.bit_length() - 1
"""Memory rows that meet a block of queries at a time: their scores stay cached while they are looked through."""
_ZERO, _HIGH = 64, 63
"""A row's bytes are 1 to 127 around 64, a query's -63 to 63: the sums of four products of such stay in 16 bits."""
_HITS = 1 << 17


class Bounds(NamedTuple):
    """Bounds that a block of q queries and the rows of a chunk are held to in a scan.

    Attributes:
        best: (q,) largest score of each query that is sure; raised in place.
        margin: (q,) below the best at which rows stop to matter.
        query_error: (q,) what the sketch may miss of a query's scores.
        row_residual: (m,) by how much more it misses of a row's.
    """

    best: torch.Tensor
    margin: torch.Tensor
    query_error: torch.Tensor
    row_residual: torch.Tensor


class FloatScores:
    """Scores in float32 or bfloat16.

    Args:
        sketched: (q, r) float32 sketched queries.
        dtype: Number type of the products.
    """

    def __init__(self, sketched: torch.Tensor, dtype: torch.dtype) -> None:
        # The last column times the ones in the memory's subtracts the floor: what matters is then not negative.
        self.sketched = torch.cat([sketched, sketched.new_zeros(len(sketched), 1)], dim=1).to(dtype)
        self.missed: float | torch.Tensor = 0.0
        self._buffers = _Buffers()

    def tiles(self, sketched: torch.Tensor) -> Tiles:
        """Prepare (m, r) sketched rows once for all queries."""
        whole = torch.cat([sketched, sketched.new_ones(len(sketched), 1)], dim=1).to(self.sketched.dtype)
        return [(low, whole[low : low + _TILE]) for low in range(0, len(whole), _TILE)]

    def find(self, part: slice, tiles: Tiles, bounds: Bounds) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of a chunk that matter to a block of queries: (q + 1,) starts of each query's, and their numbers."""
        best, margin, query_error, row_residual = bounds
        raises = float(margin.min())
        hits = []
        for low, tile in tiles:
            floor = best - margin
            queries, columns, above = self.hits(part, tile, floor)
            columns += low
            high = torch.nonzero(above >= raises)[:, 0]
            # As high as they are said to be, less what they may owe to the sketch.
            sure = above[high] + floor[queries[high]] - query_error[queries[high]] * row_residual[columns[high]]
            best.scatter_reduce_(0, queries[high], sure, "amax")
            hits.append((queries, columns, above, floor))
        # Earlier tiles were held against a best that later ones surpassed.
        now = best - margin
        pieces = []
        for queries, columns, above, floor in hits:
            keep = torch.nonzero(above >= (now - floor)[queries])[:, 0]
            pieces.append((queries[keep], columns[keep]))
        queries, columns = (torch.cat(x) for x in zip(*pieces, strict=True))
        return _entry_starts(queries, len(best)), columns[_sorted(queries)]

    def hits(self, part: slice, tile: torch.Tensor, floor: torch.Tensor) -> Hits:
        """Rows of a tile that reach the (len(part),) floor of their query, which is rounded as the type does."""
        sketched = self.sketched[part]
        sketched[:, -1] = -floor
        buffers = self._buffers.get((len(sketched), len(tile)), sketched)
        torch.mm(sketched, tile.T, out=buffers.scores)
        queries, rows, above = _positive(buffers.scores, buffers.over)
        if sketched.dtype != torch.float32:
            # The product holds the floor as it was rounded; what is reported is relative to the floor itself.
            above -= (sketched[:, -1].float() + floor)[queries]
        return queries, rows, above


@dataclass(frozen=True)
class _ByteTile:
    """Rows as packed bytes, with how many there are and what a unit of them stands for."""

    lanes: NDArray[np.int32]
    rows: int
    scale: float


class ByteScores:
    """Scores of bytes by compiled loops, which compare them with the floors before they leave the registers.

    Each query has its own scale.

    Args:
        sketched: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows, for how much rounding costs.
    """

    def __init__(self, sketched: torch.Tensor, look: torch.Tensor) -> None:
        scales = (sketched.abs().amax(dim=1) / _HIGH).clamp_min(1e-9)
        codes = (sketched / scales[:, None]).round_().to(torch.int8)
        self._scales, self._codes = scales.numpy(), codes.numpy()
        self._zeros = codes.sum(dim=1, dtype=torch.int32).mul_(_ZERO).numpy()
        self._packed: dict[int, NDArray[np.int32]] = {}
        self._per_thread = threading.local()
        # Rounding errors are uniform over one unit, so that their variance is a twelfth of its square.
        noise = scales**2 * look.square().sum(1).mean() + _scale(look) ** 2 * sketched.square().sum(1)
        self.missed = (noise / 12.0).sqrt()

    @staticmethod
    def tiles(sketched: torch.Tensor) -> Tiles:
        """Prepare (m, r) sketched rows once for all queries."""
        return [(low, _byte_tile(sketched[low : low + _TILE])) for low in range(0, len(sketched), _TILE)]

    def find(self, part: slice, tiles: Tiles, bounds: Bounds) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of a chunk that matter to a block of queries: (q + 1,) starts of each query's, and their numbers."""
        from isthmus.core.kernels import scan

        if part.start not in self._packed:
            self._packed[part.start] = scan.pack(self._codes[part], scan.TILE_ROWS)
        sketched = self._packed[part.start], self._scales[part], self._zeros[part]
        best, margin, query_error, row_residual = (x.numpy() for x in bounds)
        hits, count = self._hits(), 0
        for low, tile in tiles:
            limits = row_residual, query_error, margin, best
            while (
                filled := scan.scan_tile(*sketched, tile.lanes, low, tile.rows, tile.scale, *limits, hits, count)
            ) < 0:
                hits = self._hits(longer_than=len(hits[0]), keep=count)
            count = filled
        starts, columns = scan.sort_hits(hits, count, best - margin)
        return torch.from_numpy(starts), torch.from_numpy(columns)

    def _hits(self, longer_than: int = 0, keep: int = 0) -> tuple[NDArray[Any], ...]:
        """A thread's arrays of queries, rows and scores, with the entries that are to be kept."""
        arrays: tuple[NDArray[Any], ...] | None = getattr(self._per_thread, "hits", None)
        if arrays is None or longer_than:
            size = max(_HITS, 2 * longer_than)
            new = tuple(np.empty(size, kind) for kind in (np.int32, np.int32, np.float32))
            if arrays is not None:
                for mine, theirs in zip(new, arrays, strict=True):
                    mine[:keep] = theirs[:keep]
            self._per_thread.hits = arrays = new
        return arrays


Scores: TypeAlias = FloatScores | ByteScores


def make_scores(sketched: torch.Tensor, look: torch.Tensor) -> Scores:
    """The fastest scores on the queries' device.

    Args:
        sketched: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows.
    """
    kind = scan_type(sketched.device)
    if kind == "int8":
        return ByteScores(sketched, look)
    return FloatScores(sketched, torch.bfloat16 if kind == "bf16" else torch.float32)


def _byte_tile(rows: torch.Tensor) -> _ByteTile:
    """Sketched rows packed as bytes for the compiled scan."""
    from isthmus.core.kernels import scan

    scale = _scale(rows)
    codes = (rows / scale).round_().add_(_ZERO).to(torch.uint8)
    return _ByteTile(scan.pack(codes.numpy(), scan.TILE_COLUMNS), len(rows), scale)


def _scale(rows: torch.Tensor) -> float:
    """What one unit of a row's bytes stands for."""
    return max(float(rows.abs().max()), 1e-6) / _HIGH


def _entry_starts(queries: torch.Tensor, n: int) -> torch.Tensor:
    """(n + 1,) start of each query's candidates when all candidates are sorted by query."""
    starts = torch.zeros(n + 1, dtype=torch.int64, device=queries.device)
    torch.cumsum(torch.bincount(queries, minlength=n), 0, out=starts[1:])
    return starts


def _sorted(queries: torch.Tensor) -> torch.Tensor:
    """Order that sorts small query numbers, keeping equal ones as they are."""
    if queries.device.type != "cpu":
        return torch.argsort(queries, stable=True)
    return torch.from_numpy(np.argsort(queries.numpy().astype(np.uint16), kind="stable"))


def _not_zero(flags: NDArray[Any]) -> NDArray[np.int64]:
    """Where bytes are not zero. They are few: eight are looked at together, and then those eight."""
    if len(flags) % 8:
        return np.flatnonzero(flags)
    eights = flags.view(np.uint64)
    words = np.flatnonzero(eights != 0)
    within = np.flatnonzero(eights[words].view(np.uint8) != 0)
    where: NDArray[np.int64] = words[within >> 3]
    where <<= 3
    where |= within & 7
    return where


def _split(where: NDArray[np.int64], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of places in a matrix of that width."""
    if width == _TILE:
        rows, columns = where >> _TILE_BITS, where & (_TILE - 1)
    else:
        rows, columns = np.divmod(where, width)
    return torch.from_numpy(rows), torch.from_numpy(columns)


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


def _positive(scores: torch.Tensor, over: torch.Tensor) -> Hits:
    """Row, column and value of every score that is not negative."""
    if scores.device.type != "cpu":
        rows, columns = torch.nonzero(scores >= 0.0, as_tuple=True)
        return rows, columns, scores[rows, columns].float()
    # The sign of a bfloat16, which numpy does not know, is that of the integer of the same bits.
    plain = (scores if scores.dtype == torch.float32 else scores.view(torch.int16)).numpy()
    np.greater_equal(plain, plain.dtype.type(0), out=over.numpy())
    where = _not_zero(over.numpy().reshape(-1).view(np.uint8))
    values = torch.from_numpy(plain.ravel().take(where)).view(scores.dtype).float()
    return *_split(where, scores.shape[1]), values
