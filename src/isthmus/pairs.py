"""Pseudo pairs: rows that say the same in both spaces and all their modalities, made without any real pair.

The rule of both papers (C-MCR section 3.2, Ex-MCR equations 1 and 2), for any spaces, modalities and overlaps:

1. A query in an overlap modality is known in both spaces. Any other query attends to the overlap *in its own space*,
   and the same weights average the row-matched overlap of both spaces.
2. Every modality that only one space has is aggregated from its own memory by the overlap embedding *of its space*.

No similarity ever crosses from one space to the other. Each modality taking its turn as the query is a centric kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.config import RecipeConfig
from isthmus.errors import ConfigError, OverlapError
from isthmus.files import sha256_json
from isthmus.geometry import Array, normalize
from isthmus.memory import MemoryBank, describe
from isthmus.pair_store import PairStore, digest
from isthmus.runtime import numpy_generator

MINIMUM_OVERLAP = 8
"""Below this many shared items nothing can be learned; above it, `inspect` says how good the overlap is."""


AUTO_NEIGHBOURS = 3.0
"""Median effective neighbours that the preset "auto" aims at: the middle of what 0.01 gives in CLIP-like spaces."""
AUTO_SAMPLE = 512
"""Queries that the preset "auto" measures on."""


class Slot(NamedTuple):
    """One modality of one side of a pseudo pair: side 0 is the base or first space, side 1 the leaf or second."""

    side: int
    modality: str


class Kind(NamedTuple):
    """A centric kind: the query, and the overlap modality through which it reaches the other space."""

    query: Slot
    pivot: str


@dataclass(frozen=True)
class Side:
    """The memory of one space, or of a bridge's unified space.

    Attributes:
        name: Of the space, for messages and per-space settings.
        ids: Per modality, the ids of the rows.
        embeddings: Per modality, (n, dim) float32 unit rows.
    """

    name: str
    ids: Mapping[str, Sequence[str]]
    embeddings: Mapping[str, Array]

    @property
    def dim(self) -> int:
        """Width of the space."""
        return int(next(iter(self.embeddings.values())).shape[1])


@dataclass(frozen=True)
class PseudoPairs:
    """A pool of pseudo pairs.

    Attributes:
        slots: What a row holds, base side first.
        columns: Per slot (n, dim) float32, or float16 in a memory map, unit rows.
        composition: Rows per centric kind.
        effective_neighbours: Per aggregation, percentiles of exp(entropy) of the softmax weights; where it may be
            approximate, also how it was done and how far off it was.
    """

    slots: tuple[Slot, ...]
    columns: Mapping[Slot, NDArray[Any]]
    composition: Mapping[str, int]
    effective_neighbours: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns[self.slots[0]])

    def take(self, rows: NDArray[np.int64], device: torch.device) -> dict[Slot, Tensor]:
        """The rows asked for, per slot (batch, dim) float32 unit rows on the device."""
        return {slot: _rows(self.columns[slot], rows).to(device) for slot in self.slots}


def _rows(column: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
    picked = column[rows]
    return torch.from_numpy(picked if picked.dtype == np.float32 else normalize(picked.astype(np.float32)))


def match_overlap(base: Side, leaf: Side, via: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the items of a modality that both sides know, matched by id, in the order of the base.

    Raises:
        OverlapError: The sides share too few ids, or one of them lacks the modality.
    """
    for side in (base, leaf):
        if via not in side.ids:
            raise OverlapError(
                f"space {side.name!r} has no {via!r} (it has {', '.join(side.ids)}). via must name modalities "
                f"that both spaces have."
            )
    row_of = {item: row for row, item in enumerate(leaf.ids[via])}
    found = [(row, row_of[item]) for row, item in enumerate(base.ids[via]) if item in row_of]
    if len(found) < MINIMUM_OVERLAP:
        raise OverlapError(
            f"spaces {base.name!r} and {leaf.name!r} share {len(found):,} of {len(base.ids[via]):,} {via} ids "
            f"({base.name}: {base.ids[via][0]!r}, {leaf.name}: {leaf.ids[via][0]!r}). via={via!r} needs at least "
            f"{MINIMUM_OVERLAP} of the same items encoded by both spaces. Encode one file with both encoders, or give "
            f"ids with --ids."
        )
    both = np.asarray(found, dtype=np.int64)
    return both[:, 0], both[:, 1]


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


def centric_kinds(base: Side, leaf: Side, via: Sequence[str]) -> list[Kind]:
    """Every centric kind of two sides: each overlap modality, then each other modality through each overlap."""
    kinds = [Kind(Slot(0, name), name) for name in via]
    for number, side in enumerate((leaf, base)):
        others = [name for name in side.embeddings if name not in via]
        kinds += [Kind(Slot(1 - number, name), pivot) for name in others for pivot in via]
    return kinds


def describe_kind(kind: Kind, via: Sequence[str], names: Sequence[str]) -> str:
    """Name a kind as people do: "text", or "clap/audio through text"."""
    if kind.query.modality == kind.pivot and kind.query.modality in via:
        return kind.pivot
    return f"{names[kind.query.side]}/{kind.query.modality} through {kind.pivot}"


def choose_kinds(base: Side, leaf: Side, via: Sequence[str], centric: Sequence[str] | None) -> list[Kind]:
    """The kinds that `centric` names: "overlap", modalities, or "base/...", "leaf/..." or a space's name before one.

    Raises:
        ConfigError: A name fits no kind.
    """
    kinds = centric_kinds(base, leaf, via)
    if centric is None:
        return kinds
    sides = (("base", "first", base.name), ("leaf", "second", leaf.name))
    chosen: list[Kind] = []
    for wanted in centric:
        place, _, modality = wanted.rpartition("/")
        if wanted == "overlap":
            chosen += [k for k in kinds if k.query.modality in via and k not in chosen]
            continue
        hits = [k for k in kinds if k.query.modality == modality and (not place or place in sides[k.query.side])]
        if not hits:
            known = ", ".join(dict.fromkeys(k.query.modality for k in kinds))
            raise ConfigError(
                f"centric names {wanted!r}, which is no modality of these spaces. Expected some of {known}."
            )
        chosen += [k for k in hits if k not in chosen]
    return chosen


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
        config: RecipeConfig,
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
        self._content: list[str] = []

    def build(self, kinds: Sequence[Kind], folder: Path | None = None) -> PseudoPairs:
        """Build the pool of `kinds`, in memory or, where a folder is given and the limit is passed, streamed to it."""
        sizes = {kind: len(self._queries(kind)) for kind in kinds}
        total = sum(sizes.values())
        columns = self._columns(total, folder)
        start = 0
        for kind in kinds:
            part = {slot: column[start : start + sizes[kind]] for slot, column in columns.items()}
            self._fill_or_take(kind, part)
            start += sizes[kind]
        return PseudoPairs(self.slots, columns, {self.describe(k): n for k, n in sizes.items()}, self.neighbours)

    def describe(self, kind: Kind) -> str:
        """The kind's name with the spaces' own names in it."""
        return describe_kind(kind, self.via, [side.name for side in self.sides])

    def _columns(self, total: int, folder: Path | None) -> dict[Slot, NDArray[Any]]:
        widths = {slot: self.sides[slot.side].dim for slot in self.slots}
        if folder is None or 4 * total * sum(widths.values()) <= self.config.memory_limit:
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
        key = self._key(kind, columns) if self.store else ""
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

    def _key(self, kind: Kind, columns: Mapping[Slot, NDArray[Any]]) -> str:
        """Hash of all that the pseudo pairs of a kind depend on: embeddings, overlap, queries and settings."""
        if not self._content:
            arrays: list[NDArray[Any]] = [self.sides[s.side].embeddings[s.modality] for s in self.slots]
            self._content = [digest(x) for x in [*arrays, *(rows for both in self.overlap.values() for rows in both)]]
        told = ("preset", "aggregation_temperature", "aggregation_method", "normalize_aggregates", "memory_limit")
        return sha256_json(
            {
                "kind": [*kind.query, kind.pivot],
                "queries": digest(self._queries(kind)),
                "slots": [[*slot, str(columns[slot].dtype)] for slot in self.slots],
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
        slot = kind.query
        if slot in self.shared:
            out = {Slot(side, slot.modality): self.shared[Slot(side, slot.modality)][rows] for side in (0, 1)}
            attending = [name for name in self.via if name != slot.modality]
            # The overlap is known in both spaces; the base's weights serve, since the base is what stays.
            query = Slot(0, slot.modality)
        else:
            out = {slot: self.sides[slot.side].embeddings[slot.modality][rows]}
            attending, query = self.via, slot
        for name in attending:
            both = (Slot(0, name), Slot(1, name))
            averages = self._average(query, out[query], Slot(query.side, name), [self.shared[s] for s in both])
            out.update(zip(both, averages, strict=True))
        for other in self.slots:
            if other not in out:
                pivot = Slot(other.side, kind.pivot)
                out[other] = self._average(pivot, out[pivot], other, None)[0]
        return out

    def _temperature(self, name: str, side: Side, queries: Array, bank: MemoryBank) -> float:
        """The configured temperature; under the preset "auto" the one that gives a typical query a few neighbours."""
        if not self._finds:
            return self.config.temperature_of(side.name)
        if name not in self.neighbours:
            sample = queries[:: max(1, len(queries) // AUTO_SAMPLE)]
            return find_temperature(bank, sample, AUTO_NEIGHBOURS)
        return float(self.neighbours[name]["temperature"])

    def _average(self, asking: Slot, queries: Array, memory: Slot, values: list[Array] | None) -> list[Array]:
        side = self.sides[memory.side]
        if memory not in self._banks:
            keys = self.shared[memory] if memory in self.shared else side.embeddings[memory.modality]
            self._banks[memory] = MemoryBank(keys, device=self.device)
        name = f"{side.name}: {asking.modality} to {memory.modality}"
        temperature = self._temperature(name, side, queries, self._banks[memory])
        found, stats = self._banks[memory].aggregate_with_stats(
            queries, temperature=temperature, values=values, method=self.config.aggregation_method
        )
        low, middle, high = map(float, np.percentile(stats.effective_neighbours, [10, 50, 90]))
        self.neighbours[name] = {"p10": low, "median": middle, "p90": high, "temperature": temperature}
        if self.config.aggregation_method != "exact":
            self.neighbours[name]["aggregation"] = stats.report
            self.notify(f"{name}: {describe(stats.report)}")
        results = found if isinstance(found, list) else [found]
        return [normalize(r) if self.config.normalize_aggregates else r for r in results]
