"""Pseudo pairs made: every centric kind of two sides, held dense or as sparse weights, kept and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.files import sha256_json
from isthmus.core.geometry import Array, aligned, aligned_empty
from isthmus.core.products import arithmetic
from isthmus.core.runtime import numpy_generator
from isthmus.errors import CheckFailed
from isthmus.pairs.aggregation import Aggregation
from isthmus.pairs.cache import Block, PairStore, digest
from isthmus.pairs.columns import Column, Joined
from isthmus.pairs.config import PairConfig
from isthmus.pairs.kinds import Kind, KindPlan, describe_kind, hops_of
from isthmus.pairs.own_aggregation import OwnAggregation
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Side, Slot, match_overlap
from isthmus.pairs.sparse_columns import compose, from_block, to_arrays, weigh_kind

_COPIED = 65536
"""Rows that are copied at a time: a memory map is then never read whole."""
_FORMAT = 2
"""Format of kept blocks; one of another format is made again."""


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
        own: Weights of the user's own in the place of the softmax; pairs are dense then.
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
        own: OwnAggregation | None = None,
    ) -> None:
        self.sides = tuple(
            replace(side, embeddings={name: aligned(rows) for name, rows in side.embeddings.items()})
            for side in (base, leaf)
        )
        self.via, self.config, self.device, self.notify, self.store = list(via), config, device, notify, store
        self.overlap = {name: match_overlap(base, leaf, name) for name in via}
        self.shared: dict[Slot, Array] = {
            Slot(side, name): aligned(self.sides[side].embeddings[name][self.overlap[name][side]])
            for name in via
            for side in (0, 1)
        }
        self.slots = tuple(Slot(side, name) for side in (0, 1) for name in self.sides[side].embeddings)
        self.own = own
        self.aggregation = Aggregation(self.sides, self.shared, config, device=device, notify=notify, own=own)
        self._content: list[str] = []
        self._neighbours: dict[str, dict[str, Any]] = {}
        self._arithmetic: list[dict[str, Any]] = []

    def build(self, kinds: Sequence[Kind], folder: Path | None = None) -> PseudoPairs:
        """Build the pool of `kinds`.

        What is beyond the limit of memory goes into the folder, if one is given: as sparse weights or dense, as
        `pair_storage` says.

        Raises:
            CheckFailed: `pair_storage` is "sparse" and the weights are not.
            DependencyError: The engine is "ray" and it is not installed.
        """
        plans = [self._plan(kind) for kind in kinds]
        self._neighbours, self._arithmetic = {}, []
        rows = sum(map(len, plans))
        dense_bytes = 4 * rows * sum(self._width(slot) for slot in self.slots)
        fits = folder is None or dense_bytes <= self.config.memory_limit
        storage = self._storage(fits)
        with self.aggregation.open():
            if storage == "dense" and fits:
                columns = self._in_memory(plans, rows)
            else:
                if storage == "auto":
                    limit = f"{dense_bytes:,} bytes are over memory_limit ({self.config.memory_limit:,})"
                    self.notify(f"pseudo pairs: {limit}; kept as sparse weights, where these hold")
                # Beside the limit, what is kept must lie somewhere: in the store, or in the folder of this run alone.
                store = self.store or (PairStore(folder) if folder else None)
                parts = [self._part(plan, store, storage) for plan in plans]
                columns = {slot: Joined([part[slot] for part in parts]) for slot in self.slots}
        return PseudoPairs(
            self.slots,
            columns,
            {plan.label: len(plan) for plan in plans},
            self._neighbours,
            identity=sha256_json({"kinds": [plan.key for plan in plans], "storage": storage}),
            arithmetic=self._arithmetic,
        )

    def _storage(self, fits: bool) -> str:
        """ "dense", "sparse", or "auto": sparse, and dense for a kind whose weights are not.

        Weights that are cut are off by up to 1 %: what has to be exact stays dense, and beyond the limit on disk.
        """
        if self.own is not None:
            return "dense"
        wish = self.config.pair_storage
        exact = self.config.engine != "local" or self.config.aggregation_method == "exact"
        return "dense" if wish == "auto" and (fits or exact) else wish

    # What a kind comes down to before anything is averaged

    def _plan(self, kind: Kind) -> KindPlan:
        """Plan of one centric kind: its queries, rows and hops."""
        slot, names = kind.query, [side.name for side in self.sides]
        if slot in self.shared:
            own = {Slot(side, slot.modality): self.shared[Slot(side, slot.modality)] for side in (0, 1)}
        else:
            own = {slot: self.sides[slot.side].embeddings[slot.modality]}
        rows = self._rows(slot, len(own[slot]))
        return KindPlan(
            kind,
            describe_kind(kind, self.via, names),
            rows,
            own,
            hops_of(kind, self.slots, self.via, names),
            self._key(kind, rows),
        )

    def _rows(self, slot: Slot, n: int) -> NDArray[np.int64]:
        """Rows that take their turn as the query."""
        limit = self.config.max_pairs
        if limit is None or n <= limit:
            return np.arange(n)
        return np.sort(numpy_generator(self.config.seed, 3, self.slots.index(slot)).choice(n, limit, replace=False))

    def _key(self, kind: Kind, rows: NDArray[np.int64]) -> str:
        """Hash of all that the pseudo pairs of a kind depend on: embeddings, overlap, queries and settings.

        Of inputs alone: a number that was computed may end in other digits in the next process.
        """
        if not self._content:
            self._content = [self._digest(slot) for slot in self.slots]
            self._content += [digest(rows) for both in self.overlap.values() for rows in both]
        local = self.config.engine == "local"
        return sha256_json(
            {
                "format": _FORMAT,
                "kind": [*kind.query, kind.pivot],
                "queries": digest(rows),
                "slots": [list(slot) for slot in self.slots],
                "spaces": [side.name for side in self.sides],
                "via": self.via,
                "content": self._content,
                "settings": self.config.model_dump(
                    include={"aggregation_temperature", "normalize_aggregates"}, mode="json"
                ),
                "finds temperatures": self.config.preset == "auto",
                "method": self.config.aggregation_method if local else "exact",
                **({"own": self.own.identity} if self.own else {}),
            }
        )

    def _digest(self, slot: Slot) -> str:
        """Hash of a slot's embeddings."""
        side = self.sides[slot.side]
        return side.content.get(slot.modality) or digest(side.embeddings[slot.modality])

    def _width(self, slot: Slot) -> int:
        """Dimension of a slot's space."""
        return self.sides[slot.side].dim

    # Dense

    def _in_memory(self, plans: Sequence[KindPlan], rows: int) -> dict[Slot, Column]:
        """Dense columns of all kinds, one after another; each kind from the store where that has it."""
        columns = {slot: aligned_empty((rows, self._width(slot))) for slot in self.slots}
        start = 0
        for plan in plans:
            part = {slot: column[start : start + len(plan)] for slot, column in columns.items()}
            block = self._load(plan, "dense")
            if block is None:
                block = Block(_named(part), self._fill(plan, part), arithmetic(self.device))
                if self.store:
                    self.store.save(plan.store_key("dense"), block)
            else:
                for slot, column in part.items():
                    column[:] = block.columns[_name(slot)]
            self._note(block)
            start += len(plan)
        return dict(columns)

    def _on_disk(self, plan: KindPlan, store: PairStore | None) -> dict[Slot, Column]:
        """A kind's dense columns, mapped from the store; in memory where there is none."""
        if store is None:
            return self._in_memory([plan], len(plan))
        block = self._load(plan, "dense", store)
        if block is None:
            key = plan.store_key("dense")
            with store.fill(key, {_name(slot): (len(plan), self._width(slot)) for slot in self.slots}) as filled:
                filled.neighbours.update(self._fill(plan, {slot: filled.columns[_name(slot)] for slot in self.slots}))
                filled.arithmetic.update(arithmetic(self.device))
            block = store.load(key)
            assert block is not None
        self._note(block)
        return {slot: block.columns[_name(slot)] for slot in self.slots}

    def _fill(self, plan: KindPlan, columns: Mapping[Slot, NDArray[Any]]) -> dict[str, dict[str, Any]]:
        """Fill the columns of a kind, hop after hop, and return the record of each hop."""
        self.notify(plan.progress)
        # What the queries are is copied, block by block; everything else is averaged, each hop by what is known before.
        for slot, own in plan.own.items():
            for low in range(0, len(plan), _COPIED):
                columns[slot][low : low + _COPIED] = own[plan.rows[low : low + _COPIED]]
        return {
            hop.name: self.aggregation.average(hop, columns[hop.query_slot], [columns[slot] for slot in hop.filled])
            for hop in plan.hops
        }

    # Sparse

    def _part(self, plan: KindPlan, store: PairStore | None, storage: str) -> dict[Slot, Column]:
        """A kind's columns as sparse weights or, where these do not hold and the setting leaves it open, dense."""
        if storage == "dense":
            return self._on_disk(plan, store)
        try:
            return self._sparse(plan, store)
        except CheckFailed as error:
            if storage == "sparse":
                raise
            self.notify(f"pseudo pairs: {plan.label}: kept dense, as {error}")
        return self._on_disk(plan, store)

    def _sparse(self, plan: KindPlan, store: PairStore | None) -> dict[Slot, Column]:
        """A kind's columns with averages as sparse weights, mapped from the store where there is one."""
        block = self._load(plan, "sparse", store)
        weights = from_block(plan, block, self.aggregation) if block else None
        if block is None or weights is None:
            self.notify(plan.progress)
            weights, records = weigh_kind(plan, self.aggregation)
            block = Block(to_arrays(weights), records, arithmetic(self.device))
            if store:
                store.save(plan.store_key("sparse"), block)
                stored = store.load(plan.store_key("sparse"))
                weights = (from_block(plan, stored, self.aggregation) if stored else None) or weights
        self._note(block)
        return compose(plan, weights, self.aggregation)

    # Kept

    def _load(self, plan: KindPlan, form: str, store: PairStore | None = None) -> Block | None:
        """Pseudo pairs of a kind from the store, or None."""
        store = store or self.store
        block = store.load(plan.store_key(form)) if store else None
        # A block of an older run that does not fit is made again, never repaired.
        if block is None or (form == "dense" and not self._whole(plan, block)):
            return None
        if form == "sparse" and from_block(plan, block, self.aggregation) is None:
            return None
        self.notify(f"{plan.progress}, made before")
        return block

    def _whole(self, plan: KindPlan, block: Block) -> bool:
        """Whether a stored block has all columns of a kind in their shapes."""
        shapes = {_name(slot): (len(plan), self._width(slot)) for slot in self.slots}
        return {name: column.shape for name, column in block.columns.items()} == shapes

    def _note(self, block: Block) -> None:
        """Keep the record of a block for the bridge's."""
        self._neighbours |= block.neighbours
        if block.arithmetic not in self._arithmetic:
            self._arithmetic.append(block.arithmetic)


def _name(slot: Slot) -> str:
    """Name of a slot's column in the store."""
    return f"{slot.side}/{slot.modality}"


def _named(columns: Mapping[Slot, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns by their names in the store."""
    return {_name(slot): column for slot, column in columns.items()}
