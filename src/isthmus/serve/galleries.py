"""Galleries: what is searched. One modality of one space, projected through the bridge, with ids and metadata."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from isthmus.bridges.anchors import ItemRow
from isthmus.core.geometry import Array
from isthmus.core.runtime import numpy_generator
from isthmus.errors import ConfigError
from isthmus.search.ask import own_item
from isthmus.search.hits import Hit, Hits
from isthmus.search.index import SearchIndex
from isthmus.spaces.selection import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings


class UnknownItem(ConfigError):
    """An id or a gallery that the service does not hold, or an item of which nothing can be shown."""


class Sample(NamedTuple):
    """Some items of a gallery.

    Attributes:
        ids: Their n ids.
        vectors: (n, dim) unit rows.
        metadata: What is known of each, paths included.
    """

    ids: list[str]
    vectors: Array
    metadata: list[dict[str, Any]]


class Gallery:
    """Items that are searched together, changed and searched by one thread at a time.

    Args:
        name: `space/modality`, or what the user calls it.
        modality: Of its items.
        index: Unit rows with ids and metadata, of this gallery alone.
        source: Where the items come from, by which a match is explained.
    """

    def __init__(self, name: str, modality: str, index: SearchIndex, source: Embeddings | None = None) -> None:
        self.name, self.modality, self.index, self.source = name, modality, index, source
        self._source_rows: dict[str, int] | None = None
        self._added: set[str] = set()
        self._lock = threading.RLock()
        self._note()

    def _note(self) -> None:
        """Keep what would be made anew by every request: ids, their rows, and the columns."""
        self.ids = self.index.ids
        self.rows = {name: row for row, name in enumerate(self.ids)}
        self._embeddings = self.index.embeddings
        self._metadata = self.index.metadata

    @classmethod
    def of(cls, bridge: Bridge, embeddings: Embeddings, *, force: bool = False) -> Gallery:
        """Project a modality of a space through the bridge.

        Raises:
            FingerprintError: The bridge does not know its encoder.
        """
        name = f"{embeddings.space_name}/{embeddings.modality}"
        return cls(name, embeddings.modality, SearchIndex.from_bridge(bridge, embeddings, force=force), embeddings)

    @classmethod
    def of_index(cls, index: SearchIndex) -> list[Gallery]:
        """The galleries that an index holds, each by itself; those without a name are called by their modality.

        An index of one gallery is taken as it is, an approximate index of several is left behind.
        """
        labels = list(zip(index.galleries, index.modalities, strict=True))
        kinds = list(dict.fromkeys(labels))
        if len(kinds) == 1:
            return [cls(kinds[0][0] or kinds[0][1] or "index", kinds[0][1], index)]
        ids, rows, metadata = index.ids, index.raw, index.metadata
        places: dict[tuple[str, str], list[int]] = {kind: [] for kind in kinds}
        for place, label in enumerate(labels):
            places[label].append(place)
        galleries = []
        for (gallery, modality), own in places.items():
            about = metadata.take(own) if metadata.column_names else None
            part = SearchIndex(
                rows[own], [ids[place] for place in own], about, modalities=modality, unified=index.unified
            )
            galleries.append(cls(gallery or modality or "index", modality, part))
        return galleries

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def columns(self) -> list[str]:
        """Names of the metadata columns, without the id and without paths."""
        return [name for name in self._metadata.column_names if name != "id" and not name.endswith("_path")]

    def row(self, name: str) -> int:
        """Row of an id.

        Raises:
            UnknownItem: There is none.
        """
        if name not in self.rows:
            raise UnknownItem(f"the gallery {self.name!r} has no item {name[:80]!r}. /items lists what it holds.")
        return self.rows[name]

    def vector(self, name: str) -> Array:
        """(dim,) unit row of an id."""
        with self._lock:
            return np.array(self._embeddings[self.row(name)], dtype=np.float32)

    def item(self, bridge: Bridge, name: str) -> ItemRow:
        """An item as its matches are explained: by its own row, or by its place alone where that is all that is known.

        Raises:
            UnknownItem: There is no such item.
        """
        self.row(name)
        with self._lock:
            if self.source is not None and self._source_rows is None:
                self._source_rows = {each: row for row, each in enumerate(self.source.ids)}
            row = None if name in self._added else (self._source_rows or {}).get(name)
        if self.source is not None and row is not None:
            return own_item(bridge, Selection(self.source, [row]), force=True)
        # Rows of a centred index are no places of the unified space.
        return ItemRow(self.modality, row=None if self.index.centroids else self.vector(name))

    def page(self, offset: int, limit: int) -> list[str]:
        """Some ids, in the order of the rows."""
        return self.ids[offset : offset + limit]

    def sample(self, most: int, seed: int = 0) -> Sample:
        """All items, or some drawn at random, in order."""
        count = len(self)
        rows = np.sort(numpy_generator(seed).permutation(count)[:most]) if count > most else np.arange(count)
        ids = [self.ids[row] for row in rows]
        return Sample(ids, self.vectors(rows), [self.metadata(name) for name in ids])

    def vectors(self, rows: NDArray[np.int64]) -> Array:
        """(n, dim) unit rows by number."""
        with self._lock:
            return np.array(self._embeddings[rows], dtype=np.float32)

    def metadata(self, name: str) -> dict[str, Any]:
        """All that is known of an item, paths included."""
        with self._lock:
            found: dict[str, Any] = self._metadata.slice(self.row(name), 1).to_pylist()[0]
        return {key: value for key, value in found.items() if key != "id"}

    def shown_metadata(self, name: str) -> dict[str, Any]:
        """What is known of an item as it is told to others: without paths of this machine."""
        return shown(self.metadata(name))

    def search(self, queries: Array, k: int, where: str | None) -> list[Hits]:
        """The k nearest items of each of (q, dim) queries whose metadata pass a filter.

        Raises:
            ConfigError: The filter cannot be read.
        """
        with self._lock:
            return self.index.search(queries, k, filter=where)

    def add(self, ids: Sequence[str], vectors: Array, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Add items, or replace those of the same ids."""
        with self._lock:
            self.index.add(ids, vectors, list(metadata), modality=self.modality, replace=True)
            self._added.update(ids)
            self._note()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove items.

        Raises:
            UnknownItem: There is no such item; then none is removed.
        """
        with self._lock:
            for name in ids:
                self.row(name)
            self.index.delete(ids)
            self._note()


def shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without the id, which stands beside it, and without paths of this machine."""
    return {key: value for key, value in metadata.items() if key != "id" and not key.endswith("_path")}


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as the service gives it."""
    return {"id": hit.id, "score": round(float(hit.score), 6), "metadata": shown(hit.metadata)}
