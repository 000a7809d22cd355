"""A gallery that lies in a vector store: searched there, not loaded here."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.anchors import ItemRow
from isthmus.core.geometry import Array
from isthmus.errors import ConfigError
from isthmus.search.filter_parser import read_filter
from isthmus.search.filter_tree import Combination, Comparison
from isthmus.search.hits import Hits
from isthmus.search.stores.protocol import GALLERY, StoredRow
from isthmus.serve.galleries import Sample, UnknownItem, shown

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.search.stores.protocol import Store

SPREAD = 10
"""Times the items that are sampled, the first rows of a store that they are spread over."""


class StoredGallery:
    """One gallery of a vector store, asked by one thread at a time; what `Gallery` is for items in memory.

    Args:
        name: What the store calls it.
        modality: Of its items.
        store: The store.
    """

    def __init__(self, name: str, modality: str, store: Store) -> None:
        self.name, self.modality, self.store = name, modality, store
        self._own = Comparison(GALLERY, "==", name)
        self._lock = threading.RLock()
        self._count = store.count(self._own)

    @classmethod
    def of(cls, store: Store) -> list[StoredGallery]:
        """The galleries of a store.

        Raises:
            ConfigError: It holds none.
        """
        galleries = [cls(name, modality, store) for name, modality in store.galleries().items()]
        if not galleries:
            raise ConfigError(f"{store.where}: holds no rows. Fill it first: isthmus project X.bridge S.space --into.")
        return galleries

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> list[str]:
        """Names of the metadata columns, without paths."""
        with self._lock:
            return [name for name in self.store.columns() if not name.endswith("_path")]

    def row(self, name: str) -> StoredRow:
        """A row by its id.

        Raises:
            UnknownItem: There is none.
        """
        with self._lock:
            found = self.store.fetch(self.name, [name])
        if not found:
            raise UnknownItem(f"the gallery {self.name!r} has no item {name[:80]!r}. /items lists what it holds.")
        return found[0]

    def vector(self, name: str) -> Array:
        """(dim,) unit row of an id."""
        return self.row(name).vector

    def item(self, bridge: Bridge, name: str) -> ItemRow:
        """An item as its matches are explained: by its place alone, as a store keeps no rows of the items' own spaces.

        Raises:
            UnknownItem: There is no such item.
        """
        return ItemRow(self.modality, row=self.vector(name))

    def page(self, offset: int, limit: int) -> list[str]:
        """Some ids, in the order of the store."""
        with self._lock:
            return self.store.page(self.name, offset, limit)

    def sample(self, most: int, seed: int = 0) -> Sample:
        """Items spread evenly over the first rows of the store, so that it is not read whole."""
        with self._lock:
            first = self.store.page(self.name, 0, SPREAD * most)
            spread = np.linspace(0, len(first) - 1, min(most, len(first)), dtype=int)
            rows = self.store.fetch(self.name, [first[place] for place in spread])
        return Sample([row.id for row in rows], np.stack([row.vector for row in rows]), [row.metadata for row in rows])

    def metadata(self, name: str) -> dict[str, Any]:
        """All that is known of an item, paths included."""
        return self.row(name).metadata

    def shown_metadata(self, name: str) -> dict[str, Any]:
        """What is known of an item as it is told to others: without paths of this machine."""
        return shown(self.metadata(name))

    def search(self, queries: Array, k: int, where: str | None) -> list[Hits]:
        """The k nearest items of each of (q, dim) queries whose metadata pass a filter.

        Raises:
            ConfigError: The filter cannot be read.
        """
        given = read_filter(where)
        tree = self._own if given is None else Combination("and", (self._own, given))
        with self._lock:
            return [Hits(self.store.search(query, k, filter=tree)) for query in queries]

    def add(self, ids: Sequence[str], vectors: Array, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Refuse: a store is filled where its rows are projected and hashed.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("a store is not changed here. Fill it: isthmus project X.bridge S.space --into URL.")

    def delete(self, ids: Sequence[str]) -> None:
        """Refuse, as `add`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("a store is not changed here. Fill it: isthmus project X.bridge S.space --into URL --prune.")
