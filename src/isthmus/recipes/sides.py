"""The memories of a space or a bridge as one side of pseudo pairs, and what can be said of a bridge from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.core.geometry import Array, modality_gap
from isthmus.errors import BridgeError
from isthmus.pairs.pairs import Side

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

_GAP_ROWS = 4096
"""Rows a modality whose centroid is taken for the gap: its standard error is then below 1/64."""


def space_side(space: Space) -> Side:
    """All modalities of a space, as unit rows in memory."""
    return Side(
        space.name,
        {name: space[name].ids for name in space.modalities},
        {name: space[name].unit() for name in space.modalities},
    )


def bridge_side(bridge: Bridge, via: Sequence[str], places: Mapping[str, str | Path] | None = None) -> Side:
    """A bridge's unified space as a side: its own spaces' memories, projected.

    The spaces that the bridge was built on (a base, or the two that were connected) give their modalities. A leaf gives
    one only where `via` asks for one that they lack, so that leaves can be added in any order to the same effect.

    Args:
        bridge: The base of the next extension.
        via: Overlap modalities that are needed.
        places: Where spaces lie now, by name, for those that moved.

    Raises:
        BridgeError: A space of the bridge is not where it was.
    """
    order = sorted(bridge.spaces, key=lambda space: space.role == "leaf")
    ids: dict[str, Sequence[str]] = {}
    embeddings: dict[str, Array] = {}
    for known in order:
        wanted = [m for m in known.fingerprints if m not in ids and (known.role != "leaf" or m in via)]
        wanted = [m for m in wanted if f"{known.name}/{m}" in bridge.routes]
        if not wanted:
            continue
        space = bridge.open_space(known.name, (places or {}).get(known.name))
        for name in wanted:
            if name in space:
                ids[name] = space[name].ids
                embeddings[name] = bridge.project(space[name], space=known.name)
    if not ids:
        raise BridgeError(
            "the bridge has no space with embeddings to extend from. Give their places: --space NAME=PATH."
        )
    return Side("+".join(space.name for space in order if space.role != "leaf"), ids, embeddings)


def gaps(sides: Mapping[str, Array]) -> dict[str, float]:
    """Modality gaps between every two sets of unit rows, by "one - other"."""
    some = {name: rows[:: max(1, len(rows) // _GAP_ROWS)] for name, rows in sides.items()}
    return {f"{a} - {b}": modality_gap(some[a], some[b]) for a, b in combinations(some, 2)}


def gaps_before(sides: Sequence[Side]) -> dict[str, float]:
    """Modality gaps inside each space as it came, where the spaces cannot be compared with each other yet."""
    found: dict[str, float] = {}
    for side in sides:
        found |= gaps({f"{side.name}/{name}": rows for name, rows in side.embeddings.items()})
    return found


def gaps_after(bridge: Bridge, sides: Mapping[str, Side], there: Mapping[str, Array]) -> dict[str, float]:
    """Modality gaps between all modalities in the unified space.

    Args:
        bridge: What projects.
        sides: By the names of the bridge's spaces, the sides to project.
        there: By name, unit rows that lie in the unified space already.
    """
    projected = dict(there)
    for name, side in sides.items():
        for modality, rows in side.embeddings.items():
            some = rows[:: max(1, len(rows) // _GAP_ROWS)]
            projected[f"{name}/{modality}"] = bridge.project(np.asarray(some), space=name, modality=modality)
    return gaps(projected)
