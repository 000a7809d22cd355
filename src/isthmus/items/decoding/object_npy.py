"""Object arrays in .npy files, which NumPy writes as pickles, read without running anything.

OpenShape, ULIP-2 and Uni3D publish their clouds as dicts in object arrays, which `allow_pickle=False` refuses and
`allow_pickle=True` would run. Here the pickle is taken for what it is, a list of instructions, and only those that
build plain data are followed: nothing is ever imported or called, and the three names that NumPy's arrays need stand
for inert records, out of which arrays are made by `numpy.frombuffer` after their sizes were checked.
This is one module, and a long one, so that all of what handles a stranger's file can be reviewed in one place.
"""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.arrays import NPY_FAULTS
from isthmus.core.messages import one_line
from isthmus.errors import FormatError
from isthmus.items.decoding.object_pickle import ObjectArray, PickleFault, PickleMachine, _finite

MAX_BYTES = 1 << 30
"""Larger files are refused: everything is held in memory."""

_MAGIC = b"\x93NUMPY"


def is_object_npy(data: bytes) -> bool:
    """Whether bytes, the first 256 are enough, begin a .npy of an object array."""
    return data.startswith(_MAGIC) and (b"'|O'" in data[:256] or b"'O'" in data[:256])


def read_object_npy(source: str | Path | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a .npy, of plain numbers or of Python values, without running anything that it holds.

    Args:
        source: The file, or its bytes.
        max_bytes: Larger ones are refused.

    Returns:
        A file of plain numbers: its array. An object array of shape (): its value, made of dict, list, tuple, str, int,
        float, bool, None, bytes and arrays of float16, 32, 64, uint8, int32 and int64. One of shape (n,): a list of n.

    Raises:
        FormatError: It is too large, damaged, no .npy, or holds anything else; what is named.
    """
    name = "an object array" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            return _read(io.BytesIO(source), len(source), max_bytes)
        path = Path(source)
        size = path.stat().st_size
        if not size:
            raise PickleFault("an empty file")
        # A map, unlike a file, never sets memory aside for a length that the file only claims.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            return _read(stream, size, max_bytes)
    except PickleFault as fault:
        raise FormatError(
            f"{name}: cannot be read as a .npy of plain data ({fault}). Nothing in it was run. Fetch it again from its "
            "authors, or convert it once to .npz of plain arrays."
        ) from fault


def _read(stream: Any, size: int, max_bytes: int) -> Any:
    """Value of an object .npy, by the restricted pickle machine."""
    if size > max_bytes:
        raise PickleFault(f"{size:,} bytes, the limit is {max_bytes:,}")
    shape, kind = _header(stream)
    if kind != np.dtype(object):
        stream.seek(0)
        try:
            return _finite(np.load(stream, allow_pickle=False))
        except NPY_FAULTS as error:
            raise PickleFault(f"damaged: {one_line(error)}") from error
    if len(shape) > 1:
        raise PickleFault(f"an object array of shape {shape}, expected () or (n,)")
    value = PickleMachine().run(stream)
    if not isinstance(value, ObjectArray) or value.shape != shape:
        raise PickleFault(f"its header says an object array of shape {shape}, its content is something else")
    if stream.read(1):
        raise PickleFault("bytes are left over after its content")
    return value.items if shape else value.items[0]


def _header(stream: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype that the header of a .npy says; it is a literal, which numpy reads without running it."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise PickleFault(f"version {version} of the format, expected 1.0 or 2.0")
        shape, _, kind = readers[version](stream)
    except PickleFault:
        raise
    except Exception as error:  # of a damaged header numpy's parsers raise nearly anything
        raise PickleFault(f"no .npy: {str(error).splitlines()[0] if str(error) else 'no header'}") from error
    return shape, kind
