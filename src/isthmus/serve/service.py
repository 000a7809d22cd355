"""The service without HTTP: galleries, encoders and handles, and what can be asked of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from isthmus import __version__
from isthmus.bridges.anchors import ItemRow
from isthmus.bridges.explain import Explainer
from isthmus.core.geometry import Array
from isthmus.encoders.pipeline.pool import DecodePool
from isthmus.errors import BridgeError, ConfigError
from isthmus.items.decoding.worker import OK, REJECTED
from isthmus.items.preview import TYPES, Preview, item_of
from isthmus.search.query import QueryItem, combine
from isthmus.serve.galleries import Gallery, UnknownItem, hit_json
from isthmus.serve.layout import lay_out, shown_columns
from isthmus.serve.limits import Limits
from isthmus.serve.queries import Embedded, Handles, QueryEncoders
from isthmus.serve.stored import StoredGallery

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge


AnyGallery = Gallery | StoredGallery
"""Items in memory, or in a vector store."""


class Wanted(NamedTuple):
    """One search of one gallery, as the batcher takes it."""

    gallery: AnyGallery
    vector: Array
    k: int
    filter: str | None


class Service:
    """A bridge with galleries to search.

    Args:
        bridge: The bridge.
        galleries: What is searched; their names must differ.
        name: What the bridge is called on the page.
        limits: Bounds.
        editable: Whether items may be added and deleted.
        encoders: By `space` or `space/modality`, an encoder to take instead of the recorded one.
        device: Where models go.
        space_paths: Where the bridge's spaces lie now, by name: matches on routes that do not tell what they recognise
            are explained from them.

    Raises:
        ConfigError: There is no gallery, or two have one name.
    """

    def __init__(
        self,
        bridge: Bridge,
        galleries: Sequence[AnyGallery],
        *,
        name: str = "",
        limits: Limits | None = None,
        editable: bool = False,
        encoders: Mapping[str, str] | None = None,
        device: str | None = None,
        space_paths: Mapping[str, str | Path] | None = None,
    ) -> None:
        if not galleries:
            raise ConfigError("the service has nothing to search. Give --gallery SPACE/MODALITY, once or more.")
        names = [gallery.name for gallery in galleries]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"two galleries are called {max(names, key=names.count)!r}. Import one under another name."
            )
        self.bridge, self.name, self.editable = bridge, name, editable
        self.limits = limits or Limits()
        self.galleries = {gallery.name: gallery for gallery in galleries}
        self.encoders = QueryEncoders(
            bridge, decode_seconds=self.limits.decode_seconds, encoders=dict(encoders or {}), device=device
        )
        self.handles = Handles(self.limits.handles)
        self._explainer = Explainer(bridge, space_paths=space_paths)
        self._explains = self._explainer.ready()
        self._explaining = threading.Lock()
        self._previews: dict[str, DecodePool] = {}
        self._map: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def gallery(self, name: str) -> AnyGallery:
        """The gallery of a name.

        Raises:
            UnknownItem: There is none.
        """
        if name not in self.galleries:
            raise UnknownItem(f"there is no gallery {name!r}. Expected one of {', '.join(self.galleries)}.")
        return self.galleries[name]

    def item(self, gallery: str, name: str) -> Embedded:
        """An item of a gallery as a part of a query.

        Raises:
            UnknownItem: There is no such gallery, or no such item in it.
        """
        found = self.gallery(gallery)
        known = found.item(self.bridge, name)
        return Embedded(found.vector(name), known.space, found.modality, known.own)

    def describe(self) -> dict[str, Any]:
        """What the service holds and takes, json-ready."""
        estimate = self.bridge.record.get("estimate")
        return {
            "bridge": {
                "name": self.name,
                "method": self.bridge.method,
                "dim": self.bridge.dim,
                "estimate": estimate if isinstance(estimate, dict) else None,
            },
            "galleries": [
                {"name": each.name, "modality": each.modality, "items": len(each), "columns": each.columns}
                for each in self.galleries.values()
            ],
            "queries": self.encoders.modalities(),
            "editable": self.editable,
            "explains": self._explains,
            "version": __version__,
        }

    def search(self, wanted: Sequence[Wanted]) -> list[list[dict[str, Any]]]:
        """The hits of searches, each best first; those of one gallery and filter share one product."""
        answers: list[list[dict[str, Any]]] = [[] for _ in wanted]
        groups: dict[tuple[int, str | None], list[int]] = {}
        for number, one in enumerate(wanted):
            groups.setdefault((id(one.gallery), one.filter), []).append(number)
        for (_, where), numbers in groups.items():
            queries = np.stack([wanted[number].vector for number in numbers])
            most = max(wanted[number].k for number in numbers)
            found = wanted[numbers[0]].gallery.search(queries, most, where)
            for number, hits in zip(numbers, found, strict=True):
                answers[number] = [hit_json(hit) for hit in hits[: wanted[number].k]]
        return answers

    def combine(self, vectors: Sequence[Array], weights: Sequence[float]) -> Array:
        """One query vector of several items.

        Raises:
            ConfigError: They cancel each other.
        """
        return combine([QueryItem(vector, weight) for vector, weight in zip(vectors, weights, strict=True)])

    def preview(self, gallery: AnyGallery, name: str) -> tuple[bytes, str]:
        """Bytes and content type of an item as a page shows it.

        Raises:
            UnknownItem: There is no such item, or nothing of it can be shown.
        """
        item = item_of(gallery.metadata(name), gallery.modality, name)
        if item is None or gallery.modality not in TYPES:
            raise UnknownItem(f"the metadata of {name!r} names no file that can be shown.")
        with self._lock:
            if gallery.modality not in self._previews:
                decoder = Preview(gallery.modality, self.limits.media_bytes)
                self._previews[gallery.modality] = DecodePool(decoder, 1)
            pool = self._previews[gallery.modality]
        ((kind, value),) = pool.submit([item])[0].result(timeout=self.limits.decode_seconds)
        if kind == OK:
            return value, TYPES[gallery.modality]
        raise UnknownItem(f"{name!r} cannot be shown: {value}.") if kind == REJECTED else value

    def map(self) -> dict[str, Any]:
        """The map of all galleries, laid out once."""
        with self._lock:
            if self._map is None:
                self._map = self._lay_out()
            return self._map

    def _lay_out(self) -> dict[str, Any]:
        galleries = [gallery for gallery in self.galleries.values() if len(gallery)]
        share = max(1, self.limits.map_items // max(1, len(galleries)))
        samples = [gallery.sample(share) for gallery in galleries]
        xy = lay_out([sample.vectors for sample in samples])
        return {
            "galleries": [gallery.name for gallery in galleries],
            "x": np.round(xy[:, 0], 4).tolist(),
            "y": np.round(1.0 - xy[:, 1], 4).tolist(),
            "gallery": [number for number, sample in enumerate(samples) for _ in sample.ids],
            "ids": [name for sample in samples for name in sample.ids],
            "columns": shown_columns([row for sample in samples for row in sample.metadata]),
        }

    def explain(self, query: Embedded, gallery: AnyGallery, name: str) -> dict[str, Any]:
        """The shared texts that carry a match, with their shares.

        Args:
            query: The item that is searched by.
            gallery: Where the hit is.
            name: The hit's id.

        Raises:
            UnknownItem: The gallery has no such item, or neither the routes nor spaces at hand tell what items mean.
        """
        hit = gallery.item(self.bridge, name)
        asked = ItemRow(query.modality, query.space, query.own, query.row)
        try:
            with self._explaining:  # what is read of the spaces is kept for the next match, by one thread at a time
                found = self._explainer.explain(asked, hit)
        except BridgeError:  # its message names folders of this machine
            raise UnknownItem(
                f"the match with {name[:80]!r} cannot be explained: the bridge's routes do not tell what they "
                "recognise, and its spaces are not at hand. Start the service with --space NAME=PATH."
            ) from None
        concepts = [{"text": text, "share": share} for text, share in found.shares]
        return {"exact": found.exact, "basis": found.basis, "concepts": concepts}

    def forget_map(self) -> None:
        """Have the map laid out anew when it is next asked for, after items have changed."""
        with self._lock:
            self._map = None

    def close(self) -> None:
        """End the processes of the service."""
        self.encoders.close()
        for pool in self._previews.values():
            pool.__exit__(None, None, None)
