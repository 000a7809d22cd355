"""An aggregation of the user's own in the place of the softmax average: weights of a block of queries over a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.errors import ConfigError
from isthmus.pairs.columns import Column, pick

Weigh: TypeAlias = Callable[[Array, Array, float], NDArray[np.floating]]
"""Weights (q, n) of queries (q, dim) over a memory (n, dim), both float32 unit rows, at a temperature."""

_BLOCK = 1024
"""Queries that are weighed at a time."""


@dataclass(frozen=True)
class OwnAggregation:
    """A function of weights with its name.

    Attributes:
        weigh: The function.
        name: What it is called, as `module:name`.
        identity: What kept pseudo pairs are known by: its name and the hash of its source.
    """

    weigh: Weigh
    name: str
    identity: str

    def average(
        self,
        queries: Column,
        memory: Array,
        values: Sequence[Array],
        temperature: float,
        out: Sequence[NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Write the weighted sums of values, one array each, and return the effective neighbours of every query.

        Args:
            queries: (q, dim) unit rows.
            memory: (n, dim) unit rows that the weights are of.
            values: (n, ...) rows that are averaged under them.
            temperature: As configured for the space.
            out: (q, ...) an array for each of `values`.

        Raises:
            ConfigError: The weights have another shape, or are not finite.
        """
        count = int(queries.shape[0])
        neighbours = np.empty(count, np.float32)
        for low in range(0, count, _BLOCK):
            rows = np.arange(low, min(low + _BLOCK, count))
            weights = self._weights(pick(queries, rows), memory, temperature)
            for array, averaged in zip(out, values, strict=True):
                array[low : low + len(rows)] = weights @ np.asarray(averaged, np.float32)
            neighbours[low : low + len(rows)] = _effective(weights)
        return neighbours

    def _weights(self, queries: Array, memory: Array, temperature: float) -> NDArray[np.float32]:
        weights = np.asarray(self.weigh(queries, memory, temperature))
        shape = (len(queries), len(memory))
        if weights.shape != shape or weights.dtype.kind not in "fiu":
            raise ConfigError(
                f"the aggregation {self.name} gave {weights.dtype} of shape {weights.shape}, expected weights {shape}: "
                "a row for each query, a column for each row of the memory."
            )
        if not np.isfinite(weights).all():
            raise ConfigError(f"the aggregation {self.name} gave weights that are NaN or infinite. Expected numbers.")
        return weights.astype(np.float32)


def _effective(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The exponential of the entropy of each row's weights, signs left out."""
    sizes = np.abs(weights.astype(np.float64))
    shares = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-30)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(np.exp(-(shares * logs).sum(axis=1)), dtype=np.float32)
