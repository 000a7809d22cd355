"""The aggregations behind pseudo pairs: a memory bank a modality, a temperature a hop, done here or by an engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.memory import MemoryBank, SparseWeights, describe
from isthmus.memory.matrix import MatrixReader
from isthmus.memory.sharded import Engine, ShardedMemory, open_engine
from isthmus.pairs.columns import Column, pick, value_rows
from isthmus.pairs.config import PairConfig
from isthmus.pairs.kinds import Hop
from isthmus.pairs.own_aggregation import OwnAggregation
from isthmus.pairs.side import Side, Slot
from isthmus.pairs.temperature import find_temperature

TOLERANCE = 0.01
"""Relative error that sparse weights may have, at the 99th percentile."""
SECOND_HOP = 0.3
"""Share of it for averages that then ask another memory: on real embeddings that hop multiplies the error by four."""
_ROWS = 65536
"""Rows that are scaled, or sent to an engine, at a time."""


class Aggregation:
    """Averages over the memories of two sides.

    Args:
        sides: Base and leaf.
        shared: The row-matched overlap, by slot.
        config: Temperatures, method, normalisation, engine.
        device: Where this process averages.
        notify: Called with a line of text for every average that is not exact.
        own: Weights of the user's own in the place of the softmax; None is the softmax.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        shared: Mapping[Slot, Array],
        config: PairConfig,
        *,
        device: torch.device,
        notify: Callable[[str], None],
        own: OwnAggregation | None = None,
    ) -> None:
        self.own = own
        self.sides, self.shared, self.config = sides, shared, config
        self.device, self.notify = device, notify
        self._banks: dict[Slot, MemoryBank] = {}
        self._values: dict[Slot, MatrixReader] = {}
        self._temperatures: dict[tuple[Slot, Slot], float] = {}
        self._engine: tuple[Engine, Path] | None = None
        self._sharded: dict[Hop, ShardedMemory] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Start the engine that the settings name, and stop it at the end.

        Raises:
            DependencyError: The engine is "ray" and it is not installed.
        """
        if self.config.engine == "local":
            yield
            return
        with (
            open_engine(self.config.engine, address=self.config.engine_address) as engine,
            tempfile.TemporaryDirectory(prefix="isthmus-") as shards,
        ):
            self._engine, self._sharded = (engine, Path(shards)), {}
            yield
            self._engine = None

    def memory(self, slot: Slot) -> Array:
        """What is averaged of a slot: the row-matched overlap, or all of a modality that only one space has."""
        return self.shared[slot] if slot in self.shared else self.sides[slot.side].embeddings[slot.modality]

    def values(self, slot: Slot) -> MatrixReader:
        """The memory of a slot, looked through once, to be recomposed from often."""
        if slot not in self._values:
            self._values[slot] = value_rows(self.memory(slot))
        return self._values[slot]

    def average(self, hop: Hop, queries: Column, out: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
        """Write the averages of a hop, one array a filled slot, and return what its record says.

        All queries of a kind go through one aggregation, however many there are: one method, one check on a sample of
        them all, and percentiles of them all.
        """
        temperature = self.temperature(hop)
        if self.own is not None:
            report, neighbours = self._average_by_own(self.own, hop, queries, temperature, out)
        elif self._engine is None:
            report, neighbours = self._average_here(hop, queries, temperature, out)
        else:
            report, neighbours = self._average_by_engine(hop, queries, temperature, out)
        if self.config.normalize_aggregates:
            for array in out:
                for low in range(0, len(array), _ROWS):
                    array[low : low + _ROWS] = normalize(array[low : low + _ROWS])
        record = _percentiles(neighbours, temperature) | {"method": report["used"]}
        if self.own is None and (report["used"] != "exact" or report["fell_back"]):
            record["aggregation"] = report
            self.notify(f"{hop.name}: {describe(report)}")
        return record

    def weigh(self, hop: Hop, queries: Column) -> tuple[SparseWeights, dict[str, Any]]:
        """The sparse weights of a hop, and what its record says.

        Raises:
            CheckFailed: The weights are not sparse.
        """
        temperature = self.temperature(hop)
        tolerance = TOLERANCE * (SECOND_HOP if hop.memory in self.shared else 1.0)
        weights = self._bank(hop.memory).sparse(
            _Streamed(queries), temperature=temperature, values=self._averaged(hop), tolerance=tolerance
        )
        check = weights.report["check"]
        self.notify(
            f"{hop.name}: sparse weights, {weights.report['rows_per_query']:.1f} rows and "
            f"{weights.nbytes / len(weights):,.0f} bytes a query, relative error {check['mean']:.1e} on average and "
            f"{check['p99']:.1e} at the 99th percentile of {check['queries']} queries done exactly too"
        )
        record = _percentiles(weights.effective_neighbours(), temperature)
        return weights, record | {"method": "sparse", "weights": weights.report}

    def temperature(self, hop: Hop) -> float:
        """The configured temperature; under the preset "auto" the one that gives a typical query a few neighbours.

        It is found on embeddings as they were given, never on averages, so that it does not depend on which kinds of a
        pool were built before.
        """
        side = self.sides[hop.memory.side]
        if self.config.preset != "auto":
            return self.config.temperature_of(side.name)
        key = hop.query_slot, hop.memory
        if key not in self._temperatures:
            self._temperatures[key] = find_temperature(self._bank(hop.memory), self.memory(hop.query_slot))
        return self._temperatures[key]

    def _average_here(
        self, hop: Hop, queries: Column, temperature: float, out: Sequence[NDArray[np.float32]]
    ) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """Averages of one hop by a memory bank of this process."""
        values = self._averaged(hop)
        _, stats = self._bank(hop.memory).aggregate_with_stats(
            _Streamed(queries),
            temperature=temperature,
            values=values,
            method=self.config.aggregation_method,
            out=list(out) if values is not None else out[0],
        )
        return stats.report, stats.effective_neighbours

    def _average_by_own(
        self, own: OwnAggregation, hop: Hop, queries: Column, temperature: float, out: Sequence[NDArray[np.float32]]
    ) -> tuple[dict[str, Any], NDArray[np.float32]]:
        memory = self.memory(hop.memory)
        neighbours = own.average(queries, memory, self._averaged(hop) or [memory], temperature, out)
        return {"used": own.name, "fell_back": None}, neighbours

    def _average_by_engine(
        self, hop: Hop, queries: Column, temperature: float, out: Sequence[NDArray[np.float32]]
    ) -> tuple[dict[str, Any], NDArray[np.float32]]:
        """Averages of one hop by shards in other processes or on Ray."""
        memory, n = self._shards(hop), int(queries.shape[0])
        neighbours, report = np.empty(n, np.float32), {"used": "exact", "fell_back": None}
        for low in range(0, n, _ROWS):
            rows = np.arange(low, min(low + _ROWS, n))
            averages, stats = memory.aggregate_with_stats(pick(queries, rows), temperature=temperature)
            for array, average in zip(out, averages, strict=True):
                array[low : low + len(rows)] = average
            neighbours[low : low + len(rows)], report = stats.effective_neighbours, stats.report
        return report, neighbours

    def _averaged(self, hop: Hop) -> list[Array] | None:
        """What is averaged under a hop's weights; None is the memory alone."""
        return [self.shared[slot] for slot in hop.filled] if len(hop.filled) > 1 else None

    def _bank(self, slot: Slot) -> MemoryBank:
        """Memory bank of a slot, made once."""
        if slot not in self._banks:
            self._banks[slot] = MemoryBank(self.memory(slot), device=self.device)
        return self._banks[slot]

    def _shards(self, hop: Hop) -> ShardedMemory:
        """A memory, with what is averaged, in shards for the engine; hops between the same slots share them."""
        assert self._engine is not None
        key = hop._replace(name="")
        if key not in self._sharded:
            engine, folder = self._engine
            place = folder / str(len(self._sharded))
            self._sharded[key] = ShardedMemory(self.memory(hop.memory), self._averaged(hop), engine, place)
        return self._sharded[key]


class _Streamed:
    """Queries read a block at a time, wherever they lie: those in memory and those on disk then give the same bits."""

    def __init__(self, column: Column) -> None:
        self.column = column

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width of the column."""
        return int(self.column.shape[0]), int(self.column.shape[1])

    def take(self, rows: Any, /) -> Array:
        """Rows of the column by number."""
        return pick(self.column, rows)


def _percentiles(neighbours: NDArray[np.float32], temperature: float) -> dict[str, Any]:
    """Record of effective neighbours: percentiles, temperature, number of queries."""
    low, middle, high = map(float, np.percentile(neighbours, [10, 50, 90]))
    return {"p10": low, "median": middle, "p90": high, "temperature": temperature, "queries": len(neighbours)}
