"""Pseudo pairs made: every centric kind of two sides, held dense or as sparse weights, kept and taken up again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.files import sha256_json
from isthmus.core.geometry import Array, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.errors import CheckFailed, FormatError
from isthmus.memory import MemoryBank, SparseWeights, describe
from isthmus.memory.matrix import Rows
from isthmus.memory.sharded import Engine, ShardedMemory, open_engine
from isthmus.pairs.cache import PairStore, digest
from isthmus.pairs.columns import Column, Joined, OwnRows, Recomposed, pick, value_rows
from isthmus.pairs.config import PairConfig
from isthmus.pairs.pairs import Kind, PseudoPairs, Side, Slot, describe_kind, match_overlap

AUTO_NEIGHBOURS = 3.0
"""Median effective neighbours that the preset "auto" aims at: the middle of what 0.01 gives in CLIP-like spaces."""
AUTO_SAMPLE = 512
"""Queries that the preset "auto" measures on."""


TOLERANCE = 0.01
"""Relative error that sparse weights may have, at the 99th percentile."""
ASKED_AGAIN = 0.3
"""Share of it for averages that then ask another memory: on real embeddings that hop multiplies the error by four."""


class Step(NamedTuple):
    """An aggregation of a kind: who asks which memory, and the slots that the same weights fill."""

    asking: Slot
    memory: Slot
    filled: tuple[Slot, ...]


def find_temperature(bank: MemoryBank, queries: Array, neighbours: float) -> float:
    """The softmax temperature at which the median query has so many effective neighbours, exp(entropy), by bisection.

    The papers' 0.01 is CLIP's own logit scale; in a space of another scale it means one neighbour, or hundreds.

    Args:
        bank: The memory.
        queries: (n, dim) unit rows to measure on.
        neighbours: Wanted median, above 1.

    Returns:
        A temperature in [0.001, 1].
    """
    low, high = math.log(0.001), 0.0
    for _ in range(12):
        middle = (low + high) / 2
        _, stats = bank.aggregate_with_stats(queries, temperature=math.exp(middle))
        if float(np.median(stats.effective_neighbours)) < neighbours:
            low = middle
        else:
            high = middle
    return round(math.exp((low + high) / 2), 5)


class Builder:
    """Builds the pool of two sides, kind after kind.

    Args:
        base: The base or first side.
        leaf: The leaf or second side.
        via: The overlap modalities.
        config: Temperatures, normalisation, limits, seed.
        device: Where aggregation runs.
        notify: Called with a line of text for every kind that begins.
        store: Where kinds are kept for later runs and taken from if they are there; None makes them anew.
    """

    def __init__(
        self,
        base: Side,
        leaf: Side,
        via: Sequence[str],
        config: PairConfig,
        *,
        device: torch.device,
        notify: Callable[[str], None] = lambda line: None,
        store: PairStore | None = None,
    ) -> None:
        self.sides, self.via, self.config, self.device, self.notify = (base, leaf), list(via), config, device, notify
        self.store = store
        self.overlap = {name: match_overlap(base, leaf, name) for name in via}
        self.shared = {
            Slot(side, name): self.sides[side].embeddings[name][self.overlap[name][side]]
            for name in via
            for side in (0, 1)
        }
        self.slots = tuple(Slot(side, name) for side in (0, 1) for name in self.sides[side].embeddings)
        self.neighbours: dict[str, dict[str, Any]] = {}
        self._banks: dict[Slot, MemoryBank] = {}
        self._values: dict[Slot, Rows] = {}
        self._content: list[str] = []
        self._engine: Engine
        self._shards: Path
        self._sharded: dict[tuple[Slot, ...], ShardedMemory] = {}

    def build(self, kinds: Sequence[Kind], folder: Path | None = None) -> PseudoPairs:
        """Build the pool of `kinds`.

        What is beyond the limit of memory goes into the folder, if one is given: as sparse weights or dense, as
        `pair_storage` says.

        Raises:
            CheckFailed: `pair_storage` is "sparse" and the weights are not.
            DependencyError: The engine is "ray" and it is not installed.
        """
        with ExitStack() as stack:
            if self.config.engine != "local":
                self._engine = stack.enter_context(open_engine(self.config.engine, address=self.config.engine_address))
                self._shards = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isthmus-")))
                self._sharded = {}
            return self._build(kinds, folder)

    def _build(self, kinds: Sequence[Kind], folder: Path | None) -> PseudoPairs:
        sizes = {kind: len(self._queries(kind)) for kind in kinds}
        dense = 4 * sum(sizes.values()) * sum(self.sides[slot.side].dim for slot in self.slots)
        fits = folder is None or dense <= self.config.memory_limit
        asked = self.config.pair_storage if self.config.engine == "local" else "dense"
        if asked == "dense" or (asked == "auto" and fits):
            columns = self._filled(sizes, None if fits else folder)
        else:
            if asked == "auto":
                limit = f"{dense:,} bytes are over memory_limit ({self.config.memory_limit:,})"
                self.notify(f"pseudo pairs: {limit}; kept as sparse weights, where these hold")
            parts = [self._part(kind, n, folder) for kind, n in sizes.items()]
            columns = {slot: Joined([part[slot] for part in parts]) for slot in self.slots}
        return PseudoPairs(self.slots, columns, {self.describe(k): n for k, n in sizes.items()}, self.neighbours)

    def _filled(self, sizes: Mapping[Kind, int], folder: Path | None) -> dict[Slot, Column]:
        """Dense columns of some kinds, one after another."""
        columns = self._columns(sum(sizes.values()), folder)
        start = 0
        for kind, n in sizes.items():
            self._fill_or_take(kind, {slot: column[start : start + n] for slot, column in columns.items()})
            start += n
        return dict(columns)

    def _part(self, kind: Kind, n: int, folder: Path | None) -> dict[Slot, Column]:
        """A kind's columns as sparse weights or, where these do not hold and the setting leaves it open, dense."""
        store = self.store or (PairStore(folder) if folder else None)
        try:
            return self._sparse(kind, store)
        except CheckFailed as error:
            if self.config.pair_storage == "sparse":
                raise
            self.notify(f"pseudo pairs: {self.describe(kind)}: kept dense in float16, as {error}")
        inside = folder / "-".join([*map(str, kind.query), kind.pivot]) if folder else None
        return self._filled({kind: n}, inside)

    def describe(self, kind: Kind) -> str:
        """The kind's name with the spaces' own names in it."""
        return describe_kind(kind, self.via, [side.name for side in self.sides])

    def _columns(self, total: int, folder: Path | None) -> dict[Slot, NDArray[Any]]:
        widths = {slot: self.sides[slot.side].dim for slot in self.slots}
        if folder is None:
            return {slot: np.empty((total, width), dtype=np.float32) for slot, width in widths.items()}
        folder.mkdir(parents=True, exist_ok=True)
        return {
            slot: np.lib.format.open_memmap(
                folder / f"{slot.side}_{slot.modality}.npy", mode="w+", dtype=np.float16, shape=(total, width)
            )
            for slot, width in widths.items()
        }

    def _queries(self, kind: Kind) -> NDArray[np.int64]:
        """Rows that take their turn as the query: of the overlap where the query is an overlap, else of its memory."""
        slot = kind.query
        n = (
            len(self.overlap[slot.modality][0])
            if slot in self.shared
            else len(self.sides[slot.side].ids[slot.modality])
        )
        limit = self.config.max_pairs
        if limit is None or n <= limit:
            return np.arange(n)
        return np.sort(numpy_generator(self.config.seed, 3, self.slots.index(slot)).choice(n, limit, replace=False))

    def _fill_or_take(self, kind: Kind, columns: Mapping[Slot, NDArray[Any]]) -> None:
        """Fill the rows of a kind, from the store where it has them."""
        line = f"pseudo pairs: {self.describe(kind)}, {len(columns[kind.query]):,} queries"
        key = self._key(kind, {slot: str(column.dtype) for slot, column in columns.items()}) if self.store else ""
        found = self.store.take(key) if self.store else None
        if found is None:
            self.notify(line)
            before = dict(self.neighbours)
            self._fill(kind, columns)
            if self.store:
                named = {f"{slot.side}/{slot.modality}": column for slot, column in columns.items()}
                own = {name: stats for name, stats in self.neighbours.items() if before.get(name) is not stats}
                self.store.keep(key, named, own)
            return
        self.notify(f"{line}, made before")
        for slot, column in columns.items():
            column[:] = found[0][f"{slot.side}/{slot.modality}"]
        self.neighbours |= found[1]

    def _key(self, kind: Kind, forms: Mapping[Slot, str]) -> str:
        """Hash of all that the pseudo pairs of a kind depend on: embeddings, overlap, queries, settings and form."""
        if not self._content:
            arrays: list[NDArray[Any]] = [self.sides[s.side].embeddings[s.modality] for s in self.slots]
            self._content = [digest(x) for x in [*arrays, *(rows for both in self.overlap.values() for rows in both)]]
        told = ("preset", "aggregation_temperature", "aggregation_method", "normalize_aggregates", "memory_limit")
        return sha256_json(
            {
                "kind": [*kind.query, kind.pivot],
                "queries": digest(self._queries(kind)),
                "slots": [[*slot, forms[slot]] for slot in self.slots],
                "spaces": [side.name for side in self.sides],
                "via": self.via,
                "content": self._content,
                "settings": self.config.model_dump(include=set(told), mode="json"),
                # Under "auto" a temperature is found on the queries that come first.
                "found": {k: v["temperature"] for k, v in self.neighbours.items()} if self._finds else {},
                "device": self.device.type,
            }
        )

    @property
    def _finds(self) -> bool:
        return self.config.preset == "auto"

    def _fill(self, kind: Kind, columns: Mapping[Slot, NDArray[Any]]) -> None:
        rows = self._queries(kind)
        step = max(4096, self.config.memory_limit // (64 * sum(self.sides[s.side].dim for s in self.slots)))
        for low in range(0, len(rows), step):
            part = rows[low : low + step]
            for slot, block in self._pairs(kind, part).items():
                columns[slot][low : low + len(part)] = block

    def _pairs(self, kind: Kind, rows: NDArray[np.int64]) -> dict[Slot, Array]:
        """All slots of the pseudo pairs that start from some rows of a kind's query."""
        out = {slot: own[rows] for slot, own in self._own(kind).items()}
        for step in self._steps(kind):
            out.update(zip(step.filled, self._average(step, out[step.asking]), strict=True))
        return out

    def _own(self, kind: Kind) -> dict[Slot, Array]:
        """What a kind's queries are: embeddings of one space, or of both where they are an overlap."""
        slot = kind.query
        if slot in self.shared:
            return {Slot(side, slot.modality): self.shared[Slot(side, slot.modality)] for side in (0, 1)}
        return {slot: self.sides[slot.side].embeddings[slot.modality]}

    def _steps(self, kind: Kind) -> list[Step]:
        """The aggregations of a kind, each asking with what is known by then."""
        known = set(self._own(kind))
        # An overlap is known in both spaces; the base's weights serve, since the base is what stays.
        query = Slot(0, kind.query.modality) if kind.query in self.shared else kind.query
        steps = [
            Step(query, Slot(query.side, name), (Slot(0, name), Slot(1, name)))
            for name in self.via
            if Slot(query.side, name) not in known
        ]
        known.update(slot for step in steps for slot in step.filled)
        return steps + [Step(Slot(s.side, kind.pivot), s, (s,)) for s in self.slots if s not in known]

    def _sparse(self, kind: Kind, store: PairStore | None) -> dict[Slot, Column]:
        """A kind's columns with averages as sparse weights, mapped from the store where there is one."""
        line = f"pseudo pairs: {self.describe(kind)}, {len(self._queries(kind)):,} queries"
        key = self._key(kind, dict.fromkeys(self.slots, "sparse")) if store else ""
        weights = self._kept(kind, key, store)
        if weights is not None:
            self.notify(f"{line}, made before")
            return self._compose(kind, weights)
        self.notify(line)
        weights, own = [], {}
        for step in self._steps(kind):
            name, found = self._weigh(step, self._compose(kind, weights)[step.asking])
            weights.append(found)
            own[name] = self.neighbours[name]
        if store:
            arrays = {f"{n}/{part}": getattr(w, part) for n, w in enumerate(weights) for part in ("starts", "entries")}
            store.keep(key, arrays, own)
            weights = self._kept(kind, key, store) or weights
        return self._compose(kind, weights)

    def _kept(self, kind: Kind, key: str, store: PairStore | None) -> list[SparseWeights] | None:
        """A kind's sparse weights from the store, whose effective neighbours are noted; None where it lacks them."""
        found = store.take(key) if store else None
        if found is None:
            return None
        arrays, n = found[0], len(self._queries(kind))
        try:
            weights = [
                SparseWeights(
                    np.asarray(arrays[f"{i}/starts"]), np.asarray(arrays[f"{i}/entries"]), len(self._memory(s.memory))
                )
                for i, s in enumerate(self._steps(kind))
            ]
        except (KeyError, FormatError):
            return None
        if any(len(w) != n for w in weights):
            return None
        self.neighbours |= found[1]
        return weights

    def _compose(self, kind: Kind, weights: Sequence[SparseWeights]) -> dict[Slot, Column]:
        """The columns that a kind's own rows and its first aggregations give."""
        rows = self._queries(kind)
        columns: dict[Slot, Column] = {slot: OwnRows(own, rows) for slot, own in self._own(kind).items()}
        for step, found in zip(self._steps(kind), weights, strict=False):
            for slot in step.filled:
                if slot not in self._values:
                    self._values[slot] = value_rows(self._memory(slot))
                columns[slot] = Recomposed(found, self._values[slot], unit=self.config.normalize_aggregates)
        return columns

    def _memory(self, slot: Slot) -> Array:
        """What is aggregated: the row-matched overlap, or all of a modality that only one space has."""
        return self.shared[slot] if slot in self.shared else self.sides[slot.side].embeddings[slot.modality]

    def _temperature(self, name: str, side: Side, queries: Column, bank: MemoryBank) -> float:
        """The configured temperature; under the preset "auto" the one that gives a typical query a few neighbours."""
        if not self._finds:
            return self.config.temperature_of(side.name)
        if name not in self.neighbours:
            n = int(queries.shape[0])
            sample = pick(queries, np.arange(0, n, max(1, n // AUTO_SAMPLE)))
            return find_temperature(bank, sample, AUTO_NEIGHBOURS)
        return float(self.neighbours[name]["temperature"])

    def _ask(self, step: Step, queries: Column) -> tuple[str, MemoryBank, float, list[Array] | None]:
        """An aggregation's name, memory, temperature, and what is averaged if not the memory alone."""
        side = self.sides[step.memory.side]
        if step.memory not in self._banks:
            self._banks[step.memory] = MemoryBank(self._memory(step.memory), device=self.device)
        bank, name = self._banks[step.memory], f"{side.name}: {step.asking.modality} to {step.memory.modality}"
        values = [self.shared[slot] for slot in step.filled] if len(step.filled) > 1 else None
        return name, bank, self._temperature(name, side, queries, bank), values

    def _average(self, step: Step, queries: Array) -> list[Array]:
        name, bank, temperature, values = self._ask(step, queries)
        if self.config.engine == "local":
            found, stats = bank.aggregate_with_stats(
                queries, temperature=temperature, values=values, method=self.config.aggregation_method
            )
        else:
            found, stats = self._cut_up(step, values).aggregate_with_stats(queries, temperature=temperature)
        self._note(name, stats.effective_neighbours, temperature)
        if stats.report["used"] != "exact" or stats.report["fell_back"]:
            self.neighbours[name]["aggregation"] = stats.report
            self.notify(f"{name}: {describe(stats.report)}")
        results = found if isinstance(found, list) else [found]
        return [normalize(r) if self.config.normalize_aggregates else r for r in results]

    def _cut_up(self, step: Step, values: list[Array] | None) -> ShardedMemory:
        """A memory, with what is averaged, in shards for the engine."""
        asked = (step.memory, *step.filled)
        if asked not in self._sharded:
            folder = self._shards / str(len(self._sharded))
            self._sharded[asked] = ShardedMemory(self._memory(step.memory), values, self._engine, folder)
        return self._sharded[asked]

    def _weigh(self, step: Step, queries: Column) -> tuple[str, SparseWeights]:
        """An aggregation's name and sparse weights."""
        name, bank, temperature, values = self._ask(step, queries)
        tolerance = TOLERANCE * (ASKED_AGAIN if step.memory in self.shared else 1.0)
        found = bank.sparse(queries, temperature=temperature, values=values, tolerance=tolerance)
        self._note(name, found.effective_neighbours(), temperature)
        self.neighbours[name]["weights"] = found.report
        check = found.report["check"]
        self.notify(
            f"{name}: sparse weights, {found.report['rows_per_query']:.1f} rows and {found.nbytes / len(found):,.0f} "
            f"bytes a query, relative error {check['mean']:.1e} on average and {check['p99']:.1e} at the 99th "
            f"percentile of {check['queries']} queries done exactly too"
        )
        return name, found

    def _note(self, name: str, neighbours: NDArray[np.float32], temperature: float) -> None:
        low, middle, high = map(float, np.percentile(neighbours, [10, 50, 90]))
        self.neighbours[name] = {"p10": low, "median": middle, "p90": high, "temperature": temperature}
