"""Which rows of a sketched memory reach their query's floor: a tile of products at a time, in bytes or floats.

The scan only has to tell rows that matter from those that do not; what matters is rescored in float32. So it may round:
bfloat16 to eight bits of each number, bytes to eight of a query's and seven of a row's, which is a quarter of a logit
in the balanced coordinates of a sketch, and counts as missed by it.
"""

from __future__ import annotations

import platform
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.memory.bf16 import pays

Hits: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query, row, and logits above its floor, of every product that reaches it."""
Tiles: TypeAlias = list[tuple[int, Any]]
"""First row and prepared rows of each tile of a chunk."""
_TILE_BITS = 11
_TILE = 1 << _TILE_BITS
"""Memory rows that meet a block of queries at a time: their scores stay cached while they are looked through."""
_STEP = 0.1
"""Logits of one unit of a byte score; what passes 255 of them above the floor is scored again."""
_ZERO, _HIGH = 64, 127
"""A row's bytes are 1 to 127 around 64: sums of two products of such stay in 16 bits, as processors add them up."""
_MACHINES = ("x86_64", "AMD64")
"""Where torch's byte products are known to be faster than floats."""
_ENOUGH = 32
"""Directions below which a byte product is not faster than a float one."""


class FloatScores:
    """Scores in float32 or bfloat16.

    Args:
        asking: (q, r) float32 sketched queries.
        dtype: Of the products.
    """

    def __init__(self, asking: torch.Tensor, dtype: torch.dtype) -> None:
        # The last column times the ones in the memory's subtracts the floor: what matters is then not negative.
        self.asking = torch.cat([asking, asking.new_zeros(len(asking), 1)], dim=1).to(dtype)
        self.missed = 0.0
        self._buffers = _Buffers()

    def tiles(self, sketched: torch.Tensor) -> Tiles:
        """Prepare (m, r) sketched rows once for all queries."""
        whole = torch.cat([sketched, sketched.new_ones(len(sketched), 1)], dim=1).to(self.asking.dtype)
        return [(low, whole[low : low + _TILE]) for low in range(0, len(whole), _TILE)]

    def hits(self, part: slice, tile: torch.Tensor, floor: torch.Tensor) -> Hits:
        """Rows of a tile that reach the (len(part),) floor of their query, which is rounded as the type does."""
        asking = self.asking[part]
        asking[:, -1] = -floor
        buffers = self._buffers.get((len(asking), len(tile)), asking)
        torch.mm(asking, tile.T, out=buffers.scores)
        queries, rows, above = _positive(buffers.scores, buffers.over)
        if asking.dtype != torch.float32:
            above -= (asking[:, -1].float() + floor)[queries]
        return queries, rows, above


@dataclass(frozen=True)
class _ByteTile:
    """Rows as bytes with their scale; and in float32, for scores that pass the bytes."""

    codes: torch.Tensor
    scale: float
    rows: torch.Tensor


class ByteScores:
    """Scores of 8-bit integers, whose sums are exact and of which a byte comes back: a quarter of the memory traffic.

    Each query has its own scale, and its floor is subtracted before the sums are rounded to bytes.

    Args:
        asking: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows, for how much rounding costs.

    Raises:
        RuntimeError: torch cannot multiply bytes on this machine.
    """

    def __init__(self, asking: torch.Tensor, look: torch.Tensor) -> None:
        self.asking = asking
        self._scales = (asking.abs().amax(dim=1) / _HIGH).clamp_min(1e-9)
        self._zeros = torch.zeros(len(asking), dtype=torch.int64)
        self._codes = torch.zeros((len(asking), _padded(asking.shape[1])), dtype=torch.int8)
        self._codes[:, : asking.shape[1]] = (asking / self._scales[:, None]).round_().to(torch.int8)
        self._packed: dict[int, torch.Tensor] = {}
        noise = self._scales**2 * look.square().sum(1).mean() + _scale(look) ** 2 * asking.square().sum(1)
        self.missed = (noise / 12.0).sqrt()

    @staticmethod
    def tiles(sketched: torch.Tensor) -> Tiles:
        """Prepare (m, r) sketched rows once for all queries."""
        return [(low, _byte_tile(sketched[low : low + _TILE])) for low in range(0, len(sketched), _TILE)]

    def hits(self, part: slice, tile: _ByteTile, floor: torch.Tensor) -> Hits:
        """Rows of a tile that reach the (len(part),) floor of their query."""
        if part.start not in self._packed:
            self._packed[part.start] = torch.ops.onednn.qlinear_prepack(self._codes[part], list(tile.codes.shape))
        packed, scales, zeros = self._packed[part.start], self._scales[part], self._zeros[part]
        # Half a step lower, since half a step is what rounds up to one.
        product = (tile.codes, tile.scale, _ZERO, packed, scales, zeros, 0.5 * _STEP - floor)
        found = torch.ops.onednn.qlinear_pointwise(*product, _STEP, 0, torch.uint8, "none", [], "")
        flat = found.numpy().reshape(-1)
        where = _not_zero(flat)
        steps = flat[where]
        rows, queries = _split(where, len(floor))
        above = torch.from_numpy(steps.astype(np.float32)).mul_(_STEP)
        full = torch.from_numpy(np.flatnonzero(steps == 255))
        if len(full):
            own = queries[full]
            above[full] = torch.linalg.vecdot(self.asking[part][own], tile.rows[rows[full]]).sub_(floor[own])
        return queries, rows, above


Scores: TypeAlias = FloatScores | ByteScores


def make_scores(asking: torch.Tensor, look: torch.Tensor) -> Scores:
    """The fastest scores on the queries' device.

    Args:
        asking: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows.
    """
    kind = product_type(asking.device)
    if kind == "int8" and asking.shape[1] >= _ENOUGH:
        return ByteScores(asking, look)
    return FloatScores(asking, torch.bfloat16 if kind == "bf16" else torch.float32)


@cache
def product_type(device: torch.device) -> str:
    """The type in which a device scores soonest: "int8" where torch multiplies bytes as x86 processors do, or a float.

    No stopwatch decides between bytes and floats: a run that is resumed must find the same rows again.
    """
    if device.type == "cpu" and platform.machine() in _MACHINES and _bytes_work():
        return "int8"
    return "bf16" if pays(device) else "float32"


def _bytes_work() -> bool:
    """Whether products of bytes are what they should be."""
    draw = torch.Generator().manual_seed(0)
    asking, rows = (torch.randn((64, 2 * _ENOUGH), generator=draw) for _ in range(2))
    floor = torch.full((64,), 8.0)
    try:
        scores = ByteScores(asking, rows)
        queries, columns, above = scores.hits(slice(0, 64), scores.tiles(rows)[0][1], floor)
    except (RuntimeError, AttributeError):
        return False
    expected = asking @ rows.T
    wanted = int((expected >= 9.0).sum())
    return len(above) >= wanted and bool(((above + 8.0 - expected[queries, columns]).abs() < 1.0).all())


def _byte_tile(rows: torch.Tensor) -> _ByteTile:
    scale = _scale(rows)
    codes = torch.full((len(rows), _padded(rows.shape[1])), _ZERO, dtype=torch.uint8)
    codes[:, : rows.shape[1]] = (rows / scale).round_().add_(_ZERO).to(torch.uint8)
    return _ByteTile(codes, scale, rows)


def _scale(rows: torch.Tensor) -> float:
    """What one unit of a row's bytes stands for."""
    return max(float(rows.abs().max()), 1e-6) / (_HIGH - _ZERO)


def _padded(width: int) -> int:
    """Bytes are multiplied four at a time."""
    return -(-width // 4) * 4


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
