"""The header of a .npy: read and checked against the size of its file, and written at a fixed length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from isthmus.core.arrays import NPY_FAULTS
from isthmus.core.messages import one_line
from isthmus.errors import FormatError

HEADER_BYTES = 128
"""Length of every header that is written, so that it can be filled in after the values."""

_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class NpyHeader:
    """Header of a .npy: its type and shape, and the byte at which its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def bytes(self) -> int:
        """Bytes the whole file must have."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(path: Path) -> NpyHeader:
    """Read the header of a .npy and check it against the file's size.

    Raises:
        FormatError: The file is no .npy, holds pickled objects, or its size is not what its header says.
    """
    with path.open("rb") as stream:
        return check_npy_header(stream, path.stat().st_size, str(path))


def check_npy_header(stream: IO[bytes], size: int, where: str, *, objects: bool = False) -> NpyHeader:
    """Read the header of a .npy that is `size` bytes long, from its first byte on; see `read_npy_header`.

    With `objects` one of pickled objects is described too: whoever wants its values refuses them.
    """
    begin = stream.read(len(_MAGIC))
    if begin != _MAGIC:
        got = "nothing" if not begin else "a pickle" if begin[:1] == b"\x80" else repr(begin)
        raise FormatError(f"{where}: is no .npy file, it begins with {got}. Write it with numpy.save(path, array).")
    try:
        version = (stream.read(1)[0], stream.read(1)[0])
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[min(version[0], 2)]
        shape, fortran, dtype = read(stream)
    except NPY_FAULTS as error:
        raise FormatError(
            f"{where}: the .npy header cannot be read ({one_line(error)}). The file is damaged: write it again."
        ) from error
    header = NpyHeader(shape, dtype, fortran, stream.tell())
    if dtype.hasobject:
        if objects:
            return header
        raise FormatError(
            f"{where}: holds pickled Python objects (dtype {dtype}), which are never loaded. "
            "Expected float16 or float32: stack the rows with numpy.stack and save again."
        )
    if any(length < 0 for length in shape) or header.bytes != size:
        raise FormatError(
            f"{where}: has {size:,} bytes, but its header says shape {shape} of {dtype}, that is {header.bytes:,}. "
            "The file is cut short or damaged: copy or write it again."
        )
    return header


def npy_header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """The header of a .npy, always of one length, so that it can be written after the values."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    return (
        _MAGIC
        + b"\x01\x00"
        + (HEADER_BYTES - 10).to_bytes(2, "little")
        + text.ljust(HEADER_BYTES - 11).encode()
        + b"\n"
    )
