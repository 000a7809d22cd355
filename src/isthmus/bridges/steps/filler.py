"""The filler step: a coordinate that makes rows of different lengths unit rows and leaves their products in proportion.

Scores that are products of rows of any length become cosines: with m the largest length, a row u becomes
[u, 0 ... sqrt(m^2 - |u|^2) ... 0] / m. Rows whose fillers stand in different coordinates have the cosine u . v / m^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isthmus.bridges.steps.step import Arrays, Reader, Step, kind, rename_keys
from isthmus.core.geometry import Array
from isthmus.errors import BridgeError


def _whole(step: Step, key: str, low: int, high: float, reader: Reader) -> int:
    """A whole number of a step, refused outside of its bounds."""
    value: Any = step[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise BridgeError(f"{reader.place}: {key} is {value!r}. Expected a whole number from {low} to {high - 1:.0f}.")
    return value


def _check_filler(step: Step, reader: Reader, dim: int) -> int:
    """Check the step `filler`, which appends coordinates."""
    reader.positive("length", step["length"])
    coordinates = _whole(step, "coordinates", 1, 1 << 16, reader)
    _whole(step, "index", 0, coordinates, reader)
    return dim + coordinates


def _run_filler(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows with constant coordinates behind them."""
    return fill(x, step["length"], step["index"], step["coordinates"])


def fill(x: Array, length: float, index: int, coordinates: int) -> Array:
    """Make rows unit rows by a filler coordinate.

    Args:
        x: (n, d) rows.
        length: The length m; longer rows are scaled to it.
        index: Which of the further coordinates takes the filler.
        coordinates: How many further coordinates there are; the others are 0.

    Returns:
        (n, d + coordinates) float32 unit rows.
    """
    # The sum of squares in float64: where it is close to m^2, float32 would leave a filler of rounding alone.
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64) / length**2
    scale = 1.0 / (length * np.sqrt(np.maximum(squares, 1.0)))
    out = np.zeros((len(x), x.shape[1] + coordinates), dtype=np.float32)
    out[:, : x.shape[1]] = x * scale[:, None].astype(np.float32)
    out[:, x.shape[1] + index] = np.sqrt(np.maximum(1.0 - squares, 0.0))
    return out


KINDS = {"filler": kind("length index coordinates", "", _check_filler, _run_filler, rename_keys())}
