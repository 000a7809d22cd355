"""One search, whatever is searched: query items are embedded, and an index, a store or galleries answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.core.geometry import Array
from isthmus.errors import ConfigError, FingerprintError
from isthmus.search.hits import Hit
from isthmus.search.index import SearchIndex
from isthmus.search.query import QueryItem, combine

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.encoders.protocol import Encoder
    from isthmus.search.stores.protocol import Store
    from isthmus.spaces.embeddings import Embeddings


@dataclass(frozen=True)
class QueryPart:
    """One item that is searched with, before it is embedded.

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
    from isthmus.spaces.selection import Selection

    if not parts:
        raise ConfigError("search needs a query: --text, --image, --audio, --point-cloud, --id or --also.")
    items = []
    for part in parts:
        vector: Any
        if part.source is not None:
            one = Selection.of_ids(part.source, [part.value])
            vector = bridge.project(one, force=force)
        else:
            vector = bridge.encode(
                [part.value],
                modality=part.modality,
                encoder=encoder,
                encoder_options=encoder_options,
                device=device,
                force=force,
            )
        items.append(QueryItem(vector[0], part.weight, part.modality))
    return items


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
    own = bridge_fingerprint(bridge)
    if index.unified not in (None, own):
        raise FingerprintError(
            f"the index is of another bridge ({str(index.unified)[:12]}, this one is {own[:12]}). "
            "Make it again: isthmus join, or SearchIndex.from_bridge."
        )
    chosen = balance or ("quota" if len(set(index.modalities)) > 1 else "none")
    return index.search_items(items, k, filter=filter, balance=chosen, exact=exact)


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
    from isthmus.search.filters import Combination, Comparison, read_filter
    from isthmus.search.index import interleave

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


def explanations(bridge: Bridge, items: Sequence[QueryItem], hits: Sequence[Hit]) -> list[Any] | None:
    """Why each hit matches, by the bridge's own account, or None where it gives none."""
    explain = getattr(bridge, "explain_hit", None)
    return None if explain is None else [explain(items, hit) for hit in hits]
