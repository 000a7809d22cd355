"""The memories of a space or a bridge as one side of pseudo pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.bridges.bridge import Bridge
from isthmus.core.files import sha256_json
from isthmus.core.geometry import Array, aligned
from isthmus.errors import BridgeError
from isthmus.pairs.cache import digest, digest_blocks
from isthmus.pairs.side import Side

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

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
