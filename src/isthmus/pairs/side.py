"""One space as a side of pseudo pairs: its ids and its unit rows, matched with those of the other side by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.spaces.overlap import check_via, match_ids


class Slot(NamedTuple):
    """One modality of one side of a pseudo pair: side 0 is the base or first space, side 1 the leaf or second."""

    side: int
    modality: str


@dataclass(frozen=True)
class Side:
    """The memory of one space, or of a bridge's unified space.

    Attributes:
        name: Name of the space, for messages and per-space settings.
        ids: Per modality, the ids of the rows.
        embeddings: Per modality, (n, dim) float32 unit rows.
        content: Per modality, hash of what its rows were computed from; without one the rows are hashed themselves.
    """

    name: str
    ids: Mapping[str, Sequence[str]]
    embeddings: Mapping[str, Array]
    content: Mapping[str, str] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Width of the space."""
        return int(next(iter(self.embeddings.values())).shape[1])


def match_overlap(base: Side, leaf: Side, via: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the items of a modality that both sides know, matched by id, in the order of the base.

    Raises:
        OverlapError: The sides share too few ids, or one of them lacks the modality.
    """
    check_via((base.name, list(base.ids)), (leaf.name, list(leaf.ids)), via)
    shared = match_ids((base.name, base.ids[via]), (leaf.name, leaf.ids[via]), via)
    return shared.rows_a, shared.rows_b
