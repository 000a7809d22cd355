"""Arrays and ids as people hold them in Python: of numpy, torch, pandas, polars and Arrow, to plain numpy and texts."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import IsthmusError

NPY_FAULTS = (
    *(ValueError, SyntaxError, IndexError, KeyError, TypeError, OSError, EOFError, RuntimeError, MemoryError),
    *(OverflowError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What numpy raises of a damaged .npy or .npz: its header is Python text, and a .npz is a zip archive."""


def to_numpy(x: Any) -> NDArray[Any]:
    """Numbers in any usual container as a numpy array, without a copy where that is possible.

    Args:
        x: An array; a torch tensor of any device and type, with or without a gradient; a pandas or polars frame; a
            column of lists of pandas, polars or Arrow; a list of any of these.

    Returns:
        The array; float32 for bfloat16, which numpy does not have, and object where nothing better is there.
    """
    if isinstance(x, np.ndarray):
        return _stacked(x)
    if hasattr(x, "detach") and hasattr(x, "cpu"):
        x = x.detach()
        return np.asarray((x.float() if "bfloat16" in str(x.dtype) else x).cpu().numpy())
    if isinstance(x, list | tuple) and x and hasattr(x[0], "detach"):
        return np.stack([to_numpy(row) for row in x])
    if hasattr(x, "to_pylist") and hasattr(x, "type"):  # Arrow
        return _stacked(np.asarray(x.to_pylist()))
    if hasattr(x, "to_numpy"):  # pandas and polars, frames and columns
        return _stacked(np.asarray(x.to_numpy()))
    return _stacked(np.asarray(x))


def _stacked(x: NDArray[Any]) -> NDArray[Any]:
    """The rows of an array of arrays, as a column of lists gives them, as one array; others as they are."""
    if x.dtype != object or x.ndim != 1 or not len(x) or not hasattr(x[0], "__len__") or isinstance(x[0], str):
        return x
    rows = [np.asarray(row) for row in x]
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else x


def ids_of(ids: Any, what: str, fault: type[IsthmusError]) -> list[str]:
    """Ids as texts: texts as they are, whole numbers spelled out, of any container.

    Args:
        ids: A sequence, or a column of numpy, pandas, polars, torch or Arrow.
        what: What they name, for the message.
        fault: What to raise.

    Raises:
        IsthmusError: An id is neither text nor a whole number, or is empty; its row is named.
    """
    values = _as_list(ids)
    for row, value in enumerate(values):
        if isinstance(value, str) and value:
            continue
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            values[row] = str(int(value))
            continue
        got = f"a {type(value).__name__}" if value != "" else "an empty text"
        raise fault(f"{what}: the id of row {row} is {got}. Expected a text or a whole number as every id.")
    return values


def _as_list(values: Any) -> list[Any]:
    """Values of any container of a table library as a list."""
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(values, name):
            return list(getattr(values, name)())
    return list(values)
