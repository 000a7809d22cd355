"""Pseudo pairs: rows that say the same in both spaces and all their modalities, made without any real pair.

The rule of both papers (C-MCR section 3.2, Ex-MCR equations 1 and 2), for any spaces, modalities and overlaps:

1. A query in an overlap modality is known in both spaces. Any other query attends to the overlap *in its own space*,
   and the same weights average the row-matched overlap of both spaces.
2. Every modality that only one space has is aggregated from its own memory by the overlap embedding *of its space*.

No similarity ever crosses from one space to the other. Each modality taking its turn as the query is a centric kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.core.geometry import Array
from isthmus.errors import ConfigError
from isthmus.pairs.columns import Column, pick_units
from isthmus.spaces.overlap import check_via, match_ids

_MOVED = 65536
"""Rows that go to a device at a time."""


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
        columns: Per slot (n, dim) unit rows: float32, float16 in a memory map, or recomposed when they are taken.
        composition: Rows per centric kind.
        effective_neighbours: Per aggregation, percentiles of exp(entropy) of the softmax weights; where it may be
            approximate, also how it was done and how far off it was.
    """

    slots: tuple[Slot, ...]
    columns: Mapping[Slot, Column]
    composition: Mapping[str, int]
    effective_neighbours: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.columns[self.slots[0]].shape[0])

    def take(self, rows: NDArray[np.int64], device: torch.device) -> dict[Slot, Tensor]:
        """The rows asked for, per slot (batch, dim) float32 unit rows on the device."""
        return {slot: torch.from_numpy(pick_units(self.columns[slot], rows)).to(device) for slot in self.slots}


class OnDevice:
    """A pool whose rows lie on the device that trains on them, all in float32: none crosses over in every epoch.

    Args:
        pairs: The pool.
        device: Where to hold it.
    """

    def __init__(self, pairs: PseudoPairs, device: torch.device) -> None:
        self.columns = {slot: _moved(column, device) for slot, column in pairs.columns.items()}

    def take(self, rows: NDArray[np.int64], device: torch.device) -> dict[Slot, Tensor]:
        """As `PseudoPairs.take`."""
        return {slot: column[torch.from_numpy(rows).to(column.device)] for slot, column in self.columns.items()}


def near(pairs: PseudoPairs, device: torch.device) -> PseudoPairs | OnDevice:
    """The pool on a CUDA device, where half of its free memory holds it; else as it is."""
    if device.type != "cuda":
        return pairs
    size = 4 * sum(int(column.shape[0]) * int(column.shape[1]) for column in pairs.columns.values())
    return OnDevice(pairs, device) if size <= torch.cuda.mem_get_info(device)[0] // 2 else pairs


def _moved(column: Column, device: torch.device) -> Tensor:
    n, width = column.shape
    held = torch.empty((n, width), device=device)
    for start in range(0, n, _MOVED):
        rows = np.arange(start, min(start + _MOVED, n))
        held[start : start + len(rows)] = torch.from_numpy(pick_units(column, rows))
    return held


def match_overlap(base: Side, leaf: Side, via: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the items of a modality that both sides know, matched by id, in the order of the base.

    Raises:
        OverlapError: The sides share too few ids, or one of them lacks the modality.
    """
    check_via((base.name, list(base.ids)), (leaf.name, list(leaf.ids)), via)
    shared = match_ids((base.name, base.ids[via]), (leaf.name, leaf.ids[via]), via)
    return shared.rows_a, shared.rows_b


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
