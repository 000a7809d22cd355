"""The service without HTTP: galleries, encoders and handles, and what can be asked of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from isthmus import __version__
from isthmus.bridges.explain import explains, explanation, posterior_of_rows
from isthmus.core.geometry import Array
from isthmus.encoders.pipeline.pool import DecodePool
from isthmus.errors import ConfigError
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
        row, own = found.vector(name), found.own_row(name)
        return Embedded(row, self.space_of(found), found.modality, None if own is None else own[0])

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
            "explains": explains(self.bridge),
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
            UnknownItem: The gallery has no such item, or what the items mean in their own spaces is not known.
            BridgeError: The bridge recognises no named items on their routes.
        """
        gallery.row(name)
        hit = gallery.own_row(name)
        if query.own is None or hit is None:
            raise UnknownItem("a vector, or an item that was added here, has no meaning in a space to explain it by.")
        p, mine = posterior_of_rows(self.bridge, query.space, query.modality, query.own[None])
        q, theirs = posterior_of_rows(self.bridge, self.space_of(gallery), gallery.modality, hit)
        if mine != theirs:
            raise UnknownItem("the two items' spaces recognise different shared items.")
        found = explanation(p[0], q[0], mine)
        return {"exact": found.exact, "concepts": [{"text": text, "share": share} for text, share in found.shares]}

    def space_of(self, gallery: AnyGallery) -> str:
        """The bridge's space that the items of a gallery belong to."""
        source = gallery.source
        if source is None:
            return ""
        names = [
            each.name for each in self.bridge.spaces if each.fingerprints.get(gallery.modality) == source.fingerprint
        ]
        return names[0] if names else source.space_name

    def forget_map(self) -> None:
        """Have the map laid out anew when it is next asked for, after items have changed."""
        with self._lock:
            self._map = None

    def close(self) -> None:
        """End the processes of the service."""
        self.encoders.close()
        for pool in self._previews.values():
            pool.__exit__(None, None, None)
