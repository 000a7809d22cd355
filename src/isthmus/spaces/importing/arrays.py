"""Arrays in files of others, read in blocks: .npy, .npz, .safetensors. A header counts only if the size agrees."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.arrays import NPY_FAULTS
from isthmus.errors import ConfigError, FormatError

NAMES = ("embeddings", "embedding", "emb", "vector", "vectors", "values")
"""Names under which an array or a column holds embeddings, in order of preference; the last are of vector stores."""

EACH_ARRAY = "*"
"""Given as the column: each array of a file is one embedding, and its name is the id."""

Columns = dict[str, Callable[[], NDArray[Any]]]
"""Arrays beside the embeddings, by name, each unpacked when it is called."""

_MAPPED_BYTES = 2**26


class EmptyFileError(FormatError):
    """A file of embeddings without a row, which a folder may hold beside others."""


@dataclass(frozen=True)
class ArrayFile:
    """A two-dimensional float array in a file, of which rows can be read without the others.

    Attributes:
        path: The file.
        key: Name of the array inside the file, None in a .npy.
        rows: Number of rows, checked against the file's size.
        dim: Length of a row.
        dtype: Name of the type the file stores: float16, bfloat16, float32 or float64.
        offset: Byte at which the values begin (in the member, for a .npz).
        stored: numpy type of the bytes; for bfloat16 that is unsigned 16-bit.
        fortran: Whether columns are stored one after another.
    """

    path: Path
    key: str | None
    rows: int
    dim: int
    dtype: str
    offset: int
    stored: np.dtype[Any]
    fortran: bool = False

    def blocks(self, start: int, size: int) -> Iterator[NDArray[Any]]:
        """Yield (at most size, dim) float arrays from row `start` on."""
        read = self._member_blocks if self.path.suffix.lower() == ".npz" else self._mapped_blocks
        for block in read(start, size):
            yield _widen(block) if self.dtype == "bfloat16" else block

    def _mapped_blocks(self, start: int, size: int) -> Iterator[NDArray[Any]]:
        """Blocks of a file that can be memory-mapped."""
        span = max(_MAPPED_BYTES // max(self.dim * self.stored.itemsize * size, 1), 1) * size
        for begin in range(start, self.rows, span):
            # Mapped anew now and then, so that pages of a file larger than memory are let go.
            mapped: NDArray[Any] = np.memmap(
                self.path, self.stored, "r", self.offset, (self.rows, self.dim), "F" if self.fortran else "C"
            ).view(np.ndarray)
            for first in range(begin, min(begin + span, self.rows), size):
                yield mapped[first : min(first + size, begin + span)]

    def _member_blocks(self, start: int, size: int) -> Iterator[NDArray[Any]]:
        """Blocks of an array inside a .npz, unpacked as they are read."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as stream:
            _exactly(stream, self.offset, self.path)
            width = self.dim * self.stored.itemsize
            if self.fortran:  # a column store cannot be read by rows from a stream
                whole = np.frombuffer(_exactly(stream, self.rows * width, self.path), self.stored)
                yield np.ascontiguousarray(whole.reshape(self.dim, self.rows).T[start:])
                return
            for first in range(0, self.rows, size):
                count = min(size, self.rows - first)
                block = np.frombuffer(_exactly(stream, count * width, self.path), self.stored).reshape(count, self.dim)
                if first + count > start:
                    yield block[max(start - first, 0) :]


def _widen(block: NDArray[Any]) -> NDArray[np.float32]:
    """bfloat16 as the upper half of float32."""
    wide: NDArray[np.float32] = (block.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _exactly(stream: IO[bytes], count: int, path: Path) -> bytes:
    """So many bytes of a stream, or a fault."""
    try:
        data = stream.read(count)
    except NPY_FAULTS as error:
        raise FormatError(f"{path}: is damaged ({error}). Copy or write the file again.") from error
    if len(data) != count:
        raise FormatError(f"{path}: is cut short, got {len(data):,} of {count:,} bytes. Copy or write the file again.")
    return data


def raw_map(path: Path, shape: str) -> ArrayFile:
    """A file of bare numbers, as numpy.memmap and ndarray.tofile write them, by the shape that the user gives.

    Args:
        path: The file.
        shape: Rows, dim and type, such as "200000x512:float16"; "x512:float16" takes the rows from the file's size.

    Raises:
        FormatError: There is no such file, or it has another size.
        ConfigError: The shape is none.
    """
    match = re.fullmatch(r"(\d*)x(\d+):(float16|float32|float64)", shape.strip())
    if not match or int(match[2]) < 1:
        raise ConfigError(f"the shape {shape!r} is none. Expected ROWSxDIM:TYPE, such as 1000x512:float32.")
    if not path.is_file():
        raise FormatError(f"{path}: is no file. Check the path.")
    dim, kind = int(match[2]), np.dtype(match[3]).newbyteorder("<")
    size = path.stat().st_size
    rows = int(match[1]) if match[1] else size // (dim * kind.itemsize)
    if rows < 1 or rows * dim * kind.itemsize != size:
        raise FormatError(
            f"{path}: has {size:,} bytes, but {rows:,} rows of {dim} {match[3]} are {rows * dim * kind.itemsize:,}. "
            "Give the shape that it was written with."
        )
    return ArrayFile(path, None, rows, dim, match[3], 0, kind)
