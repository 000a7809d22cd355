"""Which rows of a sketched memory reach their query's floor: a tile of products at a time, in bytes or floats.

The scan only has to tell rows that matter from those that do not; what matters is rescored in float32. So it may round:
bfloat16 to eight bits of each number, bytes to seven of a query's and eight of a row's, which is a quarter of a logit
in the balanced coordinates of a sketch, and counts as missed by it.
"""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.memory.bf16 import pays

Hits: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query, row and sketched logit of every product that reaches its floor."""
Tiles: TypeAlias = list[tuple[int, Any]]
"""First row and prepared rows of each tile of a chunk."""
_TILE_BITS = 11
_TILE = 1 << _TILE_BITS
"""Memory rows that meet a block of queries at a time: their scores stay cached while they are looked through."""
_STEP = 0.1
"""Logits of one unit of a byte score; what passes 255 of them above the floor is scored again."""
_ZERO, _HIGH = 64, 127
"""A query's bytes are 0 to 127 around 64: sums of two products of such stay in 16 bits, as processors add them up."""
_ENGINES = ("x86", "fbgemm", "onednn")
"""torch's byte products on x86 processors; those of others are no faster than floats."""
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
        floor = -asking[:, -1].float()
        buffers = self._buffers.get((len(asking), len(tile)), asking)
        torch.mm(asking, tile.T, out=buffers.scores)
        queries, rows, above = _positive(buffers.scores, buffers.over)
        return queries, rows, above.add_(floor[queries])


@dataclass(frozen=True)
class _ByteTile:
    """Rows as bytes, packed, with their scale; and in float32, for scores that pass the bytes."""

    packed: Any
    scale: float
    rows: torch.Tensor


class ByteScores:
    """Scores of 8-bit integers, whose sums are exact and of which a byte comes back: a quarter of the memory traffic.

    The floor is subtracted inside the product: to a query's bytes are added digits, to base 127, of minus its floor,
    and to each row's the values of those digits.

    Args:
        asking: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows, for the scale.
        reach: Size of the floors to expect; one far below zero must not pass it.

    Raises:
        RuntimeError: torch cannot multiply bytes on this machine.
    """

    def __init__(self, asking: torch.Tensor, look: torch.Tensor, reach: float) -> None:
        self.asking = asking
        self.scale = _largest(asking) / (_HIGH - _ZERO)
        self._look = _largest(look) / _HIGH
        self.digits = 1 + math.ceil(reach / ((_HIGH - _ZERO) * _HIGH * self.scale * self._look))
        width = asking.shape[1] + self.digits
        self._codes = torch.full((len(asking), -(-width // 4) * 4), _ZERO, dtype=torch.uint8)
        self._codes[:, : asking.shape[1]] = (asking / self.scale).round_().add_(_ZERO).to(torch.uint8)
        noise = self.scale**2 * look.square().sum(1).mean() + self._look**2 * asking.square().sum(1)
        self.missed = (noise / 12.0).sqrt()

    def tiles(self, sketched: torch.Tensor) -> Tiles:
        """Prepare (m, r) sketched rows once for all queries."""
        return [(low, self._tile(sketched[low : low + _TILE])) for low in range(0, len(sketched), _TILE)]

    def _tile(self, rows: torch.Tensor) -> _ByteTile:
        rank = rows.shape[1]
        scale = max(_largest(rows) / _HIGH, self._look)
        codes = torch.zeros((len(rows), self._codes.shape[1]), dtype=torch.int8)
        codes[:, :rank] = (rows / scale).round_().to(torch.int8)
        codes[:, rank] = 1
        codes[:, rank + 1 : rank + self.digits] = _HIGH
        return _ByteTile(torch.ops.quantized.linear_prepack(_quantized(codes, scale, 0), None), scale, rows)

    def hits(self, part: slice, tile: _ByteTile, floor: torch.Tensor) -> Hits:
        """Rows of a tile that reach the (len(part),) floor of their query."""
        codes, unit = self._codes[part], self.scale * tile.scale
        # Half a step lower, since half a step is what rounds up to one.
        left = ((0.5 * _STEP - floor) / unit).round_()
        place = self.asking.shape[1]
        coarse = (left / _HIGH).round_()
        codes[:, place] = torch.sub(left, coarse, alpha=_HIGH).add_(_ZERO).to(torch.uint8)
        for digit in range(place + 1, place + self.digits):
            some = coarse.clamp(_ZERO - _HIGH, _HIGH - _ZERO)
            coarse -= some
            codes[:, digit] = some.add_(_ZERO).to(torch.uint8)
        # A floor that the digits do not reach stays lower: more rows pass it, and their scores say so.
        floor = left.sub_(coarse, alpha=_HIGH).mul_(-unit)
        found = torch.ops.quantized.linear(_quantized(codes, self.scale, _ZERO), tile.packed, _STEP, 0)
        flat = _bytes(found)
        where = _not_zero(flat)
        steps = flat[where]
        queries, rows = _split(where, len(tile.rows))
        scores = torch.from_numpy(steps.astype(np.float32)).mul_(_STEP).add_(floor[queries])
        full = torch.from_numpy(np.flatnonzero(steps == 255))
        if len(full):
            scores[full] = torch.linalg.vecdot(self.asking[part][queries[full]], tile.rows[rows[full]])
        return queries, rows, scores


Scores: TypeAlias = FloatScores | ByteScores


def make_scores(asking: torch.Tensor, look: torch.Tensor, reach: float) -> Scores:
    """The fastest scores on the queries' device.

    Args:
        asking: (q, r) float32 sketched queries.
        look: (n, r) float32 some sketched rows.
        reach: Size of the floors to expect; one far below zero must not pass it.
    """
    kind = product_type(asking.device) if len(asking) else "float32"
    if kind == "int8" and asking.shape[1] >= _ENOUGH:
        return ByteScores(asking, look, reach)
    return FloatScores(asking, torch.bfloat16 if kind == "bf16" else torch.float32)


@cache
def product_type(device: torch.device) -> str:
    """The type in which a device scores soonest: "int8" where torch multiplies bytes as x86 processors do, or a float.

    No stopwatch decides between bytes and floats: a run that is resumed must find the same rows again.
    """
    if device.type == "cpu" and torch.backends.quantized.engine in _ENGINES and _bytes_work():
        return "int8"
    return "bf16" if pays(device) else "float32"


def _bytes_work() -> bool:
    """Whether products of bytes are what they should be."""
    draw = torch.Generator().manual_seed(0)
    asking, rows = (torch.randn((64, 2 * _ENOUGH), generator=draw) for _ in range(2))
    floor = torch.full((64,), 8.0)
    try:
        scores = ByteScores(asking, rows, 100.0)
        queries, columns, found = scores.hits(slice(0, 64), scores.tiles(rows)[0][1], floor)
    except (RuntimeError, AttributeError):
        return False
    expected = asking @ rows.T
    wanted = int((expected >= 9.0).sum())
    return len(found) >= wanted and bool(((found - expected[queries, columns]).abs() < 1.0).all())


def _largest(x: torch.Tensor) -> float:
    return max(float(x.abs().max()), 1e-6)


def _quantized(codes: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """Integers as torch's byte product takes them; it warns that a later torch may not, and then floats are used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: torch.Tensor = torch._make_per_tensor_quantized_tensor(codes, scale, zero)
    return made


def _bytes(quantized: torch.Tensor) -> NDArray[np.uint8]:
    """The integers of a quantised tensor, where they lie, one after another."""
    plain = torch.empty(0, dtype=torch.uint8).set_(quantized.untyped_storage(), 0, (quantized.numel(),), (1,))
    return np.asarray(plain.numpy())


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
