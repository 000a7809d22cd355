"""Row blocks of a matrix, wherever it lies: in memory, in a memory map, in a space on disk or in a list of shards.

Everything the memory bank reads goes through `MatrixReader.block`, which yields float32 rows on the device, so that a
matrix larger than memory is converted and normalised a chunk at a time and never held whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.errors import ConfigError, SpaceError

CHUNK_BYTES = 32 << 20
"""Float32 bytes that are read from a matrix at a time."""
CHUNK_ROWS = 8192
"""Rows that are read at a time on a CPU, whose caches then hold their scores with a block of queries."""
BLOCK_ROWS = 2048
"""Chunks begin at multiples of it, and so does every block of rows that is multiplied or rounded together: how large a
chunk may be, which depends on the memory at hand, then changes no digit of a result."""
RESIDENT_BYTES = 128 << 20
"""Matrices of at most this many float32 bytes are copied once and kept, larger ones are read a chunk at a time."""
_EPS = 1e-12
_UNIT = 2e-6


@runtime_checkable
class StoredRows(Protocol):
    """Stored embeddings as the bank needs them, a shape and rows by number: `isthmus.spaces.embeddings.Embeddings`."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def take(self, rows: Any, /) -> NDArray[np.float32]: ...


Matrix: TypeAlias = "NDArray[Any] | torch.Tensor | StoredRows | Sequence[Any] | Iterable[Any]"
"""A (n, d) array or tensor, a memory map, the embeddings of a space, or several of them one after another."""


class MatrixReader:
    """A (n, d) matrix as float32 row blocks on a device.

    Args:
        matrix: What to read. Float32 rows in memory that need no scaling are used where they lie; everything else is
            converted once and kept when it is small, and converted a chunk at a time when it is not.
        device: Where the blocks go.
        unit: Scale every row to length one.
        name: What the matrix is, for messages ("memory", "queries", "values").
        resident_bytes: Float32 size up to which a converted copy is kept.

    Raises:
        ConfigError: The matrix is not two-dimensional or its shards differ in width.
        SpaceError: A row holds NaN or infinity.
    """

    def __init__(
        self, matrix: Matrix, device: torch.device, *, unit: bool, name: str, resident_bytes: int = RESIDENT_BYTES
    ) -> None:
        self.name, self.device, self.unit = name, device, unit
        self.parts = _parts(matrix)
        self._check_shapes()
        self.starts = np.cumsum([0] + [int(part.shape[0]) for part in self.parts])
        self.n, self.dim = int(self.starts[-1]), int(self.parts[0].shape[1])
        self.tensor: torch.Tensor | None = None
        self._hold(resident_bytes)

    def __len__(self) -> int:
        return self.n

    @property
    def resident(self) -> bool:
        """Whether the whole matrix is held, so that reading it twice costs nothing."""
        return self.tensor is not None

    @property
    def chunk_rows(self) -> int:
        """Rows that are read at a time: whole blocks."""
        most = min(CHUNK_ROWS if self.device.type == "cpu" else self.n, CHUNK_BYTES // (4 * max(1, self.dim)))
        return max(1, most // BLOCK_ROWS) * BLOCK_ROWS

    def block(self, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` as (k, d) float32 on the device; a view where the matrix is held."""
        if self.tensor is not None:
            return self.tensor[start:stop]
        return self._finish(_join([_convert(part, self.device) for part in self._slices(start, stop)]), start)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows numbered in the (k,) integer tensor `rows`, as (k, d) float32 on the device."""
        if self.tensor is not None:
            return self.tensor[rows.to(self.device)]
        wanted = rows.cpu().numpy()
        order = np.argsort(wanted, kind="stable")
        shard = np.searchsorted(self.starts, wanted[order], side="right") - 1
        blocks = [
            _convert(_take(self.parts[part], wanted[order[shard == part]] - self.starts[part]), self.device)
            for part in np.unique(shard)
        ]
        out = torch.empty((len(wanted), self.dim), device=self.device)
        out[torch.from_numpy(order).to(self.device)] = self._finish(_join(blocks), None)
        return out

    def chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The whole matrix, once, as (first row, block) pairs."""
        for start in range(0, self.n, self.chunk_rows):
            yield start, self.block(start, min(start + self.chunk_rows, self.n))

    def _slices(self, start: int, stop: int) -> Iterator[Any]:
        """Pieces of the matrix's parts that cover rows `start` to `stop`."""
        for part, low, high in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True):
            first, last = max(start, int(low)), min(stop, int(high))
            if first < last:
                yield _range(part, first - int(low), last - int(low))

    def _hold(self, resident_bytes: int) -> None:
        """Keep the whole matrix on the device, where it is there already or small enough."""
        if len(self.parts) == 1 and _is_ready(self.parts[0], self.device):
            matrix = torch.as_tensor(self.parts[0])
            if _finite(matrix, self.name, unit=self.unit):
                self.tensor = matrix
        if self.tensor is None and self.n * self.dim * 4 <= resident_bytes:
            matrix = torch.empty((self.n, self.dim), device=self.device)
            for start, block in self.chunks():
                matrix[start : start + len(block)] = block
            self.tensor, self.parts = matrix, [matrix]

    def _finish(self, block: torch.Tensor, start: int | None) -> torch.Tensor:
        """Normalise a block in place (it is a copy of ours) and refuse rows that are not finite."""
        norms = torch.linalg.vector_norm(block, dim=1, keepdim=True)
        _refuse_not_finite(norms, self.name, start)
        return block.div_(norms.clamp_(min=_EPS)) if self.unit else block

    def _check_shapes(self) -> None:
        """Refuse parts that are no (n, d) with one d."""
        if not self.parts:
            raise ConfigError(f"the {self.name} hold no rows. Expected an (n, d) array or a list of them.")
        shapes = [tuple(part.shape) for part in self.parts]
        for number, shape in enumerate(shapes):
            if len(shape) != 2 or shape[1] != shapes[0][1]:
                where = f" in part {number}" if len(shapes) > 1 else ""
                raise ConfigError(f"the {self.name} have shape {shape}{where}. Expected (n, d) with one d.")


def _parts(matrix: Matrix) -> list[Any]:
    """Parts of a matrix: itself, or the arrays of a list."""
    if isinstance(matrix, (np.ndarray, torch.Tensor, StoredRows)):
        return [matrix]
    parts = list(matrix)
    if parts and not hasattr(parts[0], "shape"):
        return [np.asarray(parts, dtype=np.float32)]
    return parts


def _mapped(part: NDArray[Any]) -> bool:
    """Whether an array, or what it is a view of, lies in a memory map."""
    base: Any = part
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def _is_ready(part: Any, device: torch.device) -> bool:
    """Whether an array can be read in place, without a copy."""
    if isinstance(part, torch.Tensor):
        return part.dtype == torch.float32 and part.device == device and part.is_contiguous() and not part.requires_grad
    if not isinstance(part, np.ndarray) or _mapped(part):
        return False
    plain = part.dtype == np.float32 and part.dtype.isnative and part.flags.c_contiguous and part.flags.writeable
    return device.type == "cpu" and bool(plain)


def _range(part: Any, start: int, stop: int) -> Any:
    """Rows `start` to `stop` of an array or of stored rows."""
    return part[start:stop] if isinstance(part, (np.ndarray, torch.Tensor)) else part.take(np.arange(start, stop))


def _take(part: Any, rows: NDArray[np.int64]) -> Any:
    """Rows of an array or of stored rows, by number."""
    if isinstance(part, np.ndarray):
        return part[rows]
    return part[torch.from_numpy(rows).to(part.device)] if isinstance(part, torch.Tensor) else part.take(rows)


def _convert(part: Any, device: torch.device) -> torch.Tensor:
    """A float32 copy of an array or tensor on the device; half precision travels as it is and is widened there."""
    if isinstance(part, torch.Tensor):
        return part.detach().to(device).to(torch.float32, copy=True)
    array = np.asarray(part)
    if array.dtype not in (np.float16, np.float32) or not array.dtype.isnative:
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, order="C")).to(device).to(torch.float32)


def _join(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Blocks one below the other."""
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks))


def _finite(matrix: torch.Tensor, name: str, *, unit: bool) -> bool:
    """Whether rows may be used where they lie: refused if not finite, and of length one where that is asked for."""
    good = True
    for start in range(0, len(matrix), 65536):
        norms = torch.linalg.vector_norm(matrix[start : start + 65536], dim=1, keepdim=True)
        _refuse_not_finite(norms, name, start)
        good = good and (not unit or bool(((norms - 1.0).abs() <= _UNIT).all()))
    return good


def _refuse_not_finite(norms: torch.Tensor, name: str, start: int | None) -> None:
    """Refuse rows with NaN or infinity, by the first such row."""
    good = torch.isfinite(norms[:, 0])
    if not bool(good.all()):
        row = "a row" if start is None else f"row {start + int(torch.nonzero(~good)[0])}"
        raise SpaceError(
            f"{row} of the {name} holds NaN or infinity. Expected finite numbers; import the embeddings again, "
            "which rejects such rows."
        )
