"""One search, whatever is searched: query items are embedded, and an index, a store or galleries answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.anchors import ItemRow
from isthmus.bridges.explain import Explainer
from isthmus.bridges.fingerprint import bridge_fingerprint, unified_fingerprint
from isthmus.bridges.raw_items import EncoderChoice, embed_raw
from isthmus.bridges.training_spaces import space_of
from isthmus.core.geometry import Array
from isthmus.errors import ConfigError, FingerprintError, SpaceError
from isthmus.search.hits import Hit, Hits
from isthmus.search.index import SearchIndex
from isthmus.search.query import QueryItem, combine
from isthmus.spaces.selection import Selection

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.encoders.protocol import Encoder
    from isthmus.search.stores.protocol import Store
    from isthmus.spaces.embeddings import Embeddings


@dataclass(frozen=True)
class QueryPart:
    """Item that is searched with, before it is embedded.

    Attributes:
        modality: Its modality.
        value: A text, the path of a file, or the id of an item of `source`.
        weight: Its share; below zero what is like it is ranked lower.
        source: A modality of a space that holds the item, instead of a raw file.
    """

    modality: str
    value: str
    weight: float = 1.0
    source: Embeddings | None = None

    def __str__(self) -> str:
        times = "" if self.weight == 1 else f"{self.weight:g} x "
        return f"{times}{self.value}"


def embed_parts(
    bridge: Bridge,
    parts: Sequence[QueryPart],
    *,
    encoder: str | Encoder | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    force: bool = False,
) -> list[QueryItem]:
    """Query items in the unified space: raw ones through the bridge's encoders, items of a space by projection.

    Raises:
        ConfigError: There is none.
        EncoderError: An item cannot be encoded.
        SpaceError: A space has no such id.
    """
    if not parts:
        raise ConfigError("search needs a query: --text, --image, --audio, --point-cloud, --id or --also.")
    choice = EncoderChoice(encoder=encoder, options=encoder_options, device=device, force=force)
    items = []
    for part in parts:
        if part.source is not None:
            one = Selection.of_ids(part.source, [part.value])
            item = own_item(bridge, one, force=force)
            vector = bridge.project(one, force=force)[0]
            items.append(QueryItem(vector, part.weight, part.modality, item.space, item.own))
            continue
        space, own = embed_raw(bridge, [part.value], part.modality, choice)
        vector = bridge.project(own, space=space, modality=part.modality)[0]
        items.append(QueryItem(vector, part.weight, part.modality, space, own[0]))
    return items


def own_item(bridge: Bridge, one: Selection, *, force: bool = False) -> ItemRow:
    """An item of a space as it is explained: its own row, or its place alone where this bridge projected it before."""
    row = one.take([0])[0]
    if unified_fingerprint(one) is not None:
        return ItemRow(one.modality, row=row)
    return ItemRow(one.modality, space_of(bridge, one, force=force, first=True), row)


def search_galleries(
    bridge: Bridge,
    items: Sequence[QueryItem],
    galleries: Mapping[str, Embeddings],
    *,
    k: int = 10,
    filter: str | None = None,
    balance: str | None = None,
    force: bool = False,
) -> list[Hit]:
    """Search modalities of spaces, projected already or not, together.

    Args:
        bridge: The bridge.
        items: The query (see `embed_parts`).
        galleries: By name, what is searched.
        k: How many hits.
        filter: Only items whose metadata pass.
        balance: "none" or "quota" (see `SearchIndex.search`); None is "quota" where modalities are several.
        force: Project embeddings of another encoder too.

    Raises:
        ConfigError: There is no gallery, or the filter cannot be read.
        FingerprintError: A gallery comes from an encoder that the bridge does not know.
    """
    from isthmus.search.gallery import index_of

    if not galleries:
        raise ConfigError("search needs something to search: --gallery T.space/M, --in URL, or a world that join made.")
    return search_index(bridge, items, index_of(bridge, galleries, force=force), k=k, filter=filter, balance=balance)


def search_index(
    bridge: Bridge,
    items: Sequence[QueryItem],
    index: SearchIndex,
    *,
    k: int = 10,
    filter: str | None = None,
    balance: str | None = None,
    exact: bool = False,
) -> list[Hit]:
    """Search an index of this bridge; arguments as in `search_galleries`.

    Raises:
        FingerprintError: The index is of another bridge.
    """
    check_unified(bridge, index)
    chosen = balance or ("quota" if len(set(index.modalities)) > 1 else "none")
    return index.search_items(items, k, filter=filter, balance=chosen, exact=exact)


def check_unified(bridge: Bridge, index: SearchIndex) -> None:
    """Refuse an index of another bridge.

    Raises:
        FingerprintError: The index is of another bridge.
    """
    own = bridge_fingerprint(bridge)
    if index.unified not in (None, own):
        raise FingerprintError(
            f"the index is of another bridge ({str(index.unified)[:12]}, this one is {own[:12]}). "
            "Make it again: isthmus join, or SearchIndex.from_bridge."
        )


def search_store(
    store: Store,
    items: Sequence[QueryItem],
    *,
    k: int = 10,
    filter: str | None = None,
    balance: str | None = None,
    exact: bool = False,
) -> list[Hit]:
    """Search a vector store; `balance="quota"` asks for each modality by itself and interleaves the answers."""
    from isthmus.search.filter_parser import read_filter
    from isthmus.search.filter_tree import Combination, Comparison
    from isthmus.search.nearest import interleave

    vector: Array = combine(items)
    tree = read_filter(filter)
    modalities = store.modalities() if balance != "none" else []
    if balance == "none" or (balance is None and len(modalities) < 2):
        return store.search(vector, k, filter=tree, exact=exact)
    parts = []
    for name in modalities:
        own = Comparison("modality", "==", name)
        both = own if tree is None else Combination("and", (own, tree))
        parts.append(store.search(vector, k, filter=both, exact=exact))
    return interleave(parts, k)


def explain_hits(
    bridge: Bridge,
    items: Sequence[QueryItem],
    hits: Sequence[Hit],
    *,
    sources: Mapping[str, Embeddings | Selection] | None = None,
    index: SearchIndex | None = None,
    space_paths: Mapping[str, str | Path] | None = None,
    top: int = 5,
) -> Hits:
    """Say why each hit matches: the shared items that carry the match, with their shares (see `Bridge.explain`).

    Args:
        bridge: The bridge.
        items: The query (see `embed_parts`); of several the one that weighs most is explained, as a sum of meanings
            has no posterior of its own.
        hits: What was found.
        sources: By gallery, the modalities of spaces that the hits are items of: with them the shares are exact where
            the bridge's routes tell what they recognise.
        index: The index that was searched, whose rows stand in for items that no source holds.
        space_paths: Where the bridge's spaces lie now, by name.
        top: Names for each hit.

    Returns:
        The hits, each with `why`; None where the item is neither in a source nor in the index.

    Raises:
        BridgeError: The routes do not tell, and the bridge's spaces are not there.
    """
    explainer = Explainer(bridge, space_paths=space_paths)
    heaviest = max(items, key=lambda item: item.weight)
    query = ItemRow(heaviest.modality or "", heaviest.space, heaviest.own, np.asarray(heaviest.vector, np.float32))
    explained = Hits()
    for hit in hits:
        hit_item = _item_of(bridge, hit, sources or {}, index)
        explained.append(replace(hit, why=None if hit_item is None else explainer.explain(query, hit_item, top=top)))
    return explained


def _item_of(
    bridge: Bridge, hit: Hit, sources: Mapping[str, Embeddings | Selection], index: SearchIndex | None
) -> ItemRow | None:
    """A hit as it is explained, from the modality that it came from, or else by its row in the index."""
    named = sources.get(hit.gallery)
    others = [each for each in sources.values() if hit.modality in ("", each.modality)]
    for source in [named] if named is not None else others:
        try:
            rows = source.whole.rows_of([hit.id]) if isinstance(source, Selection) else source.rows_of([hit.id])
        except SpaceError:
            continue
        whole = source.whole if isinstance(source, Selection) else source
        return own_item(bridge, Selection(whole, rows), force=True)
    if index is None or index.centroids:  # rows of a centred index are no places of the unified space
        return None
    return ItemRow(hit.modality, row=index.embeddings[hit.row])
