"""Which space of a bridge: one that has a modality, the one that embeddings belong to, those it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isthmus.bridges.fingerprint import bridge_fingerprint, unified_fingerprint
from isthmus.bridges.member import BridgeSpace, EmbeddingsLike, other_encoder
from isthmus.core.geometry import Array, centroid, evenly_spaced, normalize
from isthmus.errors import BridgeError, FingerprintError
from isthmus.spaces.overlap import overlap

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.bridges.joined import JoinedSpaces
    from isthmus.spaces.space import Space

FIT_ROWS = 50_000
"""Most overlap items of a modality, and most rows behind a centroid, that a baseline is fit on, evenly spaced."""


def spaces_with(bridge: JoinedSpaces, modality: str) -> list[BridgeSpace]:
    """The spaces of a bridge that have a route for a modality, leaves last: the first one stands for the bridge.

    Raises:
        BridgeError: None has.
    """
    having = [space for space in bridge.spaces if f"{space.name}/{modality}" in bridge.routes]
    if not having:
        raise BridgeError(f"the bridge has no route for {modality!r}. Expected one of {', '.join(bridge.routes)}.")
    return sorted(having, key=lambda space: space.role == "leaf")


def space_of(
    bridge: JoinedSpaces,
    x: EmbeddingsLike,
    *,
    space: str | None = None,
    modality: str | None = None,
    force: bool = False,
    first: bool = False,
) -> str:
    """Name of the space of a bridge that embeddings belong to: the one whose encoder made them.

    Args:
        bridge: The bridge.
        x: The embeddings.
        space: The space that it must be.
        modality: Their modality in the bridge, if not their own.
        force: Where no space is of their encoder, take one of their dimension.
        first: Where several are of their encoder, and none has the name of theirs, take the first.

    Raises:
        FingerprintError: They come from an encoder that the bridge does not know.
        BridgeError: The bridge has no such route, or it could be several spaces.
    """
    if (made_by := unified_fingerprint(x)) is not None:
        raise FingerprintError(
            f"{x.space_name}/{x.modality} was projected by another bridge ({made_by[:12]}, this one is "
            f"{bridge_fingerprint(bridge)[:12]}). Project its source by this bridge, or use it with its own."
        )
    modality = modality or x.modality
    candidates = [bridge.space(space)] if space else spaces_with(bridge, modality)
    same = [each for each in candidates if each.fingerprints.get(modality) == x.fingerprint]
    same = same or [each for each in candidates if each.dim == x.dim and each.declares_encoder_of(x, modality)]
    if not same and not force:
        raise other_encoder(f"{x.space_name}/{x.modality}", x.info, candidates, modality)
    chosen = same or [each for each in candidates if each.dim == x.dim] or candidates
    named = [each for each in chosen if each.name == x.space_name] or chosen
    if len(named) > 1 and not first:
        names = ", ".join(repr(each.name) for each in named)
        raise BridgeError(f"{x.space_name}/{x.modality} could be of the spaces {names}. Say which with space=.")
    return named[0].name


class TrainingSpaces:
    """The spaces that a bridge was trained on, and how they hang together: a tree of overlaps.

    Args:
        bridge: The bridge.
        places: Where spaces lie now, by name.
    """

    def __init__(self, bridge: Bridge, places: Mapping[str, str | Path] | None = None) -> None:
        self.bridge, self.places = bridge, places or {}
        self._open: dict[str, Space] = {}

    def __getitem__(self, name: str) -> Space:
        if name not in self._open:
            self._open[name] = self.bridge.open_space(name, self.places.get(name))
        return self._open[name]

    def via(self, name: str) -> list[str]:
        """The modalities through which a space was joined to those before it, where pairs are told: to its partner."""
        if pairs := self._pairs(name):
            return next(iter(pairs.values()))
        last = {"spaces": [space.name for space in self.bridge.spaces], "config": self.bridge.config}
        for step in [*self.bridge.record.get("earlier", []), last]:
            if step["spaces"][-1] == name and step["config"].get("via"):
                via = step["config"]["via"]
                return [via] if isinstance(via, str) else list(via)
        raise BridgeError(f"the bridge does not record through which modality {name!r} was joined.")

    def partner(self, name: str) -> str | None:
        """The space that a space overlaps with: the first before it that has the modality; None for the first."""
        earlier = self._before(name)
        if not earlier:
            return None
        if pairs := self._pairs(name):
            return next(iter(pairs))
        for space in earlier:
            if any(modality in self.bridge.space(space).fingerprints for modality in self.via(name)):
                return space
        raise BridgeError(f"no space of the bridge has a modality through which {name!r} was joined.")

    def _before(self, name: str) -> list[str]:
        """Names of the spaces before one, leaves last."""
        known = [space.name for space in self.bridge.spaces]
        earlier = self.bridge.spaces[: known.index(name)]
        return [space.name for space in sorted(earlier, key=lambda space: space.role == "leaf")]

    def _pairs(self, name: str) -> dict[str, list[str]]:
        """The spaces before one that it was joined to, and through what, where the recipe says so pair by pair."""
        records = [step.get("record", {}) for step in self.bridge.record.get("earlier", [])] + [self.bridge.record]
        recorded: dict[frozenset[str], list[str]] = {}
        for record in records:
            recorded |= {frozenset(names.split(",")): list(via) for names, via in (record.get("pairs") or {}).items()}
        pairs = {before: recorded.get(frozenset((before, name))) for before in self._before(name)}
        return {before: via for before, via in pairs.items() if via}

    def path(self, name: str) -> list[str]:
        """A space, the one it overlaps with, and so on to the first."""
        after = self.partner(name)
        return [name] if after is None else [name, *self.path(after)]

    def overlap(self, name: str, *, centred: bool) -> tuple[Array, Array]:
        """Unit rows of the overlap of a space with its partner: the partner's and its own, (n, d) and (n, d')."""
        near = self.partner(name)
        assert near is not None
        there: list[Array] = []
        here: list[Array] = []
        for modality in self.via(name):
            if modality in self[near] and modality in self[name]:
                shared = overlap(self[near], self[name], modality)
                chosen = evenly_spaced(len(shared), FIT_ROWS)
                for rows, space, of in ((there, near, shared.rows_a), (here, name, shared.rows_b)):
                    unit = self[space][modality].unit(of[chosen])
                    rows.append(centred_rows(unit, centroid(unit)) if centred else unit)
        return np.concatenate(there), np.concatenate(here)

    def mean(self, name: str, modality: str) -> Array:
        """Centroid of the unit rows of a training modality."""
        items = self[name][modality]
        return centroid(items.unit(evenly_spaced(len(items), FIT_ROWS)))


def centred_rows(x: Array, mean: Array) -> Array:
    """Unit rows (n, d) with a mean (d,) removed, at unit length again."""
    return normalize(x - mean)
