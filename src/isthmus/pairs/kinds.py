"""Centric kinds: which modality a pseudo pair starts from, and the hops by which it reaches all the others.

The rule of both papers (C-MCR section 3.2, Ex-MCR equations 1 and 2), for any spaces, modalities and overlaps:

1. A query in an overlap modality is known in both spaces. Any other query attends to the overlap *in its own space*,
   and the same weights average the row-matched overlap of both spaces.
2. Every modality that only one space has is aggregated from its own memory by the overlap embedding *of its space*.

No similarity ever crosses from one space to the other. Each modality taking its turn as the query is a centric kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import sha256_json
from isthmus.core.geometry import Array
from isthmus.errors import ConfigError
from isthmus.pairs.side import Side, Slot


class Kind(NamedTuple):
    """A centric kind: the query, and the overlap modality through which it reaches the other space."""

    query: Slot
    pivot: str


class Hop(NamedTuple):
    """Hop of a centric kind: one aggregation.

    Attributes:
        name: As the record of a bridge has it; of hops that start from an average it says from which query.
        query_slot: The slot whose rows are the queries, known by then.
        memory: The slot whose memory they attend to, in the same space.
        filled: The slots that are averaged under those weights, row-aligned with the memory.
    """

    name: str
    query_slot: Slot
    memory: Slot
    filled: tuple[Slot, ...]


@dataclass(frozen=True)
class KindPlan:
    """All that is settled of a kind before anything is averaged.

    Attributes:
        kind: The kind.
        label: Its name, with the spaces' names in it.
        rows: (n,) rows of the query's memory that become pseudo pairs.
        own: What the queries are: embeddings of one space, or of both where they are an overlap.
        hops: The aggregations, each with queries that are known by then.
        key: Hash of the embeddings, the overlap, the rows and the settings that the kind's pseudo pairs depend on.
    """

    kind: Kind
    label: str
    rows: NDArray[np.int64]
    own: Mapping[Slot, Array]
    hops: tuple[Hop, ...]
    key: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def progress(self) -> str:
        """Progress line of a kind."""
        return f"pseudo pairs: {self.label}, {len(self):,} queries"

    def store_key(self, form: str) -> str:
        """Key of a kind's pseudo pairs in the store, dense or sparse."""
        return sha256_json({"kind": self.key, "form": form})


def hops_of(kind: Kind, slots: Sequence[Slot], via: Sequence[str], names: Sequence[str]) -> tuple[Hop, ...]:
    """The hops of a kind, for a pool of these slots through these overlaps, between spaces of these names."""
    shared = kind.query.modality in via
    known = {Slot(side, kind.query.modality) for side in (0, 1)} if shared else {kind.query}
    # An overlap is known in both spaces; the base's weights serve, since the base is what stays.
    query = Slot(0, kind.query.modality) if shared else kind.query
    first = [
        Hop(_hop_name(query, name, names), query, Slot(query.side, name), (Slot(0, name), Slot(1, name)))
        for name in via
        if Slot(query.side, name) not in known
    ]
    reached = known | {slot for hop in first for slot in hop.filled}
    second = []
    for slot in slots:
        if slot not in reached:
            pivot = Slot(slot.side, kind.pivot)
            origin = "" if pivot in known else f" (from {names[query.side]}/{query.modality})"
            second.append(Hop(_hop_name(pivot, slot.modality, names) + origin, pivot, slot, (slot,)))
    return (*first, *second)


def _hop_name(query: Slot, memory: str, names: Sequence[str]) -> str:
    """Name of a hop in records: space, modality of the queries, modality of the memory."""
    return f"{names[query.side]}: {query.modality} to {memory}"


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
