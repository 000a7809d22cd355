"""What items are recognised as where a bridge's routes do not tell: posteriors over shared items, read from its spaces.

Two items are looked up among the same named items, each in its own space where that has them, as a bridge by the method
posterior would; an item whose space has none of them is looked up in the unified space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isthmus.bridges.steps.softmax import posterior
from isthmus.core.geometry import Array, centroid, evenly_spaced, normalize
from isthmus.core.modality import TEXT
from isthmus.errors import BridgeError, IsthmusError
from isthmus.spaces.overlap import MINIMUM_OVERLAP, overlap

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings, RowNumbers
    from isthmus.spaces.space import Space

TEMPERATURE = 0.05
"""Temperature of the posteriors; the default of the method posterior."""
MOST_NAMES, MEAN_ROWS = 20_000, 5_000
"""Most named items that are looked among, and rows behind a modality's mean, both evenly spaced."""


class ItemRow(NamedTuple):
    """Item of a search that is explained, by its row.

    Attributes:
        modality: Its modality.
        space: The bridge's space that it belongs to; empty where only its place in the unified space is known.
        own: (d,) its row in that space, or None.
        row: (dim,) its row in the unified space, or None where `own` gives it.
    """

    modality: str
    space: str = ""
    own: Array | None = None
    row: Array | None = None


@dataclass(frozen=True)
class Anchors:
    """Named items that two items are looked up among.

    Attributes:
        names: (n,) what they are called.
        modality: Their modality.
        rows: By name of a space that has them, their rows there.
        spaces: By name, the open spaces.
    """

    names: list[str]
    modality: str
    rows: dict[str, RowNumbers]
    spaces: dict[str, Space]


class AnchorReader:
    """Finds and reads the named items of a bridge's spaces; what was read is kept for the next item.

    Args:
        bridge: The bridge.
        space_paths: Where its spaces lie now, by name.
    """

    def __init__(self, bridge: Bridge, space_paths: Mapping[str, str | Path] | None = None) -> None:
        self.bridge, self.places = bridge, dict(space_paths or {})
        self._spaces: dict[str, Space] | None = None
        self._faults: list[str] = []
        self._anchors: dict[tuple[str, str], Anchors] = {}
        self._keys: dict[tuple[int, str], tuple[Array, Array]] = {}
        self._means: dict[tuple[str, str], Array] = {}

    def spaces(self) -> dict[str, Space]:
        """The bridge's spaces that can be opened, by name.

        Raises:
            BridgeError: None can.
        """
        if self._spaces is None:
            self._spaces = {}
            for space in self.bridge.spaces:
                try:
                    self._spaces[space.name] = self.bridge.open_space(space.name, self.places.get(space.name))
                except IsthmusError as error:
                    self._faults.append(str(error))
        if not self._spaces:
            raise BridgeError(f"the routes do not tell what they recognise, and {self._faults[0]}")
        return self._spaces

    def anchors(self, a: str, b: str) -> Anchors:
        """Named items for items of two spaces, of which either may be unknown: texts before all else.

        Raises:
            BridgeError: No space of the bridge has any.
        """
        if (a, b) not in self._anchors:
            self._anchors[a, b] = self._find(a, b)
        return self._anchors[a, b]

    def _find(self, a: str, b: str) -> Anchors:
        """Named items that two spaces share, or else those of one of them or of any space; texts before all else."""
        spaces = self.spaces()
        every = list(dict.fromkeys(name for space in spaces.values() for name in space.modalities))
        modalities = sorted(every, key=lambda name: name != TEXT)
        for modality in modalities:
            if a != b and all(name in spaces and modality in spaces[name] for name in (a, b)):
                shared = self._shared(spaces[a], spaces[b], modality)
                if shared is not None:
                    return shared
            for name in dict.fromkeys([a, b, *spaces]):
                if name in spaces and modality in spaces[name]:
                    rows = evenly_spaced(len(spaces[name][modality]), MOST_NAMES)
                    words = names_of(spaces[name][modality], rows)
                    return Anchors(words, modality, {name: rows}, {name: spaces[name]})
        raise BridgeError("no space of the bridge has an item with a name. Give --space NAME=PATH of one that has.")

    def _shared(self, a: Space, b: Space, modality: str) -> Anchors | None:
        """Named items of one modality that two spaces share, or None where they share too few."""
        try:
            shared = overlap(a, b, modality, least=MINIMUM_OVERLAP)
        except IsthmusError:
            return None
        some = evenly_spaced(len(shared), MOST_NAMES)
        rows = {a.name: shared.rows_a[some], b.name: shared.rows_b[some]}
        return Anchors(names_of(a[modality], rows[a.name]), modality, rows, {a.name: a, b.name: b})

    def posterior(self, item: ItemRow, anchors: Anchors) -> Array:
        """(n,) how probable each named item is, given an item."""
        own = item.space if item.space in anchors.rows and item.own is not None else ""
        keys, mean = self._read(anchors, own)
        if item.modality != anchors.modality:
            mean = self._mean(item, own)
        row = item.own if own else self._unified(item)
        x = normalize(normalize(np.asarray(row, np.float32)[None]) - mean)
        p: Array = posterior(x, keys, TEMPERATURE)[0]
        return p

    def _read(self, anchors: Anchors, own: str) -> tuple[Array, Array]:
        """Centred unit rows of the named items in a space, or in the unified one (no name), and the mean removed."""
        key = (id(anchors), own)
        if key not in self._keys:
            name = own or next(iter(anchors.rows))
            embeddings = anchors.spaces[name][anchors.modality]
            if own:
                rows = embeddings.unit(anchors.rows[name])
            else:
                rows = self.bridge.project(embeddings.take(anchors.rows[name]), space=name, modality=anchors.modality)
            mean = centroid(rows)
            self._keys[key] = (normalize(rows - mean), mean)
        return self._keys[key]

    def _mean(self, item: ItemRow, own: str) -> Array:
        """The mean of an item's modality over its space, in that space or in the unified one."""
        key = (f"{item.space}/{item.modality}", own)
        if key not in self._means:
            space = self.spaces().get(item.space)
            if space is None:  # an item of an index: any space of its modality gives its mean
                space = next((each for each in self.spaces().values() if item.modality in each), None)
            if space is None or item.modality not in space:
                return np.zeros(self.bridge.dim, np.float32)
            embeddings = space[item.modality]
            rows = embeddings.take(evenly_spaced(len(embeddings), MEAN_ROWS))
            if not own:
                rows = self.bridge.project(rows, space=space.name, modality=item.modality)
            self._means[key] = centroid(normalize(rows))
        return self._means[key]

    def _unified(self, item: ItemRow) -> Array:
        """Row of an item in the unified space, projected where only its own is known."""
        if item.row is not None:
            return item.row
        if item.own is None:
            raise BridgeError("an item without a row, in its own space or in the unified one, cannot be explained.")
        projected: Array = self.bridge.project(item.own[None], space=item.space, modality=item.modality)[0]
        return projected


def names_of(embeddings: Embeddings, rows: Sequence[int] | RowNumbers) -> list[str]:
    """Names of items for a person: their texts where the space holds them, else their ids."""
    table = embeddings.metadata
    column = "text" if "text" in table.column_names else "id"
    return [str(value) for value in table.column(column).take(np.asarray(rows)).to_pylist()]
