"""The memories of a space or a bridge as one side of pseudo pairs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.bridge import Bridge
from isthmus.core.files import sha256_json
from isthmus.core.geometry import Array, aligned
from isthmus.errors import BridgeError, IsthmusWarning
from isthmus.pairs.cache import digest, digest_blocks
from isthmus.pairs.side import Side, match_overlap
from isthmus.spaces.agreement import LEAST_SAMPLED, NEIGHBOURS, contradiction, neighbour_agreement
from isthmus.spaces.health import sample_rows

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

_SAMPLE = 2_000
"""Shared items whose neighbours are compared: enough to tell chance from anything else, in a blink."""
_HASHED = 65536
"""Rows that are hashed at a time."""


def space_side(space: Space) -> Side:
    """All modalities of a space, as unit rows in memory."""
    return Side(
        space.name,
        {name: space[name].ids for name in space.modalities},
        {name: aligned(space[name].unit()) for name in space.modalities},
        {name: digest_blocks(space[name].blocks(_HASHED)) for name in space.modalities},
    )


def warn_of_sides(base: Side, leaf: Side, via: Sequence[str]) -> None:
    """Warn, before anything is trained, of a leaf with nothing to bring in and of overlaps whose ids contradict."""
    warn_of_leaf(leaf.name, leaf.embeddings, via)
    for name in via:
        rows = match_overlap(base, leaf, name)
        warn_of_overlap((base.name, leaf.name), name, base.embeddings[name], leaf.embeddings[name], rows=rows)


def warn_of_leaf(name: str, modalities: Iterable[str], via: Sequence[str]) -> None:
    """Warn of a leaf that has nothing beside the overlap: a bridge brings in no modality with it."""
    if set(modalities) <= set(via):
        warnings.warn(
            f"space {name!r} has nothing beside the overlap ({', '.join(via)}), so the bridge brings in no new "
            f"modality. Import or encode into it what {name!r} is to be searched for.",
            IsthmusWarning,
            stacklevel=3,
        )


def warn_of_overlap(
    names: tuple[str, str],
    via: str,
    x: Array,
    y: Array,
    *,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> None:
    """Warn of shared items that have their neighbours in common no more often than chance, as `inspect` does.

    Args:
        names: Names of the two spaces.
        via: The modality that they share.
        x: (n, d) unit rows of the first.
        y: (m, e) unit rows of the second.
        rows: Rows of the shared items in both; None is all of them in one order.
    """
    near, far = rows if rows is not None else (np.arange(len(x)), np.arange(len(y)))
    sampled = sample_rows(len(near), _SAMPLE, 0)
    if len(sampled) < LEAST_SAMPLED:
        return
    found = neighbour_agreement(x[near[sampled]], y[far[sampled]], NEIGHBOURS)
    if text := contradiction(f"{names[0]} and {names[1]}, {via}", found):
        warnings.warn(text, IsthmusWarning, stacklevel=3)


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
    content: dict[str, str] = {}
    carried = [bridge.routes, {name: digest(array) for name, array in bridge.arrays.items()}]
    for known in order:
        wanted = [m for m in known.fingerprints if m not in ids and (known.role != "leaf" or m in via)]
        wanted = [m for m in wanted if f"{known.name}/{m}" in bridge.routes]
        if not wanted:
            continue
        space = bridge.open_space(known.name, (places or {}).get(known.name))
        for name in wanted:
            if name in space:
                ids[name] = space[name].ids
                embeddings[name] = aligned(bridge.project(space[name], space=known.name))
                # What is projected may end in other digits in the next process; what it is projected from does not.
                content[name] = sha256_json([*carried, known.name, digest_blocks(space[name].blocks(_HASHED))])
    if not ids:
        raise BridgeError(
            "the bridge has no space with embeddings to extend from. Give their places: --space NAME=PATH."
        )
    return Side("+".join(space.name for space in order if space.role != "leaf"), ids, embeddings, content)
