"""Rows on their way to disk: cast to the stored type, checked, and joined with their ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import IsthmusError, SpaceError

if TYPE_CHECKING:
    import pyarrow as pa


_CACHED_VALUES = 2**17


def as_stored(
    x: NDArray[Any], dtype: str, name: Callable[[int], str], fault: type[IsthmusError] = SpaceError
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Cast (n, d) floats to the stored type and check that rows are finite and not zero.

    Args:
        x: Embeddings.
        dtype: "float16" or "float32".
        name: Says what and where a row is, for the message.
        fault: What to raise.

    Returns:
        The rows as stored, and their norms (n,).

    Raises:
        SpaceError: A row is not finite, is zero, or does not survive the cast.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.ascontiguousarray(x, dtype=np.dtype(dtype).newbyteorder("<"))
        squares = _squares(stored, np.float64 if dtype == "float32" else np.float32)
    bad = np.flatnonzero(~((squares > 0.0) & np.isfinite(squares)))
    if len(bad):
        row = int(bad[0])
        raise fault(f"{name(row)}: {_row_fault(np.asarray(x[row], np.float64), dtype)}")
    return stored, np.sqrt(squares, dtype=np.float64)


def _squares(x: NDArray[Any], kind: type[np.floating[Any]]) -> NDArray[Any]:
    """Sums of squares of rows, (n,), in a wider type: a stretch at a time, so that the wide copy stays in the cache."""
    rows = max(_CACHED_VALUES // max(x.shape[1], 1), 1)
    wide = np.empty((min(rows, len(x)), x.shape[1]), kind)
    squares = np.empty(len(x), kind)
    for first in range(0, len(x), rows):
        part = wide[: min(rows, len(x) - first)]
        if x.dtype != np.float16 or not _widen_magnitudes(x[first : first + len(part)], part):
            np.copyto(part, x[first : first + len(part)])
        np.einsum("nd,nd->n", part, part, out=squares[first : first + len(part)])
    return squares


def _widen_magnitudes(x: NDArray[Any], out: NDArray[Any]) -> bool:
    """Absolute values of float16 as float32, exactly; False, and `out` is anything, where one is NaN or infinite.

    NumPy converts half precision one number at a time. Here the bits are moved, which compilers do many at a time: the
    ten bits of the fraction and five of the exponent go to where float32 has them, and a factor of 2**112 makes up for
    the other bias of the exponent, for subnormal numbers too.
    """
    bits = x.view(np.uint16) & np.uint16(0x7FFF)
    if bits.size and bits.max() >= 0x7C00:
        return False
    wide = out.view(np.uint32)
    np.copyto(wide, bits)
    wide <<= np.uint32(13)
    out *= np.float32(2.0**112)
    return True


def _row_fault(row: NDArray[np.float64], dtype: str) -> str:
    """What is wrong with a row of embeddings, and what to do."""
    if np.isnan(row).any() or np.isinf(row).any():
        return (
            "the embedding is not finite (NaN or infinity). Expected finite numbers: encode the item again, or leave "
            "the row out."
        )
    if not row.any():
        return "the embedding is zero and has no direction. Encode the item again, or leave the row out."
    return (
        f"values from {np.abs(row).min():.3g} to {np.abs(row).max():.3g} do not fit {dtype}. Store the space as "
        "float32, or scale the embeddings."
    )


def with_ids(ids: pa.Array, metadata: pa.Table | None) -> pa.Table:
    """The metadata table with `id` first, plain strings for dictionaries."""
    import pyarrow as pa

    columns = {"id": ids.cast(pa.string())}
    for field in metadata.schema if metadata is not None else ():
        column = metadata.column(field.name)  # type: ignore[union-attr]
        if field.name != "id":
            columns[field.name] = column.cast(field.type.value_type) if pa.types.is_dictionary(field.type) else column
    return pa.table(columns)
